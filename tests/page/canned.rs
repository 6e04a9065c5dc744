//! The page over documents that a test has written: a proxy in a state that is hard to bring about.

use std::time::{SystemTime, UNIX_EPOCH};

use entrepot_testkit::{Gate, Reply, Request, Response, Server};
use serde_json::{Map, Value, json};

/// The documents that the stream tells as well.
const TOLD: [&str; 8] =
    ["status", "stats", "savings", "fetches", "registries", "repositories", "errors", "requests"];
/// A name as long as ECR makes them.
pub(crate) const ECR: &str = "602401143452.dkr.ecr.ap-southeast-2.amazonaws.com";

/// The page's files, over canned documents.
pub(crate) struct Canned {
    server: Server,
    _gate: Gate,
}

impl Canned {
    /// Serves these documents, each by its name in `/api/v1/`; what is not among them is not found.
    pub(crate) fn serve(documents: Value) -> Self {
        let gate = Gate::new();
        let held = gate.clone();
        let server = Server::http(move |request: &Request| answer(&documents, request, &held));
        Self { server, _gate: gate }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.server.address())
    }
}

fn answer(documents: &Value, request: &Request, gate: &Gate) -> Reply {
    let path = request.target.split('?').next().unwrap();
    if let Some((media_type, body)) = file(path) {
        return Response::new(200).header("Content-Type", media_type).body(body).into();
    }
    let Some(name) = path.strip_prefix("/api/v1/") else { return Response::new(404).into() };
    if name == "events" {
        let events = events(documents);
        let stream = Response::new(200).header("Content-Type", "text/event-stream");
        // The stream stays open: a last byte is to come.
        return Reply::from(stream.body(format!("{events}:"))).stalling(events.len(), gate.clone());
    }
    if name == "pull" {
        let lines = pulled().map(|line| format!("{line}\n")).concat();
        return Response::new(200).body(lines).into();
    }
    let name = if name.starts_with("images/") { "image" } else { name };
    match documents.get(name) {
        Some(document) => Response::new(200).body(document.to_string()).into(),
        None => Response::new(404).into(),
    }
}

fn events(documents: &Value) -> String {
    let known = TOLD.iter().filter_map(|name| Some((*name, documents.get(*name)?)));
    let event = |(name, document)| format!("event: {name}\ndata: {document}\n\n");
    known.map(event).collect::<Vec<_>>().concat()
}

fn file(path: &str) -> Option<(&'static str, &'static str)> {
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    Some(match path {
        "/" => ("text/html; charset=utf-8", include_str!("../../src/admin/page/index.html")),
        "/assets/page.css" => ("text/css", include_str!("../../src/admin/page/page.css")),
        "/assets/icon.svg" => ("image/svg+xml", include_str!("../../src/admin/page/icon.svg")),
        "/assets/page.js" => (SCRIPT, include_str!("../../src/admin/page/page.js")),
        "/assets/api.js" => (SCRIPT, include_str!("../../src/admin/page/api.js")),
        "/assets/charts.js" => (SCRIPT, include_str!("../../src/admin/page/charts.js")),
        "/assets/dom.js" => (SCRIPT, include_str!("../../src/admin/page/dom.js")),
        "/assets/images.js" => (SCRIPT, include_str!("../../src/admin/page/images.js")),
        "/assets/pulls.js" => (SCRIPT, include_str!("../../src/admin/page/pulls.js")),
        "/assets/registries.js" => (SCRIPT, include_str!("../../src/admin/page/registries.js")),
        "/assets/troubles.js" => (SCRIPT, include_str!("../../src/admin/page/troubles.js")),
        "/assets/words.js" => (SCRIPT, include_str!("../../src/admin/page/words.js")),
        _ => return None,
    })
}

/// So many seconds ago.
pub(crate) fn ago(seconds: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - seconds
}

/// In so many seconds.
fn ahead(seconds: u64) -> u64 {
    ago(0) + seconds
}

