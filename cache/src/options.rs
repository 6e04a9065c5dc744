//! How a store is opened.

use std::path::PathBuf;

use crate::disk::Disk;

/// What [`Store::open`](crate::Store::open) needs to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The store's directory; it and its parents are created (0700) when missing.
    pub dir: PathBuf,
    /// How files are reached: the real file system, unless a test says otherwise.
    pub disk: Disk,
}

impl Options {
    /// A store in `dir`, on the real file system.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), disk: Disk::real() }
    }

    /// The same with another way to the files.
    #[must_use]
    pub fn with_disk(mut self, disk: Disk) -> Self {
        self.disk = disk;
        self
    }
}
