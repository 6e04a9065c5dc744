//! Requests whose meaning two parsers could disagree on are refused, and nothing of them goes on.

use entrepot_testkit::client::Connection;
use entrepot_testkit::{Proxy, Registry, Request};

use crate::{ALPINE, BINARY, in_front_of, one_layer};

/// What must be refused, and how: `|` stands for a line end, `T` for the request target.
const REFUSED: &[(u16, &str, &str)] = &[
    (400, "two lengths", "POST T HTTP/1.1|Host: H|Content-Length: 3|Content-Length: 4||abc"),
    (400, "a length twice", "POST T HTTP/1.1|Host: H|Content-Length: 3|Content-Length: 3||abc"),
    (400, "a list of lengths", "POST T HTTP/1.1|Host: H|Content-Length: 3, 4||abc"),
    (400, "a list of equal lengths", "POST T HTTP/1.1|Host: H|Content-Length: 3, 3||abc"),
    (400, "a signed length", "POST T HTTP/1.1|Host: H|Content-Length: +3||abc"),
    (400, "a hexadecimal length", "POST T HTTP/1.1|Host: H|Content-Length: 0x3||abc"),
    (400, "an empty length", "POST T HTTP/1.1|Host: H|Content-Length: ||abc"),
    (400, "a length beyond all", "POST T HTTP/1.1|Host: H|Content-Length: 99999999999999999999||a"),
    (400, "a space before a colon", "POST T HTTP/1.1|Host: H|Content-Length : 3||abc"),
    (
        400,
        "a length, then a coding",
        "POST T HTTP/1.1|Host: H|Content-Length: 3|Transfer-Encoding: chunked||0||HIDDEN",
    ),
    (
        400,
        "a coding, then a length",
        "POST T HTTP/1.1|Host: H|Transfer-Encoding: chunked|Content-Length: 3||0||HIDDEN",
    ),
    (400, "an empty coding", "POST T HTTP/1.1|Host: H|Transfer-Encoding: ,chunked||0||"),
    (
        400,
        "two codings",
        "POST T HTTP/1.1|Host: H|Transfer-Encoding: chunked|Transfer-Encoding: chunked||0||",
    ),
    (400, "another coding", "POST T HTTP/1.1|Host: H|Transfer-Encoding: gzip, chunked||0||"),
    (400, "the coding that is none", "POST T HTTP/1.1|Host: H|Transfer-Encoding: identity||0||"),
    (400, "an unknown coding", "POST T HTTP/1.1|Host: H|Transfer-Encoding: xchunked||0||"),
    (400, "a strange space", "POST T HTTP/1.1|Host: H|Transfer-Encoding: \x0bchunked||0||"),
    (
        400,
        "chunked is not last",
        "POST T HTTP/1.1|Host: H|Transfer-Encoding: chunked, identity||0||",
    ),
    (400, "a coding in HTTP/1.0", "POST T HTTP/1.0|Host: H|Transfer-Encoding: chunked||0||"),
    (400, "a folded line", "GET T HTTP/1.1|Host: H|X: a| b||"),
    (400, "a folded first line", "GET T HTTP/1.1| X: a|Host: H||"),
    (400, "an empty name", "GET T HTTP/1.1|Host: H|: a||"),
    (400, "no colon", "GET T HTTP/1.1|Host: H|abc||"),
    (400, "a null in a value", "GET T HTTP/1.1|Host: H|X: a\0b||"),
    (400, "a bare return in a value", "GET T HTTP/1.1|Host: H|X: a\rb||"),
    (400, "bare line feeds everywhere", "GET T HTTP/1.1\nHost: H\n\nHIDDEN"),
    (400, "a bare line feed behind the request line", "GET T HTTP/1.1\nHost: H||"),
    (400, "a bare line feed behind a field", "GET T HTTP/1.1|Host: H|X: a\nY: b||"),
    (400, "a bare line feed at the end", "GET T HTTP/1.1|Host: H|\nHIDDEN"),
    (400, "a bare line feed at the start", "\nGET T HTTP/1.1|Host: H||"),
    (400, "no Host", "GET T HTTP/1.1||"),
    (400, "two Hosts", "GET T HTTP/1.1|Host: H|Host: H||"),
    (400, "two Hosts in HTTP/1.0", "GET T HTTP/1.0|Host: H|Host: H||"),
    (400, "an empty Host", "GET T HTTP/1.1|Host: ||"),
    (400, "userinfo in Host", "GET T HTTP/1.1|Host: evil@H||"),
    (400, "a space in Host", "GET T HTTP/1.1|Host: a b||"),
    (400, "a shell in Host", "GET T HTTP/1.1|Host: $(id)||"),
    (400, "a path in Host", "GET T HTTP/1.1|Host: H/v2/||"),
    (400, "a list in Host", "GET T HTTP/1.1|Host: H, H||"),
    (400, "a port beyond all", "GET T HTTP/1.1|Host: a:65536||"),
    (400, "a fragment", "GET T#x HTTP/1.1|Host: H||"),
    (400, "no target", "GET HTTP/1.1|Host: H||"),
    (400, "a space in the target", "GET T x HTTP/1.1|Host: H||"),
    (400, "an asterisk", "GET * HTTP/1.1|Host: H||"),
    (400, "neither a path nor a URL", "GET v2 HTTP/1.1|Host: H||"),
    (400, "a user in the target", "GET http://user@H/v2/ HTTP/1.1|Host: H||"),
    (400, "a password in the target", "GET http://u:p@H/v2/ HTTP/1.1|Host: H||"),
    (400, "another scheme", "GET ftp://H/v2/ HTTP/1.1|Host: H||"),
    (400, "a scheme without a host", "GET http:///v2/ HTTP/1.1|Host: H||"),
    (400, "a version to come", "GET T HTTP/2.0|Host: H||"),
    (400, "no version", "GET T|Host: H||"),
    (400, "a GET with a body", "GET T HTTP/1.1|Host: H|Content-Length: 3||abc"),
    (400, "a GET with a coding", "GET T HTTP/1.1|Host: H|Transfer-Encoding: chunked||0||"),
    (400, "OPTIONS with a body", "OPTIONS T HTTP/1.1|Host: H|Content-Length: 1||a"),
    (405, "a TRACE", "TRACE T HTTP/1.1|Host: H|Max-Forwards: 0||"),
    (405, "a TRACK", "TRACK T HTTP/1.1|Host: H||"),
    (
        417,
        "an unknown expectation",
        "POST T HTTP/1.1|Host: H|Expect: 200-ok|Content-Length: 3||abc",
    ),
    (
        417,
        "an expectation too many",
        "POST T HTTP/1.1|Host: H|Expect: 100-continue, x|Content-Length: 3||abc",
    ),
    (400, "Host for this hop", "GET T HTTP/1.1|Host: H|Connection: close, Host||"),
    (400, "Authorization for this hop", "GET T HTTP/1.1|Host: H|Connection: authorization||"),
    (400, "Via for this hop", "GET T HTTP/1.1|Host: H|Connection: x|Connection: VIA||"),
    (
        400,
        "Content-Length for this hop",
        "POST T HTTP/1.1|Host: H|Content-Length: 3|Connection: Content-Length||abc",
    ),
];

