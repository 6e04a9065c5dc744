//! How a store is opened.

use std::path::PathBuf;
use std::time::Duration;

use crate::disk::Disk;
use crate::index::references::ReadReferences;

/// For what documents need, where nobody says otherwise.
const REFERENCE_BYTES: u64 = 64 * 1024 * 1024;
/// For what waits for the disk, where nobody says otherwise.
const QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// What [`Store::open`](crate::Store::open) needs to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The store's directory; it and its parents are created (0700) when missing.
    pub dir: PathBuf,
    /// How files are reached: the real file system, unless a test says otherwise.
    pub disk: Disk,
    /// How many bytes are kept at most. Above it, objects are evicted down to 95 % of it; one that
    /// is larger than all of it passes through and is not kept. Downloads under way, records and
    /// what is quarantined are not counted.
    pub max_size: Option<u64>,
    /// How many bytes of the file system stay free for others. Below it, objects are evicted until
    /// 5 % more than that are free.
    pub min_free: Option<u64>,
    /// After how long without use an object is evicted, to the second.
    pub max_idle: Option<Duration>,
    /// Which other objects a document needs: an image's index its manifests, a manifest its
    /// configuration and layers. Given the bytes of a kept object that looks like a JSON object and
    /// has 8 MiB at most; what it can't read needs nothing. Called off the async threads.
    ///
    /// With it a document and what it needs are evicted together, and a pin holds all of them.
    pub references: Option<ReadReferences>,
    /// How many objects are kept at most: each takes some hundred bytes of memory for good. Above
    /// it, objects are evicted down to 95 % of it.
    pub max_objects: Option<u64>,
    /// How many bytes of memory what documents need may take. What does not fit is read from their
    /// files where it matters: for pins, and for [`Store::withdraw`](crate::Store::withdraw).
    pub max_reference_bytes: u64,
    /// How many bytes may wait between all upstreams and the disk.
    pub max_queued_bytes: usize,
}

/// The bounds among the options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) max_objects: Option<u64>,
    pub(crate) max_size: Option<u64>,
    pub(crate) min_free: Option<u64>,
    pub(crate) max_idle: Option<Duration>,
}

impl Options {
    /// A store in `dir`, on the real file system, without bounds.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            disk: Disk::real(),
            max_size: None,
            min_free: None,
            max_idle: None,
            references: None,
            max_objects: None,
            max_reference_bytes: REFERENCE_BYTES,
            max_queued_bytes: QUEUED_BYTES,
        }
    }

    /// These options with another way to the files.
    #[must_use]
    pub fn with_disk(mut self, disk: Disk) -> Self {
        self.disk = disk;
        self
    }

    /// What is to be held.
    pub(crate) const fn bounds(&self) -> Bounds {
        let Self { max_objects, max_size, min_free, max_idle, .. } = self;
        Bounds {
            max_objects: *max_objects,
            max_size: *max_size,
            min_free: *min_free,
            max_idle: *max_idle,
        }
    }
}
