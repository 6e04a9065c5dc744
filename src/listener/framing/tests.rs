//! The count against tables, against a slow reading of the same rules, and against hyper.

use std::sync::Arc;

use http::Response;
use http_body_util::{BodyExt as _, Empty};
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::sample::select;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::super::http::{Received, SILENCE, serve};
use super::super::places::{PlaceCount, Places, Whose};
use super::*;
use crate::memory::{Memory, Shares};

fn observed(bytes: &[u8]) -> (u64, Option<FramingFault>) {
    let mut framing = Framing::default();
    framing.observe(bytes);
    (framing.heads(), framing.loss().map(|loss| loss.fault))
}

/// `|` stands for a line end.
fn wire(text: &str) -> Vec<u8> {
    text.replace('|', "\r\n").into_bytes()
}

#[test]
fn requests_are_counted_one_after_the_other() {
    let cases = [
        ("GET / HTTP/1.1|Host: a||", 1),
        ("GET / HTTP/1.1|Host: a|", 0),
        ("|||GET / HTTP/1.1||GET / HTTP/1.1||", 2),
        ("POST / HTTP/1.1|content-LENGTH:3||abcGET / HTTP/1.1||", 2),
        ("POST / HTTP/1.1|Content-Length: \t3 ||abc||GET / HTTP/1.1||", 2),
        ("POST / HTTP/1.1|Content-Length: 0||GET / HTTP/1.1||", 2),
        ("PUT / HTTP/1.1|Transfer-Encoding: Chunked||3;a=\"b\"|abc|00|T: 1||GET / HTTP/1.1||", 2),
        ("PUT / HTTP/1.1|Transfer-Encoding: chunked||1|a|", 1),
        ("CONNECT a:443 HTTP/1.1||GET / HTTP/1.1||", 2),
    ];
    for (text, heads) in cases {
        assert_eq!(observed(&wire(text)), (heads, None), "{text}");
    }
}

#[test]
fn whatever_two_parsers_may_read_differently_ends_the_count() {
    use FramingFault::{Chunk, Coding, Fragment, Length, LengthAndCoding, LineEnd, NoRequest};
    let chunked = "PUT / HTTP/1.1|Transfer-Encoding: chunked||";
    let cases = [
        ("GET / HTTP/1.1\nHost: a||", 0, LineEnd),
        ("GET / HTTP/1.1|Host: a\n|", 0, LineEnd),
        ("GET / HTTP/1.1|Host: a|\n", 0, LineEnd),
        ("GET / HTTP/1.1|X: a\rb||", 0, LineEnd),
        ("\nGET / HTTP/1.1||", 0, LineEnd),
        ("GET / HTTP/1.1||\n", 1, LineEnd),
        ("\x16\x03\x01", 0, NoRequest),
        ("GET / HTTP/1.1|| GET / HTTP/1.1||", 1, NoRequest),
        ("GET /#a HTTP/1.1||", 0, Fragment),
        ("POST / HTTP/1.1|Content-Length: 3|Content-Length: 3||abc", 0, Length),
        ("POST / HTTP/1.1|Content-Length: 3, 3||abc", 0, Length),
        ("POST / HTTP/1.1|Content-Length: +3||abc", 0, Length),
        ("POST / HTTP/1.1|Content-Length: ||abc", 0, Length),
        ("POST / HTTP/1.1|Content-Length:\x0b3||abc", 0, Length),
        ("POST / HTTP/1.1|Content-Length:\x0c3||abc", 0, Length),
        ("POST / HTTP/1.1|Content-Length: 99999999999999999999||abc", 0, Length),
        ("POST / HTTP/1.1|Content-Length: 3|Transfer-Encoding: chunked||", 0, LengthAndCoding),
        ("POST / HTTP/1.1|Transfer-Encoding: chunked|Content-Length: 3||", 0, LengthAndCoding),
        ("POST / HTTP/1.1|Transfer-Encoding: chunked|Transfer-Encoding: chunked||", 0, Coding),
        ("POST / HTTP/1.1|Transfer-Encoding: ,chunked||", 0, Coding),
        ("POST / HTTP/1.1|Transfer-Encoding: gzip, chunked||", 0, Coding),
        ("POST / HTTP/1.1|Transfer-Encoding:||", 0, Coding),
        (&format!("{chunked}3\nabc|0||"), 1, LineEnd),
        (&format!("{chunked}3;a\nb|abc|0||"), 1, LineEnd),
        (&format!("{chunked}3 |abc|0||"), 1, Chunk),
        (&format!("{chunked} 3|abc|0||"), 1, Chunk),
        (&format!("{chunked}0x3|abc|0||"), 1, Chunk),
        (&format!("{chunked}-0||"), 1, Chunk),
        (&format!("{chunked}|abc|0||"), 1, Chunk),
        (&format!("{chunked}2|abc|0||"), 1, Chunk),
        (&format!("{chunked}1000000000000000|a"), 1, Chunk),
    ];
    for (text, heads, fault) in cases {
        let mut bytes = wire(text);
        bytes.extend(wire("GET /next HTTP/1.1|Host: a||"));
        assert_eq!(observed(&bytes), (heads, Some(fault)), "{text}");
    }
}

