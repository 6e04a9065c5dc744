//! The disk end of a download: hashes, writes, verifies, publishes. All of it blocks.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use entrepot_oci::{Digest, Hasher};

use super::in_flight::{InFlight, Permit};
use super::publish::Publisher;
use crate::bytes::object::{HOLD_BACK, Object};
use crate::disk::tree::partial_digest;
use crate::disk::{DiskError, DiskFile};
use crate::errors::{FinishError, ReadError, WriteError};

/// A download under way. Dropping it fails its readers and gives the digest free.
///
/// Invariant: the hasher has seen the upstream's first `position` bytes, and the file has them.
pub(crate) struct DiskEnd {
    publisher: Arc<Publisher>,
    permit: Permit,
    object: Arc<Object>,
    hasher: Hasher,
    position: u64,
    total: Option<u64>,
}

/// Whether it matters that somebody has read an object before it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    Wanted,
    Unneeded,
}

/// Announces the end of a download: lookups from then on wait for the next one.
#[derive(Debug)]
pub(crate) struct EndNotice {
    in_flight: Arc<InFlight>,
    digest: Digest,
    file: Arc<DiskFile>,
}

impl EndNotice {
    /// The download gets no new followers; without effect when it has ended already.
    pub(crate) fn hold(&self) {
        self.in_flight.hold(&self.digest, &self.file);
    }
}

impl std::fmt::Debug for DiskEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskEnd")
            .field("digest", self.permit.digest())
            .field("position", &self.position)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

impl DiskEnd {
    pub(crate) const fn new(
        publisher: Arc<Publisher>,
        permit: Permit,
        object: Arc<Object>,
        hasher: Hasher,
        written: u64,
        total: Option<u64>,
    ) -> Self {
        Self { publisher, permit, object, hasher, position: written, total }
    }

    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// What it takes to announce the end of this download from elsewhere.
    pub(crate) fn notice(&self) -> EndNotice {
        EndNotice {
            in_flight: Arc::clone(self.permit.in_flight()),
            digest: *self.permit.digest(),
            file: Arc::clone(self.object.file()),
        }
    }

    fn path(&self) -> PathBuf {
        self.publisher.kept.tree.partial(self.permit.digest(), self.permit.origin().as_str())
    }

    fn remove_file(&self) {
        self.publisher.kept.tree.disk().remove_quietly(&self.path());
    }

    /// Takes the next bytes from the upstream. An error ends the download; its readers have failed.
    pub(crate) fn absorb(&mut self, chunks: &[Bytes]) -> Result<(), WriteError> {
        self.check_total(chunks)?;
        self.append(chunks).map_err(|error| {
            self.publisher.eviction.wake();
            self.discard(ReadError::Store(error.clone()));
            WriteError::Store(error)
        })
    }

    fn check_total(&self, chunks: &[Bytes]) -> Result<(), WriteError> {
        let len: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        match self.total {
            Some(total) if self.position.saturating_add(len) > total => {
                self.discard(ReadError::Broken);
                Err(WriteError::TooLong { total })
            }
            _ => Ok(()),
        }
    }

    fn append(&mut self, chunks: &[Bytes]) -> Result<(), DiskError> {
        for chunk in chunks {
            self.hasher.update(chunk);
        }
        self.object.file().write_all_at(chunks, self.position)?;
        let len: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        self.position = self.position.saturating_add(len);
        self.object.advance(self.position);
        Ok(())
    }

    /// The upstream has sent everything: verifies it and releases the readers.
    pub(crate) fn verify(&mut self) -> Result<(), FinishError> {
        self.check_whole()?;
        self.check_digest()?;
        self.object.verified(self.position);
        Ok(())
    }

    /// Gives what has been verified its final name.
    pub(crate) fn publish(self, audience: Audience) -> Result<Arc<Object>, FinishError> {
        let digest = *self.permit.digest();
        if !self.publisher.eviction.keeps(&digest, self.position) {
            let bytes = self.position;
            tracing::debug!(%digest, bytes, "object larger than the cache passed on");
            self.remove_file();
            return Ok(Arc::clone(&self.object));
        }
        self.permit.claim_name(&self.object);
        let (publisher, file) = (&self.publisher, self.object.file());
        if publisher.has(&digest) {
            // Another registry's has been first, with the very bytes.
            self.remove_file();
            self.object.published();
            return Ok(Arc::clone(&self.object));
        }
        publisher.publish(file, &self.path(), &digest).map_err(FinishError::Store)?;
        let references = publisher.documents.read_file(&digest, file, self.position);
        publisher.published(&self.object, references.unwrap_or_default());
        if audience == Audience::Wanted && !self.object.is_read() {
            publisher.kept.index.cool(&digest);
            publisher.kept.watch(&self.object);
        }
        self.remove_left_overs();
        Ok(Arc::clone(&self.object))
    }

    /// What broken downloads from other registries have left of this digest is of no use any more.
    fn remove_left_overs(&self) {
        let (tree, digest) = (&self.publisher.kept.tree, self.permit.digest());
        let dir = tree.partials(digest.algorithm());
        for entry in tree.disk().list(&dir).unwrap_or_default() {
            if partial_digest(digest.algorithm(), &entry.name) == Some(*digest)
                && !self.permit.in_flight().is_written(digest, &entry.name)
            {
                tree.disk().remove_quietly(&dir.join(&entry.name));
            }
        }
    }

    fn check_whole(&self) -> Result<(), FinishError> {
        match self.total {
            Some(expected) if self.position < expected => {
                Err(FinishError::Truncated { expected, received: self.position })
            }
            _ => Ok(()),
        }
    }

    fn check_digest(&mut self) -> Result<(), FinishError> {
        let expected = *self.permit.digest();
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(expected.algorithm()));
        let actual = Box::new(hasher.finish());
        if *actual == expected {
            return Ok(());
        }
        self.discard(ReadError::DigestMismatch { expected, actual: actual.clone() });
        Err(FinishError::DigestMismatch { expected, actual })
    }

    /// The download was dropped; what it has is kept for a later one, if that is worth a range.
    pub(crate) fn abandon(self) {
        if self.position <= HOLD_BACK {
            self.discard(ReadError::Broken);
        }
    }

    /// Fails the readers with `error`, then removes the partial file.
    pub(crate) fn discard(&self, error: ReadError) {
        self.notice().hold();
        self.object.fail(error);
        self.remove_file();
    }
}

impl Drop for DiskEnd {
    fn drop(&mut self) {
        self.notice().hold();
        self.object.fail(ReadError::Broken);
    }
}
