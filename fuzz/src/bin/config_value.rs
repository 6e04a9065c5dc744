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
    if let Some(read) = duration(text) {
        assert_eq!(Some(read.as_millis()), milliseconds(unit).and_then(exactly), "{text}");
    }
    if let Some(read) = byte_size(text) {
        let (multiple, base): (&str, u128) = match unit.strip_suffix("iB") {
            Some(multiple) => (multiple, 1024),
            None => (unit.strip_suffix('B').unwrap(), 1000),
        };
        let power = ["", "K", "M", "G", "T"].iter().position(|m| m.eq_ignore_ascii_case(multiple));
        let factor = base.pow(power.unwrap().try_into().unwrap());
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
