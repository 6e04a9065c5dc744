//! The store's directory: where everything lies, and whether a directory is ours.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use entrepot_oci::hex::decode;
use entrepot_oci::{Algorithm, Digest};

use super::calls::Kind;
use super::error::DiskError;
use super::open_error::OpenError;
use super::seam::Disk;

/// The first line of `VERSION`.
pub(crate) const FORMAT: &str = "entrepot store 1";

/// How many hexadecimal digits of a hash stand for an origin in a file's name: so many that no
/// second name for them is found.
const TAG_DIGITS: usize = 32;

/// More than any `VERSION` of ours has.
const VERSION_LIMIT: usize = 256;

/// What a directory is that may be opened as a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// A store.
    Ours,
    /// Missing or empty: opening it makes it a store.
    Free,
}

impl Claim {
    /// What `dir` is, or why [`Store::open`](crate::Store::open) would refuse it. Changes nothing,
    /// and does not ask who has it open; blocks.
    ///
    /// # Errors
    ///
    /// What is there is no store and not empty, has an unknown format, or can't be looked at.
    pub fn of(dir: &Path) -> Result<Self, OpenError> {
        Tree::new(dir.to_owned(), Disk::real()).standing()
    }
}

/// Paths below a store's directory, and the disk that they lie on.
#[derive(Debug)]
pub(crate) struct Tree {
    dir: PathBuf,
    disk: Disk,
    temporary: AtomicU64,
}

impl Tree {
    pub(crate) const fn new(dir: PathBuf, disk: Disk) -> Self {
        Self { dir, disk, temporary: AtomicU64::new(0) }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) const fn disk(&self) -> &Disk {
        &self.disk
    }

