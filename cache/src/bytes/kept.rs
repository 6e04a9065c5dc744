//! The kept objects of an open store: which are known and open, and what takes one away.

use std::sync::Arc;

use entrepot_oci::Digest;
use tokio::sync::Semaphore;

use super::buffers::Buffers;
use super::object::Object;
use super::open_files::OpenFiles;
use crate::disk::DiskError;
use crate::disk::lock::Lock;
use crate::disk::tree::Tree;
use crate::errors::QuarantineError;
use crate::index::Index;

/// How many large objects are hashed at a time: a start under load must neither take all blocking
/// threads nor tear the disk between a hundred files.
const HASHED_AT_A_TIME: usize = 4;

/// The kept objects. The store's lock goes with the last handle of them, which every handle of the
/// store has.
#[derive(Debug)]
pub(crate) struct KeptObjects {
    pub(crate) tree: Tree,
    pub(crate) index: Index,
    pub(crate) open_files: OpenFiles,
    pub(crate) buffers: Arc<Buffers>,
    /// What verifying a large object waits for.
    pub(crate) hashing: Arc<Semaphore>,
    _lock: Arc<Lock>,
}

impl KeptObjects {
    /// Has the index know when somebody has read this kept object, which nobody had.
    pub(crate) fn watch(self: &Arc<Self>, object: &Object) {
        let (kept, digest) = (Arc::downgrade(self), *object.digest());
        object.is_unread(move || {
            if let Some(kept) = kept.upgrade() {
                kept.index.warmed(&digest);
            }
        });
    }

    pub(crate) fn new(tree: Tree, index: Index, lock: Arc<Lock>) -> Self {
        Self {
            tree,
            index,
            open_files: OpenFiles::default(),
            buffers: Arc::default(),
            hashing: Arc::new(Semaphore::new(HASHED_AT_A_TIME)),
            _lock: lock,
        }
    }

    /// Moves an object to `quarantine/`. Blocks.
    pub(crate) fn quarantine(&self, digest: &Digest) -> Result<(), QuarantineError> {
        let (from, to) = (self.tree.blob(digest), self.tree.quarantined(digest));
        self.take_away(digest, || self.tree.disk().rename(&from, &to))?;
        self.index.quarantined();
        tracing::warn!(%digest, "object quarantined");
        Ok(())
    }

    /// Removes an object, also one that is pinned or in use. Blocks.
    pub(crate) fn remove(&self, digest: &Digest) -> Result<(), QuarantineError> {
        let path = self.tree.blob(digest);
        self.take_away(digest, || {
            self.tree.disk().file_size(&path)?;
            self.tree.disk().remove(&path)
        })
    }

    /// Moves a damaged object to quarantine. If it can't be moved it counts as absent all the same.
    /// Blocks.
    pub(crate) fn set_aside(&self, digest: &Digest) {
        if let Err(QuarantineError::Store(error)) = self.quarantine(digest) {
            tracing::warn!(%digest, %error, cause = %error.io(), "damaged object can't be moved");
            self.open_files.forget(digest);
            self.index.condemned(digest);
        }
    }

    /// Forgets an object whose file `work` takes away, or does not find.
    fn take_away(
        &self,
        digest: &Digest,
        work: impl FnOnce() -> Result<(), DiskError>,
    ) -> Result<(), QuarantineError> {
        let done = work();
        if done.as_ref().err().is_none_or(DiskError::is_not_found) {
            self.open_files.forget(digest);
            self.index.removed(digest);
        }
        done.map_err(|error| match error {
            error if error.is_not_found() => QuarantineError::Absent,
            error => QuarantineError::Store(error),
        })
    }
}
