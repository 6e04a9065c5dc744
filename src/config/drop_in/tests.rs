//! What that tool's environment becomes.

use std::time::Duration;

use crate::config::{Settings, Sources};
use crate::gateway::Push;
use crate::log::Level;
use crate::registry::credentials::Login;

/// A run with these variables, and with that tool's cache volume where one is given.
fn sources(environment: &[(&str, &str)]) -> Sources {
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let state = ("STATE_DIRECTORY".to_owned(), "/state".to_owned());
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap().into_temp_path();
    let file = Some(file.keep().unwrap());
    Sources { file, environment: environment.chain([state]).collect(), ..Sources::default() }
}

fn load(environment: &[(&str, &str)]) -> Settings {
    Settings::load(&sources(environment)).unwrap()
}

fn refused(environment: &[(&str, &str)]) -> String {
    Settings::load(&sources(environment)).unwrap_err().to_string()
}

/// What only that tool has.
const SIGN: (&str, &str) = ("ENABLE_MANIFEST_CACHE", "false");

fn intercepts(settings: &Settings, authority: &str) -> bool {
    let authority = authority.parse().unwrap();
    settings.listener.policy.intercept.iter().any(|pattern| pattern.matches(&authority))
}

#[test]
fn a_stray_variable_changes_nothing_and_is_mentioned() {
    let stray = [
        ("DEBUG", "true"),
        ("REGISTRIES", "a.example"),
        ("ALLOW_PUSH", "false"),
        ("VERIFY_SSL", "false"),
        ("CACHE_MAX_SIZE", "lots"),
    ];
    let settings = load(&stray);
    assert!(!intercepts(&settings, "a.example:443"));
    assert_eq!(settings.gateway.push, Push::Client);
    assert_eq!(settings.log.level, Level::Info);
    let told = settings.notes.join("\n");
    for name in ["REGISTRIES", "ALLOW_PUSH", "CACHE_MAX_SIZE"] {
        assert!(told.contains(&format!("{name} is ignored")), "{told}");
    }
    assert!(!told.contains("DEBUG"), "{told}");
}

#[test]
fn the_cache_volume_is_a_sign_and_becomes_the_cache() {
    let volume = tempfile::tempdir().unwrap();
    let mirror_cache = Some(volume.path().to_owned());
    let with_volume = |environment: &[(&str, &str)]| {
        let mirror_cache = mirror_cache.clone();
        Settings::load(&Sources { mirror_cache, ..sources(environment) }).unwrap()
    };
    let settings = with_volume(&[("REGISTRIES", "a.example")]);
    assert_eq!(settings.store.dir, volume.path().join("entrepot"));
    assert_eq!(settings.gateway.push, Push::Deny, "unless ALLOW_PUSH says otherwise");
    assert!(intercepts(&settings, "a.example:443"));
    assert!(!settings.notes.join("\n").contains("delete"));
    std::fs::create_dir_all(volume.path().join("entrepot")).unwrap();
    std::fs::create_dir_all(volume.path().join("ab/cd")).unwrap();
    assert!(with_volume(&[]).notes.join("\n").contains("delete everything there but entrepot/"));
    let elsewhere = with_volume(&[("ENTREPOT_CACHE_DIR", "/elsewhere")]);
    assert_eq!(elsewhere.store.dir.to_str(), Some("/elsewhere"));
}

#[test]
fn it_stands_between_the_environment_and_the_file() {
    let mut given = sources(&[SIGN, ("CACHE_INACTIVE", "1d"), ("ALLOW_PUSH", "false")]);
    std::fs::write(given.file.as_ref().unwrap(), "push = \"client\"\nmax-idle = \"2d\"\n").unwrap();
    let settings = Settings::load(&given).unwrap();
    assert_eq!(settings.store.max_idle, Some(Duration::from_hours(24)));
    assert_eq!(settings.gateway.push, Push::Deny);
    given.environment.push(("ENTREPOT_PUSH".to_owned(), "client".to_owned()));
    given.environment.push(("ENTREPOT_MAX_IDLE".to_owned(), "3d".to_owned()));
    let settings = Settings::load(&given).unwrap();
    assert_eq!(settings.store.max_idle, Some(Duration::from_hours(72)));
    assert_eq!(settings.gateway.push, Push::Client);
    // What that tool did unless told otherwise is weaker than the file.
    given.environment = vec![(SIGN.0.to_owned(), SIGN.1.to_owned())];
    given.environment.push(("STATE_DIRECTORY".to_owned(), "/state".to_owned()));
    assert_eq!(Settings::load(&given).unwrap().gateway.push, Push::Client);
}

