//! Who may use the proxy: by address and by name and password.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use entrepot_testkit::canary::assert_no_canary;
use entrepot_testkit::proxy::Builder;
use entrepot_testkit::{Image, Proxy, Puller, Registry, Request, User};
use tempfile::TempDir;

use crate::{ALPINE, BINARY};

const SOMEBODY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A proxy with a file of these users, which must outlive it.
fn asking(builder: Builder, users: &[&User]) -> (TempDir, Builder) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("users");
    let line = |user: &&User| {
        let hash = bcrypt::hash(&user.password, 4).unwrap();
        format!("{}:{}\n", user.name, hash.replace("$2b$", "$2y$"))
    };
    fs::write(&file, users.iter().map(line).collect::<String>()).unwrap();
    let builder = builder.tables(&format!("[access]\nhtpasswd = {:?}", file.display().to_string()));
    (directory, builder)
}

#[test]
fn only_the_networks_named_are_heard() {
    let proxy = Proxy::builder(BINARY)
        .tables("[access]\nclients = [\"127.0.0.1\", \"10.0.0.0/8\", \"::1\"]")
        .start();
    let outside = proxy.client().from_address(SOMEBODY);
    let closed = [
        "/",
        "/ca.crt",
        "/setup/systemd",
        "/v2/",
        "/healthz/",
        "http://ghcr.io/",
        "http://ghcr.io/healthz",
    ];
    for path in closed {
        let response = outside.get(path).unwrap();
        assert_eq!(response.status, 403, "{path}");
        assert!(response.reason.contains("127.0.0.2"), "{path}: {:?}", response.reason);
    }
    let (response, mut connection) = outside.connect("ghcr.io:443").unwrap();
    assert_eq!(response.status, 403);
    assert!(connection.is_closed());
    assert!(outside.clone().over_tls().get("/healthz").is_err(), "no handshake");
    proxy.wait_for_log(&["DENIED CONNECT ghcr.io:443", "127.0.0.2"]);
    assert_eq!(outside.get("/healthz").unwrap().status, 200, "a probe is no use of the proxy");
    assert_eq!(proxy.client().get("/").unwrap().status, 200);
    assert_eq!(proxy.client().over_tls().get("/").unwrap().status, 200);
    let admin = entrepot_testkit::Client::new(proxy.admin_address()).from_address(SOMEBODY);
    assert_eq!(admin.get("/healthz").unwrap().status, 200);
}

/// The container image's health check asks from loopback, whatever the networks.
#[test]
fn a_closed_proxy_is_alive() {
    let proxy =
        Proxy::builder(BINARY).everywhere().tables("[access]\nclients = [\"10.0.0.0/8\"]").start();
    let check = proxy.run(&["check", "--alive"]);
    assert_eq!(check.code, Some(0), "{}", check.output);
    assert_eq!(proxy.client().get("/").unwrap().status, 403);
}

#[test]
fn a_user_is_asked_for_and_then_served() {
    let alice = User::new("alice");
    let registry = Registry::open();
    let image = Image::random(2, 10_000);
    registry.push(ALPINE, "1", &image);
    let (_users, builder) = asking(Proxy::builder(BINARY).in_front_of(&registry), &[&alice]);
    let proxy = builder.env("RUST_LOG", "trace").start();
    let authority = format!("{}:443", registry.host());

    let (response, mut connection) = proxy.client().connect(&authority).unwrap();
    assert_eq!(response.status, 407);
    assert_eq!(response.headers.get("proxy-authenticate"), Some("Basic realm=\"entrepot\""));
    assert!(response.reason.contains("HTTPS_PROXY"), "{:?}", response.reason);
    // The same connection serves for the second attempt, as curl's does.
    let again = Request::new("CONNECT", &authority).header("Proxy-Authorization", alice.basic());
    assert_eq!(connection.send(&again).unwrap().status, 200);

    let client = proxy.client().with_proxy_header("Proxy-Authorization", &alice.basic());
    Puller::new(client.clone()).pull(ALPINE, "1").unwrap();
    let url = format!("http://{authority}/v2/");
    assert_eq!(client.get(&url).unwrap().status, 407);
    let with = Request::get(&url).header("Proxy-Authorization", alice.basic());
    assert_eq!(client.send(&with).unwrap().status, 200);

    let forwarded = registry.requests();
    assert!(!forwarded.is_empty());
    for request in forwarded.iter() {
        assert_eq!(request.headers.get("proxy-authorization"), None);
        assert_eq!(request.authorization(), None, "a user of the proxy is nobody elsewhere");
    }
    assert_no_canary(&proxy);
}

#[test]
fn the_pages_that_set_clients_up_are_everybodys_and_nothing_else_is() {
    let alice = User::new("alice");
    let (_users, builder) = asking(Proxy::builder(BINARY), &[&alice]);
    let proxy = builder.start();
    let client = proxy.client();
    for path in ["/", "/ca.crt", "/healthz", "/setup/systemd"] {
        assert_eq!(client.get(path).unwrap().status, 200, "{path}");
    }
    for path in ["/v2/_catalog", "/v2/x", "/v1/", "//", "/setup", "/else", "/..//"] {
        let response = client.get(path).unwrap();
        assert_eq!(response.status, 401, "{path}");
        assert_eq!(response.headers.get("www-authenticate"), Some("Basic realm=\"entrepot\""));
        let with = Request::get(path).header("Authorization", alice.basic());
        assert_eq!(client.send(&with).unwrap().status, 404, "{path}: there is nothing yet");
    }
}

#[test]
fn a_wrong_password_is_slow_and_leaves_a_line() {
    let (alice, mallory) = (User::new("alice"), User::new("mallory"));
    let registry = Registry::open();
    let (_users, builder) = asking(Proxy::builder(BINARY).in_front_of(&registry), &[&alice]);
    let proxy = builder.start();
    let authority = format!("{}:443", registry.host());
    let refused = |credential: &str| {
        let client = proxy.client().with_proxy_header("Proxy-Authorization", credential);
        let began = Instant::now();
        assert_eq!(client.connect(&authority).unwrap().0.status, 407, "{credential}");
        began.elapsed()
    };
    let mut other = mallory.clone();
    other.name.clone_from(&alice.name);
    for wrong in [mallory.basic(), other.basic()] {
        assert!(refused(&wrong) >= Duration::from_secs(2), "{wrong}");
    }
    for unreadable in ["Basic", "Basic ", "Basic YWxpY2U=", "Bearer x", "Negotiate x"] {
        refused(unreadable);
    }
    // Each on its own port, so that its line can be told from the other's.
    for port in [441, 442] {
        let client = proxy.client().with_proxy_header("Proxy-Authorization", &mallory.basic());
        client.connect(&format!("{}:{port}", registry.host())).unwrap();
        proxy.wait_for_log(&["DENIED CONNECT", &format!(":{port}"), "password for this proxy"]);
    }
    assert!(registry.requests().is_empty());
    assert_no_canary(&proxy);
}

#[test]
fn two_credentials_are_none() {
    let alice = User::new("alice");
    let (_users, builder) = asking(Proxy::builder(BINARY), &[&alice]);
    let proxy = builder.start();
    let client = proxy
        .client()
        .with_proxy_header("Proxy-Authorization", &alice.basic())
        .with_proxy_header("Proxy-Authorization", &alice.basic());
    assert_eq!(client.connect("ghcr.io:443").unwrap().0.status, 407);
}
