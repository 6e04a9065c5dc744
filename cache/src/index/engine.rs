//! The seam between the index and whatever keeps it on disk.

use entrepot_oci::{Digest, UnixSeconds};

use super::references::References;
use super::state::Totals;
use crate::disk::tree::Tree;

/// What is known about a kept object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hint {
    /// Size in bytes.
    pub(crate) size: u64,
    pub(crate) last_use: UnixSeconds,
    pub(crate) hits: u64,
    pub(crate) references: References,
}

/// A hint to be kept, or one to be dropped.
pub(crate) type Change = (Digest, Option<Hint>);

/// What an engine had.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loaded {
    /// How many hints.
    pub(crate) count: u64,
    /// Nothing was lost since the last close, as far as the engine can tell.
    pub(crate) clean: bool,
}

/// An engine failed; it is not asked again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EngineError(pub(crate) String);

/// Keeps hints on disk. Every call may fail, and may panic: the owner fences them.
pub(crate) trait Engine {
    /// Hands everything that is kept to `take_over`, one by one. Called once, first.
    fn load(&mut self, take_over: &mut dyn FnMut(Digest, Hint)) -> Result<Loaded, EngineError>;
    /// Keeps `changes`; after the `last` batch everything is.
    fn apply(&mut self, changes: &[Change], last: Last) -> Result<(), EngineError>;
}

/// Opens an engine; called on the owner's thread, where it may fail or panic.
pub(super) type Opener = Box<dyn FnOnce(&Tree) -> Result<Box<dyn Engine>, EngineError> + Send>;

/// Whether an engine's work is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    No,
    /// The store is being closed, holding so much.
    Yes(Totals),
}
