//! The async end of a download, and what it leads to: bytes that are right, then an object.

use std::sync::Arc;

use bytes::Bytes;
use entrepot_oci::Digest;
use tokio::sync::oneshot;

use super::disk_end::{Audience, DiskEnd};
use super::queue::{Job, Queue};
use crate::bytes::object::Object;
use crate::bytes::reader::Reader;
use crate::disk::threads;
use crate::errors::{FinishError, WriteError};

/// A download under way: give it the upstream's bytes in order, then
/// [`verify`](Self::verify) it.
///
/// Dropping it is failure: its readers get [`ReadError::Broken`](crate::ReadError::Broken), never
/// a clean end, and what was written stays for a later [`Start::Resumed`](crate::Start::Resumed).
/// A break upstream that is going to be continued is no reason to drop it: ask again for
/// `bytes=<offset>-` and go on writing; readers just wait.
///
/// Must be used and dropped within a tokio runtime.
#[derive(Debug)]
#[must_use = "dropping a writer fails the download"]
pub struct Writer {
    digest: Digest,
    offset: u64,
    total: Option<u64>,
    queue: Option<Arc<Queue>>,
    object: Arc<Object>,
    /// Why a chunk was not taken: what is there then can't be whole.
    failed: Option<WriteError>,
}

impl Writer {
    pub(crate) const fn new(
        digest: Digest,
        offset: u64,
        total: Option<u64>,
        queue: Arc<Queue>,
        object: Arc<Object>,
    ) -> Self {
        Self { digest, offset, total, queue: Some(queue), object, failed: None }
    }

    /// Whether anybody has a reader of it now.
    #[must_use]
    pub fn has_readers(&self) -> bool {
        self.object.has_readers()
    }

    /// The digest that is being downloaded.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How many bytes of the object have been taken: where to continue after a break.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The announced size of the whole object in bytes, if there is one.
    #[must_use]
    pub const fn total(&self) -> Option<u64> {
        self.total
    }

    /// Takes the next bytes of the object.
    ///
    /// Returns when they are queued, waiting while about 2 MiB wait for the disk; readers see
    /// them when they are written. An error, which may be that of an earlier chunk, means that
    /// the download has ended.
    ///
    /// Cancel safe: when the future is dropped the chunk has not been taken and
    /// [`offset`](Self::offset) has not moved.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), WriteError> {
        let Some(queue) = &self.queue else { return Ok(()) };
        let admitted = queue.admit(chunk.len()).await;
        let permit = admitted.inspect_err(|error| self.failed = Some(error.clone()))?;
        if !chunk.is_empty() {
            self.offset = self.offset.saturating_add(chunk.len() as u64);
            queue.push(Job::Chunk(chunk, permit));
        }
        Ok(())
    }

    /// The upstream has sent everything: checks size and digest.
    ///
    /// Readers get the held-back bytes as soon as the digest is right. The object has no name yet:
    /// until [`Verified::publish`] it is in flight, and a reader of it names its origin. After
    /// [`FinishError::Store`] nothing is kept.
    ///
    /// When this future is dropped nothing is published.
    pub async fn verify(mut self) -> Result<Verified, FinishError> {
        if let Some(error) = self.failed.take() {
            return Err(error.into());
        }
        let Some(queue) = self.queue.take() else {
            return Err(FinishError::Truncated { expected: 0, received: 0 });
        };
        let (verdict, told) = oneshot::channel();
        queue.push(Job::Verify(verdict));
        match told.await {
            Ok(verified) => verified.map(|disk_end| Verified { disk_end: Some(disk_end) }),
            Err(_ended) => Err(queue.failure().into()),
        }
    }

    /// [Verifies](Self::verify) and [publishes](Verified::publish), for who has nothing to put on
    /// record between the two, and wants the object whether anybody has read it or not.
    pub async fn finish(self) -> Result<Reader, FinishError> {
        self.verify().await?.publish_for(Audience::Unneeded).await
    }
}

/// A download that is whole and right, and has no name yet: put on record what opens it, then
/// [`publish`](Self::publish).
///
/// Dropping it ends the download as dropping its [`Writer`] would, but that its readers have
/// everything.
#[derive(Debug)]
#[must_use = "what is not published is not kept"]
pub struct Verified {
    disk_end: Option<Box<DiskEnd>>,
}

impl Verified {
    /// Gives the object its name: the file is synced, renamed and its directory synced. An object
    /// that is larger than `max_size` is not kept. One that nobody has read to its end goes first
    /// when room is needed, until somebody has.
    ///
    /// After [`FinishError::Store`] nothing is kept, though its readers finish. When this future is
    /// dropped the work goes on in the background.
    pub async fn publish(self) -> Result<Reader, FinishError> {
        self.publish_for(Audience::Wanted).await
    }

    async fn publish_for(mut self, audience: Audience) -> Result<Reader, FinishError> {
        let Some(disk_end) = self.disk_end.take() else {
            return Err(FinishError::Truncated { expected: 0, received: 0 });
        };
        let published = threads::run(move || disk_end.publish(audience)).await;
        published.map_err(FinishError::Store)?.map(Reader::new)
    }
}

impl Drop for Verified {
    fn drop(&mut self) {
        if let Some(disk_end) = self.disk_end.take() {
            disk_end.notice().hold();
            threads::detach(move || disk_end.abandon());
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.abandon();
        }
    }
}
