//! The command line beside `serve`: checks, configuration, the CA, documents.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use entrepot_testkit::proxy::{Signal, run};
use entrepot_testkit::registry::HUB;
use entrepot_testkit::{Image, Leaf, Proxy, Registry};
use serde_json::Value;

use crate::bad_disk::FailingCalls;
use crate::images::{pull, told};
use crate::{ALPINE, BINARY, in_front_of, one_layer};

#[test]
fn a_check_asks_for_everything_that_is_configured() {
    let mut registry = Registry::open();
    let proxy = in_front_of(&registry);
    let well = proxy.run(&["check"]);
    assert_eq!(well.code, Some(0), "{}", well.output);
    for what in ["ca-dir", "cache-dir", "disk", "open files", "clock", "ca", "proxy", "readiness"] {
        assert!(well.output.contains(&format!("ok    {what}: ")), "{what}: {}", well.output);
    }
    assert!(well.output.contains("ok    registry docker.io: answers "), "{}", well.output);
    registry.stop();
    let ill = proxy.run(&["check", "--json"]);
    assert_eq!(ill.code, Some(1), "{}", ill.output);
    let document = ill.output.lines().find(|line| line.starts_with('{')).unwrap();
    let told: Value = serde_json::from_str(document).unwrap();
    let checks = told["checks"].as_array().unwrap();
    let wrong: Vec<_> = checks.iter().filter(|check| check["is_ok"] == false).collect();
    assert_eq!(wrong.len(), 1, "{told}");
    assert_eq!(wrong[0]["what"], "registry docker.io");
    assert_eq!(proxy.run(&["check", "--max-size", "x"]).code, Some(2));
}

#[test]
fn a_check_asks_nobody_where_nobody_may_be_asked() {
    let registry = Registry::open();
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config("offline = true").start();
    let found = proxy.run(&["check"]);
    assert_eq!(found.code, Some(0), "{}", found.output);
    let expected = "ok    registry docker.io: not asked: offline = true";
    assert!(found.output.contains(expected), "{}", found.output);
    assert!(registry.requests().is_empty());
}

#[test]
fn a_check_without_a_proxy_says_whether_one_could_start() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    proxy.signal(Signal::TERM);
    proxy.wait_exit();
    let taken = TcpListener::bind(proxy.admin_address()).unwrap();
    let found = proxy.run(&["check", "--json"]);
    assert_eq!(found.code, Some(1), "{}", found.output);
    let document = found.output.lines().find(|line| line.starts_with('{')).unwrap();
    let told: Value = serde_json::from_str(document).unwrap();
    let of = |what: &str| {
        let checks = told["checks"].as_array().unwrap();
        checks.iter().find(|check| check["what"] == what).unwrap_or(&Value::Null).clone()
    };
    assert_eq!(of("proxy")["is_ok"], false, "{told}");
    assert_eq!(of(&format!("port {}", proxy.address()))["words"], "free", "{told}");
    let admin = of(&format!("port {}", proxy.admin_address()));
    assert!(admin["words"].as_str().unwrap().contains("another process"), "{told}");
    assert_eq!(of("registry docker.io")["is_ok"], true, "{told}");
    drop(taken);
}

#[test]
fn a_check_tells_what_is_degraded() {
    let (_registry, proxy, blob) = one_layer(4_000_000);
    let failing = FailingCalls::new(&proxy, &["fsync:error=EIO", "fdatasync:error=EIO"]);
    proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    proxy.wait_for_log(&["the store can't take downloads"]);
    drop(failing);
    let found = proxy.run(&["check"]);
    assert_eq!(found.code, Some(1), "{}", found.output);
    assert!(found.output.contains("WRONG readiness: degraded: "), "{}", found.output);
}

