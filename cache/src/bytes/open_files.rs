//! Which kept objects are open: readers of one share a file descriptor, and what was asked for
//! lately stays open, so that a hit on it costs no file call, and, where it is small, no read:
//! 8 MiB in all at most.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use entrepot_oci::Digest;
use parking_lot::Mutex;

use super::object::Object;

/// How many objects stay open without a reader: file descriptors, and what is remembered of the
/// small ones among them.
const RECENT: usize = 256;
/// How large the table of all open objects may grow before the closed ones are swept out.
const FIRST_SWEEP: usize = 256;

/// The open kept objects.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    table: Mutex<OpenObjects>,
}

#[derive(Debug, Default)]
struct OpenObjects {
    all: HashMap<Digest, Weak<Object>>,
    sweep_at: usize,
    recent: HashMap<Digest, Recent>,
    tick: u64,
}

#[derive(Debug)]
struct Recent {
    object: Arc<Object>,
    last_use: u64,
}

impl OpenFiles {
    pub(crate) fn find(&self, digest: &Digest) -> Option<Arc<Object>> {
        let table = &mut *self.table.lock();
        table.tick = table.tick.saturating_add(1);
        if let Some(recent) = table.recent.get_mut(digest) {
            recent.last_use = table.tick;
            return Some(Arc::clone(&recent.object));
        }
        table.all.get(digest).and_then(Weak::upgrade)
    }

    /// The objects that have a reader.
    pub(crate) fn in_use(&self) -> HashSet<Digest> {
        let table = self.table.lock();
        let ours = |digest| usize::from(table.recent.contains_key(digest));
        let used = table.all.iter().filter(|(digest, object)| object.strong_count() > ours(digest));
        used.map(|(digest, _)| *digest).collect()
    }

    /// Whether `object` is what those who ask for its digest get.
    pub(crate) fn is_current(&self, object: &Arc<Object>) -> bool {
        let table = self.table.lock();
        let current = table.all.get(object.digest());
        current.is_some_and(|current| std::ptr::eq(current.as_ptr(), Arc::as_ptr(object)))
    }

    pub(crate) fn insert(&self, object: &Arc<Object>) {
        let dropped = self.table.lock().insert(object);
        // Closing files may take a while: not under the lock.
        drop(dropped);
    }

    /// Forgets an object that is no longer kept; its present readers go on.
    pub(crate) fn forget(&self, digest: &Digest) {
        let mut table = self.table.lock();
        table.all.remove(digest);
        let forgotten = table.recent.remove(digest);
        drop(table);
        drop(forgotten);
    }
}

impl OpenObjects {
    fn insert(&mut self, object: &Arc<Object>) -> Vec<Recent> {
        let digest = *object.digest();
        self.all.insert(digest, Arc::downgrade(object));
        if self.all.len() > self.sweep_at {
            self.all.retain(|_, object| object.strong_count() > 0);
            self.sweep_at = self.all.len().saturating_mul(2).max(FIRST_SWEEP);
        }
        self.tick = self.tick.saturating_add(1);
        let recent = Recent { object: Arc::clone(object), last_use: self.tick };
        let replaced = self.recent.insert(digest, recent);
        replaced.into_iter().chain(self.close_old()).collect()
    }

    /// When too many are open, takes out the half that was not used for longest.
    fn close_old(&mut self) -> Vec<Recent> {
        if self.recent.len() <= RECENT {
            return Vec::new();
        }
        let mut uses: Vec<u64> = self.recent.values().map(|recent| recent.last_use).collect();
        uses.sort_unstable();
        let median = uses.get(uses.len() / 2).copied().unwrap_or_default();
        self.recent.extract_if(|_, recent| recent.last_use < median).map(|(_, old)| old).collect()
    }
}
