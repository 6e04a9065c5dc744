//! Numbers as they are typed, and as they are divided.

use std::str::FromStr;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

impl FromStr for Bytes {
    type Err = String;

    /// Reads `64MiB`, `200KiB`, `1GiB` or a plain number.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = match text.get(digits.len()..).unwrap_or_default() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            other => return Err(format!("{other:?} is none of B, KiB, MiB, GiB")),
        };
        let number: u64 = digits.parse().map_err(|_| format!("{text:?} has no whole number"))?;
        number.checked_mul(unit).map(Self).ok_or_else(|| format!("{text} is too much"))
    }
}

/// The number for arithmetic in which rounding does not matter.
#[expect(clippy::cast_precision_loss, reason = "no measure has 53 significant bits")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

/// `number` of things as an index or a length; what does not fit is as good as the largest.
pub(crate) fn length(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn sizes_have_units() {
        assert_eq!("64MiB".parse(), Ok(Bytes(64 << 20)));
        assert_eq!("17".parse(), Ok(Bytes(17)));
        for wrong in ["", "MiB", "1MB", "-1KiB", "99999999999GiB"] {
            assert!(wrong.parse::<Bytes>().is_err(), "{wrong}");
        }
    }
}
