//! What is wrong with a registry is said first, with since and why, and alike wherever it is told.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{
    Access, Fault, Gate, Hangup, Image, On, Proxy, Registry, Request, Response, User, wait_until,
};
use serde_json::Value;

use crate::{ALPINE, BINARY, PRIVATE};

const TAG: &str = "1";

fn told(proxy: &Proxy, path: &str) -> Value {
    let answer = proxy.admin(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    serde_json::from_str(&answer.text()).unwrap()
}

fn state_of(proxy: &Proxy, registry: &str) -> Option<Value> {
    let all = told(proxy, "/api/v1/registries");
    let all = all["registries"].as_array().unwrap().clone();
    all.into_iter().find(|one| one["registry"] == registry)
}

/// Every place that tells of it says that docker.io is in this state, and why.
#[track_caller]
fn assert_told(proxy: &Proxy, state: &str, why: &str) {
    let status = told(proxy, "/api/v1/status");
    assert_eq!(status["verdict"], "troubled", "{status}");
    let sentence = status["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("docker.io ") && sentence.contains(why), "{sentence}");
    let trouble = &status["troubles"][0];
    assert_eq!((&trouble["registry"], &trouble["state"]), (&"docker.io".into(), &state.into()));
    assert!(trouble["since"].is_u64(), "{trouble}");
    let registry = state_of(proxy, "docker.io").unwrap();
    assert_eq!(registry["state"], state, "{registry}");
    assert_eq!((&registry["since"], &registry["why"]), (&trouble["since"], &trouble["why"]));
    let ready = told(proxy, "/readyz");
    assert_eq!(ready["status"], "degraded");
    assert_eq!(ready["reasons"][0], trouble["words"], "{ready}");
    let metrics = proxy.admin("/metrics").text();
    for (known, value) in [(state, 1), ("well", 0)] {
        let line = format!(
            "entrepot_registry_state{{registry=\"docker.io\",state=\"{known}\"}} {value}\n"
        );
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    let check = proxy.run(&["check"]);
    assert_eq!(check.code, Some(1), "{}", check.output);
    assert!(check.output.contains("WRONG readiness: degraded: docker.io "), "{}", check.output);
    let screen = proxy.run(&["status"]);
    assert_eq!(screen.code, Some(1), "{}", screen.output);
    // A screen breaks lines where it likes.
    let told = |screen: &str| screen.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told(&screen.output).contains(sentence), "{sentence}: {}", screen.output);
    let explained = proxy.run(&["explain", "alpine:1"]).output;
    assert!(told(&explained).contains(trouble["words"].as_str().unwrap()), "{explained}");
}

#[track_caller]
fn assert_well(proxy: &Proxy) {
    let status = told(proxy, "/api/v1/status");
    assert_eq!(
        (&status["verdict"], &status["sentence"]),
        (&"well".into(), &"All well.".into()),
        "{status}"
    );
    assert_eq!(state_of(proxy, "docker.io").unwrap()["state"], "well");
    assert_eq!(told(proxy, "/readyz")["status"], "ready");
    let screen = proxy.run(&["status"]);
    assert_eq!(screen.code, Some(0), "{}", screen.output);
    assert!(screen.output.contains("All well."), "{}", screen.output);
}

/// A proxy that keeps a public image of this registry's.
fn keeping(registry: &Registry, tables: &str) -> Proxy {
    registry.push(ALPINE, TAG, &Image::random(1, 1000));
    let proxy = Proxy::builder(BINARY).in_front_of(registry).tables(tables).start();
    let pulled = proxy.puller().pull(ALPINE, TAG).unwrap();
    proxy.wait_until_all_kept(&pulled);
    assert_well(&proxy);
    proxy
}

fn reload(proxy: &Proxy, time: usize) {
    proxy.signal(Signal::HUP);
    proxy.wait_for_logs(&["the configuration was read again"], time);
}

#[test]
fn dead_credentials_are_a_state_and_stop_no_pull() {
    let robot = User::new("robot").pushes(PRIVATE).pushes("library/*");
    for (access, is_open) in [
        (Access::bearer([robot.clone()]).anonymous("library/*"), true),
        (Access::bearer([robot.clone()]), false),
        (Access::basic([robot.clone()]), false),
    ] {
        let registry = Registry::builder().access(access).start();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, &robot.password).unwrap();
        let table = format!(
            "[[registry]]\nhost = \"docker.io\"\nusername = \"robot\"\npassword-file = {file:?}"
        );
        let proxy = keeping(&registry, &table);
        let good = "entrepot_registry_credentials_ok{registry=\"docker.io\"}";
        assert!(proxy.admin("/metrics").text().contains(&format!("{good} 1\n")));
        let check = proxy.run(&["check"]);
        assert!(check.output.contains("and takes user robot"), "{}", check.output);

        fs::write(&file, "expired").unwrap();
        reload(&proxy, 1);
        for _ in 0..2 {
            proxy.puller().pull(ALPINE, TAG).unwrap();
        }
        assert_told(&proxy, "credentials-refused", "this proxy's own credentials (user robot)");
        assert!(proxy.admin("/metrics").text().contains(&format!("{good} 0\n")));
        let check = proxy.run(&["check"]).output;
        assert!(check.contains("does not take its credentials (user robot)"), "{check}");
        if is_open {
            let other = Image::random(1, 1000);
            registry.push("library/other", TAG, &other);
            proxy.puller().pull("library/other", TAG).unwrap();
        }
        let url = format!("https://{}/v2/{PRIVATE}/manifests/{TAG}", registry.host());
        let refused = proxy.client().get(&url).unwrap();
        assert_eq!(refused.status, 401);
        assert!(refused.oci_error().contains("user robot"), "{}", refused.text());

        fs::write(&file, &robot.password).unwrap();
        reload(&proxy, 2);
        proxy.puller().pull(ALPINE, TAG).unwrap();
        assert_well(&proxy);
    }
}

/// As ECR does once a token has expired.
#[test]
fn credentials_that_a_403_refuses_for_everything_are_dead() {
    let robot = User::new("robot").pushes("library/*");
    let registry = Registry::builder().access(Access::basic([robot.clone()])).start();
    let table = format!(
        "[[registry]]\nhost = \"docker.io\"\nusername = \"robot\"\npassword = {:?}",
        robot.password
    );
    let proxy = keeping(&registry, &table);
    let denied = Fault::answer_with(|request: &Request| {
        let error = r#"{"errors":[{"code":"DENIED","message":"Your token has expired."}]}"#;
        if request.headers.get("authorization").is_some() {
            Response::new(403).header("Content-Type", "application/json").body(error)
        } else {
            Response::new(401)
                .header("WWW-Authenticate", "Basic realm=\"r\"")
                .header("Content-Type", "application/json")
                .body(error)
        }
    });
    registry.fault_always(On::path("/v2/"), denied);
    proxy.puller().pull(ALPINE, TAG).unwrap();
    assert_told(&proxy, "credentials-refused", "user robot");
}

#[test]
fn a_helper_that_fails_is_told_as_dead_credentials_are() {
    let robot = User::new("robot").pushes("library/*");
    let registry = Registry::builder().access(Access::bearer([robot.clone()])).start();
    let dir = tempfile::tempdir().unwrap();
    let helper = dir.path().join("docker-credential-test");
    let write = |script: &str| {
        let whole = dir.path().join("new");
        fs::write(&whole, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&whole, fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(&whole, &helper).unwrap();
    };
    let working = format!("echo '{{\"Username\":\"robot\",\"Secret\":{:?}}}'", robot.password);
    write(&working);
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    registry.push(ALPINE, TAG, &Image::random(1, 1000));
    let table = "[[registry]]\nhost = \"docker.io\"\ncredential-helper = \"test\"";
    let proxy =
        Proxy::builder(BINARY).in_front_of(&registry).env("PATH", &path).tables(table).start();
    let pulled = proxy.puller().pull(ALPINE, TAG).unwrap();
    proxy.wait_until_all_kept(&pulled);
    write("echo 'the vault is sealed' >&2; exit 1");
    reload(&proxy, 1);
    proxy.puller().pull(ALPINE, TAG).unwrap();
    let status = told(&proxy, "/api/v1/status");
    let why = status["troubles"][0]["why"].as_str().unwrap();
    assert!(why.contains("docker-credential-test has no credentials"), "{status}");
    assert_eq!(status["troubles"][0]["state"], "credentials-refused");
    let url = format!("https://{}/v2/{PRIVATE}/manifests/{TAG}", registry.host());
    let refused = proxy.client().get(&url).unwrap();
    assert_eq!(refused.status, 401);
    assert!(refused.oci_error().contains("docker-credential-test"), "{}", refused.text());
    write(&working);
    reload(&proxy, 2);
    proxy.puller().pull(ALPINE, TAG).unwrap();
    assert_well(&proxy);
}

#[test]
fn a_slow_registry_is_called_slow_and_what_is_kept_does_not_wait() {
    let registry = Registry::open();
    let proxy = keeping(&registry, "");
    let gate = Gate::new();
    registry.fault_always(On::path("/manifests/"), Fault::SlowHead(gate.clone()));
    let began = std::time::Instant::now();
    proxy.puller().pull(ALPINE, TAG).unwrap();
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    assert_told(&proxy, "slow", "it takes longer than 2 s to answer");
    registry.heal();
    gate.open();
    wait_until("it has recovered", || {
        proxy.puller().pull(ALPINE, TAG).unwrap();
        told(&proxy, "/api/v1/status")["verdict"] == "well"
    });
    assert_well(&proxy);
}

#[test]
fn a_registry_that_is_away_is_told_until_it_is_back() {
    let mut registry = Registry::open();
    let proxy = keeping(&registry, "");
    registry.stop();
    for _ in 0..3 {
        proxy.puller().pull(ALPINE, TAG).unwrap();
    }
    assert_told(&proxy, "away", "can't be reached since ");
    let since = state_of(&proxy, "docker.io").unwrap()["since"].clone();
    proxy.puller().pull(ALPINE, TAG).unwrap();
    assert_eq!(state_of(&proxy, "docker.io").unwrap()["since"], since);
}

#[test]
fn a_registry_known_from_before_a_restart_is_away_too() {
    let mut registry = Registry::builder()
        .hosts("123456789012.dkr.ecr.eu-central-1.amazonaws.com", "auth.example", "cdn.example")
        .start();
    registry.push(ALPINE, TAG, &Image::random(1, 1000));
    let mut proxy = Proxy::builder(BINARY).in_front_of(&registry).start();
    let host = registry.host().to_owned();
    let pulled = proxy.puller().from(&host).pull(ALPINE, TAG).unwrap();
    proxy.wait_until_all_kept(&pulled);
    registry.stop();
    proxy.restart(Signal::TERM);
    proxy.puller().from(&host).pull(ALPINE, TAG).unwrap();
    let status = told(&proxy, "/api/v1/status");
    assert_eq!(status["troubles"][0]["state"], "away", "{status}");
}

#[test]
fn a_registry_that_errs_or_limits_or_hangs_up_is_told_with_why() {
    let limit = Response::new(429).header("Retry-After", "30");
    for (fault, state, why) in [
        (Fault::status(503), "unwell", "it answers 503 Service Unavailable"),
        (Fault::Answer(limit), "limited", "it answers 429 Too Many Requests"),
        (Fault::NoAnswer(Hangup::Fin), "unwell", "registry-1.docker.io"),
    ] {
        let registry = Registry::open();
        let proxy = keeping(&registry, "");
        registry.fault_always(On::path("/manifests/"), fault);
        proxy.puller().pull(ALPINE, TAG).unwrap();
        assert_told(&proxy, state, why);
        registry.heal();
        wait_until("it has recovered", || {
            proxy.puller().pull(ALPINE, TAG).unwrap();
            told(&proxy, "/api/v1/status")["verdict"] == "well"
        });
    }
}

#[test]
fn a_quota_that_is_used_up_is_told_before_anybody_is_refused() {
    let registry = Registry::open();
    let proxy = keeping(&registry, "");
    let fields = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "0;w=21600")];
    let fields = fields.map(|(name, value)| Fault::Header(name, value.to_owned()));
    registry.faults(On::path("/manifests/"), fields.to_vec(), usize::MAX);
    proxy.puller().pull(ALPINE, TAG).unwrap();
    assert_told(&proxy, "limited", "quota of 100 pulls is used up");
    assert!(state_of(&proxy, "docker.io").unwrap()["until"].is_u64());
}

#[test]
fn a_typing_mistake_is_no_registrys_state() {
    let registry = Registry::open();
    let proxy = keeping(&registry, "");
    assert_eq!(proxy.puller().pull("nosuch/image", "latest").unwrap_err().status(), Some(404));
    let hub = state_of(&proxy, "docker.io").unwrap();
    assert!(hub["last_error"].is_null(), "{hub}");
    for _ in 0..4 {
        let typo = proxy.client().get("https://typo.azurecr.io/v2/x/manifests/1").unwrap();
        assert!(typo.status >= 500, "{}", typo.status);
    }
    assert!(state_of(&proxy, "typo.azurecr.io").is_none());
    assert!(!proxy.admin("/metrics").text().contains("typo.azurecr.io"));
    assert_well(&proxy);
}
