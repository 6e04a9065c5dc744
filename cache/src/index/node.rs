//! What eviction needs to know of a kept object.

use entrepot_oci::{Digest, UnixSeconds};

use super::references::References;

/// A kept object that may be evicted. In order of use, longest unused first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    /// Not in the future.
    pub(crate) last_use: UnixSeconds,
    /// Which use of this run that was; 0: it has not been used in this run.
    pub(crate) tick: u64,
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

/// A kept object and what it needs.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) candidate: Candidate,
    /// Whether somebody wants it: see [`Index::cool`](super::Index::cool).
    pub(crate) is_wanted: bool,
    pub(crate) references: References,
}