#[test]
fn a_check_from_a_clients_side_says_whether_the_ca_is_trusted() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("client.toml").display().to_string();
    let url = format!("http://{}", proxy.address());
    let check = |ca: &str| {
        let text = format!("data-dir = {:?}\n[upstream]\n{ca}", home.path().display().to_string());
        std::fs::write(&config, text).unwrap();
        run(BINARY.as_ref(), &["check", "--proxy", &url, "--config", &config], &[])
    };
    let stranger = check("");
    assert_eq!(stranger.code, Some(1), "{}", stranger.output);
    assert!(stranger.output.contains("install its /ca.crt"), "{}", stranger.output);
    let config_only = ["check", "--config", &config, "--proxy", "http://127.0.0.1:1"];
    let alone = run(BINARY.as_ref(), &config_only, &[]);
    assert_eq!(alone.code, Some(1), "{}", alone.output);
    assert!(alone.output.contains("through the proxy: "), "{}", alone.output);
    assert!(!alone.output.contains("ca.crt"), "nothing to trust yet: {}", alone.output);
    let ca = home.path().join("ca.crt");
    std::fs::write(&ca, proxy.ca_pem()).unwrap();
    let friend = check("ca-files = [\"ca.crt\"]");
    assert_eq!(friend.code, Some(0), "{}", friend.output);
    assert!(friend.output.contains("ok    registry docker.io: answers "), "{}", friend.output);
}

#[test]
fn a_mistyped_directory_is_no_empty_store() {
    let home = tempfile::tempdir().unwrap();
    let typo = home.path().join("typo");
    let archive = home.path().join("x.tar").display().to_string();
    for (arguments, code) in [
        (&["verify"][..], 2),
        (&["ls"], 1),
        (&["ls", "--json"], 1),
        (&["rm", "alpine"], 1),
        (&["pin", "alpine"], 1),
        (&["unpin", "alpine"], 1),
        (&["export", "-o", &archive, "alpine"], 1),
    ] {
        let dir = typo.display().to_string();
        let told = run(BINARY.as_ref(), arguments, &[("ENTREPOT_DATA_DIR", &dir)]);
        assert_eq!(told.code, Some(code), "{arguments:?}: {}", told.output);
        let expected = format!("cache-dir {dir}/cache: there is no store");
        assert!(told.output.contains(&expected), "{arguments:?}: {}", told.output);
        assert!(!typo.exists(), "{arguments:?}");
    }
    // Nor is one made for somebody else.
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let dir = typo.display().to_string();
    let environment = [("ENTREPOT_DATA_DIR", &*dir), ("ENTREPOT_RUN_AS", "65532")];
    assert_eq!(run(BINARY.as_ref(), &["ls"], &environment).code, Some(1));
    assert!(!typo.exists());
    // A directory that has yet to become one is not made one either.
    let empty = home.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let dir = empty.display().to_string();
    let told = run(BINARY.as_ref(), &["ls", "--cache-dir", &dir], &[]);
    assert_eq!(told.code, Some(1), "{}", told.output);
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
}

#[test]
fn a_check_says_what_a_start_would_refuse() {
    let home = tempfile::tempdir().unwrap();
    let check = |name: &str| {
        std::fs::write(home.path().join(name), "entrepot store 9\n").unwrap();
        let dir = home.path().display().to_string();
        let told = run(
            BINARY.as_ref(),
            &["check", "--cache-dir", &dir, "--listen", "127.0.0.1:0"],
            &[("ENTREPOT_DATA_DIR", &dir)],
        );
        assert_eq!(told.code, Some(1), "{}", told.output);
        told.output
    };
    let foreign = check("photos");
    assert!(foreign.contains("WRONG cache-dir: ") && foreign.contains("\"photos\""), "{foreign}");
    let newer = check("VERSION");
    assert!(newer.contains("WRONG cache-dir: ") && newer.contains("unknown format"), "{newer}");
}

