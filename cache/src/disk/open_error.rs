//! Why a directory can't be opened as a store.

use std::path::PathBuf;

use super::error::DiskError;

/// Why a store could not be opened. Nothing was changed unless the variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory has files in it and was not made by this program.
    #[error(
        "{} is not a store and not empty: it contains {foreign:?}; choose another directory",
        dir.display()
    )]
    Foreign {
        /// The directory that was named.
        dir: PathBuf,
        /// A file or directory in it that does not belong to a store.
        foreign: String,
    },
    /// The store was written in a format that this version does not know.
    #[error(
        "{} has the unknown format {found:?}; this version reads {known:?}, \
         use the version that wrote it or choose another directory",
        dir.display()
    )]
    UnknownVersion {
        /// The directory that was named.
        dir: PathBuf,
        /// The first line of its `VERSION` file, shortened.
        found: String,
        /// The format that this version writes.
        known: &'static str,
    },
    /// Another process has the store open.
    #[error("{} is in use by {}", dir.display(), holder_text(*holder))]
    Locked {
        /// The directory that was named.
        dir: PathBuf,
        /// The process that holds it, if it could be read.
        holder: Option<u32>,
    },
    /// A file call failed while the store was created or recovered.
    #[error("the store in {} could not be opened", dir.display())]
    Store {
        /// The directory that was named.
        dir: PathBuf,
        /// What failed.
        #[source]
        source: DiskError,
    },
    /// The opening itself was cut short: a defect here, or the runtime is shutting down.
    #[error("opening the store was interrupted")]
    Interrupted(#[source] std::io::Error),
}

fn holder_text(holder: Option<u32>) -> String {
    holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
