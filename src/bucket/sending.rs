//! Putting an object into the bucket: in one request, or in parts.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_oci::Digest;
use futures_util::future::Either;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _};
use object_store::{
    MultipartUpload, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, UploadPart,
};
use tokio_util::task::TaskTracker;

use super::error::BucketError;
use super::layout::Entry;
use super::{Bucket, Way};
use crate::metrics::BucketOperation;

/// Up to here an object goes in one request.
const IN_ONE: u64 = 16 * MIB;
/// A part of a larger one.
const PART: u64 = 8 * MIB;
/// Parts that one object may have: servers take 10,000.
const MOST_PARTS: u64 = 9_216;
/// Parts under way at a time, beside the one that is gathered.
const UNDER_WAY: usize = 2;
/// How long a broken upload is waited for to be taken back.
const TAKEN_BACK: Duration = Duration::from_secs(30);
const MIB: u64 = 1024 * 1024;

impl Bucket {
    /// Puts the object of this digest, which has `size` bytes, into the bucket. Returns how many
    /// bytes were sent.
    ///
    /// Nothing is there under its name unless all of it came: a put of several parts that fails, or
    /// whose future is dropped, is taken back.
    pub(crate) async fn put(
        &self,
        digest: &Digest,
        size: u64,
        parts: impl Stream<Item = io::Result<Bytes>>,
    ) -> Result<u64, BucketError> {
        let mut gathering = Gathering { parts: pin!(parts), left: Bytes::new(), missing: size };
        if size <= IN_ONE {
            let payload = gathering.part(size).await?;
            gathering.end().await?;
            self.put_at_once(digest, payload).await?;
        } else {
            self.put_in_parts(digest, size, &mut gathering).await?;
        }
        self.inner.rotten.invalidate(digest);
        self.inner.metrics.bucket().uploaded.add_one();
        Ok(size)
    }

    async fn put_at_once(&self, digest: &Digest, payload: PutPayload) -> Result<(), BucketError> {
        let path = self.inner.root.path(Entry::Blob(*digest));
        let put = self.ask(BucketOperation::Put, Way::Behind, |store| async move {
            store.put_opts(&path, payload, PutOptions::default()).await
        });
        put.await.map(drop)
    }

    async fn put_in_parts<S: Stream<Item = io::Result<Bytes>>>(
        &self,
        digest: &Digest,
        size: u64,
        gathering: &mut Gathering<'_, S>,
    ) -> Result<(), BucketError> {
        let path = self.inner.root.path(Entry::Blob(*digest));
        let begun = self.ask(BucketOperation::Put, Way::Behind, |store| async move {
            store.put_multipart_opts(&path, PutMultipartOptions::default()).await
        });
        let Some(upload) = begun.await? else { return Err(no_bucket()) };
        let mut upload = Begun { upload: Some(upload), tasks: self.inner.tasks.clone() };
        let length = size.div_ceil(MOST_PARTS).div_ceil(MIB).saturating_mul(MIB).max(PART);
        let sent = async {
            let mut under_way = FuturesUnordered::<UploadPart>::new();
            while gathering.missing > 0 {
                let part = gathering.part(length.min(gathering.missing));
                let part = beside(part, &mut under_way).await?;
                under_way.push(upload.part(part));
                while under_way.len() >= UNDER_WAY {
                    if let Some(result) = under_way.next().await {
                        result.map_err(|error| failed(&error))?;
                    }
                }
            }
            gathering.end().await?;
            while let Some(result) = under_way.next().await {
                result.map_err(|error| failed(&error))?;
            }
            upload.complete().await
        };
        // Its parts are no questions by themselves: what became of them is what became of it.
        let sent = Box::pin(sent).await;
        let admission = self.inner.breaker.admit(BucketOperation::Put);
        match (admission, sent) {
            (Ok(admission), sent) => admission.end(sent),
            (Err(_), sent) => sent,
        }
    }
}

/// Waits for `one`, while those under way go on.
async fn beside<T>(
    one: impl Future<Output = Result<T, BucketError>>,
    under_way: &mut FuturesUnordered<UploadPart>,
) -> Result<T, BucketError> {
    let mut one = pin!(one);
    loop {
        if under_way.is_empty() {
            return one.await;
        }
        match futures_util::future::select(one.as_mut(), under_way.next()).await {
            Either::Left((done, _)) => return done,
            Either::Right((Some(Err(error)), _)) => return Err(failed(&error)),
            Either::Right(_) => {}
        }
    }
}

fn failed(error: &object_store::Error) -> BucketError {
    BucketError::of(error).unwrap_or_else(no_bucket)
}

/// A server that knows neither the bucket nor the upload that it has begun.
fn no_bucket() -> BucketError {
    BucketError::Failed("404 to what is put there: is it still there?".to_owned())
}

/// Bytes as they come from the disk, to be cut into parts.
struct Gathering<'a, S> {
    parts: std::pin::Pin<&'a mut S>,
    left: Bytes,
    missing: u64,
}

impl<S: Stream<Item = io::Result<Bytes>>> Gathering<'_, S> {
    /// The next part, of exactly this length.
    async fn part(&mut self, length: u64) -> Result<PutPayload, BucketError> {
        let mut pieces = Vec::new();
        let mut wanted = length;
        while wanted > 0 {
            if self.left.is_empty() {
                self.left = self.next().await?.ok_or_else(|| wrong("it is shorter than it was"))?;
            }
            let take = usize::try_from(wanted).unwrap_or(usize::MAX).min(self.left.len());
            let piece = self.left.split_to(take);
            wanted -= piece.len() as u64;
            pieces.push(piece);
        }
        self.missing -= length;
        Ok(pieces.into_iter().collect())
    }

    /// That nothing is left.
    async fn end(&mut self) -> Result<(), BucketError> {
        let is_over = self.left.is_empty() && self.next().await?.is_none();
        if is_over { Ok(()) } else { Err(wrong("it is longer than it was")) }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, BucketError> {
        loop {
            match self.parts.next().await.transpose() {
                Ok(Some(piece)) if piece.is_empty() => {}
                Ok(piece) => return Ok(piece),
                Err(error) => return Err(BucketError::Source(Arc::new(error))),
            }
        }
    }
}

fn wrong(how: &str) -> BucketError {
    BucketError::Source(Arc::new(io::Error::new(io::ErrorKind::InvalidData, how)))
}

/// An upload in parts that is to be completed or taken back.
struct Begun {
    upload: Option<Box<dyn MultipartUpload>>,
    tasks: TaskTracker,
}

impl Begun {
    fn part(&mut self, payload: PutPayload) -> UploadPart {
        match &mut self.upload {
            Some(upload) => upload.put_part(payload),
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }

    async fn complete(&mut self) -> Result<(), BucketError> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        // The tag that it answers with is not looked at: not every server gives one.
        upload.complete().await.map_err(|error| failed(&error))?;
        self.upload = None;
        Ok(())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        self.tasks.spawn(async move {
            match tokio::time::timeout(TAKEN_BACK, upload.abort()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let error = failed(&error);
                    tracing::warn!(%error, "parts of a broken upload may stay in the bucket");
                }
                Err(_) => tracing::warn!(
                    error = "no answer",
                    "parts of a broken upload may stay in the bucket"
                ),
            }
        });
    }
}
