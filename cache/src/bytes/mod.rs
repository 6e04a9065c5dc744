//! What readers share of an object, and when its end is theirs.
//!
//! | file | subject |
//! |---|---|
//! | `opening` | opening a kept object: one file for all who read it |
//! | `first_use` | verifying a kept object when it is first asked for |
//! | `verify` | hashing kept objects from the disk |
//! | `kept` | the kept objects of an open store, and what takes one away |
//! | `open_files` | which kept objects are open |
//! | `reader` | reading an object, kept or in flight |
//! | `object` | the bytes that readers share, and how far they may be read |
//! | `buffers` | memory for reads, used again |

mod buffers;
pub(crate) mod first_use;
pub(crate) mod kept;
pub(crate) mod object;
mod open_files;
pub(crate) mod opening;
pub(crate) mod reader;
pub(crate) mod verify;
