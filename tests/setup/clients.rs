//! The scripts of every client: set up once, changed by nothing the second time, undone without a
//! trace, and refused where something of somebody else's is in the way.

use entrepot::setup::Client;

use crate::machine::{Family, Outcome, Step, assert_same_tree, rendered, run};
use crate::proxy::{Proxy, Registry};
use crate::{assert_refused, proxy};

/// A client on a machine that has it.
struct Case {
    client: Client,
    arguments: &'static [&'static str],
    /// What makes the machine have it.
    prepare: &'static str,
    /// Shell code that shows what was made.
    show: &'static str,
    /// What is in that, with the proxy's address for `{}`.
    shown: &'static [&'static str],
    /// What is run in the end; nothing where nothing has to be.
    command: &'static str,
}

const NO_CONFIG: &str = "rm -rf /etc/containerd; mkdir /etc/containerd
    echo containerd.service >>$dir/installed; echo containerd.service >>$dir/running";
const K3S: &str = "mkdir -p /etc/systemd/system /etc/rancher; touch /etc/systemd/system/k3s.service
    echo k3s.service >>$dir/installed; echo k3s.service >>$dir/running";
const DOCKER: &str = "rm -rf /etc/docker; mkdir /etc/docker";
const PODMAN: &str = "rm -rf /etc/containers/*.conf.d/zz*";
const CRIO: &str = "echo crio.service >>$dir/installed; echo crio.service >>$dir/running";

const CASES: [Case; 17] = [
    Case {
        client: Client::Containerd,
        arguments: &[],
        prepare: NO_CONFIG,
        show: "cat /etc/systemd/system/containerd.service.d/zz-entrepot.conf",
        shown: &["HTTPS_PROXY=http://{}", "NO_PROXY=localhost"],
        command: "systemctl restart containerd.service",
    },
    Case {
        client: Client::Containerd,
        arguments: &["--mirror"],
        prepare: NO_CONFIG,
        show: "cat /etc/containerd/certs.d/_default/hosts.toml /etc/containerd/config.toml",
        shown: &["[host.\"http://{}\"]", "capabilities = [\"pull\"]", "config_path = "],
        command: "systemctl restart containerd.service",
    },
    Case {
        client: Client::Containerd,
        arguments: &["--mirror", "--insecure"],
        prepare: NO_CONFIG,
        show: "cat /etc/containerd/certs.d/_default/hosts.toml",
        shown: &["[host.\"http://{}\"]", "capabilities = [\"pull\", \"resolve\"]"],
        command: "systemctl restart containerd.service",
    },
    Case {
        client: Client::Containerd,
        arguments: &["--mirror", "--tls"],
        prepare: NO_CONFIG,
        show: "cat /etc/containerd/certs.d/_default/hosts.toml",
        shown: &["[host.\"https://{}\"]", "capabilities = [\"pull\", \"resolve\"]"],
        command: "systemctl restart containerd.service",
    },
    Case {
        client: Client::K3s,
        arguments: &[],
        prepare: K3S,
        show: "cat /etc/systemd/system/k3s.service.d/zz-entrepot.conf",
        shown: &["CONTAINERD_HTTPS_PROXY=http://{}", "CONTAINERD_NO_PROXY="],
        command: "systemctl restart k3s.service",
    },
    Case {
        client: Client::K3s,
        arguments: &["--mirror"],
        prepare: K3S,
        show: "cat /etc/rancher/k3s/registries.yaml",
        shown: &["\"*\":", "- \"https://{}\""],
        command: "systemctl restart k3s.service",
    },
    Case {
        client: Client::K3s,
        arguments: &["--mirror", "--insecure"],
        prepare: K3S,
        show: "cat /etc/rancher/k3s/registries.yaml",
        shown: &["\"*\":", "- \"http://{}\""],
        command: "systemctl restart k3s.service",
    },
    Case {
        client: Client::Podman,
        arguments: &[],
        prepare: PODMAN,
        show: "cat /etc/containers/containers.conf.d/zz-entrepot.conf",
        shown: &["HTTPS_PROXY=http://{}", "http_proxy = false"],
        command: "",
    },
    Case {
        client: Client::Podman,
        arguments: &[],
        prepare: CRIO,
        show: "cat /etc/systemd/system/crio.service.d/zz-entrepot.conf",
        shown: &["HTTPS_PROXY=http://{}"],
        command: "systemctl restart crio.service",
    },
    Case {
        client: Client::Podman,
        arguments: &["--mirror"],
        prepare: PODMAN,
        show: "cat /etc/containers/registries.conf.d/zz-entrepot.conf",
        shown: &["location = \"docker.io\"", "location = \"{}/docker.io\"", "insecure = false"],
        command: "",
    },
    Case {
        client: Client::Podman,
        arguments: &["--mirror", "--insecure"],
        prepare: PODMAN,
        show: "cat /etc/containers/registries.conf.d/zz-entrepot.conf",
        shown: &["location = \"docker.io\"", "location = \"{}/docker.io\"", "insecure = true"],
        command: "",
    },
    Case {
        client: Client::Buildkit,
        arguments: &[],
        prepare: "echo buildkit.service >>$dir/installed; echo buildkit.service >>$dir/running",
        show: "cat /etc/buildkit/buildkitd.toml",
        shown: &["mirrors = [\"{}/docker.io\"]", "[registry.\"{}\"]", "ca = [\"/usr/local/share/"],
        command: "systemctl restart buildkit.service",
    },
    Case {
        client: Client::Buildkit,
        arguments: &["--insecure"],
        prepare: "echo buildkit.service >>$dir/installed; echo buildkit.service >>$dir/running",
        show: "cat /etc/buildkit/buildkitd.toml",
        shown: &["mirrors = [\"{}/docker.io\"]", "[registry.\"{}\"]", "http = true"],
        command: "systemctl restart buildkit.service",
    },
    Case {
        client: Client::DockerMirror,
        arguments: &[],
        prepare: DOCKER,
        show: "python3 -m json.tool /etc/docker/daemon.json",
        shown: &["\"registry-mirrors\": [", "\"https://{}\""],
        command: "systemctl re",
    },
    Case {
        client: Client::DockerMirror,
        arguments: &["--insecure"],
        prepare: DOCKER,
        show: "python3 -m json.tool /etc/docker/daemon.json",
        shown: &["\"registry-mirrors\": [", "\"http://{}\""],
        command: "systemctl reload docker.service",
    },
    Case {
        client: Client::DockerMirror,
        arguments: &[],
        prepare: "rm -rf /etc/docker; mkdir /etc/docker
            printf '{ \"log-opts\":\\n {\"max-size\": \"1m\"},\\n\"debug\": false}' >/etc/docker/daemon.json",
        show: "python3 -m json.tool /etc/docker/daemon.json",
        shown: &["\"https://{}\"", "\"debug\": false", "\"max-size\": \"1m\""],
        command: "systemctl re",
    },
    Case {
        client: Client::Ca,
        arguments: &[],
        prepare: "",
        show: "cat /usr/local/share/ca-certificates/entrepot.crt",
        shown: &["BEGIN CERTIFICATE"],
        command: "",
    },
];

