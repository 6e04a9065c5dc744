//! From a verified file to a final name: sync the file, rename it, sync the directory.
//!
//! Any other order puts wrong bytes under a digest's name when the power fails.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use entrepot_oci::Digest;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::bytes::kept::KeptObjects;
use crate::bytes::object::Object;
use crate::bytes::opening;
use crate::disk::{DiskError, DiskFile};
use crate::eviction::Eviction;
use crate::index::references::{Interpreter, References};
use crate::index::state::Knowledge;

/// What it takes to give an object its final name.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) kept: Arc<KeptObjects>,
    pub(crate) eviction: Arc<Eviction>,
    pub(crate) documents: Interpreter,
    /// What may wait for the disk, of all downloads together.
    pub(super) queued: Arc<Semaphore>,
    /// Shard directories whose names this process knows to be durable.
    durable_shards: Mutex<HashSet<PathBuf>>,
}

impl Publisher {
    pub(crate) fn new(
        kept: Arc<KeptObjects>,
        eviction: Arc<Eviction>,
        documents: Interpreter,
        queued_bytes: usize,
    ) -> Self {
        let queued = Arc::new(Semaphore::new(queued_bytes));
        Self { kept, eviction, documents, queued, durable_shards: Mutex::default() }
    }

    /// Whether an object is kept under its name, and known to be right. Blocks.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        if self.kept.index.knowledge(digest) != Knowledge::Kept {
            return false;
        }
        let Ok(Some(object)) = opening::open(&self.kept, digest) else { return false };
        // One that is open may have lost its name.
        let on_disk = self.kept.tree.disk().file_size(&self.kept.tree.blob(digest));
        object.is_verified() && on_disk.is_ok_and(|size| size == object.size())
    }

    /// Gives `file`, which lies at `from` and has been verified, its final name.
    ///
    /// When any step fails nothing is published and the file is removed: after a failed sync its
    /// bytes are suspect for ever. Present readers read on. Blocks.
    pub(super) fn publish(
        &self,
        file: &DiskFile,
        from: &Path,
        digest: &Digest,
    ) -> Result<(), DiskError> {
        let (tree, to) = (&self.kept.tree, self.kept.tree.blob(digest));
        let moved = self.move_into_place(file, from, &to, digest).inspect_err(|error| {
            tracing::warn!(%digest, %error, cause = %error.io(), "object not kept");
            // What has the final name, if anything, is another's and as good as it was.
            tree.disk().remove_quietly(from);
        });
        moved?;
        tree.disk().sync_dir(&tree.shard(digest)).inspect_err(|error| {
            tracing::warn!(%digest, %error, cause = %error.io(), "object not kept");
            tree.disk().remove_quietly(&to);
        })
    }

    /// Everything but making the final name durable.
    fn move_into_place(
        &self,
        file: &DiskFile,
        from: &Path,
        to: &Path,
        digest: &Digest,
    ) -> Result<(), DiskError> {
        file.sync()?;
        self.prepare_shard(digest)?;
        self.kept.tree.disk().rename(from, to)
    }

    /// The shard directory's own name must be as durable as the names in it.
    fn prepare_shard(&self, digest: &Digest) -> Result<(), DiskError> {
        let (tree, dir) = (&self.kept.tree, self.kept.tree.shard(digest));
        if self.durable_shards.lock().contains(&dir) {
            return Ok(());
        }
        tree.disk().make_dir(&dir)?;
        tree.disk().sync_dir(&tree.blobs(digest.algorithm()))?;
        self.durable_shards.lock().insert(dir);
        Ok(())
    }

    /// `object` has its final name now: lookups find it, and the bounds are looked at.
    pub(super) fn published(&self, object: &Arc<Object>, references: References) {
        // A second tier would be told here, and here alone.
        self.kept.index.added(&self.kept.tree, object.digest(), object.size(), references);
        self.kept.open_files.insert(object);
        object.published();
        self.eviction.wake();
    }
}
