//! The hints in memory, and which of them have changed since they were last written.

use std::collections::{HashMap, HashSet};

use super::IndexState;
use super::engine::{Change, Hint};
use crate::{Digest, Totals};

/// Invariant: `bytes` is the sum of the hints' sizes.
#[derive(Debug)]
pub(super) struct Table {
    hints: HashMap<Digest, Hint>,
    bytes: u64,
    /// What has changed in this run and is not written yet; bounded by what is kept.
    changed: HashSet<Digest>,
    /// Whether `hints` names everything that is kept.
    pub(super) complete: bool,
    pub(super) state: IndexState,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            hints: HashMap::new(),
            bytes: 0,
            changed: HashSet::new(),
            complete: false,
            state: IndexState::Loading,
        }
    }
}

impl Table {
    pub(super) fn add(&mut self, digest: &Digest, size: u64, now: u64) {
        let hits = self.hints.get(digest).map_or(0, |hint| hint.hits);
        self.set(digest, Hint { size, last_use: now, hits });
        self.note(digest);
    }

    pub(super) fn touch(&mut self, digest: &Digest, size: u64, now: u64) {
        let hits = self.hints.get(digest).map_or(0, |hint| hint.hits).saturating_add(1);
        self.set(digest, Hint { size, last_use: now, hits });
        self.note(digest);
    }

    pub(super) fn remove(&mut self, digest: &Digest) {
        self.unset(digest);
        self.note(digest);
    }

    /// Takes over what was known before this run; what this run knows is newer.
    pub(super) fn merge(&mut self, digest: &Digest, hint: Hint) {
        if !self.hints.contains_key(digest) && !self.changed.contains(digest) {
            self.set(digest, hint);
        }
    }

    /// The tree has been walked: `found` and what changed meanwhile is all there is.
    pub(super) fn retain_found(&mut self, found: &HashSet<Digest>) {
        let stale = |digest: &&Digest| !found.contains(*digest) && !self.changed.contains(*digest);
        let stale: Vec<Digest> = self.hints.keys().filter(stale).copied().collect();
        for digest in &stale {
            self.remove(digest);
        }
    }

    /// The changes so far. When they are not to be written they are forgotten all the same.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|digest| (digest, self.hints.get(&digest).copied())).collect()
    }

    pub(super) fn knows(&self, digest: &Digest) -> bool {
        self.hints.contains_key(digest)
    }

    pub(super) fn size(&self, digest: &Digest) -> Option<u64> {
        self.hints.get(digest).map(|hint| hint.size)
    }

    pub(super) fn totals(&self) -> Totals {
        Totals { objects: self.hints.len() as u64, bytes: self.bytes }
    }

    /// Marks a hint that was found on the walk for writing.
    pub(super) fn note(&mut self, digest: &Digest) {
        if self.state != IndexState::InMemory || !self.complete {
            self.changed.insert(*digest);
        }
    }

    fn set(&mut self, digest: &Digest, hint: Hint) {
        let before = self.hints.insert(*digest, hint).map_or(0, |hint| hint.size);
        self.bytes = self.bytes.saturating_sub(before).saturating_add(hint.size);
    }

    fn unset(&mut self, digest: &Digest) {
        let before = self.hints.remove(digest).map_or(0, |hint| hint.size);
        self.bytes = self.bytes.saturating_sub(before);
    }
}