#[test]
fn bounds_times_and_switches_have_their_meaning() {
    let settings = load(&[
        ("CACHE_MAX_SIZE", "500m"),
        ("CACHE_INACTIVE", "1d12h"),
        ("ALLOW_PUSH", "true"),
        ("DISABLE_IPV6", "true"),
        ("VERIFY_SSL", "true"),
        ("PROXY_CONNECT_TIMEOUT", "5s"),
        ("PROXY_CONNECT_CONNECT_TIMEOUT", "20"),
        ("PROXY_READ_TIMEOUT", "2m"),
        ("CA_KEY_FILE", "/certs/ca.key"),
        ("CA_CRT_FILE", "/certs/ca.crt"),
        ("DEBUG", "true"),
        ("KEEPALIVE_TIMEOUT", "300s"),
        ("CA_SRL_FILE", "/certs/ca.srl"),
    ]);
    assert_eq!(settings.store.max_size, Some(500 << 20));
    assert_eq!(settings.store.max_idle, Some(Duration::from_hours(36)));
    assert_eq!(settings.gateway.push, Push::Client);
    assert!(!settings.upstream.ipv6);
    assert_eq!(settings.upstream.connect_timeout, Duration::from_secs(20));
    assert_eq!(settings.upstream.header_timeout, Duration::from_mins(2));
    assert_eq!(settings.upstream.idle_timeout, Duration::from_mins(2));
    assert_eq!(settings.ca_dir.to_str(), Some("/certs"));
    assert_eq!(settings.log.level, Level::Debug);
    let told = settings.notes.join("\n");
    for part in [
        "because there is PROXY_CONNECT_CONNECT_TIMEOUT",
        "KEEPALIVE_TIMEOUT has no",
        "CA_SRL_FILE has no",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn what_is_wrong_is_told_all_at_once() {
    let error = refused(&[
        SIGN,
        ("CACHE_MAX_SIZE", "32gb"),
        ("CACHE_INACTIVE", "soon"),
        ("VERIFY_SSL", "false"),
        ("REGISTRIES", "a.example http://b.example"),
        ("AUTH_REGISTRIES", "a.example:only-s3cret b.example:me:s3cret"),
        ("PROXY_READ_TIMEOUT", "0"),
        ("CA_KEY_FILE", "/a/ca.key"),
        ("CA_CRT_FILE", "/b/ca.crt"),
    ]);
    assert!(!error.contains("s3cret"), "{error}");
    insta::assert_snapshot!(error);
}

#[test]
fn a_value_that_is_no_flag_counts_as_false_as_it_did() {
    let settings = load(&[SIGN, ("ALLOW_PUSH", "yes")]);
    assert_eq!(settings.gateway.push, Push::Deny);
    assert!(settings.notes.iter().any(|note| note.contains("ALLOW_PUSH is \"yes\"")));
}

#[test]
fn registries_are_added_to_those_that_are_intercepted() {
    // With the quotes that compose files leave in.
    let settings = load(&[SIGN, ("REGISTRIES", "\"docker.io  harbor.corp\n*.lab:5000\"")]);
    for host in ["ghcr.io:443", "registry-1.docker.io:443", "harbor.corp:443", "x.lab:5000"] {
        assert!(intercepts(&settings, host), "{host}");
    }
    assert!(!intercepts(&settings, "other.corp:443"));
}

/// Who the proxy is at a registry, and where alone the password goes.
async fn login_at(
    settings: &Settings,
    authority: &str,
) -> Option<(String, String, Vec<&'static str>)> {
    let authority = authority.parse().unwrap();
    let rule = settings.gateway.registry.rules.iter().find(|rule| rule.host.matches(&authority))?;
    let credentials = rule.credentials.as_ref()?;
    let Login::Password { username, password } = credentials.login("x").await.unwrap() else {
        panic!("a password expected");
    };
    let hosts = ["git.corp.example", "reg.corp.example", "gitlab.com", "auth.docker.io"];
    let goes = |host: &&str| credentials.may_go_to(&host.parse().unwrap());
    Some((username, password.expose().to_owned(), hosts.into_iter().filter(goes).collect()))
}

#[tokio::test]
async fn credentials_become_those_of_registries() {
    let settings = load(&[
        ("REGISTRIES", "reg.corp.example git.corp.example other.example"),
        (
            "AUTH_REGISTRIES",
            "some.authenticated.registry:oneuser:onepassword another.registry:user:password \
             auth.docker.io:hubber:p:w quay.io:q:1 git.corp.example:g:2 gitlab.com:l:3",
        ),
    ]);
    let everywhere = vec!["git.corp.example", "reg.corp.example", "gitlab.com", "auth.docker.io"];
    let at = |authority| login_at(&settings, authority);
    let expected = |name: &str, password: &str, goes: &[&'static str]| {
        Some((name.to_owned(), password.to_owned(), goes.to_vec()))
    };
    assert_eq!(at("registry-1.docker.io:443").await, expected("hubber", "p:w", &everywhere));
    assert_eq!(at("quay.io:443").await, expected("q", "1", &everywhere));
    // A token server's password goes there alone, whatever the registry asks for.
    assert_eq!(at("reg.corp.example:443").await, expected("g", "2", &["git.corp.example"]));
    assert_eq!(at("registry.gitlab.com:443").await, expected("l", "3", &["gitlab.com"]));
    for none in ["other.example:443", "some.authenticated.registry:443", "another.registry:443"] {
        assert_eq!(at(none).await, None, "{none}");
    }
}

#[tokio::test]
async fn the_delimiters_can_be_others() {
    let settings = load(&[
        (
            "AUTH_REGISTRIES",
            "\"eu.gcr.io:::_json_key:::{\"a\": \"b:c d\"};;;r.example:5000:::u:::p\"",
        ),
        ("AUTH_REGISTRIES_DELIMITER", ";;;"),
        ("AUTH_REGISTRY_DELIMITER", ":::"),
    ]);
    let (name, password, _) = login_at(&settings, "eu.gcr.io:443").await.unwrap();
    assert_eq!((name.as_str(), password.as_str()), ("_json_key", "{\"a\": \"b:c d\"}"));
    let (name, password, _) = login_at(&settings, "r.example:5000").await.unwrap();
    assert_eq!((name.as_str(), password.as_str()), ("u", "p"));
}

/// How long a tag is served without asking, in minutes.
fn minutes(settings: &Settings, tag: &str) -> Option<u64> {
    let ttl = settings.gateway.tag_ttl.of(&tag.parse().unwrap());
    ttl.map(|ttl| ttl.as_secs() / 60)
}

#[test]
fn tags_have_three_tiers() {
    let settings = load(&[("ENABLE_MANIFEST_CACHE", "true")]);
    let days = 60 * 24 * 60;
    let fallback = format!("sha256-{}", "0a".repeat(32));
    let cases = [
        ("stable", 10),
        ("test-3.20.1", 10),
        ("3.20.1", days),
        ("1.2", days),
        ("2024-01-01", days),
        ("latest", 60),
        ("v20", 60),
        ("unstable", 60),
        (fallback.as_str(), 0),
    ];
    for (tag, expected) in cases {
        assert_eq!(minutes(&settings, tag), Some(expected), "{tag}");
    }
    let settings = load(&[
        ("ENABLE_MANIFEST_CACHE", "true"),
        ("MANIFEST_CACHE_PRIMARY_REGEX", "edge"),
        ("MANIFEST_CACHE_PRIMARY_TIME", "5m"),
        ("MANIFEST_CACHE_SECONDARY_REGEX", r"v\d+"),
        ("MANIFEST_CACHE_SECONDARY_TIME", "1d"),
        ("MANIFEST_CACHE_DEFAULT_TIME", "0"),
    ]);
    for (tag, expected) in [("edge-2", 5), ("v2", 24 * 60), ("3.20.1", 0), ("latest", 0)] {
        assert_eq!(minutes(&settings, tag), Some(expected), "{tag}");
    }
    for off in [SIGN, ("MANIFEST_CACHE_DEFAULT_TIME", "1h")] {
        assert_eq!(minutes(&load(&[off]), "stable"), None, "{off:?}");
    }
}

#[test]
fn a_tier_that_can_not_be_read_is_told_by_its_variable() {
    let error = refused(&[
        ("ENABLE_MANIFEST_CACHE", "true"),
        ("MANIFEST_CACHE_PRIMARY_REGEX", "(?!x)"),
        ("MANIFEST_CACHE_DEFAULT_TIME", "soon"),
    ]);
    for name in ["MANIFEST_CACHE_PRIMARY_REGEX: found", "MANIFEST_CACHE_DEFAULT_TIME: found"] {
        assert!(error.contains(name), "{error}");
    }
    assert!(!error.contains("tag-ttl"), "{error}");
}
