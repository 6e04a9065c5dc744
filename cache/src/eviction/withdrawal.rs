//! Taking documents out of the store, with all that nothing else needs.

use std::collections::HashSet;

use crate::Digest;
use crate::disk::DiskError;
use crate::download::in_flight::Boarding;
use crate::download::origin::Origin;
use crate::eviction::{Candidate, Node, documents_first};
use crate::inner::Shared;

/// What was taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Withdrawn {
    /// Number of objects.
    pub objects: u64,
    /// Their sizes' sum in bytes.
    pub bytes: u64,
}

/// How far a withdrawal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To the documents and all that they need.
    All,
    /// To these objects alone.
    Alone,
}

/// Takes out `documents`, as far as `reach` says, but for what is `exempt` or pinned, what any other
/// kept document is or needs, and what is asked for just now. Blocks.
pub(crate) fn withdraw(
    shared: &Shared,
    documents: HashSet<Digest>,
    exempt: HashSet<Digest>,
    reach: Reach,
) -> Result<Withdrawn, DiskError> {
    let nodes = shared.index.nodes();
    let doomed = match reach {
        Reach::All => shared.index.closure(documents),
        Reach::Alone => documents,
    };
    let is_other = |node: &&Node| {
        !node.references.as_slice().is_empty() && !doomed.contains(&node.candidate.digest)
    };
    let others = nodes.iter().filter(is_other).map(|node| node.candidate.digest);
    let stay: HashSet<Digest> = exempt.into_iter().chain(shared.pins.all()).chain(others).collect();
    let stay = shared.index.closure(stay);
    let goes = |node: &Node| {
        doomed.contains(&node.candidate.digest) && !stay.contains(&node.candidate.digest)
    };
    let going: Vec<Node> = nodes.into_iter().filter(goes).collect();

    let mut withdrawn = Withdrawn::default();
    let mut needed = HashSet::new();
    for candidate in documents_first(&going) {
        if needed.contains(&candidate.digest) {
            continue;
        }
        if take_out(shared, &candidate)? {
            withdrawn.objects = withdrawn.objects.saturating_add(1);
            withdrawn.bytes = withdrawn.bytes.saturating_add(candidate.size);
        } else {
            needed.extend(shared.index.closure([candidate.digest].into()));
        }
    }
    Ok(withdrawn)
}

/// Takes one object out, unless it was asked for or pinned since it was chosen; who reads it reads
/// on. It is reserved meanwhile, so that nobody can publish it under the removal.
fn take_out(shared: &Shared, candidate: &Candidate) -> Result<bool, DiskError> {
    let digest = &candidate.digest;
    let Boarding::Lead(_reserved) = shared.flights.board(digest, &Origin::new("")) else {
        return Ok(false);
    };
    let was_used = shared.index.turn(digest).is_some_and(|turn| turn != candidate.turn);
    if was_used || shared.pins.has(digest) {
        return Ok(false);
    }
    shared.tree.disk().remove(&shared.tree.blob(digest))?;
    shared.gone(digest);
    Ok(true)
}
