//! `entrepot pull` brings in what an engine then needs, and says in words why it can't.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use entrepot_testkit::proxy::{Finished, Signal, run};
use entrepot_testkit::{
    Access, Fault, Gate, Image, Index, On, PATIENCE, Proxy, Registry, Request, Response, Server,
    User,
};
use serde_json::Value;

use crate::bad_disk::FailingCalls;
use crate::command_line::unread;
use crate::{ALPINE, BINARY, PRIVATE, in_front_of, one_layer};

/// A registry with an image of two layers for two architectures, and a proxy in front of it.
fn world() -> (Registry, Proxy, Index) {
    let access = Access::bearer([]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    let index = Index::random(&["amd64", "arm64"], 2, 100_000);
    registry.push_index(ALPINE, "latest", &index);
    let proxy = in_front_of(&registry);
    (registry, proxy, index)
}

#[track_caller]
fn lines(finished: &Finished) -> Vec<Value> {
    finished.output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_engine_then_needs_nothing_from_the_registry_but_the_tag() {
    let (registry, proxy, index) = world();
    let pulled = proxy.run(&["pull", "--platform", "linux/amd64", "alpine"]);
    assert_eq!(pulled.code, Some(0), "{}", pulled.output);
    let requests = registry.requests();
    assert_eq!(requests.blob_gets().len(), 3, "{}", requests.summary());
    assert_eq!(requests.manifest_gets().len(), 2, "{}", requests.summary());
    registry.forget_requests();

    let engine = proxy.puller().pull(ALPINE, "latest").unwrap();
    assert_eq!(engine.manifests[1].digest, index.images[0].manifest.digest);
    for blob in &engine.blobs {
        assert_eq!(blob.cache_status(), "entrepot; hit");
    }
    let requests = registry.requests();
    assert_eq!(requests.len(), 1, "{}", requests.summary());
    assert_eq!(requests.manifest_heads().len(), 1, "{}", requests.summary());
}

#[test]
fn an_engine_is_served_when_the_registry_is_gone() {
    let (mut registry, proxy, _index) = world();
    let pulled = proxy.run(&["pull", "--platform", "linux/amd64", "alpine"]);
    assert_eq!(pulled.code, Some(0), "{}", pulled.output);
    registry.stop();
    proxy.puller().pull(ALPINE, "latest").unwrap();
    let again = proxy.run(&["pull", "--platform", "linux/amd64", "alpine"]);
    assert_eq!(again.code, Some(0), "all of it is here: {}", again.output);
}

#[test]
fn layers_come_side_by_side() {
    let registry = Registry::open();
    let image = Image::random(4, 300_000);
    registry.push(ALPINE, "1", &image);
    let proxy = in_front_of(&registry);
    let gate = Gate::new();
    for layer in &image.layers {
        registry.fault(On::get(&layer.digest), Fault::Stall(1000, gate.clone()));
    }
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| proxy.run(&["pull", "alpine:1"]));
        gate.wait_until_reached(image.layers.len());
        gate.open();
        let pulled = pull.join().unwrap();
        assert_eq!(pulled.code, Some(0), "{}", pulled.output);
    });
    for blob in image.blobs() {
        assert!(proxy.keeps(&blob.digest));
    }
}

