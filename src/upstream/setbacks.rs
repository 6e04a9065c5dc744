//! Addresses that have failed lately, to be tried after those that have not.
//!
//! No judgement on a host: whoever has one address alone is asked there all the same.

use std::net::SocketAddr;
use std::time::Duration;

use moka::sync::Cache;

/// How long an address goes last: a machine that is taken out of service is back, or out of the
/// name's addresses, after some minutes.
const LASTING: Duration = Duration::from_mins(5);
/// Addresses remembered: all the registries' in use, several times over.
const MAX_ADDRESSES: u64 = 1024;

/// Remembers addresses; clones share what they know.
#[derive(Debug, Clone)]
pub(crate) struct Setbacks(Cache<SocketAddr, ()>);

impl Default for Setbacks {
    fn default() -> Self {
        let lru = moka::policy::EvictionPolicy::lru();
        let cache = Cache::builder().max_capacity(MAX_ADDRESSES).eviction_policy(lru);
        Self(cache.time_to_live(LASTING).build())
    }
}

impl Setbacks {
    /// This address has failed, or was overtaken by one that was tried after it.
    pub(crate) fn note(&self, address: SocketAddr) {
        tracing::debug!(%address, "an upstream's address is tried last for a while");
        self.0.insert(address, ());
    }

    /// This address is well.
    pub(super) fn forget(&self, address: SocketAddr) {
        self.0.invalidate(&address);
    }

    /// Whether it has failed lately.
    #[must_use]
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        self.0.contains_key(&address)
    }
}
