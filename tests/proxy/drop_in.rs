//! The environment of docker-registry-proxy does what it did.

use entrepot_testkit::canary::assert_no_canary;
use entrepot_testkit::proxy::run;
use entrepot_testkit::registry::Builder as RegistryBuilder;
use entrepot_testkit::{Access, Image, Proxy, Puller, Registry, Request, Role, User};

use crate::{ALPINE, BINARY, PRIVATE};

fn robot() -> User {
    User::new("robot").pushes(PRIVATE)
}

fn private(builder: RegistryBuilder) -> Registry {
    let registry = builder.access(Access::bearer([robot()])).start();
    registry.push(PRIVATE, "1", &Image::random(2, 10_000));
    registry
}

#[test]
fn its_registries_are_intercepted_and_its_passwords_used() {
    let registry = private(Registry::builder());
    // Two entries nobody meant, as they stand in its image, and one for the Hub's token server.
    let auth = format!(
        "some.authenticated.registry:oneuser:onepassword another.registry:user:password \
         auth.docker.io:robot:{}",
        robot().password
    );
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .env("AUTH_REGISTRIES", &auth)
        .env("REGISTRIES", "harbor.corp")
        .env("KEEPALIVE_TIMEOUT", "300s")
        .env("RUST_LOG", "trace")
        .start();
    proxy.puller().pull(PRIVATE, "1").unwrap();
    proxy.wait_for_log(&["because there is AUTH_REGISTRIES"]);
    proxy.wait_for_log(&["KEEPALIVE_TIMEOUT has no counterpart"]);
    let (answer, _) = proxy.client().connect("harbor.corp:443").unwrap();
    assert_eq!(answer.status, 200, "intercepted, so that nothing is dialled yet");
    assert_no_canary(&proxy);
}

/// A GitLab has its token server on a host of its own, for which its users named the password.
#[test]
fn the_password_of_a_token_server_goes_there_and_nowhere_else() {
    let (reg, git) = ("reg.corp.example", "git.corp.example");
    let registry = private(Registry::builder().hosts(reg, git, "storage.example"));
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .env("REGISTRIES", &format!("{reg} {git}"))
        .env("AUTH_REGISTRIES", &format!("{git}:robot:{}", robot().password))
        .start();
    proxy.puller().from(reg).pull(PRIVATE, "1").unwrap();
    let basic = robot().basic();
    let requests = registry.requests();
    let with_password = requests.filter(|request| request.authorization() == Some(&basic));
    assert!(!with_password.is_empty());
    let to_the_token_server = with_password.to(Role::Auth);
    assert_eq!(with_password.len(), to_the_token_server.len(), "{}", with_password.summary());
}

#[test]
fn pushes_are_refused_unless_they_are_allowed() {
    let registry = Registry::open();
    let status = |environment: &[(&str, &str)]| {
        let builder = Proxy::builder(BINARY).in_front_of(&registry);
        let builder =
            environment.iter().fold(builder, |builder, (name, value)| builder.env(name, value));
        let proxy = builder.start();
        let url = format!("http://{}:443/v2/{ALPINE}/blobs/uploads/", registry.host());
        proxy.client().send(&Request::new("POST", &url)).unwrap().status
    };
    let sign = ("ENABLE_MANIFEST_CACHE", "true");
    assert_eq!(status(&[sign]), 405);
    assert_eq!(status(&[sign, ("ALLOW_PUSH", "false")]), 405);
    assert_ne!(status(&[sign, ("ALLOW_PUSH", "true")]), 405);
    assert_ne!(status(&[("ALLOW_PUSH", "false")]), 405, "a stray variable");
}

#[test]
fn unverified_registries_are_refused_with_the_way_out() {
    let environment = [("DEBUG_HUB", "false"), ("VERIFY_SSL", "false")];
    let finished = run(BINARY.as_ref(), &["serve"], &environment);
    assert_eq!(finished.code, Some(1), "{}", finished.output);
    assert!(finished.output.contains("VERIFY_SSL"), "{}", finished.output);
    assert!(finished.output.contains("ca-files"), "{}", finished.output);
}

#[test]
fn tags_of_a_tier_are_served_without_asking() {
    let registry = Registry::open();
    for tag in ["stable", "3.20.1"] {
        registry.push(ALPINE, tag, &Image::random(1, 10_000));
    }
    let requests = |enabled: &str| {
        let proxy = Proxy::builder(BINARY)
            .in_front_of(&registry)
            .env("ENABLE_MANIFEST_CACHE", enabled)
            .start();
        for tag in ["stable", "3.20.1"] {
            let pulled = proxy.puller().pull(ALPINE, tag).unwrap();
            proxy.wait_until_all_kept(&pulled);
        }
        registry.forget_requests();
        for tag in ["stable", "3.20.1"] {
            proxy.puller().pull(ALPINE, tag).unwrap();
        }
        registry.requests().path("/manifests/").len()
    };
    assert_eq!(requests("true"), 0);
    assert_eq!(requests("false"), 2, "a HEAD each");
}

#[test]
fn a_pull_goes_on_as_before_for_a_client_of_its_own() {
    let registry = Registry::open();
    let image = Image::random(1, 10_000);
    registry.push(ALPINE, "1", &image);
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .env("ENABLE_MANIFEST_CACHE", "false")
        .env("CACHE_MAX_SIZE", "1g")
        .start();
    // Its clients have HTTPS_PROXY=http://HOST:3128/ and its CA.
    let pulled = Puller::new(proxy.client()).pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    assert!(proxy.client().get("/ca.crt").unwrap().text().contains("BEGIN CERTIFICATE"));
}
