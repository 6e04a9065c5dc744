//! What tags stand for, as their registries said last.

use std::time::{Duration, SystemTime};

use entrepot_cache::{Fact, RecordError, Repository};
use entrepot_oci::{Digest, MediaType, Tag, UnixSeconds};
use http::HeaderMap;
use moka::sync::Cache;
use tokio::time::Instant;

use crate::bucket::merge::{SharedTag as TagRecord, SharedVariant as TagVariant};
use crate::gateway::accept::{Accept, accepts};
use crate::gateway::access::Place;
use crate::gateway::generations::Generation;
use crate::memory::{NAME, Shares, table};
use crate::records::Records;

/// For how long the object of a tag is waited for that may still come.
const SOON: Duration = Duration::from_mins(10);
/// Variants of one tag kept on disk: engines send a handful of different `Accept` fields.
const MOST_VARIANTS: usize = 16;

/// What a tag stands for, to a client that takes certain media types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct Resolution {
    pub(in crate::gateway) digest: Digest,
    pub(in crate::gateway) media_type: Option<MediaType>,
    pub(in crate::gateway) size: Option<u64>,
}

/// A resolution, and when the registry gave it.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct KnownResolution {
    pub(in crate::gateway) resolution: Resolution,
    pub(in crate::gateway) asked: SystemTime,
    /// `asked` on the monotonic clock; `None` when that was in another run.
    seen: Option<Instant>,
    /// Whether it is on record.
    is_written: bool,
    /// Of the question that it answers.
    pub(in crate::gateway) generation: Generation,
}

impl KnownResolution {
    /// How long ago the registry was asked. A clock that has been set back counts as for ever.
    pub(in crate::gateway) fn age(&self) -> Duration {
        match self.seen {
            Some(seen) => seen.elapsed(),
            None => self.asked.elapsed().unwrap_or(Duration::MAX),
        }
    }
}

/// A resolution as it is on record.
fn variant(accept: String, resolution: &Resolution, asked: UnixSeconds) -> TagVariant {
    TagVariant {
        accept,
        digest: resolution.digest.to_string(),
        media_type: resolution.media_type.as_ref().map(ToString::to_string),
        size: resolution.size,
        asked,
    }
}

fn known(variant: &TagVariant) -> Option<KnownResolution> {
    let media_type = variant.media_type.as_deref().and_then(MediaType::of_manifest);
    let digest = variant.digest.parse().ok()?;
    let asked = variant.asked.time()?;
    Some(KnownResolution {
        resolution: Resolution { digest, media_type, size: variant.size },
        asked,
        seen: None,
        is_written: true,
        generation: Generation::default(),
    })
}

type TagKey = (Place, Tag, Accept);

/// All tags.
pub(in crate::gateway) struct Tags {
    known: Cache<TagKey, KnownResolution>,
    /// What is to be written down once its object is kept: engines ask for the tag first, and then
    /// for what it stands for.
    unwritten: Cache<(Place, Digest), (Tag, Accept)>,
}

impl Tags {
    /// Nothing is known yet. A tag that is dropped costs a small read.
    pub(in crate::gateway) fn new(shares: Shares) -> Self {
        let weight = |(place, _, accept): &TagKey, _: &KnownResolution| {
            place.weight() + NAME + accept.as_str().len()
        };
        let known = table(shares.large_table(), weight).build();
        let weight = |key: &(Place, Digest), (_, accept): &(Tag, Accept)| {
            key.0.weight() + NAME + accept.as_str().len()
        };
        let unwritten = table(shares.small_table(), weight).time_to_live(SOON).build();
        Self { known, unwritten }
    }

    /// The object is kept now: writes down which tag has led to it.
    pub(in crate::gateway) async fn settle(
        &self,
        records: &Records,
        place: &Place,
        digest: &Digest,
    ) {
        let Some((tag, accept)) = self.unwritten.remove(&(place.clone(), *digest)) else { return };
        let entry = TagEntry { tags: self, records, place, tag: &tag, accept };
        if let Some(known) = self.known.get(&entry.key()) {
            entry.write(&known).await;
            let known = KnownResolution { is_written: true, ..known };
            self.known.insert(entry.key(), known);
        }
    }