fn pulled() -> [Value; 4] {
    let digest = digest(7);
    let objects = json!([{ "digest": digest, "total_bytes": 3_400_000, "is_config": false }]);
    [
        json!({ "image": { "image": "docker.io/library/nginx:1.29", "objects": objects } }),
        json!({ "progress": { "digest": digest, "bytes": 1_000_000 } }),
        json!({ "done": { "digest": digest, "bytes": 3_400_000, "from": "registry" } }),
        json!({ "summary": {
            "image": "docker.io/library/nginx:1.29", "objects": 3, "bytes": 3_500_000,
            "fetched_blobs": 1, "fetched_bytes": 3_400_000,
        } }),
    ]
}

fn digest(number: u64) -> String {
    format!("sha256:{number:064x}")
}

/// A busy proxy that is well.
pub(crate) fn busy() -> Value {
    json!({
        "about": {
            "version": "0.1.0", "started": ago(900_000), "proxy_url": "http://proxy-1.corp:3128",
            "ca_sha256": format!("AB{}", ":AB".repeat(31)), "ca_expires": ahead(300_000_000), "quota_floor": 5,
            "set_up": format!("curl -fsS 'http://proxy-1.corp:3128/setup/systemd?fp={}' | sudo sh", "ab".repeat(32)),
            "has_token": false,
        },
        "status": {
            "name": "proxy-1.corp", "version": "0.1.0", "contact": "platform@acme",
            "proxy_url": "http://proxy-1.corp:3128", "started": ago(900_000), "verdict": "well",
            "sentence": "All well.", "troubles": [],
        },
        "stats": stats(),
        "savings": savings(),
        "history": { "step_secs": 60, "points": points() },
        "fetches": { "fetches": [
            fetch("ghcr.io/acme/platform/build:2026-11-28", 1, 37_000_000, Some(84_000_000)),
            fetch("ghcr.io/acme/platform/build:2026-11-28", 2, 1_000_000, Some(12_000_000)),
            fetch("docker.io/library/alpine:3.20", 3, 1_900_000, None),
        ] },
        "registries": { "registries": [
            registry("docker.io", "well", 180), registry("ghcr.io", "well", 420),
            registry("registry.k8s.io", "well", 95), registry(ECR, "well", 300),
            registry("quay.io", "unknown", 0),
        ] },
        "repositories": { "repositories": [
            repository("docker.io", "library/alpine"), repository("ghcr.io", "acme/platform/build"),
            repository(ECR, "eks/pause"),
        ] },
        "errors": { "errors": [], "groups": [] },
        "requests": { "requests": [request("hit", 200, &Value::Null), request("miss", 200, &Value::Null)] },
        "pulls": { "pulls": (0..40).rev().map(pull).collect::<Vec<_>>() },
        "clients": { "clients": [client("10.0.0.7", None), client("10.0.0.8", Some("alice"))] },
        "images": { "images": (0..30).map(image).collect::<Vec<_>>(), "next": null },
        "image": image(0),
    })
}

