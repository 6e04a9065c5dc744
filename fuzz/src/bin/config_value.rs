//! Durations and sizes, ours and nginx's: never another number than the one that stands there.

#![no_main]

use entrepot::fuzzing::config::{byte_size, duration, nginx};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (digits, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number = digits.parse::<u128>().ok();
    let exactly = |factor: u128| number.and_then(|number| number.checked_mul(factor));
    let milliseconds = |unit: &str| {
        [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)]
            .into_iter()
            .find_map(|(name, factor)| (name == unit).then_some(factor))
    };
    // Of what has one unit, in its usual letters, it is known here too.
    if let (Some(read), Some(factor)) = (duration(text), milliseconds(unit)) {
        assert_eq!(Some(read.as_millis()), exactly(factor), "{text}");
    }
    if let (Some(read), Some(factor)) = (byte_size(text), bytes_of(unit)) {
        assert_eq!(Some(u128::from(read)), exactly(factor), "{text}");
    }
    let (size, time) = nginx(text);
    if let Some(read) = size {
        let power = ["", "k", "m", "g"].iter().position(|m| m.eq_ignore_ascii_case(unit));
        let factor = 1024_u128.pow(power.unwrap().try_into().unwrap());
        assert_eq!(Some(u128::from(read)), exactly(factor), "{text}");
    }
    if let (Some(read), Some(factor)) = (time, milliseconds(unit)) {
        assert_eq!(Some(read.as_millis()), exactly(factor), "{text}");
    }
});

/// What a unit of sizes stands for.
fn bytes_of(unit: &str) -> Option<u128> {
    let unit = unit.to_ascii_lowercase();
    let (prefix, base): (&str, u128) = match (unit.strip_suffix("ib"), unit.strip_suffix('b')) {
        (Some(prefix), _) => (prefix, 1024),
        (None, Some(prefix)) => (prefix, 1000),
        (None, None) => (&unit, 1024),
    };
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|one| *one == prefix)?;
    Some(base.pow(power.try_into().unwrap()))
}