/// What only CONNECT may not have, or have otherwise.
const REFUSED_CONNECTS: &[(&str, &str)] = &[
    ("a path", "CONNECT /foo HTTP/1.1|Host: a||"),
    ("no port", "CONNECT a HTTP/1.1|Host: a||"),
    ("an empty port", "CONNECT a: HTTP/1.1|Host: a||"),
    ("port 0", "CONNECT a:0 HTTP/1.1|Host: a||"),
    ("a port beyond all", "CONNECT a:65536 HTTP/1.1|Host: a||"),
    ("a signed port", "CONNECT a:+443 HTTP/1.1|Host: a||"),
    ("a URL", "CONNECT http://H:443/ HTTP/1.1|Host: H||"),
    ("a path behind the port", "CONNECT H:443/ HTTP/1.1|Host: H||"),
    ("a user", "CONNECT u@H:443 HTTP/1.1|Host: H||"),
    ("a bare IPv6 address", "CONNECT ::1:443 HTTP/1.1|Host: a||"),
    ("a zone", "CONNECT [fe80::1%251]:443 HTTP/1.1|Host: a||"),
    ("an open bracket", "CONNECT [::1:443 HTTP/1.1|Host: a||"),
    ("a length", "CONNECT H:443 HTTP/1.1|Host: H|Content-Length: 3||abc"),
    ("two lengths of nothing", "CONNECT H:443 HTTP/1.1|Host: H|Content-Length: 0, 0||"),
    (
        "a length of nothing twice",
        "CONNECT H:443 HTTP/1.1|Host: H|Content-Length: 0|Content-Length: 0||",
    ),
    ("a coding", "CONNECT H:443 HTTP/1.1|Host: H|Transfer-Encoding: chunked||0||"),
    ("an expectation", "CONNECT H:443 HTTP/1.1|Host: H|Expect: 100-continue||"),
    ("an empty Host", "CONNECT H:443 HTTP/1.1|Host: ||"),
    ("two Hosts", "CONNECT H:443 HTTP/1.1|Host: H|Host: H||"),
    ("bare line feeds", "CONNECT H:443 HTTP/1.1\nHost: H\n\n"),
];

