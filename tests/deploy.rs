//! What docs/deploy holds is what the programs that read it take, and fits what entrepot reads.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "the steps of a test are no product code: one that can't go on has failed"
)]

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Map, Value as Json};
use yaml_rust2::{Yaml, YamlLoader};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy").join(name)
}

fn documents(name: &str) -> Vec<Yaml> {
    let text = fs::read_to_string(path(name)).unwrap();
    YamlLoader::load_from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn of_kind<'d>(documents: &'d [Yaml], kind: &str) -> &'d Yaml {
    documents
        .iter()
        .find(|document| document["kind"].as_str() == Some(kind))
        .unwrap_or_else(|| panic!("there is no {kind}"))
}

fn run(command: &mut Command, package: &str) -> Output {
    command.output().unwrap_or_else(|error| panic!("{error}: apt-get install {package}"))
}

/// What `entrepot config show` tells: every key with its value, those of registries too.
fn shown(file: Option<&Path>, environment: &[(&str, &str)]) -> Map<String, Json> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_entrepot"));
    command.args(["config", "show", "--json"]).env_clear().envs(environment.iter().copied());
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    let output = run(&mut command, "entrepot");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Json = serde_json::from_slice(&output.stdout).unwrap();
    let keys = told.get("keys").and_then(Json::as_object).unwrap().iter();
    let keys = keys.map(|(key, shown)| (key.clone(), shown["value"].clone()));
    let entries = told.get("registries").and_then(Json::as_array).unwrap();
    let entries = entries.iter().filter_map(Json::as_object);
    let of_entries = entries.flatten().map(|(key, value)| (key.clone(), value.clone()));
    keys.chain(of_entries).collect()
}

fn configured(shown: &Map<String, Json>, key: &str) -> PathBuf {
    shown[key].as_str().unwrap().into()
}

/// Everything that restricts the service counts, from 0 to 10: see systemd-analyze(1).
#[test]
fn the_unit_is_hardened_and_systemd_takes_it() {
    let unit = path("entrepot.service");
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(&unit);
    let output = run(&mut analyze, "systemd");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "more than 2.0: {told}");
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(complaints(&installed(directory.path())), Vec::<String>::new());
}

/// The unit in a directory of the test's own. Its program has to be there for it to be right.
fn installed(directory: &Path) -> PathBuf {
    let unit = directory.join("entrepot.service");
    let text = fs::read_to_string(path("entrepot.service")).unwrap();
    let binary = env!("CARGO_BIN_EXE_entrepot");
    fs::write(&unit, text.replace("/usr/local/bin/entrepot", binary)).unwrap();
    unit
}

/// What systemd says of a unit and its drop-ins; it takes what it says it ignores for no failure.
fn complaints(unit: &Path) -> Vec<String> {
    let mut verify = Command::new("systemd-analyze");
    let output = run(verify.args(["verify", "--man=no"]).arg(unit), "systemd");
    let told = String::from_utf8_lossy(&output.stderr);
    told.lines().filter(|line| line.contains("entrepot.service")).map(str::to_owned).collect()
}

/// The block in the README that begins with `first`.
fn quoted(first: &str) -> String {
    let readme = fs::read_to_string(path("README.md")).unwrap();
    let begin = readme.find(first).unwrap_or_else(|| panic!("the README has no {first}"));
    readme[begin..].split("```").next().unwrap().to_owned()
}

/// Without a password in a file that everybody can read.
#[test]
fn systemd_hands_the_secrets_over() {
    let directory = tempfile::tempdir().unwrap();
    let unit = installed(directory.path());
    let drop_in = directory.path().join("entrepot.service.d/secrets.conf");
    fs::create_dir(drop_in.parent().unwrap()).unwrap();
    let text = quoted("# /etc/systemd/system/entrepot.service.d/secrets.conf\n");
    fs::write(&drop_in, &text).unwrap();
    assert_eq!(complaints(&unit), Vec::<String>::new());
    fs::write(&drop_in, text.replace("LoadCredential=", "LoadCredentail=")).unwrap();
    assert_eq!(complaints(&unit).len(), 2, "the drop-in is not read");

    // What the configuration names is what is handed over; the token is read at once.
    let configuration = quoted("# /etc/entrepot/entrepot.toml\n");
    let handed_over = directory.path().join("credentials");
    fs::create_dir(&handed_over).unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix("LoadCredential=")) {
        let name = line.split(':').next().unwrap();
        assert!(configuration.contains(&format!("/run/credentials/entrepot.service/{name}\"")));
        fs::write(handed_over.join(name), "0123456789abcdef").unwrap();
    }
    let handed_over = handed_over.to_str().unwrap();
    let file = directory.path().join("entrepot.toml");
    fs::write(&file, configuration.replace("/run/credentials/entrepot.service", handed_over))
        .unwrap();
    let shown = shown(Some(&file), &[("STATE_DIRECTORY", "/")]);
    assert!(shown["admin-token-file"].is_string());
    assert!(shown["password-file"].is_string(), "{shown:?}");
}