    /// The records of `place` are to be read anew.
    pub(in crate::gateway) fn forget(&self, place: &Place) {
        self.forget_known(place, |_, _| true);
        let unwritten = self.unwritten.iter().filter(|(key, _)| key.0 == *place);
        unwritten.for_each(|(key, _)| self.unwritten.invalidate(&*key));
    }

    fn forget_known(&self, place: &Place, is_meant: impl Fn(&Tag, &Digest) -> bool) {
        let known = self
            .known
            .iter()
            .filter(|(key, known)| key.0 == *place && is_meant(&key.1, &known.resolution.digest));
        known.for_each(|(key, _)| self.known.invalidate(&*key));
    }

    /// The registry has it no more, or it stands for something else, for whichever clients. What it
    /// stood for.
    pub(in crate::gateway) async fn forget_tag(
        &self,
        records: &Records,
        place: &Place,
        tag: &Tag,
    ) -> Vec<Digest> {
        let record: TagRecord = records.fact(Fact::Tag(tag)).await.unwrap_or_default();
        self.forget_known(place, |known, _| known == tag);
        forget_record(records, tag).await;
        record.variants.iter().filter_map(|variant| variant.digest.parse().ok()).collect()
    }

    /// The registry has this no more: no tag stands for it.
    pub(in crate::gateway) async fn forget_digest(
        &self,
        records: &Records,
        place: &Place,
        digest: &Digest,
    ) {
        self.forget_known(place, |_, known| known == digest);
        let tags = match records.local().tags().await {
            Ok(tags) => tags,
            Err(error) => {
                tracing::warn!(%digest, %error, "the tags of a deleted manifest are not known");
                return;
            }
        };
        let name = digest.to_string();
        for tag in tags {
            let record: TagRecord = records.fact(Fact::Tag(&tag)).await.unwrap_or_default();
            if record.variants.iter().any(|variant| variant.digest == name) {
                forget_record(records, &tag).await;
            }
        }
    }
}

/// What other clients were told that one with these fields takes as well.
fn others(record: &TagRecord, headers: &HeaderMap) -> impl Iterator<Item = KnownResolution> {
    record.variants.iter().filter_map(known).filter(|known| {
        let media_type = known.resolution.media_type.as_ref();
        media_type.is_some_and(|media_type| accepts(headers, media_type))
    })
}

async fn forget_record(records: &Records, tag: &Tag) {
    if let Err(error) = records.forget_fact(Fact::Tag(tag)).await {
        tracing::warn!(%tag, %error, "a tag's record could not be removed");
    }
}

/// All that a record of a tag leads to.
pub(in crate::gateway) fn digests_of(record: serde_json::Value) -> Vec<Digest> {
    let record: TagRecord = serde_json::from_value(record).unwrap_or_default();
    record.variants.iter().filter_map(|variant| variant.digest.parse().ok()).collect()
}

/// What a tag stands for, to clients that take certain media types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Which manifest or index.
    pub digest: Digest,
    /// Its media type, where the registry said.
    pub media_type: Option<MediaType>,
    /// When the registry was last asked.
    pub asked: SystemTime,
}

/// What is on record of a tag, for whichever clients, what was asked last first.
pub(crate) async fn standings(records: &Repository, tag: &Tag) -> Vec<Standing> {
    let record: TagRecord = records.fact(Fact::Tag(tag)).await.unwrap_or_default();
    let known = record.variants.iter().filter_map(known);
    let mut standings: Vec<_> = known
        .map(
            |KnownResolution {
                 resolution: Resolution { digest, media_type, .. }, asked, ..
             }| { Standing { digest, media_type, asked } },
        )
        .collect();
    standings.sort_by_key(|standing| std::cmp::Reverse(standing.asked));
    standings
}

/// Puts on record that a tag stands for this as of now, to every client that takes it.
pub(in crate::gateway) async fn set(
    records: &Records,
    tag: &Tag,
    resolution: &Resolution,
) -> Result<(), RecordError> {
    let variant = variant(String::new(), resolution, UnixSeconds::now());
    records.record_fact(Fact::Tag(tag), TagRecord { variants: vec![variant] }).await
}