#[track_caller]
fn assert_well(outcome: &Outcome, case: &Case) {
    let name = case.client.name();
    assert_eq!(outcome.status, "0", "{name} {:?}: {}", case.arguments, outcome.told());
}

#[test]
fn every_client_is_set_up_once_and_undone_without_a_trace() {
    for case in &CASES {
        let proxy = proxy();
        let set_up = Step::set_up_of(case.client, &proxy).with_args(case.arguments);
        let steps = [
            set_up.clone().after(case.prepare),
            Step::shell(case.show),
            set_up,
            Step::undo_of(case.client, &proxy),
            Step::undo_of(case.client, &proxy),
        ];
        let outcomes = run(Family::Debian, &steps);
        for outcome in &outcomes {
            assert_well(outcome, case);
        }
        let address = format!("127.0.0.1:{}", proxy.port);
        for part in case.shown {
            let part = part.replace("{}", &address);
            let made = &outcomes[1].stdout;
            assert!(made.contains(&part), "no {part:?} in {made}\n{}", outcomes[0].told());
        }
        if case.command.is_empty() {
            assert!(!outcomes[0].commands.contains("restart"), "{}", outcomes[0].told());
        } else {
            assert!(outcomes[0].commands.contains(case.command), "{}", outcomes[0].told());
            assert!(outcomes[3].commands.contains(case.command), "{}", outcomes[3].told());
        }
        outcomes[2].assert_changed_nothing();
        assert!(outcomes[2].stdout.contains("nothing to change"), "{}", outcomes[2].told());
        assert_same_tree(&outcomes[0].before, &outcomes[3].after);
        outcomes[4].assert_changed_nothing();
        assert!(outcomes[4].stdout.contains("nothing to undo"), "{}", outcomes[4].told());
    }
}

