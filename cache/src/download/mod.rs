//! From the right to a digest to a file under its name.
//!
//! | file | subject |
//! |---|---|
//! | `reservation` | the right to a download, before the first byte |
//! | `writer` | its async end |
//! | `queue` | what waits between its two ends |
//! | `disk_end` | its disk end: hashes, writes, verifies |
//! | `whole` | a small object that comes whole |
//! | `publish` | from a verified file to a final name |
//! | `in_flight` | who is downloading what: at most one of a digest from one registry |
//! | `origin` | which registry a download comes from |

mod disk_end;
pub(crate) mod in_flight;
pub(crate) mod origin;
pub(crate) mod publish;
mod queue;
pub(crate) mod reservation;
pub(crate) mod whole;
pub(crate) mod writer;