#[test]
fn compose_configures_what_there_is() {
    let documents = documents("compose.yaml");
    let service = &documents[0]["services"]["entrepot"];
    let environment = service["environment"].as_hash().unwrap();
    let environment =
        environment.iter().map(|(name, value)| (name.as_str().unwrap(), value.as_str().unwrap()));
    let environment: Vec<_> = environment.chain([("STATE_DIRECTORY", "/")]).collect();
    let shown = shown(None, &environment);
    let volumes = service["volumes"].as_vec().unwrap();
    let mounted = |directory: &Path| {
        let end = format!(":{}", directory.display());
        volumes.iter().any(|volume| volume.as_str().unwrap().ends_with(&end))
    };
    assert!(mounted(&configured(&shown, "ca-dir")) && mounted(&configured(&shown, "cache-dir")));
    let ports = service["ports"].as_vec().unwrap();
    assert_eq!(ports[0].as_str(), Some("3128:3128"));
    assert_eq!(shown["listen"][0], "0.0.0.0:3128");
    // The host reaches it, and nobody else does.
    assert_eq!(ports[1].as_str(), Some("127.0.0.1:3129:3129"));
    assert_eq!(shown["admin-listen"], "0.0.0.0:3129");
    assert_eq!(shown["admin-look-from"], serde_json::json!(["gateway"]));
    // What clients are told is what each of them can use.
    assert!(shown["external-url"].is_null());
}

/// Whoever runs the line has the status page on that machine, and nobody else has.
#[test]
fn the_lines_of_the_pages_show_the_status_page_to_the_host_alone() {
    for page in ["README.md", "docs/deploy/README.md"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
        let line = text.split("docker run -d --name entrepot ").nth(1).unwrap();
        let line = line.split("```").next().unwrap().replace('\\', " ");
        let words: Vec<_> = line.split_whitespace().collect();
        let of = |option: &str| -> Vec<&str> {
            let pairs = words.windows(2).filter(|pair| pair[0] == option);
            pairs.map(|pair| pair[1]).collect()
        };
        assert_eq!(of("-p"), ["3128:3128", "127.0.0.1:3129:3129"], "{page}");
        let environment = of("-e").into_iter().map(|one| one.split_once('=').unwrap());
        let environment: Vec<_> = environment.chain([("STATE_DIRECTORY", "/")]).collect();
        let shown = shown(None, &environment);
        assert_eq!(shown["admin-listen"], "0.0.0.0:3129", "{page}");
        assert_eq!(shown["admin-look-from"], serde_json::json!(["gateway"]), "{page}");
        assert!(shown["admin-token-file"].is_null(), "{page}");
    }
}