#[test]
fn a_line_without_end_is_not_kept_for_ever() {
    let mut framing = Framing::default();
    for _ in 0..MAX_LINE {
        framing.observe(b"aaa");
    }
    assert_eq!(framing.loss().unwrap().fault, FramingFault::LongLine);
    assert_eq!(framing.partial.capacity(), 0);
}

/// A whole message, as the slow reading has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    method: String,
    body: Vec<u8>,
}

/// The rules of framing over all bytes at once, without a state: what came whole, and whether
/// another head had come whole behind that.
fn slowly(mut bytes: &[u8]) -> (Vec<Message>, u64) {
    let mut messages = Vec::new();
    loop {
        while let Some(rest) = bytes.strip_prefix(b"\r\n") {
            bytes = rest;
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { break };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let rest = &bytes[end + 4..];
        if !bytes[0].is_ascii_graphic() {
            break;
        }
        let Some(chunked_or_length) = slow_head(&head) else { break };
        let body = match chunked_or_length {
            None => slow_chunks(rest),
            Some(length) => rest.split_at_checked(length).map(|(body, rest)| (body.to_vec(), rest)),
        };
        let Some((body, rest)) = body else { return (messages.clone(), messages.len() as u64 + 1) };
        let method = head.split(' ').next().unwrap_or_default().to_owned();
        messages.push(Message { method, body });
        bytes = rest;
    }
    let heads = messages.len() as u64;
    (messages, heads)
}

/// `None` for a faulty head, `Some(None)` for a chunked body, else its length.
#[expect(clippy::option_option, reason = "three cases, in a test")]
fn slow_head(head: &str) -> Option<Option<usize>> {
    let mut lines = head.split("\r\n");
    if head.replace("\r\n", "").contains(['\r', '\n']) || lines.next()?.contains('#') {
        return None;
    }
    let fields: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| {
            (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_ascii_lowercase())
        })
        .filter(|(name, _)| name == "content-length" || name == "transfer-encoding")
        .collect();
    match fields.as_slice() {
        [] => Some(Some(0)),
        [(name, value)] if name == "transfer-encoding" => (value == "chunked").then_some(None),
        [(_, value)] if !value.starts_with('+') => value.parse().ok().map(Some),
        _ => None,
    }
}

fn slow_chunks(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (size, rest) = slow_line(bytes)?;
        let digits = size.split(';').next()?;
        if digits.len() > 15 || !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let size = usize::from_str_radix(digits, 16).ok()?;
        bytes = rest;
        if size == 0 {
            loop {
                let (line, rest) = slow_line(bytes)?;
                bytes = rest;
                if line.is_empty() {
                    return Some((body, bytes));
                }
            }
        }
        let (chunk, rest) = bytes.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        bytes = rest.strip_prefix(b"\r\n")?;
    }
}

fn slow_line(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let rest = bytes[end..].strip_prefix(b"\r\n")?;
    Some((String::from_utf8_lossy(&bytes[..end]).into_owned(), rest))
}

