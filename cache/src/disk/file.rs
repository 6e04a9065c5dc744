//! An open file of the store: positional reads and writes.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags};

use super::error::DiskError;
use super::faults::{Call, Effect};
use super::seam::Disk;

/// The most slices one vectored write takes (`IOV_MAX` on Linux).
const MAX_SLICES: usize = 1024;

/// An open regular file and the name it was opened by (it may have been renamed since).
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: File,
    path: PathBuf,
    disk: Disk,
}

impl DiskFile {
    pub(super) fn new(file: File, path: &Path, disk: Disk) -> Self {
        Self { file, path: path.to_owned(), disk }
    }

    /// The file itself, for locking.
    pub(crate) const fn as_file(&self) -> &File {
        &self.file
    }

    /// The present length in bytes.
    pub(crate) fn len(&self) -> Result<u64, DiskError> {
        self.attempt(Call::Stat, || Ok(self.file.metadata()?.len()))
    }

    /// Reads exactly `len` bytes at `offset` into memory that is not zeroed first.
    ///
    /// A file that ends before is an error: the caller knows how long it is meant to be.
    pub(crate) fn read_exact_at(&self, len: usize, offset: u64) -> Result<Vec<u8>, DiskError> {
        let mut bytes = Vec::with_capacity(len);
        self.attempt(Call::Read, || {
            while bytes.len() < len {
                let at = offset.saturating_add(bytes.len() as u64);
                self.read_more(&mut bytes, at)?;
            }
            bytes.truncate(len);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn read_more(&self, bytes: &mut Vec<u8>, at: u64) -> io::Result<()> {
        match rustix::io::pread(&self.file, spare_capacity(bytes), at) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Fills the beginning of `buffer` with what the page cache has at `offset`, without ever
    /// waiting for the disk. `None`: nothing, or the file system can't say.
    pub(crate) fn read_cached_at(
        &self,
        buffer: &mut [u8],
        offset: u64,
    ) -> Result<Option<usize>, DiskError> {
        if self.disk.gate(Call::Peek, &self.path)? == Effect::Nothing {
            return Ok(None);
        }
        let slice = &mut [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.file, slice, offset, ReadWriteFlags::NOWAIT) {
            Ok(count) => Ok(Some(count).filter(|count| *count > 0)),
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(None),
            Err(error) => Err(self.error(Call::Peek, error.into())),
        }
    }

    /// Nothing is read ahead through this handle. A hint: failures are ignored.
    pub(crate) fn expect_no_sequence(&self) {
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::Random);
    }

    /// What the page cache has of these bytes may go. A hint: failures are ignored.
    pub(crate) fn drop_cached(&self, offset: u64, len: usize) {
        if let Some(len) = NonZeroU64::new(len as u64) {
            let _ = rustix::fs::fadvise(&self.file, offset, Some(len), Advice::DontNeed);
        }
    }

    /// Fills `buffer` from `offset`, waiting for the disk. A file that ends before is an error.
    pub(crate) fn fill_from(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
        self.attempt(Call::Read, || self.file.read_exact_at(buffer, offset))
    }

    /// Writes all of `chunks`, one after the other, at `offset`.
    pub(crate) fn write_all_at(&self, chunks: &[Bytes], offset: u64) -> Result<(), DiskError> {
        let mut at = offset;
        for group in chunks.chunks(MAX_SLICES) {
            let mut slices: Vec<IoSlice<'_>> =
                group.iter().filter(|chunk| !chunk.is_empty()).map(|c| IoSlice::new(c)).collect();
            at = at.saturating_add(self.write_slices(&mut slices, at)?);
        }
        Ok(())
    }

    fn write_slices(&self, slices: &mut [IoSlice<'_>], offset: u64) -> Result<u64, DiskError> {
        let mut rest = slices;
        let mut written = 0;
        while !rest.is_empty() {
            let count = self.write_some(rest, offset.saturating_add(written))?;
            IoSlice::advance_slices(&mut rest, count);
            written = written.saturating_add(count as u64);
        }
        Ok(written)
    }

    fn write_some(&self, slices: &[IoSlice<'_>], at: u64) -> Result<usize, DiskError> {
        let effect = self.disk.gate(Call::Write, &self.path)?;
        let half =
            slices.first().map(|slice| slice.get(..slice.len().div_ceil(2)).unwrap_or(slice));
        let result = match (effect, half) {
            (Effect::Short, Some(half)) => rustix::io::pwrite(&self.file, half, at),
            _ => rustix::io::pwritev(&self.file, slices, at),
        };
        match result {
            Ok(0) => Err(self.error(Call::Write, io::ErrorKind::WriteZero.into())),
            Ok(count) => Ok(count),
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(self.error(Call::Write, error.into())),
        }
    }

    /// Cuts the file to `len` bytes.
    pub(crate) fn truncate(&self, len: u64) -> Result<(), DiskError> {
        self.attempt(Call::Truncate, || self.file.set_len(len))
    }

    /// Makes the bytes durable. After a failure the file is suspect for ever: never try again.
    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        self.attempt(Call::Sync, || self.file.sync_all())
    }

    fn attempt<T>(&self, call: Call, work: impl FnOnce() -> io::Result<T>) -> Result<T, DiskError> {
        self.disk.attempt(call, &self.path, work)
    }

    fn error(&self, call: Call, source: io::Error) -> DiskError {
        DiskError::new(call, &self.path, source)
    }
}