/// What would be done is what is done, and nothing is done.
#[test]
fn every_client_can_be_looked_at_before_it_is_set_up_and_undone() {
    for case in CASES.iter().filter(|case| !case.arguments.contains(&"--insecure")) {
        let proxy = proxy();
        let set_up = Step::set_up_of(case.client, &proxy).with_args(case.arguments);
        let undo = Step::undo_of(case.client, &proxy);
        let steps = [
            set_up.clone().with_args(&["--dry-run"]).after(case.prepare),
            set_up.clone(),
            set_up.with_args(&["--dry-run"]),
            undo.clone().with_args(&["--dry-run"]),
            undo.clone(),
            undo.with_args(&["--dry-run"]),
        ];
        let outcomes = run(Family::Debian, &steps);
        for dry in [0, 2, 3, 5] {
            assert_well(&outcomes[dry], case);
            outcomes[dry].assert_changed_nothing();
            let asked = |line: &str| {
                line.starts_with("systemctl cat ") || line.starts_with("systemctl is-active ")
            };
            let commands = &outcomes[dry].commands;
            assert!(commands.lines().all(asked), "{}", outcomes[dry].told());
            let told = &outcomes[dry].stdout;
            assert!(told.ends_with("a dry run: nothing was changed"), "{told}");
        }
        // Every file that was made was told of, and is told of again when it goes.
        for (would, does, verbs) in [
            (&outcomes[0], &outcomes[1], [("created: ", "create"), ("changed: ", "change")]),
            (&outcomes[3], &outcomes[4], [("removed: ", "remove"), ("restored: ", "restore")]),
        ] {
            for (done, verb) in verbs {
                for path in does.stdout.lines().filter_map(|line| line.strip_prefix(done)) {
                    let told = format!("would {verb}: {path}");
                    assert!(would.stdout.contains(&told), "{told:?}: {}", would.told());
                }
            }
        }
        if !case.command.is_empty() {
            let restart = outcomes[1]
                .stdout
                .lines()
                .find(|line| line.contains("ed: ") && line.ends_with(".service"));
            assert!(restart.is_some(), "{}", outcomes[1].told());
            assert!(outcomes[0].stdout.contains("would re"), "{}", outcomes[0].told());
        }
        // What is written is shown.
        let address = format!("127.0.0.1:{}", proxy.port);
        let shown = case.shown.iter().find(|part| part.contains("{}"));
        if let Some(part) = shown.filter(|_| case.client != Client::DockerMirror) {
            let part = part.replace("{}", &address);
            assert!(outcomes[0].stdout.contains(&part), "{part:?}: {}", outcomes[0].told());
        }
    }
}

/// Whoever looks need not be root; help needs nothing at all.
#[test]
fn nobody_in_particular_can_look() {
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    for client in Client::ALL.into_iter().filter(|client| *client != Client::Kind) {
        let proxy = proxy();
        let prepare = format!("{NO_CONFIG}\n{K3S}\n{DOCKER}");
        let set_up = Step::set_up_of(client, &proxy).under(nobody).with_env("TMPDIR=/tmp");
        let steps = [
            set_up.clone().with_args(&["--dry-run"]).after(&prepare),
            set_up.with_args(&["--help"]),
        ];
        let outcomes = run(Family::Debian, &steps);
        let name = client.name();
        assert_eq!(outcomes[0].status, "0", "{name}: {}", outcomes[0].told());
        outcomes[0].assert_changed_nothing();
        let help = &outcomes[1].stdout;
        assert_eq!(outcomes[1].status, "0", "{name}: {}", outcomes[1].told());
        assert!(help.contains("--dry-run") && help.contains(&format!("/setup/{name}")), "{help}");
        assert!(!help.contains('#'), "{help}");
        outcomes[1].assert_changed_nothing();
    }
}

#[test]
fn a_mirror_that_does_not_answer_changes_nothing() {
    for case in CASES.iter().filter(|case| !case.shown.contains(&"BEGIN CERTIFICATE")) {
        let proxy = Proxy::start(Registry::Answers(503));
        let set_up = Step::set_up_of(case.client, &proxy).with_args(case.arguments);
        let outcomes = run(Family::Debian, &[set_up.after(case.prepare)]);
        assert_refused(&outcomes[0], "could not be ");
    }
}

