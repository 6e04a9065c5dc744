//! What operators and their tools can ask of a running proxy, and who can't.

use std::time::Instant;

use entrepot_testkit::http::Response;
use entrepot_testkit::{Client, Fault, Gate, On, PATIENCE, Proxy, Request};
use serde_json::Value;

use crate::bad_disk::FailingCalls;
use crate::{ALPINE, BINARY, one_layer};

const VERIFY: &str = "/api/v1/verify";
const TOKEN: &str = "a-token-for-tests-alone";

fn send(proxy: &Proxy, request: &Request) -> Response {
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
    let server = format!("http://{}", proxy.admin_address());
    let damaged = proxy.run(&["verify", "--json", "--server", &server]);
    assert_eq!(damaged.code, Some(1), "{}", damaged.output);
    assert!(damaged.output.contains(&blob.digest), "{}", damaged.output);
    assert!(!proxy.keeps(&blob.digest));
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
    let mut connection = Client::new(proxy.admin_address()).plain().unwrap();
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
    let status = |request: &Request| send(&proxy, request).status;
    for (method, path) in [("GET", "/api/v1/stats"), ("POST", VERIFY)] {
        let to = |host: &str| Request::new(method, path).header("Host", host);
        assert_eq!(status(&to(&own)), 200);
        assert_eq!(status(&to(&local)), 200);
        assert_eq!(status(&to("evil.example")), 403, "DNS rebinding");
        assert_eq!(status(&to(&own).header("Origin", format!("http://{own}"))), 200);
        for origin in ["http://evil.example", "null", "http://127.0.0.1:8000"] {
            assert_eq!(status(&to(&own).header("Origin", origin)), 403, "{origin}");
        }
    }
    let form = |media_type: &str| {
        let request = Request::new("POST", VERIFY).header("Host", &own).body("x=y");
        let request = request.header("Content-Length", "3");
        status(&request.header("Content-Type", media_type))
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

#[test]
fn other_machines_need_the_token() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let without = Proxy::builder(BINARY).admin_everywhere().start();
    let key = format!("admin-token-file = {:?}", file.display().to_string());
    let with = Proxy::builder(BINARY).admin_everywhere().config(&key).start();
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(without.admin(path).status, 200, "{path}");
        assert_eq!(with.admin(path).status, 200, "{path}");
    }
    for request in [Request::get("/api/v1/stats"), Request::new("POST", VERIFY)] {
        assert_eq!(send(&without, &request).status, 200, "this machine needs none");
        let by_name = request.clone().header("Host", "proxy.corp:3129");
        assert_eq!(send(&without, &by_name).status, 403, "others do");
        assert_eq!(send(&with, &by_name).status, 403);
        let shown = |token: &str| {
            let request = request.clone().header("Host", "proxy.corp:3129");
            send(&with, &request.header("Authorization", format!("Bearer {token}"))).status
        };
        assert_eq!(shown(TOKEN), 200);
        assert_eq!(shown("a-token-for-tests-alonE"), 401);
        assert_eq!(shown(""), 401);
        assert_eq!(send(&with, &request).status, 200);
    }
    for proxy in [&with, &without] {
        let verified = proxy.run(&["verify"]);
        assert_eq!(verified.code, Some(0), "{}", verified.output);
    }
    assert!(!with.log_contains(TOKEN));
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
    let answer = proxy.admin("/api/v1/config");
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
