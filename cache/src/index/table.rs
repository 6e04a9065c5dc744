//! The hints in memory, and which of them have changed since they were last written.

use std::collections::{HashMap, HashSet};
use std::time::UNIX_EPOCH;

use entrepot_oci::{Digest, UnixSeconds};

use super::engine::{Change, Hint};
use super::node::{Candidate, Node};
use super::references::References;
use super::state::{IndexState, Kept, Totals};

/// Invariant: `bytes` is the sum of the hints' sizes, `reference_bytes` that of their references,
/// and the latter is no more than there is room for.
#[derive(Debug)]
pub(super) struct Table {
    hints: HashMap<Digest, KnownObject>,
    bytes: u64,
    reference_bytes: u64,
    reference_room: u64,
    evicted: (u64, u64),
    quarantined: u64,
    /// Counts the uses of this run: the clock's seconds alone don't order them.
    tick: u64,
    /// What has changed in this run and is not written yet; bounded by what is kept.
    changed: HashSet<Digest>,
    /// Whether `hints` names everything that is kept.
    pub(super) complete: bool,
    /// Whether nothing at all was known before this run.
    pub(super) rebuilt: bool,
    pub(super) state: IndexState,
    pub(super) end: LastBatch,
}

/// How far the last batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastBatch {
    NotYet,
    /// It has been taken: what comes now is in no batch.
    Taken,
    /// Something has come since.
    Outdated,
}

#[derive(Clone, Debug)]
struct KnownObject {
    hint: Hint,
    /// Its last use in this run, 0 if there was none.
    tick: u64,
    /// When it came in this run, 0 if it was there before.
    added: u64,
    proof: Proof,
    /// Nobody has read it to its end since it came.
    is_cold: bool,
}

/// What this process itself knows of an object's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nothing: it has to be verified before its end is shown.
    #[default]
    None,
    /// It was published, or verified, in this run.
    Sound,
    /// It is damaged and can't be taken away.
    Damaged,
}

/// Why an object was taken out: only evictions are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakenOut {
    /// A bound asked for it.
    Evicted,
    /// The store's user asked for it.
    Withdrawn,
}

impl Table {
    /// An empty table that has room for so many bytes of references.
    pub(super) fn new(reference_room: u64) -> Self {
        Self {
            hints: HashMap::new(),
            bytes: 0,
            reference_bytes: 0,
            reference_room,
            evicted: (0, 0),
            quarantined: 0,
            tick: 0,
            changed: HashSet::new(),
            complete: false,
            rebuilt: false,
            state: IndexState::Loading,
            end: LastBatch::NotYet,
        }
    }

    pub(super) fn add(&mut self, digest: &Digest, size: u64, now: UnixSeconds, proof: Proof) {
        let before = self.hints.get(digest).map(|known| &known.hint);
        let (hits, references) =
            before.map(|hint| (hint.hits, hint.references.clone())).unwrap_or_default();
        self.tick = self.tick.saturating_add(1);
        let hint = Hint { size, last_use: now, hits, references };
        self.set(
            digest,
            KnownObject { hint, tick: self.tick, added: self.tick, proof, is_cold: false },
        );
        self.note(digest);
    }

    /// Nobody has read what has just come.
    pub(super) fn cool(&mut self, digest: &Digest) {
        if let Some(known) = self.hints.get_mut(digest) {
            known.is_cold = true;
        }
    }

    pub(super) fn is_cold(&self, digest: &Digest) -> bool {
        self.hints.get(digest).is_some_and(|known| known.is_cold)
    }

    /// Notes a use of what is known; what is not has gone meanwhile. What nobody has read yet is
    /// not used by being asked for.
    pub(super) fn touch(&mut self, digest: &Digest, now: UnixSeconds) {
        let Some(known) = self.hints.get_mut(digest) else { return };
        known.hint.hits = known.hint.hits.saturating_add(1);
        if !known.is_cold {
            self.tick = self.tick.saturating_add(1);
            known.tick = self.tick;
            known.hint.last_use = now;
        }
        self.note(digest);
    }

