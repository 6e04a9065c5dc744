//! What is kept and used here, and is not there: what a crash has forgotten, what the queue had no
//! place for, what was kept before there was a bucket.

use std::collections::HashSet;
use std::time::Duration;

use entrepot_cache::{Fact, Repository};
use entrepot_oci::{Registry, RepositoryName, UnixSeconds};
use futures_util::{StreamExt as _, stream};
use serde_json::Value;

use super::plan::There;
use super::{RoundError, Step, Walk};
use crate::bucket::BucketError;
use crate::bucket::layout::RecordKey;
use crate::bucket::merge::{SharedAccess, SharedTag};
use crate::bucket::uploads::{Sent, Upload};

/// Uploads at a time: bytes wait for each other besides.
const AT_ONCE: usize = 4;
/// So much is brought in one round at most; the next brings the rest.
const MOST: usize = 100_000;
/// What has changed within this time may have been forgotten since the last round.
const LATELY: Duration = Duration::from_hours(30);

/// What is to be brought.
struct Plan {
    uploads: Vec<Upload>,
    /// Bytes that there is still room for.
    room: u64,
}

impl Walk<'_> {
    /// Brings all that is missing.
    pub(super) async fn bring(&mut self) -> Result<(), RoundError> {
        let uploads = self.missing().await?;
        let (by, total) = (self.of.uploads.clone(), uploads.len() as u64);
        let carrying = uploads.into_iter().map(move |upload| {
            let by = by.clone();
            async move {
                let carried = Box::pin(by.carrier().carry(&upload)).await;
                (upload, carried)
            }
        });
        let mut carrying = stream::iter(carrying).buffer_unordered(AT_ONCE);
        let mut done = 0;
        while let Some((upload, carried)) = carrying.next().await {
            done += 1;
            match carried {
                Ok(sent) => self.note_sent(&upload, sent),
                Err(error) if is_of_one(&error) => {
                    self.report.failed += 1;
                    tracing::debug!(?upload, %error, "not uploaded yet");
                    self.of.uploads.offer(upload);
                }
                // The rest would fail the same way.
                Err(error) => return Err(error.into()),
            }
            self.progress(Step::Uploading, done, Some(total));
        }
        Ok(())
    }

    fn note_sent(&mut self, upload: &Upload, sent: Sent) {
        self.report.uploaded_objects += sent.objects;
        self.report.uploaded_bytes = self.report.uploaded_bytes.saturating_add(sent.bytes);
        self.report.uploaded_records += sent.records;
        if let Upload::Object { digest, .. } = upload
            && sent.objects > 0
        {
            let size = self.of.store.find(digest).map_or(sent.bytes, |kept| kept.size);
            self.tally.count(There { size, last_use: self.now }, true);
        }
    }

    async fn missing(&mut self) -> Result<Vec<Upload>, RoundError> {
        let store = |error: entrepot_cache::disk::DiskError| RoundError::Store(error.to_string());
        let room =
            self.of.bounds.max_size.map_or(u64::MAX, |most| most.saturating_sub(self.tally.bytes));
        let mut plan = Plan { uploads: Vec::new(), room };
        let mut registries: HashSet<Registry> = HashSet::new();
        for (registry, repository) in self.of.store.repositories().await.map_err(store)? {
            let records = self.of.store.repository(&registry, &repository);
            if !self.of.uploads.carrier().may_share(&records).await {
                continue;
            }
            registries.insert(registry.clone());
            for digest in records.contents().await.map_err(store)? {
                self.look_at_object(&registry, &repository, digest, &mut plan);
            }
            for tag in records.tags().await.map_err(store)? {
                let key = RecordKey::Tag(registry.clone(), repository.clone(), tag.clone());
                let here: Option<SharedTag> = records.fact(Fact::Tag(&tag)).await;
                let asked = here.iter().flat_map(|tag| &tag.variants).map(|one| one.asked).max();
                if asked.is_some_and(|asked| self.is_late(asked)) || !self.records.has(&key) {
                    let (registry, repository) = (registry.clone(), repository.clone());
                    plan.uploads.push(Upload::Tag { registry, repository, tag });
                }
            }
            self.look_at_place(registry, repository, &records, &mut plan).await;
            if plan.uploads.len() >= MOST {
                break;
            }
        }
        for registry in registries {
            if !self.records.has(&RecordKey::Challenge(registry.clone())) {
                plan.uploads.push(Upload::Challenge { registry });
            }
        }
        plan.uploads.truncate(MOST);
        Ok(plan.uploads)
    }

    fn look_at_object(
        &self,
        registry: &Registry,
        repository: &RepositoryName,
        digest: entrepot_oci::Digest,
        plan: &mut Plan,
    ) {
        let Some(kept) = self.of.store.find(&digest) else { return };
        let used = self.used_here(&digest).unwrap_or_default();
        let is_needed = self.needed.contains(&digest);
        if !is_needed && !self.of.bounds.is_in_use(used, self.now) {
            return;
        }
        // That it belongs to the registry was written before.
        let key = RecordKey::Content(registry.clone(), Some(repository.clone()), digest);
        let is_there = self.objects.has(&digest);
        if is_there && self.records.has(&key) {
            return;
        }
        if !is_there {
            // What would go again tomorrow does not come today.
            let would_go = self.excess.is_some_and(|excess| excess.would_take(used));
            if !is_needed && (would_go || kept.size > plan.room) {
                return;
            }
            plan.room = plan.room.saturating_sub(kept.size);
        }
        let (registry, repository) = (registry.clone(), repository.clone());
        plan.uploads.push(Upload::Object { registry, repository, digest });
    }

    async fn look_at_place(
        &self,
        registry: Registry,
        repository: RepositoryName,
        records: &Repository,
        plan: &mut Plan,
    ) {
        let key = RecordKey::Access(registry.clone(), repository.clone());
        let access: Option<SharedAccess> = records.fact(Fact::Access).await;
        if access.is_some_and(|access| self.is_late(access.served) || !self.records.has(&key)) {
            let (registry, repository) = (registry.clone(), repository.clone());
            plan.uploads.push(Upload::Access { registry, repository });
        }
        let key = RecordKey::Import(registry.clone(), repository.clone());
        let is_imported = records.fact::<Value>(Fact::Import).await.is_some();
        if is_imported && !self.records.has(&key) {
            plan.uploads.push(Upload::Import { registry, repository });
        }
    }

    /// Whether that was since the last round.
    fn is_late(&self, then: UnixSeconds) -> bool {
        self.now.0.saturating_sub(then.0) < LATELY.as_secs()
    }
}

/// Whether it says something of one upload, and nothing of the next.
fn is_of_one(error: &BucketError) -> bool {
    match error {
        BucketError::Busy(_)
        | BucketError::Broken(_)
        | BucketError::Failed(_)
        | BucketError::Source(_)
        | BucketError::Record(_) => true,
        BucketError::Unreachable(_)
        | BucketError::Silent(_)
        | BucketError::LeftAlone(_)
        | BucketError::Refused(_)
        | BucketError::Unusable(_) => false,
    }
}