fn wire(text: &str, target: &str, host: &str) -> Vec<u8> {
    text.replace("HIDDEN", "GET T/hidden HTTP/1.1|Host: H||")
        .replace('|', "\r\n")
        .replace(" T", &format!(" {target}"))
        .replace(": H", &format!(": {host}"))
        .replace("@H", &format!("@{host}"))
        .replace(" H:", &format!(" {host}:"))
        .replace("//H", &format!("//{host}"))
        .into_bytes()
}

/// After a refusal the connection is of no further use, and closed.
#[track_caller]
fn assert_refused(mut connection: Connection, status: u16, what: &str, request: &[u8]) {
    let response = connection.send_raw(request).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(response.status, status, "{what}: {}", response.text());
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
    for (status, what, text) in REFUSED {
        let connection = proxy.client().open(registry.host()).unwrap();
        assert_refused(connection, *status, what, &wire(text, "/v2/", registry.host()));
    }
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}

#[test]
fn ambiguous_requests_to_the_proxy_itself_are_refused() {
    let (registry, proxy) = world();
    let host = proxy.address().to_string();
    for (status, what, text) in REFUSED {
        let connection = proxy.client().plain().unwrap();
        assert_refused(connection, *status, what, &wire(text, "/healthz", &host));
    }
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}

#[test]
fn ambiguous_requests_for_a_url_are_refused() {
    let (registry, proxy) = world();
    let host = format!("{}:443", registry.host());
    let target = format!("http://{host}/v2/");
    let mut connection = proxy.client().plain().unwrap();
    connection.send_raw(&wire("GET T HTTP/1.1|Host: H||", &target, &host)).unwrap();
    assert_eq!(registry.requests().len(), 1, "a request without fault gets there");
    registry.forget_requests();
    for (status, what, text) in REFUSED {
        let connection = proxy.client().plain().unwrap();
        assert_refused(connection, *status, what, &wire(text, &target, &host));
    }
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}

#[test]
fn ambiguous_connects_are_refused() {
    let (registry, proxy) = world();
    for (what, text) in REFUSED_CONNECTS {
        let connection = proxy.client().plain().unwrap();
        assert_refused(connection, 400, what, &wire(text, "", registry.host()));
    }
    let mut inner = proxy.client().open(registry.host()).unwrap();
    let again = wire("CONNECT H:443 HTTP/1.1|Host: H||", "", registry.host());
    assert_eq!(inner.send_raw(&again).unwrap().status, 400, "a tunnel in a tunnel");
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}

/// What says no less than it must is taken, though the letter may want more or less of it.
#[test]
fn a_connect_that_can_mean_one_thing_alone_is_taken() {
    let (registry, proxy) = world();
    for text in [
        "CONNECT H:443 HTTP/1.1|Host: H:443|Content-Length: 0||",
        "CONNECT H:443 HTTP/1.1|Host: H|Content-Length:0||",
        "CONNECT H:443 HTTP/1.0|Content-Length: 0||",
        "CONNECT H:443 HTTP/1.1||",
        "CONNECT H:443 HTTP/1.1|Host: proxy.example:3128||",
        "CONNECT H:443 HTTP/1.1|Content-Length: 0||",
    ] {
        let mut connection = proxy.client().plain().unwrap();
        let answer = connection.send_raw(&wire(text, "", registry.host())).unwrap();
        assert_eq!(answer.status, 200, "{text}: {}", answer.text());
        let mut inner = proxy.client().inside(registry.host(), connection).unwrap();
        assert_eq!(inner.send(&Request::get("/v2/")).unwrap().status, 200, "{text}");
    }
}