    /// What nobody had read has been.
    pub(super) fn warm(&mut self, digest: &Digest, now: UnixSeconds) {
        let Some(known) = self.hints.get_mut(digest).filter(|known| known.is_cold) else { return };
        self.tick = self.tick.saturating_add(1);
        known.tick = self.tick;
        known.is_cold = false;
        known.hint.last_use = now;
        self.note(digest);
    }

    pub(super) fn remove(&mut self, digest: &Digest) {
        self.unset(digest);
        self.note(digest);
    }

    /// Takes over what was known before this run; what this run knows is newer.
    pub(super) fn merge(&mut self, digest: &Digest, hint: Hint) {
        if self.hints.contains_key(digest) {
            self.learn(digest, hint.references);
        } else if !self.changed.contains(digest) {
            let references = hint.references;
            let hint = Hint { references: References::Unknown, ..hint };
            self.set(
                digest,
                KnownObject { hint, tick: 0, added: 0, proof: Proof::None, is_cold: false },
            );
            self.learn_unnoted(digest, references);
        }
    }

    /// What an object needs has become known; it never changes. Where there is no room for it,
    /// that is remembered instead.
    pub(super) fn learn(&mut self, digest: &Digest, references: References) {
        if self.learn_unnoted(digest, references) {
            self.note(digest);
        }
    }

    /// Whether that was new.
    fn learn_unnoted(&mut self, digest: &Digest, references: References) -> bool {
        let Some(known) = self.hints.get_mut(digest) else { return false };
        let slot = &mut known.hint.references;
        if *slot != References::Unknown || references == References::Unknown {
            return false;
        }
        let sum = self.reference_bytes.saturating_add(references.bytes() as u64);
        if sum > self.reference_room {
            *slot = References::NoRoom;
            return true;
        }
        *slot = references;
        self.reference_bytes = sum;
        true
    }

    #[cfg(test)]
    pub(super) fn reference_bytes(&self) -> u64 {
        self.reference_bytes
    }

    /// Whether what one more document needs may be remembered.
    pub(super) fn has_reference_room(&self) -> bool {
        self.reference_bytes < self.reference_room
    }

    /// Objects of which it is not known what they need: at most `limit` of them.
    pub(super) fn unread(&self, limit: usize) -> Vec<(Digest, u64)> {
        let unread =
            self.hints.iter().filter(|(_, known)| known.hint.references == References::Unknown);
        unread.map(|(digest, known)| (*digest, known.hint.size)).take(limit).collect()
    }

    /// What an object needs can't be learnt now.
    pub(super) fn give_up(&mut self, digest: &Digest) {
        if let Some(known) = self.hints.get_mut(digest)
            && known.hint.references == References::Unknown
        {
            known.hint.references = References::NoRoom;
        }
    }

    /// What an object needs.
    pub(super) fn references(&self, digest: &Digest) -> References {
        self.hints.get(digest).map(|known| known.hint.references.clone()).unwrap_or_default()
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
        changed
            .into_iter()
            .map(|digest| (digest, self.hints.get(&digest).map(|known| known.hint.clone())))
            .collect()
    }

    pub(super) fn knows(&self, digest: &Digest) -> bool {
        self.hints.contains_key(digest)
    }

    pub(super) fn size(&self, digest: &Digest) -> Option<u64> {
        self.hints.get(digest).map(|known| known.hint.size)
    }

    pub(super) fn proof(&self, digest: &Digest) -> Proof {
        self.hints.get(digest).map_or(Proof::None, |known| known.proof)
    }

    /// Remembers what is known of an object's bytes as long as the object is kept.
    pub(super) fn prove(&mut self, digest: &Digest, proof: Proof) {
        if let Some(known) = self.hints.get_mut(digest) {
            known.proof = proof;
        }
    }

    pub(super) fn has_larger(&self, size: u64) -> bool {
        self.hints.values().any(|known| known.hint.size > size)
    }

    pub(super) fn totals(&self) -> Totals {
        let (evicted_objects, evicted_bytes) = self.evicted;
        let objects = self.hints.len() as u64;
        let quarantined_objects = self.quarantined;
        Totals { objects, bytes: self.bytes, evicted_objects, evicted_bytes, quarantined_objects }
    }