#[test]
fn the_manifests_fit_together_and_what_entrepot_reads() {
    let documents = documents("kubernetes.yaml");
    let deployment = of_kind(&documents, "Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let text = of_kind(&documents, "ConfigMap")["data"]["entrepot.toml"].as_str().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("entrepot.toml");
    fs::write(&file, text).unwrap();
    let shown = shown(Some(&file), &[]);

    let mounts = container["volumeMounts"].as_vec().unwrap();
    let volumes = pod["volumes"].as_vec().unwrap();
    let has = |directory: &Path| {
        mounts.iter().any(|mount| directory.starts_with(mount["mountPath"].as_str().unwrap()))
    };
    assert!(has(&configured(&shown, "ca-dir")) && has(&configured(&shown, "cache-dir")));
    assert!(has(Path::new("/etc/entrepot/entrepot.toml")));
    for mount in mounts {
        assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount:?}");
    }
    let claim = of_kind(&documents, "PersistentVolumeClaim");
    let claimed = volumes.iter().find(|volume| !volume["persistentVolumeClaim"].is_badvalue());
    assert_eq!(claimed.unwrap()["persistentVolumeClaim"]["claimName"], claim["metadata"]["name"]);

    let port = |address: &Json| address.as_str().unwrap().parse::<SocketAddr>().unwrap().port();
    let listening = port(&shown["listen"][0]);
    assert_eq!(container["ports"][0]["containerPort"].as_i64(), Some(listening.into()));
    let admin = &container["ports"][1];
    assert_eq!(admin["name"].as_str(), Some("admin"));
    assert_eq!(admin["containerPort"].as_i64(), Some(port(&shown["admin-listen"]).into()));
    let address = shown["admin-listen"].as_str().unwrap();
    assert!(address.starts_with("0.0.0.0:"), "Prometheus is another pod");
    let service = of_kind(&documents, "Service");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&service["spec"]["selector"], labels);
    assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(container[probe]["httpGet"]["path"].as_str(), Some("/healthz"), "{probe}");
        assert_eq!(container[probe]["httpGet"]["port"], container["ports"][0]["name"], "{probe}");
    }
    // A key that others can read is refused.
    let secret = volumes.iter().find(|volume| !volume["secret"].is_badvalue()).unwrap();
    assert_eq!(secret["secret"]["defaultMode"].as_i64(), Some(0o440));
}

/// The container that sets a node up, and the line that its shell runs there.
fn set_up_of_a_node(nodes: &[Yaml]) -> (&Yaml, &str) {
    let set_up = &of_kind(nodes, "DaemonSet")["spec"]["template"]["spec"]["initContainers"][0];
    let command = set_up["command"].as_vec().unwrap();
    (set_up, command.last().unwrap().as_str().unwrap())
}

#[test]
fn the_nodes_reach_the_service_and_run_a_script_that_is_there() {
    let nodes = documents("kubernetes-nodes.yaml");
    let (set_up, line) = set_up_of_a_node(&nodes);
    let service = documents("kubernetes.yaml");
    let port = of_kind(&service, "Service")["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!(line.contains(&format!("$NODE_IP:{port}/setup/containerd?fp=$FINGERPRINT")), "{line}");
    assert!(entrepot::setup::Client::named("containerd").is_some());
    let environment = set_up["env"].as_vec().unwrap();
    let names: Vec<_> = environment.iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["NODE_IP", "FINGERPRINT", "NO_PROXY"]);
    // Where entrepot's own image comes from, it is not there to be asked.
    let pod = &of_kind(&service, "Deployment")["spec"]["template"]["spec"];
    let image = pod["containers"][0]["image"].as_str().unwrap();
    assert_eq!(environment[2]["value"].as_str(), image.split('/').next());
}

/// An init container that succeeds is not run again, whatever it has not done.
#[test]
fn a_node_is_only_set_up_by_a_script_that_has_come() {
    let nodes = documents("kubernetes-nodes.yaml");
    let (_, line) = set_up_of_a_node(&nodes);
    let directory = tempfile::tempdir().unwrap();
    let curl = directory.path().join("curl");
    let tools = format!("{}:/usr/bin:/bin", directory.path().display());
    for (script, status, said) in [
        ("echo 'echo set up'; exit 0", 0, "set up\n"),
        ("echo 'echo half of it'; exit 18", 18, ""),
        ("exit 7", 7, ""),
        ("echo 'exit 3'", 3, ""),
    ] {
        fs::write(&curl, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&curl, Permissions::from_mode(0o755)).unwrap();
        let mut shell = Command::new("sh");
        let output = run(shell.args(["-c", line]).env("PATH", &tools), "dash");
        assert_eq!(output.status.code(), Some(status), "{script}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{script}");
    }
}

