//! Clients behind a load balancer that says who they are.

use std::net::Ipv4Addr;

use entrepot_testkit::client::Connection;
use entrepot_testkit::{Proxy, Request, Response, Server, TestCa};

use crate::BINARY;

const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);

fn behind_a_balancer() -> entrepot_testkit::proxy::Builder {
    Proxy::builder(BINARY)
        .config("proxy-protocol-from = [\"127.0.0.7\", \"10.0.0.0/8\"]")
        .tables("[access]\nclients = [\"192.0.2.0/24\", \"2001:db8::/32\", \"127.0.0.1\"]")
}

fn version_1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 10.0.0.1 4660 3128\r\n").into_bytes()
}

fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &length, addresses].concat()
}

fn from_balancer(proxy: &Proxy, header: &[u8]) -> Connection {
    let mut connection = proxy.client().from_address(BALANCER).plain().unwrap();
    connection.write(header).unwrap();
    connection
}

#[test]
fn the_client_is_whom_the_balancer_names() {
    let proxy = behind_a_balancer().start();
    let with_tlv = [192, 0, 2, 8, 10, 0, 0, 1, 0x12, 0x34, 12, 56, 4, 0, 1, 0];
    let v6 = [[0x20, 1, 0xd, 0xb8].as_slice(), &[0; 12], &[0; 16], &[0x12, 0x34, 12, 56]].concat();
    for (header, status, client) in [
        (version_1("192.0.2.7"), 200, None),
        (version_1("198.51.100.7"), 403, Some("198.51.100.7")),
        (version_2(0x21, 0x11, &with_tlv), 200, None),
        (
            version_2(0x21, 0x11, &[198, 51, 100, 8, 10, 0, 0, 1, 1, 1, 1, 1]),
            403,
            Some("198.51.100.8"),
        ),
        (version_2(0x21, 0x21, &v6), 200, None),
        // The balancer itself, which is in none of the networks.
        (version_2(0x20, 0x00, &[]), 403, Some("127.0.0.7")),
        (b"PROXY UNKNOWN\r\n".to_vec(), 403, Some("127.0.0.7")),
    ] {
        let mut connection = from_balancer(&proxy, &header);
        let response = connection.send(&Request::get("/")).unwrap();
        assert_eq!(response.status, status, "{header:?}");
        if let Some(client) = client {
            assert!(response.reason.contains(client), "{:?}", response.reason);
            proxy.wait_for_log(&["DENIED GET /", client]);
        }
    }
    // Its probe needs no network.
    let mut probe = from_balancer(&proxy, &version_2(0x20, 0x00, &[]));
    assert_eq!(probe.send(&Request::get("/healthz")).unwrap().status, 200);
}

#[test]
fn a_header_may_come_with_what_follows_it() {
    let proxy = behind_a_balancer().start();
    let both = [version_1("192.0.2.7"), b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()];
    let mut connection = proxy.client().from_address(BALANCER).plain().unwrap();
    connection.write(&both.concat()).unwrap();
    assert!(connection.read_line().unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn a_connection_without_its_header_is_closed() {
    let proxy = behind_a_balancer().start();
    for sent in [
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 99999\r\n".to_vec(),
        version_2(0x21, 0x77, &[0; 12]),
        version_2(0x21, 0x12, &[192, 0, 2, 8, 10, 0, 0, 1, 0x12, 0x34, 12, 56]),
    ] {
        assert!(from_balancer(&proxy, &sent).is_closed(), "{sent:?}");
    }
    proxy.wait_for_log(&["a connection from proxy-protocol-from is closed", "127.0.0.7"]);
}

#[test]
fn who_is_not_listed_never_gets_to_say_who_it_is() {
    let proxy = behind_a_balancer().start();
    let mut connection = proxy.client().from_address(Ipv4Addr::new(127, 0, 0, 8)).plain().unwrap();
    connection.write(&version_1("192.0.2.7")).unwrap();
    let line = connection.read_line().unwrap();
    assert!(!line.starts_with("HTTP/1.1 200"), "{line}");
    assert_eq!(proxy.client().get("/").unwrap().status, 200, "and needs no header");
}

#[test]
fn clients_behind_one_balancer_have_each_a_share_of_the_places() {
    let ca = TestCa::new("somebody else");
    let far = Server::https(ca.leaf(&["127.0.0.1"]), |_: &Request| Response::new(200));
    let target = far.address().to_string();
    // 64 places, 16 of one client.
    let proxy = behind_a_balancer().config("tunnel = \"any\"").files(256).start();
    let mut tunnels = Vec::new();
    for client in ["192.0.2.7", "192.0.2.8", "192.0.2.9"] {
        for number in 0..20 {
            let mut tunnel = from_balancer(&proxy, &version_1(client));
            let response = tunnel.send(&Request::new("CONNECT", &target)).unwrap();
            assert_eq!(response.status, if number < 16 { 200 } else { 503 }, "{client} {number}");
            tunnels.push(tunnel);
        }
    }
}