    /// `blobs/<algorithm>`
    pub(crate) fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.dir.join("blobs").join(algorithm.as_str())
    }

    /// `blobs/<algorithm>/<first two digits>`
    pub(crate) fn shard(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.blobs(digest.algorithm()).join(hex.get(..2).unwrap_or(&hex))
    }

    /// `blobs/<algorithm>/<first two digits>/<hex>`
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.shard(digest).join(digest.hex())
    }

    /// `partial/<algorithm>`
    pub(crate) fn partials(&self, algorithm: Algorithm) -> PathBuf {
        self.dir.join("partial").join(algorithm.as_str())
    }

    /// `partial/<algorithm>/<hex>.<origin's tag>`
    pub(crate) fn partial(&self, digest: &Digest, origin: &str) -> PathBuf {
        self.partials(digest.algorithm()).join(partial_name(digest, origin))
    }

    /// `partial/`
    pub(crate) fn partial_root(&self) -> PathBuf {
        self.dir.join("partial")
    }

    /// `partial/tmp`
    pub(crate) fn temporaries(&self) -> PathBuf {
        self.partial_root().join("tmp")
    }

    /// A name under `partial/tmp` that is used once in this process.
    pub(crate) fn temporary(&self) -> PathBuf {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        self.temporaries().join(number.to_string())
    }

    /// `quarantine/<algorithm>-<hex>`
    pub(crate) fn quarantined(&self, digest: &Digest) -> PathBuf {
        self.dir.join("quarantine").join(format!("{}-{}", digest.algorithm(), digest.hex()))
    }

    /// `pins/<algorithm>`
    pub(crate) fn pins(&self, algorithm: Algorithm) -> PathBuf {
        self.dir.join("pins").join(algorithm.as_str())
    }

    /// `pins/<algorithm>/<hex>`
    pub(crate) fn pin(&self, digest: &Digest) -> PathBuf {
        self.pins(digest.algorithm()).join(digest.hex())
    }

    /// `repositories/`
    pub(crate) fn repositories(&self) -> PathBuf {
        self.dir.join("repositories")
    }

    /// `index/`
    pub(crate) fn index(&self) -> PathBuf {
        self.dir.join("index")
    }

    /// Where an index goes that could not be used.
    pub(crate) fn index_aside(&self) -> PathBuf {
        self.dir.join("index.aside")
    }

    /// `savings`
    pub(crate) fn savings(&self) -> PathBuf {
        self.dir.join("savings")
    }

    /// `lock`
    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    fn version(&self) -> PathBuf {
        self.dir.join("VERSION")
    }

    /// Makes sure that the directory is ours, claiming it when it is new or empty.
    pub(crate) fn claim(&self) -> Result<(), OpenError> {
        match self.standing()? {
            Claim::Ours => Ok(()),
            Claim::Free => {
                self.disk.make_dirs(&self.dir).map_err(|error| self.failed(error))?;
                self.write_version().map_err(|error| self.failed(error))
            }
        }
    }

    /// Whose the directory is, or why it can't be a store; changes nothing.
    fn standing(&self) -> Result<Claim, OpenError> {
        match self.read_version().map_err(|error| self.failed(error))? {
            Some(found) if found == FORMAT => Ok(Claim::Ours),
            Some(found) => {
                Err(OpenError::UnknownVersion { dir: self.dir.clone(), found, known: FORMAT })
            }
            None => match self.foreign_name().map_err(|error| self.failed(error))? {
                Some(foreign) => Err(OpenError::Foreign { dir: self.dir.clone(), foreign }),
                None => Ok(Claim::Free),
            },
        }
    }

    /// The first line of `VERSION`, shortened; `None` when there is no such file.
    fn read_version(&self) -> Result<Option<String>, DiskError> {
        let file = match self.disk.open(&self.version()) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = usize::try_from(file.len()?).unwrap_or(VERSION_LIMIT).min(VERSION_LIMIT);
        let text = String::from_utf8_lossy(&file.read_exact_at(len, 0)?).into_owned();
        Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
    }

    /// The first name (in order) that a fresh store's directory should not have.
    fn foreign_name(&self) -> Result<Option<String>, DiskError> {
        let entries = match self.disk.list(&self.dir) {
            Err(error) if error.is_not_found() => Vec::new(),
            listed => listed?,
        };
        let names = entries.into_iter().map(|entry| entry.name);
        Ok(names.filter(|name| !name.starts_with('.') && name != "lost+found").min())
    }

    /// `VERSION` appears whole or not at all; it is the first thing in a store.
    fn write_version(&self) -> Result<(), DiskError> {
        let draft = self.dir.join(".VERSION");
        self.disk.remove(&draft)?;
        let file = self.disk.create_new(&draft)?;
        file.write_all_at(&[Bytes::from(format!("{FORMAT}\n"))], 0)?;
        file.sync()?;
        self.disk.rename(&draft, &self.version())?;
        self.disk.sync_dir(&self.dir)
    }

    /// Creates the directories that every store has.
    pub(crate) fn create_directories(&self) -> Result<(), DiskError> {
        let mut made = false;
        for algorithm in Algorithm::ALL {
            made |= self.disk.make_dirs(&self.blobs(algorithm))?;
            made |= self.disk.make_dirs(&self.partials(algorithm))?;
            made |= self.disk.make_dirs(&self.pins(algorithm))?;
        }
        for dir in [self.temporaries(), self.dir.join("quarantine"), self.repositories()] {
            made |= self.disk.make_dirs(&dir)?;
        }
        if made { self.sync_skeleton() } else { Ok(()) }
    }

    fn sync_skeleton(&self) -> Result<(), DiskError> {
        for dir in
            [self.dir.join("blobs"), self.partial_root(), self.dir.join("pins"), self.dir.clone()]
        {
            self.disk.sync_dir(&dir)?;
        }
        Ok(())
    }

    /// Calls `visit` with every object under its final name, in no order. Blocks.
    pub(crate) fn walk(&self, mut visit: impl FnMut(Digest)) -> Result<(), DiskError> {
        for algorithm in Algorithm::ALL {
            let dir = self.blobs(algorithm);
            for shard in self.disk.list(&dir)? {
                if shard.kind != Kind::Directory {
                    continue;
                }
                for file in self.disk.list(&dir.join(&shard.name))? {
                    let named = Digest::from_hex(algorithm, &file.name).ok();
                    let placed = file.kind == Kind::File && file.name.starts_with(&shard.name);
                    if let Some(digest) = named.filter(|_| placed) {
                        visit(digest);
                    }
                }
            }
        }
        Ok(())
    }

    /// `error` as the reason why this store can't be opened.
    pub(crate) fn failed(&self, source: DiskError) -> OpenError {
        OpenError::Store { dir: self.dir.clone(), source }
    }
}

/// The name of a partial file of `digest` that comes from `origin`.
pub(crate) fn partial_name(digest: &Digest, origin: &str) -> String {
    let mut tag = Digest::of(Algorithm::Sha256, origin.as_bytes()).hex();
    tag.truncate(TAG_DIGITS);
    format!("{}.{tag}", digest.hex())
}

/// The digest in the name of a partial file, if it is the name of one.
pub(crate) fn partial_digest(algorithm: Algorithm, name: &str) -> Option<Digest> {
    let (hex, tag) = name.split_once('.')?;
    let tagged = tag.len() == TAG_DIGITS && decode(tag).is_some();
    Digest::from_hex(algorithm, hex).ok().filter(|_| tagged)
}
