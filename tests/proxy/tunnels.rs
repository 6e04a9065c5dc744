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

/// Only a registry that is named without a port has another one by plain HTTP.
#[test]
fn a_url_is_asked_for_at_the_port_that_stands_in_it() {
    let web = Server::http(|request: &Request| {
        Response::new(200).body(request.headers.get("host").unwrap_or_default().to_owned())
    });
    let proxy = Proxy::builder(BINARY)
        .config("tunnel = \"any\"")
        .connect_to(&format!("web.example:443:{}", web.address()))
        .start();
    let response = proxy.client().get("http://web.example:443/page").unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "web.example:443"));
}

/// What goes through a tunnel is no request of the proxy's, even where it looks like one.
#[test]
fn nothing_in_a_tunnel_is_judged() {
    let web = Server::http(|request: &Request| Response::new(200).body(request.target.clone()));
    let proxy = tunnelling("any");
    let (response, mut connection) = proxy.client().connect(&web.address().to_string()).unwrap();
    assert_eq!(response.status, 200);
    let lenient = "POST /a HTTP/1.1\nTransfer-Encoding: chunked\nContent-Length: 1\n\n1\nx\n0\n\n";
    let chunked = "POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nx\r\n0\r\n\r\n";
    for request in [lenient, chunked, "GET /c HTTP/1.1\n\n"] {
        let response = connection.send_raw(request.as_bytes()).unwrap();
        assert_eq!(response.status, 200, "{request:?}");
    }
}
