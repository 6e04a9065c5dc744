//! What a person who watches a running proxy is told.

use std::collections::BTreeMap;
use std::time::Instant;

use entrepot_testkit::client::Connection;
use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{Client, Fault, Gate, Image, On, PATIENCE, Proxy, Registry, Request};
use serde_json::Value;

use crate::{ALPINE, BINARY, in_front_of, one_layer};

/// The document at a path of the API.
fn told(proxy: &Proxy, path: &str) -> Value {
    let answer = proxy.admin(&format!("/api/v1/{path}"));
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

fn registry<'v>(document: &'v Value, name: &str) -> &'v Value {
    let all = document["registries"].as_array().unwrap();
    all.iter().find(|one| one["registry"] == name).unwrap_or(&Value::Null)
}

#[test]
fn the_last_requests_are_told_newest_first() {
    let (_registry, proxy, blob) = one_layer(300_000);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    crate::admin_api::pull_until_hit(&proxy, &blob.digest);
    proxy.wait_for_log(&["HIT", "blob"]);
    let requests = told(&proxy, "requests");
    let requests = requests["requests"].as_array().unwrap();
    let newest = &requests[0];
    assert_eq!(newest["outcome"], "hit", "{newest}");
    assert_eq!(newest["registry"], "docker.io");
    assert_eq!(newest["repository"], ALPINE);
    assert!(newest["object"].as_str().unwrap().starts_with("blob sha256:"), "{newest}");
    assert_eq!((&newest["body_bytes"], &newest["status"]), (&300_000.into(), &200.into()));
    assert_eq!(newest["client"], "127.0.0.1");
    let numbers: Vec<_> = requests.iter().map(|one| one["number"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a > b), "{numbers:?}");
    let one = told(&proxy, "requests?limit=1");
    assert_eq!(one["requests"].as_array().unwrap().len(), 1);
    assert_eq!(proxy.admin("/api/v1/requests?limit=0").status, 400);
    let wanted = told(&proxy, "repositories");
    assert_eq!(wanted["repositories"][0]["repository"], ALPINE, "{wanted}");
    assert!(wanted["repositories"][0]["hits"].as_u64().unwrap() >= 1, "{wanted}");
}

#[test]
fn no_more_requests_are_kept_than_said() {
    let proxy = Proxy::builder(BINARY).config("tunnel = \"none\"").start();
    let mut connection = proxy.client().plain().unwrap();
    for number in 0..300 {
        let url = format!("http://nowhere.example/{number}?secret=x");
        connection.send(&Request::get(url).header("Host", "nowhere.example")).unwrap();
    }
    proxy.wait_for_log(&["nowhere.example"]);
    let requests = told(&proxy, "requests");
    assert_eq!(requests["requests"].as_array().unwrap().len(), 256);
    let errors = told(&proxy, "errors");
    assert_eq!(errors["errors"].as_array().unwrap().len(), 64);
    assert_eq!(errors["errors"][0]["outcome"], "denied");
    assert!(!errors.to_string().contains("secret"), "{errors}");
}

#[test]
fn a_registry_is_told_with_its_trouble_and_its_quota() {
    let mut upstream = Registry::open();
    upstream.push(ALPINE, "1", &Image::random(1, 1000));
    let fields = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "42;w=21600")];
    let fields = fields.map(|(name, value)| Fault::Header(name, value.to_owned()));
    upstream.faults(On::path("/manifests/"), fields.to_vec(), usize::MAX);
    let proxy = in_front_of(&upstream);
    assert_eq!(registry(&told(&proxy, "registries"), "ghcr.io")["state"], "unknown");
    assert!(registry(&told(&proxy, "registries"), "docker.io")["identity"].is_null());
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    proxy.wait_for_log(&["MISS", "blob"]);
    let document = told(&proxy, "registries");
    let hub = registry(&document, "docker.io");
    assert_eq!(hub["state"], "well", "{hub}");
    assert_eq!((&hub["quota"]["remaining"], &hub["quota"]["limit"]), (&42.into(), &100.into()));
    assert!(hub["requests"]["miss"].as_u64().unwrap() >= 2, "{hub}");
    assert!(hub["sent_bytes"].as_u64().unwrap() >= 1000, "{hub}");
    assert!(hub["received_bytes"].as_u64().unwrap() >= 1000, "{hub}");
    assert!(hub["last_success"].is_u64() && hub["last_error"].is_null(), "{hub}");

    upstream.stop();
    for _ in 0..2 {
        proxy.puller().pull(ALPINE, "1").unwrap();
    }
    let line = proxy.wait_for_log(&["STALE", "manifest"]);
    let document = told(&proxy, "registries");
    let hub = registry(&document, "docker.io");
    assert_eq!(hub["state"], "away", "{hub}");
    assert_eq!(hub["outage"]["host"], "registry-1.docker.io:443");
    assert!(hub["outage"]["next_try"].as_u64() >= hub["outage"]["since"].as_u64(), "{hub}");
    let reason = hub["last_error"]["reason"].as_str().unwrap();
    assert!(reason.contains("registry-1.docker.io"), "{reason} in {line}");
    assert_eq!(document["unreachable_hosts"].as_array().unwrap().len(), 1, "{document}");
    let page = proxy.admin("/metrics").text();
    let held = "entrepot_upstream_held_back_total{registry=\"docker.io\",reason=\"unreachable\"}";
    assert!(page.contains(held), "{page}");
}