/// One tag of one repository, for clients that take certain media types.
pub(in crate::gateway) struct TagEntry<'a> {
    pub(in crate::gateway) tags: &'a Tags,
    pub(in crate::gateway) records: &'a Records,
    pub(in crate::gateway) place: &'a Place,
    pub(in crate::gateway) tag: &'a Tag,
    pub(in crate::gateway) accept: Accept,
}

impl TagEntry<'_> {
    fn key(&self) -> TagKey {
        (self.place.clone(), self.tag.clone(), self.accept.clone())
    }

    /// What the tag stood for when the registry was last asked, by another replica where this one
    /// has never met it.
    pub(in crate::gateway) async fn known(&self) -> Option<KnownResolution> {
        if let Some(known) = self.tags.known.get(&self.key()) {
            return Some(known);
        }
        let here = self.records.fact::<TagRecord>(Fact::Tag(self.tag)).await;
        let known = if let Some(record) = here {
            self.variant_of(&record)?
        } else {
            let known = self.variant_of(&self.records.shared_tag(self.tag).await?)?;
            let asked_for = (self.place.clone(), known.resolution.digest);
            self.tags.unwritten.insert(asked_for, (self.tag.clone(), self.accept.clone()));
            KnownResolution { is_written: false, ..known }
        };
        self.tags.known.insert(self.key(), known.clone());
        Some(known)
    }

    fn variant_of(&self, record: &TagRecord) -> Option<KnownResolution> {
        let is_ours = |variant: &&TagVariant| variant.accept == self.accept.as_str();
        record.variants.iter().find(is_ours).and_then(known)
    }

    /// Whether it is known what the tag stood for to other clients, if this one takes that as well.
    pub(in crate::gateway) async fn is_known_to_others(&self, headers: &HeaderMap) -> bool {
        let record = match self.records.fact::<TagRecord>(Fact::Tag(self.tag)).await {
            Some(record) => Some(record),
            None => self.records.shared_tag(self.tag).await,
        };
        record.is_some_and(|record| others(&record, headers).next().is_some())
    }

    /// All that the tag may stand for while the registry can't be asked, the best first: what this
    /// client was told, by whichever replica last; what was on record when that was last kept (it
    /// stays there until what the tag stands for now is kept too); what other clients were told
    /// that this one takes as well.
    pub(in crate::gateway) async fn candidates(&self, headers: &HeaderMap) -> Vec<KnownResolution> {
        let here: TagRecord = self.records.fact(Fact::Tag(self.tag)).await.unwrap_or_default();
        let shared = self.records.shared_tag(self.tag).await.unwrap_or_default();
        let (in_memory, of_fleet) = (self.tags.known.get(&self.key()), self.variant_of(&shared));
        let mut all: Vec<_> =
            [of_fleet, in_memory, self.variant_of(&here)].into_iter().flatten().collect();
        // Records tell seconds; within one, what another replica has heard is as good.
        all.sort_by_key(|known| std::cmp::Reverse(UnixSeconds::from(known.asked)));
        all.extend(others(&here.merged(shared), headers));
        all
    }

    /// What the tag stood for when anybody last had it asked.
    pub(in crate::gateway) async fn latest(
        tags: &Tags,
        records: &Records,
        place: &Place,
        tag: &Tag,
    ) -> Option<KnownResolution> {
        let record: TagRecord = records.fact(Fact::Tag(tag)).await?;
        let known = record.variants.iter().filter_map(|variant| {
            // The record is written again only once in a while.
            let key = (place.clone(), tag.clone(), Accept::recorded(&variant.accept));
            tags.known.get(&key).or_else(|| known(variant))
        });
        known.max_by_key(|known| known.asked)
    }

    /// The registry has just said what it stands for, asked in this generation. That is written
    /// down once the object is kept: without it no client is served by it after a restart, and
    /// strangers can ask for any tag.
    pub(in crate::gateway) async fn learn(
        &self,
        resolution: Resolution,
        is_kept: bool,
        generation: Generation,
    ) {
        let before = self.known().await.filter(|before| before.is_written);
        let (asked, seen) = (SystemTime::now(), Some(Instant::now()));
        let known = KnownResolution { resolution, asked, seen, is_written: is_kept, generation };
        self.tags.known.insert(self.key(), known.clone());
        // What has not changed is written again only once in a while: it tells its age.
        let is_written = before.is_some_and(|before| {
            before.resolution == known.resolution && before.age() < Duration::from_secs(10)
        });
        if !is_kept {
            let asked_for = (self.place.clone(), known.resolution.digest);
            self.tags.unwritten.insert(asked_for, (self.tag.clone(), self.accept.clone()));
        } else if !is_written {
            self.write(&known).await;
        }
    }

    async fn write(&self, known: &KnownResolution) {
        let fact = Fact::Tag(self.tag);
        let mut record: TagRecord = self.records.fact(fact).await.unwrap_or_default();
        record.variants.retain(|variant| variant.accept != self.accept.as_str());
        record.variants.truncate(MOST_VARIANTS - 1);
        let variant =
            variant(self.accept.as_str().to_owned(), &known.resolution, known.asked.into());
        record.variants.insert(0, variant);
        if let Err(error) = self.records.record_fact(fact, record).await {
            tracing::warn!(tag = %self.tag, %error, "a tag could not be recorded");
        }
    }

    /// The registry has it no more, for clients that take these media types.
    pub(in crate::gateway) async fn forget(&self) {
        self.tags.known.invalidate(&self.key());
        let fact = Fact::Tag(self.tag);
        let here = self.records.fact::<TagRecord>(fact).await;
        // One that is on record elsewhere alone goes as well.
        let there = async { self.records.shared_tag(self.tag).await };
        let Some(mut record) = (if here.is_some() { here } else { there.await }) else { return };
        record.variants.retain(|variant| variant.accept != self.accept.as_str());
        let changed = if record.variants.is_empty() {
            self.records.forget_fact(fact).await
        } else {
            self.records.replace_fact(fact, record).await
        };
        if let Err(error) = changed {
            tracing::warn!(tag = %self.tag, %error, "a tag's record could not be changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tag_is_remembered_for_each_accept_and_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            entrepot_cache::Store::open(entrepot_cache::Options::new(dir.path())).await.unwrap();
        let archive = crate::records::Archive::new(store, None);
        let records =
            archive.repository(&"docker.io".parse().unwrap(), &"library/alpine".parse().unwrap());
        let place = Place {
            registry: entrepot_oci::Registry::at(&"registry-1.docker.io:443".parse().unwrap()),
            repository: "library/alpine".parse().unwrap(),
        };
        let (tags, tag) = (Tags::new(Shares::new(Some(0))), "latest".parse().unwrap());
        let entry =
            |tags, accept| TagEntry { tags, records: &records, place: &place, tag: &tag, accept };
        let of = |bytes: &[u8]| Resolution {
            digest: Digest::of(entrepot_oci::Algorithm::Sha256, bytes),
            media_type: MediaType::of_manifest("application/vnd.oci.image.index.v1+json"),
            size: Some(5),
        };
        for accepted in ["a/a", "b/b"] {
            entry(&tags, Accept::recorded(accepted))
                .learn(of(accepted.as_bytes()), true, Generation::default())
                .await;
        }
        let again = Tags::new(Shares::new(Some(0)));
        for accepted in ["a/a", "b/b"] {
            let known = entry(&again, Accept::recorded(accepted)).known().await.unwrap();
            assert_eq!(known.resolution, of(accepted.as_bytes()));
            assert!(known.age() < Duration::from_mins(1));
        }
        assert!(entry(&again, Accept::recorded("c/c")).known().await.is_none());
        entry(&again, Accept::recorded("a/a")).forget().await;
        let (third, fourth) = (Tags::new(Shares::new(Some(0))), Tags::new(Shares::new(Some(0))));
        assert!(entry(&third, Accept::recorded("a/a")).known().await.is_none());
        assert!(entry(&third, Accept::recorded("b/b")).known().await.is_some());
        entry(&again, Accept::recorded("d/d")).learn(of(b"d"), false, Generation::default()).await;
        assert!(entry(&fourth, Accept::recorded("d/d")).known().await.is_none());
    }
}
