//! What a credential helper says of one registry is nothing to another, however many fit the entry.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use entrepot_testkit::{Proxy, Request, Response, Server, TestCa};
use tempfile::TempDir;

use crate::BINARY;

const PATTERN: &str = "*.corp.example";

/// Registries that want Basic with everything, and what came to them.
struct World {
    seen: Arc<Mutex<Vec<Request>>>,
    proxy: Proxy,
    _servers: Vec<Server>,
    directory: TempDir,
}

fn challenge(request: &Request) -> Response {
    if request.headers.get("authorization").is_none() {
        return Response::new(401).header("WWW-Authenticate", "Basic realm=\"r\"");
    }
    Response::new(200).body("{}")
}

/// A helper that says whom it was asked about, in the secret and in a file; `first` is done before.
fn write_helper(directory: &Path, first: &str) {
    let script = format!(
        "#!/bin/sh\nread -r server\necho \"$server\" >>{0}\n{first}\n\
         printf '{{\"Username\":\"robot\",\"Secret\":\"for %s\"}}' \"$server\"\n",
        asked(directory).display()
    );
    let program = directory.join("docker-credential-test");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

fn world(
    hosts: &[&str],
    helper: impl FnOnce(&Path) -> String,
    answer: fn(&Request) -> Response,
) -> World {
    let ca = TestCa::new("upstream");
    let seen = Arc::<Mutex<Vec<Request>>>::default();
    let directory = tempfile::tempdir().unwrap();
    write_helper(directory.path(), &helper(directory.path()));
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let mut builder = Proxy::builder(BINARY)
        .trusting(&ca)
        .env("PATH", &path)
        .tables(&format!("[[registry]]\nhost = \"{PATTERN}\"\ncredential-helper = \"test\""));
    let mut servers = Vec::new();
    for host in hosts {
        let noted = seen.clone();
        let server = Server::https(ca.leaf(&[host]), move |request: &Request| {
            noted.lock().unwrap().push(request.clone());
            answer(request)
        });
        builder = builder.connect_to(&format!("{host}:443:{}", server.address()));
        servers.push(server);
    }
    World { seen, proxy: builder.start(), _servers: servers, directory }
}

fn basic(server: &str) -> String {
    use base64::Engine as _;
    let pair = format!("robot:for {server}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

fn tags(proxy: &Proxy, host: &str) -> Response {
    proxy.client().get(&format!("https://{host}/v2/app/tags/list")).unwrap()
}

impl World {
    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(asked(self.directory.path())).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn shown_to(&self, host: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let to_host = seen.iter().filter(|one| one.headers.get("host") == Some(host));
        to_host.filter_map(|one| one.headers.get("authorization").map(str::to_owned)).collect()
    }
}

#[test]
fn each_registry_gets_what_the_helper_says_of_it() {
    let hosts = ["victim.corp.example", "evil.corp.example"];
    let world = world(&hosts, |_| String::new(), challenge);
    for _ in 0..2 {
        for host in hosts {
            assert_eq!(tags(&world.proxy, host).status, 200, "{host}");
        }
    }
    assert_eq!(world.asked(), hosts, "once for each");
    for host in hosts {
        let shown = world.shown_to(host);
        assert!(
            !shown.is_empty() && shown.iter().all(|one| *one == basic(host)),
            "{host} {shown:?}"
        );
    }
}

/// A token server of the same domain is another of the pattern's hosts, and may be anybody's.
#[test]
fn what_is_for_one_of_many_hosts_is_shown_to_no_other() {
    let answer = |request: &Request| match request.path() {
        "/token" => Response::new(200).body(r#"{"token":"t"}"#),
        _ => Response::new(401).header(
            "WWW-Authenticate",
            "Bearer realm=\"https://auth.corp.example/token\",service=\"x\"",
        ),
    };
    let world = world(&["r.corp.example", "auth.corp.example"], |_| String::new(), answer);
    tags(&world.proxy, "r.corp.example");
    let seen = world.seen.lock().unwrap();
    let at_realm: Vec<_> = seen.iter().filter(|one| one.path() == "/token").collect();
    assert!(!at_realm.is_empty(), "it was asked, as nobody");
    assert!(at_realm.iter().all(|one| one.headers.get("authorization").is_none()), "{at_realm:?}");
}

/// What a slow helper waits for, which is given to it by [`release`].
fn gate(directory: &Path) -> PathBuf {
    directory.join("gate")
}

/// Where the helper writes down whom it was asked about.
fn asked(directory: &Path) -> PathBuf {
    directory.join("asked")
}

fn release(directory: &Path) {
    fs::write(gate(directory), "").unwrap();
}

#[test]
fn a_helper_that_is_slow_about_one_name_holds_up_no_other() {
    let hosts = ["slow.corp.example", "quick.corp.example"];
    let helper = |directory: &Path| {
        // It ends with the test, whatever becomes of that.
        let waits = format!(
            "[ -e {0} ] && [ ! -e {1} ]",
            asked(directory).display(),
            gate(directory).display()
        );
        format!("case $server in slow*) while {waits}; do sleep 0.05; done;; esac")
    };
    let world = world(&hosts, helper, challenge);
    thread::scope(|scope| {
        let slow = scope.spawn(|| tags(&world.proxy, hosts[0]).status);
        within_some_seconds(|| world.asked() == [hosts[0]]);
        assert_eq!(tags(&world.proxy, hosts[1]).status, 200);
        assert_eq!(world.asked(), hosts);
        assert!(!slow.is_finished(), "it still waits");
        release(world.directory.path());
        assert_eq!(slow.join().unwrap(), 200);
    });
}

/// Waits for what another process does.
#[track_caller]
fn within_some_seconds(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "it takes too long");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_helper_that_fails_is_not_run_for_each_request() {
    let hosts = ["bad.corp.example", "good.corp.example"];
    let helper = |_: &Path| "case $server in bad*) exit 1;; esac".to_owned();
    let world = world(&hosts, helper, challenge);
    let began = Instant::now();
    let mut asked = 0;
    while began.elapsed() < Duration::from_secs(2) {
        assert_eq!(tags(&world.proxy, hosts[0]).status, 401);
        asked += 1;
    }
    assert!(asked > 2, "{asked}");
    // It may be asked again after five seconds, on a machine that has much to do.
    let most = 1 + began.elapsed().as_secs() / 5;
    assert!(world.asked().len() as u64 <= most, "{asked} requests: {:?}", world.asked());
    assert_eq!(tags(&world.proxy, hosts[1]).status, 200, "the failure is one name's");
    let warned = ["warn", "the configured credentials can't be used", "bad.corp.example"];
    world.proxy.wait_for_log(&warned);
}

#[test]
fn credentials_over_plain_http_are_warned_of() {
    let seen = Arc::<Mutex<Vec<Request>>>::default();
    let noted = seen.clone();
    let server = Server::http(move |request: &Request| {
        noted.lock().unwrap().push(request.clone());
        challenge(request)
    });
    let authority = format!("localhost:{}", server.address().port());
    let keys = "username = \"robot\"\npassword = \"s3cret\"";
    let entry = format!("[[registry]]\nhost = \"{authority}\"\nscheme = \"http\"\n{keys}");
    let proxy = Proxy::builder(BINARY).tables(&entry).start();
    assert_eq!(tags(&proxy, &authority).status, 200, "the operator has said so");
    proxy.wait_for_log(&["warn", "these credentials go over plain HTTP", &authority]);
    assert!(seen.lock().unwrap().iter().any(|one| one.headers.get("authorization").is_some()));
}