/// Makes a CA in `ca` by the lines that stand in the README. Returns its fingerprint.
fn made_by_hand(ca: &Path) -> String {
    let script = quoted("openssl req");
    fs::create_dir(ca).unwrap();
    let made = run(Command::new("sh").args(["-ec", &script]).current_dir(ca), "openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8_lossy(&made.stdout).split(' ').next().unwrap().to_owned()
}

/// For a pod's user and its `fsGroup`, as the Deployment has them.
#[test]
fn a_secret_volume_is_a_ca_directory_for_its_own_group() {
    const POD: u32 = 65532;
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    fs::set_permissions(home, Permissions::from_mode(0o755)).unwrap();
    let binary = home.join("entrepot");
    fs::copy(env!("CARGO_BIN_EXE_entrepot"), &binary).unwrap();
    let made = home.join("made");
    let fingerprint = made_by_hand(&made);
    // The volume as the kubelet writes it: links to a directory that is replaced as a whole.
    let volume = home.join("volume");
    let data = volume.join("..2026_01_01");
    fs::create_dir_all(&data).unwrap();
    symlink("..2026_01_01", volume.join("..data")).unwrap();
    for name in ["ca.crt", "ca.key"] {
        fs::copy(made.join(name), data.join(name)).unwrap();
        chown(data.join(name), Some(0), Some(POD)).unwrap();
        fs::set_permissions(data.join(name), Permissions::from_mode(0o440)).unwrap();
        symlink(Path::new("..data").join(name), volume.join(name)).unwrap();
    }
    for (place, mode) in [(&volume, 0o3777), (&data, 0o2755)] {
        chown(place, Some(0), Some(POD)).unwrap();
        fs::set_permissions(place, Permissions::from_mode(mode)).unwrap();
    }
    let show = |user: &str| {
        let ids = format!("--reuid={user} --regid={user} --clear-groups");
        let mut show = Command::new("setpriv");
        show.args(ids.split(' ')).arg(&binary).args(["ca", "show", "--json", "--ca-dir"]);
        show.arg(&volume).arg("--data-dir").arg(home).env_clear().current_dir(home);
        run(&mut show, "util-linux")
    };
    let pod = show("65532");
    let told = String::from_utf8_lossy(&pod.stdout).to_lowercase().replace(':', "");
    assert!(told.contains(&fingerprint), "{told}{}", String::from_utf8_lossy(&pod.stderr));
    assert!(!show("65533").status.success(), "it is not of the group");
    fs::set_permissions(data.join("ca.key"), Permissions::from_mode(0o444)).unwrap();
    let refused = show("65532");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("ca.key"), "everybody reads it: {told}");
}

#[test]
fn the_secret_is_the_one_that_the_deployment_mounts() {
    let (secret, deployment) = (documents("kubernetes-ca.yaml"), documents("kubernetes.yaml"));
    let secret = of_kind(&secret, "Secret");
    let pod = &of_kind(&deployment, "Deployment")["spec"]["template"]["spec"];
    let volumes = pod["volumes"].as_vec().unwrap();
    let mounted = volumes.iter().find(|volume| !volume["secret"].is_badvalue()).unwrap();
    assert_eq!(mounted["secret"]["secretName"], secret["metadata"]["name"]);
    let files = secret["stringData"].as_hash().unwrap();
    let files: Vec<_> = files.keys().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(files, ["ca.crt", "ca.key"]);
}

#[test]
fn the_ca_made_by_hand_is_one_that_entrepot_takes() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca");
    let fingerprint = made_by_hand(&ca);
    let mut show = Command::new(env!("CARGO_BIN_EXE_entrepot"));
    show.args(["ca", "show", "--json", "--ca-dir"]).arg(&ca).arg("--data-dir").arg(&ca);
    let shown = run(show.env_clear().current_dir(directory.path()), "nothing");
    let shown = String::from_utf8_lossy(&shown.stdout).to_lowercase().replace(':', "");
    assert!(fingerprint.len() == 64 && shown.contains(&fingerprint), "{fingerprint}: {shown}");
}

