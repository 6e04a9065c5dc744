//! Digests: the names of objects.

use std::fmt;
use std::str::FromStr;

use crate::Hasher;
use crate::hex::{decode, encode, encode_onto};

/// The length of the longest digest as text.
const LONGEST: usize = "sha512:".len() + 128;

/// A hash algorithm that digests may use (OCI image spec, "Registered algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, which every registry uses.
    Sha256,
    /// SHA-512, registered and rare.
    Sha512,
}

impl Algorithm {
    /// Every algorithm there is.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The name used in digests and as a directory: `sha256` or `sha512`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The number of hexadecimal digits in a digest of this algorithm.
    #[must_use]
    pub const fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not a digest. The text itself is not repeated: it came from a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `algorithm:` in front.
    #[error("a digest has the form algorithm:hex")]
    NoAlgorithm,
    /// The algorithm is none of `sha256` and `sha512`, in lower case.
    #[error("the digest's algorithm is not sha256 or sha512")]
    UnknownAlgorithm,
    /// The number of digits is wrong for the algorithm.
    #[error("a {algorithm} digest has {} hexadecimal digits, not {found}", algorithm.hex_len())]
    Length {
        /// The algorithm that was named.
        algorithm: Algorithm,
        /// How many bytes followed it.
        found: usize,
    },
    /// Something other than `0`–`9` and `a`–`f`.
    #[error("a digest is written in lower-case hexadecimal digits")]
    Digit,
}

/// The digest of an object: `sha256:<64 lower-case hex>` or `sha512:<128 lower-case hex>`.
///
/// The only way in from text is [`FromStr`], which is strict: upper case, a wrong length and any
/// other algorithm are refused, so a `Digest` is always safe as a path. It is small and `Copy`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Value);

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Value {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm in front of the colon.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self.0 {
            Value::Sha256(_) => Algorithm::Sha256,
            Value::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The lower-case hexadecimal digits after the colon.
    #[must_use]
    pub fn hex(&self) -> String {
        encode(self.as_bytes())
    }

    /// The raw hash: 32 or 64 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Value::Sha256(bytes) => bytes,
            Value::Sha512(bytes) => bytes,
        }
    }

    /// The digest that a hasher of `algorithm` computed.
    pub(crate) fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => Value::Sha256(fixed(hash)),
            Algorithm::Sha512 => Value::Sha512(fixed(hash)),
        })
    }

    /// The digest whose raw hash is `bytes`, if their number is right.
    #[must_use]
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => bytes.try_into().ok().map(Value::Sha256),
            Algorithm::Sha512 => bytes.try_into().ok().map(Value::Sha512),
        }
        .map(Self)
    }

    /// The digest of `algorithm` whose digits are `hex`.
    pub fn from_hex(algorithm: Algorithm, hex: &str) -> Result<Self, DigestError> {
        let found = hex.len();
        if found != algorithm.hex_len() {
            return Err(DigestError::Length { algorithm, found });
        }
        let bytes = decode(hex).ok_or(DigestError::Digit)?;
        Self::from_bytes(algorithm, &bytes).ok_or(DigestError::Length { algorithm, found })
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, hex) = text.split_once(':').ok_or(DigestError::NoAlgorithm)?;
        let algorithm = Algorithm::from_name(name).ok_or(DigestError::UnknownAlgorithm)?;
        Self::from_hex(algorithm, hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(LONGEST);
        text.push_str(self.algorithm().as_str());
        text.push(':');
        encode_onto(&mut text, self.as_bytes());
        f.pad(&text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `bytes`, whose number the hash algorithm guarantees, as an array.
fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    debug_assert_eq!(bytes.len(), N);
    let mut array = [0; N];
    for (to, from) in array.iter_mut().zip(bytes) {
        *to = *from;
    }
    array
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn known_hashes() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").to_string(), EMPTY);
        let abc = Digest::of(Algorithm::Sha512, b"abc");
        assert!(abc.hex().starts_with("ddaf35a193617abacc417349ae204131"));
        assert_eq!(abc.hex().len(), Algorithm::Sha512.hex_len());
    }

    #[test]
    fn only_strict_digests_are_parsed() {
        let hex = &EMPTY[7..];
        let refused = [
            ("", DigestError::NoAlgorithm),
            (hex, DigestError::NoAlgorithm),
            (":", DigestError::UnknownAlgorithm),
            (&format!(":{hex}"), DigestError::UnknownAlgorithm),
            (&format!("sha384:{hex}"), DigestError::UnknownAlgorithm),
            (&format!("md5:{hex}"), DigestError::UnknownAlgorithm),
            (&format!("SHA256:{hex}"), DigestError::UnknownAlgorithm),
            (&format!(" sha256:{hex}"), DigestError::UnknownAlgorithm),
            (&format!("sha256+b64:{hex}"), DigestError::UnknownAlgorithm),
            (&EMPTY.to_uppercase().replace("SHA", "sha"), DigestError::Digit),
            (&EMPTY.replace("e3b0", "E3b0"), DigestError::Digit),
            (&EMPTY.replace("e3b0", "g3b0"), DigestError::Digit),
            (&EMPTY.replace("e3b0", "../.")[..EMPTY.len()], DigestError::Digit),
            (&EMPTY.replace("e3b0", "%2e0"), DigestError::Digit),
            (&EMPTY.replace("e3b0", "\0\0\0\0"), DigestError::Digit),
            (&EMPTY.replace("e3b0", "éé"), DigestError::Digit),
            (&EMPTY[..70], length(Algorithm::Sha256, 63)),
            (&format!("{EMPTY}0"), length(Algorithm::Sha256, 65)),
            (&format!("{EMPTY} "), length(Algorithm::Sha256, 65)),
            (&format!("sha512:{hex}"), length(Algorithm::Sha512, 64)),
            ("sha256:", length(Algorithm::Sha256, 0)),
            ("sha256:../../../etc/passwd", length(Algorithm::Sha256, 19)),
            (&format!("sha256:{}", "0".repeat(10_000)), length(Algorithm::Sha256, 10_000)),
        ];
        for (text, error) in refused {
            assert_eq!(text.parse::<Digest>(), Err(error), "{text:?}");
        }
    }

    fn length(algorithm: Algorithm, found: usize) -> DigestError {
        DigestError::Length { algorithm, found }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_parsed(content: Vec<u8>, long: bool) {
            let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let digest = Digest::of(algorithm, &content);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        }

        #[test]
        fn what_is_parsed_is_shown(text in "(sha256|sha512|sha1)?:?[0-9a-fA-F./]{60,130}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }

        #[test]
        fn order_is_that_of_the_text(one: [u8; 4], other: [u8; 4]) {
            let (one, other) =
                (Digest::of(Algorithm::Sha256, &one), Digest::of(Algorithm::Sha256, &other));
            prop_assert_eq!(one.cmp(&other), one.to_string().cmp(&other.to_string()));
        }
    }
}
