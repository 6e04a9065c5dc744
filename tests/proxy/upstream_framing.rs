//! What an upstream sends that two parsers could read differently never becomes a whole answer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use entrepot_testkit::client::Connection;
use entrepot_testkit::{Proxy, Request};

use crate::BINARY;

/// Answers whose head says nothing certain: `|` stands for a line end.
const NO_ANSWERS: &[(&str, &str)] = &[
    ("two lengths", "HTTP/1.1 200 OK|Content-Length: 3|Content-Length: 4||abcd"),
    ("a list of lengths", "HTTP/1.1 200 OK|Content-Length: 3, 4||abcd"),
    ("a signed length", "HTTP/1.1 200 OK|Content-Length: +3||abc"),
    ("a hexadecimal length", "HTTP/1.1 200 OK|Content-Length: 0x3||abc"),
    ("a length beyond all", "HTTP/1.1 200 OK|Content-Length: 99999999999999999999||abc"),
    ("a space before a colon", "HTTP/1.1 200 OK|Content-Length : 3||abc"),
    ("a folded line", "HTTP/1.1 200 OK|X: a| b|Content-Length: 3||abc"),
    ("an empty name", "HTTP/1.1 200 OK|: a|Content-Length: 3||abc"),
    ("no colon", "HTTP/1.1 200 OK|abc|Content-Length: 3||abc"),
    ("a null", "HTTP/1.1 200 OK|X: a\0b|Content-Length: 3||abc"),
    ("a bare return", "HTTP/1.1 302 Found|Location: /a\rX: b|Content-Length: 3||abc"),
    ("no HTTP", "220 mail.example ESMTP|"),
    ("nothing but a body", "abc"),
    ("a status of two digits", "HTTP/1.1 20 OK|Content-Length: 3||abc"),
    (
        "a switch of protocols",
        "HTTP/1.1 101 Switching Protocols|Connection: upgrade|Upgrade: x||abc",
    ),
    ("a coding beside chunked", "HTTP/1.1 200 OK|Transfer-Encoding: gzip, chunked||3|abc|0||"),
    ("another coding", "HTTP/1.1 200 OK|Transfer-Encoding: gzip|Connection: close||abc"),
    ("chunked twice", "HTTP/1.1 200 OK|Transfer-Encoding: chunked, chunked||3|abc|0||"),
    ("an end within the head", "HTTP/1.1 200 OK|Content-Len"),
];

/// Answers whose body ends nowhere that is certain.
const NO_BODIES: &[(&str, &str)] = &[
    ("a body that is too short", "Content-Length: 4||abc"),
    ("a missing last chunk", "Transfer-Encoding: chunked||3|abc|"),
    ("a hexadecimal size", "Transfer-Encoding: chunked||0x3|abc|0||"),
    ("a negative size", "Transfer-Encoding: chunked||-3|abc|0||"),
    ("an empty size", "Transfer-Encoding: chunked|||abc|0||"),
    ("a size beyond all", "Transfer-Encoding: chunked||fffffffffffffffff|abc|0||"),
    ("a chunk that is too long", "Transfer-Encoding: chunked||2|abc|0||"),
    ("a bare line feed behind a size", "Transfer-Encoding: chunked||3\nabc|0||"),
    ("a line feed in an extension", "Transfer-Encoding: chunked||3;a\nb|abc|0||"),
    ("an end within the trailers", "Transfer-Encoding: chunked||3|abc|0|X: y"),
];

fn wire(text: &str) -> Vec<u8> {
    text.replace('|', "\r\n").into_bytes()
}

/// A server of plain HTTP that says the same to everybody, and hangs up. It ends with the test.
fn parrot(words: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 8192];
            // A request without a body comes in one piece here, and its bytes do not matter.
            let _ = stream.read(&mut request).and_then(|_| stream.write_all(&words));
        }
    });
    address
}

/// A proxy in front of a registry for each of these answers: `0.test`, `1.test` and so on.
fn in_front_of(answers: impl Iterator<Item = Vec<u8>>) -> Proxy {
    let start = Proxy::builder(BINARY).tables("[[registry]]\nhost = \"*.test\"\nscheme = \"http\"");
    let all = answers.enumerate().fold(start, |proxy, (number, answer)| {
        proxy.connect_to(&format!("{number}.test:80:{}", parrot(answer)))
    });
    all.start()
}

fn open(proxy: &Proxy, number: usize) -> Connection {
    proxy.client().open(&format!("{number}.test")).unwrap()
}

/// Once for what is relayed and once for what is kept.
const PATHS: [&str; 3] = [
    "/v2/x/tags/list",
    "/v2/x/manifests/1",
    "/v2/x/blobs/sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
];

