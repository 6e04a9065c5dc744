//! Who is asking a registry for an object that nobody has yet.
//!
//! Whoever wants the same waits for that. But a question is its asker's: in another repository, or to
//! somebody else, the answer may be another, and come when it likes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::access::Place;
use super::identity::Identity;
use crate::oci::Digest;

/// Somebody, somewhere.
type Asker = (Place, Identity);

/// Those who ask; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Leads(Arc<Mutex<HashMap<Digest, Asker>>>);

/// Keeps an asker's entry.
pub(super) struct Lead {
    leads: Leads,
    digest: Digest,
}

impl Leads {
    /// Notes who asks for `digest`, of whom there is one at a time, until the guard is dropped.
    pub(super) fn begin(&self, digest: Digest, place: Place, identity: Identity) -> Lead {
        self.lock().insert(digest, (place, identity));
        Lead { leads: self.clone(), digest }
    }

    /// Whether somebody else asks for it just now, or for another repository.
    pub(super) fn is_anothers(&self, digest: &Digest, place: &Place, identity: &Identity) -> bool {
        let is_own = |asker: &Asker| asker.0 == *place && asker.1 == *identity;
        self.lock().get(digest).is_some_and(|asker| !is_own(asker))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Asker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.leads.lock().remove(&self.digest);
    }
}
