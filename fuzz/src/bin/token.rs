//! A token server's answer: what is sent on is a field's value, short, secret, and not for ever.

#![no_main]

use std::time::Duration;

use entrepot::fuzzing::registry::token;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|answer: &[u8]| {
    let Some((authorization, lifetime)) = token(answer) else { return };
    assert!(authorization.is_sensitive());
    assert!(authorization.as_bytes().starts_with(b"Bearer "));
    assert!((8..=7 + 16 * 1024).contains(&authorization.len()));
    assert!(!authorization.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    assert!((Duration::from_mins(1)..=Duration::from_hours(12)).contains(&lifetime));
});
