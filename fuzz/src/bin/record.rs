//! Records on disk: read as they were written, damage is noticed, and whatever is in one that is
//! sound is answered with fields that are some.

#![no_main]

use entrepot::fuzzing::gateway::{listing_record, tag_record};
use entrepot_cache::fuzzing::{decode_record, encode_record};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|input: (u16, u8, &[u8])| {
    let (at, bit, bytes) = input;
    if let Some(read) = decode_record(bytes).filter(|read| !has_fractions(read)) {
        assert_eq!(
            encode_record(&read).and_then(|line| decode_record(line.as_bytes())),
            Some(read)
        );
    }
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    if has_fractions(&value) {
        return;
    }
    let Some(line) = encode_record(&value) else { return assert!(bytes.len() > 1000) };
    assert_eq!(decode_record(line.as_bytes()).as_ref(), Some(&value));
    let mut damaged = line.into_bytes();
    let at = usize::from(at) % damaged.len();
    damaged[at] ^= 1 << (bit % 8);
    assert_eq!(decode_record(&damaged), None);
    damaged.truncate(at);
    assert_eq!(decode_record(&damaged), None);
    let _ = tag_record(value.clone());
    if let Some(fields) = listing_record(value) {
        assert!(fields.len() < 1000);
    }
});

/// What no record has, and what JSON need not keep to the last bit.
fn has_fractions(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_fractions),
        Value::Object(fields) => fields.values().any(has_fractions),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}
