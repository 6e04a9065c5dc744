//! What is left of a download whose disk has failed: enough to go on without one.

use bytes::Bytes;

use crate::disk::DiskError;
use crate::pen::Pen;
use crate::{FinishError, Hasher, ReadError, WriteError};

/// A download taken out of the store because the disk failed, to be continued without it.
///
/// The readers of the download can read all bytes below `from` and get
/// [`ReadError::Store`] there. What a client gets from there on is `unseen`, then what the upstream
/// sends from `offset`. Whoever sends it on adds what comes to `hasher` and holds the last
/// [`HOLD_BACK`](crate::HOLD_BACK) bytes back until the digest is right.
#[non_exhaustive]
pub struct Relay {
    /// Where the bytes begin that no reader has seen.
    pub from: u64,
    /// Those bytes up to `offset`: 5 MiB at most.
    pub unseen: Vec<Bytes>,
    /// How many bytes of the object were taken, as [`Writer::offset`](crate::Writer::offset) says:
    /// the upstream's next byte.
    pub offset: u64,
    /// It has seen all bytes below `offset`.
    pub hasher: Hasher,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (from, offset) = (self.from, self.offset);
        f.debug_struct("Relay")
            .field("from", &from)
            .field("offset", &offset)
            .finish_non_exhaustive()
    }
}

/// A download whose disk has failed, until its writer says what is to become of it. Its readers
/// wait meanwhile.
#[derive(Debug)]
pub(crate) struct Wreck {
    pen: Box<Pen>,
    relay: Relay,
    error: DiskError,
}

impl Wreck {
    /// The error again when there is nothing to go on with.
    pub(crate) fn new(mut pen: Box<Pen>, error: WriteError) -> Result<Self, WriteError> {
        match (pen.take_rescued(), error) {
            (Some(relay), WriteError::Store(error)) => Ok(Self { pen, relay, error }),
            (_, error) => Err(error),
        }
    }

    /// Takes bytes that the writer was told are taken.
    pub(crate) fn absorb(&mut self, chunk: Bytes) {
        self.relay.hasher.update(&chunk);
        self.relay.offset = self.relay.offset.saturating_add(chunk.len() as u64);
        self.relay.unseen.push(chunk);
    }

    /// Fails the readers and removes the file; the rest is the caller's. Blocks.
    pub(crate) fn give_up(&self) {
        self.pen.discard(ReadError::Store(self.error.clone()));
    }

    /// What is to be continued elsewhere, and what is to be [given up](Self::give_up) for it.
    pub(crate) fn part(self) -> (Relay, impl FnOnce() + Send + 'static) {
        let Self { pen, relay, error } = self;
        (relay, move || pen.discard(ReadError::Store(error)))
    }

    /// Everything has come: if it is right, readers finish from memory. Blocks.
    pub(crate) fn finish(self) -> FinishError {
        let Self { pen, relay, error } = self;
        match pen.finish_in_memory(relay) {
            Ok(()) => FinishError::Store(error),
            Err(worse) => worse,
        }
    }
}
