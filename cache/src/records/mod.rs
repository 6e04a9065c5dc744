//! What a registry has shown where.
//!
//! | file | subject |
//! |---|---|
//! | `repository` | the records of one repository, or of a registry |
//! | `pruning` | taking away those of what has long been gone |
//! | `listing` | which records there are |
//! | `savings` | what the store's user has counted |
//! | `files` | how a record lies in its file |

pub(crate) mod files;
pub(crate) mod listing;
pub(crate) mod pruning;
pub(crate) mod repository;
pub(crate) mod savings;
