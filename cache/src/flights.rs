//! Who is downloading what: at most one of a digest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::disk::DiskFile;
use crate::object::Object;
use crate::origin::Origin;
use crate::sync::locked;
use crate::{Digest, Download};

/// The digests that are reserved or being downloaded.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    table: Mutex<HashMap<Digest, Slot>>,
}

#[derive(Debug)]
enum Slot {
    /// Somebody is about to look at the disk or to begin.
    Reserved(Arc<Notify>, Origin),
    Filling(Arc<Object>),
}

/// What [`Flights::board`] found.
pub(crate) enum Boarding {
    /// Nobody is there: the digest is now the caller's.
    Lead(Ticket),
    Follow(Arc<Object>),
    /// Somebody has a reservation. Ask again when this resolves.
    Wait(OwnedNotified),
}

/// The right to download one digest. Dropping it gives the digest free and wakes those who wait.
#[derive(Debug)]
pub(crate) struct Ticket {
    flights: Arc<Flights>,
    digest: Digest,
    origin: Origin,
}

impl Flights {
    pub(crate) fn board(self: &Arc<Self>, digest: &Digest, origin: &Origin) -> Boarding {
        match locked(&self.table).entry(*digest) {
            Entry::Occupied(slot) => match slot.get() {
                Slot::Filling(object) => Boarding::Follow(Arc::clone(object)),
                Slot::Reserved(freed, _) => Boarding::Wait(Arc::clone(freed).notified_owned()),
            },
            Entry::Vacant(slot) => {
                slot.insert(Slot::Reserved(Arc::default(), origin.clone()));
                let (flights, origin) = (Arc::clone(self), origin.clone());
                Boarding::Lead(Ticket { flights, digest: *digest, origin })
            }
        }
    }

    /// From now on those who ask for `digest` wait until its ticket is dropped, provided that the
    /// download under way is the one that writes to `file`.
    pub(crate) fn hold(&self, digest: &Digest, origin: &Origin, file: &Arc<DiskFile>) {
        if let Some(slot) = locked(&self.table).get_mut(digest)
            && matches!(slot, Slot::Filling(object) if Arc::ptr_eq(object.file(), file))
        {
            *slot = Slot::Reserved(Arc::default(), origin.clone());
        }
    }

    /// The download of `digest`, if one has begun.
    pub(crate) fn find(&self, digest: &Digest) -> Option<Arc<Object>> {
        match locked(&self.table).get(digest) {
            Some(Slot::Filling(object)) => Some(Arc::clone(object)),
            Some(Slot::Reserved(..)) | None => None,
        }
    }

    /// Every download that has begun.
    pub(crate) fn downloads(&self) -> Vec<Download> {
        let table = locked(&self.table);
        let begun = table.iter().filter_map(|(digest, slot)| match slot {
            Slot::Filling(object) => Some((digest, object)),
            Slot::Reserved(..) => None,
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

    /// Whether `digest` is reserved for, or being downloaded from, the registry called `origin`.
    pub(crate) fn is_from(&self, digest: &Digest, origin: &str) -> bool {
        match locked(&self.table).get(digest) {
            Some(Slot::Filling(object)) => object.origin() == Some(origin),
            Some(Slot::Reserved(_, reserved)) => reserved.as_str() == origin,
            None => false,
        }
    }
}

impl Ticket {
    pub(crate) const fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(crate) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// From now on those who ask follow `object`.
    pub(crate) fn lead_to(&self, object: &Arc<Object>) {
        let slot = Slot::Filling(Arc::clone(object));
        let before = locked(&self.flights.table).insert(self.digest, slot);
        wake(before);
    }

    pub(crate) const fn flights(&self) -> &Arc<Flights> {
        &self.flights
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let before = locked(&self.flights.table).remove(&self.digest);
        wake(before);
    }
}

fn wake(slot: Option<Slot>) {
    if let Some(Slot::Reserved(freed, _)) = slot {
        freed.notify_waiters();
    }
}
