//! From the right to a digest to a file under its name.
//!
//! | file | subject |
//! |---|---|
//! | `in_flight` | who is downloading what: at most one of a digest |
//! | `origin` | which registry a download comes from |
//! | `reservation` | the right to a download, before the first byte |
//! | `writer` | its async end |
//! | `queue` | what waits between its two ends |
//! | `disk_end` | its disk end: hashes, writes, verifies |
//! | `publish` | from a verified file to a final name |

pub(crate) mod disk_end;
pub(crate) mod in_flight;
pub(crate) mod origin;
pub(crate) mod publish;
pub(crate) mod queue;
pub(crate) mod reservation;
pub(crate) mod writer;