#[test]
fn a_registry_is_told_with_the_proxys_identity_there_and_no_secret() {
    let hub = "[[registry]]\nhost = \"docker.io\"\nusername = \"robot\"\npassword = \"s3cret-of-robot\"\n";
    let own = "[[registry]]\nhost = \"registry.corp:5000\"\nusername = \"me\"\npassword = \"s3cret-of-me\"";
    let proxy = Proxy::builder(BINARY).tables(&format!("{hub}{own}")).start();
    let document = told(&proxy, "registries");
    assert_eq!(registry(&document, "docker.io")["identity"], "password robot", "{document}");
    assert_eq!(registry(&document, "registry.corp:5000")["identity"], "password me", "{document}");
    assert!(registry(&document, "ghcr.io")["identity"].is_null(), "{document}");
    assert!(!document.to_string().contains("s3cret"));
}

#[test]
fn history_begins_with_the_process() {
    let (_registry, proxy, blob) = one_layer(300_000);
    let history = told(&proxy, "history");
    assert_eq!(history["step_secs"], 60);
    let sum = |history: &Value, field: &str| -> u64 {
        let points = history["points"].as_array().unwrap();
        points.iter().map(|point| point[field].as_u64().unwrap()).sum()
    };
    assert_eq!(sum(&history, "requests"), 0, "{history}");
    proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    proxy.wait_for_log(&["MISS", "blob"]);
    let history = told(&proxy, "history");
    assert!(sum(&history, "sent_bytes") >= 300_000, "{history}");
    assert!(sum(&history, "received_bytes") >= 300_000, "{history}");
}

/// A watcher of the stream.
struct Watcher {
    connection: Connection,
}

impl Watcher {
    fn new(proxy: &Proxy) -> Self {
        let mut connection = Client::new(proxy.admin_address()).plain().unwrap();
        let events = connection.start(&Request::get("/api/v1/events")).unwrap();
        assert_eq!(events.head().status, 200);
        assert_eq!(events.head().headers.get("content-type"), Some("text/event-stream"));
        drop(events);
        Self { connection }
    }

    /// The next event of this name.
    #[track_caller]
    fn next(&mut self, name: &str) -> Value {
        let wanted = format!("event: {name}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no {wanted}");
            if self.line() == wanted {
                let line = self.line();
                return serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap();
            }
        }
    }

    /// The next line, be it of the framing.
    #[track_caller]
    fn line(&mut self) -> String {
        let line = self.connection.read_line().unwrap();
        assert!(!line.is_empty() || !self.connection.is_closed(), "the stream has ended");
        line
    }
}

#[test]
fn what_changes_is_told_as_it_changes() {
    let (registry, proxy, blob) = one_layer(3_000_000);
    let mut watcher = Watcher::new(&proxy);
    assert_eq!(watcher.next("stats")["store"]["objects"], 0);
    assert_eq!(watcher.next("fetches")["fetches"], serde_json::json!([]));
    let gate = Gate::new();
    registry.fault_always(On::get(&blob.digest), Fault::Stall(1_000_000, gate.clone()));
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let mut download = connection.start(&Request::get(url)).unwrap();
    download.read_exactly(100_000).unwrap();
    let fetches = watcher.next("fetches");
    assert_eq!(fetches["fetches"][0]["digest"], blob.digest, "{fetches}");
    gate.open();
    download.finish().unwrap();
    let requests = watcher.next("requests");
    assert_eq!(requests["requests"][0]["outcome"], "miss", "{requests}");
    while watcher.next("stats")["store"]["objects"] != 1 {}
}

