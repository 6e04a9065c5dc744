//! Which registry an authority stands for.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::host::{Authority, HTTPS_PORT, Host, is_hub_name};

/// The Hub's identity.
const HUB: &str = "docker.io";
/// The host that speaks for it.
const HUB_API: &str = "registry-1.docker.io";

/// A registry's identity: what the store files its records under and what the log prints.
///
/// The Hub has several host names and one identity, `docker.io`; every other registry is its
/// host, with the port where that is not 443. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Registry(Arc<str>);

impl Registry {
    /// The identity of the registry at `authority`.
    #[must_use]
    pub fn at(authority: &Authority) -> Self {
        match authority.host() {
            Host::Name(name) if is_hub_name(name) && authority.port() == HTTPS_PORT => {
                Self(HUB.into())
            }
            Host::Name(name) if authority.port() == HTTPS_PORT => Self(name.clone()),
            _ => Self(authority.to_host_field(HTTPS_PORT).into()),
        }
    }

    /// Whom to ask for this registry's content when a client asked `authority`: of the Hub's names
    /// only one is the API's, others lead to its web site.
    #[must_use]
    pub fn authority(&self, asked: &Authority) -> Authority {
        if self.is_hub() {
            Authority::new(Host::Name(HUB_API.into()), HTTPS_PORT)
        } else {
            asked.clone()
        }
    }

    /// Whether it is Docker Hub.
    #[must_use]
    pub fn is_hub(&self) -> bool {
        &*self.0 == HUB
    }

    /// `docker.io`, `ghcr.io`, `registry.corp:5000`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Not a registry's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a registry's name: host or host:port in lower case, without the port where it is 443")]
pub struct RegistryError;

impl FromStr for Registry {
    type Err = RegistryError;

    /// Reads what [`as_str`](Self::as_str) gives, and nothing else: `docker.io`, but none of the
    /// Hub's other names.
    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let authority = Authority::parse(text, HTTPS_PORT).map_err(|_| RegistryError)?;
        let registry = Self::at(&authority);
        if registry.as_str() == text { Ok(registry) } else { Err(RegistryError) }
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RepositoryName;
    use proptest::prelude::*;

    #[test]
    fn an_identity_is_read_as_it_is_written() {
        for good in ["docker.io", "ghcr.io", "registry.corp:5000", "[::1]:5000", "localhost:5000"] {
            assert_eq!(good.parse::<Registry>().unwrap().as_str(), good);
        }
        let bad = [
            "",
            ".",
            "..",
            "/",
            "a/b",
            "../a",
            "GHCR.io",
            "ghcr.io:443",
            "registry-1.docker.io",
            "a:",
            "a:0",
            "a:05",
            "a b",
            "[::1",
            "_contents/x",
            "a\0",
            "[0:0:0:0:0:0:0:1]:5000",
        ];
        for bad in bad {
            assert_eq!(bad.parse::<Registry>(), Err(RegistryError), "{bad:?}");
        }
    }

    #[test]
    fn the_hub_is_one_registry_under_all_its_names() {
        let name = |text| Registry::at(&Authority::parse_with_port(text).unwrap()).to_string();
        assert_eq!(name("registry-1.docker.io:443"), "docker.io");
        assert_eq!(name("index.docker.io:443"), "docker.io");
        let web = Authority::parse_with_port("docker.io:443").unwrap();
        assert_eq!(Registry::at(&web).authority(&web).to_string(), "registry-1.docker.io:443");
        let other = Authority::parse_with_port("ghcr.io:443").unwrap();
        assert_eq!(Registry::at(&other).authority(&other), other);
        assert_eq!(name("registry-1.docker.io:5000"), "registry-1.docker.io:5000");
        assert_eq!(name("ghcr.io:443"), "ghcr.io");
        assert_eq!(name("registry.corp:5000"), "registry.corp:5000");
        assert_eq!(name("[::1]:5000"), "[::1]:5000");
    }

    proptest! {
        /// Stores file records under these names: each is one plain part of a path, and no
        /// record's.
        #[test]
        fn names_are_plain_path_parts(
            registry in "[a-z.:/_\\[\\]0-9-]{1,12}",
            name in "[a-z./_-]{1,12}",
        ) {
            if let Ok(registry) = registry.parse::<Registry>() {
                prop_assert!(!registry.as_str().contains('/'));
                prop_assert!(!registry.as_str().starts_with('.'));
            }
            if let Ok(name) = name.parse::<RepositoryName>() {
                for part in name.as_str().split('/') {
                    prop_assert!(!part.is_empty() && !part.starts_with(['.', '_', '-']));
                }
            }
        }
    }
}
