//! Repository names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest repository name taken. The specification lets a registry limit `host/name` to 255
/// characters; so do all that we know.
const MAX_LENGTH: usize = 255;

/// Not a repository name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a repository name: lower-case components of letters, digits and single separators")]
pub struct NameError;

/// A repository's name within its registry (`library/alpine`). Cheap to clone.
///
/// OCI distribution specification, "Pulling manifests":
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// The name as it stands in a URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let valid = text.len() <= MAX_LENGTH && text.split('/').all(is_component);
        if valid { Ok(Self(text.into())) } else { Err(NameError) }
    }
}

/// Runs of letters and digits with `.`, `_`, `__` or any number of `-` between them.
fn is_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    component.starts_with(alphanumeric)
        && component.ends_with(alphanumeric)
        && component.split(alphanumeric).all(|between| {
            matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-')
        })
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_specification() {
        for good in ["alpine", "library/alpine", "a/b/c/d", "a.b_c__d-e---f", "0/1", "org/app.v2"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        let bad = [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a/B",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            ".",
            "..",
            "../a",
            "a/../b",
            "_contents",
            "a b",
            "a%2fb",
            "a\0",
            "\u{e9}",
        ];
        for bad in bad {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(256).parse::<RepositoryName>().is_err());
    }
}
