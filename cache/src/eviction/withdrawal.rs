//! Taking documents out of the store, with all that nothing else needs.

use std::collections::HashSet;

use entrepot_oci::Digest;

use super::groups::documents_first;
use super::stock::{Stock, Tally};
use crate::disk::DiskError;
use crate::index::TakenOut;
use crate::index::node::Node;

/// What was taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Withdrawn {
    /// Number of objects.
    pub objects: u64,
    /// Their sizes' sum in bytes.
    pub bytes: u64,
    /// Which they were, in the order of their names.
    pub digests: Vec<Digest>,
}

/// How far a withdrawal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To the documents and all that they need.
    All,
    /// To these objects alone.
    Alone,
}

/// Takes out `documents`, as far as `reach` says, but for what is `exempt` or pinned, what any
/// other kept document is or needs, and what is asked for just now. Blocks.
pub(crate) fn withdraw(
    stock: &Stock,
    documents: HashSet<Digest>,
    exempt: HashSet<Digest>,
    reach: Reach,
) -> Result<Withdrawn, DiskError> {
    let going = going(stock, documents, exempt, reach);
    let (mut tally, mut digests) = (Tally::default(), Vec::new());
    stock.take_all_out(documents_first(&going), &mut tally, |candidate| {
        let is_out = stock.take_out(candidate, TakenOut::Withdrawn)?;
        if is_out {
            digests.push(candidate.digest);
        }
        Ok::<_, DiskError>(is_out)
    })?;
    digests.sort_unstable();
    Ok(Withdrawn { objects: tally.objects, bytes: tally.bytes, digests })
}

/// What [`withdraw`] would take out, but that nothing need be asked for just now. Changes nothing.
/// Blocks.
pub(crate) fn foresee(
    stock: &Stock,
    documents: HashSet<Digest>,
    exempt: HashSet<Digest>,
) -> Withdrawn {
    let going = going(stock, documents, exempt, Reach::All);
    let bytes = going.iter().map(|node| node.candidate.size).sum();
    let mut digests: Vec<_> = going.iter().map(|node| node.candidate.digest).collect();
    digests.sort_unstable();
    Withdrawn { objects: digests.len() as u64, bytes, digests }
}

fn going(
    stock: &Stock,
    documents: HashSet<Digest>,
    exempt: HashSet<Digest>,
    reach: Reach,
) -> Vec<Node> {
    let nodes = stock.kept.index.nodes();
    let doomed = match reach {
        Reach::All => stock.closure(documents),
        Reach::Alone => documents,
    };
    let is_other = |node: &&Node| {
        node.references.are_of_document() && !doomed.contains(&node.candidate.digest)
    };
    let others = nodes.iter().filter(is_other).map(|node| node.candidate.digest);
    let stay: HashSet<Digest> = exempt.into_iter().chain(stock.pins.all()).chain(others).collect();
    let stay = stock.closure(stay);
    let goes = |node: &Node| {
        doomed.contains(&node.candidate.digest) && !stay.contains(&node.candidate.digest)
    };
    nodes.into_iter().filter(goes).collect()
}
