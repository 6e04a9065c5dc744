//! What is never evicted.

use std::collections::HashSet;

use entrepot_oci::{Algorithm, Digest};
use parking_lot::Mutex;

use crate::disk::DiskError;
use crate::disk::tree::Tree;

/// The pins of an open store: in memory, and as empty files below `pins/`.
#[derive(Debug)]
pub(crate) struct Pins {
    pinned: Mutex<HashSet<Digest>>,
    /// Held over the file calls of a change, so that two changes do not mix.
    changing: Mutex<()>,
}

impl Pins {
    /// Reads the pins of `tree`. An error must keep the store from opening: it would evict them.
    pub(crate) fn load(tree: &Tree) -> Result<Self, DiskError> {
        let mut pinned = HashSet::new();
        for algorithm in Algorithm::ALL {
            let entries = tree.disk().list(&tree.pins(algorithm))?;
            let named = entries.iter().map(|entry| Digest::from_hex(algorithm, &entry.name));
            pinned.extend(named.filter_map(Result::ok));
        }
        Ok(Self { pinned: Mutex::new(pinned), changing: Mutex::default() })
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.pinned.lock().contains(digest)
    }

    pub(crate) fn all(&self) -> HashSet<Digest> {
        self.pinned.lock().clone()
    }

    /// Pins `digest`, durably once this returns. Blocks.
    pub(crate) fn pin(&self, tree: &Tree, digest: &Digest) -> Result<(), DiskError> {
        let _alone = self.changing.lock();
        if !self.pinned.lock().insert(*digest) {
            return Ok(());
        }
        let created = tree.disk().open_or_create(&tree.pin(digest)).map(drop);
        let durable = created.and_then(|()| tree.disk().sync_dir(&tree.pins(digest.algorithm())));
        durable.inspect_err(|_| {
            self.pinned.lock().remove(digest);
            let _ = tree.disk().remove(&tree.pin(digest));
        })
    }

    /// Takes a pin away; without effect when there is none. Blocks.
    pub(crate) fn unpin(&self, tree: &Tree, digest: &Digest) -> Result<(), DiskError> {
        let _alone = self.changing.lock();
        tree.disk().remove(&tree.pin(digest))?;
        self.pinned.lock().remove(digest);
        tree.disk().sync_dir(&tree.pins(digest.algorithm()))
    }
}
