//! The SHA-256 fingerprint of a certificate, in the one spelling that scripts compare.

use std::fmt;

const DIGITS: usize = 64;
const COLONS: usize = DIGITS / 2 - 1;

/// 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint(String);

impl Fingerprint {
    /// Reads `ab12…` and `AB:12:…`, the spellings of `sha256sum` and `openssl x509`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.len() {
            DIGITS => Self::from_digits(text.to_owned()),
            length if length == DIGITS + COLONS => {
                let mut pairs = text.split(':');
                let all_pairs = pairs.all(|pair| pair.len() == 2);
                all_pairs.then(|| text.replace(':', "")).and_then(Self::from_digits)
            }
            _ => None,
        }
    }

    fn from_digits(mut digits: String) -> Option<Self> {
        let valid = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.make_ascii_lowercase();
        valid.then_some(Self(digits))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_usual_spellings_mean_the_same() {
        let plain = "0123456789abcdef".repeat(4);
        let colons = plain
            .to_uppercase()
            .as_bytes()
            .chunks(2)
            .map(|pair| String::from_utf8(pair.to_vec()).unwrap())
            .collect::<Vec<_>>()
            .join(":");
        assert_eq!(Fingerprint::parse(&plain).unwrap().to_string(), plain);
        assert_eq!(Fingerprint::parse(&colons), Fingerprint::parse(&plain));
    }

    #[test]
    fn anything_else_is_refused() {
        let digits = "ab".repeat(32);
        for text in [
            String::new(),
            "ab".repeat(20),
            "ab".repeat(33),
            format!("{}'", "a".repeat(63)),
            format!("{}é", "a".repeat(62)),
            format!("{} ", "a".repeat(63)),
            format!("sha256:{digits}"),
            format!("{digits}\n"),
            format!(":{}", "a:".repeat(47)),
            ":".repeat(95),
            format!("{}:{}", "a".repeat(47), "b".repeat(47)),
            format!("{}g", "a".repeat(63)),
        ] {
            assert_eq!(Fingerprint::parse(&text), None, "{text:?}");
        }
    }
}
