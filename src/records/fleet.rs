//! What replicas share, read and written.

use std::sync::Arc;
use std::time::Duration;

use entrepot_oci::UnixSeconds;
use moka::sync::Cache;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::task::TaskTracker;

use crate::bucket::merge::SharedRefusal;
use crate::bucket::uploads::{Upload, Uploads};
use crate::bucket::{Bucket, RecordKey};
use crate::memory::{NAME, Shares, table};

/// How long what was read is believed without being read again: while a registry is away every
/// request asks for the same few records.
const BELIEVED: Duration = Duration::from_secs(1);
/// A refusal closes something: it is tried so often, so far apart.
const TRIES: u32 = 3;
const BETWEEN: Duration = Duration::from_secs(1);
/// How long a refusal waits for that.
const PATIENCE: Duration = Duration::from_secs(3);

/// The bucket that replicas share, as those see it who look things up. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fleet(Arc<Inner>);

struct Inner {
    bucket: Bucket,
    uploads: Uploads,
    lately: Cache<RecordKey, Arc<Value>>,
    /// Where it runs what no client waits for.
    tasks: TaskTracker,
}

impl Fleet {
    /// The fleet that shares `bucket`; what this replica has for the others goes by `uploads`.
    #[must_use]
    pub(crate) fn new(
        bucket: Bucket,
        uploads: Uploads,
        shares: Shares,
        tasks: TaskTracker,
    ) -> Self {
        // What a record has on the heap: a few short texts, or a tag's variants.
        let weight = |_: &RecordKey, value: &Arc<Value>| 3 * NAME + value.to_string().len() * 2;
        let lately = table(shares.small_table(), weight).time_to_live(BELIEVED).build();
        Self(Arc::new(Inner { bucket, uploads, lately, tasks }))
    }

    /// The bucket itself.
    #[must_use]
    pub(crate) fn bucket(&self) -> &Bucket {
        &self.0.bucket
    }

    /// The record of that name, if any replica has put one there.
    pub(super) async fn read<T: DeserializeOwned>(&self, key: &RecordKey) -> Option<T> {
        let value = if let Some(value) = self.0.lately.get(key) {
            value
        } else {
            let value: Arc<Value> = Arc::new(self.0.bucket.record(key).await?);
            self.0.lately.insert(key.clone(), value.clone());
            value
        };
        T::deserialize(&*value).ok()
    }

    /// Has it uploaded behind the answer.
    pub(super) fn offer(&self, upload: Upload) {
        self.0.uploads.offer(upload);
    }

    /// Has a record taken away behind the answer.
    pub(super) fn forget(&self, key: RecordKey) {
        self.0.lately.invalidate(&key);
        self.0.uploads.offer(Upload::Forgotten(key));
    }

    /// Puts on record that the shared identity was refused just now: before the client hears of it,
    /// where the bucket answers in time, and behind the answer where it does not.
    pub(super) async fn refused(&self, key: RecordKey) {
        let it = self.clone();
        let telling = self.0.tasks.spawn(async move { it.tell_refusal(&key).await });
        let _ = tokio::time::timeout(PATIENCE, telling).await;
    }

    async fn tell_refusal(&self, key: &RecordKey) {
        self.0.lately.invalidate(key);
        for attempt in 1..=TRIES {
            // As of this try: what was served before it counts no more.
            let refusal = SharedRefusal { refused: UnixSeconds::now() };
            match self.0.bucket.put_record(key, &refusal).await {
                Ok(()) => return,
                Err(error) if attempt == TRIES => {
                    tracing::warn!(%error, "other replicas could not be told of a refusal");
                }
                Err(_) => tokio::time::sleep(BETWEEN).await,
            }
        }
    }

    /// Takes a refusal away.
    pub(super) async fn pardon(&self, key: &RecordKey) {
        self.0.lately.invalidate(key);
        if let Err(error) = self.0.bucket.remove_record(key).await {
            tracing::warn!(%error, "other replicas could not be told that a refusal is over");
        }
    }
}
