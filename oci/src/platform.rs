//! Platforms of images: `linux/amd64`, `linux/arm/v7`.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// The longest word that a document may have in a platform; known ones are half as long.
const LONGEST: usize = 32;

/// Not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a platform: expected os/architecture[/variant], as linux/arm64")]
pub struct PlatformError(String);

/// What an image is for (OCI image specification, "Image Index": `platform`).
///
/// Names are Go's, and those of `uname` are taken for them. A variant that means no more than its
/// architecture alone (`amd64/v1`, `arm64/v8`) is left out, as containerd does.
///
/// Read from a document it is shown to people although a stranger wrote it: what is no word there
/// is `unknown`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "Described")]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// The platform of this name, in the usual words.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let lower = str::to_ascii_lowercase;
        let (os, architecture) = (lower(os), lower(architecture));
        let variant = variant.map(lower).filter(|variant| !variant.is_empty());
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("x86_64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64", _) => ("amd64", variant),
            ("aarch64" | "arm64", None | Some("v8")) => ("arm64", None),
            ("aarch64", _) => ("arm64", variant),
            ("armhf", _) | ("arm", None) => ("arm", Some("v7".to_owned())),
            ("x86" | "i386", _) => ("386", variant),
            ("loongarch64", _) => ("loong64", variant),
            (other, _) => (other, variant),
        };
        Self { os, architecture: architecture.to_owned(), variant }
    }

    /// This machine's.
    #[must_use]
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => other,
        };
        Self::new("linux", architecture, None)
    }

    /// Whether it is one at all: what is attached to an image (signatures, provenance) stands in an
    /// index as `unknown/unknown`.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.os != "unknown" && self.architecture != "unknown"
    }

    /// Which of `offered` runs best here: the same variant, else the newest older one. The first of
    /// several alike.
    #[must_use]
    pub fn choose<'a, T>(&self, offered: impl Iterator<Item = (&'a Self, T)>) -> Option<T> {
        let fitting = offered.filter_map(|(one, what)| Some((self.fitness(one)?, what)));
        let best = fitting.reduce(|best, next| if next.0 > best.0 { next } else { best });
        best.map(|(_, what)| what)
    }

    fn fitness(&self, offered: &Self) -> Option<u32> {
        if (&self.os, &self.architecture) != (&offered.os, &offered.architecture) {
            return None;
        }
        if self.variant == offered.variant {
            return Some(u32::MAX);
        }
        let (most, its) = (self.generation()?, offered.generation()?);
        (its < most).then_some(its)
    }

    /// The number in its variant.
    fn generation(&self) -> Option<u32> {
        match (&self.variant, self.architecture.as_str()) {
            (Some(variant), _) => variant.strip_prefix('v')?.parse().ok(),
            (None, "amd64") => Some(1),
            (None, "arm64") => Some(8),
            (None, _) => None,
        }
    }
}

/// A platform as documents have it: in an index beside each manifest, and in an image's
/// configuration.
#[derive(Deserialize)]
struct Described {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

impl From<Described> for Platform {
    fn from(Described { os, architecture, variant }: Described) -> Self {
        let is_word = |word: &String| word.len() <= LONGEST && is_word(word);
        let is_named = !os.is_empty() && !architecture.is_empty();
        if is_named && [&os, &architecture].into_iter().chain(&variant).all(is_word) {
            Self::new(&os, &architecture, variant.as_deref())
        } else {
            Self::new("unknown", "unknown", None)
        }
    }
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let bad = || PlatformError(text.to_owned());
        let parts: Vec<_> = text.split('/').collect();
        if !parts.iter().all(|part| !part.is_empty() && is_word(part)) {
            return Err(bad());
        }
        match parts.as_slice() {
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().expect(text)
    }

    #[test]
    fn one_platform_has_one_name() {
        for (typed, name) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("Linux/aarch64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(platform(typed).to_string(), name, "{typed}");
        }
        for bad in ["", "amd64", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b", "linux//v7"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
        assert!(Platform::here().to_string().starts_with("linux/"));
    }

    #[test]
    fn the_best_that_runs_is_chosen() {
        let choose = |wanted: &str, offered: &[&str]| {
            let parsed: Vec<_> = offered.iter().map(|one| platform(one)).collect();
            platform(wanted).choose(parsed.iter().enumerate().map(|(n, one)| (one, n)))
        };
        assert_eq!(choose("linux/amd64", &["linux/arm64", "linux/amd64", "linux/amd64"]), Some(1));
        assert_eq!(choose("linux/amd64", &["linux/amd64/v2", "windows/amd64"]), None);
        assert_eq!(choose("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2"]), Some(1));
        assert_eq!(
            choose("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"]),
            Some(1)
        );
        assert_eq!(choose("linux/arm64", &["linux/arm64/v8"]), Some(0));
        assert_eq!(choose("linux/s390x", &["linux/s390x"]), Some(0));
        assert_eq!(choose("linux/s390x", &[]), None);
    }
}
