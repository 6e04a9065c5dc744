//! The errors of an open store, one enum for each thing that can be asked of it.
//!
//! Whose fault: `DigestMismatch`, `Truncated` and `TooLong` are the upstream's; `Store` is this
//! machine's disk.

use entrepot_oci::Digest;

use crate::disk::error::DiskError;

/// Why a download could not begin. The reservation is given up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BeginError {
    /// [`Start::Resumed`](crate::Start::Resumed) was asked for, and there is no usable partial
    /// file (any more). Look up again and start afresh.
    #[error("there is no partial file to continue")]
    NothingToResume,
    /// The disk failed: relay instead.
    #[error("the store could not take a download")]
    Store(#[source] DiskError),
}

/// Why bytes could not be added to a download. The download is over; its readers have failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// More bytes came than were announced.
    #[error("more than the announced {total} bytes were received")]
    TooLong {
        /// The announced size in bytes.
        total: u64,
    },
    /// The disk failed. Readers get [`ReadError::Store`] behind what was written; the partial file
    /// is removed.
    #[error("the store could not keep the bytes")]
    Store(#[source] DiskError),
}

/// Why a download could not be finished.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FinishError {
    /// The bytes are not those that the digest names. Every reader has failed; nothing is kept.
    #[error("the received bytes have the digest {actual}, not {expected}")]
    DigestMismatch {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Box<Digest>,
    },
    /// Fewer bytes than announced came. Every reader has failed; the partial file stays.
    #[error("{received} of {expected} bytes were received")]
    Truncated {
        /// The announced size in bytes.
        expected: u64,
        /// How many bytes came.
        received: u64,
    },
    /// More bytes came than were announced. Every reader has failed; nothing is kept.
    #[error("more than the announced {total} bytes were received")]
    TooLong {
        /// The announced size in bytes.
        total: u64,
    },
    /// The disk failed and nothing is kept. Where all bytes had been written and their digest is
    /// right the readers of this download finish all the same; else they get [`ReadError::Store`].
    #[error("the store could not keep the object")]
    Store(#[source] DiskError),
}

impl From<WriteError> for FinishError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::TooLong { total } => Self::TooLong { total },
            WriteError::Store(source) => Self::Store(source),
        }
    }
}

/// Why an object could not be put.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// The bytes are not those that the digest names.
    #[error("the bytes have the digest {actual}, not {expected}")]
    DigestMismatch {
        /// What they were said to be.
        expected: Digest,
        /// What they are.
        actual: Box<Digest>,
    },
    /// The disk failed; nothing is kept.
    #[error("the store could not keep the object")]
    Store(#[source] DiskError),
}

/// Why bytes of an object could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The download that this reader follows ended before its object was whole.
    #[error("the download broke off")]
    Broken,
    /// The download is whole and its bytes are wrong: what was read must not be used.
    #[error("the downloaded bytes have the digest {actual}, not {expected}")]
    DigestMismatch {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Box<Digest>,
    },
    /// The kept file is damaged, can't be read, or could not be verified to its end: what was read
    /// must not be used. A damaged file is in quarantine by now: look up again.
    #[error("the kept file is damaged")]
    Damaged,
    /// The disk failed, for the download or for this read. What was read before is what the
    /// upstream sent: go on without the store from the offset that was asked for. (All bytes of a
    /// download below [`Reader::available`](crate::Reader::available) can still be read.)
    #[error("the store could not read the object")]
    Store(#[source] DiskError),
}

/// Why an object could not be taken out of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuarantineError {
    /// No such object is kept.
    #[error("no such object is kept")]
    Absent,
    /// The disk failed; the object may still be in place.
    #[error("the object could not be moved")]
    Store(#[source] DiskError),
}

/// Why a record could not be written. Records can be learnt again: log it and go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The record can't be expressed, or is too large.
    #[error("the record could not be encoded")]
    Encode,
    /// The registry has as many records as it may have, or the file system is short of files.
    #[error("there is no room for more records")]
    Full,
    /// The disk failed; the record that was there before is still there.
    #[error("the record could not be written")]
    Store(#[source] DiskError),
}

impl BeginError {
    /// Whether the cause is a full disk, quota or inode table (`ENOSPC`, `EDQUOT`).
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Store(source) if source.is_no_space())
    }
}

impl WriteError {
    /// Whether the cause is a full disk, quota or inode table (`ENOSPC`, `EDQUOT`).
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Store(source) if source.is_no_space())
    }
}

impl FinishError {
    /// Whether the cause is a full disk, quota or inode table (`ENOSPC`, `EDQUOT`).
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Store(source) if source.is_no_space())
    }
}
