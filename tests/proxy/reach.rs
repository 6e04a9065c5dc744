//! Nobody is led into the network that the proxy stands in, however an address is spelled, and
//! nobody to the proxy itself.

use std::net::Ipv4Addr;

use entrepot_testkit::{Client, Fault, Image, On, Proxy, Registry, Request, Response, Server};

use crate::{ALPINE, BINARY};

/// Addresses that are not public, in every notation that some resolver takes.
const SPELLINGS: &[&str] = &[
    // Loopback.
    "localhost",
    "LOCALHOST",
    "LocalHost",
    "localhost.",
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0X7F000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "0177.0.0.1",
    "0177.1",
    "127.0.0.0x1",
    "127.0.0.01",
    "127.000.000.001",
    "0000127.0.0.1",
    "127.0.0.1%00.example.com",
    "127.0.0.1%2eexample.com",
    "%31%32%37.0.0.1",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::0001]",
    "[::ffff:127.0.0.1]",
    "[::FFFF:7F00:1]",
    "[0:0:0:0:0:ffff:7f00:1]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:7F00:0001::1]",
    "[2001:0:7f00:1::]",
    "[::1%lo]",
    "[::1%25lo]",
    "::1",
    "\u{ff11}27.0.0.1",
    "127\u{3002}0\u{3002}0\u{3002}1",
    "127\u{ff0e}0\u{ff0e}0\u{ff0e}1",
    "\u{2460}\u{2461}\u{2466}.0.0.1",
    "l\u{2092}calhost",
    // This host, and every host.
    "0",
    "0.0.0.0",
    "00.0.0.0",
    "0x0",
    "[::]",
    "[0:0:0:0:0:0:0:0]",
    "[::ffff:0.0.0.0]",
    "255.255.255.255",
    "0xffffffff",
    // Link-local: the clouds' metadata.
    "169.254.169.254",
    "169.254.170.2",
    "192.0.0.192",
    "100.100.100.200",
    "[fd20:ce::254]",
    // Azure's, behind a number that looks public.
    "168.63.129.16",
    "[64:ff9b::a83f:8110]",
    "[::ffff:168.63.129.16]",
    "169.254.43518",
    "169.16689662",
    "2852039166",
    "0xa9fea9fe",
    "0xa9.0xfe.0xa9.0xfe",
    "0251.0376.0251.0376",
    "025177524776",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::FFFF:A9FE:A9FE]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:FF9B::169.254.169.254]",
    "[2002:a9fe:a9fe::]",
    "[2001:0:a9fe:a9fe::]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[FE80::1]",
    "[fe80::1%251]",
    "[febf::1]",
    "[fec0::1]",
    // Private networks, and carriers'.
    "10.0.0.1",
    "10.255.255.255",
    "167772161",
    "012.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "3232235521",
    "100.64.0.1",
    "100.127.255.255",
    "[fc00::1]",
    "[fd12:3456:789a::1]",
    "[::ffff:10.0.0.1]",
    "[64:ff9b::10.0.0.1]",
    "[2002:c0a8:1::]",
    // Many at once, and none that are anybody's.
    "224.0.0.1",
    "239.255.255.250",
    "[ff02::1]",
    "[FF0E::1]",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "240.0.0.1",
    "[2001:db8::1]",
    "[100::1]",
];

/// A server on loopback to which nothing may ever connect.
fn canary() -> Server {
    Server::http(|_: &Request| Response::new(200).body("the inside of the network"))
}

/// A proxy that takes every host on this port for a registry, so that only its address is left to
/// refuse it.
fn in_front_of_all(port: u16) -> entrepot_testkit::proxy::Builder {
    Proxy::builder(BINARY).config(&format!("intercept-also = [\"*:{port}\"]"))
}

#[test]
fn there_are_enough_spellings() {
    let mut spellings = SPELLINGS.to_vec();
    spellings.sort_unstable();
    spellings.dedup();
    assert!(spellings.len() == SPELLINGS.len() && spellings.len() >= 60, "{}", spellings.len());
}

#[test]
fn no_spelling_gets_through_by_connect() {
    let proxy = Proxy::builder(BINARY).start();
    for host in SPELLINGS {
        let (response, _) = proxy.client().connect(&format!("{host}:443")).unwrap();
        assert!(matches!(response.status, 400 | 403), "{host}: {}", response.status);
    }
}

#[test]
fn no_spelling_gets_through_by_url() {
    let canary = canary();
    let port = canary.address().port();
    let proxy = in_front_of_all(port).start();
    for host in SPELLINGS {
        for url in [format!("http://{host}/"), format!("http://{host}:{port}/v2/")] {
            let request = Request::get(&url).header("Host", "example.com");
            let response = proxy.client().send(&request).unwrap();
            assert!(matches!(response.status, 400 | 403), "{url}: {}", response.text());
        }
    }
    assert_eq!(canary.connections(), 0);
}

