//! nginx's sizes and times (its "Configuration file measurement units").

use std::time::Duration;

/// `1024`, `500k`, `500m`, `32g`: bytes.
pub(in crate::config) fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)?.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    number(digits)?.checked_mul(1 << shift)
}

/// `60`, `60s`, `1h30m`, `1d 12h`: seconds where no unit is given; each unit once, the largest
/// first.
pub(in crate::config) fn time(text: &str) -> Option<Duration> {
    // In the order in which nginx takes them.
    const UNITS: [(&str, u64); 8] = [
        ("y", 365 * 86_400_000),
        ("M", 30 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    let mut left = UNITS.iter();
    let mut milliseconds = 0_u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (digits, after) = split(rest, |c| c.is_ascii_digit());
        let (unit, after) = split(after, |c| c.is_ascii_alphabetic());
        let unit = if unit.is_empty() && after.is_empty() { "s" } else { unit };
        let (_, factor) = left.find(|(name, _)| *name == unit)?;
        milliseconds = milliseconds.checked_add(number(digits)?.checked_mul(*factor)?)?;
        rest = after.trim_start();
    }
    Some(Duration::from_millis(milliseconds))
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// Digits alone: `parse` would take a sign.
fn number(digits: &str) -> Option<u64> {
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_nginxs() {
        let cases = [("1024", 1024), ("1k", 1 << 10), ("500M", 500 << 20), ("32g", 32 << 30)];
        for (text, bytes) in cases {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for wrong in ["", "g", "32t", "32gb", "1.5g", "-1", "+1", "32 g", "99999999999g"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_nginxs() {
        let cases = [
            ("60", 60_000),
            ("60s", 60_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("1d 12h", 129_600_000),
            ("60d", 60 * 86_400_000),
            ("1y", 365 * 86_400_000),
            ("1M", 30 * 86_400_000),
            ("1m30", 90_000),
            ("0", 0),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(time(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for wrong in ["", "s", "-1s", "1.5h", "30m1h", "1h1h", "1x", "1 2", "99999999999999999999s"]
        {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }
}
