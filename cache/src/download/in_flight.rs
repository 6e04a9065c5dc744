//! Who is downloading what: at most one of a digest from one registry.
//!
//! Another registry that is asked for the same digest sends other bytes for all that anybody knows,
//! or sends them as slowly as it likes: each has a download of its own, and the first that comes
//! right is published. The name in `blobs/` is one, whoever gives it or takes it away: see
//! [`InFlight::reserve`] and [`Permit::claim_name`].

use std::collections::HashMap;
use std::sync::Arc;

use entrepot_oci::Digest;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::origin::Origin;
use crate::bytes::object::Object;
use crate::disk::DiskFile;
use crate::disk::tree::partial_name;

/// The digests that are reserved or being downloaded: none without a slot.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    table: Mutex<HashMap<Digest, Slots>>,
    /// Told whenever a removal is over.
    removed: Condvar,
}

#[derive(Debug, Default)]
struct Slots {
    all: Vec<Slot>,
    /// Told whenever one has another occupant, and when one ends.
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Slot {
    holder: Holder,
    occupant: Occupant,
}

/// Whose a slot is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    /// A download from a registry.
    Download(Origin),
    /// A removal, which concerns the digest from wherever it comes. There is one at most.
    Removal,
}

#[derive(Debug)]
enum Occupant {
    /// A permit was given: its holder is about to look at the disk or to begin, or is just ending.
    Reserved,
    Filling(Arc<Object>),
    /// It is right, and just getting its name.
    Naming(Arc<Object>),
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

/// The right to download one digest from one registry. Dropping it gives the digest free and wakes
/// those that wait.
#[derive(Debug)]
pub(crate) struct Permit {
    claim: Claim,
    origin: Origin,
}

/// The right to remove what is kept under one digest, until it is dropped.
#[derive(Debug)]
pub(crate) struct Removal {
    _claim: Claim,
}

/// A slot that is given free when this is dropped.
#[derive(Debug)]
struct Claim {
    in_flight: Arc<InFlight>,
    digest: Digest,
    holder: Holder,
}

impl InFlight {
    pub(crate) fn join(self: &Arc<Self>, digest: &Digest, origin: &Origin) -> Joined {
        let holder = Holder::Download(origin.clone());
        let mut table = self.table.lock();
        let slots = table.entry(*digest).or_default();
        let own = slots.all.iter().find(|slot| slot.holder == holder);
        // Without one of its own: what is being removed is neither there nor away.
        let removal = || slots.all.iter().find(|slot| slot.is_removal());
        if let Some(slot) = own.or_else(removal) {
            return match slot.occupant.object() {
                Some(object) => Joined::Follow(Arc::clone(object)),
                None => Joined::Wait(slots.told()),
            };
        }
        slots.all.push(Slot::reserved(holder.clone()));
        Joined::Lead(Permit { claim: self.claim(digest, holder), origin: origin.clone() })
    }

    fn claim(self: &Arc<Self>, digest: &Digest, holder: Holder) -> Claim {
        Claim { in_flight: Arc::clone(self), digest: *digest, holder }
    }

    /// The right to remove what is kept under `digest`, unless somebody is about to look at it, or
    /// just giving it its name. Until it is dropped no download of it begins, and none that is
    /// under way gets the name.
    pub(crate) fn reserve(self: &Arc<Self>, digest: &Digest) -> Option<Removal> {
        self.reserve_where(digest, |slot| matches!(slot.occupant, Occupant::Filling(_)))
    }

    /// The right to remove a partial file of `digest` that has this name, unless somebody writes to
    /// it, or may be about to.
    pub(crate) fn reserve_partial(
        self: &Arc<Self>,
        digest: &Digest,
        name: &str,
    ) -> Option<Removal> {
        self.reserve_where(digest, |slot| !slot.is_removal() && !slot.may_write_to(digest, name))
    }

    /// Whether a download writes to the partial file of `digest` that has this name, or may be
    /// about to.
    pub(super) fn is_written(&self, digest: &Digest, name: &str) -> bool {
        let table = self.table.lock();
        table.get(digest).is_some_and(|slots| slots.any(|slot| slot.may_write_to(digest, name)))
    }

    /// Reserves the digest if none of its slots is in the way.
    fn reserve_where(
        self: &Arc<Self>,
        digest: &Digest,
        is_bystander: impl Fn(&Slot) -> bool,
    ) -> Option<Removal> {
        let mut table = self.table.lock();
        if table.get(digest).is_some_and(|slots| !slots.all.iter().all(is_bystander)) {
            return None;
        }
        table.entry(*digest).or_default().all.push(Slot::reserved(Holder::Removal));
        Some(Removal { _claim: self.claim(digest, Holder::Removal) })
    }

