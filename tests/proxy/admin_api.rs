//! What operators and their tools can ask of a running proxy, and who can't.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use entrepot_testkit::http::Response;
use entrepot_testkit::proxy::Signal;
use entrepot_testkit::user::NOBODY;
use entrepot_testkit::{Client, Fault, Gate, On, PATIENCE, Proxy, Request, as_user, own_address};
use serde_json::Value;

use crate::bad_disk::FailingCalls;
use crate::{ALPINE, BINARY, one_layer};

const VERIFY: &str = "/api/v1/verify";
const TOKEN: &str = "a-token-for-tests-alone";

/// By the socket, as root and the proxy's own user.
fn send(proxy: &Proxy, request: &Request) -> Response {
    proxy.operator().send(request).unwrap()
}

/// By the listener, as whoever reaches it.
fn send_to_listener(proxy: &Proxy, request: &Request) -> Response {
    Client::new(proxy.admin_address()).send(request).unwrap()
}

/// An object has its name a moment before its download is over; who asks just then joins that.
#[track_caller]
pub(crate) fn pull_until_hit(proxy: &Proxy, digest: &str) {
    let pull = || proxy.puller().blob(ALPINE, digest).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while pull().cache_status() != "entrepot; hit" {
        assert!(Instant::now() < deadline, "{digest} is never a hit");
    }
}

fn told(response: &Response) -> Vec<Value> {
    assert_eq!(response.status, 200, "{}", response.text());
    response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_running_proxy_verifies_what_it_keeps_and_heals_it() {
    let (registry, proxy, blob) = one_layer(300_000);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    let sound = told(&send(&proxy, &Request::new("POST", VERIFY)));
    let summary = &sound.last().unwrap()["summary"];
    assert_eq!(summary["objects"], 3, "{sound:?}");
    assert_eq!(summary["damaged"], serde_json::json!([]));
    assert_eq!(sound[0]["progress"]["total_objects"], 3, "{sound:?}");

    proxy.damage(&blob.digest);
    let damaged = told(&send(&proxy, &Request::new("POST", VERIFY)));
    assert_eq!(damaged.last().unwrap()["summary"]["damaged"][0], blob.digest);
    assert!(damaged.iter().any(|line| line["damaged"] == blob.digest), "{damaged:?}");
    assert!(!proxy.keeps(&blob.digest));
    assert!(
        proxy.admin("/metrics").text().contains("\nentrepot_store_quarantined_objects_total 1\n")
    );

    registry.forget_requests();
    let healed = proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    assert_eq!(healed.response.body, blob.bytes);
    assert_eq!(registry.requests().blob_gets().path(&blob.digest).len(), 1);
}

#[test]
fn the_command_line_has_a_running_proxy_verify() {
    let (_registry, proxy, blob) = one_layer(300_000);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    let sound = proxy.run(&["verify"]);
    assert_eq!(sound.code, Some(0), "{}", sound.output);
    assert!(sound.output.contains("3 objects, ") && sound.output.contains(" 0 damaged"));
    proxy.damage(&blob.digest);
    let damaged = proxy.run(&["verify", "--json"]);
    assert_eq!(damaged.code, Some(1), "{}", damaged.output);
    assert!(damaged.output.contains(&blob.digest), "{}", damaged.output);
    assert!(!proxy.keeps(&blob.digest));
    let server = format!("http://{}", proxy.admin_address());
    let refused = proxy.run(&["verify", "--server", &server]);
    assert_eq!(refused.code, Some(2), "{}", refused.output);
    assert!(refused.output.contains("admin-token-file"), "{}", refused.output);
    for wrong in ["https://127.0.0.1:1", "127.0.0.1:1", "http://127.0.0.1:1"] {
        assert_eq!(proxy.run(&["verify", "--server", wrong]).code, Some(2), "{wrong}");
    }
}

#[test]
fn one_verification_runs_at_a_time_and_ends_when_nobody_listens() {
    let (registry, proxy, blob) = one_layer(20_000_000);
    proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    proxy.wait_until_kept(&blob.digest);
    let slow = FailingCalls::new(&proxy, &["preadv2:delay_enter=300000"]);
    let mut connection = proxy.operator().plain().unwrap();
    let first = connection.start(&Request::new("POST", VERIFY)).unwrap();
    assert_eq!(first.head().status, 200);
    assert_eq!(send(&proxy, &Request::new("POST", VERIFY)).status, 409);
    // Clients are served meanwhile.
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
    let part = proxy.client().send(&Request::get(url).header("Range", "bytes=0-99")).unwrap();
    assert_eq!((part.status, part.body), (206, blob.bytes.slice(0..100)));
    drop(connection);
    proxy.wait_for_log(&["nobody listens"]);
    drop(slow);
    told(&send(&proxy, &Request::new("POST", VERIFY)));
}

#[test]
fn web_pages_and_names_of_others_are_not_heard() {
    let proxy = Proxy::builder(BINARY).start();
    let own = proxy.admin_address().to_string();
    let local = format!("localhost:{}", proxy.admin_address().port());
    let status = |request: &Request| send_to_listener(&proxy, request).status;
    let to = |host: &str| Request::get("/api/v1/stats").header("Host", host);
    assert_eq!(status(&to(&own)), 200);
    assert_eq!(status(&to(&local)), 200);
    assert_eq!(status(&to("evil.example")), 403, "DNS rebinding");
    assert_eq!(status(&to(&own).header("Origin", format!("http://{own}"))), 200);
    for origin in ["http://evil.example", "null", "http://127.0.0.1:8000"] {
        assert_eq!(status(&to(&own).header("Origin", origin)), 403, "{origin}");
        let verify = Request::new("POST", VERIFY).header("Origin", origin);
        assert_eq!(send(&proxy, &verify).status, 403, "{origin}");
    }
    let form = |media_type: &str| {
        let request = Request::new("POST", VERIFY).body("x=y").header("Content-Length", "3");
        send(&proxy, &request.header("Content-Type", media_type)).status
    };
    assert_eq!(form("application/x-www-form-urlencoded"), 415);
    assert_eq!(form("text/plain"), 415);
    for (method, path) in [("GET", VERIFY), ("POST", "/api/v1/stats"), ("DELETE", "/api/v1/blobs")]
    {
        assert_eq!(status(&Request::new(method, path)), 405, "{method} {path}");
    }
    assert_eq!(status(&Request::get("/api/v1/nothing")), 404);
    assert_eq!(status(&Request::get("/api/v2")), 404);
}

/// A token, in a file that a configuration names.
fn with_token() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let key = format!("admin-token-file = {:?}", file.display().to_string());
    (directory, key)
}