/// The line of docs/clients prints what stands in a script, so that the two can be compared.
#[test]
fn the_fingerprint_is_shown_as_scripts_have_it() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca");
    let fingerprint = made_by_hand(&ca);
    let page = fs::read_to_string(path("../clients/README.md")).unwrap();
    let begin = page.find("entrepot ca show | ").unwrap();
    let line = page[begin..].split('`').next().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_entrepot")).parent().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env_clear().env("ENTREPOT_CA_DIR", &ca).env("ENTREPOT_DATA_DIR", &ca);
    shell.env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
    let shown = run(shell.current_dir(directory.path()), "dash");
    assert_eq!(String::from_utf8_lossy(&shown.stdout).trim_end(), fingerprint);
}

/// What a `ConfigMap` of this file configures.
fn configured_by(documents: &[Yaml]) -> Map<String, Json> {
    let text = of_kind(documents, "ConfigMap")["data"]["entrepot.toml"].as_str().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("entrepot.toml");
    fs::write(&file, text).unwrap();
    shown(Some(&file), &[])
}

#[test]
fn the_replicas_fit_together_and_what_entrepot_reads() {
    let documents = documents("kubernetes-replicas.yaml");
    let set = of_kind(&documents, "StatefulSet");
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let shown = configured_by(&documents);

    // A volume for each of the directories, and of each volume a source.
    let mounts = container["volumeMounts"].as_vec().unwrap();
    let has = |directory: &Path| {
        mounts.iter().any(|mount| directory.starts_with(mount["mountPath"].as_str().unwrap()))
    };
    assert!(has(&configured(&shown, "ca-dir")) && has(&configured(&shown, "cache-dir")));
    assert!(has(Path::new("/etc/entrepot/entrepot.toml")));
    let volumes = pod["volumes"].as_vec().unwrap();
    let claims = set["spec"]["volumeClaimTemplates"].as_vec().unwrap();
    let sources: Vec<_> = volumes
        .iter()
        .map(|volume| &volume["name"])
        .chain(claims.iter().map(|claim| &claim["metadata"]["name"]))
        .collect();
    assert!(mounts.iter().all(|mount| sources.contains(&&mount["name"])), "{mounts:?}");
    assert_eq!(claims[0]["metadata"]["name"].as_str(), Some("cache"), "a disk of its own");

    // Replicas come, go and are replaced without waiting for each other, one at a time.
    assert_eq!(set["spec"]["replicas"].as_i64(), Some(3));
    assert_eq!(set["spec"]["podManagementPolicy"].as_str(), Some("Parallel"));
    assert_eq!(set["spec"]["updateStrategy"]["type"].as_str(), Some("RollingUpdate"));
    assert_eq!(set["spec"]["minReadySeconds"].as_i64(), Some(10));
    let budget = of_kind(&documents, "PodDisruptionBudget");
    assert_eq!(budget["spec"]["maxUnavailable"].as_i64(), Some(1));
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&set["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
    let spread = pod["topologySpreadConstraints"].as_vec().unwrap();
    let keys: Vec<_> = spread.iter().map(|one| one["topologyKey"].as_str().unwrap()).collect();
    assert_eq!(keys, ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]);
    assert!(spread.iter().all(|one| &one["labelSelector"]["matchLabels"] == labels));

    // The role's token is a volume that is projected where it is wanted; there is no other.
    let account = of_kind(&documents, "ServiceAccount");
    assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
    assert_eq!(pod["automountServiceAccountToken"].as_bool(), Some(false));
    let role = &account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"];
    assert!(role.as_str().unwrap().starts_with("arn:aws:iam::"));
    assert!(shown["bucket.url"].as_str().unwrap().starts_with("s3://"));
    // Its key lies where the CA does.
    assert_eq!(shown["bucket.key-file"], "bucket.key in ca-dir");

    let port = |address: &Json| address.as_str().unwrap().parse::<SocketAddr>().unwrap().port();
    assert_eq!(container["ports"][0]["containerPort"].as_i64(), Some(3128));
    assert_eq!(port(&shown["listen"][0]), 3128);
    assert_eq!(container["ports"][1]["name"].as_str(), Some("admin"));
    assert_eq!(
        container["ports"][1]["containerPort"].as_i64(),
        Some(port(&shown["admin-listen"]).into())
    );
    for (probe, page) in
        [("startupProbe", "/healthz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")]
    {
        assert_eq!(container[probe]["httpGet"]["path"].as_str(), Some(page), "{probe}");
        assert_eq!(container[probe]["httpGet"]["port"].as_str(), Some("admin"), "{probe}");
    }
    let secret = volumes.iter().find(|volume| !volume["secret"].is_badvalue()).unwrap();
    assert_eq!(secret["secret"]["defaultMode"].as_i64(), Some(0o440));
}

