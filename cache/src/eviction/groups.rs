//! What leaves together: a document and all that it needs, so that what remains is whole images.
//!
//! A *top* is an object that no other needs: an index, a manifest, or something of its own. Every
//! object belongs to the most recently used top that needs it, so an older one can leave without
//! what a newer one shares with it.
//!
//! A top counts as used when anything was that leads to it alone: itself, a document that it needs,
//! or an object that only one document needs. (A layer that two images share says nothing on which
//! of them was used.)
//!
//! Everything here is linear in objects and references but for sorting; documents come from
//! strangers and may form chains of any length, so nothing recurs.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use entrepot_oci::{Digest, UnixSeconds};

use crate::index::node::{Candidate, Node};

/// What decides which group goes first: the least does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Priority {
    /// Whether all of it is small enough to be kept.
    fits: bool,
    /// Whether somebody has read all of it.
    is_wanted: bool,
    /// When, then the tick of this run.
    used: (UnixSeconds, u64),
}

/// Objects that leave together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    priority: Priority,
    /// A document comes before what it needs.
    pub(super) members: Vec<Candidate>,
}

impl Group {
    /// When it was last used.
    pub(super) const fn last_use(&self) -> UnixSeconds {
        self.priority.used.0
    }

    /// Whether it has, or needs, an object that is too large to be kept.
    pub(super) const fn is_too_large(&self) -> bool {
        !self.priority.fits
    }

    fn bytes(&self) -> u64 {
        self.members.iter().fold(0, |sum, member| sum.saturating_add(member.size))
    }
}

/// The fewest first of `groups` that have `need` bytes together, or all of them.
pub(super) fn enough(groups: Vec<Group>, need: u64) -> impl Iterator<Item = Group> {
    enough_of(groups, need, Group::bytes)
}

/// The fewest first of `groups` that have `need` objects together, or all of them.
pub(super) fn enough_objects(groups: Vec<Group>, need: u64) -> impl Iterator<Item = Group> {
    enough_of(groups, need, |group| group.members.len() as u64)
}

fn enough_of(
    groups: Vec<Group>,
    need: u64,
    amount: fn(&Group) -> u64,
) -> impl Iterator<Item = Group> {
    let mut sum = 0_u64;
    groups.into_iter().take_while(move |group| {
        let is_wanted = sum < need;
        sum = sum.saturating_add(amount(group));
        is_wanted
    })
}

/// Divides `nodes` into groups: first those that are too large (above `largest` bytes), then the
/// others, longest unused first. What is `spared`, and what that needs, is in none.
pub(super) fn groups(nodes: &[Node], spared: &HashSet<Digest>, largest: u64) -> Vec<Group> {
    let graph = Graph::new(nodes);
    let order = graph.children_first();
    let mut taken = Marks::new(nodes.len());
    for root in graph.named(spared) {
        graph.take(root, &mut taken);
    }
    let fits = |at: usize, size: u64| size <= largest || taken.has(at);
    let priorities = graph.priorities(&order, fits);
    let mut ranks = vec![0; nodes.len()];
    for (rank, at) in order.iter().enumerate() {
        ranks.get_mut(*at).into_iter().for_each(|slot| *slot = rank);
    }
    // Who takes first has what it shares. Tops before all: what is no top and not taken by one
    // needs itself, which no honest document does.
    let mut heads = order;
    heads.sort_by_cached_key(|at| {
        let priority = priorities.get(*at).copied().unwrap_or_default();
        Reverse((graph.needers(*at) == 0, priority, graph.candidate(*at)))
    });
    let group = |head: usize| {
        let mut members = graph.take(head, &mut taken);
        members.sort_unstable_by_key(|at| Reverse(ranks.get(*at).copied()));
        let members = members.into_iter().filter_map(|at| graph.candidate(at)).collect();
        Group { priority: priorities.get(head).copied().unwrap_or_default(), members }
    };
    let groups = heads.into_iter().map(group).filter(|group| !group.members.is_empty());
    let mut groups: Vec<Group> = groups.collect();
    groups.reverse();
    groups
}

