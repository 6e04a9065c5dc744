//! What every handle of an open store shares.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::bounds::Keeper;
use crate::buffers::Buffers;
use crate::disk::DiskError;
use crate::flights::Flights;
use crate::index::Index;
use crate::lock::Lock;
use crate::object::Object;
use crate::opened::Opened;
use crate::pins::Pins;
use crate::tree::Tree;
use crate::{Digest, Verdict, inspect};

/// An open store. The lock goes with the last handle: store, reservation or writer.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) tree: Tree,
    pub(crate) flights: Arc<Flights>,
    pub(crate) opened: Opened,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) index: Index,
    pub(crate) pins: Pins,
    pub(crate) keeper: Keeper,
    /// Shard directories whose names this process knows to be durable.
    pub(crate) durable_shards: Mutex<HashSet<PathBuf>>,
    pub(crate) _lock: Arc<Lock>,
}

impl Shared {
    /// Opens a kept object. Blocks.
    ///
    /// One that has not the size that it was published with is hashed, and quarantined if it is
    /// damaged: a truncated file must not be served, and the index alone must not condemn it.
    pub(crate) fn open_kept(&self, digest: &Digest) -> Result<Option<Arc<Object>>, DiskError> {
        if let Some(object) = self.opened.find(digest) {
            return Ok(Some(object));
        }
        let known = self.index.turn(digest);
        let file = match self.tree.disk().open(&self.tree.blob(digest)) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => {
                self.index.missed(digest, known);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let size = file.len()?;
        if self.index.size(digest).is_some_and(|published| published != size)
            && self.cast_out(digest)
        {
            return Ok(None);
        }
        self.index.found(digest, size);
        let object = Arc::new(Object::kept(*digest, Arc::new(file), &self.buffers, size));
        self.opened.insert(&object);
        Ok(Some(object))
    }

    /// Whether `digest` was damaged and has been quarantined.
    fn cast_out(&self, digest: &Digest) -> bool {
        let damaged = matches!(inspect::verify(self, digest), Verdict::Damaged { .. });
        damaged && inspect::quarantine(self, digest).is_ok()
    }

    /// `object` has just been published.
    pub(crate) fn published(&self, object: &Arc<Object>) {
        self.index.added(object.digest(), object.visible());
        self.opened.insert(object);
        self.keeper.wake();
    }

    /// Whether an object of `size` bytes is to be kept once it is verified.
    pub(crate) fn keeps(&self, digest: &Digest, size: u64) -> bool {
        self.keeper.fits(size) || self.pins.has(digest)
    }

    /// `digest` is no longer kept.
    pub(crate) fn gone(&self, digest: &Digest) {
        self.opened.forget(digest);
        self.index.removed(digest);
    }
}
