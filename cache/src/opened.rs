//! Which kept objects are open, so that all readers of one share a file descriptor.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use crate::Digest;
use crate::object::Object;
use crate::sync::locked;

/// The open kept objects. An object is closed with its last reader.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    objects: HashMap<Digest, Weak<Object>>,
    /// The table is swept of closed objects when it has grown past this.
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 256;

impl Opened {
    pub(crate) fn find(&self, digest: &Digest) -> Option<Arc<Object>> {
        locked(&self.table).objects.get(digest).and_then(Weak::upgrade)
    }

    pub(crate) fn insert(&self, object: &Arc<Object>) {
        let mut table = locked(&self.table);
        table.objects.insert(*object.digest(), Arc::downgrade(object));
        if table.objects.len() > table.sweep_at {
            table.objects.retain(|_, object| object.strong_count() > 0);
            table.sweep_at = table.objects.len().saturating_mul(2).max(FIRST_SWEEP);
        }
    }

    /// Forgets an object that is no longer kept; its present readers go on.
    pub(crate) fn forget(&self, digest: &Digest) {
        locked(&self.table).objects.remove(digest);
    }
}