#[test]
fn the_services_of_the_replicas_lead_to_them() {
    let documents = documents("kubernetes-replicas.yaml");
    let set = of_kind(&documents, "StatefulSet");
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    let services: Vec<_> =
        documents.iter().filter(|document| document["kind"].as_str() == Some("Service")).collect();
    let [peers, nodes] = services.as_slice() else { panic!("{services:?}") };
    for service in [peers, nodes] {
        assert_eq!(&service["spec"]["selector"], labels);
        assert_eq!(service["spec"]["ports"][0]["targetPort"].as_str(), Some("proxy"));
        assert_eq!(service["spec"]["ports"][0]["port"].as_i64(), Some(3128));
    }
    assert_eq!(peers["spec"]["clusterIP"].as_str(), Some("None"));
    assert_eq!(peers["metadata"]["name"], set["spec"]["serviceName"]);
    let name = format!("{}.entrepot.svc:3128", peers["metadata"]["name"].as_str().unwrap());
    assert_eq!(configured_by(&documents)["peers.names"], serde_json::json!([name]));
    // Who is not ready is asked nothing by the others.
    assert!(peers["spec"]["publishNotReadyAddresses"].is_badvalue());
    assert_eq!(nodes["spec"]["externalTrafficPolicy"].as_str(), Some("Cluster"));
    // The DaemonSet sets nodes up for this port.
    let single = self::documents("kubernetes.yaml");
    let single = of_kind(&single, "Service");
    assert_eq!(nodes["spec"]["ports"][0]["nodePort"], single["spec"]["ports"][0]["nodePort"]);

    // The last one stands there as a comment.
    let text = fs::read_to_string(path("kubernetes-replicas.yaml")).unwrap();
    let begin = text.rfind("# apiVersion: v1\n").unwrap();
    let manifest: String = text[begin..]
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or_default().to_owned() + "\n")
        .collect();
    let balanced = &YamlLoader::load_from_str(&manifest).unwrap()[0];
    assert_eq!(balanced["spec"]["type"].as_str(), Some("LoadBalancer"));
    assert_eq!(&balanced["spec"]["selector"], labels);
}

#[test]
fn compose_with_a_bucket_configures_what_there_is() {
    let documents = documents("compose-bucket.yaml");
    let services = &documents[0]["services"];
    let replicas = [&services["entrepot-1"], &services["entrepot-2"]];
    let environment = replicas[0]["<<"]["environment"].as_hash().unwrap();
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (name.as_str().unwrap(), value.as_str().unwrap()))
        // Compose puts the key in from a file beside it.
        .map(|(name, value)| (name, if value.starts_with("${") { "0123abcd" } else { value }))
        .chain([("STATE_DIRECTORY", "/")])
        .collect();
    let shown = shown(None, &environment);
    for replica in replicas {
        let volumes = replica["volumes"].as_vec().unwrap();
        let mounted = |directory: &Path| {
            let end = format!(":{}", directory.display());
            volumes.iter().any(|volume| volume.as_str().unwrap().ends_with(&end))
        };
        assert!(
            mounted(&configured(&shown, "ca-dir")) && mounted(&configured(&shown, "cache-dir"))
        );
        for volume in volumes {
            let name = volume.as_str().unwrap().split(':').next().unwrap();
            assert!(!documents[0]["volumes"][name].is_badvalue(), "{name}");
        }
    }
    let peers = ["entrepot-1:3128", "entrepot-2:3128"];
    assert_eq!(shown["peers.names"], serde_json::json!(peers));
    let disks = replicas.map(|replica| replica["volumes"][1].as_str().unwrap());
    assert_ne!(disks[0], disks[1], "a store has one owner");
    // The balancer, and nobody else, says whose connections are.
    let balancer = &services["balancer"];
    let address = balancer["networks"]["fleet"]["ipv4_address"].as_str().unwrap();
    assert_eq!(shown["proxy-protocol-from"], serde_json::json!([address]));
    assert_eq!(balancer["ports"][0].as_str(), Some("3128:3128"));

    // Garage is what the replicas are told of.
    let garage: toml::Table =
        documents[0]["configs"]["garage"]["content"].as_str().unwrap().parse().unwrap();
    let served = garage["s3_api"].as_table().unwrap();
    assert_eq!(served["s3_region"].as_str(), shown["bucket.region"].as_str());
    let bound: SocketAddr = served["api_bind_addr"].as_str().unwrap().parse().unwrap();
    let endpoint = format!("http://garage:{}", bound.port());
    assert_eq!(shown["bucket.endpoint"].as_str(), Some(&*endpoint));
    let bucket = services["garage"]["environment"]["GARAGE_DEFAULT_BUCKET"].as_str().unwrap();
    let prefix = format!("s3://{bucket}/");
    assert!(shown["bucket.url"].as_str().unwrap().starts_with(&prefix));
}

