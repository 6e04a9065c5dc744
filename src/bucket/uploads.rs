//! What goes up: behind the answer, what a registry has just delivered.
//!
//! An offer is a name. When its turn comes, what is kept under that name is read: first the bytes
//! go, then the records that lead to them, so that whoever finds a record finds the bytes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_cache::{Fact, Reader, Repository, Store};
use entrepot_oci::{Digest, Registry, RepositoryName, Tag, UnixSeconds};
use futures_util::stream::{self, Stream};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::layout::RecordKey;
use super::merge::{SharedAccess, SharedContent, SharedTag};
use super::options::Private;
use super::queue::{self, Offered, Queue};
use super::{Bucket, BucketError};
use crate::metrics::BucketMetrics;

/// Uploads at a time: each holds two parts in memory.
const AT_ONCE: usize = 4;
/// A piece as it is read from the disk.
const PIECE: usize = 256 * 1024;

/// What may have to go to the bucket, or out of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Upload {
    /// An object that is kept, with the records that it belongs there.
    Object {
        /// Whose it is.
        registry: Registry,
        /// Where it was asked for.
        repository: RepositoryName,
        /// Which.
        digest: Digest,
    },
    /// What a tag stands for, with the manifests that it stands for.
    Tag {
        /// Of which registry.
        registry: Registry,
        /// Of which repository.
        repository: RepositoryName,
        /// Which.
        tag: Tag,
    },
    /// When the shared identity was last served.
    Access {
        /// By which registry.
        registry: Registry,
        /// Where.
        repository: RepositoryName,
    },
    /// That an operator has brought objects.
    Import {
        /// To which registry.
        registry: Registry,
        /// Where.
        repository: RepositoryName,
    },
    /// How a registry wants to be authenticated to.
    Challenge {
        /// Which registry.
        registry: Registry,
    },
    /// A record that has been taken away here.
    Forgotten(RecordKey),
    /// Whether an object is pinned, as it is here.
    Pin {
        /// Which.
        digest: Digest,
    },
}

/// That an object stays: all is in the name.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pinned {}

/// What an upload has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Objects that were not there.
    pub(super) objects: u64,
    /// What was sent of them.
    pub(super) bytes: u64,
    /// Records that were written or taken away.
    pub(super) records: u64,
}

impl Sent {
    fn and(self, other: Self) -> Self {
        Self {
            objects: self.objects.saturating_add(other.objects),
            bytes: self.bytes.saturating_add(other.bytes),
            records: self.records.saturating_add(other.records),
        }
    }
}

/// What waits to go up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    /// How much it is about.
    pub(crate) objects: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// How long the oldest has waited.
    pub(crate) oldest: Option<Duration>,
    /// What there was no place for, since the start.
    pub(crate) dropped: u64,
}

/// Uploads to the bucket; cheap to clone.
#[derive(Clone)]
pub(crate) struct Uploads {
    inner: Arc<Inner>,
}

struct Inner {
    carrier: Carrier,
    queue: Mutex<Queue<Upload>>,
    offered: Notify,
}

impl Uploads {
    /// Uploads to `bucket` of what is kept in `store`. They wait until they are
    /// [carried](Self::keep).
    #[must_use]
    pub(crate) fn new(bucket: Bucket, store: Store) -> Self {
        Self::with_room(bucket, store, queue::MOST)
    }

    /// The same, of which so many wait at most.
    pub(super) fn with_room(bucket: Bucket, store: Store, most: usize) -> Self {
        let carrier = Carrier { bucket, store, turns: Arc::new(Semaphore::new(AT_ONCE)) };
        let (queue, offered) = (Mutex::new(Queue::new(most)), Notify::new());
        Self { inner: Arc::new(Inner { carrier, queue, offered }) }
    }

    /// Has it uploaded in its turn. Never waits; what there is no place for is counted, and found
    /// by the round.
    pub(crate) fn offer(&self, upload: Upload) {
        let Inner { carrier, queue, offered } = &*self.inner;
        let bytes = match &upload {
            Upload::Object { digest, .. } => carrier.store.find(digest).map_or(0, |kept| kept.size),
            _ => 0,
        };
        let mut queue = queue.lock();
        match queue.offer(upload, bytes, Instant::now()) {
            Offered::New => offered.notify_one(),
            Offered::Known => {}
            Offered::Full => self.counters().dropped.add_one(),
        }
        self.show(&queue);
    }

