//! The TLS that ends here: for one host, with what clients need and nothing more.

use entrepot_testkit::tls::Versions;
use entrepot_testkit::{Registry, Request};
use rustls::ProtocolVersion;

use crate::in_front_of;

#[test]
fn a_server_name_for_another_host_is_misdirected() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    let mut connection = proxy.client().with_sni("ghcr.io").open(registry.host()).unwrap();
    let response = connection.send(&Request::get("/v2/")).unwrap();
    assert_eq!(response.status, 421);
    assert!(response.oci_error().contains("ghcr.io"), "{}", response.text());
    assert!(registry.requests().is_empty());
}

#[test]
fn a_host_field_for_another_host_is_misdirected() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    for host in ["ghcr.io", "registry-1.docker.io:5000", "registry-1.docker.io.example"] {
        let mut connection = proxy.client().open(registry.host()).unwrap();
        let response = connection.send(&Request::get("/v2/").header("Host", host)).unwrap();
        assert_eq!(response.status, 421, "{host}");
        assert!(connection.is_closed(), "{host}");
    }
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let absolute = Request::get("https://ghcr.io/v2/").header("Host", registry.host());
    assert_eq!(connection.send(&absolute).unwrap().status, 421);
    assert!(registry.requests().is_empty());
}

#[test]
fn the_same_host_in_other_spellings_is_no_other_host() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    for host in ["Registry-1.Docker.IO", "registry-1.docker.io:443"] {
        let mut connection = proxy.client().open(registry.host()).unwrap();
        let response = connection.send(&Request::get("/v2/").header("Host", host)).unwrap();
        assert_eq!(response.status, 200, "{host}");
    }
}

#[test]
fn a_client_without_a_server_name_is_served() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    let mut connection = proxy.client().without_sni().open(registry.host()).unwrap();
    assert_eq!(connection.send(&Request::get("/v2/")).unwrap().status, 200);
}

#[test]
fn only_http_1_is_offered() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    let client = proxy.client().with_alpn(&["h2", "http/1.1"]);
    let connection = client.open(registry.host()).unwrap();
    assert_eq!(connection.handshake().alpn.as_deref(), Some(b"http/1.1".as_slice()));
    assert!(proxy.client().with_alpn(&["h2"]).open(registry.host()).is_err());
    for both_or_old in [&["http/1.0", "http/1.1"][..], &["http/1.0"]] {
        let client = proxy.client().with_alpn(both_or_old);
        let mut connection = client.open(registry.host()).unwrap();
        let newest = both_or_old.last().map(|name| name.as_bytes());
        assert_eq!(connection.handshake().alpn.as_deref(), newest);
        let old = format!("GET /v2/ HTTP/1.0\r\nHost: {}\r\n\r\n", registry.host());
        assert_eq!(connection.send_raw(old.as_bytes()).unwrap().status, 200);
    }
    let mut silent = proxy.client().with_alpn(&[]).open(registry.host()).unwrap();
    assert_eq!(silent.send(&Request::get("/v2/")).unwrap().status, 200);
}

#[test]
fn both_living_versions_of_tls_are_spoken() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    let versions =
        [(Versions::Tls12, ProtocolVersion::TLSv1_2), (Versions::Tls13, ProtocolVersion::TLSv1_3)];
    for (offered, expected) in versions {
        let client = proxy.client().with_versions(offered);
        let mut connection = client.open(registry.host()).unwrap();
        assert_eq!(connection.handshake().version, expected);
        assert_eq!(connection.send(&Request::get("/v2/")).unwrap().status, 200);
    }
}

#[test]
fn the_proxy_itself_may_be_reached_over_tls() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    let client = proxy.client().over_tls();
    assert_eq!(client.get("/healthz").unwrap().status, 200);
    let mut connection = client.open(registry.host()).unwrap();
    assert_eq!(connection.send(&Request::get("/v2/")).unwrap().status, 200);
}

#[test]
fn the_outer_tls_certifies_no_registry() {
    let proxy = in_front_of(&Registry::open());
    let client = proxy.client().over_tls();
    let leaf = client.plain().unwrap().handshake().certificates[0].clone();
    let names = String::from_utf8_lossy(&leaf).into_owned();
    assert!(!names.contains("docker.io"));
}

#[test]
fn a_client_that_does_not_trust_the_proxy_is_told_of_in_the_log() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    let stranger = entrepot_testkit::Client::new(proxy.address()).trusting(&registry.ca().pem());
    assert!(stranger.open(registry.host()).is_err());
    proxy.wait_for_log(&["ERROR", registry.host(), "/ca.crt"]);
}

#[test]
fn garbage_in_a_tunnel_harms_nobody_else() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    let large = vec![0x16; 64 * 1024];
    for garbage in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"\x16\x03\x01\xff\xff", b"\0", &large] {
        let (response, mut tunnel) =
            proxy.client().connect(&format!("{}:443", registry.host())).unwrap();
        assert_eq!(response.status, 200);
        // The proxy may hang up before all of it is written.
        let _ = tunnel.write(garbage);
    }
    let mut connection = proxy.client().open(registry.host()).unwrap();
    assert_eq!(connection.send(&Request::get("/v2/")).unwrap().status, 200);
}
