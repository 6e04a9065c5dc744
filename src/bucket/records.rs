//! Records: what the fleet knows, each signed.

use futures_util::StreamExt as _;
use object_store::{GetOptions, ObjectStore, PutOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::error::BucketError;
use super::key::MOST_RECORD;
use super::layout::RecordKey;
use super::{Bucket, Way};
use crate::metrics::BucketOperation;

impl Bucket {
    /// The record at `key`, if there is one that somebody with the fleet's key has written.
    ///
    /// Whatever fails counts as none: the registry knows all that a record says. So do questions
    /// beyond so many at a time, so that strangers who invent names hold nobody up. "Not there" is
    /// believed for ten seconds. Cancel safe.
    pub(crate) async fn record<T: DeserializeOwned>(&self, key: &RecordKey) -> Option<T> {
        let counters = self.inner.metrics.bucket();
        if self.inner.absences.has(key) {
            return None;
        }
        let Ok(_permit) = self.inner.questions.try_acquire() else {
            counters.unasked.add_one();
            return None;
        };
        let asked = Instant::now();
        match self.record_line(key, Way::Front).await {
            Ok(Some(line)) => {
                let json = self.unsealed(key, &line);
                if json.is_none() {
                    self.inner.absences.note(key, asked);
                }
                read(key, json?)
            }
            Ok(None) => {
                if matches!(key, RecordKey::Content(_, Some(_), _)) {
                    counters.misses.add_one();
                }
                self.inner.absences.note(key, asked);
                None
            }
            Err(error) => {
                tracing::debug!(%key, %error, "the bucket was not asked for a record");
                None
            }
        }
    }

    /// Whether the bucket had no record at `key` when it was asked for it a moment ago.
    #[must_use]
    pub(crate) fn lately_had_no(&self, key: &RecordKey) -> bool {
        self.inner.absences.has(key)
    }

    /// The record at `key`, for what is done behind answers: as long as it takes, and what fails is
    /// told. `None`: there is none, or it is forged.
    pub(crate) async fn record_behind<T: DeserializeOwned>(
        &self,
        key: &RecordKey,
    ) -> Result<Option<T>, BucketError> {
        let line = self.record_line(key, Way::Behind).await?;
        let json = line.as_deref().and_then(|line| self.unsealed(key, line));
        Ok(json.and_then(|json| read(key, json)))
    }

    /// Puts a record at `key`, whatever was there.
    pub(crate) async fn put_record<T: Serialize>(
        &self,
        key: &RecordKey,
        value: &T,
    ) -> Result<(), BucketError> {
        let json = serde_json::to_string(value);
        let json = json.map_err(|error| BucketError::Record(error.to_string()))?;
        let line = self.inner.key.seal(&self.inner.root.key(key), &json);
        if line.len() > MOST_RECORD {
            return Err(BucketError::Record(format!("{key} would have {} bytes", line.len())));
        }
        let path = self.inner.root.path(key);
        let put = self.ask(BucketOperation::Put, Way::Behind, |store| async move {
            store.put_opts(&path, line.into(), PutOptions::default()).await
        });
        put.await?;
        self.inner.absences.forget(key);
        Ok(())
    }

    /// Removes the record at `key`, if there is one.
    pub(crate) async fn remove_record(&self, key: &RecordKey) -> Result<(), BucketError> {
        self.delete(self.inner.root.path(key)).await
    }

    async fn record_line(&self, key: &RecordKey, way: Way) -> Result<Option<Vec<u8>>, BucketError> {
        let path = self.inner.root.path(key);
        // What is longer is no record: it is read no further.
        self.ask(BucketOperation::Get, way, |store| async move {
            let mut found = store.get_opts(&path, GetOptions::default()).await?.into_stream();
            let mut line = Vec::new();
            while let Some(piece) = found.next().await {
                line.extend_from_slice(&piece?);
                if line.len() > MOST_RECORD {
                    break;
                }
            }
            Ok(line)
        })
        .await
    }

    fn unsealed<'a>(&self, key: &RecordKey, line: &'a [u8]) -> Option<&'a str> {
        let json = self.inner.key.unseal(&self.inner.root.key(key), line);
        if json.is_none() {
            self.inner.metrics.bucket().forged.add_one();
            tracing::error!(
                %key,
                "a record in the bucket was not written with this fleet's key, and counts as none"
            );
        }
        json
    }
}

/// What a genuine record says; one of a kind that this version can't read says nothing.
fn read<T: DeserializeOwned>(key: &RecordKey, json: &str) -> Option<T> {
    serde_json::from_str(json)
        .inspect_err(|error| tracing::warn!(%key, %error, "a record in the bucket makes no sense"))
        .ok()
}