#[test]
fn what_somebody_else_has_set_is_in_the_way_and_stays() {
    let theirs = [
        (Client::Containerd, "/etc/containerd/certs.d/_default/hosts.toml", "--mirror", NO_CONFIG),
        (Client::Containerd, "/etc/containerd/config.toml", "--mirror", NO_CONFIG),
        (Client::K3s, "/etc/rancher/k3s/registries.yaml", "--mirror", K3S),
        (Client::Podman, "/etc/containers/registries.conf.d/zz-entrepot.conf", "--mirror", PODMAN),
        (Client::Buildkit, "/etc/buildkit/buildkitd.toml", "--check=", ""),
    ];
    for (client, path, argument, prepare) in theirs {
        let proxy = proxy();
        let prepare = format!("{prepare}\nmkdir -p ${{path%/*}}; echo 'mine = 1' >$path");
        let prepare = format!("path={path}\n{prepare}");
        let arguments: &[&str] = if argument == "--mirror" { &[argument] } else { &[] };
        let step = Step::set_up_of(client, &proxy).with_args(arguments).after(&prepare);
        let outcomes = run(Family::Debian, &[step, Step::undo_of(client, &proxy)]);
        assert_refused(&outcomes[0], path);
        assert_eq!(outcomes[1].status, "0", "{}", outcomes[1].told());
        outcomes[1].assert_changed_nothing();
    }
    let proxy = proxy();
    let mirrors = "rm -rf /etc/docker; mkdir /etc/docker
        echo '{\"registry-mirrors\": [\"http://other\"]}' >/etc/docker/daemon.json";
    let outcomes =
        run(Family::Debian, &[Step::set_up_of(Client::DockerMirror, &proxy).after(mirrors)]);
    assert_refused(&outcomes[0], "sets \"registry-mirrors\" already");
}

#[test]
fn settings_of_docker_that_were_changed_since_are_left_to_a_person() {
    let proxy = proxy();
    let steps = [
        Step::set_up_of(Client::DockerMirror, &proxy).after(DOCKER),
        Step::undo_of(Client::DockerMirror, &proxy).after("echo >>/etc/docker/daemon.json"),
        Step::undo_of(Client::DockerMirror, &proxy).after("echo '{}' >/etc/docker/daemon.json"),
    ];
    let outcomes = run(Family::Debian, &steps);
    assert_eq!(outcomes[1].status, "1", "{}", outcomes[1].told());
    assert!(outcomes[1].stderr.contains("was changed since"), "{}", outcomes[1].told());
    assert_eq!(outcomes[2].status, "0", "{}", outcomes[2].told());
    assert!(!outcomes[2].after.contains("entrepot"), "{}", outcomes[2].after);
}

#[test]
fn a_mirror_outlives_the_proxy_and_needs_no_certificate() {
    let proxy = proxy();
    let steps = [
        Step::set_up(&proxy).after(DOCKER),
        Step::set_up_of(Client::DockerMirror, &proxy).with_args(&["--insecure"]),
        Step::undo(&proxy),
        Step::shell("ls /usr/local/share/ca-certificates; cat /etc/docker/daemon.json"),
    ];
    let outcomes = run(Family::Debian, &steps);
    assert_eq!(outcomes[2].status, "0", "{}", outcomes[2].told());
    assert!(!outcomes[3].stdout.contains("entrepot.crt"), "{}", outcomes[3].stdout);
    assert!(outcomes[3].stdout.contains("registry-mirrors"), "{}", outcomes[3].stdout);
}

/// A tag means what the mirror says: by plain HTTP, what anybody on the way says.
#[test]
fn no_engine_asks_by_plain_http_for_tags_unless_it_is_told_to() {
    for case in &CASES {
        let proxy = proxy();
        let set_up = Step::set_up_of(case.client, &proxy).with_args(case.arguments);
        let outcomes = run(Family::Debian, &[set_up.after(case.prepare), Step::shell(case.show)]);
        let (told, made) = (&outcomes[0].stderr, &outcomes[1].stdout);
        let is_insecure = case.arguments.contains(&"--insecure");
        assert_eq!(told.contains("INSECURE: whoever is on the way"), is_insecure, "{told}");
        let asks_plainly = |line: &str| {
            let line = line.trim();
            ["insecure = true", "http = true"].contains(&line)
                || ["\"http://", "- \"http://"].iter().any(|begin| line.starts_with(begin))
                || (line.contains("\"resolve\"") && !made.contains("https://"))
        };
        assert_eq!(made.lines().any(asks_plainly), is_insecure, "{made}");
    }
    let proxy = proxy();
    let step = Step::set_up_of(Client::K3s, &proxy).with_args(&["--insecure"]).after(K3S);
    assert_refused(&run(Family::Debian, &[step])[0], "--insecure and --tls are for --mirror");
    let step = Step::set_up(&proxy).with_args(&["--insecure"]);
    assert_refused(&run(Family::Debian, &[step])[0], "unknown argument: --insecure");
}