#[test]
fn platforms_are_chosen() {
    let (registry, proxy, index) = world();
    let both = |digest: &str| proxy.keeps(digest);
    let arm = proxy.run(&["pull", "--platform", "linux/arm64", "alpine"]);
    assert_eq!(arm.code, Some(0), "{}", arm.output);
    assert!(both(&index.images[1].layers[0].digest));
    assert!(!both(&index.images[0].layers[0].digest));
    let all = proxy.run(&["pull", "--all-platforms", "alpine", "--json"]);
    assert_eq!(all.code, Some(0), "{}", all.output);
    assert!(index.images.iter().flat_map(Image::blobs).all(|blob| both(&blob.digest)));
    let told = lines(&all);
    let summary = &told.last().unwrap()["summary"];
    assert_eq!(summary["platforms"], serde_json::json!(["linux/amd64", "linux/arm64"]));
    assert_eq!((&summary["objects"], &summary["fetched_blobs"]), (&9.into(), &3.into()));

    registry.forget_requests();
    let several = proxy.run(&["pull", "--platform", "linux/amd64,linux/arm64/v8", "alpine"]);
    assert_eq!(several.code, Some(0), "{}", several.output);
    assert!(registry.requests().blob_gets().is_empty());
    let none = proxy.run(&["pull", "--platform", "linux/s390x", "alpine"]);
    assert_eq!(none.code, Some(3), "{}", none.output);
    assert!(none.output.contains("from: linux/amd64, linux/arm64"), "{}", none.output);
}

#[test]
fn lines_tell_people_and_json_tells_tools() {
    let (registry, proxy, blob) = one_layer(300_000);
    let told = proxy.run(&["pull", "alpine:1"]);
    let short = &blob.digest[7..19];
    for line in [
        "docker.io/library/alpine:1 is sha256:",
        &format!("{short} layer   300.0 kB pulled"),
        "docker.io/library/alpine:1 is here: 3 objects, ",
    ] {
        assert!(told.output.contains(line), "{line} is not in:\n{}", told.output);
    }
    let again = lines(&proxy.run(&["pull", "--json", "alpine:1"]));
    let image = &again[0]["image"];
    assert_eq!(image["image"], "docker.io/library/alpine:1");
    assert_eq!(image["digest"], registry.tagged(ALPINE, "1").unwrap());
    assert_eq!(image["objects"].as_array().unwrap().len(), 2);
    let done = again.iter().filter_map(|line| line.get("done"));
    assert!(done.clone().all(|done| done["from"] == "store"), "{again:?}");
    assert_eq!(done.count(), 2);
    assert_eq!(again.last().unwrap()["summary"]["fetched_bytes"], 0);
    assert!(proxy.log_contains("an image was brought in"));
}

/// `entrepot pull` of this image, and what it says.
#[track_caller]
fn fails(proxy: &Proxy, image: &str, code: i32, parts: &[&str]) {
    let failed = proxy.run(&["pull", image]);
    assert_eq!(failed.code, Some(code), "{image}: {}", failed.output);
    for part in parts {
        assert!(failed.output.contains(part), "{part} is not in:\n{}", failed.output);
    }
}

