//! A plan of failures: which file call fails, and how.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::locked;

/// The kinds of file call that the store makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Opening an existing file.
    Open,
    /// Creating a file.
    Create,
    /// Asking for a file's size.
    Stat,
    /// A positional read.
    Read,
    /// A positional write.
    Write,
    /// Cutting a file to a length.
    Truncate,
    /// Making a file's bytes durable.
    Sync,
    /// Making a directory's names durable.
    SyncDir,
    /// Renaming a file.
    Rename,
    /// Removing a file or a directory.
    Remove,
    /// Creating a directory.
    MakeDir,
    /// Listing a directory.
    List,
}

impl Call {
    pub(super) const fn verb(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Stat => "inspect",
            Self::Read => "read",
            Self::Write => "write",
            Self::Truncate => "cut",
            Self::Sync | Self::SyncDir => "sync",
            Self::Rename => "rename to",
            Self::Remove => "remove",
            Self::MakeDir => "create the directory",
            Self::List => "list",
        }
    }
}

/// What happens to a call that the plan picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done and this `errno` is returned.
    Errno(i32),
    /// A write takes half of its bytes and says so; other calls are left alone.
    ShortWrite,
}

/// What the caller of [`FaultPlan::consult`] is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Proceed,
    Short,
}

/// Counts and records file calls and makes some of them fail. Calls are numbered from 1.
#[derive(Debug)]
pub struct FaultPlan {
    fault: Fault,
    first: u64,
    last: u64,
    only: Option<Call>,
    counted: AtomicU64,
    fired: AtomicU64,
    log: Mutex<Vec<(Call, PathBuf)>>,
}

impl FaultPlan {
    const fn between(first: u64, last: u64, fault: Fault) -> Self {
        Self {
            fault,
            first,
            last,
            only: None,
            counted: AtomicU64::new(0),
            fired: AtomicU64::new(0),
            log: Mutex::new(Vec::new()),
        }
    }

    /// Nothing fails; calls are recorded.
    #[must_use]
    pub const fn record() -> Self {
        Self::between(u64::MAX, u64::MAX, Fault::ShortWrite)
    }

    /// Call number `n` meets `fault`; those after it are fine.
    #[must_use]
    pub const fn at(n: u64, fault: Fault) -> Self {
        Self::between(n, n, fault)
    }

    /// Call number `n` and all after it meet `fault`: a dead process, or a dead disk.
    #[must_use]
    pub const fn from(n: u64, fault: Fault) -> Self {
        Self::between(n, u64::MAX, fault)
    }

    /// The same plan, counting only calls of one kind.
    #[must_use]
    pub const fn only(mut self, call: Call) -> Self {
        self.only = Some(call);
        self
    }

    /// How many calls have met the fault.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.fired.load(Ordering::SeqCst)
    }

    /// Every call so far with the path it was about (of a rename, the new one).
    #[must_use]
    pub fn calls(&self) -> Vec<(Call, PathBuf)> {
        locked(&self.log).clone()
    }

    pub(super) fn consult(&self, call: Call, path: &Path) -> io::Result<Effect> {
        locked(&self.log).push((call, path.to_owned()));
        if self.only.is_some_and(|only| only != call) {
            return Ok(Effect::Proceed);
        }
        let number = self.counted.fetch_add(1, Ordering::SeqCst) + 1;
        if number < self.first || number > self.last {
            return Ok(Effect::Proceed);
        }
        self.fired.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::Errno(errno) => Err(io::Error::from_raw_os_error(errno)),
            Fault::ShortWrite if call == Call::Write => Ok(Effect::Short),
            Fault::ShortWrite => Ok(Effect::Proceed),
        }
    }
}
