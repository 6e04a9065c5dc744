//! What may be taken out of a store, and taking it out.

use std::collections::HashSet;
use std::sync::Arc;

use entrepot_oci::Digest;

use super::pins::Pins;
use crate::bytes::kept::KeptObjects;
use crate::disk::DiskError;
use crate::download::in_flight::InFlight;
use crate::index::TakenOut;
use crate::index::node::Candidate;
use crate::index::references::{Interpreter, References};

/// The kept objects, and what it takes to see which of them may go.
#[derive(Debug)]
pub(crate) struct Stock {
    pub(crate) kept: Arc<KeptObjects>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) pins: Pins,
    pub(crate) documents: Interpreter,
}

/// How much was taken out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) objects: u64,
    pub(super) bytes: u64,
}

impl Stock {
    /// Takes one object out, unless it was pinned or used since it was chosen. Present readers
    /// read on. Blocks.
    ///
    /// The digest is reserved meanwhile: no download of it can begin, or publish, under the
    /// removal.
    pub(super) fn take_out(&self, candidate: &Candidate, why: TakenOut) -> Result<bool, DiskError> {
        let (digest, index) = (&candidate.digest, &self.kept.index);
        let Some(_reserved) = self.in_flight.reserve(digest) else { return Ok(false) };
        let added = index.added_at(digest);
        let was_used = index.tick(digest).is_some_and(|tick| tick != candidate.tick);
        if was_used || self.pins.has(digest) {
            return Ok(false);
        }
        self.kept.tree.disk().remove(&self.kept.tree.blob(digest))?;
        self.kept.open_files.forget(digest);
        index.taken_out(candidate, added, why);
        Ok(true)
    }

    /// `roots` and all that they need, read from the files where it is not remembered. Blocks.
    pub(super) fn closure(&self, roots: HashSet<Digest>) -> HashSet<Digest> {
        let mut rest: Vec<Digest> = roots.iter().copied().collect();
        let mut closure = roots;
        while let Some(digest) = rest.pop() {
            match self.kept.index.references(&digest) {
                known @ References::Known(_) => {
                    rest.extend(known.remembered().filter(|one| closure.insert(*one)));
                }
                References::Unknown | References::InFile | References::NoRoom => {
                    let needed = self.read(&digest).unwrap_or_default();
                    rest.extend(needed.into_iter().filter(|one| closure.insert(*one)));
                }
            }
        }
        closure
    }

    /// What an object needs, as its file says. Blocks.
    pub(crate) fn read(&self, digest: &Digest) -> Option<Vec<Digest>> {
        let file = self.kept.tree.disk().open(&self.kept.tree.blob(digest)).ok()?;
        self.documents.all_of_file(digest, &file, file.len().ok()?).ok()?
    }

    /// Takes `candidates` out by `take`, in their order: documents before what they need. What
    /// stays keeps what it needs. How much went is added to `tally`, also before an error.
    pub(super) fn take_all_out<E>(
        &self,
        candidates: impl IntoIterator<Item = Candidate>,
        tally: &mut Tally,
        mut take: impl FnMut(&Candidate) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut needed = HashSet::new();
        for candidate in candidates {
            if needed.contains(&candidate.digest) {
                continue;
            }
            if take(&candidate)? {
                tally.objects = tally.objects.saturating_add(1);
                tally.bytes = tally.bytes.saturating_add(candidate.size);
            } else {
                needed.extend(self.closure([candidate.digest].into()));
            }
        }
        Ok(())
    }
}