#[test]
fn a_failure_names_the_image_and_the_cure() {
    let alice = User::new("alice").pulls(PRIVATE);
    let access = Access::bearer([alice]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    registry.push(PRIVATE, "1", &Image::random(1, 1000));
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let proxy = in_front_of(&registry);
    fails(&proxy, "alpine:2", 3, &["docker.io/library/alpine:2", "check its name and tag"]);
    fails(&proxy, "team/private:1", 4, &["docker.io/team/private:1", "[[registry]]"]);
    fails(&proxy, "registry.example/app", 1, &["registry.example/app:latest", "intercept-also"]);
    fails(&proxy, "Alpine", 2, &["\"Alpine\" is not the name of an image"]);
    fails(&proxy, "https://docker.io/alpine", 2, &["is not the name of an image"]);
    assert_eq!(proxy.run(&["pull", "--platform", "amd64", "alpine"]).code, Some(2));
    assert_eq!(proxy.run(&["pull"]).code, Some(2));

    registry.fault_always(On::path("/v2/library"), Fault::status(429));
    fails(&proxy, "alpine:1", 6, &["docker.io/library/alpine:1", "no more pulls for now"]);
}

#[test]
fn a_registry_that_is_away_is_told_from_one_that_refuses() {
    let (mut registry, proxy, _blob) = one_layer(1000);
    registry.stop();
    fails(&proxy, "alpine:3", 5, &["docker.io/library/alpine:3", "can't be asked", "check"]);
    let many = proxy.run(&["pull", "alpine:3", "registry.example/app"]);
    assert_eq!(many.code, Some(5), "all are tried, the first failure counts: {}", many.output);
    assert!(many.output.contains("registry.example/app"), "{}", many.output);
}

#[test]
fn what_could_not_be_kept_is_a_failure() {
    let (_registry, proxy, _blob) = one_layer(4_000_000);
    let failing = FailingCalls::new(&proxy, &["fsync:error=EIO", "fdatasync:error=EIO"]);
    fails(&proxy, "alpine:1", 1, &["docker.io/library/alpine:1", "could not keep it"]);
    drop(failing);
}

#[test]
fn other_bytes_are_never_an_image() {
    let (registry, proxy, blob) = one_layer(300_000);
    registry.fault_always(On::get(&blob.digest), Fault::FlipBit(1000));
    fails(&proxy, "alpine:1", 1, &["docker.io/library/alpine:1", "digest"]);
    assert!(!proxy.keeps(&blob.digest));
}

#[test]
fn without_a_proxy_it_says_how_to_start_one() {
    let proxy = Proxy::builder(BINARY).start();
    let server = "http://127.0.0.1:1";
    let alone = proxy.run(&["pull", "alpine", "--server", server]);
    assert_eq!(alone.code, Some(1), "{}", alone.output);
    assert!(alone.output.contains("start one with `entrepot serve`"), "{}", alone.output);
}

#[test]
fn a_proxy_that_refuses_one_image_is_asked_for_the_next() {
    let summary = r#"{"summary":{"image":"docker.io/library/b:1","digest":"sha256:0","platforms":[],
        "objects":1,"bytes":1,"fetched_blobs":0,"fetched_bytes":0}}"#;
    let summary = summary.replace('\n', "") + "\n";
    let refusal = r#"{"errors":[{"message":"too many pulls"}]}"#;
    let server = Server::http(move |request| {
        let is_first = request.target.contains("library%2Fa");
        let (status, body) = if is_first { (429, refusal) } else { (200, &*summary) };
        Response::new(status).body(body.to_owned())
    });
    let url = format!("http://{}", server.address());
    let environment = [("ENTREPOT_DATA_DIR", "/nonexistent")];
    let told = run(BINARY.as_ref(), &["pull", "--server", &url, "a:1", "b:1"], &environment);
    assert_eq!(told.code, Some(1), "{}", told.output);
    let refused = "docker.io/library/a:1 was not pulled: the proxy answered 429: too many pulls";
    assert!(told.output.contains(refused), "{}", told.output);
    assert!(told.output.contains("docker.io/library/b:1 is here"), "{}", told.output);

    let nobody = ["pull", "--server", "http://127.0.0.1:1", "a:1", "b:1"];
    let told = run(BINARY.as_ref(), &nobody, &environment);
    assert_eq!(told.code, Some(1), "{}", told.output);
    for name in ["library/a:1", "library/b:1"] {
        let missed = format!("{name} was not pulled: no proxy answers");
        assert!(told.output.contains(&missed), "{}", told.output);
    }
}

#[test]
fn a_proxy_that_ends_in_the_middle_is_told_as_such() {
    let (registry, proxy, blob) = one_layer(1_000_000);
    let gate = Gate::new();
    registry.fault(On::get(&blob.digest), Fault::Stall(800_000, gate.clone()));
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| proxy.run(&["pull", "alpine:1"]));
        gate.wait_until_reached(1);
        proxy.signal(Signal::KILL);
        let broken = pull.join().unwrap();
        assert_eq!(broken.code, Some(1), "{}", broken.output);
        let expected = "has ended the connection before it was done";
        assert!(broken.output.contains(expected), "{}", broken.output);
        assert!(!broken.output.contains("chunk"), "{}", broken.output);
    });
    gate.open();
}

#[test]
fn who_stops_reading_gets_the_images_all_the_same() {
    let (_registry, proxy, blob) = one_layer(300_000);
    let config = proxy.config_file().display().to_string();
    let (code, words) = unread(&["pull", "alpine:1", "--config", &config]);
    assert_eq!((code, &*words), (Some(0), ""));
    assert!(proxy.keeps(&blob.digest));
}