#[test]
fn no_spelling_gets_through_by_a_redirect() {
    let canary = canary();
    let port = canary.address().port();
    let registry = Registry::open();
    let image = Image::random(1, 1000);
    registry.push(ALPINE, "1", &image);
    let digest = &image.layers[0].digest;
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).start();
    for host in SPELLINGS {
        for port in [443, port] {
            let location = format!("https://{host}:{port}/blobs/x");
            registry.fault_always(On::get(digest), Fault::redirect(307, &location));
            let url = format!("https://{}/v2/{ALPINE}/blobs/{digest}", registry.host());
            let response = proxy.client().get(&url).unwrap();
            assert!(matches!(response.status, 403 | 502), "{location}: {}", response.status);
            assert!(!response.oci_error().is_empty(), "{location}: {}", response.text());
            registry.heal();
        }
    }
    assert_eq!(canary.connections(), 0);
}

#[test]
fn an_operators_own_networks_are_as_private_as_any() {
    let proxy = Proxy::builder(BINARY)
        .upstream("private-networks = [\"198.41.0.4\", \"2001:500::/32\"]")
        .start();
    for host in ["198.41.0.4", "[2001:500:1::53]", "[64:ff9b::198.41.0.4]"] {
        let (refused, _) = proxy.client().connect(&format!("{host}:443")).unwrap();
        assert_eq!(refused.status, 403, "{host}");
        assert!(refused.reason.contains("not a public address"), "{}", refused.reason);
        let by_url = proxy.client().get(&format!("http://{host}/")).unwrap();
        assert_eq!(by_url.status, 403, "{host}: {}", by_url.text());
    }
}

/// Names of the network that the proxy stands in are nobody's business: what is private is told of
/// as what is unknown, and no address is told at all.
#[test]
fn a_name_that_leads_nowhere_is_told_of_without_its_address() {
    let proxy = Proxy::builder(BINARY).start();
    for name in ["no-such-host.invalid", "another-one.invalid"] {
        let (by_connect, _) = proxy.client().connect(&format!("{name}:443")).unwrap();
        let by_url = proxy.client().get(&format!("http://{name}/")).unwrap();
        for (status, words) in
            [(by_connect.status, by_connect.reason), (by_url.status, by_url.oci_error())]
        {
            assert_eq!(status, 403, "{words}");
            assert!(words.contains("does not resolve here, or has an address"), "{words}");
        }
        proxy.wait_for_log(&[name, "does not resolve ("]);
    }
    for host in ["localhost", "127.0.0.1"] {
        let (refused, _) = proxy.client().connect(&format!("{host}:443")).unwrap();
        let told = refused.reason.replace(&format!("{host}:443"), "");
        assert!(!told.contains("127.0.0.1") && !told.contains("::1"), "{told}");
    }
}

#[test]
fn the_canary_is_reached_where_that_is_wanted() {
    let canary = canary();
    let proxy = Proxy::builder(BINARY).config("tunnel = \"any\"").start();
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("http://{host}:{}/", canary.address().port());
        assert_eq!(proxy.client().get(&url).unwrap().status, 200, "{url}");
    }
    assert!(canary.connections() > 0);
}

/// Whatever the rule for tunnels: the proxy's own listeners are nobody's destination.
#[test]
fn the_proxy_is_no_way_to_itself() {
    for tunnel in ["public", "any"] {
        let proxy = Proxy::builder(BINARY).config(&format!("tunnel = \"{tunnel}\"")).start();
        for address in [proxy.address(), proxy.admin_address()] {
            for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "[::]"] {
                assert_no_way(&proxy, &format!("{host}:{}", address.port()));
            }
        }
    }
}

#[test]
fn a_listener_on_all_addresses_is_known_by_each_of_them() {
    let proxy = Proxy::builder(BINARY).everywhere().config("tunnel = \"any\"").start();
    let port = proxy.address().port();
    // It does listen there.
    let elsewhere = Client::new((Ipv4Addr::new(127, 9, 8, 7), port).into());
    assert_eq!(elsewhere.get("/healthz").unwrap().status, 200);
    for host in ["127.0.0.1", "127.9.8.7", "localhost", "0.0.0.0", "[::ffff:127.9.8.7]"] {
        assert_no_way(&proxy, &format!("{host}:{port}"));
    }
}

#[track_caller]
fn assert_no_way(proxy: &Proxy, authority: &str) {
    let (response, _) = proxy.client().connect(authority).unwrap();
    assert!(matches!(response.status, 403 | 508), "CONNECT {authority}: {}", response.status);
    let url = format!("http://{authority}/healthz");
    let response = proxy.client().get(&url).unwrap();
    assert!(matches!(response.status, 403 | 508), "{url}: {}", response.status);
}
