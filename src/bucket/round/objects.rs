//! What there is, what is used, what goes.

use std::collections::HashMap;

use entrepot_cache::Kept;
use entrepot_oci::{Algorithm, Digest, UnixSeconds};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::plan::{Fate, There, fate};
use super::{AT_ONCE, RoundError, Step, Walk};
use crate::bucket::BucketError;
use crate::bucket::layout::{Entry, Prefix, Shard};

/// Marks without an object that are taken away at a time.
const MOST_ORPHANS: usize = 20_000;
/// Objects here that are looked at in one step: each page costs a look at all of them.
const PAGE: usize = 100_000;
/// How deep documents name documents that are used with them: indexes in indexes.
const DEPTH: usize = 3;
/// A mark without its object is older when it goes: an object may have just come.
const ORPHANED: u64 = 24 * 60 * 60;

/// What was seen.
pub(super) enum Survey {
    /// Everything, as it is now.
    Whole(Vec<(Digest, There)>),
    /// Too much to remember: it can be looked at again, shard by shard.
    Sharded(Vec<Shard>),
}

impl Walk<'_> {
    /// Notes when what documents need was last used with them.
    pub(super) async fn note_uses(&mut self) {
        if self.of.bounds.window().is_none() {
            return;
        }
        let documents = self.documents().await;
        for _ in 0..DEPTH {
            for (document, own) in &documents {
                self.note_uses_of(document, *own).await;
            }
        }
    }

    /// The documents that are kept here, with their last use.
    async fn documents(&self) -> Vec<(Digest, UnixSeconds)> {
        let (mut documents, mut after) = (Vec::new(), None);
        loop {
            let page = self.of.store.list(after.as_ref(), PAGE);
            let Some(last) = page.last() else { return documents };
            after = Some(last.digest);
            let is_document = |kept: &Kept| self.of.store.is_document(&kept.digest);
            let found = page.into_iter().filter(is_document);
            documents.extend(found.map(|kept| (kept.digest, kept.last_use.into())));
            tokio::task::yield_now().await;
        }
    }

    async fn note_uses_of(&mut self, document: &Digest, own: UnixSeconds) {
        let used = own.max(self.used.of(document).unwrap_or_default());
        if !self.of.bounds.is_in_use(used, self.now) {
            return;
        }
        for needed in self.of.store.references_of(document).await {
            let own = self.of.store.find(&needed).map(|kept| UnixSeconds::from(kept.last_use));
            if own.is_none_or(|own| own < used) {
                self.used.note(&needed, used);
            }
        }
    }

    /// Looks at every object there is: says which are used, removes what nobody has used for long,
    /// sums up the rest.
    pub(super) async fn look_at_objects(&mut self) -> Result<Survey, RoundError> {
        if let Some(all) = self.listed(None).await? {
            let kept = self.judge(all).await?;
            return Ok(Survey::Whole(kept));
        }
        let shards = self.shards().await?;
        for (at, shard) in shards.iter().enumerate() {
            let all = self.listed(Some(*shard)).await?.unwrap_or_default();
            self.judge(all).await?;
            let (done, total) = (at as u64, shards.len() as u64);
            self.progress(Step::Looking, done + 1, Some(total));
        }
        Ok(Survey::Sharded(shards))
    }

    /// The shards in which there may be something.
    async fn shards(&self) -> Result<Vec<Shard>, BucketError> {
        let behind = format!("{}/{}/", Prefix::Blobs(None), Algorithm::Sha512);
        let mut others = std::pin::pin!(self.of.bucket.list(&Prefix::Blobs(None), Some(&behind)));
        let has_others = others.next().await.transpose()?.is_some();
        let is_wanted = |Shard(algorithm, _): &Shard| has_others || *algorithm == Algorithm::Sha256;
        Ok(Shard::all().filter(is_wanted).collect())
    }

    /// The objects of a shard, or all of them unless they are too many to remember.
    async fn listed(
        &mut self,
        shard: Option<Shard>,
    ) -> Result<Option<Vec<(Digest, There)>>, BucketError> {
        let bucket = &self.of.bucket;
        let mut found: HashMap<Digest, There> = HashMap::new();
        let mut blobs = std::pin::pin!(bucket.list(&Prefix::Blobs(shard), None));
        while let Some(item) = blobs.next().await {
            let item = item?;
            let Ok(Entry::Blob(digest)) = item.name.parse() else { continue };
            let there = There { size: item.size, last_use: item.modified.into() };
            found.insert(digest, there);
            if shard.is_none() && found.len() > self.of.at_a_time {
                return Ok(None);
            }
        }
        let mut orphans = Vec::new();
        let mut marks = std::pin::pin!(bucket.list(&Prefix::Uses(shard), None));
        while let Some(item) = marks.next().await {
            let item = item?;
            let Ok(Entry::Use(digest)) = item.name.parse() else { continue };
            let used = UnixSeconds::from(item.modified);
            if let Some(there) = found.get_mut(&digest) {
                there.last_use = there.last_use.max(used);
            } else if self.now.0.saturating_sub(used.0) > ORPHANED && orphans.len() < MOST_ORPHANS {
                orphans.push(digest);
            }
        }
        for orphan in orphans {
            // One that has its object by now is left alone.
            if !bucket.has(&orphan).await? {
                bucket.remove(&orphan).await?;
            }
        }
        Ok(Some(found.into_iter().collect()))
    }

    /// Does what is to be done with these; those that stay, with their use as it is known here.
    async fn judge(
        &mut self,
        all: Vec<(Digest, There)>,
    ) -> Result<Vec<(Digest, There)>, RoundError> {
        let (mut stay, mut marked, mut go) = (Vec::new(), Vec::new(), Vec::new());
        for (digest, there) in all {
            let used = self.used_here(&digest);
            let is_needed = self.needed.contains(&digest);
            match fate(there, used, is_needed, self.of.bounds, self.now) {
                Fate::Stays => stay.push((digest, self.with_use_here(&digest, there))),
                Fate::IsMarked => {
                    marked.push(digest);
                    stay.push((digest, self.with_use_here(&digest, there)));
                }
                Fate::Goes => go.push((digest, there)),
            }
        }
        let bucket = self.of.bucket.clone();
        let marking = marked.iter().copied().map(|digest| {
            let bucket = bucket.clone();
            async move { bucket.mark(&digest).await }
        });
        let marking = stream::iter(marking.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        marking.try_collect::<Vec<()>>().await?;
        self.report.marked += marked.len() as u64;
        for (digest, there) in &stay {
            self.objects.add(digest);
            self.tally.count(*there, self.needed.contains(digest));
        }
        self.remove(go).await?;
        Ok(stay)
    }

    fn with_use_here(&self, digest: &Digest, there: There) -> There {
        let used = self.used_here(digest).unwrap_or_default();
        // A use in the future would never end.
        There { last_use: there.last_use.max(used).min(self.now), ..there }
    }

    async fn remove(&mut self, going: Vec<(Digest, There)>) -> Result<(), BucketError> {
        let bucket = self.of.bucket.clone();
        let removing = going.iter().map(|(digest, _)| {
            let (bucket, digest) = (bucket.clone(), *digest);
            async move { bucket.remove(&digest).await }
        });
        let removing = stream::iter(removing.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        removing.try_collect::<Vec<()>>().await?;
        let bytes = going.iter().fold(0, |sum: u64, (_, there)| sum.saturating_add(there.size));
        self.report.removed_objects += going.len() as u64;
        self.report.removed_bytes = self.report.removed_bytes.saturating_add(bytes);
        bucket.metrics().bucket().removed.add(going.len() as u64);
        Ok(())
    }

    /// Where there is more than there is room for: removes what was used least lately.
    pub(super) async fn make_room(&mut self, survey: Survey) -> Result<(), RoundError> {
        let Some(mut excess) = self.tally.excess(self.of.bounds.max_size) else { return Ok(()) };
        self.excess = Some(excess);
        let shards = match survey {
            Survey::Whole(all) => {
                let going = all.into_iter().filter(|(digest, there)| {
                    !self.needed.contains(digest) && excess.takes(*there)
                });
                let going = going.collect();
                return Ok(self.take_out(going).await?);
            }
            Survey::Sharded(shards) => shards,
        };
        for (at, shard) in shards.iter().enumerate() {
            let all = self.listed(Some(*shard)).await?.unwrap_or_default();
            let mut going = Vec::new();
            for (digest, there) in all {
                let known = self.with_use_here(&digest, there);
                if !self.needed.contains(&digest) && excess.takes(known) {
                    going.push((digest, known));
                }
            }
            self.take_out(going).await?;
            self.progress(Step::Removing, at as u64 + 1, Some(shards.len() as u64));
        }
        Ok(())
    }

    async fn take_out(&mut self, going: Vec<(Digest, There)>) -> Result<(), BucketError> {
        for (_, there) in &going {
            self.tally.discount(*there);
        }
        self.remove(going).await
    }
}