    /// From now on those who ask for `digest` wait until its permit is dropped, provided that the
    /// download under way is the one that writes to `file`.
    pub(crate) fn hold(&self, digest: &Digest, file: &Arc<DiskFile>) {
        let mut table = self.table.lock();
        for slot in table.get_mut(digest).into_iter().flat_map(|slots| &mut slots.all) {
            if slot.occupant.object().is_some_and(|object| Arc::ptr_eq(object.file(), file)) {
                slot.occupant = Occupant::Reserved;
            }
        }
    }

    /// Resolves when something changes about `digest`; `None` if it is neither reserved nor being
    /// downloaded.
    pub(crate) fn change(&self, digest: &Digest) -> Option<OwnedNotified> {
        self.table.lock().get(digest).map(Slots::told)
    }

    /// Whether a download of `digest` has begun, from wherever.
    pub(crate) fn has_begun(&self, digest: &Digest) -> bool {
        let table = self.table.lock();
        table.get(digest).is_some_and(|slots| slots.any(|slot| slot.occupant.object().is_some()))
    }

    fn occupy(&self, digest: &Digest, holder: &Holder, occupant: Occupant) {
        let mut table = self.table.lock();
        let Some(slots) = table.get_mut(digest) else { return };
        slots.occupy(holder, occupant);
    }

    /// Every download that has begun.
    pub(crate) fn downloads(&self) -> Vec<Download> {
        let table = self.table.lock();
        let slots =
            table.iter().flat_map(|(digest, slots)| slots.all.iter().map(move |it| (digest, it)));
        let begun = slots.filter_map(|(digest, slot)| Some((digest, slot.occupant.object()?)));
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
        &self.claim.digest
    }

    pub(crate) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// From now on those who ask follow `object`.
    pub(crate) fn lead_to(&self, object: &Arc<Object>) {
        let Claim { in_flight, digest, holder } = &self.claim;
        in_flight.occupy(digest, holder, Occupant::Filling(Arc::clone(object)));
    }

    /// What is downloaded is right, and is going to be looked for under its name, or get it: until
    /// this permit is dropped nobody removes what has that name. Waits for who is removing it just
    /// now. Blocks.
    pub(super) fn claim_name(&self, object: &Arc<Object>) {
        let Claim { in_flight, digest, holder } = &self.claim;
        let mut table = in_flight.table.lock();
        while table.get(digest).is_some_and(|slots| slots.any(Slot::is_removal)) {
            in_flight.removed.wait(&mut table);
        }
        if let Some(slots) = table.get_mut(digest) {
            slots.occupy(holder, Occupant::Naming(Arc::clone(object)));
        }
    }

    pub(super) const fn in_flight(&self) -> &Arc<InFlight> {
        &self.claim.in_flight
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut table = self.in_flight.table.lock();
        let Some(slots) = table.get_mut(&self.digest) else { return };
        slots.all.retain(|slot| slot.holder != self.holder);
        slots.changed.notify_waiters();
        if slots.all.is_empty() {
            table.remove(&self.digest);
        }
        drop(table);
        if self.holder == Holder::Removal {
            self.in_flight.removed.notify_all();
        }
    }
}

impl Slots {
    /// Resolves at the next change.
    fn told(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }

    fn any(&self, is_one: impl Fn(&Slot) -> bool) -> bool {
        self.all.iter().any(is_one)
    }

    fn occupy(&mut self, holder: &Holder, occupant: Occupant) {
        if let Some(slot) = self.all.iter_mut().find(|slot| slot.holder == *holder) {
            slot.occupant = occupant;
            self.changed.notify_waiters();
        }
    }
}

impl Slot {
    const fn reserved(holder: Holder) -> Self {
        Self { holder, occupant: Occupant::Reserved }
    }

    fn may_write_to(&self, digest: &Digest, name: &str) -> bool {
        match &self.holder {
            Holder::Download(origin) => partial_name(digest, origin.as_str()) == name,
            Holder::Removal => false,
        }
    }

    fn is_removal(&self) -> bool {
        self.holder == Holder::Removal
    }
}

impl Occupant {
    /// The download's object, once that has begun.
    const fn object(&self) -> Option<&Arc<Object>> {
        match self {
            Self::Reserved => None,
            Self::Filling(object) | Self::Naming(object) => Some(object),
        }
    }
}