/// What an older script has set up without TLS is asked by TLS from now on, and undone as a whole.
#[test]
fn a_mirror_of_docker_changes_over_to_tls_and_back() {
    let proxy = proxy();
    let plain = Step::set_up_of(Client::DockerMirror, &proxy).with_args(&["--insecure"]);
    let secure = Step::set_up_of(Client::DockerMirror, &proxy);
    let show = Step::shell("cat /etc/docker/daemon.json");
    let undo = Step::undo_of(Client::DockerMirror, &proxy);
    for prepare in [
        DOCKER.to_owned(),
        format!("{DOCKER}; echo '{{\"debug\": true}}' >/etc/docker/daemon.json"),
    ] {
        let steps = [
            plain.clone().after(&prepare),
            secure.clone(),
            show.clone(),
            plain.clone(),
            show.clone(),
            undo.clone(),
            undo.clone(),
        ];
        let outcomes = run(Family::Debian, &steps);
        for outcome in &outcomes {
            assert_eq!(outcome.status, "0", "{}", outcome.told());
        }
        let url = format!("://127.0.0.1:{}", proxy.port);
        assert_eq!(outcomes[2].stdout.matches(&url).count(), 1, "{}", outcomes[2].stdout);
        assert!(outcomes[2].stdout.contains(&format!("\"https{url}\"")), "{}", outcomes[2].stdout);
        assert!(outcomes[4].stdout.contains(&format!("\"http{url}\"")), "{}", outcomes[4].stdout);
        assert!(outcomes[6].stdout.contains("nothing to undo"), "{}", outcomes[6].told());
        assert_same_tree(&outcomes[0].before, &outcomes[6].after);
    }
}

#[test]
fn the_certificate_stays_while_somebody_trusts_it_alone() {
    let proxy = proxy();
    let steps = [
        Step::set_up_of(Client::Ca, &proxy),
        Step::set_up(&proxy),
        Step::undo(&proxy),
        Step::undo_of(Client::Ca, &proxy),
    ];
    let outcomes = run(Family::Suse, &steps);
    assert!(outcomes[2].stdout.contains("kept: the CA certificate, used by ca"));
    assert_same_tree(&outcomes[0].before, &outcomes[3].after);
}

/// The node is this very machine: what its engine is told to run there, runs.
const KIND: &str = "stub docker <<'END'
case $1 in
ps) case \"$*\" in *=other) ;; *) echo node1 ;; esac ;;
exec)
    while [ \"$1\" != sh ]; do
        case $1 in --env) export \"$2\" ;; esac
        shift
    done
    exec \"$@\"
    ;;
esac
END
rm -rf /etc/containerd; mkdir /etc/containerd
echo containerd.service >>$dir/installed; echo containerd.service >>$dir/running";

#[test]
fn every_node_of_kind_is_set_up() {
    let proxy = proxy();
    // Not by the loopback address, which is another machine's to a node.
    let url = format!("http://0.0.0.0:{}", proxy.port);
    let script = |undo| Step::shell(&rendered(Client::Kind, &url, &proxy.fingerprint, undo));
    let steps = [
        script(false).after(KIND).with_env("NO_PROXY=.corp"),
        Step::shell("cat /etc/systemd/system/containerd.service.d/zz-entrepot.conf"),
        script(true),
        script(false).with_args(&["--name", "other"]),
        Step::set_up_of(Client::Kind, &proxy),
    ];
    let outcomes = run(Family::Debian, &steps);
    assert_eq!(outcomes[0].status, "0", "{}", outcomes[0].told());
    assert!(outcomes[0].stdout.contains("node node1:"), "{}", outcomes[0].told());
    assert!(outcomes[0].commands.contains("systemctl restart containerd.service"));
    assert!(outcomes[1].stdout.contains(&format!("HTTPS_PROXY={url}")), "{}", outcomes[1].stdout);
    assert!(outcomes[1].stdout.contains(",.corp\""), "{}", outcomes[1].stdout);
    assert_eq!(outcomes[2].status, "0", "{}", outcomes[2].told());
    assert_same_tree(&outcomes[0].before, &outcomes[2].after);
    assert_refused(&outcomes[3], "no node of a kind cluster runs here by the name of other");
    assert_refused(&outcomes[4], "the nodes can't reach");
}
