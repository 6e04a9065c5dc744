//! A registry's answer, whatever comes: it is the same however it comes apart, has no more bytes
//! than are taken, and is whole only where its own framing says so.

#![no_main]

use bytes::Bytes;
use entrepot::fuzzing::upstream::ask;
use entrepot_fuzz::{Peer, run};
use http::{Request, Response, header};
use http_body_util::Empty;
use libfuzzer_sys::fuzz_target;

/// The most that is taken.
const MOST: usize = 4096;

fuzz_target!(|input: (u8, bool, &[u8])| {
    let (piece, is_head, bytes) = input;
    let whole = asked(bytes, bytes.len(), is_head);
    let cut = asked(bytes, usize::from(piece) + 1, is_head);
    match (&whole, &cut) {
        (Some(whole), Some(cut)) => {
            assert_eq!(whole.status(), cut.status());
            assert_eq!(whole.headers(), cut.headers());
            assert_eq!(whole.body().as_ref().ok(), cut.body().as_ref().ok());
        }
        (whole, cut) => assert_eq!(whole.is_some(), cut.is_some()),
    }
    let Some(answer) = whole else { return };
    assert!(answer.status().as_u16() >= 200 || answer.status().as_u16() == 101);
    let Ok(body) = answer.body() else { return };
    assert!(body.len() <= MOST.min(bytes.len()));
    let fields = answer.headers();
    let has_none = is_head || matches!(answer.status().as_u16(), 101 | 204 | 304);
    if has_none {
        assert!(body.is_empty());
    } else if !fields.contains_key(header::TRANSFER_ENCODING) {
        let length = fields.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if let Some(length) = length.and_then(|length| length.parse::<usize>().ok()) {
            assert_eq!(length, body.len());
        }
    }
});

fn asked(bytes: &[u8], piece: usize, is_head: bool) -> Option<Response<Result<Bytes, String>>> {
    let method = if is_head { "HEAD" } else { "GET" };
    let request = Request::builder()
        .method(method)
        .uri("/v2/")
        .header(header::HOST, "registry.example")
        .body(Empty::new());
    run(ask(Peer::new(bytes, piece), request.unwrap(), MOST))
}