#[test]
fn haproxy_takes_its_configuration() {
    let documents = documents("compose-bucket.yaml");
    let text = documents[0]["configs"]["balancer"]["content"].as_str().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("haproxy.cfg");
    fs::write(&file, text).unwrap();
    let output = run(Command::new("haproxy").arg("-c").arg("-f").arg(&file), "haproxy");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !told.contains("WARNING"), "{told}");
    for line in ["server one entrepot-1:3128", "server two entrepot-2:3128"] {
        assert!(text.contains(line), "no {line:?}");
    }
    assert!(text.contains("send-proxy-v2") && text.contains("GET /readyz"));
}

/// What is used and nothing more, below the prefix that the manifest names.
#[test]
fn the_policy_allows_what_is_used() {
    let read = |name: &str| -> Json {
        serde_json::from_str(&fs::read_to_string(path(name)).unwrap()).unwrap()
    };
    let policy = read("bucket-policy.json");
    let statements = policy["Statement"].as_array().unwrap();
    let mut actions = Vec::new();
    for statement in statements {
        assert_eq!(statement["Effect"], "Allow");
        match &statement["Action"] {
            Json::Array(several) => actions.extend(several.iter().cloned()),
            one => actions.push(one.clone()),
        }
    }
    let actions: Vec<_> = actions.iter().map(|action| action.as_str().unwrap()).collect();
    let used = [
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:AbortMultipartUpload",
        "s3:ListBucket",
    ];
    assert_eq!(actions, used);
    let shown = configured_by(&documents("kubernetes-replicas.yaml"));
    let place = shown["bucket.url"].as_str().unwrap().strip_prefix("s3://").unwrap();
    let (bucket, prefix) = place.split_once('/').unwrap();
    assert_eq!(statements[0]["Resource"], format!("arn:aws:s3:::{place}/*"));
    assert_eq!(statements[1]["Resource"], format!("arn:aws:s3:::{bucket}"));

    let lifecycle = read("bucket-lifecycle.json");
    let rule = &lifecycle["Rules"][0];
    assert_eq!(rule["Status"], "Enabled");
    assert_eq!(rule["Filter"]["Prefix"], format!("{prefix}/"));
    assert_eq!(rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"], 1);
    // The optional one of the page is a rule of the same kind.
    let page = fs::read_to_string(path("replicas.md")).unwrap();
    let block = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let aged: Json = serde_json::from_str(block).unwrap();
    assert_eq!(aged["Filter"]["Prefix"], format!("{prefix}/blobs/"));
    assert!(aged["Expiration"]["Days"].is_number());
}

#[test]
fn an_edge_is_configured_as_the_page_says() {
    let page = fs::read_to_string(path("several-sites.md")).unwrap();
    let block = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca");
    made_by_hand(&ca);
    let certificate = ca.join("ca.crt");
    let file = directory.path().join("entrepot.toml");
    let text = block.replace("/etc/entrepot/parent.crt", certificate.to_str().unwrap());
    assert_ne!(text, block);
    fs::write(&file, text).unwrap();
    let shown = shown(Some(&file), &[("STATE_DIRECTORY", "/")]);
    assert_eq!(shown["upstream.proxy"], "http://parent.corp:3128");
    assert_eq!(shown["upstream.ca-files"], serde_json::json!([certificate]));
}