/// What hyper and the count let through together, with the bodies that came whole.
fn served(bytes: &[u8]) -> Vec<Option<Message>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1024);
        let shutdown = CancellationToken::new();
        let service = |received: Received| {
            let seen = seen.clone();
            async move {
                let request = match received {
                    Ok(request) => request,
                    Err(unserved) => {
                        let (_, unfit) = *unserved;
                        assert!(!unfit.reason.contains("not certain"), "{unfit:?}");
                        return Response::builder()
                            .status(unfit.status)
                            .header("connection", "close")
                            .body(Empty::<bytes::Bytes>::new())
                            .unwrap();
                    }
                };
                let method = request.method().to_string();
                let body = request.into_body().collect().await.ok();
                let body = body.map(|body| body.to_bytes().to_vec());
                seen.lock().push(body.map(|body| Message { method, body }));
                Response::new(Empty::<bytes::Bytes>::new())
            }
        };
        let talking = async {
            // A server that closes early is no failure of the client's.
            let _ = client.write_all(bytes).await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut Vec::new()).await;
        };
        // Both directions at once: the pipe is small.
        let account = Memory::new(Shares::new(Some(0))).budget.account(None);
        let client = [127, 0, 0, 1].into();
        let places = Places::new(PlaceCount::within(None));
        let place = Arc::new(places.take(Whose::at(client)).unwrap());
        tokio::join!(serve(server, &place, client, account, SILENCE, &shutdown, service), talking);
    });
    Arc::into_inner(seen).unwrap().into_inner()
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&str] = &[
        "GET /a HTTP/1.1\r\nHost: a\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /b HTTP/1.1\r\nHost: a\r\n",
        "POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde",
        "PUT /d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "PUT /d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 3 \r\n",
        "Content-Length: 30\r\n",
        "content-length:0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "transfer-encoding:\tCHUNKED \r\n",
        "Transfer-Encoding: identity\r\n",
        "Host: a\r\n",
        "X: y\r\n",
        " folded\r\n",
        "Expect: 100-continue\r\n",
        "Upgrade: x\r\nConnection: upgrade\r\n",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\n\n",
        "\r",
        "abc",
        "3\r\nabc\r\n",
        "3;x=y\r\nabc\r\n",
        "3 \r\nabc\r\n",
        "3\nabc\r\n",
        "0\r\n",
        "0\r\n\r\n",
        "0\r\nT: 1\r\n\r\n",
        "00000000000000000\r\n\r\n",
        "#",
        "\0",
        ":",
    ];
    prop::collection::vec(select(PIECES), 1..12).prop_map(|pieces| pieces.concat().into_bytes())
}

/// Pieces, and what comes of them when a byte is lost, doubled or changed.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), 0..3u8, any::<u8>()), 0..3);
    (pieces(), changes).prop_map(|(mut bytes, changes)| {
        for (at, change, byte) in changes {
            let at = at.index(bytes.len());
            match change {
                0 if bytes.len() > 1 => drop(bytes.remove(at)),
                1 => bytes.insert(at, byte),
                _ => bytes[at] = byte,
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn reads_that_come_apart_anywhere_count_the_same(
        bytes in mutated(),
        cuts in prop::collection::vec(1..40usize, 1..20),
    ) {
        let mut framing = Framing::default();
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*cut));
            framing.observe(now);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        let loss = framing.loss().map(|loss| loss.fault);
        prop_assert_eq!((framing.heads(), loss), observed(&bytes));
    }

    #[test]
    fn the_count_is_that_of_a_slow_reading(bytes in mutated()) {
        prop_assert_eq!(observed(&bytes).0, slowly(&bytes).1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_served_is_what_a_strict_reading_finds(bytes in mutated()) {
        let (messages, heads) = slowly(&bytes);
        let served = served(&bytes);
        prop_assert!(served.len() as u64 <= heads, "{:?}", served);
        for (number, message) in served.into_iter().enumerate() {
            if let Some(message) = message {
                prop_assert_eq!(messages.get(number), Some(&message));
            }
        }
    }
}
