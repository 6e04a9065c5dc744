//! What the handles of an open store share.

use std::sync::Arc;

use entrepot_oci::Digest;

use crate::bytes::kept::KeptObjects;
use crate::disk::threads::FilePermits;
use crate::disk::tree::Tree;
use crate::download::in_flight::InFlight;
use crate::download::publish::Publisher;
use crate::eviction::Eviction;
use crate::index::state::Knowledge;

/// An open store.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) kept: Arc<KeptObjects>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) permits: Arc<FilePermits>,
    pub(crate) eviction: Arc<Eviction>,
    pub(crate) publisher: Arc<Publisher>,
}

/// Whether an object is there, without a claim to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is kept.
    Kept,
    /// It is being downloaded.
    InFlight,
    /// Neither.
    Absent,
}

impl Inner {
    pub(crate) fn tree(&self) -> &Tree {
        &self.kept.tree
    }

    /// Whether an object is kept or in flight. While the index is being read that may block for a
    /// look at the directory.
    pub(crate) fn presence(&self, digest: &Digest) -> Presence {
        // What is kept is kept, though another registry be asked for it still. In this order: an
        // object is in the index before its download is over.
        if self.kept.index.knowledge(digest) == Knowledge::Kept {
            return Presence::Kept;
        }
        if self.in_flight.has_begun(digest) {
            return Presence::InFlight;
        }
        let on_disk = || self.tree().disk().file_size(&self.tree().blob(digest)).is_ok();
        match self.kept.index.knowledge(digest) {
            Knowledge::Kept => Presence::Kept,
            Knowledge::NotYet if on_disk() => Presence::Kept,
            Knowledge::NotYet | Knowledge::NotKept => Presence::Absent,
        }
    }
}
