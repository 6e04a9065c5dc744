//! `Range` against a length: what is sent is what was asked for, in its order and within the
//! object, by a slow reading of RFC 9110 §14.1.2.

#![no_main]

use entrepot::ByteRanges;
use entrepot::fuzzing::gateway::{ByteSpan, Selected};
use entrepot::fuzzing::registry::told;
use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &str)| {
    let (length, text) = input;
    let length = u64::from(length);
    let Some(ranges) = ByteRanges::parse(text) else { return };
    let (_, set) = text.split_once('=').unwrap();
    let asked: Vec<_> = set.split(',').map(|range| satisfied(range.trim(), length)).collect();
    assert!(asked.len() <= 16);
    let asked: Vec<ByteSpan> = asked.into_iter().flatten().collect();
    for span in &asked {
        assert!(span.first <= span.last && span.last < length);
        assert_eq!(read_back(*span, length), (Some(span.first), Some(length)));
    }
    let sum: u64 = asked.iter().map(|span| span.count()).sum();
    match ranges.of(length) {
        Selected::Unsatisfiable => assert!(asked.is_empty()),
        Selected::One(span) => assert_eq!([span].as_slice(), asked),
        Selected::Several(spans) => {
            assert!(spans.len() > 1 && sum <= length);
            assert_eq!(spans, asked);
        }
        Selected::Whole => assert!(asked.len() > 1 && sum > length),
    }
    if let Some(earliest) = ranges.earliest() {
        assert!(asked.iter().all(|span| span.first >= earliest));
    }
});

fn satisfied(range: &str, length: u64) -> Option<ByteSpan> {
    let number = |text: &str| {
        assert!(!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()), "{range}");
        text.parse::<u128>().unwrap_or(u128::MAX)
    };
    let (first, last) = range.split_once('-').unwrap();
    let (length, end) = (u128::from(length), u128::from(length.checked_sub(1)?));
    let (first, last) = match (first, last) {
        ("", count) => {
            let count = number(count).min(length);
            (length - count, if count == 0 { return None } else { end })
        }
        (first, "") => (number(first), end),
        (first, last) => (number(first), number(last).min(end)),
    };
    (first <= end).then(|| ByteSpan { first: first as u64, last: last as u64 })
}

/// What the client half of this program would read of it.
fn read_back(span: ByteSpan, length: u64) -> (Option<u64>, Option<u64>) {
    let mut fields = HeaderMap::new();
    let value = HeaderValue::try_from(span.content_range(length)).unwrap();
    fields.insert(header::CONTENT_RANGE, value);
    told(&fields).range
}
