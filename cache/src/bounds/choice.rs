//! Which objects go: the least recently used, and no more of them than needed.

use std::collections::BinaryHeap;

use crate::Digest;

/// A kept object that may be evicted. In order of use, longest unused first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    /// Seconds since the epoch, not in the future.
    pub(crate) last_use: u64,
    /// Which use of this run that was; 0: it has not been used in this run.
    pub(crate) turn: u64,
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

/// The fewest least recently used of `candidates` that have `need` bytes together, or all of them.
///
/// Invariant of the heap: it is the shortest beginning, with `need` bytes, of what was seen so far
/// in order. So it holds no more than what goes.
pub(super) fn least_used(candidates: impl Iterator<Item = Candidate>, need: u64) -> Vec<Candidate> {
    let mut chosen = BinaryHeap::new();
    let mut bytes: u64 = 0;
    for candidate in candidates {
        if bytes >= need && chosen.peek().is_none_or(|newest| *newest <= candidate) {
            continue;
        }
        bytes = bytes.saturating_add(candidate.size);
        chosen.push(candidate);
        while let Some(newest) = chosen.peek() {
            let without = bytes.saturating_sub(newest.size);
            if without < need {
                break;
            }
            bytes = without;
            chosen.pop();
        }
    }
    chosen.into_sorted_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Candidate, least_used};
    use crate::{Algorithm, Digest};

    fn candidate(number: usize, last_use: u64, size: u64) -> Candidate {
        let digest = Digest::of(Algorithm::Sha256, &number.to_be_bytes());
        Candidate { last_use, turn: 0, size, digest }
    }

    proptest! {
        #[test]
        fn it_is_the_shortest_beginning_that_suffices(
            objects in prop::collection::vec((0_u64..20, 0_u64..100), 0..50),
            need in 0_u64..3_000,
        ) {
            let objects = objects.into_iter().enumerate();
            let all: Vec<_> = objects.map(|(n, (used, size))| candidate(n, used, size)).collect();
            let chosen = least_used(all.iter().copied(), need);
            let mut sorted = all.clone();
            sorted.sort_unstable();
            prop_assert_eq!(&chosen[..], &sorted[..chosen.len()]);
            let sum = |part: &[Candidate]| part.iter().map(|one| one.size).sum::<u64>();
            prop_assert!(sum(&chosen) >= need || chosen.len() == all.len());
            if let Some((_, others)) = chosen.split_last() {
                prop_assert!(sum(others) < need);
            }
        }
    }
}