/// The same with several registries in trouble, each in its way.
pub(crate) fn broken() -> Value {
    let mut documents = busy();
    let expired = "the certificate of ghcr.io:443 is refused: it has expired on 2026-11-27 (CN=*.ghcr.io, \
                   issued by CN=Sectigo ECC Domain Validation Secure Server CA)";
    let sentence = "2 registries can't be reached: ghcr.io since 02:14 UTC (certificate), \
                    registry.gitlab.com since 23:39 UTC (connection refused); docker.io refuses this \
                    proxy's credentials; what is kept is served.";
    let trouble = |registry: Option<&str>, state: &str, until: Option<u64>, words: &str| {
        json!({
            "registry": registry, "state": state, "since": ago(7_000), "until": until,
            "why": words, "words": words,
        })
    };
    documents["status"]["verdict"] = "troubled".into();
    documents["status"]["sentence"] = sentence.into();
    documents["status"]["troubles"] = json!([
        trouble(
            Some("docker.io"),
            "credentials-refused",
            None,
            "docker.io refuses this proxy's credentials (user robot, of a [[registry]] entry): public \
             images are pulled as nobody, private ones are served as far as they are kept"
        ),
        trouble(
            Some("ghcr.io"),
            "away",
            Some(ahead(40)),
            &format!("ghcr.io can't be reached: {expired}")
        ),
        trouble(
            Some("registry.gitlab.com"),
            "away",
            Some(ahead(90)),
            "registry.gitlab.com can't be reached: it refuses connections"
        ),
        trouble(
            Some(ECR),
            "limited",
            Some(ahead(4_000)),
            &format!("{ECR} takes no more requests for now (429 Too Many Requests)")
        ),
        trouble(None, "store", None, "the store's disk fails: downloads are passed on unkept"),
    ]);
    documents["stats"]["store"]["is_troubled"] = true.into();
    documents["stats"]["store"]["quarantined_objects"] = 2.into();
    documents["about"]["ca_expires"] = ahead(20 * 86_400).into();
    documents["registries"]["registries"] = troubled_registries(expired);
    documents["errors"]["groups"] = groups(expired);
    documents["requests"]["requests"] = json!([
        request("error", 503, &json!(expired)),
        request("stale", 200, &json!("ghcr.io can't be reached")),
        request("relay", 401, &Value::Null),
    ]);
    documents["pulls"]["pulls"][0]["outcome"] = "failed".into();
    documents["pulls"]["pulls"][1]["outcome"] = "abandoned".into();
    documents
}

fn troubled_registries(expired: &str) -> Value {
    let state = |name: &str, state: &str, until: Option<u64>, why: &str| {
        let mut one = registry(name, state, 2_100);
        one["since"] = ago(7_000).into();
        one["until"] = json!(until);
        one["why"] = why.into();
        one
    };
    let mut hub =
        state("docker.io", "credentials-refused", None, "docker.io refuses the password of robot");
    hub["quota"]["remaining"] = 3.into();
    hub["identity"] = "password robot".into();
    json!([
        registry("registry.k8s.io", "well", 95),
        registry("quay.io", "unknown", 0),
        state(ECR, "limited", Some(ahead(4_000)), "it answered 429 Too Many Requests"),
        hub,
        state("mcr.microsoft.com", "slow", None, "its first byte takes 2.1 s (p95)"),
        state("ghcr.io", "away", Some(ahead(40)), expired),
        state("registry.gitlab.com", "away", Some(ahead(90)), "it refuses connections"),
        state("nvcr.io", "unwell", Some(ahead(9)), "it answers 503 Service Unavailable"),
    ])
}

fn groups(expired: &str) -> Value {
    let group = |registry: Option<&str>, side: &str, count: u64, reason: &str| {
        json!({
            "registry": registry, "side": side, "count": count, "reason": reason,
            "first_ms": ago(7_000) * 1000, "last_ms": ago(20) * 1000,
        })
    };
    json!([
        group(
            Some("registry.gitlab.com"),
            "registry",
            12,
            "no connection to registry.gitlab.com:443 at 172.65.251.78:443: Connection refused"
        ),
        group(Some("ghcr.io"), "registry", 1_204, expired),
        group(Some(ECR), "registry", 1, &format!("no token for {ECR}: 403 Forbidden")),
        group(
            Some("docker.io"),
            "client",
            3,
            "docker.io/nosuch/image:latest: docker.io has no such image: check its name and tag"
        ),
        group(
            None,
            "client",
            40,
            "mail.example:25 is not a registry that this proxy knows (tunnel = none)"
        ),
    ])
}

