//! Tables of small things that strangers bring about: bounded by what is in them, not by their
//! number alone.

use std::hash::Hash;

use moka::sync::{Cache, CacheBuilder};

/// What an entry takes beside what is in it: its places in the table and in the order of use.
const ENTRY: usize = 256;

/// A host, a repository, or a tag at its longest.
pub(crate) const NAME: usize = 255;

/// A table that takes at most so many bytes, where `weight` is what an entry has on the heap. An
/// entry that is too heavy for it is not kept.
pub(crate) fn table<K, V>(
    bytes: u64,
    weight: impl Fn(&K, &V) -> usize + Send + Sync + 'static,
) -> CacheBuilder<K, V, Cache<K, V>>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    let weigh = move |key: &K, value: &V| {
        let fixed = ENTRY + size_of::<K>() + size_of::<V>();
        u32::try_from(fixed.saturating_add(weight(key, value))).unwrap_or(u32::MAX)
    };
    Cache::builder().max_capacity(bytes).weigher(weigh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_holds_no_more_than_its_bytes() {
        let table = table(100_000, |_: &u32, value: &String| value.len()).build();
        table.insert(0, "x".repeat(200_000));
        for number in 1..1_000 {
            table.insert(number, "x".repeat(1_000));
        }
        table.run_pending_tasks();
        assert_eq!(table.get(&0), None);
        assert!((1..=80).contains(&table.entry_count()), "{}", table.entry_count());
        assert!(table.weighted_size() <= 100_000);
    }
}