#[test]
fn the_configuration_is_shown_and_checked() {
    let proxy = Proxy::builder(BINARY).config("push = \"deny\"").start();
    let shown = proxy.run(&["config", "show"]);
    assert_eq!(shown.code, Some(0), "{}", shown.output);
    let line = shown.output.lines().find(|line| line.starts_with("push = ")).unwrap();
    assert!(line.starts_with("push = \"deny\"  # ") && line.contains("entrepot.toml:"), "{line}");
    let told = proxy.run(&["config", "show", "--json", "--push", "client"]);
    let told: Value = serde_json::from_str(&told.output).unwrap();
    assert_eq!(told["keys"]["push"]["from"], "--push");
    assert_eq!(proxy.run(&["config", "check"]).code, Some(0));
    let wrong = proxy.run(&["config", "check", "--push", "maybe", "--tunnel", "x"]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.output.contains("--push") && wrong.output.contains("--tunnel"), "all at once");
    let told = proxy.run(&["config", "check", "--json"]);
    assert_eq!((told.code, &*told.output), (Some(0), "{\"is_valid\":true}"));
    let told = proxy.run(&["config", "check", "--json", "--push", "maybe", "--tunnel", "x"]);
    assert_eq!(told.code, Some(1), "{}", told.output);
    let document = told.output.lines().find(|line| line.starts_with('{')).unwrap();
    let document: Value = serde_json::from_str(document).unwrap();
    assert_eq!(document["is_valid"], false, "{document}");
    let problems: Vec<_> =
        document["problems"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(problems.len(), 2, "{document}");
    assert!(problems[0].starts_with("--push: ") && problems[1].starts_with("--tunnel: "));
}

#[test]
fn a_renewed_ca_is_another_and_the_old_one_is_kept() {
    let mut proxy = Proxy::builder(BINARY).start();
    let fingerprint = |proxy: &Proxy| {
        let told = proxy.run(&["ca", "show", "--json"]);
        let told: Value = serde_json::from_str(&told.output).unwrap();
        told["sha256"].as_str().unwrap().to_owned()
    };
    let before = fingerprint(&proxy);
    let renewed = proxy.run(&["ca", "renew"]);
    assert_eq!(renewed.code, Some(0), "{}", renewed.output);
    let after = fingerprint(&proxy);
    assert_ne!(before, after);
    assert!(renewed.output.contains(&after), "{}", renewed.output);
    let names = std::fs::read_dir(proxy.data_dir().join("ca")).unwrap();
    let names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for kept in ["ca.crt.", "ca.key."] {
        assert!(names.iter().any(|name| name.starts_with(kept)), "{names:?}");
    }
    proxy.restart(Signal::TERM);
    proxy.wait_for_log(&[&after]);
}

/// The exit code of a program whose standard output nobody reads, and what else it says.
pub(crate) fn unread(arguments: &[&str]) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = Command::new(BINARY).args(arguments).stdout(writer).output().unwrap();
    (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

#[test]
fn who_stops_reading_has_read_enough() {
    let registry = Registry::open();
    let image = Image::random(1, 1_000);
    let tags = ["1", "2", "3"];
    for tag in tags {
        registry.push(ALPINE, tag, &image);
    }
    let proxy = in_front_of(&registry);
    for tag in tags {
        pull(&proxy, ALPINE, tag);
    }
    let config = proxy.config_file().display().to_string();
    for arguments in [
        &["man"][..],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
        &["ls", "--config", &config],
        &["pin", "alpine:1", "alpine:2", "--config", &config],
        &["check", "--config", &config],
        &["verify", "--config", &config],
        &["config", "show", "--config", &config],
        &["config", "check", "--json", "--config", &config],
        &["ca", "show", "--config", &config],
    ] {
        assert_eq!(unread(arguments), (Some(0), String::new()), "{arguments:?}");
    }
    let pinned = |name| told(&proxy, &["ls", name])["images"][0]["is_pinned"] == true;
    assert!(pinned("alpine:1") && pinned("alpine:2"), "all of it is done");
    // What is found stays found.
    let (code, _) = unread(&["config", "check", "--json", "--push", "maybe"]);
    assert_eq!(code, Some(1));
    proxy.damage(&image.layers[0].digest);
    let (code, words) = unread(&["verify", "--config", &config]);
    assert_eq!(code, Some(1), "{words}");
}

#[test]
fn a_server_without_a_scheme_is_wrong_usage() {
    for subcommand in [&["ls"][..], &["verify"], &["pull", "alpine"], &["rm", "alpine"]] {
        let arguments = [subcommand, &["--server", "127.0.0.1:3129"]].concat();
        let told = run(BINARY.as_ref(), &arguments, &[]);
        assert_eq!(told.code, Some(2), "{subcommand:?}: {}", told.output);
        assert!(told.output.contains("expected http://HOST:PORT"), "{}", told.output);
    }
}

#[test]
fn a_proxy_that_ends_while_it_verifies_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let proxy = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
        while head.next().is_some_and(|line| !line.unwrap().is_empty()) {}
        let begun = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n";
        stream.write_all(begun.as_bytes()).unwrap();
    });
    let told = run(BINARY.as_ref(), &["verify", "--server", &url], &[]);
    proxy.join().unwrap();
    assert_eq!(told.code, Some(2), "{}", told.output);
    let expected = "has ended the connection before it was done";
    assert!(told.output.ends_with(expected), "{}", told.output);
}

