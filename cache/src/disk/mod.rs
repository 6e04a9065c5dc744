//! Every file call, and the threads that wait for it.
//!
//! Nothing else in this crate opens, reads, writes, syncs, renames or removes a file (`clippy.toml`
//! holds that); the one exception is the index engine, which is only ever a hint. All calls block:
//! callers are on a blocking thread.
//!
//! [`Disk::real`] is the file system. [`Disk::with_faults`] is the file system with a [`FaultPlan`]
//! consulted before each call: recorded, made to fail, cut short, or held. It is compiled in
//! always, so that what is tested is what runs.
//!
//! | file | subject |
//! |---|---|
//! | `tree` | where everything lies, and whether a directory is ours |
//! | `lock` | one process owns a store |
//! | `recovery` | cleaning, at open, what a crash left behind |
//! | `threads` | how blocking work reaches threads, and how many of them one file takes |
//! | `calls`, `file` | the file calls: by a path, and on an open file |
//! | `seam`, `faults` | where a test makes them fail, and how |
//! | `error`, `open_error` | a file call that failed; why a directory can't be opened as a store |
//! | `checksum` | finding damage in what was read |

#[expect(clippy::disallowed_methods, reason = "these are the file calls")]
mod calls;
pub(crate) mod checksum;
pub(crate) mod error;
mod faults;
pub(crate) mod file;
#[expect(clippy::disallowed_methods, reason = "looking who has a lock must not take it")]
pub(crate) mod lock;
pub(crate) mod open_error;
pub(crate) mod recovery;
mod seam;
pub(crate) mod threads;
pub(crate) mod tree;

pub(crate) use calls::{DirectoryEntry, Kind};
pub use error::DiskError;
pub use faults::{Call, Fault, FaultPlan};
pub(crate) use file::DiskFile;
pub use seam::Disk;