#[test]
fn the_api_is_asked_in_one_way() {
    let proxy = Proxy::builder(BINARY).start();
    for query in ["", "?image=A", "?image=a&image=b", "?image=a&platform=x", "?image=a&tag=1"] {
        let request = Request::new("POST", format!("/api/v1/pull{query}"));
        let answer = proxy.operator().send(&request).unwrap();
        assert_eq!(answer.status, 400, "{query}");
    }
    assert_eq!(proxy.admin("/api/v1/pull?image=a").status, 405);
}

#[test]
fn what_came_before_an_interrupt_need_not_come_again() {
    let (registry, mut proxy, blob) = one_layer(1_000_000);
    let gate = Gate::new();
    registry.fault(On::get(&blob.digest), Fault::Stall(800_000, gate.clone()));
    let config = proxy.config_file();
    let pull = Command::new(BINARY)
        .args(["pull", "alpine:1", "--config"])
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    gate.wait_until_reached(1);
    wait_for_bytes(&proxy, 500_000);
    rustix::process::kill_process(rustix::process::Pid::from_child(&pull), Signal::INT).unwrap();
    let interrupted = pull.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&interrupted.stderr).into_owned();
    assert_eq!(interrupted.status.code(), Some(1), "{words}");
    assert!(words.contains("interrupted: what has come stays"), "{words}");
    proxy.wait_for_log(&["nobody listens"]);
    assert!(!proxy.keeps(&blob.digest), "nothing half-done is to be seen");
    proxy.restart(Signal::KILL);
    gate.open();
    registry.forget_requests();

    let resumed = proxy.run(&["pull", "alpine:1"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.output);
    let requests = registry.requests().blob_gets().path(&blob.digest);
    let range = requests.iter().next().and_then(|request| request.headers.get("range"));
    assert!(range.is_some_and(|range| range.starts_with("bytes=")), "{}", requests.summary());
    assert!(proxy.keeps(&blob.digest));
    proxy.assert_store_is_sound();
}

