//! Requests whose meaning two parsers could disagree on are refused, and nothing of them goes on.

use entrepot_testkit::client::{Connection, is_timeout};
use entrepot_testkit::{Proxy, Registry, Request};

use crate::in_front_of;

/// What must be refused, without its line ends: `|` stands for them.
const AMBIGUOUS: &[(&str, &str)] = &[
    ("two lengths", "POST /v2/ HTTP/1.1|Host: H|Content-Length: 3|Content-Length: 4||abc"),
    ("a list of lengths", "POST /v2/ HTTP/1.1|Host: H|Content-Length: 3, 4||abc"),
    ("a signed length", "POST /v2/ HTTP/1.1|Host: H|Content-Length: +3||abc"),
    ("a hexadecimal length", "POST /v2/ HTTP/1.1|Host: H|Content-Length: 0x3||abc"),
    ("an empty length", "POST /v2/ HTTP/1.1|Host: H|Content-Length: ||abc"),
    ("a length beyond all", "POST /v2/ HTTP/1.1|Host: H|Content-Length: 99999999999999999999||a"),
    ("a space before a colon", "POST /v2/ HTTP/1.1|Host: H|Content-Length : 3||abc"),
    ("an empty coding", "POST /v2/ HTTP/1.1|Host: H|Transfer-Encoding: ,chunked||0||"),
    (
        "two codings",
        "POST /v2/ HTTP/1.1|Host: H|Transfer-Encoding: chunked|Transfer-Encoding: chunked||0||",
    ),
    ("another coding", "POST /v2/ HTTP/1.1|Host: H|Transfer-Encoding: gzip, chunked||0||"),
    ("an unknown coding", "POST /v2/ HTTP/1.1|Host: H|Transfer-Encoding: xchunked||0||"),
    ("chunked is not last", "POST /v2/ HTTP/1.1|Host: H|Transfer-Encoding: chunked, identity||0||"),
    ("a coding in HTTP/1.0", "POST /v2/ HTTP/1.0|Host: H|Transfer-Encoding: chunked||0||"),
    ("a folded line", "GET /v2/ HTTP/1.1|Host: H|X: a| b||"),
    ("an empty name", "GET /v2/ HTTP/1.1|Host: H|: a||"),
    ("no colon", "GET /v2/ HTTP/1.1|Host: H|abc||"),
    ("a null in a value", "GET /v2/ HTTP/1.1|Host: H|X: a\0b||"),
    ("a bare return in a value", "GET /v2/ HTTP/1.1|Host: H|X: a\rb||"),
    ("no Host", "GET /v2/ HTTP/1.1||"),
    ("two Hosts", "GET /v2/ HTTP/1.1|Host: H|Host: H||"),
    ("an empty Host", "GET /v2/ HTTP/1.1|Host: ||"),
    ("userinfo in Host", "GET /v2/ HTTP/1.1|Host: evil@H||"),
    ("a space in Host", "GET /v2/ HTTP/1.1|Host: a b||"),
    ("a shell in Host", "GET /v2/ HTTP/1.1|Host: $(id)||"),
];

fn wire(text: &str, host: &str) -> Vec<u8> {
    text.replace('|', "\r\n")
        .replace("Host: H", &format!("Host: {host}"))
        .replace("@H", &format!("@{host}"))
        .into_bytes()
}

/// A refusal is a 4xx or a 501, after which the connection is of no further use.
#[track_caller]
fn assert_refused(mut connection: Connection, what: &str, request: &[u8]) {
    let response = match connection.send_raw(request) {
        Ok(response) => response,
        Err(error) => {
            // A connection that just ends has refused as well.
            assert!(!is_timeout(&error), "{what}: no answer");
            return;
        }
    };
    assert!(matches!(response.status, 400..=499 | 501), "{what}: {}", response.status);
    assert!(connection.is_closed(), "{what}: the connection stays open");
}

fn world() -> (Registry, Proxy) {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    (registry, proxy)
}

#[test]
fn ambiguous_requests_inside_the_intercepted_tls_are_refused() {
    let (registry, proxy) = world();
    for (what, text) in AMBIGUOUS {
        let connection = proxy.client().open(registry.host()).unwrap();
        assert_refused(connection, what, &wire(text, registry.host()));
    }
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}

#[test]
fn ambiguous_requests_to_the_proxy_itself_are_refused() {
    let (registry, proxy) = world();
    for (what, text) in AMBIGUOUS {
        let connection = proxy.client().plain().unwrap();
        assert_refused(connection, what, &wire(text, &proxy.address().to_string()));
    }
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}

