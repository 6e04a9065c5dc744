//! Who fetches what, and for whom: of each object there is one download at a time.
//!
//! An entry lasts from the question to the registry until the object is on record and has its name.
//! So each state of an object has one question: *in flight*, is it fetched for this place; *kept*, is
//! it on record there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use entrepot_oci::Digest;

use super::access::Place;
use super::identity::Identity;

/// For which repository, and as whom.
type Purpose = (Place, Identity);

/// The objects that are being fetched; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Fetching(Arc<Mutex<HashMap<Digest, Arc<Purpose>>>>);

/// Keeps an entry in [`Fetching`] until it is dropped.
pub(super) struct Fetch {
    fetching: Fetching,
    digest: Digest,
    purpose: Arc<Purpose>,
}

impl Fetching {
    /// Notes that `digest`, which the caller has reserved, is being fetched.
    pub(super) fn begin(&self, digest: Digest, place: Place, identity: Identity) -> Fetch {
        let purpose = Arc::new((place, identity));
        self.lock().insert(digest, purpose.clone());
        Fetch { fetching: self.clone(), digest, purpose }
    }

    /// Whether `digest` is being fetched for `place`.
    pub(super) fn is_for(&self, digest: &Digest, place: &Place) -> bool {
        self.lock().get(digest).is_some_and(|purpose| purpose.0 == *place)
    }

    /// Whether `digest` is being fetched for another repository, or as somebody else: the registry's
    /// answer may be another then, and come when it likes.
    pub(super) fn is_for_others(
        &self,
        digest: &Digest,
        place: &Place,
        identity: &Identity,
    ) -> bool {
        let is_own = |purpose: &Purpose| purpose.0 == *place && purpose.1 == *identity;
        self.lock().get(digest).is_some_and(|purpose| !is_own(purpose))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Purpose>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let mut fetching = self.fetching.lock();
        // A later download of the same digest has an entry of its own.
        if fetching.get(&self.digest).is_some_and(|it| Arc::ptr_eq(it, &self.purpose)) {
            fetching.remove(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_fetched_for_one_repository_as_somebody() {
        let fetching = Fetching::default();
        let digest = Digest::of(entrepot_oci::Algorithm::Sha256, b"x");
        let at = |text: &str| Place {
            registry: entrepot_oci::Registry::at(&text.parse().unwrap()),
            repository: "a/b".parse().unwrap(),
        };
        let (ghcr, evil) = (at("ghcr.io:443"), at("evil.example:443"));
        assert!(!fetching.is_for_others(&digest, &evil, &Identity::Shared));
        let first = fetching.begin(digest, ghcr.clone(), Identity::Shared);
        assert!(fetching.is_for(&digest, &ghcr) && !fetching.is_for(&digest, &evil));
        assert!(fetching.is_for_others(&digest, &evil, &Identity::Shared));
        assert!(!fetching.is_for_others(&digest, &ghcr, &Identity::Shared));
        let second = fetching.begin(digest, ghcr.clone(), Identity::Shared);
        drop(first);
        assert!(fetching.is_for(&digest, &ghcr), "the second is still there");
        drop(second);
        assert!(!fetching.is_for(&digest, &ghcr));
    }
}
