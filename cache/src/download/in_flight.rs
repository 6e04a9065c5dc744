//! Who is downloading what: at most one of a digest.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::bytes::object::Object;
use crate::disk::DiskFile;
use crate::download::origin::Origin;
use crate::{Digest, Download};

/// The digests that are reserved or being downloaded.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    table: Mutex<HashMap<Digest, Slot>>,
}

#[derive(Debug)]
struct Slot {
    state: State,
    /// Told whenever the state is another, and at the end.
    changed: Arc<Notify>,
}

#[derive(Debug)]
enum State {
    /// Somebody is about to look at the disk or to begin, or is just ending.
    Reserved,
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
        match self.table.lock().entry(*digest) {
            Entry::Occupied(slot) => match &slot.get().state {
                State::Filling(object) => Boarding::Follow(Arc::clone(object)),
                State::Reserved => Boarding::Wait(slot.get().told()),
            },
            Entry::Vacant(slot) => {
                slot.insert(Slot { state: State::Reserved, changed: Arc::default() });
                let (flights, origin) = (Arc::clone(self), origin.clone());
                Boarding::Lead(Ticket { flights, digest: *digest, origin })
            }
        }
    }

    /// From now on those who ask for `digest` wait until its ticket is dropped, provided that the
    /// download under way is the one that writes to `file`.
    pub(crate) fn hold(&self, digest: &Digest, file: &Arc<DiskFile>) {
        if let Some(slot) = self.table.lock().get_mut(digest)
            && matches!(&slot.state, State::Filling(object) if Arc::ptr_eq(object.file(), file))
        {
            slot.state = State::Reserved;
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
        match &self.table.lock().get(digest)?.state {
            State::Filling(object) => Some(Arc::clone(object)),
            State::Reserved => None,
        }
    }

    /// Every download that has begun.
    pub(crate) fn downloads(&self) -> Vec<Download> {
        let table = self.table.lock();
        let begun = table.iter().filter_map(|(digest, slot)| match &slot.state {
            State::Filling(object) => Some((digest, object)),
            State::Reserved => None,
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

impl Ticket {
    pub(crate) const fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(crate) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// From now on those who ask follow `object`.
    pub(crate) fn lead_to(&self, object: &Arc<Object>) {
        if let Some(slot) = self.flights.table.lock().get_mut(&self.digest) {
            slot.state = State::Filling(Arc::clone(object));
            slot.changed.notify_waiters();
        }
    }

    pub(crate) const fn flights(&self) -> &Arc<Flights> {
        &self.flights
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(slot) = self.flights.table.lock().remove(&self.digest) {
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
