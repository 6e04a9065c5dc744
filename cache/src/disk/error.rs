//! A file call that failed, or work on files that was cut short.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::faults::Call;

/// Which file call failed, on what, and why; or that work on files was cut short before one did.
/// Cheap to clone: every reader of a download gets it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{attempt}")]
pub struct DiskError {
    attempt: Attempt,
    #[source]
    source: Arc<io::Error>,
}

/// What was not done.
#[derive(Clone, Debug)]
enum Attempt {
    Call(Call, PathBuf),
    /// Work of several calls, of which it is not known how far it came.
    Work,
}

impl DiskError {
    pub(crate) fn new(call: Call, path: &Path, source: io::Error) -> Self {
        Self { attempt: Attempt::Call(call, path.to_owned()), source: Arc::new(source) }
    }

    /// No file call is known to have failed: the work panicked, took too long, or the runtime is
    /// shutting down.
    pub(crate) fn cut_short(source: io::Error) -> Self {
        Self { attempt: Attempt::Work, source: Arc::new(source) }
    }

    /// The operating system's error; of work that was cut short, what ended it.
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

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(call, path) => write!(f, "could not {} {}", call.verb(), path.display()),
            Self::Work => f.write_str("the work on the disk was cut short"),
        }
    }
}
