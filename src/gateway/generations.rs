//! Which knowledge of a repository is from before the last write to it.
//!
//! Who pushes or deletes through the proxy reads his own writes: what was learnt before counts as
//! old from then on, and what is learnt by a question that was asked before is not remembered. So
//! every question and every piece of knowledge carries its repository's generation.

use entrepot_oci::Registry;
use moka::sync::Cache;

use super::access::Place;
use crate::memory::{Shares, table};

/// How many writes were seen in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Generation {
    here: u64,
    anywhere: u64,
}

/// The generations of all repositories.
pub(super) struct Generations {
    places: Cache<Place, u64>,
    /// Of writes that do not say which repository they are about.
    registries: Cache<Registry, u64>,
}

impl Generations {
    /// Nothing was written yet. A generation that is dropped begins anew, which makes what is known
    /// old.
    pub(super) fn new(shares: Shares) -> Self {
        let places = table(shares.large_table(), |place: &Place, _| place.weight());
        let registries =
            table(shares.small_table(), |registry: &Registry, _| registry.as_str().len());
        Self { places: places.build(), registries: registries.build() }
    }

    /// The generation of what is learnt by a question that is asked now.
    pub(super) fn now(&self, place: &Place) -> Generation {
        Generation {
            here: self.places.get(place).unwrap_or_default(),
            anywhere: self.registries.get(&place.registry).unwrap_or_default(),
        }
    }

    /// Something may have been written to a repository.
    pub(super) fn written(&self, place: &Place) {
        count(&self.places, place);
    }

    /// Something may have been written somewhere in a registry.
    pub(super) fn written_somewhere(&self, registry: &Registry) {
        count(&self.registries, registry);
    }
}

fn count<K>(counts: &Cache<K, u64>, key: &K)
where
    K: std::hash::Hash + Eq + Clone + Send + Sync + 'static,
{
    let next = |before: Option<moka::Entry<K, u64>>| before.map_or(1, |count| count.value() + 1);
    counts.entry_by_ref(key).and_upsert_with(next);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_makes_what_was_known_of_its_repository_old() {
        let place = |repository: &str| {
            let registry = Registry::at(&"ghcr.io:443".parse().unwrap());
            Place::new(&registry, &repository.parse().unwrap())
        };
        let generations = Generations::new(Shares::new(Some(0)));
        let (one, other) = (place("a/b"), place("c/d"));
        let before = (generations.now(&one), generations.now(&other));
        generations.written(&one);
        assert_ne!(generations.now(&one), before.0);
        assert_eq!(generations.now(&other), before.1);
        generations.written_somewhere(&one.registry);
        assert_ne!(generations.now(&other), before.1);
    }
}
