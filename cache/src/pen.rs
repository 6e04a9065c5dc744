//! The disk end of a download: hashes, writes, compares, verifies, publishes. All of it blocks.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{DiskError, DiskFile};
use crate::flights::{Flights, Ticket};
use crate::object::Object;
use crate::origin::Origin;
use crate::publish::{publish, remove_quietly};
use crate::shared::Shared;
use crate::{Digest, FinishError, HOLD_BACK, Hasher, ReadError, WriteError};

/// A download under way. Dropping it fails its readers and gives the digest free.
///
/// Invariants: `position <= high`; the hasher has seen the upstream's first `position` bytes; they
/// are the file's first `position` bytes. `position < high` only after a restart, while what comes
/// again is compared with what is there.
pub(crate) struct Pen {
    shared: Arc<Shared>,
    ticket: Ticket,
    object: Arc<Object>,
    hasher: Hasher,
    position: u64,
    high: u64,
    total: Option<u64>,
}

/// Turns those who ask into those who wait for the next download, while this one ends.
#[derive(Debug)]
pub(crate) struct End {
    flights: Arc<Flights>,
    digest: Digest,
    origin: Origin,
    file: Arc<DiskFile>,
}

impl End {
    /// Nobody new follows the download; without effect when it has ended already.
    pub(crate) fn hold(&self) {
        self.flights.hold(&self.digest, &self.origin, &self.file);
    }
}

impl std::fmt::Debug for Pen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pen")
            .field("digest", self.ticket.digest())
            .field("position", &self.position)
            .field("high", &self.high)
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
        Self { shared, ticket, object, hasher, position: written, high: written, total }
    }

    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// What it takes to announce the end of this download from elsewhere.
    pub(crate) fn end(&self) -> End {
        End {
            flights: Arc::clone(self.ticket.flights()),
            digest: *self.ticket.digest(),
            origin: self.ticket.origin().clone(),
            file: Arc::clone(self.object.file()),
        }
    }

    fn path(&self) -> PathBuf {
        self.shared.tree.partial(self.ticket.digest(), self.ticket.origin())
    }

    /// Takes the next bytes from the upstream. An error ends the download; its readers have failed.
    pub(crate) fn absorb(&mut self, chunks: Vec<Bytes>) -> Result<(), WriteError> {
        self.check_total(&chunks)?;
        let written = self.compare(chunks).and_then(|fresh| self.append(&fresh));
        written.map_err(|error| {
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
        if chunks.is_empty() {
            return Ok(());
        }
        for chunk in chunks {
            self.hasher.update(chunk);
        }
        self.object.file().write_all_at(chunks, self.position)?;
        let len: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        self.position = self.position.saturating_add(len);
        self.high = self.position;
        self.object.advance(self.high);
        Ok(())
    }

    /// Checks what comes again against the file; returns what is new.
    fn compare(&mut self, chunks: Vec<Bytes>) -> Result<Vec<Bytes>, DiskError> {
        if self.position == self.high {
            return Ok(chunks);
        }
        let mut fresh = Vec::new();
        for mut chunk in chunks {
            let again = chunk.split_to(self.overlap(chunk.len()));
            let same = self.common(&again)?;
            self.hasher.update(&again.slice(..same));
            self.position = self.position.saturating_add(same as u64);
            if same < again.len() {
                self.diverge()?;
                fresh.push(again.slice(same..));
            }
            fresh.push(chunk);
        }
        fresh.retain(|chunk| !chunk.is_empty());
        Ok(fresh)
    }

    /// How many of the next `len` bytes are in the file already.
    fn overlap(&self, len: usize) -> usize {
        usize::try_from(self.high.saturating_sub(self.position)).unwrap_or(usize::MAX).min(len)
    }

    /// How many bytes of `again` equal those of the file at the present position.
    fn common(&self, again: &[u8]) -> Result<usize, DiskError> {
        if again.is_empty() {
            return Ok(0);
        }
        let ours = self.object.file().read_exact_at(again.len(), self.position)?;
        Ok(again.iter().zip(&ours).take_while(|(new, old)| new == old).count())
    }

    /// What lies behind the present position is not what the upstream has now.
    ///
    /// Readers that may have seen it are failed before a byte changes; those who come later follow
    /// a new object. When nobody can have seen it, nobody is disturbed.
    fn diverge(&mut self) -> Result<(), DiskError> {
        if self.object.visible() > self.position {
            self.replace_object(self.position);
        }
        self.object.file().truncate(self.position)?;
        self.high = self.position;
        Ok(())
    }

    fn replace_object(&mut self, written: u64) {
        let file = Arc::clone(self.object.file());
        let buffers = &self.shared.buffers;
        let (digest, origin) = (*self.ticket.digest(), self.ticket.origin());
        let object = Object::filling(digest, file, buffers, origin, written, self.total);
        let before = std::mem::replace(&mut self.object, Arc::new(object));
        self.ticket.lead_to(&self.object);
        before.fail(ReadError::Changed);
    }

    /// The upstream begins again at byte 0, now announcing `total` bytes.
    ///
    /// Readers were promised the former size, and see nothing of a promised object's end: where
    /// the new size breaks either, they are failed.
    pub(crate) fn restart(&mut self, total: Option<u64>) {
        self.hasher = Hasher::new(self.ticket.digest().algorithm());
        self.position = 0;
        let (Some(new), before) = (total, self.total) else { return };
        self.total = total;
        let shown = self.object.visible() > new.saturating_sub(HOLD_BACK);
        match before {
            Some(before) if before == new => {}
            None if !shown => self.object.announce(new),
            _ => self.replace_object(self.high),
        }
    }

    /// The upstream has sent everything: verify, release the readers, publish.
    pub(crate) fn finish(mut self) -> Result<Arc<Object>, FinishError> {
        self.check_whole()?;
        self.check_digest()?;
        if self.position < self.high {
            self.diverge().map_err(|error| self.give_up(error))?;
        }
        self.object.verified(self.position);
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

    fn give_up(&self, error: DiskError) -> FinishError {
        self.discard(ReadError::Store(error.clone()));
        FinishError::Store(error)
    }

    /// The download was dropped; what it has is kept for a later one, if that is worth a range.
    pub(crate) fn abandon(self) {
        if self.high <= HOLD_BACK {
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
