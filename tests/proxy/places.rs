//! Places for connections: nobody keeps others out, neither by what it does not send nor by what it
//! has under way, and a probe is heard whatever there is.

use std::net::Ipv4Addr;

use entrepot_testkit::client::Connection;
use entrepot_testkit::proxy::Builder;
use entrepot_testkit::{Client, Proxy, Request, Response, Server, TestCa, wait_until};

use crate::BINARY;

/// So few files that there are 64 places; 16 of one client, and 8 more for this machine's.
const FILES: u32 = 256;
const OF_ONE: usize = 16 + 8;

fn small() -> Builder {
    Proxy::builder(BINARY).files(FILES)
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// A connection of this client's on which so much has been said.
fn said(client: &Client, bytes: &[u8]) -> Connection {
    let mut connection = client.plain().unwrap();
    // One that has to go already is no failure.
    drop(connection.write(bytes));
    connection
}

#[test]
fn half_a_head_keeps_nobody_out() {
    let proxy = small().start();
    // More than there may be files.
    let mut held = Vec::new();
    for bytes in [b"GET /healthz HTTP/1.1\r\nHo".as_slice(), b"", b"\x16\x03\x01\x02\x00\x01"] {
        for last in [2, 3, 4] {
            let client = proxy.client().from_address(address(last));
            held.extend((0..60).map(|_| said(&client, bytes)));
            for last in [last, 9] {
                let other = proxy.client().from_address(address(last));
                assert_eq!(other.get("/healthz").unwrap().status, 200);
                assert_eq!(other.get("/").unwrap().status, 200, "{last}, {} held", held.len());
            }
        }
    }
}

#[test]
fn what_lies_idle_between_two_requests_makes_room() {
    let proxy = small().start();
    let mut held = Vec::new();
    for last in [2, 3, 4, 5, 6, 7] {
        let client = proxy.client().from_address(address(last));
        for _ in 0..60 {
            let mut connection = client.plain().unwrap();
            assert_eq!(connection.send(&Request::get("/ca.crt")).unwrap().status, 200);
            held.push(connection);
        }
    }
    // The last to have been answered are there still.
    let newest = held.last_mut().unwrap();
    assert_eq!(newest.send(&Request::get("/ca.crt")).unwrap().status, 200);
}

#[test]
fn a_handshake_in_a_tunnel_that_does_not_come_makes_room() {
    let proxy = small().start();
    let client = proxy.client().from_address(address(2));
    let silent: Vec<_> = (0..60).map(|_| client.connect("ghcr.io:443").unwrap()).collect();
    assert!(silent.iter().all(|(response, _)| response.status == 200));
    client.open("ghcr.io").expect("a handshake in the newest");
    drop(silent);
}

#[test]
fn what_one_client_has_under_way_leaves_the_others_their_places() {
    let ca = TestCa::new("somebody else");
    let far = Server::https(ca.leaf(&["127.0.0.1"]), |_: &Request| Response::new(200));
    let target = far.address().to_string();
    let proxy = small().config("tunnel = \"any\"").start();
    let greedy = proxy.client().from_address(address(2));
    let mut tunnels = Vec::new();
    let refused = loop {
        let (response, tunnel) = greedy.connect(&target).unwrap();
        if response.status != 200 {
            break response;
        }
        tunnels.push(tunnel);
    };
    assert_eq!(tunnels.len(), OF_ONE);
    assert_eq!(refused.status, 503);
    assert_eq!(refused.headers.get("retry-after"), Some("1"));
    proxy.wait_for_log(&["a connection finds no place"]);
    // A probe may come from behind the same address.
    assert_eq!(greedy.get("/healthz").unwrap().status, 200);
    assert_eq!(greedy.get("/").unwrap().status, 503);
    let other = proxy.client().from_address(address(3));
    assert_eq!(other.get("/").unwrap().status, 200);
    tunnels.pop();
    let again = || greedy.connect(&target).is_ok_and(|(response, _)| response.status == 200);
    wait_until("what ends leaves its place", again);
}

#[test]
fn probes_are_heard_where_every_place_is_at_work() {
    let ca = TestCa::new("somebody else");
    let far = Server::https(ca.leaf(&["127.0.0.1"]), |_: &Request| Response::new(200));
    let target = far.address().to_string();
    let proxy = small().config("tunnel = \"any\"").start();
    let mut tunnels = Vec::new();
    for last in [2, 3, 4, 5] {
        let client = proxy.client().from_address(address(last));
        let opened = (0..OF_ONE).map(|_| client.connect(&target).unwrap());
        tunnels.extend(opened.filter(|(response, _)| response.status == 200));
    }
    assert_eq!(tunnels.len(), 64 + 8);
    let other = proxy.client().from_address(address(9));
    // Guests that say nothing are no hindrance.
    let silent: Vec<_> = (0..30).map(|_| said(&other, b"GET /")).collect();
    assert_eq!(other.get("/").unwrap().status, 503);
    assert_eq!(other.get("/healthz").unwrap().status, 200);
    drop(silent);
    drop(tunnels);
    wait_until("it recovers", || other.get("/").unwrap().status == 200);
}

#[test]
fn the_admin_listener_answers_probes_whoever_holds_its_connections() {
    let proxy = small().start();
    let admin = |last| Client::new(proxy.admin_address()).from_address(address(last));
    let mut held = Vec::new();
    for last in [2, 3, 4] {
        held.extend((0..120).map(|_| said(&admin(last), b"GET /metrics HTTP/1.1\r\n")));
        for path in ["/healthz", "/readyz", "/metrics", "/"] {
            assert_eq!(admin(9).get(path).unwrap().status, 200, "{path}");
            assert_eq!(admin(last).get(path).unwrap().status, 200, "{path}");
        }
    }
}