#[test]
fn the_token_is_asked_of_everybody_but_the_sockets_users() {
    let (_directory, key) = with_token();
    let without = Proxy::builder(BINARY).admin_everywhere().start();
    let with = Proxy::builder(BINARY).admin_everywhere().config(&key).start();
    for path in ["/metrics", "/healthz", "/readyz", "/"] {
        assert_eq!(without.admin(path).status, 200, "{path}");
        assert_eq!(with.admin(path).status, 200, "{path}");
    }
    for request in [Request::get("/api/v1/stats"), Request::new("POST", VERIFY)] {
        let by_name = request.clone().header("Host", "proxy.corp:3129");
        assert_eq!(send_to_listener(&without, &by_name).status, 403);
        let asked = send_to_listener(&with, &request);
        assert_eq!(asked.status, 401, "this machine is asked as well");
        assert_eq!(asked.headers.get("www-authenticate"), Some("Bearer"));
        assert_eq!(send_to_listener(&with, &by_name).status, 401);
        let shown = |token: &str| {
            let request = request.clone().header("Host", "proxy.corp:3129");
            let request = request.header("Authorization", format!("Bearer {token}"));
            send_to_listener(&with, &request).status
        };
        assert_eq!(shown(TOKEN), 200);
        assert_eq!(shown("a-token-for-tests-alonE"), 401);
        assert_eq!(shown(""), 401);
        assert_eq!(send(&with, &request).status, 200, "by the socket");
        assert_eq!(send(&without, &request).status, 200, "by the socket");
    }
    let server = format!("http://{}", with.admin_address());
    for proxy in [&with, &without] {
        let verified = proxy.run(&["verify"]);
        assert_eq!(verified.code, Some(0), "{}", verified.output);
    }
    let verified = with.run(&["verify", "--server", &server]);
    assert_eq!(verified.code, Some(0), "with the token: {}", verified.output);
    assert!(!with.log_contains(TOKEN));
}

