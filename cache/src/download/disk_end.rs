//! The disk end of a download: hashes, writes, verifies, publishes. All of it blocks.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::bytes::object::Object;
use crate::disk::{DiskError, DiskFile};
use crate::download::in_flight::{Flights, Ticket};
use crate::download::publish::{publish, remove_quietly};
use crate::inner::Shared;
use crate::{Digest, FinishError, HOLD_BACK, Hasher, ReadError, WriteError};

/// A download under way. Dropping it fails its readers and gives the digest free.
///
/// Invariant: the hasher has seen the upstream's first `position` bytes, and the file has them.
pub(crate) struct Pen {
    shared: Arc<Shared>,
    ticket: Ticket,
    object: Arc<Object>,
    hasher: Hasher,
    position: u64,
    total: Option<u64>,
}

/// Turns those who ask into those who wait for the next download, while this one ends.
#[derive(Debug)]
pub(crate) struct End {
    flights: Arc<Flights>,
    digest: Digest,
    file: Arc<DiskFile>,
}

impl End {
    /// Nobody new follows the download; without effect when it has ended already.
    pub(crate) fn hold(&self) {
        self.flights.hold(&self.digest, &self.file);
    }
}

impl std::fmt::Debug for Pen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pen")
            .field("digest", self.ticket.digest())
            .field("position", &self.position)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

impl Pen {
    pub(crate) const fn new(
        shared: Arc<Shared>,
        ticket: Ticket,
        object: Arc<Object>,
        hasher: Hasher,
        written: u64,
        total: Option<u64>,
    ) -> Self {
        Self { shared, ticket, object, hasher, position: written, total }
    }

    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// What it takes to announce the end of this download from elsewhere.
    pub(crate) fn end(&self) -> End {
        End {
            flights: Arc::clone(self.ticket.flights()),
            digest: *self.ticket.digest(),
            file: Arc::clone(self.object.file()),
        }
    }

    fn path(&self) -> PathBuf {
        self.shared.tree.partial(self.ticket.digest(), self.ticket.origin())
    }

    /// Takes the next bytes from the upstream. An error ends the download; its readers have failed.
    pub(crate) fn absorb(&mut self, chunks: &[Bytes]) -> Result<(), WriteError> {
        self.check_total(chunks)?;
        self.append(chunks).map_err(|error| {
            self.shared.keeper.wake();
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
    pub(crate) fn publish(self) -> Result<Arc<Object>, FinishError> {
        let digest = *self.ticket.digest();
        if !self.shared.keeps(&digest, self.position) {
            tracing::debug!(%digest, bytes = self.position, "object larger than the cache passed on");
            remove_quietly(&self.shared, &self.path());
            return Ok(Arc::clone(&self.object));
        }
        publish(&self.shared, self.object.file(), &self.path(), &digest)
            .map_err(FinishError::Store)?;
        let file = self.object.file();
        let references = self.shared.documents.read_file(&digest, file, self.position);
        self.shared.published(&self.object, references.unwrap_or_default());
        Ok(Arc::clone(&self.object))
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
        let expected = *self.ticket.digest();
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
        self.end().hold();
        self.object.fail(error);
        remove_quietly(&self.shared, &self.path());
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        self.end().hold();
        self.object.fail(ReadError::Broken);
    }
}
