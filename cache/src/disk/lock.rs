//! One process owns a store: an advisory lock on a file that names its holder.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

use super::error::DiskError;
use super::faults::Call;
use super::file::DiskFile;
use super::open_error::OpenError;
use super::tree::Tree;

/// How long an opener waits for a predecessor that is just ending.
const PATIENCE: Duration = Duration::from_millis(600);
const PAUSE: Duration = Duration::from_millis(25);

/// The held lock. The kernel frees it when the last handle is closed, however the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: DiskFile,
}

impl Lock {
    /// Takes the lock of `tree`, or says within a second who has it. Blocks.
    pub(crate) fn take(tree: &Tree) -> Result<Self, OpenError> {
        let failed = |error| tree.failed(error);
        let file = tree.disk().open_or_create(&tree.lock()).map_err(failed)?;
        if !acquire(tree, &file).map_err(failed)? {
            return Err(OpenError::Locked { dir: tree.dir().to_owned(), holder: holder(&file) });
        }
        sign(&file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Whether a process has the store in `dir` open. Only looks; also `false` where that can't be
/// told.
#[must_use]
pub fn is_held(dir: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = open(dir.join("lock"), flags, Mode::empty());
    opened.is_ok_and(|file| {
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    })
}

fn acquire(tree: &Tree, file: &DiskFile) -> Result<bool, DiskError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match flock(file.as_file(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(false),
            Err(error) => return Err(DiskError::new(Call::Open, &tree.lock(), error.into())),
        }
    }
}

fn sign(file: &DiskFile) -> Result<(), DiskError> {
    file.truncate(0)?;
    file.write_all_at(&[Bytes::from(format!("{}\n", std::process::id()))], 0)
}

fn holder(file: &DiskFile) -> Option<u32> {
    let len = usize::try_from(file.len().ok()?.min(16)).ok()?;
    let bytes = file.read_exact_at(len, 0).ok()?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
}