/// All of `nodes`, each document before what it needs.
pub(crate) fn documents_first(nodes: &[Node]) -> Vec<Candidate> {
    let graph = Graph::new(nodes);
    let order = graph.children_first().into_iter().rev();
    order.filter_map(|at| graph.candidate(at)).collect()
}

/// Which object needs which, by places in a list of nodes.
struct Graph<'a> {
    nodes: &'a [Node],
    places: HashMap<Digest, usize>,
    needs: Vec<Vec<usize>>,
    needers: Vec<usize>,
}

impl<'a> Graph<'a> {
    fn new(nodes: &'a [Node]) -> Self {
        let places: HashMap<Digest, usize> =
            nodes.iter().enumerate().map(|(at, node)| (node.candidate.digest, at)).collect();
        let place = |digest: Digest| places.get(&digest).copied();
        let needs = |node: &Node| node.references.remembered().filter_map(place).collect();
        let needs: Vec<Vec<usize>> = nodes.iter().map(needs).collect();
        let mut needers = vec![0_usize; nodes.len()];
        for child in needs.iter().flatten() {
            needers.get_mut(*child).into_iter().for_each(|count| *count = count.saturating_add(1));
        }
        Self { nodes, places, needs, needers }
    }

    fn needs(&self, at: usize) -> &[usize] {
        self.needs.get(at).map(Vec::as_slice).unwrap_or_default()
    }

    fn needers(&self, at: usize) -> usize {
        self.needers.get(at).copied().unwrap_or_default()
    }

    fn candidate(&self, at: usize) -> Option<Candidate> {
        self.nodes.get(at).map(|node| node.candidate)
    }

    fn is_document(&self, at: usize) -> bool {
        self.nodes.get(at).is_some_and(|node| node.references.are_of_document())
    }

    fn named(&self, digests: &HashSet<Digest>) -> Vec<usize> {
        digests.iter().filter_map(|digest| self.places.get(digest).copied()).collect()
    }

    /// All places, each after those that it needs.
    fn children_first(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut seen = Marks::new(self.nodes.len());
        let mut path: Vec<(usize, usize)> = Vec::new();
        for root in 0..self.nodes.len() {
            if seen.set(root) {
                path.push((root, 0));
            }
            while let Some((at, next)) = path.last_mut() {
                if let Some(child) = self.needs(*at).get(*next) {
                    *next = next.saturating_add(1);
                    if seen.set(*child) {
                        path.push((*child, 0));
                    }
                } else {
                    order.push(*at);
                    path.pop();
                }
            }
        }
        order
    }

    /// The priority of every place, by itself and by what it needs.
    fn priorities(
        &self,
        children_first: &[usize],
        fits: impl Fn(usize, u64) -> bool,
    ) -> Vec<Priority> {
        let own = |(at, node): (usize, &Node)| {
            let Candidate { last_use, tick, size, .. } = node.candidate;
            Priority { fits: fits(at, size), is_wanted: node.is_wanted, used: (last_use, tick) }
        };
        let mut priorities: Vec<Priority> = self.nodes.iter().enumerate().map(own).collect();
        for at in children_first {
            let Some(mut priority) = priorities.get(*at).copied() else { continue };
            for child in self.needs(*at) {
                let Some(below) = priorities.get(*child) else { continue };
                priority.fits &= below.fits;
                if self.is_document(*child) || self.needers(*child) == 1 {
                    priority.used = priority.used.max(below.used);
                    // An image is wanted where all of it is.
                    priority.is_wanted &= below.is_wanted;
                }
            }
            priorities.get_mut(*at).into_iter().for_each(|slot| *slot = priority);
        }
        priorities
    }

