//! Sizes and durations as people write them, read and written.

use std::time::Duration;

/// What a size may look like, in words.
pub(crate) const SIZES: &str = "a size such as 32GiB, 10G, 1.5TiB, 500MB or 1048576";
/// What a duration may look like, in words.
pub(crate) const DURATIONS: &str = "a duration such as 500ms, 30s, 10m, 1h30m, 60d or 2w";

/// Digits behind a point that are looked at: more say nothing of a whole number of bytes.
const DECIMALS: usize = 9;

/// A number of bytes: a number, which may have a fraction, and a unit in letters of either case.
///
/// Letters alone are powers of 1024, as docker, nginx and systemd have them (`10g`), and so are
/// `KiB` and `Ki`; `kB` and `GB` are powers of 1000, as the SI has them. Without a unit it is
/// bytes.
#[must_use]
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text.trim())?;
    let unit = unit.to_ascii_lowercase();
    if let "" | "b" = unit.as_str() {
        // Of a byte there is no half.
        return number.whole();
    }
    let (prefix, rest) = unit.split_at_checked(1)?;
    let power = ["k", "m", "g", "t", "p"].iter().position(|one| *one == prefix)?;
    let base: u64 = match rest {
        "" | "i" | "ib" => 1024,
        "b" => 1000,
        _ => return None,
    };
    number.times(base.checked_pow(u32::try_from(power).ok()? + 1)?)
}

/// A duration: numbers with their units, the largest first, each unit once, with or without spaces
/// between them (`1h30m`, `2w 3d`, `1.5h`). A unit may be a word (`5min`, `2 weeks`). Nothing needs
/// no unit.
#[must_use]
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut millis, mut largest) = (text, 0_u64, u64::MAX);
    while !rest.is_empty() {
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let behind = rest.get(end..)?;
        let unit_end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, after) = behind.split_at(unit_end);
        let factor = milliseconds(unit).filter(|factor| *factor < largest)?;
        let number = Number::parse(rest.get(..end)?.trim_end())?;
        millis = millis.checked_add(number.times(factor)?)?;
        (rest, largest) = (after.trim_start(), factor);
    }
    (!text.is_empty()).then(|| Duration::from_millis(millis))
}

fn milliseconds(unit: &str) -> Option<u64> {
    // A capital M is a month to some (nginx), and a minute to others.
    if unit == "M" {
        return None;
    }
    Some(match unit.to_ascii_lowercase().as_str() {
        "ms" | "msec" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        "w" | "week" | "weeks" => 7 * 86_400_000,
        "y" | "year" | "years" => 365 * 86_400_000,
        _ => return None,
    })
}

/// A size in the largest unit of which it is a whole number; [`size`] reads it as the same.
#[must_use]
pub(crate) fn exact_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 10] = [
        (1 << 50, "PiB"),
        (1_000_000_000_000_000, "PB"),
        (1 << 40, "TiB"),
        (1_000_000_000_000, "TB"),
        (1 << 30, "GiB"),
        (1_000_000_000, "GB"),
        (1 << 20, "MiB"),
        (1_000_000, "MB"),
        (1 << 10, "KiB"),
        (1_000, "kB"),
    ];
    let is_whole = |(unit, _): &&(u64, &str)| bytes >= *unit && bytes.is_multiple_of(*unit);
    let unit = UNITS.iter().find(is_whole);
    unit.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// A duration to the millisecond; [`duration`] reads it as the same.