/// Names as long as they may be, everywhere.
pub(crate) fn long_names() -> Value {
    let mut documents = broken();
    let repository_name =
        format!("{}/{}", "a-team-with-a-long-name".repeat(3), "service".repeat(12));
    let tag = "v1.2.3-".repeat(15);
    let name = format!("{ECR}/{repository_name}:{tag}");
    documents["status"]["name"] = format!("{}.example", "proxy-of-a-site".repeat(4)).into();
    documents["status"]["sentence"] = format!("{ECR} can't be reached: {}", "x".repeat(300)).into();
    documents["registries"]["registries"][2]["why"] = "y".repeat(300).into();
    documents["registries"]["registries"][3]["quota"]["source"] = "z".repeat(80).into();
    documents["fetches"]["fetches"] = json!([fetch(&name, 9, 5, Some(100))]);
    documents["repositories"]["repositories"] = json!([repository(ECR, &repository_name)]);
    for pull in documents["pulls"]["pulls"].as_array_mut().unwrap() {
        pull["registry"] = ECR.into();
        pull["repository"] = repository_name.clone().into();
        pull["tag"] = tag.clone().into();
        pull["client"] = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff".into();
        pull["user"] = "somebody-with-a-long-name-at-some-company-of-some-size".into();
        pull["user_agent"] = "w".repeat(200).into();
    }
    for one in documents["images"]["images"].as_array_mut().unwrap() {
        one["name"] = name.clone().into();
    }
    documents["clients"]["clients"] =
        json!([client("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", Some(&"u".repeat(64)))]);
    documents["errors"]["groups"][0]["reason"] = "r".repeat(400).into();
    documents["requests"]["requests"] = json!([request("error", 503, &json!("q".repeat(400)))]);
    documents
}

/// What a proxy tells that knows none of the newer documents.
pub(crate) fn bare() -> Value {
    let Value::Object(all) = busy() else { return Value::Null };
    let old = ["about", "stats", "history", "fetches", "repositories", "requests", "images"];
    let mut documents: Map<_, _> =
        all.into_iter().filter(|(name, _)| old.contains(&&**name)).collect();
    let mut hub = registry("docker.io", "well", 100);
    for newer in ["state", "since", "until", "why", "first_byte_ms", "saved_bytes"] {
        hub.as_object_mut().unwrap().remove(newer);
    }
    hub["health"] = "well".into();
    documents.insert("registries".to_owned(), json!({ "registries": [hub] }));
    documents.insert("errors".to_owned(), json!({ "errors": [] }));
    Value::Object(documents)
}

fn stats() -> Value {
    json!({
        "version": "0.1.0", "uptime_secs": 900_000, "requests": 42_300, "cacheable_requests": 31_000,
        "hits": 28_300, "hit_ratio": 0.91, "sent_bytes": 4_800_000_000_000_u64,
        "saved_bytes": 4_200_000_000_000_u64, "received_bytes": 600_000_000_000_u64,
        "manifests": { "requests": 11_000, "hits": 10_200 }, "blobs": { "requests": 20_000, "hits": 18_100 },
        "store": {
            "objects": 12_345, "bytes": 80_000_000_000_u64, "max_bytes": 107_374_182_400_u64,
            "free_bytes": 300_000_000_000_u64, "min_free_bytes": 1_073_741_824, "evicted_objects": 230,
            "evicted_bytes": 9_000_000_000_u64, "quarantined_objects": 0, "index": "on_disk",
            "is_troubled": false,
        },
    })
}

fn savings() -> Value {
    let sum = |saved: u64, pulls: u64, money: f64| {
        json!({
            "served_bytes": saved + 9_000_000_000, "fetched_bytes": 9_000_000_000_u64, "saved_bytes": saved,
            "pulls": pulls, "quota_pulls_saved": pulls / 2, "money": money,
            "manifests": { "requests": 100, "hits": 90 }, "blobs": { "requests": 100, "hits": 90 },
        })
    };
    json!({
        "since": ago(20_000_000), "currency": "USD", "cost_per_gb": 0.045,
        "this_month": sum(4_200_000_000_000, 36_600, 190.0),
        "total": sum(41_000_000_000_000, 300_000, 1_845.0), "months": [], "registries": [], "networks": [],
    })
}

fn points() -> Vec<Value> {
    let point = |minute: u64| {
        let hits = 20 + minute % 7;
        json!({
            "at": ago(minute * 60), "requests": 40, "cacheable_requests": 30, "hits": hits,
            "sent_bytes": 90_000_000 + minute * 1_000_000, "saved_bytes": 70_000_000, "received_bytes": 20_000_000,
        })
    };
    (0..60).rev().map(point).collect()
}

