//! Objects: bytes named by their digest.

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use entrepot_oci::Digest;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore, PutOptions, PutPayload};

use super::error::BucketError;
use super::layout::Entry;
use super::{Bucket, Way};
use crate::metrics::BucketOperation;

/// How often a transfer that breaks is taken up again, before its reader has to go elsewhere.
const RESUMPTIONS: u32 = 2;

/// An object of the bucket, as it comes.
pub(crate) struct BucketObject {
    /// Its whole length.
    pub total: u64,
    /// Where the body begins.
    pub from: u64,
    /// The bytes from there on.
    pub body: BucketBody,
}

/// The bytes of an object, as they come. Whoever reads them verifies their digest.
///
/// One that breaks is taken up again twice, where it is still the same object (its `ETag`).
pub(crate) struct BucketBody {
    bucket: Bucket,
    path: Path,
    etag: Option<String>,
    /// How far it has come.
    at: u64,
    total: u64,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    resumptions: u32,
}

impl Bucket {
    /// The object of this digest from `offset` on; `None` where the bucket has it not, or has
    /// lately had other bytes under its name.
    ///
    /// Returns within `bucket.timeout`; the body may take as long as it likes, with no silence
    /// longer than `upstream.idle-timeout`. Cancel safe.
    pub(crate) async fn open(
        &self,
        digest: &Digest,
        offset: u64,
    ) -> Result<Option<BucketObject>, BucketError> {
        let counters = self.inner.metrics.bucket();
        let path = self.inner.root.path(Entry::Blob(*digest));
        let found = if self.inner.rotten.contains_key(digest) {
            None
        } else {
            self.get(&path, offset).await?
        };
        let Some(found) = found else {
            counters.misses.add_one();
            return Ok(None);
        };
        counters.hits.add_one();
        let (total, from) = (found.meta.size, found.range.start);
        let body = BucketBody {
            bucket: self.clone(),
            path,
            etag: found.meta.e_tag.clone(),
            at: from,
            total,
            stream: found.into_stream(),
            resumptions: 0,
        };
        Ok(Some(BucketObject { total, from, body }))
    }

    /// The length of the object of this digest, if the bucket has it.
    pub(crate) async fn size(&self, digest: &Digest) -> Result<Option<u64>, BucketError> {
        if self.inner.rotten.contains_key(digest) {
            return Ok(None);
        }
        self.head(digest, Way::Front).await
    }

    /// The same, behind answers: as long as it takes.
    pub(crate) async fn has(&self, digest: &Digest) -> Result<bool, BucketError> {
        Ok(self.head(digest, Way::Behind).await?.is_some())
    }

    async fn head(&self, digest: &Digest, way: Way) -> Result<Option<u64>, BucketError> {
        let path = self.inner.root.path(Entry::Blob(*digest));
        let options = GetOptions { head: true, ..GetOptions::default() };
        self.ask(BucketOperation::Head, way, |store| async move {
            Ok(store.get_opts(&path, options).await?.meta.size)
        })
        .await
    }

    /// All of the object of this digest, if the bucket has it and it has no more than `most` bytes.
    /// The caller verifies it.
    pub(crate) async fn whole(
        &self,
        digest: &Digest,
        most: usize,
    ) -> Result<Option<Bytes>, BucketError> {
        let Some(mut object) = self.open(digest, 0).await? else { return Ok(None) };
        let too_long = || BucketError::Failed(format!("with more than {most} bytes"));
        if object.total > most as u64 {
            return Err(too_long());
        }
        let mut whole = BytesMut::new();
        while let Some(piece) = object.body.next().await {
            whole.extend_from_slice(&piece?);
            if whole.len() > most {
                return Err(too_long());
            }
        }
        Ok(Some(whole.freeze()))
    }

    /// What the bucket had under this digest was something else: it is removed there, and not asked
    /// for again for ten minutes.
    pub(crate) async fn rotten(&self, digest: &Digest) {
        self.inner.rotten.insert(*digest, ());
        self.inner.metrics.bucket().damaged.add_one();
        tracing::warn!(%digest, "the bucket had other bytes under this digest: they are removed");
        if let Err(error) = self.delete(self.inner.root.path(Entry::Blob(*digest))).await {
            tracing::warn!(%digest, %error, "other bytes stay in the bucket");
        }
    }

    /// Removes an object and the mark of its use, as far as they are there.
    pub(crate) async fn remove(&self, digest: &Digest) -> Result<(), BucketError> {
        self.delete(self.inner.root.path(Entry::Blob(*digest))).await?;
        self.delete(self.inner.root.path(Entry::Use(*digest))).await
    }

    /// Says that this object is in use now, without its bytes.
    pub(crate) async fn mark(&self, digest: &Digest) -> Result<(), BucketError> {
        let path = self.inner.root.path(Entry::Use(*digest));
        let put = self.ask(BucketOperation::Put, Way::Behind, |store| async move {
            store.put_opts(&path, PutPayload::new(), PutOptions::default()).await
        });
        put.await.map(drop)
    }

    async fn get(&self, path: &Path, offset: u64) -> Result<Option<GetResult>, BucketError> {
        let range = (offset > 0).then_some(GetRange::Offset(offset));
        let options = GetOptions { range, ..GetOptions::default() };
        let path = path.clone();
        self.ask(BucketOperation::Get, Way::Front, |store| async move {
            store.get_opts(&path, options).await
        })
        .await
    }
}

impl BucketBody {
    /// The next piece; `None` at the end of the object, and not before. After an error nothing more
    /// comes. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, BucketError>> {
        loop {
            let piece = self.stream.next().await;
            let broken = match piece {
                Some(Ok(piece)) if piece.is_empty() => continue,
                Some(Ok(piece)) => {
                    self.at = self.at.saturating_add(piece.len() as u64);
                    return Some(Ok(piece));
                }
                None if self.at == self.total => return None,
                None => {
                    BucketError::Broken(format!("it ended at byte {} of {}", self.at, self.total))
                }
                Some(Err(error)) => BucketError::of(&error)
                    .unwrap_or_else(|| BucketError::Broken("the object has gone".to_owned())),
            };
            if let ControlFlow::Break(error) = self.resume(broken).await {
                self.stream = futures_util::stream::empty().boxed();
                self.total = self.at;
                return Some(Err(error));
            }
        }
    }

    /// Goes on with the same object, where that is possible.
    async fn resume(&mut self, broken: BucketError) -> ControlFlow<BucketError> {
        if self.resumptions >= RESUMPTIONS || self.at >= self.total {
            return ControlFlow::Break(broken);
        }
        self.resumptions += 1;
        let (at, total) = (self.at, self.total);
        tracing::debug!(error = %broken, at, total, "a transfer from the bucket broke");
        match self.bucket.get(&self.path, self.at).await {
            // Not every server knows `If-Match`: it is compared here.
            Ok(Some(found))
                if found.meta.e_tag == self.etag
                    && found.meta.size == self.total
                    && found.range.start == self.at =>
            {
                self.bucket.inner.metrics.bucket().resumed.add_one();
                self.stream = found.into_stream();
                ControlFlow::Continue(())
            }
            Ok(_) => ControlFlow::Break(BucketError::Broken("the object has changed".to_owned())),
            Err(error) => ControlFlow::Break(error),
        }
    }
}
