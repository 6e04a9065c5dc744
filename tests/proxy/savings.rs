//! What the cache was worth: hits of content alone, saved what did not come over the line, and all
//! of it over restarts.

use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{
    Access, Fault, Image, Index, On, Proxy, Registry, Request, Response, wait_until,
};
use serde_json::Value;

use crate::{ALPINE, BINARY, in_front_of};

fn told(proxy: &Proxy, path: &str) -> Value {
    let answer = proxy.admin(&format!("/api/v1/{path}"));
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn row<'v>(rows: &'v Value, name: &str, called: &str) -> &'v Value {
    let rows = rows.as_array().unwrap();
    rows.iter().find(|row| row[name] == called).unwrap_or(&Value::Null)
}

/// How many bytes a registry has sent of manifests and blobs.
fn content_of(image: &Image) -> i64 {
    let blobs = image.blobs().map(|blob| blob.bytes.len()).sum::<usize>();
    i64::try_from(blobs + image.manifest.bytes.len()).unwrap()
}

#[test]
fn the_hit_ratio_is_of_manifests_and_blobs_alone() {
    let access = Access::bearer([]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    let first = Image::random(2, 20_000);
    registry.push(ALPINE, "1", &first);
    registry.push(ALPINE, "2", &Image::random(1, 20_000));
    registry.push(ALPINE, "3", &Image::random(1, 20_000));
    // The same layers, in an image of its own.
    let mut layers = first.layers.clone();
    layers.reverse();
    registry.push(ALPINE, "4", &Image::of_layers("amd64", layers));
    let proxy = in_front_of(&registry);
    for tag in ["1", "2", "3", "4"] {
        let pulled = proxy.puller().pull(ALPINE, tag).unwrap();
        proxy.wait_until_all_kept(&pulled);
    }
    // A manifest and a configuration each; five layers, and two that are there already.
    wait_until("all is counted", || told(&proxy, "stats")["cacheable_requests"] == 14);
    let stats = told(&proxy, "stats");
    assert_eq!(stats["hits"], 2, "{stats}");
    assert!((stats["hit_ratio"].as_f64().unwrap() - 2.0 / 14.0).abs() < 1e-9, "{stats}");
    assert_eq!(stats["manifests"], serde_json::json!({ "requests": 4, "hits": 0 }));
    assert_eq!(stats["blobs"], serde_json::json!({ "requests": 10, "hits": 2 }));
    assert!(number(&stats["requests"]) > 14, "pings, tokens and HEADs are requests: {stats}");
    let demand = told(&proxy, "repositories");
    let demand = &demand["repositories"][0];
    assert_eq!((&demand["requests"], &demand["hits"]), (&14.into(), &2.into()), "{demand}");
    let history = told(&proxy, "history");
    let points = history["points"].as_array().unwrap();
    let sum = |field: &str| points.iter().map(|point| number(&point[field])).sum::<i64>();
    assert_eq!((sum("cacheable_requests"), sum("hits")), (14, 2), "{history}");
    let page = proxy.admin("/metrics").text();
    let series = |kind: &str, outcome: &str| {
        let labels = format!("kind=\"{kind}\",outcome=\"{outcome}\",registry=\"docker.io\"");
        let name = format!("entrepot_content_requests_total{{{labels}}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("{name} is not there")).parse::<u64>().unwrap()
    };
    assert_eq!(series("blob", "hit"), 2);
    assert_eq!((series("blob", "miss"), series("manifest", "miss")), (8, 4));
    // What listings and pings bring is no hit either.
    let url = format!("https://{}/v2/{ALPINE}/tags/list", registry.host());
    for _ in 0..3 {
        proxy.client().send(&Request::get(&url)).unwrap();
    }
    proxy.wait_for_logs(&["GET", "tags"], 3);
    assert_eq!(told(&proxy, "stats")["cacheable_requests"], 14);
}

#[test]
fn what_was_pulled_ahead_is_fetched_once_and_saved_when_it_is_served() {
    const PULLS: i64 = 3;
    let registry = Registry::open();
    let index = Index::random(&["amd64", "arm64"], 2, 300_000);
    registry.push_index(ALPINE, "1", &index);
    let mut proxy = Proxy::builder(BINARY)
        .tables("[savings]\ncost-per-gb = 1000.0\ncurrency = \"EUR\"\n")
        .in_front_of(&registry)
        .start();
    let pulled = proxy.run(&["pull", "--platform", "linux/amd64", "alpine:1"]);
    assert_eq!(pulled.code, Some(0), "{}", pulled.output);
    let amd64 = &index.images[0];
    let manifests = i64::try_from(index.manifest.bytes.len()).unwrap();
    let once = content_of(amd64) + manifests;
    let savings = told(&proxy, "savings");
    let total = &savings["total"];
    assert_eq!(number(&total["fetched_bytes"]), once, "{savings}");
    assert_eq!((number(&total["served_bytes"]), number(&total["saved_bytes"])), (0, -once));
    assert_eq!(number(&total["pulls"]), 0, "no client has pulled anything yet");
    let ahead = row(&savings["networks"], "network", "operator");
    assert_eq!(number(&ahead["saved_bytes"]), -once, "{savings}");

    for _ in 0..PULLS {
        proxy.puller().pull(ALPINE, "1").unwrap();
    }
    wait_until("all is counted", || {
        number(&told(&proxy, "savings")["total"]["served_bytes"]) == PULLS * once
            && number(&told(&proxy, "savings")["total"]["pulls"]) == PULLS
    });
    let saved = (PULLS - 1) * once;
    let savings = told(&proxy, "savings");
    assert_eq!(number(&savings["total"]["saved_bytes"]), saved, "{savings}");
    assert_eq!(number(&savings["this_month"]["saved_bytes"]), saved);
    assert_eq!(number(&savings["months"][0]["saved_bytes"]), saved);
    let hub = row(&savings["registries"], "registry", "docker.io");
    assert_eq!(number(&hub["saved_bytes"]), saved, "{savings}");
    let clients = row(&savings["networks"], "network", "127.0.0.0/24");
    assert_eq!(number(&clients["saved_bytes"]), PULLS * once, "{savings}");
    // Two manifests a pull, and the Hub counts GETs of manifests.
    assert_eq!(number(&savings["total"]["quota_pulls_saved"]), 2 * PULLS, "{savings}");
    let cents = |saved: i64| {
        #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
        let money = saved as f64 / 1e9 * 1000.0;
        (money * 100.0).round() / 100.0
    };
    assert!((savings["total"]["money"].as_f64().unwrap() - cents(saved)).abs() < 1e-9, "{savings}");
    assert_eq!((&savings["currency"], &savings["cost_per_gb"]), (&"EUR".into(), &1000.0.into()));
    let stats = told(&proxy, "stats");
    assert_eq!(number(&stats["saved_bytes"]), saved, "{stats}");

    proxy.restart(Signal::TERM);
    let after = told(&proxy, "savings");
    assert_eq!(after["total"], savings["total"], "nothing is lost by a restart");
    assert_eq!(after["since"], savings["since"]);
    assert_eq!(after["registries"], savings["registries"]);
    assert_eq!(after["networks"], savings["networks"]);
    assert_eq!(number(&told(&proxy, "stats")["saved_bytes"]), 0, "that is since the start");
    proxy.puller().pull(ALPINE, "1").unwrap();
    wait_until("it is counted on", || {
        let savings = told(&proxy, "savings");
        number(&savings["total"]["saved_bytes"]) == saved + once
    });
}

#[test]
fn a_kill_loses_a_minute_at_most() {
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 50_000));
    let mut proxy = in_front_of(&registry);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    let record = proxy.data_dir().join("cache/savings");
    // After a quiet minute it takes some seconds, and the process has just begun.
    wait_until("it is written down", || record.exists());
    let fetched = number(&told(&proxy, "savings")["total"]["fetched_bytes"]);
    proxy.restart(Signal::KILL);
    let savings = told(&proxy, "savings");
    assert_eq!(number(&savings["total"]["fetched_bytes"]), fetched, "{savings}");
}