fn fetch(image: &str, number: u64, bytes: u64, total: Option<u64>) -> Value {
    json!({
        "digest": digest(number), "registry": image.split('/').next(), "image": image,
        "for": ["10.0.0.7", "10.0.0.8"], "waiting": 3, "bytes": bytes, "total_bytes": total,
        "bytes_per_sec": 4_100_000, "remaining_secs": total.map(|total| (total - bytes) / 4_100_000),
    })
}

fn registry(name: &str, state: &str, first_byte: u64) -> Value {
    let is_used = state != "unknown";
    let quota = (name == "docker.io").then(|| {
        json!({
            "remaining": 88, "limit": 100, "window_secs": 21_600, "source": "203.0.113.7",
            "told": ago(60), "whole_again": ahead(9_000),
        })
    });
    json!({
        "registry": name, "state": state, "since": null, "until": null, "why": null, "outage": null,
        "limit": null, "quota": quota, "requests": if is_used { json!({ "hit": first_byte, "miss": 10 }) } else { json!({}) },
        "sent_bytes": if is_used { 1_800_000_000_000_u64 } else { 0 },
        "received_bytes": if is_used { 200_000_000_000_u64 } else { 0 },
        "last_success": is_used.then(|| ago(5)), "last_error": null, "saved_bytes": 1_600_000_000_000_u64,
        "first_byte_ms": is_used.then(|| json!({ "p50": first_byte / 3, "p95": first_byte })),
    })
}

fn repository(registry: &str, name: &str) -> Value {
    json!({
        "registry": registry, "repository": name, "requests": 12_000, "hits": 11_000,
        "sent_bytes": 900_000_000_000_u64, "last_use": ago(10),
    })
}

fn request(outcome: &str, status: u16, reason: &Value) -> Value {
    json!({
        "number": 1, "at_ms": ago(3) * 1000, "id": "00c0ffee00c0ffee", "client": "10.0.0.7",
        "outcome": outcome, "method": "GET", "registry": "docker.io", "repository": "library/alpine",
        "object": "manifest 3.20", "status": status, "body_bytes": 9_200, "elapsed_ms": 14, "reason": reason,
    })
}

fn pull(number: u64) -> Value {
    let is_hit = !number.is_multiple_of(3);
    let (repository, tag) = if number.is_multiple_of(2) {
        ("library/alpine", "3.20")
    } else {
        ("library/postgres", "17")
    };
    let agent =
        if number.is_multiple_of(2) { "docker/28.0.1 go/go1.23" } else { "containerd/2.0.2" };
    json!({
        "number": number, "at_ms": ago(60 * (40 - number)) * 1000, "client": "10.0.0.7",
        "user": number.is_multiple_of(5).then_some("alice"), "user_agent": agent, "registry": "docker.io",
        "repository": repository, "reference": tag, "tag": tag, "digest": digest(number),
        "platform": "linux/amd64", "bytes": 3_100_000, "bytes_from_cache": if is_hit { 3_100_000 } else { 0 },
        "share_from_cache": if is_hit { 1.0 } else { 0.0 }, "duration_ms": 200,
        "outcome": if is_hit { "partial" } else { "complete" }, "quota_pulls": u64::from(!is_hit),
    })
}

fn client(address: &str, user: Option<&str>) -> Value {
    json!({
        "client": address, "user": user, "pulls": 1_830, "bytes": 700_000_000_000_u64,
        "bytes_from_cache": 650_000_000_000_u64, "quota_pulls": 12, "last": ago(30),
    })
}

fn image(number: u64) -> Value {
    json!({
        "name": format!("docker.io/library/tool{number}:1.{number}"), "digest": digest(number),
        "media_type": null, "bytes": 30_000_000 + number * 1_000_000, "is_complete": true,
        "platforms": ["linux/amd64", "linux/arm64"], "last_use": ago(3_600 * number + 60), "hits": 98 - number,
        "is_pinned": number == 1, "asked": ago(500),
    })
}
