//! The fields of a message, either way: none that is for one hop goes on, and numbers are bounded.

#![no_main]

use std::time::Duration;

use entrepot::fuzzing::listener::{basic, is_fit};
use entrepot::fuzzing::registry::told;
use entrepot_fuzz::{fields, parts};
use http::{HeaderMap, Request, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some([target, rest]) = parts(text) else { return };
    let all = fields(rest);
    let told = told(&all);
    for (name, sent) in [
        ("returned", &told.returned),
        ("forwarded", &told.forwarded),
        ("ours", &told.for_ourselves),
    ] {
        for field in [
            header::CONNECTION,
            header::TE,
            header::TRAILER,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
            header::PROXY_AUTHORIZATION,
            header::PROXY_AUTHENTICATE,
        ] {
            assert!(!sent.contains_key(&field), "{name}: {field}");
        }
    }
    for ours in [header::AUTHORIZATION, header::COOKIE, header::HOST] {
        assert!(!told.for_ourselves.contains_key(ours));
    }
    assert!(!told.returned.contains_key(header::ALT_SVC));
    assert!(!told.forwarded.contains_key(header::HOST));
    for name in nominated(&all) {
        let kept = ["host", "authorization", "content-length", "via"];
        if !kept.contains(&name.as_str()) && name != "connection" {
            assert!(!told.forwarded.contains_key(name.as_str()), "{name}");
            assert!(!told.returned.contains_key(name.as_str()), "{name}");
        }
    }
    assert!((Duration::from_secs(1)..=Duration::from_mins(5)).contains(&told.pause));
    assert!(!told.is_somebody || all.contains_key(header::AUTHORIZATION));
    for value in all.get_all(header::PROXY_AUTHORIZATION) {
        if let Some((name, _)) = basic(value) {
            assert!(!name.contains(&b':'));
        }
    }
    let Ok(request) = Request::builder().uri(target).body(()) else { return };
    let (mut head, ()) = request.into_parts();
    head.headers = all;
    let request = Request::from_parts(head, ());
    if is_fit(&request) {
        assert_eq!(request.headers().get_all(header::HOST).iter().count(), 1);
        assert!(request.uri().path().starts_with('/'));
        assert!(request.uri().authority().is_none_or(|named| !named.as_str().contains('@')));
    }
});

/// What `Connection` names, in lower case.
fn nominated(fields: &HeaderMap) -> Vec<String> {
    let values = fields.get_all(header::CONNECTION).iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase()).collect()
}
