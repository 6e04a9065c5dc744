//! What goes wrong at a registry is told in words that name the cause and the cure.

use std::net::TcpListener;

use entrepot_testkit::registry::{HUB, Transport};
use entrepot_testkit::{Fault, Gate, Hangup, Image, On, Proxy, Registry, Request, Response};

use crate::{ALPINE, BINARY, in_front_of};

fn ping(proxy: &Proxy) -> Response {
    proxy.client().get(&format!("https://{HUB}/v2/")).unwrap()
}

/// Where an engine prints what is wrong.
fn pull(proxy: &Proxy) -> Response {
    proxy.client().get(&format!("https://{HUB}/v2/{ALPINE}/manifests/1")).unwrap()
}

/// An answer of this status whose error document contains all of `parts`.
#[track_caller]
fn assert_explains(response: &Response, status: u16, parts: &[&str]) {
    assert_eq!(response.status, status, "{}", response.text());
    let message = response.oci_error();
    for part in parts {
        assert!(message.contains(part), "no {part:?} in {message:?}");
    }
    let version = response.headers.get("docker-distribution-api-version");
    assert_eq!(version, Some("registry/2.0"));
}

#[test]
fn plain_http_on_a_tls_port_names_the_scheme_key() {
    let registry = Registry::builder().transport(Transport::PlainHttp).start();
    let proxy = in_front_of(&registry);
    assert_explains(&pull(&proxy), 502, &["docker.io", "plain HTTP", "scheme"]);
}

#[test]
fn a_registry_of_plain_http_works_once_it_is_named() {
    let registry = Registry::builder().transport(Transport::PlainHttp).start();
    let image = Image::random(1, 10_000);
    registry.push(ALPINE, "1", &image);
    let table = format!("[[registry]]\nhost = \"{HUB}\"\nscheme = \"http\"");
    let address = registry.server(entrepot_testkit::Role::Registry).address();
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .connect_to(&format!("{HUB}:80:{address}"))
        .tables(&table)
        .start();
    proxy.puller().pull(ALPINE, "1").unwrap();
}

#[test]
fn an_untrusted_certificate_names_its_issuer_and_the_key() {
    let registry = Registry::builder().transport(Transport::UntrustedAuthority).start();
    let proxy = in_front_of(&registry);
    assert_explains(&pull(&proxy), 502, &["docker.io", "unknown authority", "ca-files"]);
}

#[test]
fn an_expired_certificate_names_its_dates() {
    let registry = Registry::builder().transport(Transport::ExpiredCertificate).start();
    let proxy = in_front_of(&registry);
    assert_explains(&pull(&proxy), 502, &["docker.io", "expired", "2021"]);
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let registry = Registry::builder().transport(Transport::WrongName).start();
    let proxy = in_front_of(&registry);
    assert_explains(&pull(&proxy), 502, &["other.example", HUB]);
}

#[test]
fn a_name_that_does_not_resolve_is_told() {
    let proxy = Proxy::builder(BINARY)
        .connect_to(&format!("{HUB}:443:no-such-registry.invalid:443"))
        .start();
    assert_explains(&pull(&proxy), 502, &["no-such-registry.invalid", "does not resolve"]);
}

#[test]
fn a_refused_port_is_told() {
    let mut registry = Registry::open();
    let proxy = in_front_of(&registry);
    registry.stop();
    assert_explains(&pull(&proxy), 502, &["docker.io", "refused"]);
}

#[test]
fn a_registry_that_says_nothing_times_out() {
    let registry = Registry::open();
    let proxy =
        Proxy::builder(BINARY).in_front_of(&registry).upstream("header-timeout = \"1s\"").start();
    let gate = Gate::new();
    registry.fault_always(On::path("/v2/"), Fault::SlowHead(gate.clone()));
    assert_explains(&pull(&proxy), 504, &["docker.io", "no answer"]);
    gate.open();
}

#[test]
fn the_wait_for_an_answer_begins_with_the_connection() {
    // Its backlog takes connections, and nobody ever looks at them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::builder(BINARY)
        .connect_to(&format!("{HUB}:443:{}", silent.local_addr().unwrap()))
        .upstream("header-timeout = \"100ms\"\nconnect-timeout = \"1s\"")
        .start();
    assert_explains(&pull(&proxy), 504, &["docker.io", "TLS handshake within 1 s"]);
}

#[test]
fn a_registry_that_hangs_up_is_told() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    for hangup in [Hangup::Fin, Hangup::Rst, Hangup::CloseNotify] {
        registry.fault_always(On::path("/v2/"), Fault::NoAnswer(hangup));
        assert_explains(&pull(&proxy), 502, &["docker.io"]);
        registry.heal();
    }
}

#[test]
fn refusals_of_the_registry_reach_the_client_and_are_not_kept() {
    let registry = Registry::open();
    let image = Image::random(1, 10_000);
    registry.push(ALPINE, "1", &image);
    let proxy = in_front_of(&registry);
    let digest = &image.layers[0].digest;
    let url = format!("https://{HUB}/v2/{ALPINE}/blobs/{digest}");
    for status in [401, 403, 404] {
        registry.fault_always(On::path(digest), Fault::status(status));
        let response = proxy.client().send(&Request::get(&url)).unwrap();
        assert_eq!(response.status, status, "{}", response.text());
        registry.heal();
    }
    assert_eq!(proxy.puller().blob(ALPINE, digest).unwrap().response.body, image.layers[0].bytes);
}

#[test]
fn one_registry_in_trouble_leaves_the_others_alone() {
    let hub = Registry::open();
    let other = Registry::builder()
        .hosts("ghcr.io", "auth.ghcr.example", "cdn.ghcr.example")
        .ca_of(&hub)
        .start();
    other.push("org/app", "1", &Image::random(1, 1000));
    let proxy = Proxy::builder(BINARY).in_front_of(&hub).in_front_of(&other).start();
    let gate = Gate::new();
    hub.fault_always(On::path("/"), Fault::SlowHead(gate.clone()));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ping(&proxy));
        gate.wait_until_reached(1);
        proxy.puller().from("ghcr.io").pull("org/app", "1").unwrap();
        gate.open();
        assert_eq!(waiting.join().unwrap().status, 200);
    });
}