/// "Transfer-Encoding overrides the Content-Length … and the server MUST close the connection
/// after responding" (RFC 9112 §6.3). What goes on is framed anew, by the coding alone.
#[test]
fn a_length_beside_a_coding_is_ignored_and_ends_the_connection() {
    let (registry, proxy) = world();
    let orders = [
        "Content-Length: 3|Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked|Content-Length: 3",
    ];
    for fields in orders {
        registry.forget_requests();
        let mut connection = proxy.client().open(registry.host()).unwrap();
        let hidden = "GET /v2/hidden HTTP/1.1|Host: H||";
        let request = format!("POST /v2/ HTTP/1.1|Host: H|{fields}||0||{hidden}");
        connection.send_raw(&wire(&request, registry.host())).unwrap();
        assert!(connection.is_closed(), "{fields}");
        assert!(registry.requests().path("hidden").is_empty(), "{fields}");
        for request in registry.requests().iter() {
            assert!(request.headers.get("content-length").is_none(), "{fields}");
        }
    }
}

#[test]
fn bare_line_feeds_are_refused_or_read_as_one_request() {
    let (registry, proxy) = world();
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let request = format!("GET /v2/ HTTP/1.1\nHost: {}\n\n", registry.host());
    let response = connection.send_raw(request.as_bytes());
    assert!(response.is_err() || matches!(response.unwrap().status, 200 | 400));
    assert!(registry.requests().len() <= 1);
}

#[test]
fn a_request_hidden_in_a_body_is_never_executed() {
    let (registry, proxy) = world();
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let hidden = format!("GET /v2/hidden HTTP/1.1\r\nHost: {}\r\n\r\n", registry.host());
    let request = Request::get("/v2/").header("Content-Length", hidden.len().to_string());
    connection.send(&request.body(hidden)).unwrap();
    drop(connection);
    assert!(registry.requests().path("hidden").is_empty());
}

#[test]
fn a_broken_chunk_is_not_passed_on_as_a_whole_request() {
    let broken = ["0x3\r\nabc\r\n0\r\n\r\n", "-0\r\n\r\n", "\r\nabc\r\n0\r\n\r\n", "3\nabc\n0\n\n"];
    for body in broken {
        let (registry, proxy) = world();
        let mut connection = proxy.client().open(registry.host()).unwrap();
        let head = format!(
            "PUT /v2/x/manifests/1 HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
            registry.host()
        );
        let answer = connection.send_raw([head.as_bytes(), body.as_bytes()].concat().as_slice());
        assert!(answer.is_err() || answer.unwrap().status >= 400, "{body:?}");
        assert!(registry.tagged("x", "1").is_none(), "{body:?}");
    }
}

#[test]
fn heads_beyond_measure_are_refused() {
    let (registry, proxy) = world();
    let host = registry.host();
    let many: String = (0..200).map(|at| ["X-", &at.to_string(), ": 1\r\n"].concat()).collect();
    let heads = [
        format!("GET /{} HTTP/1.1\r\nHost: {host}\r\n\r\n", "a".repeat(100_000)),
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: {}\r\n\r\n", "a".repeat(200_000)),
        format!("GET / HTTP/1.1\r\nHost: {host}\r\n{many}\r\n"),
    ];
    for head in heads {
        let connection = proxy.client().open(host).unwrap();
        assert_refused(connection, head.get(..20).unwrap_or_default(), head.as_bytes());
    }
    assert!(registry.requests().is_empty());
}

#[test]
fn fields_for_this_hop_stay_on_this_hop() {
    let (registry, proxy) = world();
    let request = Request::get(format!("https://{}/v2/", registry.host()))
        .header("Host", registry.host())
        .header("Connection", "keep-alive, X-Secret")
        .header("X-Secret", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Authorization", "Basic eDp5")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "trailers")
        .header("X-Kept", "1");
    assert_eq!(proxy.client().send(&request).unwrap().status, 200);
    let requests = registry.requests();
    let seen = &requests.iter().next().unwrap().headers;
    for gone in ["x-secret", "keep-alive", "proxy-authorization", "proxy-connection", "te"] {
        assert_eq!(seen.get(gone), None, "{gone}");
    }
    assert_eq!(seen.get("x-kept"), Some("1"));
    assert!(seen.get("via").is_some_and(|via| via.contains("entrepot")));
}