/// HTTP/2 by prior knowledge, in one piece or in two: whoever speaks it reads why it is no use.
#[test]
fn http_2_is_answered_in_words_wherever_it_comes() {
    let (registry, proxy) = world();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let admin = entrepot_testkit::Client::new(proxy.admin_address());
    let clients = [proxy.client(), proxy.client().over_tls(), admin];
    let open = clients.iter().map(|client| client.plain().unwrap());
    let inside = proxy.client().open(registry.host()).unwrap();
    for mut connection in open.chain([inside]) {
        assert_tells_of_http_1(&mut connection, preface);
    }
    let mut connection = proxy.client().plain().unwrap();
    connection.write(&preface[..9]).unwrap();
    assert_tells_of_http_1(&mut connection, &preface[9..]);
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
    proxy.wait_for_log(&["HTTP/2"]);
}

#[track_caller]
fn assert_tells_of_http_1(connection: &mut Connection, bytes: &[u8]) {
    let answer = connection.send_raw(bytes).unwrap();
    assert_eq!(answer.status, 505);
    assert!(answer.text().contains("HTTP/1.1"), "{}", answer.text());
    assert!(connection.is_closed());
}

/// "The proxy MUST ignore the received Host header field (if any) and instead replace it with the
/// host information of the request-target" (RFC 9112 §3.2.2).
#[test]
fn the_host_of_a_url_counts_and_not_the_field() {
    let (registry, proxy) = world();
    let target = format!("http://{}:443/v2/", registry.host());
    let request = wire("GET T HTTP/1.1|Host: other.example||", &target, "");
    assert_eq!(proxy.client().plain().unwrap().send_raw(&request).unwrap().status, 200);
    let requests = registry.requests();
    assert_eq!(requests.iter().next().unwrap().headers.get("host"), Some(registry.host()));
}

#[test]
fn a_refused_request_takes_those_behind_it_along_and_not_those_before() {
    let (registry, proxy) = world();
    let text = "GET T?first HTTP/1.1|Host: H||GET T?second HTTP/1.1\nHost: H||\
                GET T?third HTTP/1.1|Host: H||";
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let answers = connection.raw(&wire(text, "/v2/", registry.host())).unwrap();
    let answers = String::from_utf8_lossy(&answers);
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 1, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 400").count(), 1, "{answers}");
    assert_eq!(registry.requests().len(), 1, "{}", registry.requests().summary());
    assert_eq!(registry.requests().path("first").len(), 1);
}