#[test]
fn what_comes_in_is_told_with_its_image_and_those_who_wait() {
    let registry = Registry::open();
    let image = Image::random(1, 3_000_000);
    registry.push(ALPINE, "3.20", &image);
    let proxy = in_front_of(&registry);
    let layer = &image.layers[0].digest;
    let gate = Gate::new();
    registry.fault_always(On::get(layer), Fault::Stall(1_000_000, gate.clone()));
    let url = |what: &str| format!("https://{}/v2/{ALPINE}/{what}", registry.host());
    let mut connection = proxy.client().open(registry.host()).unwrap();
    connection.send(&Request::new("HEAD", url("manifests/3.20"))).unwrap();
    let mut download = connection.start(&Request::get(url(&format!("blobs/{layer}")))).unwrap();
    download.read_exactly(100_000).unwrap();
    let second = proxy.client().from_address([127, 0, 0, 2].into());
    let mut another = second.open(registry.host()).unwrap();
    let mut joined = another.start(&Request::get(url(&format!("blobs/{layer}")))).unwrap();
    joined.read_exactly(100_000).unwrap();

    let mut watcher = Watcher::new(&proxy);
    let fetches = loop {
        let fetches = watcher.next("fetches");
        if fetches["fetches"][0]["waiting"] == 2 {
            break fetches;
        }
    };
    let fetch = &fetches["fetches"][0];
    assert_eq!(fetch["image"], "docker.io/library/alpine:3.20", "{fetch}");
    assert_eq!(fetch["for"], serde_json::json!(["127.0.0.1", "127.0.0.2"]), "{fetch}");
    assert!(fetch["bytes_per_sec"].is_u64(), "{fetch}");
    // Nothing comes any more: how long the rest takes is not known.
    while watcher.next("fetches")["fetches"][0]["bytes_per_sec"] != 0 {}
    let fetch = told(&proxy, "fetches")["fetches"][0].clone();
    assert!(fetch["remaining_secs"].is_null() && fetch["waiting"] == 2, "{fetch}");
    // Who leaves waits no more, though nothing comes.
    drop(joined);
    drop(another);
    while watcher.next("fetches")["fetches"][0]["waiting"] != 1 {}
    gate.open();
    download.finish().unwrap();
    while watcher.next("fetches")["fetches"] != serde_json::json!([]) {}
}

#[test]
fn one_outage_is_told_once_and_apart_from_mistakes_of_users() {
    let mut registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config("tunnel = \"none\"").start();
    for _ in 0..3 {
        proxy.client().connect("mail.example:25").unwrap();
    }
    for mistake in ["docker.io/library/nosuch:1", "ghrc.io/org/app:1"] {
        let pulled = proxy.run(&["pull", mistake]);
        assert_ne!(pulled.code, Some(0), "{}", pulled.output);
    }
    let url = format!("https://{}/v2/{ALPINE}/manifests/2", registry.host());
    registry.stop();
    for _ in 0..4 {
        assert!(proxy.client().get(&url).unwrap().status >= 500);
    }
    let groups = told(&proxy, "errors")["groups"].clone();
    let of_side = |side: &str| -> Vec<Value> {
        let groups = groups.as_array().unwrap().iter().filter(|group| group["side"] == side);
        groups.cloned().collect()
    };
    let registries = of_side("registry");
    assert_eq!(registries.len(), 1, "{groups:#}");
    assert_eq!(
        (&registries[0]["registry"], &registries[0]["count"]),
        (&"docker.io".into(), &4.into())
    );
    assert!(registries[0]["last_ms"].as_u64() >= registries[0]["first_ms"].as_u64());
    let reason = registries[0]["reason"].as_str().unwrap();
    assert!(reason.contains("refused") && !reason.contains("unreachable for"), "{reason}");
    let users = of_side("client");
    assert!(users.iter().any(|group| group["count"] == 3), "{users:?}");
    assert!(users.iter().any(|group| group["reason"].to_string().contains("nosuch")), "{users:?}");
    assert!(users.iter().any(|group| group["reason"].to_string().contains("ghrc.io")), "{users:?}");
    assert_eq!(Watcher::new(&proxy).next("errors")["groups"], groups);
}

#[test]
fn so_many_may_watch_and_the_drain_waits_for_none() {
    let proxy = Proxy::builder(BINARY).start();
    let watchers: Vec<_> = (0..32).map(|_| Watcher::new(&proxy)).collect();
    let one_more = proxy.admin("/api/v1/events");
    assert_eq!(one_more.status, 503, "{}", one_more.text());
    proxy.signal(Signal::TERM);
    assert!(proxy.wait_exit().success());
    assert!(proxy.log_contains("drained"), "{:?}", proxy.log());
    drop(watchers);
}

#[test]
fn a_watcher_who_takes_nothing_holds_nobody_up() {
    let (_registry, proxy, blob) = one_layer(10_000);
    let idle = Watcher::new(&proxy);
    let mut watcher = Watcher::new(&proxy);
    let mut outcomes = BTreeMap::<String, usize>::new();
    while !outcomes.contains_key("hit") {
        proxy.puller().blob(ALPINE, &blob.digest).unwrap();
        for request in watcher.next("requests")["requests"].as_array().unwrap() {
            *outcomes.entry(request["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    assert_eq!(outcomes["miss"], 1, "each is told once: {outcomes:?}");
    drop(idle);
}