    /// Takes `root` and all that it needs, but for what is taken already.
    ///
    /// Invariant of `taken`: what something that is taken needs is taken too.
    fn take(&self, root: usize, taken: &mut Marks) -> Vec<usize> {
        let mut found = Vec::new();
        if taken.set(root) {
            found.push(root);
        }
        let mut next = 0;
        while let Some(at) = found.get(next).copied() {
            next += 1;
            found.extend(self.needs(at).iter().copied().filter(|child| taken.set(*child)));
        }
        found
    }
}

/// One bit a place.
struct Marks(Vec<bool>);

impl Marks {
    fn new(len: usize) -> Self {
        Self(vec![false; len])
    }

    fn has(&self, at: usize) -> bool {
        self.0.get(at).copied().unwrap_or_default()
    }

    /// Whether it was not set before.
    fn set(&mut self, at: usize) -> bool {
        self.0.get_mut(at).is_some_and(|mark| !std::mem::replace(mark, true))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use entrepot_oci::{Algorithm, Digest, UnixSeconds};
    use proptest::prelude::*;

    use super::{Candidate, Group, Node, enough, groups};
    use crate::index::references::References;

    fn digest(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_be_bytes())
    }

    fn node(number: usize, last_use: u64, size: u64, needs: &[usize]) -> Node {
        let last_use = UnixSeconds(last_use);
        let candidate = Candidate { last_use, tick: 0, size, digest: digest(number) };
        let references = References::Known(needs.iter().map(|one| digest(*one)).collect());
        Node { candidate, is_wanted: true, references }
    }

    fn numbers(group: &Group) -> Vec<usize> {
        let number = |one: &Candidate| (0..100).find(|n| digest(*n) == one.digest).unwrap();
        group.members.iter().map(number).collect()
    }

    fn divided(nodes: &[Node], spared: &[usize], largest: u64) -> Vec<Vec<usize>> {
        let spared = spared.iter().map(|one| digest(*one)).collect();
        let groups = groups(nodes, &spared, largest);
        groups
            .iter()
            .map(|group| {
                let mut numbers = numbers(group);
                numbers.sort_unstable();
                numbers
            })
            .collect()
    }

    /// An old index with two manifests, a newer manifest that shares the layer 5, and a stray.
    fn two_images() -> Vec<Node> {
        vec![
            node(0, 10, 1, &[1, 2]),
            node(1, 10, 1, &[4, 5]),
            node(2, 10, 1, &[6, 77]),
            node(3, 20, 1, &[5, 7]),
            node(4, 11, 100, &[]),
            node(5, 21, 100, &[]),
            node(6, 12, 100, &[]),
            node(7, 22, 100, &[]),
            node(8, 15, 100, &[]),
        ]
    }

    #[test]
    fn an_image_leaves_whole_but_for_what_a_newer_one_needs() {
        let nodes = two_images();
        assert_eq!(divided(&nodes, &[], u64::MAX), [vec![0, 1, 2, 4, 6], vec![8], vec![3, 5, 7]]);
        let first = &groups(&nodes, &HashSet::new(), u64::MAX)[0];
        let members = numbers(first);
        assert_eq!((members[0], first.last_use()), (0, UnixSeconds(12)));
        let place = |number| members.iter().position(|one| *one == number).unwrap();
        assert!(place(1) < place(4) && place(2) < place(6));
    }

    #[test]
    fn what_is_spared_keeps_all_that_it_needs() {
        let nodes = two_images();
        assert_eq!(divided(&nodes, &[1], u64::MAX), [vec![0, 2, 6], vec![8], vec![3, 7]]);
        assert_eq!(divided(&nodes, &[0], u64::MAX), [vec![8], vec![3, 7]]);
        assert_eq!(divided(&nodes, &[6], u64::MAX)[0], [0, 1, 2, 4]);
    }

