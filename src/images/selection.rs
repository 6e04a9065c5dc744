//! Which images are meant.

use std::fmt;
use std::str::FromStr;

use entrepot_oci::{
    ImageName, ImageNameError, ImagePattern, ImagePatternError, Registry, RepositoryName,
    full_repository,
};

/// Images on a page, unless another number is asked for.
const USUAL: usize = 100;
/// Images on a page at most.
pub(crate) const MOST: usize = 1000;

/// A page of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    /// Of this registry alone, as it is named in front of images.
    pub registry: Option<String>,
    /// Which of them.
    pub selection: Selection,
    /// Those behind this name.
    pub after: Option<ImageName>,
    /// So many at most.
    pub limit: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self { registry: None, selection: Selection::All, after: None, limit: USUAL }
    }
}

/// Some images, as a person names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All of them.
    All,
    /// Those whose full names begin so: `ghcr.io/org/`.
    Below(String),
    /// Those of a repository: `alpine`, `ghcr.io/org/app`.
    Repository(ImageName),
    /// One: `alpine:3.20`.
    One(ImageName),
    /// Those whose full names fit: `docker.io/library/*`.
    Pattern(ImagePattern),
}

/// Not a selection of images.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SelectionError {
    /// Not a name.
    #[error(transparent)]
    Name(#[from] ImageNameError),
    /// Not a pattern.
    #[error(transparent)]
    Pattern(#[from] ImagePatternError),
}

impl FromStr for Selection {
    type Err = SelectionError;

    /// What has a `*` or a `?` is a pattern, and what ends with a slash the beginning of a full
    /// name; a name with a tag or a digest is an image's, any other a repository's.
    fn from_str(text: &str) -> Result<Self, SelectionError> {
        if ImagePattern::is_one(text) {
            // What ends with a slash goes on in any way.
            let open = if text.ends_with('/') { "**" } else { "" };
            return Ok(Self::Pattern(format!("{text}{open}").parse()?));
        }
        if text.ends_with('/') {
            return Ok(Self::Below(text.to_owned()));
        }
        let name = text.parse()?;
        Ok(if is_explicit(text) { Self::One(name) } else { Self::Repository(name) })
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("every image"),
            Self::Below(prefix) => f.write_str(prefix),
            Self::Repository(name) => write!(f, "{}/{}", name.registry, name.repository),
            Self::One(name) => name.fmt(f),
            Self::Pattern(pattern) => pattern.fmt(f),
        }
    }
}

/// Whether an image's name has a tag or a digest.
#[must_use]
pub(crate) fn is_explicit(name: &str) -> bool {
    name.rsplit('/').next().unwrap_or_default().contains([':', '@'])
}

impl Selection {
    /// Whether it has images of this repository at all; cheap, before anything is read.
    pub(super) fn may_be_in(&self, registry: &Registry, repository: &RepositoryName) -> bool {
        match self {
            Self::All => true,
            Self::Below(prefix) => {
                let full = full_repository(registry, repository);
                full.starts_with(prefix) || format!("{full}/").starts_with(prefix)
            }
            Self::Repository(name) | Self::One(name) => {
                name.registry == *registry && name.repository == *repository
            }
            Self::Pattern(pattern) => pattern.may_be_in(&full_repository(registry, repository)),
        }
    }

    /// Whether an image of this name is one of them.
    pub(super) fn is(&self, name: &ImageName) -> bool {
        if !self.may_be_in(&name.registry, &name.repository) {
            return false;
        }
        match self {
            Self::All | Self::Below(_) | Self::Repository(_) => true,
            Self::One(one) => one.reference == name.reference,
            Self::Pattern(pattern) => pattern.matches(&name.full_repository(), &name.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selection: &str, name: &str) -> bool {
        let selection: Selection = selection.parse().unwrap();
        let name: ImageName = name.parse().unwrap();
        selection.is(&name)
    }

    #[test]
    fn names_select_as_people_mean_them() {
        for (selection, name, expected) in [
            ("alpine", "alpine:3.20", true),
            ("alpine", "org/alpine:3.20", false),
            ("alpine:3.20", "docker.io/library/alpine:3.20", true),
            ("alpine:3.20", "alpine:3.21", false),
            ("ghcr.io/", "ghcr.io/org/app:1", true),
            ("ghcr.io/org/", "ghcr.io/org/app:1", true),
            ("ghcr.io/or/", "ghcr.io/org/app:1", false),
            ("ghcr.io/org/app/", "ghcr.io/org/app:1", true),
            ("ghcr.io/org/app", "ghcr.io/org/app/x:1", false),
            ("registry.corp:5000/a", "registry.corp:5000/a:1", true),
            ("registry:443/", "registry:443/a:1", true),
            ("docker.io/library/*", "alpine:3.20", true),
            ("alpine:3.*", "alpine:3.20", true),
            ("alpine:3.*", "alpine:4", false),
            ("ghcr.io/*/", "ghcr.io/org/app:1", true),
            ("registry:443/*", "registry:443/a:1", true),
        ] {
            assert_eq!(matches(selection, name), expected, "{selection} {name}");
        }
        for wrong in ["", "Alpine", "https://ghcr.io/a", "a:b:c", "https://*", "a b*"] {
            assert!(wrong.parse::<Selection>().is_err(), "{wrong}");
        }
        assert!(!is_explicit("registry.corp:5000/a") && is_explicit("registry.corp:5000/a:b"));
    }
}