    fn counters(&self) -> &BucketMetrics {
        self.inner.carrier.bucket.metrics().bucket()
    }

    /// Has what is pending shown as it is now.
    fn show(&self, queue: &Queue<Upload>) {
        let (pending, counters) = (queue.pending(), self.counters());
        counters.pending_objects.set(pending.objects);
        counters.pending_bytes.set(pending.bytes);
        let oldest = pending.oldest.map_or(0, |since| UnixSeconds::ago(since.elapsed()).0);
        counters.oldest_pending_since.set(oldest);
    }

    /// Has it uploaded now, before its turn.
    pub(crate) async fn settle(&self, upload: &Upload) -> Result<(), BucketError> {
        Box::pin(self.inner.carrier.carry(upload)).await.map(drop)
    }

    /// What waits now.
    #[must_use]
    pub(crate) fn pending(&self) -> Pending {
        let queue::Pending { objects, bytes, oldest } = self.inner.queue.lock().pending();
        let dropped = self.counters().dropped.value();
        Pending { objects, bytes, oldest: oldest.map(|since| since.elapsed()), dropped }
    }

    /// What does the work.
    pub(super) fn carrier(&self) -> &Carrier {
        &self.inner.carrier
    }

    /// Carries what is offered, on `tasks`, until the shutdown, which no upload delays: what it
    /// cuts off is found by the round after the next start.
    pub(crate) async fn keep(self, tasks: TaskTracker, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut trouble = Trouble::default();
        let (ended, mut endings) = tokio::sync::mpsc::channel::<Result<(), String>>(AT_ONCE);
        loop {
            let due = self.inner.queue.lock().due();
            let turn = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
                places.clone().acquire_owned().await
            };
            let place = tokio::select! {
                () = shutdown.cancelled() => return,
                Some(ending) = endings.recv() => {
                    trouble.note(ending);
                    continue;
                }
                () = self.inner.offered.notified() => continue,
                place = turn => place,
            };
            let (Ok(place), Some(upload)) = (place, self.take()) else { continue };
            let (uploads, ended) = (self.clone(), ended.clone());
            let carried = shutdown.clone().run_until_cancelled_owned(async move {
                let ending = Box::pin(uploads.carry(&upload)).await;
                drop(place);
                let _ = ended.send(ending).await;
            });
            tasks.spawn(carried);
        }
    }

    fn take(&self) -> Option<Arc<Upload>> {
        self.inner.queue.lock().take(Instant::now())
    }

    async fn carry(&self, upload: &Arc<Upload>) -> Result<(), String> {
        let carried = self.inner.carrier.carry(upload).await;
        let (mut queue, now) = (self.inner.queue.lock(), Instant::now());
        match carried {
            Ok(sent) => {
                tracing::debug!(?upload, sent.objects, sent.bytes, sent.records, "uploaded");
                queue.done(upload, now);
                self.show(&queue);
                Ok(())
            }
            Err(error) => {
                tracing::debug!(?upload, %error, "not uploaded yet");
                queue.failed(upload, now);
                self.counters().failed_uploads.add_one();
                Err(error.to_string())
            }
        }
    }
}

/// One line when uploads begin to fail, and one when they are through again.
#[derive(Default)]
struct Trouble {
    is_told: bool,
}

impl Trouble {
    fn note(&mut self, ending: Result<(), String>) {
        match (self.is_told, ending) {
            (false, Err(error)) => {
                tracing::warn!(error, "uploads to the bucket fail: they are tried again");
                self.is_told = true;
            }
            (true, Ok(())) => {
                tracing::info!("uploads to the bucket succeed again");
                self.is_told = false;
            }
            (false, Ok(())) | (true, Err(_)) => {}
        }
    }
}

/// Carries one thing to the bucket.
pub(super) struct Carrier {
    pub(super) bucket: Bucket,
    pub(super) store: Store,
    /// Whoever uploads bytes.
    turns: Arc<Semaphore>,
}

impl Carrier {
    /// Brings what is meant to the bucket, as it is kept here now. What is kept no more, or is to
    /// stay here, is not brought, and that is no failure.
    pub(super) async fn carry(&self, upload: &Upload) -> Result<Sent, BucketError> {
        match upload {
            Upload::Object { registry, repository, digest } => {
                self.object(registry, repository, digest).await
            }
            Upload::Tag { registry, repository, tag } => self.tag(registry, repository, tag).await,
            Upload::Access { registry, repository } => self.access(registry, repository).await,
            Upload::Import { registry, repository } => {
                let key = RecordKey::Import(registry.clone(), repository.clone());
                let records = self.store.repository(registry, repository);
                self.as_it_is(&key, &records, Fact::Import).await
            }
            Upload::Challenge { registry } => {
                let key = RecordKey::Challenge(registry.clone());
                self.as_it_is(&key, &self.store.registry(registry), Fact::Challenge).await
            }
            Upload::Forgotten(key) => self.forgotten(key).await,
            Upload::Pin { digest } => self.pin(digest).await,
        }
    }

