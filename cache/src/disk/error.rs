//! A file call that failed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Call;

/// Which file call failed, on what, and why. Cheap to clone: every reader of a download gets it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("could not {} {}", call.verb(), path.display())]
pub struct DiskError {
    call: Call,
    path: PathBuf,
    #[source]
    source: Arc<io::Error>,
}

impl DiskError {
    pub(crate) fn new(call: Call, path: &Path, source: io::Error) -> Self {
        Self { call, path: path.to_owned(), source: Arc::new(source) }
    }

    /// The operating system's error.
    #[must_use]
    pub fn io(&self) -> &io::Error {
        &self.source
    }

    /// Whether the disk, the quota or the inode table is full (`ENOSPC`, `EDQUOT`).
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self.source.kind(), StorageFull | QuotaExceeded)
    }

    /// Whether the file was simply not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}