    #[test]
    fn an_image_is_used_when_a_part_of_it_is() {
        let mut nodes = two_images();
        nodes[1].candidate.last_use = UnixSeconds(30);
        assert_eq!(divided(&nodes, &[], u64::MAX), [vec![8], vec![3, 7], vec![0, 1, 2, 4, 5, 6]]);
        let mut nodes = two_images();
        nodes[4].candidate.last_use = UnixSeconds(30);
        assert_eq!(divided(&nodes, &[], u64::MAX)[0], [8]);
        let mut nodes = two_images();
        nodes[5].candidate.last_use = UnixSeconds(30);
        assert_eq!(divided(&nodes, &[], u64::MAX)[0], [0, 1, 2, 4, 6], "whose layer is it?");
    }

    #[test]
    fn what_can_not_be_whole_goes_first() {
        let mut nodes = two_images();
        nodes[7].candidate.size = 1_000;
        let groups = groups(&nodes, &HashSet::new(), 500);
        assert_eq!(groups.iter().filter(|group| group.is_too_large()).count(), 1);
        assert_eq!(divided(&nodes, &[], 500)[0], [3, 7]);
        assert_eq!(divided(&nodes, &[3], 500)[0], [0, 1, 2, 4, 6]);
    }

    #[test]
    fn documents_that_need_each_other_and_long_chains_end() {
        let nodes = [node(0, 1, 1, &[1]), node(1, 2, 1, &[2]), node(2, 3, 1, &[0])];
        assert_eq!(divided(&nodes, &[], u64::MAX), [[0, 1, 2]]);
        let chain: Vec<Node> = (0..20_000).map(|n| node(n, 1, 1, &[n + 1])).collect();
        assert_eq!(groups(&chain, &HashSet::new(), u64::MAX)[0].members.len(), 20_000);
    }

    /// Objects as (last use, size, whom it needs): needs go to higher places only.
    fn graphs() -> impl Strategy<Value = Vec<Node>> {
        let one = (0_u64..8, 1_u64..50, prop::collection::vec(1_usize..12, 0..4));
        prop::collection::vec(one, 1..40).prop_map(|all| {
            let node = |(at, (used, size, steps)): (usize, (u64, u64, Vec<usize>))| {
                node(at, used, size, &steps.iter().map(|step| at + step).collect::<Vec<_>>())
            };
            all.into_iter().enumerate().map(node).collect()
        })
    }

    fn sum<'a>(groups: impl IntoIterator<Item = &'a Group>) -> u64 {
        groups.into_iter().flat_map(|group| &group.members).map(|one| one.size).sum()
    }

    proptest! {
        #[test]
        fn whatever_goes_first_leaves_whole_documents(
            nodes in graphs(),
            spared in prop::collection::hash_set(0_usize..40, 0..4),
            need in 0_u64..1_500,
        ) {
            let spared: HashSet<Digest> = spared.into_iter().map(digest).collect();
            let groups = groups(&nodes, &spared, 45);
            let mut seen = HashSet::new();
            let mut members = groups.iter().flat_map(|group| &group.members);
            prop_assert!(members.all(|one| seen.insert(one.digest)));
            prop_assert!(seen.is_disjoint(&spared));
            prop_assert!(groups.iter().map(|group| group.priority).is_sorted());

            let goes: Vec<Group> = enough(groups.clone(), need).collect();
            prop_assert!(sum(&goes) >= need || goes.len() == groups.len());
            if let Some((_, others)) = goes.split_last() {
                prop_assert!(sum(others) < need);
            }
            let mut gone = HashSet::new();
            for member in goes.iter().flat_map(|group| &group.members) {
                gone.insert(member.digest);
                // Also when it ends in the middle of a group: documents go before what they need.
                for kept in nodes.iter().filter(|node| !gone.contains(&node.candidate.digest)) {
                    let mut needs = kept.references.remembered();
                    prop_assert!(needs.all(|one| !gone.contains(&one)));
                }
            }
        }
    }
}