#[test]
fn whom_the_operator_names_may_look_from_elsewhere_and_do_nothing() {
    let (directory, key) = with_token();
    let address = own_address();
    let look_from = format!("admin-look-from = [\"198.51.100.0/24\", \"{address}\"]");
    let proxy = Proxy::builder(BINARY).admin_everywhere().config(&look_from).start();
    let elsewhere = SocketAddr::new(address, proxy.admin_address().port());
    let ask = |request: &Request| Client::new(elsewhere).send(request).unwrap();
    let stats = Request::get("/api/v1/stats");
    // A published port of a container has the name that it has on the machine outside.
    for host in ["127.0.0.1:3129", "localhost:3129", &elsewhere.to_string()] {
        assert_eq!(ask(&stats.clone().header("Host", host)).status, 200, "{host}");
    }
    for host in ["evil.example:3129", "198.51.100.1:3129"] {
        assert_eq!(ask(&stats.clone().header("Host", host)).status, 403, "{host}");
    }
    for (name, value) in [
        ("Origin", "http://evil.example"),
        ("Sec-Fetch-Site", "cross-site"),
        ("X-Forwarded-For", "10.0.0.7"),
    ] {
        assert_eq!(ask(&stats.clone().header(name, value)).status, 403, "{name}");
    }
    for request in deeds() {
        let answer = ask(&request.header("Connection", "close"));
        assert_eq!(answer.status, 403, "{}", answer.text());
    }

    let edit = |before: &str, after: &str| {
        let text = std::fs::read_to_string(proxy.config_file()).unwrap();
        assert!(text.contains(before), "{text}");
        std::fs::write(proxy.config_file(), text.replace(before, after)).unwrap();
        proxy.signal(Signal::HUP);
    };
    edit(&address.to_string(), "198.51.100.1");
    proxy.wait_for_logs(&["the configuration was read again"], 1);
    let refused = ask(&stats);
    assert_eq!(refused.status, 403);
    let told = refused.text();
    let cure = format!("name {address} in admin-look-from");
    assert!(told.contains(&cure) && told.contains("admin-token-file"), "{told}");
    edit("\"198.51.100.1\"]", &format!("\"{address}\"]\n{key}"));
    proxy.wait_for_logs(&["the configuration was read again"], 2);
    assert_eq!(ask(&stats).status, 401, "there is a token now: it is asked of everybody");
    drop(directory);
}

/// Whatever changes something or hands out what is kept, as it is asked for.
fn deeds() -> [Request; 8] {
    let image = "docker.io/library/alpine:1";
    [
        Request::get(format!("/api/v1/export?image={image}")),
        Request::new("POST", "/api/v1/import").header("Content-Type", "application/x-tar"),
        Request::new("DELETE", format!("/api/v1/images/{image}")),
        Request::new("PUT", format!("/api/v1/images/{image}/pin")),
        Request::new("DELETE", format!("/api/v1/images/{image}/pin")),
        Request::new("POST", VERIFY),
        Request::new("POST", format!("/api/v1/pull?image={image}")),
        Request::get("/api/v1/config"),
    ]
}

/// nginx's `proxy_pass http://127.0.0.1:3129` makes its clients' requests look like this machine's
/// own: with that `Host`, and no field that would tell.
#[test]
fn what_a_front_on_this_machine_passes_on_does_nothing_without_the_token() {
    let (_directory, key) = with_token();
    let (_registry, open, blob) = one_layer(300_000);
    let pulled = open.puller().pull(ALPINE, "1").unwrap();
    open.wait_until_all_kept(&pulled);
    let guarded = Proxy::builder(BINARY).config(&key).start();
    for (proxy, expected) in [(&open, 403), (&guarded, 401)] {
        let own = proxy.admin_address().to_string();
        for request in deeds() {
            for host in [&*own, "127.0.0.1:3129", "localhost"] {
                let request = request.clone().header("Host", host).header("Connection", "close");
                let answer = send_to_listener(proxy, &request);
                let what = format!("{} {}", request.method, request.target);
                assert_eq!(answer.status, expected, "{what} {}", answer.text());
            }
        }
    }
    assert!(open.keeps(&blob.digest));
    let export = deeds()[0].clone();
    let archive = send(&open, &export);
    assert_eq!(archive.status, 200, "root has it by the socket");
    assert!(archive.body.len() > 300_000);
}

