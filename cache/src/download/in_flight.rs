//! Who is downloading what: at most one of a digest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use entrepot_oci::Digest;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::origin::Origin;
use crate::bytes::object::Object;
use crate::disk::DiskFile;

/// The digests that are reserved or being downloaded.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    table: Mutex<HashMap<Digest, Slot>>,
}

#[derive(Debug)]
struct Slot {
    occupant: Occupant,
    /// Told whenever there is another occupant, and at the end.
    changed: Arc<Notify>,
}

#[derive(Debug)]
enum Occupant {
    /// A permit was given: its holder is about to look at the disk or to begin, or is just ending.
    Reserved,
    Filling(Arc<Object>),
}

/// A download under way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Download {
    /// What is being downloaded.
    pub digest: Digest,
    /// The registry that it comes from.
    pub origin: String,
    /// How many bytes readers can see: nearly all that have come.
    pub available: u64,
    /// The size of the whole object in bytes, where the upstream has told it.
    pub total: Option<u64>,
}

/// What [`InFlight::join`] found.
pub(crate) enum Joined {
    /// The digest was free, and is now the caller's.
    Lead(Permit),
    Follow(Arc<Object>),
    /// The digest is reserved. Ask again when this resolves.
    Wait(OwnedNotified),
}

/// The right to download one digest. Dropping it gives the digest free and wakes those that wait.
#[derive(Debug)]
pub(crate) struct Permit {
    in_flight: Arc<InFlight>,
    digest: Digest,
    origin: Origin,
}

impl InFlight {
    pub(crate) fn join(self: &Arc<Self>, digest: &Digest, origin: &Origin) -> Joined {
        match self.table.lock().entry(*digest) {
            Entry::Occupied(slot) => match &slot.get().occupant {
                Occupant::Filling(object) => Joined::Follow(Arc::clone(object)),
                Occupant::Reserved => Joined::Wait(slot.get().told()),
            },
            Entry::Vacant(slot) => {
                slot.insert(Slot { occupant: Occupant::Reserved, changed: Arc::default() });
                let (in_flight, origin) = (Arc::clone(self), origin.clone());
                Joined::Lead(Permit { in_flight, digest: *digest, origin })
            }
        }
    }

    /// Reserves the digest if it is free: until the permit is dropped no download of it can begin.
    pub(crate) fn reserve(self: &Arc<Self>, digest: &Digest) -> Option<Permit> {
        match self.join(digest, &Origin::new("")) {
            Joined::Lead(permit) => Some(permit),
            Joined::Follow(_) | Joined::Wait(_) => None,
        }
    }

    /// From now on those who ask for `digest` wait until its permit is dropped, provided that the
    /// download under way is the one that writes to `file`.
    pub(crate) fn hold(&self, digest: &Digest, file: &Arc<DiskFile>) {
        if let Some(slot) = self.table.lock().get_mut(digest)
            && let Occupant::Filling(object) = &slot.occupant
            && Arc::ptr_eq(object.file(), file)
        {
            slot.occupant = Occupant::Reserved;
        }
    }

    /// Resolves when `digest` is neither reserved nor being downloaded.
    pub(crate) async fn free(&self, digest: &Digest) {
        loop {
            let Some(changed) = self.table.lock().get(digest).map(Slot::told) else { return };
            changed.await;
        }
    }

    /// The download of `digest`, if one has begun.
    pub(crate) fn find(&self, digest: &Digest) -> Option<Arc<Object>> {
        match &self.table.lock().get(digest)?.occupant {
            Occupant::Filling(object) => Some(Arc::clone(object)),
            Occupant::Reserved => None,
        }
    }

    /// Every download that has begun.
    pub(crate) fn downloads(&self) -> Vec<Download> {
        let table = self.table.lock();
        let begun = table.iter().filter_map(|(digest, slot)| match &slot.occupant {
            Occupant::Filling(object) => Some((digest, object)),
            Occupant::Reserved => None,
        });
        begun
            .map(|(digest, object)| Download {
                digest: *digest,
                origin: object.origin().unwrap_or_default().to_owned(),
                available: object.visible(),
                total: object.total(),
            })
            .collect()
    }
}

impl Permit {
    pub(crate) const fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(crate) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// From now on those who ask follow `object`.
    pub(crate) fn lead_to(&self, object: &Arc<Object>) {
        if let Some(slot) = self.in_flight.table.lock().get_mut(&self.digest) {
            slot.occupant = Occupant::Filling(Arc::clone(object));
            slot.changed.notify_waiters();
        }
    }

    pub(super) const fn in_flight(&self) -> &Arc<InFlight> {
        &self.in_flight
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(slot) = self.in_flight.table.lock().remove(&self.digest) {
            slot.changed.notify_waiters();
        }
    }
}

impl Slot {
    /// Resolves at the next change.
    fn told(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }
}
