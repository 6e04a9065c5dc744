//! What a monitoring system is told.

use std::collections::{BTreeMap, BTreeSet};

use entrepot_testkit::{Client, Fault, Hangup, On, Proxy, Registry, Request};

use crate::{ALPINE, BINARY, one_layer};

fn scrape(proxy: &Proxy) -> String {
    let page = proxy.admin("/metrics");
    assert_eq!(page.status, 200);
    let expected = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(page.headers.get("content-type"), Some(expected));
    page.text()
}

/// The sample with this name and these labels, in their order.
fn sample(page: &str, name: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(&format!("{name} ")))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[track_caller]
fn assert_sample(page: &str, name: &str, expected: f64) {
    let found = sample(page, name).unwrap_or_default();
    assert!((found - expected).abs() < f64::EPSILON, "{name} is {found}:\n{page}");
}

#[test]
fn what_happens_is_counted() {
    let (_registry, proxy, blob) = one_layer(300_000);
    let before = scrape(&proxy);
    assert_sample(&before, "entrepot_store_objects", 0.0);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    crate::admin_api::pull_until_hit(&proxy, &blob.digest);
    // The line follows the count, which follows the last byte.
    for line in [["HIT", "blob"], ["MISS", "blob"], ["MISS", "manifest"]] {
        proxy.wait_for_log(&line);
    }
    let mut open = proxy.client().plain().unwrap();
    open.send(&Request::get("/healthz").header("Host", "proxy")).unwrap();
    let page = scrape(&proxy);
    drop(open);
    let hits = r#"entrepot_requests_total{outcome="hit",registry="docker.io"}"#;
    assert!(sample(&page, hits).unwrap() >= 1.0, "{page}");
    let misses = r#"entrepot_requests_total{outcome="miss",registry="docker.io"}"#;
    assert!(sample(&page, misses).unwrap() >= 2.0, "{page}");
    let bytes =
        sample(&page, r#"entrepot_response_bytes_total{outcome="hit",registry="docker.io"}"#)
            .unwrap();
    assert!(bytes >= 300_000.0, "{page}");
    let received = r#"entrepot_upstream_received_bytes_total{registry="docker.io"}"#;
    assert!(sample(&page, received).unwrap() > 300_000.0, "{page}");
    let asked =
        r#"entrepot_upstream_requests_total{registry="docker.io",method="GET",status="2xx"}"#;
    assert!(sample(&page, asked).unwrap() >= 2.0, "{page}");
    let timed = r#"entrepot_request_duration_seconds_count{kind="blob",outcome="hit"}"#;
    assert!(sample(&page, timed).unwrap() >= 1.0, "{page}");
    let kept = (pulled.manifests.len() + pulled.blobs.len()) as u64;
    assert_eq!(sample(&page, "entrepot_store_objects").unwrap().to_string(), kept.to_string());
    assert_sample(&page, "entrepot_downloads_in_flight", 0.0);
    assert_sample(&page, "entrepot_store_troubled", 0.0);
    assert!(sample(&page, "entrepot_connections_open").unwrap() >= 1.0, "{page}");
    assert!(sample(&page, "entrepot_ca_expiry_timestamp_seconds").unwrap() > 1.8e9, "{page}");
    assert!(sample(&page, "process_open_fds").unwrap() > 5.0, "{page}");
    assert!(sample(&page, "process_threads").unwrap() > 1.0, "{page}");
    assert!(sample(&page, "process_virtual_memory_bytes").unwrap() > 1e6, "{page}");
    let began =
        r#"entrepot_upstream_first_byte_seconds_count{kind="manifest",registry="docker.io"}"#;
    assert!(sample(&page, began).unwrap() >= 2.0, "{page}");
    let answered = r#"entrepot_registry_last_success_timestamp_seconds{registry="docker.io"}"#;
    assert!(sample(&page, answered).unwrap() > 1.7e9, "{page}");
    let saved = sample(&page, r#"entrepot_saved_bytes{registry="docker.io"}"#).unwrap();
    let sum = |name: &str| sample(&page, &format!("{name}{{registry=\"docker.io\"}}")).unwrap();
    let difference = sum("entrepot_served_bytes_total") - sum("entrepot_fetched_bytes_total");
    assert!((saved - difference).abs() < 1.0 && saved >= 300_000.0, "{saved}: {page}");
}

/// `increase()` sees no first event of a series that was not there before.
#[test]
fn what_is_named_is_there_from_the_start() {
    let proxy = Proxy::builder(BINARY).config("intercept-also = [\"mine.example\"]").start();
    let page = scrape(&proxy);
    for registry in ["docker.io", "registry.k8s.io", "mine.example"] {
        for outcome in ["hit", "miss", "stale", "denied", "error"] {
            let labels = format!("outcome=\"{outcome}\",registry=\"{registry}\"");
            assert_sample_is_there(&page, &format!("entrepot_requests_total{{{labels}}}"));
            assert_sample_is_there(&page, &format!("entrepot_response_bytes_total{{{labels}}}"));
        }
        for reason in ["unreachable", "limited"] {
            let labels = format!("registry=\"{registry}\",reason=\"{reason}\"");
            assert_sample_is_there(
                &page,
                &format!("entrepot_upstream_held_back_total{{{labels}}}"),
            );
        }
        for status in ["2xx", "4xx", "5xx", "none"] {
            let labels = format!("registry=\"{registry}\",method=\"GET\",status=\"{status}\"");
            assert_sample_is_there(&page, &format!("entrepot_upstream_requests_total{{{labels}}}"));
        }
        for kind in ["manifest", "blob"] {
            let labels = format!("kind=\"{kind}\",outcome=\"hit\",registry=\"{registry}\"");
            assert_sample_is_there(&page, &format!("entrepot_content_requests_total{{{labels}}}"));
        }
        for name in ["served_bytes", "fetched_bytes", "quota_pulls_saved", "pulls"] {
            let name = format!("entrepot_{name}_total{{registry=\"{registry}\"}}");
            assert_sample_is_there(&page, &name);
        }
    }
    assert!(page.lines().count() < 4000, "{} lines", page.lines().count());
}

#[track_caller]
fn assert_sample_is_there(page: &str, name: &str) {
    assert_eq!(sample(page, name), Some(0.0), "{name}");
}

#[test]
fn trouble_with_a_download_is_counted() {
    let (registry, proxy, blob) = one_layer(300_000);
    registry.fault_always(On::get(&blob.digest), Fault::FlipBit(1000));
    proxy.puller().blob(ALPINE, &blob.digest).unwrap_err();
    proxy.wait_for_log(&["a download failed"]);
    registry.heal();
    let cut = Fault::Cut(100_000, Hangup::Fin);
    registry.faults(On::get(&blob.digest), vec![cut], 1);
    proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    let page = scrape(&proxy);
    assert_sample(&page, "entrepot_digest_mismatches_total", 1.0);
    assert_sample(&page, "entrepot_downloads_resumed_total", 1.0);
}

#[test]
fn a_page_names_no_more_registries_than_it_may() {
    let proxy = Proxy::builder(BINARY)
        .config("intercept = [\"*\"]")
        .upstream("connect-timeout = \"1s\"")
        .start();
    let mut connection = proxy.client().plain().unwrap();
    for number in 0..300 {
        // Refused before anything is dialled: an address that only named destinations may have.
        let host = format!("127.0.{}.{}:443", number / 250 + 1, number % 250 + 1);
        let request = Request::get(format!("http://{host}/v2/")).header("Host", &host);
        let answer = connection.send(&request).unwrap();
        assert!(answer.status >= 400, "{}", answer.status);
    }
    proxy.wait_for_log(&["127.0.2.50"]);
    let page = scrape(&proxy);
    let of_registry =
        |line: &str| Some(line.split_once("registry=\"")?.1.split_once('"')?.0.to_owned());
    let registries: BTreeSet<_> = page.lines().filter_map(of_registry).collect();
    assert!(registries.contains("other") && registries.len() <= 102, "{registries:?}");
}

#[test]
fn openmetrics_is_spoken_to_who_asks_for_it() {
    let proxy = Proxy::builder(BINARY).start();
    let request = Request::get("/metrics")
        .header("Host", proxy.admin_address().to_string())
        .header("Accept", "application/openmetrics-text; version=1.0.0, text/plain;q=0.5");
    let page = Client::new(proxy.admin_address()).send(&request).unwrap();
    assert!(page.headers.get("content-type").unwrap().contains("openmetrics-text"));
    assert!(page.text().ends_with("# EOF\n"), "{}", page.text());
}

/// The rules of `promtool check metrics`, as far as they concern us.
#[test]
fn names_help_and_types_are_as_prometheus_wants_them() {
    let (_registry, proxy, blob) = one_layer(1000);
    proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    let page = scrape(&proxy);
    let mut types = BTreeMap::new();
    let mut helped = BTreeSet::new();
    for line in page.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            let (name, words) = described.split_once(' ').unwrap();
            assert!(words.ends_with('.') && words.len() > 5, "{line}");
            assert!(helped.insert(name.to_owned()), "twice: {line}");
        } else if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').unwrap();
            assert!(helped.contains(name), "no help for {name}");
            types.insert(name.to_owned(), kind.to_owned());
        } else {
            assert_is_described(line, &types);
        }
    }
    for (name, kind) in &types {
        assert!(name.starts_with("entrepot_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        let allowed = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.chars().all(allowed), "{name}");
        for unit in ["milliseconds", "millis", "secs", "kilobytes", "megabytes", "percent"] {
            assert!(!name.split('_').any(|part| part == unit), "{name}: not a base unit");
        }
    }
    assert!(types.len() > 20, "{types:?}");
    let documented = include_str!("../../docs/metrics.md");
    for name in types.keys() {
        assert!(documented.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
    }
}

#[track_caller]
fn assert_is_described(line: &str, types: &BTreeMap<String, String>) {
    let name = line.split(['{', ' ']).next().unwrap();
    let value = line.rsplit(' ').next().unwrap();
    assert!(value.parse::<f64>().is_ok(), "{line}");
    let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|suffix| {
        let family = name.strip_suffix(suffix).and_then(|family| types.get(family));
        family.is_some_and(|kind| kind == "histogram")
    });
    assert!(of_histogram || types.contains_key(name), "{line} has no type");
}

#[test]
fn a_registry_that_is_down_is_told_apart_from_one_that_refuses() {
    let mut registry = Registry::open();
    let proxy = crate::in_front_of(&registry);
    registry.stop();
    proxy.puller().pull(ALPINE, "1").unwrap_err();
    let page = scrape(&proxy);
    let none = page.lines().find(|line| line.contains(r#"status="none""#));
    assert!(none.is_some_and(|line| line.contains(r#"registry="docker.io""#)), "{page}");
}