#[test]
fn what_says_that_it_was_forwarded_may_not_even_look() {
    let proxy = Proxy::builder(BINARY).start();
    let own = proxy.admin_address().to_string();
    let fields = [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "Forwarded",
        "X-Real-IP",
        "Via",
    ];
    for name in fields {
        let request = Request::get("/api/v1/stats").header(name, "1.1 front");
        assert_eq!(send_to_listener(&proxy, &request).status, 403, "{name}");
        assert_eq!(send(&proxy, &request).status, 403, "{name} at the socket");
    }
    let old = format!("GET /api/v1/stats HTTP/1.0\r\nHost: {own}\r\nConnection: close\r\n\r\n");
    let mut connection = Client::new(proxy.admin_address()).plain().unwrap();
    assert_eq!(connection.send_raw(old.as_bytes()).unwrap().status, 403);
    let probe = format!("GET /healthz HTTP/1.0\r\nHost: {own}\r\n\r\n");
    let mut connection = Client::new(proxy.admin_address()).plain().unwrap();
    assert_eq!(connection.send_raw(probe.as_bytes()).unwrap().status, 200);
}

#[test]
fn other_users_of_the_machine_get_nothing_that_is_kept() {
    let (_registry, proxy, _) = one_layer(300_000);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    as_user(NOBODY, || {
        let refused = proxy.operator().get("/api/v1/stats").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied, "{refused}");
        for request in deeds() {
            assert_eq!(send_to_listener(&proxy, &request).status, 403, "{}", request.target);
        }
    });
    // Should the permissions of the files let them through, the kernel's word counts.
    let everybody = std::fs::Permissions::from_mode(0o777);
    for path in proxy.admin_socket().ancestors().take(4) {
        std::fs::set_permissions(path, everybody.clone()).unwrap();
    }
    as_user(NOBODY, || {
        for request in deeds().into_iter().chain([Request::get("/api/v1/stats")]) {
            let answer = send(&proxy, &request);
            assert_eq!(answer.status, 403, "{}", request.target);
            assert!(answer.text().contains("root and the proxy's own user"), "{}", answer.text());
        }
    });
    assert_eq!(send(&proxy, &deeds()[0]).status, 200);
}

/// What `kill -9` leaves there is in nobody's way, and an orderly end leaves nothing.
#[test]
fn the_socket_comes_and_goes_with_the_proxy() {
    let mut proxy = Proxy::builder(BINARY).start();
    proxy.restart(Signal::KILL);
    assert_eq!(proxy.run(&["verify"]).code, Some(0));
    assert_eq!(send(&proxy, &Request::get("/api/v1/config")).status, 200);
    assert!(!proxy.log_contains("there is no admin socket"));
    proxy.signal(Signal::TERM);
    proxy.wait_exit();
    assert!(!proxy.admin_socket().exists());
}

#[test]
fn the_socket_may_lie_elsewhere_and_deep() {
    let home = tempfile::tempdir().unwrap();
    let deep = home.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let path = deep.join("s");
    let key = format!("admin-socket = {:?}", path.display().to_string());
    let proxy = Proxy::builder(BINARY).config(&key).start();
    let verified = proxy.run(&["verify"]);
    assert_eq!(verified.code, Some(0), "{}", verified.output);
    assert!(path.exists() && !proxy.admin_socket().exists());
    let second = proxy.data_dir().join("second");
    let second = second.display().to_string();
    let taken = ["serve", "--data-dir", &second, "--listen", "127.0.0.1:0", "--admin-listen"];
    let taken = proxy.run(&[&taken[..], &["127.0.0.1:0"]].concat());
    assert_eq!(taken.code, Some(1), "{}", taken.output);
    assert!(taken.output.contains("admin-socket"), "{}", taken.output);
    assert_eq!(proxy.run(&["verify"]).code, Some(0), "it is still the first one's");
}