    /// Whether what lies in this repository may go to the bucket.
    pub(super) async fn may_share(&self, records: &Repository) -> bool {
        if self.bucket.private() == Private::Share {
            return true;
        }
        records.fact::<Value>(Fact::Access).await.is_some()
            || records.fact::<Value>(Fact::Import).await.is_some()
    }

    async fn object(
        &self,
        registry: &Registry,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Sent, BucketError> {
        let records = self.store.repository(registry, repository);
        if !self.may_share(&records).await {
            return Ok(Sent::default());
        }
        let Some(sent) = self.bytes(digest).await? else { return Ok(Sent::default()) };
        let of_registry = self.store.registry(registry);
        let keys = [
            (RecordKey::Content(registry.clone(), None, *digest), &of_registry),
            (RecordKey::Content(registry.clone(), Some(repository.clone()), *digest), &records),
        ];
        let mut sent = sent;
        // Of an object that no replica had met a moment ago nothing is on record: two who write now
        // write the same.
        let is_new = keys.first().is_some_and(|(key, _)| self.bucket.lately_had_no(key));
        for (key, records) in keys {
            sent = sent.and(self.content(&key, records, digest, is_new).await?);
        }
        sent = sent.and(self.brought(registry, &records, digest).await?);
        Ok(sent.and(self.access(registry, repository).await?))
    }

    /// Has the object's bytes in the bucket; `None` where they are not to be had.
    async fn bytes(&self, digest: &Digest) -> Result<Option<Sent>, BucketError> {
        let Some(reader) = self.store.look_at(digest).await else {
            return Ok(self.bucket.has(digest).await?.then(Sent::default));
        };
        // Of a kept object it is known.
        let Some(size) = reader.size() else { return Ok(None) };
        if self.bucket.has(digest).await? {
            return Ok(Some(Sent::default()));
        }
        let Ok(_turn) = self.turns.acquire().await else { return Ok(None) };
        let bytes = self.bucket.put(digest, size, pieces(reader)).await?;
        Ok(Some(Sent { objects: 1, bytes, records: 0 }))
    }

    /// That the object belongs there, of which nothing is on record where it `is_new`.
    async fn content(
        &self,
        key: &RecordKey,
        records: &Repository,
        digest: &Digest,
        is_new: bool,
    ) -> Result<Sent, BucketError> {
        let Some(here) = records.content(digest).await else { return Ok(Sent::default()) };
        let here = SharedContent::from(&here);
        let there = if is_new { None } else { self.bucket.record_behind(key).await? };
        let merged = match there {
            Some(there) => {
                let there: SharedContent = there;
                let merged = here.clone().merged(there.clone());
                // What a registry has delivered is its own, whoever else has brought it.
                let is_delivered = matches!(key, RecordKey::Content(_, None, _));
                let imported = merged.imported.filter(|_| !is_delivered);
                let merged = SharedContent { imported, ..merged };
                if !merged.is_news_to(&there) {
                    return Ok(Sent::default());
                }
                merged
            }
            None => here,
        };
        self.put(key, &merged).await
    }

    /// That an operator has brought the object to some repository of the registry. Replicas look
    /// there first whether any of them has met an object; it is no word of the registry's.
    async fn brought(
        &self,
        registry: &Registry,
        records: &Repository,
        digest: &Digest,
    ) -> Result<Sent, BucketError> {
        let Some(here) = records.content(digest).await.filter(|it| it.imported.is_some()) else {
            return Ok(Sent::default());
        };
        let key = RecordKey::Content(registry.clone(), None, *digest);
        let there: Option<SharedContent> = self.bucket.record_behind(&key).await?;
        match there {
            Some(_) => Ok(Sent::default()),
            None => self.put(&key, &SharedContent::from(&here)).await,
        }
    }

    /// What a tag stands for. Only of manifests that are in the bucket: those that are kept here
    /// are brought there first.
    async fn tag(
        &self,
        registry: &Registry,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Sent, BucketError> {
        let records = self.store.repository(registry, repository);
        let Some(mut here) = records.fact::<SharedTag>(Fact::Tag(tag)).await else {
            return Ok(Sent::default());
        };
        if !self.may_share(&records).await {
            return Ok(Sent::default());
        }
        let key = RecordKey::Tag(registry.clone(), repository.clone(), tag.clone());
        let there: Option<SharedTag> = self.bucket.record_behind(&key).await?;
        let mut sent = Sent::default();
        let mut absent = Vec::new();
        for digest in here.digests() {
            let object = Box::pin(self.object(registry, repository, &digest)).await?;
            sent = sent.and(object);
            if !self.bucket.has(&digest).await? {
                absent.push(digest.to_string());
            }
        }
        here.variants.retain(|variant| !absent.contains(&variant.digest));
        if here.variants.is_empty() {
            return Ok(sent);
        }
        let there = there.unwrap_or_default();
        let merged = here.merged(there.clone());
        if !merged.is_news_to(&there) {
            return Ok(sent);
        }
        Ok(sent.and(self.put(&key, &merged).await?))
    }

    /// When the shared identity was last served, if the fleet's word on that is old.
    async fn access(
        &self,
        registry: &Registry,
        repository: &RepositoryName,
    ) -> Result<Sent, BucketError> {
        let records = self.store.repository(registry, repository);
        let Some(here) = records.fact::<SharedAccess>(Fact::Access).await else {
            return Ok(Sent::default());
        };
        let key = RecordKey::Access(registry.clone(), repository.clone());
        let there: Option<SharedAccess> = self.bucket.record_behind(&key).await?;
        if there.is_some_and(|there| !here.is_news_to(&there, UnixSeconds::now())) {
            return Ok(Sent::default());
        }
        self.put(&key, &here).await
    }

    /// A record that has no history.
    async fn as_it_is(
        &self,
        key: &RecordKey,
        records: &Repository,
        fact: Fact<'_>,
    ) -> Result<Sent, BucketError> {
        let Some(here) = records.fact::<Value>(fact).await else { return Ok(Sent::default()) };
        let there: Option<Value> = self.bucket.record_behind(key).await?;
        if there.as_ref() == Some(&here) {
            return Ok(Sent::default());
        }
        self.put(key, &here).await
    }

    /// A record has been taken away here: so it is there, unless it has come back meanwhile.
    async fn forgotten(&self, key: &RecordKey) -> Result<Sent, BucketError> {
        match key {
            RecordKey::Tag(registry, repository, tag) => {
                let records = self.store.repository(registry, repository);
                // The registry has it no more for some client: what others have heard is as old.
                if let Some(here) = records.fact::<SharedTag>(Fact::Tag(tag)).await {
                    let there: SharedTag =
                        self.bucket.record_behind(key).await?.unwrap_or_default();
                    let left = there.clone().of_clients_of(&here);
                    if left == there {
                        return Ok(Sent::default());
                    }
                    if !left.variants.is_empty() {
                        return self.put(key, &left).await;
                    }
                }
            }
            RecordKey::Content(registry, repository, digest) => {
                let records = match repository {
                    Some(repository) => self.store.repository(registry, repository),
                    None => self.store.registry(registry),
                };
                if records.content(digest).await.is_some() {
                    return Ok(Sent::default());
                }
            }
            _ => {}
        }
        self.bucket.remove_record(key).await?;
        Ok(Sent { records: 1, ..Sent::default() })
    }

    async fn pin(&self, digest: &Digest) -> Result<Sent, BucketError> {
        let key = RecordKey::Pin(*digest);
        if self.store.is_pinned(digest) {
            return self.put(&key, &Pinned {}).await;
        }
        self.bucket.remove_record(&key).await?;
        Ok(Sent { records: 1, ..Sent::default() })
    }

    async fn put<T: Serialize>(&self, key: &RecordKey, value: &T) -> Result<Sent, BucketError> {
        self.bucket.put_record(key, value).await?;
        Ok(Sent { records: 1, ..Sent::default() })
    }
}

/// The object's bytes, as they come from the disk.
fn pieces(reader: Reader) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold((reader, 0_u64), |(reader, offset)| async move {
        let piece = reader.read_at(offset, PIECE).await.map_err(io::Error::other)?;
        if piece.is_empty() {
            return Ok(None);
        }
        let next = offset.saturating_add(piece.len() as u64);
        Ok(Some((piece, (reader, next))))
    })
}
