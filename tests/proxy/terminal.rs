//! What operators see on a terminal of a proxy that runs: its state, an explanation, a new
//! configuration; what a shell completes; a configuration as a file.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

use entrepot_testkit::proxy::{Finished, Signal, run};
use entrepot_testkit::{Image, Proxy, Registry, Response, Server};
use serde_json::{Value, json};

use crate::images::pull;
use crate::{ALPINE, BINARY, in_front_of, one_layer};

/// A proxy that tells this of its state.
fn telling(verdict: &str) -> Server {
    let verdict = verdict.to_owned();
    Server::http(move |request| {
        let is_well = verdict == "well";
        let sentence = if is_well { "All well." } else { "ghcr.io can't be reached." };
        let document = match request.target.split('?').next().unwrap() {
            "/api/v1/status" => json!({
                "name": "proxy.corp", "version": "1.2.3", "contact": null, "started": 1,
                "proxy_url": "http://proxy.corp:3128", "verdict": verdict, "sentence": sentence,
                "troubles": [],
            }),
            "/api/v1/registries" => json!({ "registries": [
                { "registry": "docker.io", "state": "well", "quota": {
                    "remaining": 88, "limit": 100, "window_secs": 21_600, "source": null,
                    "told": 1, "whole_again": null } },
            ] }),
            "/api/v1/fetches" => json!({ "fetches": [] }),
            "/api/v1/stats" => json!({
                "manifests": { "requests": 4, "hits": 3 }, "blobs": { "requests": 0, "hits": 0 },
                "store": { "objects": 1, "bytes": 2_000, "max_bytes": null, "free_bytes": null,
                           "min_free_bytes": null },
            }),
            // What another version does not tell is left out.
            _ => return Response::new(404).body(r#"{"errors":[{"message":"no such path"}]}"#),
        };
        Response::new(200).body(document.to_string())
    })
}

fn ask(server: &Server, arguments: &[&str]) -> Finished {
    let url = format!("http://{}", server.address());
    let arguments = [arguments, &["--server", &url]].concat();
    run(BINARY.as_ref(), &arguments, &[("ENTREPOT_DATA_DIR", "/nonexistent")])
}

#[test]
fn the_state_is_one_screen_and_an_exit_code() {
    let well = telling("well");
    let seen = ask(&well, &["status"]);
    assert_eq!(seen.code, Some(0), "{}", seen.output);
    for part in ["proxy.corp  entrepot 1.2.3", "All well.", "88 of 100", "manifests 75 % of 4"] {
        assert!(seen.output.contains(part), "{part} is not in:\n{}", seen.output);
    }
    assert!(!seen.output.contains('\u{1b}'), "no colours where there is no terminal");
    let told = ask(&well, &["status", "--json"]);
    let told: Value = serde_json::from_str(&told.output).unwrap();
    assert_eq!(told["status"]["verdict"], "well");
    assert_eq!(told["registries"]["registries"][0]["registry"], "docker.io");
    assert_eq!(told.get("savings"), None);

    let url = format!("http://{}", well.address());
    let by_variable = run(
        BINARY.as_ref(),
        &["status"],
        &[("ENTREPOT_DATA_DIR", "/nonexistent"), ("ENTREPOT_SERVER", &url)],
    );
    assert_eq!(by_variable.code, Some(0), "{}", by_variable.output);
    let elsewhere = ["status", "--admin-listen", "127.0.0.1:1"];
    let by_flag = run(
        BINARY.as_ref(),
        &elsewhere,
        &[("ENTREPOT_DATA_DIR", "/nonexistent"), ("ENTREPOT_SERVER", &url)],
    );
    assert_eq!(by_flag.code, Some(2), "flags are stronger: {}", by_flag.output);

    for verdict in ["troubled", "draining"] {
        let ill = ask(&telling(verdict), &["status"]);
        assert_eq!(ill.code, Some(1), "{verdict}: {}", ill.output);
    }
    let arguments = ["status", "--server", "http://127.0.0.1:1"];
    let nobody = run(BINARY.as_ref(), &arguments, &[("ENTREPOT_DATA_DIR", "/nonexistent")]);
    assert_eq!(nobody.code, Some(2), "{}", nobody.output);
    assert!(nobody.output.contains("no proxy answers on http://127.0.0.1:1"), "{}", nobody.output);
}

/// What `entrepot status` draws on a terminal of so many columns.
fn drawn(server: &Server, columns: usize, environment: &str, arguments: &str) -> String {
    let url = format!("http://{}", server.address());
    let command = format!(
        "stty cols {columns} rows 40; export ENTREPOT_DATA_DIR=/nonexistent TERM=xterm; \
         exec env {environment} {BINARY} status {arguments} --server {url}"
    );
    let ran = Command::new("script").args(["-qec", &command, "/dev/null"]).output();
    let ran = ran.unwrap_or_else(|error| panic!("script: apt-get install bsdutils: {error}"));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

#[test]
fn a_terminal_has_colours_and_every_line_fits() {
    let server = telling("troubled");
    let coloured = drawn(&server, 80, "", "");
    assert!(coloured.contains("\u{1b}[1;31mghcr.io can't be reached.\u{1b}[0m"), "{coloured:?}");
    for columns in [80, 40, 24] {
        let plain = drawn(&server, columns, "NO_COLOR=1", "");
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
        for line in plain.lines().map(|line| line.trim_end_matches('\r')) {
            assert!(line.chars().count() <= columns, "{columns}: {line:?}");
        }
    }
}

#[test]
fn who_watches_sees_changes_until_they_have_seen_enough() {
    let server = telling("well");
    let url = format!("http://{}", server.address());
    let watch = |arguments: &[&str]| {
        Command::new(BINARY)
            .args(["status", "--watch", "--server", &url])
            .args(arguments)
            .env("ENTREPOT_DATA_DIR", "/nonexistent")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut watching = watch(&[]);
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("proxy.corp"));
    let interrupt = |child: &std::process::Child| {
        let process = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(process, Signal::INT).unwrap();
    };
    interrupt(&watching);
    assert_eq!(watching.wait().unwrap().code(), Some(0), "Ctrl-C is an end as any");
    let mut ended = watch(&[]);
    BufReader::new(ended.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let process = rustix::process::Pid::from_child(&ended);
    rustix::process::kill_process(process, Signal::TERM).unwrap();
    assert_eq!(ended.wait().unwrap().code(), Some(0), "and so is SIGTERM");

    // Whoever has gone is not written to for ever, though nothing changes.
    let mut deserted = watch(&["--json"]);
    let mut first = String::new();
    BufReader::new(deserted.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let told: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(told["status"]["verdict"], "well");
    assert_eq!(deserted.wait().unwrap().code(), Some(0));
    let mut words = String::new();
    deserted.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert_eq!(words, "");
}

#[test]
fn a_terminal_that_watches_is_left_as_it_was() {
    let server = telling("well");
    let url = format!("http://{}", server.address());
    let command = format!(
        "stty cols 80 rows 24; export TERM=xterm ENTREPOT_DATA_DIR=/nonexistent; \
         exec {BINARY} status --watch --server {url}"
    );
    let mut watching = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script: apt-get install bsdutils");
    let (mut keyboard, mut screen) =
        (watching.stdin.take().unwrap(), watching.stdout.take().unwrap());
    let mut seen = Vec::new();
    // Ctrl-C, once it was drawn a second time.
    while String::from_utf8_lossy(&seen).matches("\u{1b}[H").count() < 2 {
        let mut piece = [0; 1024];
        let read = screen.read(&mut piece).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..read]);
    }
    keyboard.write_all(b"\x03").unwrap();
    screen.read_to_end(&mut seen).unwrap();
    assert_eq!(watching.wait().unwrap().code(), Some(0));
    let output = String::from_utf8_lossy(&seen).into_owned();
    let (before, after) = output.rsplit_once("\u{1b}[?1049l").expect("the first screen is back");
    assert!(before.contains("\u{1b}[?1049h\u{1b}[?25l\u{1b}[H"), "{before:?}");
    assert!(before.ends_with("\u{1b}[?25h"), "the cursor is back: {before:?}");
    assert!(after.contains("All well."), "what was seen last stays: {after:?}");
}

#[test]
fn a_pull_is_explained_in_the_terminal() {
    let (_registry, proxy, _) = one_layer(10_000);
    pull(&proxy, ALPINE, "1");
    let told = proxy.run(&["explain", "alpine:1"]);
    assert_eq!(told.code, Some(0), "{}", told.output);
    assert!(told.output.contains("come from the store if it agrees"), "{}", told.output);
    assert!(told.output.contains("\n- "), "{}", told.output);
    let told = proxy.run(&["explain", "alpine:1", "registry.example/app", "--json"]);
    assert_eq!(told.code, Some(0), "{}", told.output);
    let outcomes: Vec<_> = told
        .output
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["revalidated", "passed_by"]);
    assert_eq!(proxy.run(&["explain"]).code, Some(2));
    let offline = Proxy::builder(BINARY).config("offline = true").start();
    let fails = offline.run(&["explain", "alpine:2"]);
    assert_eq!(fails.code, Some(1), "{}", fails.output);
    assert!(fails.output.contains("would fail"), "{}", fails.output);
    let nobody = proxy.run(&["explain", "alpine", "--server", "http://127.0.0.1:1"]);
    assert_eq!(nobody.code, Some(2), "{}", nobody.output);
}

fn edit(proxy: &Proxy, before: &str, after: &str) {
    let text = fs::read_to_string(proxy.config_file()).unwrap();
    assert!(text.contains(before), "no {before:?} in {text}");
    fs::write(proxy.config_file(), text.replace(before, after)).unwrap();
}

#[test]
fn a_new_configuration_is_put_into_force_from_the_terminal() {
    let proxy = Proxy::builder(BINARY).config("push = \"client\"\ntunnel = \"none\"").start();
    let same = proxy.run(&["reload"]);
    assert_eq!(same.code, Some(0), "{}", same.output);
    edit(&proxy, "push = \"client\"\ntunnel = \"none\"", "push = \"deny\"\ntunnel = \"any\"");
    let reloaded = proxy.run(&["reload"]);
    assert_eq!(reloaded.code, Some(0), "{}", reloaded.output);
    assert!(reloaded.output.contains("now in force: push"), "{}", reloaded.output);
    assert!(reloaded.output.contains("at the next start: tunnel"), "{}", reloaded.output);
    let config = proxy.operator().get("/api/v1/config").unwrap().json();
    assert_eq!(config["keys"]["push"]["value"], "deny");
    assert!(proxy.log_contains("the configuration was read again"));
    let told = proxy.run(&["reload", "--json"]);
    let told: Value = serde_json::from_str(&told.output).unwrap();
    assert_eq!(told, json!({ "changed": [], "waiting_for_restart": ["tunnel"], "notes": [] }));
}

#[test]
fn what_is_wrong_with_a_new_configuration_is_told_on_the_terminal() {
    let proxy = Proxy::builder(BINARY).config("push = \"client\"").start();
    // Of whoever finds the proxy by another file.
    let other = proxy.data_dir().parent().unwrap().join("other.toml");
    fs::copy(proxy.config_file(), &other).unwrap();
    edit(&proxy, "push = \"client\"", "push = \"maybe\"\nmax-size = \"1B\"");
    let own = proxy.config_file().display().to_string();
    for file in [own, other.display().to_string()] {
        let refused = run(BINARY.as_ref(), &["reload", "--config", &file], &[]);
        assert_eq!(refused.code, Some(1), "{}", refused.output);
        for part in ["entrepot.toml:4: push: found \"maybe\"", "entrepot.toml:5: max-size: "] {
            assert!(refused.output.contains(part), "{part} is not in {}", refused.output);
        }
        let told = run(BINARY.as_ref(), &["reload", "--config", &file, "--json"], &[]);
        let document = told.output.lines().find(|line| line.starts_with('{')).unwrap();
        let document: Value = serde_json::from_str(document).unwrap();
        assert_eq!(document["problems"].as_array().unwrap().len(), 2, "{document}");
    }
    let config = proxy.operator().get("/api/v1/config").unwrap().json();
    assert_eq!(config["keys"]["push"]["value"], "client", "as it was");
    // By the address alone nobody has anything read again.
    let request = entrepot_testkit::Request::new("POST", "/api/v1/reload");
    let stranger = entrepot_testkit::Client::new(proxy.admin_address()).send(&request).unwrap();
    assert_eq!(stranger.status, 403);
    proxy.signal(Signal::TERM);
    proxy.wait_exit();
    let gone = run(BINARY.as_ref(), &["reload", "--config", &other.display().to_string()], &[]);
    assert_eq!(gone.code, Some(1), "{}", gone.output);
    assert!(gone.output.contains("no proxy answers"), "{}", gone.output);
}

#[test]
fn the_version_is_told_as_people_ask_for_it() {
    let version = run(BINARY.as_ref(), &["version"], &[]);
    assert_eq!(version.code, Some(0));
    assert_eq!(version.output, run(BINARY.as_ref(), &["--version"], &[]).output);
    let told = run(BINARY.as_ref(), &["version", "--json"], &[]);
    let told: Value = serde_json::from_str(&told.output).unwrap();
    assert_eq!(format!("entrepot {}", told["version"].as_str().unwrap()), version.output);
}

/// What bash completes this line to.
fn completed(proxy: &Proxy, line: &str) -> Vec<String> {
    let script = proxy.data_dir().join("completion.bash");
    fs::write(&script, run(BINARY.as_ref(), &["completions", "bash"], &[]).output + "\n").unwrap();
    let directory = std::path::Path::new(BINARY).parent().unwrap().display().to_string();
    let commands = format!(
        "source {script}; COMP_LINE={line:?}; COMP_POINT=${{#COMP_LINE}}; _entrepot; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script = script.display()
    );
    let ran = Command::new("bash")
        .args(["--norc", "-c", &commands])
        .env("PATH", format!("{directory}:/usr/bin:/bin"))
        .env("ENTREPOT_CONFIG", proxy.config_file())
        .output()
        .unwrap();
    let output = String::from_utf8(ran.stdout).unwrap();
    output.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn a_shell_completes_images_and_values() {
    let registry = Registry::open();
    for tag in ["1", "2"] {
        registry.push(ALPINE, tag, &Image::random(1, 1_000));
    }
    let proxy = in_front_of(&registry);
    for tag in ["1", "2"] {
        pull(&proxy, ALPINE, tag);
    }
    for is_running in [true, false] {
        if !is_running {
            proxy.signal(Signal::TERM);
            proxy.wait_exit();
        }
        assert_eq!(completed(&proxy, "entrepot rm al"), ["alpine:1", "alpine:2"]);
        let full = ["docker.io/library/alpine:1", "docker.io/library/alpine:2"];
        assert_eq!(completed(&proxy, "entrepot rm docker.io/"), full);
        // Behind a colon bash takes what follows for a word of its own.
        assert_eq!(completed(&proxy, "entrepot rm alpine:"), ["1", "2"]);
        assert_eq!(completed(&proxy, "entrepot rm alpine:1 alpine:2"), ["2"]);
    }
    assert_eq!(completed(&proxy, "entrepot serve --log "), ["text", "json"]);
    assert_eq!(completed(&proxy, "entrepot serve --log=t"), ["text"]);
    assert_eq!(completed(&proxy, "entrepot unp"), ["unpin"]);
    assert!(completed(&proxy, "entrepot import ").is_empty(), "files are the shell's");
}

#[test]
fn the_configuration_is_a_file_that_gives_the_same_one() {
    let proxy = Proxy::builder(BINARY)
        .config("tag-ttl = [{ tag = \"latest\", ttl = \"1m\" }]\nmax-size = \"10g\"")
        .tables("[[registry]]\nhost = \"r.example\"\nscheme = \"http\"")
        .start();
    let shown = proxy.run(&["config", "show", "--push", "deny"]);
    assert_eq!(shown.code, Some(0), "{}", shown.output);
    let copy = proxy.data_dir().join("copy.toml");
    fs::write(&copy, &shown.output).unwrap();
    let copy = copy.display().to_string();
    let values = |told: Finished| {
        let told: Value = serde_json::from_str(&told.output).unwrap();
        let keys = told["keys"].as_object().unwrap().clone();
        let keys: Vec<_> = keys.into_iter().map(|(key, one)| (key, one["value"].clone())).collect();
        (keys, told["registries"].clone())
    };
    let first = values(proxy.run(&["config", "show", "--push", "deny", "--json"]));
    let again = run(BINARY.as_ref(), &["config", "show", "--json", "--config", &copy], &[]);
    assert_eq!(values(again), first, "{}", shown.output);
    let example = run(BINARY.as_ref(), &["config", "example"], &[]);
    assert!(example.output.contains("#max-size = \"32GiB\""), "{}", example.output);
}

#[test]
fn what_is_ignored_and_what_has_no_effect_is_noted() {
    let environment = [("ENTREPOT_DATA_DIR", "/nonexistent"), ("REGISTRIES", "a.example")];
    for subcommand in ["show", "check"] {
        let told = run(BINARY.as_ref(), &["config", subcommand], &environment);
        assert_eq!(told.code, Some(0), "{}", told.output);
        assert!(told.output.contains("entrepot: note: REGISTRIES is ignored"), "{}", told.output);
    }
}

#[test]
fn a_proxy_that_is_not_there_is_waited_for() {
    let mut watching = Command::new(BINARY)
        .args(["status", "--watch", "--json", "--server", "http://127.0.0.1:1"])
        .env("ENTREPOT_DATA_DIR", "/nonexistent")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let told: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert!(told["error"].as_str().unwrap().contains("no proxy answers"), "{told}");
    assert!(watching.try_wait().unwrap().is_none(), "it goes on");
    watching.kill().unwrap();
    watching.wait().unwrap();
}
