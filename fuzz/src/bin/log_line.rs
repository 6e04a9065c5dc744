//! The line of a request, whatever was asked: one line, in which nothing moves the cursor, changes
//! colour or direction; and one JSON object that says the same.

#![no_main]

use entrepot::fuzzing::log::written;
use entrepot::{Outcome, RequestLine, Subject};
use entrepot_fuzz::parts;
use entrepot_oci::{Authority, Registry, Route};
use http::{Method, StatusCode};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let Some([method, authority, rest]) = parts(text) else { return };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let subject = match authority.parse::<Authority>() {
        Ok(authority) => {
            let (path, query) = rest.split_once('?').map_or((rest, None), |(p, q)| (p, Some(q)));
            Subject::of(Registry::at(&authority), Route::parse(path, query), path)
        }
        Err(_) => Subject::Other(authority.to_owned()),
    };
    let outcome = Outcome::ALL[rest.len() % Outcome::ALL.len()];
    let mut line = RequestLine::new(outcome, method, subject, [10, 0, 0, 7].into());
    line.status = StatusCode::from_u16(200 + (rest.len() % 300) as u16).ok();
    line = line.because(Some(rest.to_owned()));
    let (for_people, for_machines) = written(&line);
    let shown = for_people.strip_suffix('\n').expect("a line ends");
    let is_harmless = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}')
            && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(shown.chars().all(is_harmless), "{shown:?}");
    let json = for_machines.strip_suffix('\n').expect("a line ends");
    assert!(!json.contains(['\n', '\r']) && !json.contains('\u{1b}'), "{json:?}");
    let read: Value = serde_json::from_str(json).expect("a JSON object");
    // Cut where it is long.
    let reason = read["reason"].as_str().expect("a reason is text");
    assert!(reason == rest || rest.starts_with(reason.trim_end_matches('…')), "{reason:?}");
    assert!(reason == rest || reason.len() >= 1000, "{reason:?}");
    assert_eq!(read["outcome"], outcome.as_str());
});