/// Waits until so much of the one download under way is here.
#[track_caller]
fn wait_for_bytes(proxy: &Proxy, bytes: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let fetches = proxy.admin("/api/v1/fetches").json();
        if fetches["fetches"][0]["bytes"].as_u64().is_some_and(|come| come >= bytes) {
            return;
        }
        assert!(Instant::now() < deadline, "{fetches}");
        // Only the API tells how far a download is.
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_terminal_has_a_bar_a_layer() {
    let (_registry, proxy, blob) = one_layer(300_000);
    let config = proxy.config_file().display().to_string();
    let command =
        format!("stty cols 100 rows 40; TERM=xterm exec {BINARY} pull alpine:1 --config {config}");
    let ran = Command::new("script").args(["-qec", &command, "/dev/null"]).output();
    let ran = ran.expect("script: apt-get install bsdutils");
    let output = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{output}");
    let bar = format!("{} layer  [{}] ", &blob.digest[7..19], "#".repeat(30));
    let filled =
        output.split(['\r', '\n']).any(|line| line.contains(&bar) && line.contains("pulled"));
    assert!(filled, "{output:?}");
    assert!(output.contains("docker.io/library/alpine:1 is here: 3 objects"), "{output}");
}

/// A list of images on standard input, and what comes of it.
fn pull_list(proxy: &Proxy, arguments: &[&str], list: &str) -> Finished {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .arg("--config")
        .arg(proxy.config_file())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let output = [ended.stdout, ended.stderr].concat();
    Finished { code: ended.status.code(), output: String::from_utf8_lossy(&output).into_owned() }
}

#[test]
fn lists_are_pulled_and_summed_up() {
    let registry = Registry::open();
    for tag in ["1", "2", "3"] {
        registry.push(ALPINE, tag, &Image::random(1, 10_000));
    }
    let proxy = in_front_of(&registry);
    let list = "# ours\n\nalpine:1\nalpine:2  # and the next\nalpine:9\nalpine:1\n";
    let pulled = pull_list(&proxy, &["pull", "-", "alpine:3"], list);
    assert_eq!(pulled.code, Some(3), "{}", pulled.output);
    for part in [
        "3 of 4 images are here (",
        "1 failed: docker.io/library/alpine:9",
        "pulled  docker.io/library/alpine:2",
        "docker.io/library/alpine:3 is here: 3 objects, ",
    ] {
        assert!(pulled.output.contains(part), "{part} is not in:\n{}", pulled.output);
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("images.txt").display().to_string();
    std::fs::write(&file, "alpine:1\nalpine:2\n").unwrap();
    let again = proxy.run(&["pull", "-f", &file, "--json", "--jobs", "2"]);
    assert_eq!(again.code, Some(0), "{}", again.output);
    let told = lines(&again);
    assert_eq!(told.last().unwrap()["total"]["here"], 2, "{told:?}");
    let done = told.iter().filter_map(|line| line.get("done"));
    assert!(done.clone().all(|done| done["image"].as_str().unwrap().contains("alpine:")));
    assert_eq!(done.count(), 4);

    let wrong = pull_list(&proxy, &["pull", "-f", "-"], "alpine:1\nAlpine\n");
    assert_eq!(wrong.code, Some(2), "{}", wrong.output);
    assert!(wrong.output.contains("standard input:2: \"Alpine\""), "{}", wrong.output);
    assert!(!wrong.output.contains("is here"), "nothing is pulled then: {}", wrong.output);
    assert_eq!(pull_list(&proxy, &["pull", "-"], "# none\n").code, Some(2));
    let json = pull_list(&proxy, &["pull", "-"], "{\"items\": []}");
    assert!(json.code == Some(2) && json.output.contains("has JSON"), "{}", json.output);
    assert_eq!(proxy.run(&["pull", "-f", "/nowhere/images.txt"]).code, Some(1));
}

#[test]
fn images_come_side_by_side_but_no_more_than_wanted() {
    let registry = Registry::open();
    let images: Vec<_> = (0..4).map(|_| Image::random(1, 100_000)).collect();
    let tags = ["1", "2", "3", "4"];
    for (tag, image) in tags.iter().zip(&images) {
        registry.push(ALPINE, tag, image);
    }
    let proxy = in_front_of(&registry);
    let gate = Gate::new();
    for image in &images {
        registry.fault(On::get(&image.layers[0].digest), Fault::Stall(1000, gate.clone()));
    }
    std::thread::scope(|scope| {
        let names = ["pull", "alpine:1", "alpine:2", "alpine:3", "alpine:4", "--jobs", "2"];
        let pull = scope.spawn(move || proxy.run(&names));
        gate.wait_until_reached(2);
        gate.open();
        let pulled = pull.join().unwrap();
        assert_eq!(pulled.code, Some(0), "{}", pulled.output);
        assert!(pulled.output.contains("4 images are here: "), "{}", pulled.output);
    });
}

#[test]
fn a_terminal_has_a_line_on_all_images() {
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 300_000));
    registry.push(ALPINE, "2", &Image::random(1, 300_000));
    let proxy = in_front_of(&registry);
    let config = proxy.config_file().display().to_string();
    let pull = format!("{BINARY} pull alpine:1 alpine:2 alpine:9 --config {config}");
    let command = format!("stty cols 100 rows 40; TERM=xterm exec {pull}");
    let ran = Command::new("script").args(["-qec", &command, "/dev/null"]).output();
    let ran = ran.expect("script: apt-get install bsdutils");
    let output = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(output.contains("of 3 images, "), "{output:?}");
    assert!(output.contains("2 of 3 images are here ("), "{output}");
    let last = output.trim_end().lines().last().unwrap();
    assert!(last.contains("1 failed: docker.io/library/alpine:9"), "{output:?}");
}
