//! The cache of leaves: one a host, bounded, renewed at half life.

use std::sync::Arc;

use moka::Entry;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use crate::error::LeafError;
use crate::host::Host;
use crate::mint::{Leaf, Minter};
use crate::validity::Moment;

/// Far more than there are registries; at about 1.5 KB each, the whole is under 2 MB.
const CAPACITY: u64 = 1024;

/// Leaves that were signed, by host. Shared between threads; callers for one host wait for one
/// signature.
pub(crate) struct Leaves {
    minter: Minter,
    cache: Cache<Host, Leaf>,
}

impl Leaves {
    pub(crate) fn new(minter: Minter) -> Self {
        // Not the default policy: it would refuse a new host entry while old ones are popular.
        let cache =
            Cache::builder().max_capacity(CAPACITY).eviction_policy(EvictionPolicy::lru()).build();
        Self { minter, cache }
    }

    /// The leaf for `host`, signed now if there is none or it is past half its life.
    pub(crate) fn get(
        &self,
        host: &Host,
        now: OffsetDateTime,
    ) -> Result<Arc<CertifiedKey>, LeafError> {
        if let Some(leaf) = self.cache.get(host)
            && self.is_fresh(&leaf, now)
        {
            return Ok(leaf.certified);
        }
        self.renew(host, now)
    }

    fn renew(&self, host: &Host, now: OffsetDateTime) -> Result<Arc<CertifiedKey>, LeafError> {
        let computed = self.cache.entry(host.clone()).and_try_compute_with(|entry| match entry
            .map(Entry::into_value)
        {
            Some(leaf) if self.is_fresh(&leaf, now) => Ok(Op::Nop),
            Some(_) | None => self.minter.mint(host, now).map(Op::Put),
        })?;
        let leaf = match computed.into_entry() {
            Some(entry) => entry.into_value(),
            None => self.minter.mint(host, now)?,
        };
        Ok(leaf.certified)
    }

    /// Before half its life, and not before its start, as when the clock was set back. A leaf that
    /// ends with the CA can't be bettered, so it is used to its end.
    fn is_fresh(&self, leaf: &Leaf, now: OffsetDateTime) -> bool {
        let ends_with_authority = leaf.validity.not_after == self.minter.validity().not_after;
        leaf.validity.place(now) == Moment::Within
            && (ends_with_authority || now < leaf.validity.half_life())
    }

    /// How many leaves are kept, exactly.
    #[cfg(test)]
    pub(crate) fn count(&self) -> u64 {
        self.cache.run_pending_tasks();
        self.cache.entry_count()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustls_pki_types::CertificateDer;
    use time::Duration;

    use super::*;
    use crate::certificate::Chain;
    use crate::options::Options;
    use crate::{key, root};

    fn leaves() -> (Leaves, OffsetDateTime) {
        let now =
            OffsetDateTime::from_unix_timestamp(Options::default().clock.now().unix_timestamp());
        let now = now.unwrap();
        let root = root::generate(&Options::default()).unwrap();
        let path = Path::new("ca.crt");
        let chain = Chain::parse(path, root.certificate_pem.as_bytes()).unwrap();
        let key = key::parse(root.key_pem.as_bytes(), None).unwrap();
        (Leaves::new(Minter::new(path, &chain, key, now).unwrap()), now)
    }

    fn get(leaves: &Leaves, host: &str, now: OffsetDateTime) -> CertificateDer<'static> {
        let certified = leaves.get(&Host::Dns(host.to_owned()), now).unwrap();
        certified.cert.first().unwrap().clone()
    }

    #[test]
    fn a_leaf_is_kept_to_half_life_then_renewed() {
        let (leaves, now) = leaves();
        let first = get(&leaves, "ghcr.io", now);
        // Seven days from an hour ago: half is over in 83 hours.
        let half = now + Duration::hours(83);
        assert_eq!(get(&leaves, "ghcr.io", half - Duration::SECOND), first);
        let second = get(&leaves, "ghcr.io", half);
        assert_ne!(second, first);
        assert_eq!(get(&leaves, "ghcr.io", half), second);
    }

    #[test]
    fn a_clock_that_was_set_back_gets_a_leaf_that_has_begun() {
        let (leaves, now) = leaves();
        let first = get(&leaves, "ghcr.io", now);
        assert_eq!(get(&leaves, "ghcr.io", now - Duration::hours(1)), first);
        assert_ne!(get(&leaves, "ghcr.io", now - Duration::hours(2)), first);
    }

    #[test]
    fn near_the_authoritys_end_leaves_end_with_it_and_are_not_renewed() {
        let (leaves, _) = leaves();
        let end = leaves.minter.validity().not_after;
        let last = get(&leaves, "ghcr.io", end - Duration::hours(3));
        assert_eq!(get(&leaves, "ghcr.io", end), last);
        let after = leaves.get(&Host::Dns("ghcr.io".to_owned()), end + Duration::SECOND);
        assert!(matches!(after, Err(LeafError::OutsideValidity { .. })));
    }

    #[test]
    fn the_cache_is_bounded_and_forgets_the_least_recently_used() {
        let (leaves, now) = leaves();
        let favourite = get(&leaves, "favourite.example", now);
        for index in 0..CAPACITY + 500 {
            get(&leaves, &format!("{index}.example"), now);
            assert_eq!(get(&leaves, "favourite.example", now), favourite);
        }
        assert_eq!(leaves.count(), CAPACITY);
    }
}