#[test]
fn a_request_that_comes_back_is_a_loop() {
    let (registry, proxy) = world();
    let url = format!("https://{}/v2/", registry.host());
    let via = |value: &str| Request::get(&url).header("Host", registry.host()).header("Via", value);
    let client = proxy.client();
    assert_eq!(client.send(&via("1.1 entrepot, 1.1 other")).unwrap().status, 200);
    let requests = registry.requests();
    let vias: Vec<_> = requests.iter().next().unwrap().headers.all("via").collect();
    assert_eq!(client.send(&via(&vias.join(", "))).unwrap().status, 508);
    assert_eq!(registry.requests().len(), 1);
    // Two of them may be chained.
    let another = in_front_of(&registry);
    assert_eq!(another.client().send(&via(&vias.join(", "))).unwrap().status, 200);
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

/// What is kept needs nothing of a body, and is not given to who brings one, in one piece or in
/// two.
#[test]
fn a_body_that_a_hit_would_leave_unread_is_no_request() {
    let (registry, proxy, layer) = one_layer(10_000);
    proxy.wait_until_all_kept(&proxy.puller().pull(ALPINE, "1").unwrap());
    let hidden = wire("GET /v2/hidden HTTP/1.1|Host: H||", "", registry.host());
    let path = format!("/v2/{ALPINE}/blobs/{}", layer.digest);
    let head = format!("GET T HTTP/1.1|Host: H|Content-Length: {}||", hidden.len());
    let head = wire(&head, &path, registry.host());
    for in_one_piece in [true, false] {
        let mut connection = proxy.client().open(registry.host()).unwrap();
        let body_at_once = if in_one_piece { hidden.as_slice() } else { &[] };
        let refused = connection.send_raw(&[head.as_slice(), body_at_once].concat()).unwrap();
        assert_eq!(refused.status, 400, "{} bytes", layer.bytes.len());
        if !in_one_piece {
            // It may have been closed, and then there is nobody to send it to.
            let _ = connection.write(&hidden);
        }
        assert!(connection.is_closed(), "nothing more is read on it");
    }
    assert!(registry.requests().path("hidden").is_empty());
    assert!(!proxy.log_contains("hidden"), "{:?}", proxy.log());
}

#[test]
fn a_broken_chunk_is_not_passed_on_as_a_whole_request() {
    let broken = [
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\r\n0\r\nX: y\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
    ];
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
        (414, format!("GET /{} HTTP/1.1\r\nHost: {host}\r\n\r\n", "a".repeat(8 * 1024))),
        (414, format!("GET /{} HTTP/1.1\r\nHost: {host}\r\n\r\n", "a".repeat(60_000))),
        (431, format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: {}\r\n\r\n", "a".repeat(70_000))),
        (431, format!("GET / HTTP/1.1\r\nHost: {host}\r\n{many}\r\n")),
    ];
    for (status, head) in heads {
        let connection = proxy.client().open(host).unwrap();
        assert_refused(connection, status, head.get(..20).unwrap_or_default(), head.as_bytes());
    }
    assert!(registry.requests().is_empty());
}

#[test]
fn trailers_end_here() {
    let (registry, proxy) = world();
    let text = "PUT /v2/x/blobs/uploads/1?digest=x HTTP/1.1|Host: H|TE: trailers|\
                Transfer-Encoding: chunked|Trailer: Authorization||\
                3;ext=\"1\"|abc|0|Content-Length: 7|Authorization: Basic eDp5||\
                GET /v2/?next HTTP/1.1|Host: H||";
    let mut connection = proxy.client().open(registry.host()).unwrap();
    connection.send_raw(&wire(text, "", registry.host())).unwrap();
    let requests = registry.requests();
    let put = requests.method("PUT");
    let seen = put.iter().next().unwrap();
    assert_eq!(seen.body_bytes, 3);
    for gone in ["trailer", "authorization", "te", "content-length"] {
        assert_eq!(seen.headers.get(gone), None, "{gone}");
    }
    assert!(requests.path("next").with_authorization().is_empty());
}

#[test]
fn no_protocol_is_switched() {
    let (registry, proxy) = world();
    let text = "GET /v2/ HTTP/1.1|Host: H|Connection: upgrade|Upgrade: websocket||\
                GET /v2/?next HTTP/1.1|Host: H|Connection: close||";
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let answers = connection.raw(&wire(text, "", registry.host())).unwrap();
    assert_eq!(String::from_utf8_lossy(&answers).matches("HTTP/1.1 200").count(), 2);
    assert!(!registry.requests().is_empty());
    assert!(registry.requests().iter().all(|request| request.headers.get("upgrade").is_none()));
}

/// "A server that responds with a final status code instead of reading the entire request content
/// SHOULD" close or drain (RFC 9110 §10.1.1).
#[test]
fn what_is_not_read_is_not_asked_for() {
    let (registry, proxy) = world();
    let text = "POST /nothing HTTP/1.1|Host: H|Expect: 100-continue|Content-Length: 30||";
    let mut connection = proxy.client().plain().unwrap();
    let hidden = wire("GET /hidden HTTP/1.1|Host: H||", "", "a");
    let answers = connection.raw(&wire(text, "", "a")).unwrap();
    let answers = String::from_utf8_lossy(&answers);
    assert!(answers.starts_with("HTTP/1.1 405"), "{answers}");
    assert!(connection.write(&hidden).is_err() || connection.is_closed());
    let mut reading = proxy.client().open(registry.host()).unwrap();
    let put = "PUT /v2/x/blobs/uploads/1 HTTP/1.1|Host: H|Expect: 100-continue|Content-Length: 3||";
    let put = wire(put, "", registry.host());
    reading.write(&put).unwrap();
    assert_eq!(reading.read_line().unwrap(), "HTTP/1.1 100 Continue");
}

#[test]
fn a_body_that_is_refused_with_its_request_is_no_request() {
    let proxy = Proxy::builder(BINARY).start();
    let hidden = "GET /hidden HTTP/1.1|Host: H||".repeat(10_000);
    let text = format!("POST /nothing HTTP/1.1|Host: H|Content-Length: {}||{hidden}", hidden.len());
    let mut connection = proxy.client().plain().unwrap();
    // Whoever refuses so much need not take it: the connection may break while it is sent.
    let answers = connection.raw(&wire(&text, "", "a")).unwrap_or_default();
    assert!(String::from_utf8_lossy(&answers).matches("HTTP/1.1").count() <= 1);
    assert!(!proxy.log_contains("/hidden"), "{:?}", proxy.log());
}

#[test]
fn fields_for_this_hop_stay_on_this_hop() {
    let (registry, proxy) = world();
    let request = Request::get(format!("https://{}/v2/", registry.host()))
        .header("Host", registry.host())
        .header("Authorization", "Bearer a-client-of-its-own")
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

/// What is no registry's resource by the letter reaches the registry by the letter, and is not
/// kept.
#[test]
fn odd_targets_are_passed_on_untouched_or_refused() {
    let (registry, proxy) = world();
    let passed_on = [
        "/v2/x%2fy/manifests/1",
        "/v2//x/manifests/1",
        "//v2/x/manifests/1",
        "/v2/x/manifests/1;.css",
        "/v2/x/manifests/1%0a",
        "/v2/x/manifests/1%00",
        "/v2/X/manifests/1",
        "/v2/?a=b?c=/../d",
        "/V2/",
        "/v2/x/manifests/%E9",
    ];
    for target in passed_on {
        let mut connection = proxy.client().open(registry.host()).unwrap();
        let request = wire("GET T HTTP/1.1|Host: H||", target, registry.host());
        connection.send_raw(&request).unwrap();
        assert_eq!(registry.requests().path(target).len(), 1, "{target}");
    }
    registry.forget_requests();
    let host = registry.host();
    // Where these lead is each server's own opinion.
    for target in [
        "/v2/x/../y/manifests/1",
        "/v2/x/%2e%2E/y/manifests/1",
        "/v2/./x/manifests/1",
        "/v2/x/blobs/sha256:x%2f..%2fetc",
        "/v2/x/blobs/uploads/../../../admin",
    ] {
        let mut connection = proxy.client().open(host).unwrap();
        let answer = connection.send_raw(&wire("GET T HTTP/1.1|Host: H||", target, host)).unwrap();
        assert_eq!(answer.status, 400, "{target}");
    }
    for target in [
        &b"/v2/\xe9"[..],
        b"/v2/\xff",
        b"/v2/\xc3\xa9",
        b"/v2/?\xc3\xa9",
        b"/v2/a\tb",
        b"/v2/\x7f",
        b"/v2/\x01",
    ] {
        let head = [b"GET ", target, b" HTTP/1.1\r\nHost: ", host.as_bytes(), b"\r\n\r\n"].concat();
        assert_refused(
            proxy.client().open(host).unwrap(),
            400,
            &format!("{}", target.escape_ascii()),
            &head,
        );
    }
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}

/// Whoever is refused while still sending hears why: the rest is taken and thrown away, since a
/// connection that is closed with bytes unread is reset, and the answer lost.
#[test]
fn a_refusal_in_the_middle_of_a_body_is_heard() {
    let registry = Registry::open();
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config("push = \"deny\"").start();
    let path = "/v2/library/x/blobs/uploads/1";
    for time in 0..20 {
        let mut upload = Request::new("PATCH", path);
        if time % 2 == 0 {
            upload = upload.header("Transfer-Encoding", "chunked");
        }
        let upload = upload.body(vec![7; 4_000_000]);
        let mirror = proxy.client().plain().unwrap();
        let inside = proxy.client().open(registry.host()).unwrap();
        for mut connection in [mirror, inside] {
            let answer = connection.send(&upload);
            let answer = answer.unwrap_or_else(|error| panic!("time {time}: {error}"));
            assert_eq!(answer.status, 405, "time {time}: {}", answer.text());
            assert!(connection.is_closed());
        }
    }
    assert!(registry.requests().is_empty());
}