    /// What is known of at most `limit` objects behind `after`, in their order.
    pub(super) fn kept(&self, after: Option<&Digest>, limit: usize) -> Vec<Kept> {
        let behind = self.hints.keys().filter(|digest| after.is_none_or(|after| *digest > after));
        let mut digests: Vec<&Digest> = behind.collect();
        if digests.len() > limit {
            digests.select_nth_unstable(limit);
            digests.truncate(limit);
        }
        digests.sort_unstable();
        digests
            .into_iter()
            .filter_map(|digest| Some(self.hints.get(digest)?.kept(digest)))
            .collect()
    }

    /// What is known of one object.
    pub(super) fn find(&self, digest: &Digest) -> Option<Kept> {
        let known = self.hints.get(digest).filter(|known| known.proof != Proof::Damaged);
        known.map(|known| known.kept(digest))
    }

    /// A damaged object was set aside.
    pub(super) fn count_quarantined(&mut self) {
        self.quarantined = self.quarantined.saturating_add(1);
    }

    /// `candidate`, which came at `added`, was taken out; if it came again since, it is there.
    pub(super) fn take_out(&mut self, candidate: &Candidate, added: Option<u64>, why: TakenOut) {
        if why == TakenOut::Evicted {
            let (objects, bytes) = self.evicted;
            self.evicted = (objects.saturating_add(1), bytes.saturating_add(candidate.size));
        }
        if self.added(&candidate.digest) == added {
            self.remove(&candidate.digest);
        }
    }

    /// At which tick of this run an object came; 0: before this run.
    pub(super) fn added(&self, digest: &Digest) -> Option<u64> {
        self.hints.get(digest).map(|known| known.added)
    }

    pub(super) fn tick(&self, digest: &Digest) -> Option<u64> {
        self.hints.get(digest).map(|known| known.tick)
    }

    pub(super) fn node(&self, digest: &Digest, now: UnixSeconds) -> Option<Node> {
        self.hints.get(digest).map(|known| known.node(digest, now))
    }

    pub(super) fn nodes(&self, now: UnixSeconds) -> Vec<Node> {
        self.hints.iter().map(|(digest, known)| known.node(digest, now)).collect()
    }

    /// Whether something that came just now is in no batch any more.
    pub(super) fn came_late(&mut self) -> bool {
        let is_late = self.end != LastBatch::NotYet;
        if is_late {
            self.end = LastBatch::Outdated;
        }
        is_late
    }

    /// Marks a hint that was found on the walk for writing.
    pub(super) fn note(&mut self, digest: &Digest) {
        if self.state != IndexState::InMemory || !self.complete {
            self.changed.insert(*digest);
        }
    }

    fn set(&mut self, digest: &Digest, known: KnownObject) {
        self.unset(digest);
        self.bytes = self.bytes.saturating_add(known.hint.size);
        let references = known.hint.references.bytes() as u64;
        self.reference_bytes = self.reference_bytes.saturating_add(references);
        self.hints.insert(*digest, known);
    }

    fn unset(&mut self, digest: &Digest) {
        let Some(before) = self.hints.remove(digest) else { return };
        self.bytes = self.bytes.saturating_sub(before.hint.size);
        let references = before.hint.references.bytes() as u64;
        self.reference_bytes = self.reference_bytes.saturating_sub(references);
    }
}

impl KnownObject {
    fn kept(&self, digest: &Digest) -> Kept {
        let Hint { size, last_use, hits, .. } = self.hint;
        let last_use = last_use.time().unwrap_or(UNIX_EPOCH);
        Kept { digest: *digest, size, last_use, hits, is_pinned: false }
    }

    /// A use in the future is one of before the clock was set: it counts as now.
    fn node(&self, digest: &Digest, now: UnixSeconds) -> Node {
        let Hint { size, last_use, references, .. } = &self.hint;
        let (last_use, tick) = ((*last_use).min(now), self.tick);
        let candidate = Candidate { last_use, tick, size: *size, digest: *digest };
        Node { candidate, is_wanted: !self.is_cold, references: references.clone() }
    }
}