#[test]
fn shells_and_man_are_told_of_every_subcommand() {
    let subcommands = ["serve", "check", "verify", "pull", "config", "ca", "completions", "man"];
    for shell in ["elvish", "powershell"] {
        let script = run(BINARY.as_ref(), &["completions", shell], &[]);
        assert_eq!(script.code, Some(0));
        for name in subcommands {
            assert!(script.output.contains(name), "{shell}: {name}");
        }
    }
    // The others ask the program itself.
    for shell in ["bash", "zsh", "fish"] {
        let script = run(BINARY.as_ref(), &["completions", shell], &[]);
        assert!(script.output.contains("__complete -- "), "{shell}: {}", script.output);
    }
    let offered = run(BINARY.as_ref(), &["__complete", "--", ""], &[]);
    for name in subcommands {
        assert!(
            offered.output.lines().any(|line| line.starts_with(&format!("{name}\t"))),
            "{name}"
        );
    }
    let manual = run(BINARY.as_ref(), &["man"], &[]);
    assert_eq!(manual.code, Some(0));
    assert!(manual.output.contains(".TH entrepot"), "{}", manual.output);
    for name in subcommands {
        assert!(manual.output.contains(&format!("entrepot\\-{name}")), "{name}");
    }
    let pages = manual.output.matches(".TH ").count();
    assert_eq!(manual.output.matches(".SH \"EXIT STATUS\"").count(), pages);
    assert!(manual.output.contains("the registry's quota is used up (429)"));
    for section in ["EXAMPLES", "FILES", "ENVIRONMENT"] {
        assert!(manual.output.contains(&format!(".SH {section}\n")), "{section}");
    }
    // What only serve is about stands on its page alone.
    let mut pages = manual.output.split(".TH ").skip(1);
    let of_serve = pages.clone().filter(|page| page.starts_with("entrepot-serve "));
    assert!(of_serve.clone().all(|page| page.contains("ca\\-constrain")), "{manual:?}");
    assert_eq!(of_serve.count(), 1);
    assert!(
        pages.all(|page| {
            page.starts_with("entrepot-serve ") || !page.contains("ca\\-constrain")
        })
    );
    assert_eq!(run(BINARY.as_ref(), &["completions", "tcsh"], &[]).code, Some(2));
}

/// A CA that strict clients refuse is taken, and its operator told, at the start and by a check.
#[test]
fn a_ca_that_strict_clients_refuse_is_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let lax = Leaf::self_signed(&[], |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages.clear();
        params.extended_key_usages.clear();
    });
    fs::write(directory.path().join("ca.crt"), lax.certificate_pem()).unwrap();
    let key = directory.path().join("ca.key");
    fs::write(&key, lax.key_pem()).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let registry = Registry::open();
    let ca_dir = format!("ca-dir = {:?}", directory.path());
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config(&ca_dir).start();
    proxy.wait_for_log(&["strict clients refuse this CA", "it has no key usage"]);
    assert_eq!(proxy.client().get(&format!("https://{HUB}/v2/")).unwrap().status, 200);
    let checked = proxy.run(&["check"]);
    let note = checked.output.lines().find(|line| line.starts_with("note  ca:"));
    assert!(note.is_some_and(|note| note.contains("it has no key usage")), "{}", checked.output);
    assert_eq!(checked.code, Some(0), "{}", checked.output);
    let well = in_front_of(&registry);
    assert!(!well.run(&["check"]).output.contains("note  "));
    assert!(!well.log_contains("strict clients"), "{:?}", well.log());
}