#[test]
fn an_answer_without_a_certain_head_is_a_502() {
    let proxy = in_front_of(NO_ANSWERS.iter().map(|(_, text)| wire(text)));
    for (number, (what, _)) in NO_ANSWERS.iter().enumerate() {
        for path in PATHS {
            let answer = open(&proxy, number).send(&Request::get(path)).unwrap();
            assert_eq!(answer.status, 502, "{what}, {path}: {}", answer.text());
        }
    }
}

#[test]
fn a_body_without_a_certain_end_never_ends_well() {
    let answer = |text: &str| wire(&format!("HTTP/1.1 200 OK|{text}"));
    let proxy = in_front_of(NO_BODIES.iter().map(|(_, text)| answer(text)));
    let proxy = &proxy;
    // Side by side: what breaks off is resumed for a while.
    thread::scope(|scope| {
        for (number, (what, _)) in NO_BODIES.iter().enumerate() {
            scope.spawn(move || {
                for path in PATHS {
                    let answer = open(proxy, number).send(&Request::get(path));
                    let broke = answer.as_ref().map_or(true, |answer| answer.status >= 500);
                    assert!(broke, "{what}, {path}: {answer:?}");
                }
            });
        }
    });
}

/// "If a message is received with both a Transfer-Encoding and a Content-Length header field, the
/// Transfer-Encoding overrides the Content-Length" (RFC 9112 §6.3), and the client sees one of
/// them.
#[test]
fn a_length_beside_a_coding_does_not_reach_the_client() {
    let orders = [
        "HTTP/1.1 200 OK|Content-Length: 1|Transfer-Encoding: chunked||3|abc|0||",
        "HTTP/1.1 200 OK|Transfer-Encoding: chunked|Content-Length: 1||3|abc|0||",
    ];
    let proxy = in_front_of(orders.into_iter().map(wire));
    for number in 0..orders.len() {
        let answer = open(&proxy, number).send(&Request::get(PATHS[0])).unwrap();
        if answer.status == 200 {
            assert_eq!(answer.text(), "abc");
            assert_eq!(answer.headers.get("content-length"), None);
        } else {
            assert_eq!(answer.status, 502);
        }
    }
}

#[test]
fn a_head_beyond_measure_is_a_502() {
    let long = format!("HTTP/1.1 200 OK|X: {}|Content-Length: 3||abc", "a".repeat(1 << 20));
    let many = format!("HTTP/1.1 200 OK|{}Content-Length: 3||abc", "X: a|".repeat(1000));
    let endless = format!("HTTP/1.1 200 OK|X: {}", "a".repeat(1 << 20));
    let proxy = in_front_of([long, many, endless].iter().map(|text| wire(text)));
    for number in 0..3 {
        let answer = open(&proxy, number).send(&Request::get(PATHS[0])).unwrap();
        assert_eq!(answer.status, 502, "{number}: {}", answer.text());
    }
}

#[test]
fn what_comes_behind_an_answer_is_no_answer() {
    let answer = "HTTP/1.1 200 OK|Content-Length: 3||abcHTTP/1.1 200 OK|Content-Length: 4||evil";
    let proxy = in_front_of([wire(answer)].into_iter());
    let mut connection = open(&proxy, 0);
    for _ in 0..3 {
        assert_eq!(connection.send(&Request::get(PATHS[0])).unwrap().text(), "abc");
    }
}

#[test]
fn fields_for_one_hop_and_trailers_stay_behind() {
    let answer = "HTTP/1.1 200 OK|Connection: close, X-Secret|X-Secret: 1|Keep-Alive: timeout=5|\
                  Proxy-Authenticate: Basic|Upgrade: h2c|Trailer: X-Late|Alt-Svc: h3|X-Kept: 1|\
                  Transfer-Encoding: chunked||3|abc|0|X-Late: 1||";
    let proxy = in_front_of([wire(answer)].into_iter());
    let mut connection = open(&proxy, 0);
    let request = Request::get(PATHS[0]).header("TE", "trailers").header("Connection", "close");
    let wire = connection.raw(&request.header("Host", "0.test").to_wire()).unwrap();
    let wire = String::from_utf8_lossy(&wire).to_lowercase();
    assert!(wire.contains("x-kept: 1"), "{wire}");
    for gone in ["x-secret", "keep-alive:", "proxy-authenticate", "upgrade", "x-late", "alt-svc"] {
        assert!(!wire.contains(gone), "{gone}: {wire}");
    }
}

#[test]
fn interim_responses_have_a_bound() {
    let many = |count: usize| {
        wire(&format!(
            "{}HTTP/1.1 200 OK|Content-Length: 3||abc",
            "HTTP/1.1 103 Early Hints|Link: </a>||".repeat(count)
        ))
    };
    let proxy = in_front_of([many(16), many(17), many(1000)].into_iter());
    for (number, status) in [200, 502, 502].into_iter().enumerate() {
        let url = format!("https://{number}.test/v2/x/blobs/uploads/1");
        let answer = open(&proxy, number).send(&Request::get(url)).unwrap();
        assert_eq!(answer.status, status, "{number}: {}", answer.text());
    }
}
