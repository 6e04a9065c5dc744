//! How often each tag was pulled from the store, and when last: for people who clean up.
//!
//! An object is counted where it lies, by its digest, and many tags may stand for it. What is
//! counted here is put on record now and then, beside the tags, and by who is about to look.

use std::collections::HashMap;
use std::time::Duration;

use entrepot_cache::{Fact, Repository, Store};
use entrepot_oci::{Tag, UnixSeconds};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::gateway::access::Place;

/// Tags counted between two writes; more are counted at the next time they are asked for.
const MOST: usize = 10_000;
/// Tags on record of one repository, those that were used last: a record has a bound.
const MOST_ON_RECORD: usize = 500;
/// How often it is put on record.
const ROUND: Duration = Duration::from_mins(1);

/// How a tag was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TagUse {
    /// How often the store had what was asked for by it.
    pub hits: u64,
    /// When it was last asked for and served.
    pub last: UnixSeconds,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    tags: HashMap<String, TagUse>,
}

/// The uses since the last write.
#[derive(Debug, Default)]
pub(in crate::gateway) struct TagUses {
    counted: Mutex<HashMap<Place, HashMap<Tag, TagUse>>>,
    /// Held while a record is read and written again: who looks then finds it whole.
    turn: tokio::sync::Mutex<()>,
}

impl TagUses {
    /// Somebody has asked for this and was served, from the store or not.
    pub(super) fn note(&self, place: &Place, tag: &Tag, is_hit: bool) {
        let last = UnixSeconds::now();
        let mut counted = self.counted.lock();
        if let Some(use_) = counted.get_mut(place).and_then(|tags| tags.get_mut(tag)) {
            use_.hits = use_.hits.saturating_add(u64::from(is_hit));
            use_.last = last;
            return;
        }
        if counted.values().map(HashMap::len).sum::<usize>() < MOST {
            let tags = counted.entry(place.clone()).or_default();
            tags.insert(tag.clone(), TagUse { hits: u64::from(is_hit), last });
        }
    }

    /// Puts what was counted on record, now and then. Never ends.
    pub(in crate::gateway) async fn keep_writing(&self, store: &Store) {
        loop {
            tokio::time::sleep(ROUND).await;
            self.write(store).await;
        }
    }

    /// Puts what was counted on record now.
    pub(in crate::gateway) async fn write(&self, store: &Store) {
        let _turn = self.turn.lock().await;
        let counted = std::mem::take(&mut *self.counted.lock());
        for (place, tags) in counted {
            let records = store.repository(&place.registry, &place.repository);
            if let Err(error) = write(&records, tags).await {
                // It is a number for people: the next write has the next.
                tracing::debug!(%error, "the uses of tags could not be recorded");
            }
        }
    }
}

async fn write(
    records: &Repository,
    counted: HashMap<Tag, TagUse>,
) -> Result<(), entrepot_cache::RecordError> {
    let mut record: Record = records.fact(Fact::Uses).await.unwrap_or_default();
    for (tag, counted) in counted {
        let kept = record
            .tags
            .entry(tag.as_str().to_owned())
            .or_insert(TagUse { hits: 0, last: counted.last });
        kept.hits = kept.hits.saturating_add(counted.hits);
        kept.last = kept.last.max(counted.last);
    }
    // What no tag's record tells of is gone, or was never kept; a directory that can't be read
    // tells nothing.
    if let Ok(there) = records.tags().await {
        record.tags.retain(|name, _| there.iter().any(|tag| tag.as_str() == name));
    }
    if record.tags.is_empty() {
        return Ok(());
    }
    if record.tags.len() > MOST_ON_RECORD {
        let mut all: Vec<_> = record.tags.into_iter().collect();
        all.sort_by_key(|(_, use_)| std::cmp::Reverse(use_.last));
        all.truncate(MOST_ON_RECORD);
        record.tags = all.into_iter().collect();
    }
    records.record_fact(Fact::Uses, record).await
}

/// The uses on record of the tags of one repository.
pub(crate) async fn uses(records: &Repository) -> HashMap<String, TagUse> {
    let record: Record = records.fact(Fact::Uses).await.unwrap_or_default();
    record.tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tags_of_one_digest_are_counted_each_for_itself_and_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            entrepot_cache::Store::open(entrepot_cache::Options::new(dir.path())).await.unwrap();
        let registry = entrepot_oci::Registry::at(&"ghcr.io:443".parse().unwrap());
        let place = Place::new(&registry, &"org/app".parse().unwrap());
        let records = store.repository(&place.registry, &place.repository);
        let tag = |name: &str| name.parse::<Tag>().unwrap();
        for name in ["1", "latest"] {
            records.record_fact(Fact::Tag(&tag(name)), serde_json::json!({})).await.unwrap();
        }
        let counted = TagUses::default();
        for (name, is_hit) in
            [("1", false), ("1", true), ("1", true), ("latest", true), ("2", true)]
        {
            counted.note(&place, &tag(name), is_hit);
        }
        counted.write(&store).await;
        counted.note(&place, &tag("1"), true);
        counted.write(&store).await;
        counted.write(&store).await;
        let mut uses: Vec<_> =
            uses(&records).await.into_iter().map(|(name, use_)| (name, use_.hits)).collect();
        uses.sort();
        assert_eq!(uses, [("1".to_owned(), 3), ("latest".to_owned(), 1)], "2 is no tag on record");
    }
}
