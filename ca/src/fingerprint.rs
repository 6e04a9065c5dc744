//! The fingerprint of a certificate: SHA-256 of its DER, as `openssl x509 -fingerprint -sha256`
//! prints it.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;

use crate::hex;

const SHA256_BYTES: usize = 32;

/// SHA-256 of a certificate's DER. Displayed as `AB:CD:…`; parsed with or without colons, in either
/// case.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Fingerprint([u8; SHA256_BYTES]);

/// What was given is not a SHA-256 fingerprint.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a fingerprint is 64 hexadecimal digits, with or without colons between the bytes")]
pub struct FingerprintError;

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        let sum = digest::digest(&digest::SHA256, der);
        let mut bytes = [0; SHA256_BYTES];
        bytes.iter_mut().zip(sum.as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    /// The 32 bytes of the sum.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02X}")?;
        }
        Ok(())
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = if text.contains(':') { without_colons(text)? } else { text.to_owned() };
        let bytes = hex::decode(&digits).ok_or(FingerprintError)?;
        bytes.try_into().map(Self).map_err(|_| FingerprintError)
    }
}

/// `AB:CD` to `ABCD`; colons stand between bytes and nowhere else.
fn without_colons(text: &str) -> Result<String, FingerprintError> {
    let bytes: Vec<_> = text.split(':').collect();
    if bytes.iter().any(|byte| byte.len() != 2) {
        return Err(FingerprintError);
    }
    Ok(bytes.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_and_read_back() {
        let fingerprint = Fingerprint::of(b"abc");
        let shown = fingerprint.to_string();
        // The SHA-256 test vector of FIPS 180-2 for "abc".
        assert!(shown.starts_with("BA:78:16:BF:8F:01:CF:EA:"), "{shown}");
        let plain = shown.replace(':', "");
        for text in [&shown, &shown.to_lowercase(), &plain, &plain.to_lowercase()] {
            assert_eq!(text.parse(), Ok(fingerprint));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let shown = Fingerprint::of(b"abc").to_string();
        let short = shown.get(3..).unwrap();
        let swapped = shown.replacen("BA:78", "BA7:8", 1);
        for text in ["", ":", "zz", short, &swapped, &format!("{shown}:")] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text:?}");
        }
    }
}