#[must_use]
pub(crate) fn exact_duration(duration: Duration) -> String {
    const UNITS: [(u64, &str); 5] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, name) in UNITS {
        if left >= unit {
            text.extend([&(left / unit).to_string(), name]);
            left %= unit;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

fn number_and_unit(text: &str) -> Option<(Number, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((Number::parse(number)?, unit.trim_start()))
}

/// A number as it was written: never a float, whose last digits would be others.
struct Number {
    whole: u64,
    /// In parts of `scale`.
    fraction: u64,
    scale: u64,
}

impl Number {
    /// Digits, with a point between some of them or without.
    fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(decimals) || decimals.len() > DECIMALS {
            return None;
        }
        let scale = 10_u64.pow(u32::try_from(decimals.len()).ok()?);
        Some(Self { whole: whole.parse().ok()?, fraction: decimals.parse().ok()?, scale })
    }

    /// It, if it has no fraction.
    fn whole(&self) -> Option<u64> {
        (self.fraction == 0).then_some(self.whole)
    }

    /// So many times it, rounded down.
    fn times(&self, factor: u64) -> Option<u64> {
        let part = u128::from(self.fraction) * u128::from(factor) / u128::from(self.scale);
        self.whole.checked_mul(factor)?.checked_add(u64::try_from(part).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_taken_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("0B", 0),
            ("1024", 1024),
            ("1024b", 1024),
            ("10G", 10 << 30),
            ("10g", 10 << 30),
            ("500m", 500 << 20),
            ("500M", 500 << 20),
            ("1k", 1 << 10),
            ("2t", 2 << 40),
            ("1p", 1 << 50),
            ("10Gi", 10 << 30),
            ("32GiB", 32 << 30),
            ("32gib", 32 << 30),
            ("32 GiB", 32 << 30),
            ("1.5GiB", 3 << 29),
            ("0.5k", 512),
            ("500MB", 500_000_000),
            ("500kB", 500_000),
            ("500KB", 500_000),
            ("10gb", 10_000_000_000),
            ("1.5TB", 1_500_000_000_000),
            (" 1G ", 1 << 30),
        ] {
            assert_eq!(size(text), Some(bytes), "{text:?}");
        }
        for wrong in [
            "",
            "GiB",
            "-1B",
            "+1B",
            "1.5",
            "1.5B",
            ".5G",
            "5.G",
            "1.2.3G",
            "1,5G",
            "1GiBs",
            "1x",
            "1e9",
            "0x10",
            "1_000",
            "ten",
            "99999999999TiB",
            "1.0123456789G",
            "1G1M",
        ] {
            assert_eq!(size(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn durations_are_taken_as_people_write_them() {
        let secs = Duration::from_secs;
        for (text, expected) in [
            ("0", secs(0)),
            ("0s", secs(0)),
            ("500ms", Duration::from_millis(500)),
            ("10m", secs(600)),
            ("10min", secs(600)),
            ("1h30m", secs(5_400)),
            ("1h 30m", secs(5_400)),
            ("1.5h", secs(5_400)),
            ("1d12h", secs(129_600)),
            ("60d", secs(60 * 86_400)),
            ("2w", secs(14 * 86_400)),
            ("2 weeks 1 day", secs(15 * 86_400)),
            ("1y", secs(365 * 86_400)),
            ("30D", secs(30 * 86_400)),
            (" 1s ", secs(1)),
        ] {
            assert_eq!(duration(text), Some(expected), "{text:?}");
        }
        for wrong in [
            "",
            "10",
            "s",
            "-1s",
            "+1s",
            "1M",
            "30m1h",
            "1h1h",
            "1h30",
            "1x",
            "1,5h",
            "1.h",
            "soon",
            "99999999999999999999s",
            "999999999999999y",
        ] {
            assert_eq!(duration(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_written_reads_well() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1 << 20, "1MiB"),
            (512 << 20, "512MiB"),
            (500 << 30, "500GiB"),
            (500_000_000, "500MB"),
            (1_048_577, "1048577B"),
        ] {
            assert_eq!(exact_size(bytes), text);
        }
        for (secs, text) in
            [(0, "0s"), (90, "1m30s"), (2_592_000, "30d"), (129_600, "1d12h"), (600, "10m")]
        {
            assert_eq!(exact_duration(Duration::from_secs(secs)), text);
        }
        assert_eq!(exact_duration(Duration::from_millis(1_500)), "1s500ms");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(bytes: u64, millis in 0..u64::MAX / 2) {
            prop_assert_eq!(size(&exact_size(bytes)), Some(bytes));
            let time = Duration::from_millis(millis);
            prop_assert_eq!(duration(&exact_duration(time)), Some(time));
        }

        #[test]
        fn whatever_is_typed_ends_in_no_panic(text in ".{0,30}") {
            let _ = (size(&text), duration(&text));
        }
    }
}
