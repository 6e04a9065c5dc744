//! What stays, here as in the bucket.

use std::collections::HashSet;

use entrepot_oci::{Digest, manifest};
use futures_util::StreamExt as _;

use super::{RoundError, Walk};
use crate::bucket::layout::{Entry, Prefix, RecordKey};
use crate::bucket::uploads::{Pinned, Upload};
use crate::bucket::{Bucket, BucketError};

/// A document that is larger is none.
const LARGEST: usize = 8 * 1024 * 1024;
/// So much is looked through at most of what pins need: the disk takes no more.
const MOST: usize = 1_000_000;

impl Walk<'_> {
    /// Pins here what is pinned in the bucket, and there what is pinned here; then finds out what
    /// all of it needs.
    pub(super) async fn settle_pins(&mut self) -> Result<(), RoundError> {
        let (bucket, store) = (&self.of.bucket, &self.of.store);
        let mut there = pinned(bucket).await?;
        // Who unpins notes that before the pin goes: what is missing from the list was noted.
        self.of.notes.settle().await?;
        let here: HashSet<Digest> = store.pins().into_iter().collect();
        for digest in &here {
            if !there.contains(digest) {
                self.of.uploads.carrier().carry(&Upload::Pin { digest: *digest }).await?;
                self.report.uploaded_records += 1;
            }
        }
        let mut forged = Vec::new();
        for digest in there.difference(&here) {
            let key = RecordKey::Pin(*digest);
            let is_real = bucket.record_behind::<Pinned>(&key).await?.is_some();
            if !is_real || self.of.notes.is_unpinned(digest).await {
                forged.push(*digest);
            } else if let Err(error) = store.pin(digest).await {
                return Err(RoundError::Store(error.to_string()));
            }
        }
        there.extend(here);
        there.retain(|digest| !forged.contains(digest));
        self.report.pins = there.len() as u64;
        self.needed = self.needed_by(there).await?;
        Ok(())
    }

    /// These, and all that they need. Where a document can't be read the round ends: nothing may
    /// go that might be needed.
    async fn needed_by(&self, roots: HashSet<Digest>) -> Result<HashSet<Digest>, BucketError> {
        let mut rest: Vec<Digest> = roots.iter().copied().collect();
        let mut needed = roots;
        while let Some(digest) = rest.pop() {
            let mut references = self.of.store.references_of(&digest).await;
            if references.is_empty() && self.of.store.find(&digest).is_none() {
                references = self.read(&digest).await?;
            }
            for one in references {
                if needed.len() < MOST && needed.insert(one) {
                    rest.push(one);
                }
            }
        }
        Ok(needed)
    }

    /// What a document needs that lies in the bucket alone.
    async fn read(&self, digest: &Digest) -> Result<Vec<Digest>, BucketError> {
        let bucket = &self.of.bucket;
        // Most of what is needed are layers.
        let is_document = bucket.size(digest).await?.is_some_and(|size| size <= LARGEST as u64);
        if !is_document {
            return Ok(Vec::new());
        }
        let bytes = bucket.whole(digest, LARGEST).await?.unwrap_or_default();
        let is_right = Digest::of(digest.algorithm(), &bytes) == *digest;
        Ok(if is_right && bytes.starts_with(b"{") {
            manifest::references(&bytes)
        } else {
            Vec::new()
        })
    }
}

async fn pinned(bucket: &Bucket) -> Result<HashSet<Digest>, BucketError> {
    let mut found = HashSet::new();
    let mut listed = std::pin::pin!(bucket.list(&Prefix::Pins, None).take(MOST));
    while let Some(item) = listed.next().await {
        if let Ok(Entry::Record(RecordKey::Pin(digest))) = item?.name.parse() {
            found.insert(digest);
        }
    }
    Ok(found)
}
