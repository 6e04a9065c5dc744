//! What the index says: of itself, of one object, and in sum.

use std::time::SystemTime;

use entrepot_oci::Digest;

/// How the index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexState {
    /// It is being read, or rebuilt from the tree: totals are not complete yet.
    Loading,
    /// It is complete and written in the background.
    Ready,
    /// It is not written any more in this run; the log has said why. Nothing else is affected.
    InMemory,
}

/// What the index knows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knowledge {
    Kept,
    NotKept,
    /// It is not known yet: the index is still being read.
    NotYet,
}

/// How much is kept. A sum of hints: exact but for what happened during a crash, and set right in
/// the background after one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Number of kept objects.
    pub objects: u64,
    /// Their sizes' sum in bytes.
    pub bytes: u64,
    /// Number of objects evicted since the store was opened.
    pub evicted_objects: u64,
    /// Their sizes' sum in bytes.
    pub evicted_bytes: u64,
    /// Number of damaged objects set aside since the store was opened.
    pub quarantined_objects: u64,
}

/// A kept object, as far as is known from memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last asked for, or came; to the second.
    pub last_use: SystemTime,
    /// How often it was asked for.
    pub hits: u64,
    /// Whether it is pinned itself.
    pub is_pinned: bool,
}
