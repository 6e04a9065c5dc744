//! The dashboard and the alerts of docs/deploy ask for what `/metrics` tells, and the programs that
//! read them take them.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use yaml_rust2::YamlLoader;

use entrepot_testkit::{Image, Proxy, Registry, wait_until};

use crate::{ALPINE, BINARY};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/deploy").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

#[track_caller]
fn promtool(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{error}: apt-get install prometheus"))
}

/// A bucket, of which there is something to tell though nobody is there.
const BUCKET: &str = "[bucket]\nurl = \"s3://nobody\"\nendpoint = \"http://127.0.0.1:1\"\n\
                      credentials = \"none\"\n";

/// What a proxy that has something to tell exposes.
fn page() -> String {
    let registry = Registry::open();
    let image = Image::random(1, 1000);
    registry.push(ALPINE, "1", &image);
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).tables(BUCKET).start();
    proxy.puller().blob(ALPINE, &image.layers[0].digest).unwrap();
    proxy.wait_for_log(&["MISS", "blob"]);
    let page = || proxy.admin("/metrics").text();
    wait_until("the bucket is asked", || {
        page().contains("entrepot_bucket_request_duration_seconds_bucket")
    });
    page()
}

/// Every name that a query may use.
fn exposed(page: &str) -> BTreeSet<String> {
    let described = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut names: BTreeSet<_> = described
        .flat_map(|line| match line.split_once(' ').unwrap() {
            (name, "histogram") => {
                ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")).to_vec()
            }
            (name, _) => vec![name.to_owned()],
        })
        .collect();
    // Prometheus' own word on whether it could scrape.
    names.insert("up".to_owned());
    names
}

/// The names in a query: what is followed by `{` or `[`, or looks like one of ours.
fn asked_for(query: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut names = BTreeSet::new();
    let mut rest = query;
    while let Some(start) = rest.find(is_part) {
        let word = &rest[start..];
        let end = word.find(|c| !is_part(c)).unwrap_or(word.len());
        let (name, after) = word.split_at(end);
        let is_ours = name.starts_with("entrepot_") || name.starts_with("process_");
        if is_ours || after.starts_with(['{', '[']) {
            names.insert(name.to_owned());
        }
        rest = after;
    }
    names
}

/// Every text under this key, wherever it stands.
fn values(document: &Value, key: &str, found: &mut Vec<String>) {
    match document {
        Value::Array(items) => items.iter().for_each(|item| values(item, key, found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| name == key) {
                    Some(text) => found.push(text.to_owned()),
                    None => values(value, key, found),
                }
            }
        }
        _ => {}
    }
}

#[track_caller]
fn assert_known(queries: &[String], exposed: &BTreeSet<String>) {
    for query in queries {
        let names = asked_for(query);
        assert!(!names.is_empty(), "no metric in {query}");
        for name in names {
            assert!(exposed.contains(&name), "{name} is not in /metrics: {query}");
        }
    }
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_there_are() {
    let exposed = exposed(&page());
    let dashboard: Value = serde_json::from_str(&text("grafana-dashboard.json")).unwrap();
    let (mut queries, mut definitions) = (Vec::new(), Vec::new());
    values(&dashboard["panels"], "expr", &mut queries);
    values(&dashboard["templating"], "definition", &mut definitions);
    assert!(queries.len() > 20 && definitions.len() == 2);
    assert_known(&queries, &exposed);
    assert_known(&definitions, &exposed);
    let ids: BTreeSet<_> =
        dashboard["panels"].as_array().unwrap().iter().map(|one| one["id"].as_u64()).collect();
    assert_eq!(ids.len(), dashboard["panels"].as_array().unwrap().len());
    for panel in dashboard["panels"].as_array().unwrap() {
        let (kind, description) = (&panel["type"], panel["description"].as_str());
        assert!(kind == "row" || description.is_some_and(|text| !text.is_empty()), "{panel}");
    }
    let mut annotations = Vec::new();
    values(&dashboard["annotations"], "expr", &mut annotations);
    assert_known(&annotations, &exposed);

    let rules = YamlLoader::load_from_str(&text("prometheus-rules.yaml")).unwrap();
    let rules = rules[0]["groups"][0]["rules"].as_vec().unwrap();
    let queries: Vec<_> =
        rules.iter().map(|rule| rule["expr"].as_str().unwrap().to_owned()).collect();
    assert!(queries.len() > 8);
    assert_known(&queries, &exposed);
    let documented = include_str!("../../docs/metrics.md");
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        assert!(documented.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
        assert!(rule["annotations"]["summary"].as_str().is_some(), "{name}");
    }
}

#[test]
fn prometheus_takes_the_rules_and_the_metrics() {
    let rules = promtool(
        Command::new("promtool").args(["check", "rules"]).arg(path("prometheus-rules.yaml")),
    );
    assert!(rules.status.success(), "{}", String::from_utf8_lossy(&rules.stderr));
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proxy/prometheus-rules.test.yaml");
    let tested = promtool(Command::new("promtool").args(["test", "rules", tests]));
    let told = String::from_utf8_lossy(&tested.stdout).into_owned();
    assert!(tested.status.success(), "{told}{}", String::from_utf8_lossy(&tested.stderr));
    let tests = std::fs::read_to_string(tests).unwrap();
    for alert in text("prometheus-rules.yaml").lines().filter_map(|line| line.split_once("alert: "))
    {
        let fires = format!("{{alertname=\"{}\"}}', value: 1", alert.1);
        assert!(tests.contains(&fires), "{} is never seen to fire", alert.1);
    }
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut check =
        check.spawn().unwrap_or_else(|error| panic!("{error}: apt-get install prometheus"));
    check.stdin.take().unwrap().write_all(page().as_bytes()).unwrap();
    let told = check.wait_with_output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}
