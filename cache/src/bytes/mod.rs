//! What readers share of an object, and when its end is theirs.
//!
//! | file | subject |
//! |---|---|
//! | `object` | an object, kept or in flight: its file, and how far it may be read |
//! | `reader` | reading it |
//! | `buffers` | memory for reads, used again |
//! | `open_files` | which kept objects are open |
//! | `first_use` | verifying a kept object when it is first asked for |
//! | `verify` | hashing kept objects; quarantine and removal |

pub(crate) mod buffers;
pub(crate) mod first_use;
pub(crate) mod object;
pub(crate) mod open_files;
pub(crate) mod reader;
pub(crate) mod verify;