#[test]
fn what_is_kept_is_listed_page_by_page() {
    let (_registry, proxy, blob) = one_layer(300_000);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    pull_until_hit(&proxy, &blob.digest);
    let mut seen = Vec::new();
    let mut query = "limit=2".to_owned();
    loop {
        let page = proxy.admin(&format!("/api/v1/blobs?{query}")).json();
        seen.extend(page["blobs"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        query = format!("limit=2&after={next}");
    }
    assert_eq!(seen.len(), 3);
    let digests: Vec<_> = seen.iter().map(|one| one["digest"].as_str().unwrap()).collect();
    assert!(digests.is_sorted(), "{digests:?}");
    let layer = seen.iter().find(|one| one["digest"] == blob.digest).unwrap();
    assert_eq!(layer["bytes"], 300_000);
    assert!(layer["hits"].as_u64().unwrap() >= 1, "{layer}");
    assert_eq!(proxy.admin("/api/v1/blobs?limit=0").status, 400);
}

#[test]
fn what_was_saved_is_told() {
    let (_registry, proxy, blob) = one_layer(300_000);
    let before = proxy.admin("/api/v1/stats").json();
    assert_eq!(before["hit_ratio"], Value::Null);
    proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    proxy.wait_until_kept(&blob.digest);
    pull_until_hit(&proxy, &blob.digest);
    proxy.wait_for_log(&["HIT", "blob"]);
    let stats = proxy.admin("/api/v1/stats").json();
    assert!(stats["saved_bytes"].as_u64().unwrap() >= 300_000, "{stats}");
    assert!(stats["hit_ratio"].as_f64().unwrap() > 0.0, "{stats}");
    assert_eq!(stats["store"]["objects"], 1);
    assert_eq!(stats["store"]["max_bytes"], 32u64 << 30);
}

#[test]
fn a_download_is_told_while_it_is_under_way() {
    let (registry, proxy, blob) = one_layer(3_000_000);
    let gate = Gate::new();
    registry.fault_always(On::get(&blob.digest), Fault::Stall(1_000_000, gate.clone()));
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let mut download = connection.start(&Request::get(url)).unwrap();
    download.read_exactly(100_000).unwrap();
    let fetches = proxy.admin("/api/v1/fetches").json();
    let fetch = &fetches["fetches"][0];
    assert_eq!(fetch["digest"], blob.digest, "{fetches}");
    assert_eq!(fetch["registry"], "docker.io");
    assert_eq!(fetch["total_bytes"], 3_000_000);
    let bytes = fetch["bytes"].as_u64().unwrap();
    assert!((100_000..=1_000_000).contains(&bytes), "{fetch}");
    gate.open();
    download.finish().unwrap();
}

#[test]
fn the_configuration_is_told_without_its_secrets() {
    let tables = "[[registry]]\nhost = \"a.example\"\nusername = \"me\"\npassword = \"s3cret\"";
    let proxy = Proxy::builder(BINARY).tables(tables).env("ENTREPOT_PUSH", "deny").start();
    let answer = proxy.operator().get("/api/v1/config").unwrap();
    assert!(!answer.text().contains("s3cret"), "{}", answer.text());
    let config = answer.json();
    assert_eq!(config["keys"]["push"]["value"], "deny");
    assert_eq!(config["keys"]["push"]["from"], "ENTREPOT_PUSH");
    assert_eq!(config["registries"][0]["password"], "(hidden)");
}

#[test]
fn readiness_says_what_is_degraded() {
    let proxy = Proxy::builder(BINARY).start();
    let ready = proxy.admin("/readyz");
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json()["status"], "ready");
    let (_registry, troubled, blob) = one_layer(4_000_000);
    let failing = FailingCalls::new(&troubled, &["fsync:error=EIO", "fdatasync:error=EIO"]);
    troubled.puller().blob(ALPINE, &blob.digest).unwrap();
    troubled.wait_for_log(&["the store can't take downloads"]);
    drop(failing);
    let degraded = troubled.admin("/readyz");
    assert_eq!(degraded.status, 200);
    assert_eq!(degraded.json()["status"], "degraded");
    assert_eq!(degraded.json()["reasons"].as_array().unwrap().len(), 1);
}
