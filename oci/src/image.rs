//! Image names as people type them.

use std::fmt;
use std::str::FromStr;

use super::host::{Authority, HTTPS_PORT};
use super::{Digest, Reference, Registry, RepositoryName, Tag};

/// The registry of a name that names none.
const HUB: &str = "docker.io";
/// The Hub's namespace of images without one.
const OFFICIAL: &str = "library";
/// The tag of a name that has neither tag nor digest.
const DEFAULT_TAG: &str = "latest";

/// Not the name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of an image: {1}")]
pub struct ImageNameError(String, String);

/// The name of an image: `alpine`, `org/app:1.2`, `ghcr.io/org/app@sha256:…`.
///
/// Read as the engines read it (the "familiar names" of the distribution project's reference
/// grammar): the part before the first slash is a registry when it has a dot or a colon or is
/// `localhost`; otherwise the registry is Docker Hub, where a name without a slash lies in
/// `library`. Without tag and digest the tag is `latest`; with both the digest alone counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageName {
    /// Where a request for it goes.
    pub authority: Authority,
    /// Whose it is.
    pub registry: Registry,
    /// Its repository there.
    pub repository: RepositoryName,
    /// Which image of the repository.
    pub reference: Reference,
}

impl FromStr for ImageName {
    type Err = ImageNameError;

    fn from_str(text: &str) -> Result<Self, ImageNameError> {
        parse(text).map_err(|why| ImageNameError(text.to_owned(), why))
    }
}

fn parse(text: &str) -> Result<ImageName, String> {
    if let Some((scheme, _)) = text.split_once("://") {
        // What is no scheme is not repeated: it may be anything.
        let is_scheme = scheme.bytes().all(|b| b.is_ascii_alphanumeric());
        let scheme = if is_scheme { scheme } else { "https" };
        return Err(format!("it is written without {scheme}://"));
    }
    let (host, rest) = match text.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => (HUB, text),
    };
    let authority = Authority::parse(host, HTTPS_PORT).map_err(|error| error.to_string())?;
    let registry = Registry::at(&authority);
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse::<Digest>().map_err(|error| error.to_string())?;
            (rest, Some(digest))
        }
        None => (rest, None),
    };
    let (name, tag) = match rest.split_once(':') {
        Some((name, tag)) => (name, Some(tag.parse::<Tag>().map_err(|error| error.to_string())?)),
        None => (rest, None),
    };
    let repository = if registry.is_hub() && !name.contains('/') {
        format!("{OFFICIAL}/{name}").parse::<RepositoryName>()
    } else {
        name.parse::<RepositoryName>()
    };
    let reference = match (digest, tag) {
        (Some(digest), _) => Reference::Digest(digest),
        (None, Some(tag)) => Reference::Tag(tag),
        (None, None) => DEFAULT_TAG.parse().map(Reference::Tag).map_err(|e| e.to_string())?,
    };
    let repository = repository.map_err(|error| error.to_string())?;
    Ok(ImageName { authority: registry.authority(&authority), registry, repository, reference })
}

/// Whether the first part of a name is a registry's host, rather than a part of the repository.
fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

impl ImageName {
    /// The full name of its repository: `docker.io/library/alpine`.
    #[must_use]
    pub fn full_repository(&self) -> String {
        full_repository(&self.registry, &self.repository)
    }
}

/// The full name of a repository: `docker.io/library/alpine`.
#[must_use]
pub fn full_repository(registry: &Registry, repository: &RepositoryName) -> String {
    // A host of one word needs its port to be taken for one.
    let port = if is_host(registry.as_str()) { "" } else { ":443" };
    format!("{registry}{port}/{repository}")
}

impl fmt::Display for ImageName {
    /// The full name, which means the same everywhere: `docker.io/library/alpine:latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = match self.reference {
            Reference::Tag(_) => ':',
            Reference::Digest(_) => '@',
        };
        write!(f, "{}{between}{}", self.full_repository(), self.reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_the_engines_take_them_for() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (typed, full) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("org/app", "docker.io/org/app:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/library/alpine", "docker.io/library/alpine:latest"),
            ("ghcr.io/org/app:v1", "ghcr.io/org/app:v1"),
            ("quay.io/app", "quay.io/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("registry.corp:5000/a/b/c:x", "registry.corp:5000/a/b/c:x"),
            ("registry:443/app", "registry:443/app:latest"),
            ("registry:5000/app", "registry:5000/app:latest"),
            (&format!("alpine@{digest}"), &format!("docker.io/library/alpine@{digest}")),
            (&format!("ghcr.io/o/a:v1@{digest}"), &format!("ghcr.io/o/a@{digest}")),
        ] {
            let image: ImageName = typed.parse().expect(typed);
            assert_eq!(image.to_string(), full, "{typed}");
            assert_eq!(full.parse::<ImageName>(), Ok(image), "the full name means the same");
        }
        let hub: ImageName = "alpine".parse().expect("a name");
        assert_eq!(hub.authority.to_string(), "registry-1.docker.io:443");
    }

    #[test]
    fn what_is_no_name_is_said_to_be_none() {
        for bad in [
            "",
            ":",
            "@",
            "Alpine",
            "alpine:",
            "alpine:a b",
            "alpine@sha256:abc",
            "https://ghcr.io/org/app",
            "ghcr.io/",
            "ghcr.io//app",
            "a/../b",
            "registry.corp:port/app",
            "alpine:1:2",
            "\u{1b}[31mred\n://x",
        ] {
            let error = bad.parse::<ImageName>().expect_err(bad).to_string();
            assert!(error.contains("not the name of an image"), "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }
}