#[test]
fn a_record_that_is_none_costs_a_line() {
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 50_000));
    let mut proxy = in_front_of(&registry);
    proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.signal(Signal::TERM);
    proxy.wait_exit();
    let record = proxy.data_dir().join("cache/savings");
    std::fs::write(&record, "0123456789abcdef {\"version\":1}\n").unwrap();
    proxy.start_again();
    proxy.wait_for_log(&["the record of what was saved is damaged"]);
    assert_eq!(number(&told(&proxy, "savings")["total"]["fetched_bytes"]), 0);
    proxy.puller().pull(ALPINE, "1").unwrap();
}

/// registry.k8s.io has nothing of its own: whatever it is asked for, it leads to Artifact Registry.
#[test]
fn what_a_registry_leads_to_counts_for_it() {
    const LED_TO: &str = "us-west2-docker.pkg.dev";
    const K8S: &str = "registry.k8s.io";
    let behind = Registry::builder().hosts(LED_TO, "auth.pkg.example", "cdn.pkg.example").start();
    let image = Image::random(2, 100_000);
    behind.push("k8s/images/pause", "3.9", &image);
    let front = Registry::builder()
        .hosts(K8S, "auth.k8s.example", "cdn.k8s.example")
        .ca_of(&behind)
        .start();
    let leading = Fault::answer_with(|request| {
        let path = request.target.replacen("/v2/", "/v2/k8s/images/", 1);
        Response::new(307).header("Location", format!("https://{LED_TO}{path}"))
    });
    front.fault_always(On::path("/v2/pause/"), leading);
    let proxy = Proxy::builder(BINARY).in_front_of(&behind).in_front_of(&front).start();
    let pulled = proxy.puller().from(K8S).pull("pause", "3.9").unwrap();
    proxy.wait_until_all_kept(&pulled);
    proxy.wait_for_logs(&["MISS", "blob"], 3);
    let registries = told(&proxy, "registries");
    let k8s = row(&registries["registries"], "registry", K8S);
    let once = content_of(&image);
    assert!(number(&k8s["received_bytes"]) >= once, "{k8s}");
    assert!(number(&k8s["sent_bytes"]) >= once, "{k8s}");
    assert!(number(&k8s["first_byte_ms"]["p95"]) >= 0, "{k8s}");
    assert!(k8s["last_success"].is_u64(), "{k8s}");
    let savings = told(&proxy, "savings");
    let k8s = row(&savings["registries"], "registry", K8S);
    assert_eq!(number(&k8s["fetched_bytes"]), once, "{savings}");
    let page = proxy.admin("/metrics").text();
    let of = |registry: &str, name: &str| {
        let line = page.lines().find(|line| {
            line.starts_with(name) && line.contains(&format!("registry=\"{registry}\""))
        });
        line.map_or(0.0_f64, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    };
    for name in ["entrepot_upstream_received_bytes_total", "entrepot_fetched_bytes_total"] {
        assert!(of(K8S, name) >= 200_000.0, "{name}: {page}");
        assert!(of("other", name).abs() < 1.0 && of(LED_TO, name).abs() < 1.0, "{name}: {page}");
    }
    let timed = page.lines().find(|line| {
        line.starts_with("entrepot_upstream_first_byte_seconds_count{kind=\"blob\"")
            && line.contains(K8S)
    });
    assert!(timed.is_some_and(|line| line.ends_with(" 3")), "{timed:?}");
}

#[test]
fn a_registry_that_nobody_has_named_counts_from_its_first_byte_on() {
    const HOST: &str = "mine.azurecr.io";
    let registry = Registry::builder().hosts(HOST, "auth.mine.example", "cdn.mine.example").start();
    let image = Image::random(1, 100_000);
    registry.push("app", "1", &image);
    let proxy = in_front_of(&registry);
    proxy.puller().from(HOST).pull("app", "1").unwrap();
    proxy.wait_for_logs(&["MISS", "blob"], 2);
    let savings = told(&proxy, "savings");
    let mine = row(&savings["registries"], "registry", HOST);
    assert_eq!(number(&mine["fetched_bytes"]), content_of(&image), "{savings}");
    assert_eq!(number(&mine["saved_bytes"]), 0, "{savings}");
    assert!(row(&savings["registries"], "registry", "other").is_null(), "{savings}");
}

#[test]
fn pulls_are_saved_of_a_quota_that_there_is() {
    let registry =
        Registry::builder().hosts("ghcr.io", "auth.ghcr.example", "cdn.ghcr.example").start();
    registry.push("org/app", "1", &Image::random(1, 1000));
    let proxy = in_front_of(&registry);
    let pull = || {
        let pulled = proxy.puller().from("ghcr.io").pull("org/app", "1").unwrap();
        proxy.wait_until_all_kept(&pulled);
    };
    (0..3).for_each(|_| pull());
    let saved = || {
        let registries = told(&proxy, "registries");
        number(&row(&registries["registries"], "registry", "ghcr.io")["quota_pulls_saved"])
    };
    wait_until("all is counted", || told(&proxy, "stats")["manifests"]["requests"] == 3);
    assert_eq!(saved(), 0, "it counts no pulls");
    let fields = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "42;w=21600")];
    let fields = fields.map(|(name, value)| Fault::Header(name, value.to_owned()));
    registry.faults(On::path("/manifests/"), fields.to_vec(), usize::MAX);
    (0..2).for_each(|_| pull());
    wait_until("all is counted", || saved() == 2);
}
