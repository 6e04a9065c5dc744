//! What registries say of how often they may still be asked.

use std::time::{Duration, SystemTime};

use entrepot_oci::Registry;
use http::{HeaderMap, header};
use moka::sync::Cache;

use super::fields::text;
use super::identity::Identity;
use crate::memory::{Shares, table};

/// The longest source that is kept: an address, or a user's name.
const LONGEST_SOURCE: usize = 256;

/// A quota, as a registry told of it last (`ratelimit-limit: 100;w=21600`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Pulls that are left.
    pub remaining: u64,
    /// Pulls in a window, if it is told.
    pub limit: Option<u64>,
    /// The window in seconds, if it is told.
    pub window_secs: Option<u64>,
    /// Whose quota it is: an address or a user (`docker-ratelimit-source`).
    pub source: Option<String>,
    /// When this was told.
    pub told: SystemTime,
}

impl Quota {
    /// When a window has passed since this was told, if it has one.
    #[must_use]
    pub(crate) fn whole_again(&self) -> Option<SystemTime> {
        self.told.checked_add(Duration::from_secs(self.window_secs?))
    }

    /// What was told longer ago than its window tells nothing.
    fn is_current(&self) -> bool {
        let age = self.told.elapsed().ok();
        age.is_some_and(|age| self.window_secs.is_none_or(|window| age.as_secs() < window))
    }
}

/// The quotas of all.
pub(crate) struct Quotas(Cache<(Registry, Identity), Quota>);

impl Quotas {
    /// Nothing is known yet.
    pub(crate) fn new(shares: Shares) -> Self {
        let weight = |key: &(Registry, Identity), quota: &Quota| {
            key.0.as_str().len() + quota.source.as_ref().map_or(0, String::len)
        };
        Self(table(shares.small_table(), weight).build())
    }

    /// Notes what an answer tells, if it tells anything.
    pub(crate) fn note(&self, registry: &Registry, identity: &Identity, headers: &HeaderMap) {
        if let Some(quota) = read(headers) {
            self.0.insert((registry.clone(), identity.clone()), quota);
        }
    }

    /// Pulls that are left to somebody, where the registry counts them.
    pub(crate) fn remaining(&self, registry: &Registry, identity: &Identity) -> Option<u64> {
        self.of(registry, identity).map(|quota| quota.remaining)
    }

    /// What is known of somebody's quota.
    pub(crate) fn of(&self, registry: &Registry, identity: &Identity) -> Option<Quota> {
        self.0.get(&(registry.clone(), identity.clone())).filter(Quota::is_current)
    }

    /// The proxy's own quota at each registry.
    pub(crate) fn shared(&self) -> Vec<(Registry, Quota)> {
        let ours = self.0.iter().filter(|(key, _)| key.1 == Identity::Shared);
        let current = ours.filter(|(_, quota)| quota.is_current());
        current.map(|(key, quota)| (key.0.clone(), quota)).collect()
    }
}

/// Whether an answer tells of a quota.
pub(super) fn tells(headers: &HeaderMap) -> bool {
    headers.contains_key("ratelimit-remaining") || headers.contains_key("ratelimit-limit")
}

/// What an answer tells.
pub(super) fn read(headers: &HeaderMap) -> Option<Quota> {
    let (remaining, window) = counted(text(headers, "ratelimit-remaining")?)?;
    let limit = text(headers, "ratelimit-limit").and_then(counted);
    let source = text(headers, header::HeaderName::from_static("docker-ratelimit-source"));
    Some(Quota {
        remaining,
        limit: limit.map(|(limit, _)| limit),
        window_secs: window.or(limit.and_then(|(_, window)| window)),
        source: source.map(shortened),
        told: SystemTime::now(),
    })
}

/// The beginning of a source: whoever has more to say there says something else.
fn shortened(source: &str) -> String {
    let end = source.floor_char_boundary(LONGEST_SOURCE);
    source.get(..end).unwrap_or_default().to_owned()
}

/// `100;w=21600`.
fn counted(value: &str) -> Option<(u64, Option<u64>)> {
    let mut parts = value.split(';').map(str::trim);
    let count = parts.next()?.parse().ok()?;
    let window = parts.find_map(|part| part.strip_prefix("w=")?.parse().ok());
    Some((count, window))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn told(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (header::HeaderName::from_static(name), HeaderValue::from_static(value))
            })
            .collect()
    }

    #[test]
    fn a_quota_is_read_as_the_hub_tells_it() {
        let quota = read(&told(&[
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-remaining", "20;w=21600"),
            ("docker-ratelimit-source", "192.0.2.1"),
        ]))
        .unwrap();
        assert_eq!((quota.remaining, quota.limit), (20, Some(100)));
        assert_eq!(quota.window_secs, Some(21600));
        assert_eq!(quota.source.as_deref(), Some("192.0.2.1"));
        let mut long = told(&[("ratelimit-remaining", "20")]);
        let source = HeaderValue::from_str(&"x".repeat(400_000)).unwrap();
        long.insert("docker-ratelimit-source", source);
        assert_eq!(read(&long).unwrap().source.map(|source| source.len()), Some(LONGEST_SOURCE));
        assert!(read(&told(&[("ratelimit-remaining", "many")])).is_none());
        assert!(read(&HeaderMap::new()).is_none(), "not limited");
    }

    #[test]
    fn quotas_are_each_their_own() {
        let quotas = Quotas::new(Shares::new(Some(0)));
        let registry = Registry::at(&"registry-1.docker.io:443".parse().unwrap());
        quotas.note(&registry, &Identity::Shared, &told(&[("ratelimit-remaining", "3;w=60")]));
        assert_eq!(quotas.remaining(&registry, &Identity::Shared), Some(3));
        let other = Registry::at(&"ghcr.io:443".parse().unwrap());
        assert_eq!(quotas.remaining(&other, &Identity::Shared), None);
        assert_eq!(quotas.shared().len(), 1);
        let over = told(&[("ratelimit-remaining", "3;w=0")]);
        quotas.note(&registry, &Identity::Shared, &over);
        assert_eq!(quotas.remaining(&registry, &Identity::Shared), None);
        assert!(quotas.shared().is_empty(), "its window is over");
    }
}
