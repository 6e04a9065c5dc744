//! Hosts that are no registry: tunnelled where that is allowed, and refused in words where not.

use entrepot_testkit::{Proxy, Request, Response, Server, TestCa};

use crate::BINARY;

/// A TLS server that says back what it is asked.
fn echo(ca: &TestCa) -> Server {
    Server::https(ca.leaf(&["127.0.0.1"]), |request: &Request| {
        Response::new(200).header("X-Method", &request.method).body(request.body.clone())
    })
}

fn tunnelling(policy: &str) -> Proxy {
    Proxy::builder(BINARY).config(&format!("tunnel = \"{policy}\"")).start()
}

#[test]
fn any_host_is_reached_end_to_end_when_that_is_wanted() {
    let ca = TestCa::new("somebody else");
    let echo = echo(&ca);
    let proxy = tunnelling("any");
    // Only the far end's authority is trusted: the proxy can't have looked inside.
    let client = entrepot_testkit::Client::new(proxy.address()).trusting(&ca.pem());
    let mut connection = client.open(&echo.address().to_string()).unwrap();
    for body in ["once", "twice"] {
        let response = connection.send(&Request::new("POST", "/echo").body(body)).unwrap();
        assert_eq!(response.text(), body);
    }
    drop(connection);
    proxy.wait_for_log(&["TUNNEL CONNECT", &echo.address().to_string()]);
}

#[test]
fn a_private_address_is_refused_with_the_reason() {
    let ca = TestCa::new("somebody else");
    let echo = echo(&ca);
    let proxy = Proxy::builder(BINARY).start();
    for authority in ["127.0.0.1:443", "[::1]:443", "10.0.0.1:443", "169.254.169.254:443"] {
        let (response, _) = proxy.client().connect(authority).unwrap();
        assert_eq!(response.status, 403, "{authority}");
        let reason = &response.reason;
        assert!(reason.contains("not a public address"), "{authority}: {reason:?}");
    }
    let (response, _) = proxy.client().connect(&echo.address().to_string()).unwrap();
    assert_eq!(response.status, 403);
    assert!(response.reason.contains("port"), "{:?}", response.reason);
    assert_eq!(echo.connections(), 0);
}

#[test]
fn no_spelling_of_a_private_address_gets_through() {
    let spellings = [
        "localhost:443",
        "LOCALHOST:443",
        "localhost.:443",
        "127.1:443",
        "127.0.1:443",
        "127.255.255.254:443",
        "2130706433:443",
        "0x7f.0.0.1:443",
        "0x7f000001:443",
        "0177.0.0.1:443",
        "017700000001:443",
        "0.0.0.0:443",
        "0:443",
        "[::]:443",
        "[::ffff:127.0.0.1]:443",
        "[::ffff:a9fe:a9fe]:443",
        "[0:0:0:0:0:ffff:7f00:1]:443",
        "[::127.0.0.1]:443",
        "[64:ff9b::7f00:1]:443",
        "[64:ff9b::a9fe:a9fe]:443",
        "[2002:7f00:1::]:443",
        "[2001:0:7f00:1::]:443",
        "[fe80::1]:443",
        "[fe80::1%251]:443",
        "[fc00::1]:443",
        "[fd00:ec2::254]:443",
        "100.64.0.1:443",
        "172.16.0.1:443",
        "192.168.1.1:443",
        "224.0.0.1:443",
        "255.255.255.255:443",
        "127.0.0.1%00.example.com:443",
        "\u{ff11}27.0.0.1:443",
        "127\u{3002}0\u{3002}0\u{3002}1:443",
    ];
    let proxy = Proxy::builder(BINARY).start();
    for authority in spellings {
        let (response, _) = proxy.client().connect(authority).unwrap();
        assert!(matches!(response.status, 400 | 403), "{authority}: {}", response.status);
    }
}

#[test]
fn ports_of_other_services_are_refused() {
    let proxy = Proxy::builder(BINARY).start();
    for port in [22, 25, 80, 3128, 5432, 8443] {
        let (response, _) = proxy.client().connect(&format!("mail.example:{port}")).unwrap();
        assert_eq!(response.status, 403, "{port}");
        assert!(response.reason.contains(&port.to_string()), "{:?}", response.reason);
    }
}

#[test]
fn nothing_is_tunnelled_when_that_is_wanted() {
    let proxy = tunnelling("none");
    let (response, _) = proxy.client().connect("example.com:443").unwrap();
    assert_eq!(response.status, 403);
    assert!(response.reason.contains("tunnel = \"none\""), "{:?}", response.reason);
    assert!(!response.oci_error().is_empty(), "{}", response.text());
}

#[test]
fn the_proxy_is_no_way_to_its_own_listeners() {
    let proxy = Proxy::builder(BINARY).start();
    for address in [proxy.address(), proxy.admin_address()] {
        let (response, _) = proxy.client().connect(&address.to_string()).unwrap();
        assert_eq!(response.status, 403);
        let url = format!("http://{address}/healthz");
        assert_eq!(proxy.client().get(&url).unwrap().status, 403, "{url}");
    }
}

#[test]
fn plain_http_is_forwarded_under_the_same_rules() {
    let web = Server::http(|request: &Request| {
        assert!(request.headers.get("proxy-authorization").is_none());
        Response::new(200).body(request.target.clone())
    });
    let url = format!("http://{}/page?x=1", web.address());
    let refusing = Proxy::builder(BINARY).start();
    assert_eq!(refusing.client().get(&url).unwrap().status, 403);
    assert_eq!(web.connections(), 0);
    let response = tunnelling("any").client().get(&url).unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "/page?x=1"));
}
