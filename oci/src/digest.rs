//! Digests: the names of objects.

use std::fmt;
use std::str::FromStr;

use crate::Hasher;

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
    pub(crate) fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => bytes.try_into().ok().map(Value::Sha256),
            Algorithm::Sha512 => bytes.try_into().ok().map(Value::Sha512),
        }
        .map(Self)
    }

    /// The digest of `algorithm` whose digits are `hex`.
    pub(crate) fn from_hex(algorithm: Algorithm, hex: &str) -> Result<Self, DigestError> {
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

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    encode_onto(&mut text, bytes);
    text
}

fn encode_onto(text: &mut String, bytes: &[u8]) {
    let digit =
        |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble });
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 0xf));
    }
}

/// The bytes behind lower-case hexadecimal digits.
pub(crate) fn decode(hex: &str) -> Option<Vec<u8>> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
            _ => None,
        })
        .collect()
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
