//! What every handle of an open store shares.

use parking_lot::Mutex;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::bytes::buffers::Buffers;
use crate::bytes::first_use;
use crate::bytes::object::Object;
use crate::bytes::open_files::Opened;
use crate::disk::lock::Lock;
use crate::disk::threads::Lanes;
use crate::disk::tree::Tree;
use crate::disk::{DiskError, DiskFile};
use crate::download::in_flight::Flights;
use crate::eviction::Keeper;
use crate::eviction::pins::Pins;
use crate::index::references::{Interpreter, References};
use crate::index::{Index, Knowledge, Proof};
use crate::{Digest, Presence};

/// An open store. The lock goes with the last handle: store, reservation or writer.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) tree: Tree,
    pub(crate) flights: Arc<Flights>,
    pub(crate) opened: Opened,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) index: Index,
    pub(crate) pins: Pins,
    pub(crate) documents: Interpreter,
    pub(crate) keeper: Keeper,
    /// How many large objects may be hashed at a time.
    pub(crate) checks: Arc<Semaphore>,
    /// Shard directories whose names this process knows to be durable.
    pub(crate) durable_shards: Mutex<HashSet<PathBuf>>,
    pub(crate) _lock: Arc<Lock>,
}

impl Shared {
    /// Opens a kept object. Blocks.
    ///
    /// One that this process does not know to be sound is verified here when it is small; a large
    /// one is left to [`first_use::start`]. One of another size than it was published with is damaged.
    pub(crate) fn open_kept(&self, digest: &Digest) -> Result<Option<Arc<Object>>, DiskError> {
        if let Some(object) = self.opened.find(digest) {
            return Ok(Some(object));
        }
        let proof = self.index.proof(digest);
        if proof == Proof::Damaged {
            return Ok(None);
        }
        let Some(file) = self.open_file(digest)? else { return Ok(None) };
        let size = file.len()?;
        if self.index.size(digest).is_some_and(|published| published != size) {
            first_use::set_aside(self, digest);
            return Ok(None);
        }
        self.index.found(digest, size);
        let object = match proof {
            Proof::Sound => Object::kept(*digest, file, &self.buffers, size),
            _ => Object::unverified(*digest, file, &self.buffers, size),
        };
        if size <= first_use::SMALL && !first_use::settle(self, &object) {
            return Ok(None);
        }
        let object = Arc::new(object);
        self.opened.insert(&object);
        Ok(Some(object))
    }

    /// Whether an object is kept or in flight. While the index is being read that may block for a
    /// look at the directory.
    pub(crate) fn presence(&self, digest: &Digest) -> Presence {
        // In this order: an object is in the index before its download is over.
        if self.flights.find(digest).is_some() {
            return Presence::InFlight;
        }
        let on_disk = || self.tree.disk().file_size(&self.tree.blob(digest)).is_ok();
        match self.index.knowledge(digest) {
            Knowledge::Kept => Presence::Kept,
            Knowledge::NotYet if on_disk() => Presence::Kept,
            Knowledge::NotYet | Knowledge::NotKept => Presence::Absent,
        }
    }

    /// The file of a kept object; the index forgets one that is not there.
    fn open_file(&self, digest: &Digest) -> Result<Option<Arc<DiskFile>>, DiskError> {
        let known = self.index.turn(digest);
        match self.tree.disk().open(&self.tree.blob(digest)) {
            Ok(file) => Ok(Some(Arc::new(file))),
            Err(error) if error.is_not_found() => {
                self.index.missed(digest, known);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// `object` has just been published.
    pub(crate) fn published(&self, object: &Arc<Object>, references: References) {
        self.index.added(&self.tree, object.digest(), object.size(), references);
        self.opened.insert(object);
        object.published();
        self.keeper.wake();
    }

    /// Whether an object of `size` bytes is to be kept once it is verified.
    pub(crate) fn keeps(&self, digest: &Digest, size: u64) -> bool {
        let is_needed = || self.index.closure(self.pins.all()).contains(digest);
        self.keeper.fits(size) || self.pins.has(digest) || is_needed()
    }

    /// `digest` is no longer kept.
    pub(crate) fn gone(&self, digest: &Digest) {
        self.opened.forget(digest);
        self.index.removed(digest);
    }
}
