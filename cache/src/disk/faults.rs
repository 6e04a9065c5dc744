//! A plan of failures: which file call fails, and how.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

/// The kinds of file call that the store makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Opening an existing file.
    Open,
    /// Creating a file.
    Create,
    /// Asking for a file's size.
    Stat,
    /// A positional read that waits for the disk.
    Read,
    /// A read of what the page cache has, which never waits.
    Peek,
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
            Self::Read | Self::Peek => "read",
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
    /// It does not return before [`FaultPlan::release`]; then it is done. What is to be read from
    /// a disk that hangs is not in the page cache.
    Hang,
}

/// What the caller of [`FaultPlan::consult`] is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Proceed,
    Short,
    /// The page cache has nothing.
    Nothing,
}

/// Counts and records file calls and makes some of them fail or hang. Calls are numbered from 1.
#[derive(Debug)]
pub struct FaultPlan {
    fault: Fault,
    first: u64,
    last: u64,
    only: Option<Call>,
    about: Option<PathBuf>,
    hanging: Mutex<HungCalls>,
    changed: Condvar,
    counted: AtomicU64,
    fired: AtomicU64,
    log: Mutex<Vec<(Call, PathBuf)>>,
}

#[derive(Debug)]
struct HungCalls {
    now: usize,
    released: bool,
}

impl FaultPlan {
    const fn between(first: u64, last: u64, fault: Fault) -> Self {
        Self {
            fault,
            first,
            last,
            only: None,
            about: None,
            hanging: Mutex::new(HungCalls { now: 0, released: false }),
            changed: Condvar::new(),
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

    /// This plan, counting only calls of one kind.
    #[must_use]
    pub const fn only(mut self, call: Call) -> Self {
        self.only = Some(call);
        self
    }

    /// This plan, counting only calls about `path`: the name that a file was opened by.
    #[must_use]
    pub fn about(mut self, path: impl Into<PathBuf>) -> Self {
        self.about = Some(path.into());
        self
    }

    /// Lets go of the calls that hang; none will hang any more.
    pub fn release(&self) {
        self.hanging.lock().released = true;
        self.changed.notify_all();
    }

    /// How many calls are hanging now.
    #[must_use]
    pub fn hanging(&self) -> usize {
        self.hanging.lock().now
    }

    /// How many calls have met the fault.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.fired.load(Ordering::SeqCst)
    }

    /// Every call so far with the path it was about (of a rename, the new one).
    #[must_use]
    pub fn calls(&self) -> Vec<(Call, PathBuf)> {
        self.log.lock().clone()
    }

    pub(super) fn consult(&self, call: Call, path: &Path) -> io::Result<Effect> {
        self.log.lock().push((call, path.to_owned()));
        if self.about.as_deref().is_some_and(|about| about != path) {
            return Ok(Effect::Proceed);
        }
        if call == Call::Peek && self.is_read_hanging() {
            return Ok(Effect::Nothing);
        }
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
            Fault::Hang => {
                self.hang();
                Ok(Effect::Proceed)
            }
        }
    }

    fn is_read_hanging(&self) -> bool {
        self.fault == Fault::Hang
            && self.only.is_none_or(|only| only == Call::Read)
            && !self.hanging.lock().released
    }

    fn hang(&self) {
        let mut hanging = self.hanging.lock();
        hanging.now = hanging.now.saturating_add(1);
        self.changed.wait_while(&mut hanging, |hanging| !hanging.released);
        hanging.now = hanging.now.saturating_sub(1);
    }
}
