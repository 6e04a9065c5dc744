//! The file calls that go by a path.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use entrepot_oci::UnixSeconds;

use super::error::DiskError;
use super::faults::Call;
use super::file::DiskFile;
use super::seam::Disk;

/// Permission bits of every directory of a store.
pub(crate) const DIR_MODE: u32 = 0o700;
/// Permission bits of every file of a store.
pub(crate) const FILE_MODE: u32 = 0o600;

/// What a directory entry is, without following links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Other,
}

/// One name in a directory.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryEntry {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

impl Disk {
    /// Opens a regular file for reading; links are not followed.
    pub(crate) fn open(&self, path: &Path) -> Result<DiskFile, DiskError> {
        let mut options = OpenOptions::new();
        options.read(true);
        self.open_with(Call::Open, path, &mut options)
    }

    /// Opens an existing regular file for reading and writing; links are not followed.
    pub(crate) fn open_to_write(&self, path: &Path) -> Result<DiskFile, DiskError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        self.open_with(Call::Open, path, &mut options)
    }

    /// Creates a file that must not exist yet (0600) for reading and writing.
    pub(crate) fn create_new(&self, path: &Path) -> Result<DiskFile, DiskError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(FILE_MODE);
        self.open_with(Call::Create, path, &mut options)
    }

    /// Opens or creates a file (0600) for reading and writing.
    pub(crate) fn open_or_create(&self, path: &Path) -> Result<DiskFile, DiskError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        self.open_with(Call::Create, path, &mut options)
    }

    fn open_with(
        &self,
        call: Call,
        path: &Path,
        options: &mut OpenOptions,
    ) -> Result<DiskFile, DiskError> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
        let file = self.attempt(call, path, || regular(options.open(path)?))?;
        Ok(DiskFile::new(file, path, self.clone()))
    }

    /// The size in bytes of a regular file, links not followed.
    pub(crate) fn file_size(&self, path: &Path) -> Result<u64, DiskError> {
        self.attempt(Call::Stat, path, || {
            let metadata = fs::symlink_metadata(path)?;
            if metadata.is_file() { Ok(metadata.len()) } else { Err(not_a_file()) }
        })
    }

    /// The size in bytes of a file, links not followed, and when it was last written.
    pub(crate) fn file_size_and_time(&self, path: &Path) -> Result<(u64, UnixSeconds), DiskError> {
        self.attempt(Call::Stat, path, || {
            let metadata = fs::symlink_metadata(path)?;
            Ok((metadata.len(), metadata.modified()?.into()))
        })
    }

    /// How many bytes the file system that holds `dir` has for us.
    pub(crate) fn free_space(&self, dir: &Path) -> Result<u64, DiskError> {
        self.attempt(Call::Stat, dir, || {
            let space = rustix::fs::statvfs(dir)?;
            Ok(space.f_bavail.saturating_mul(space.f_frsize))
        })
    }

    /// How many files more the file system of `dir` can have; `None` where it does not count them.
    pub(crate) fn free_files(&self, dir: &Path) -> Result<Option<u64>, DiskError> {
        self.attempt(Call::Stat, dir, || {
            let space = rustix::fs::statvfs(dir)?;
            Ok((space.f_files > 0).then_some(space.f_favail))
        })
    }

    /// The names in a directory, without their order.
    pub(crate) fn list(&self, dir: &Path) -> Result<Vec<DirectoryEntry>, DiskError> {
        self.attempt(Call::List, dir, || fs::read_dir(dir)?.map(entry).collect())
    }

    /// Creates a directory (0700 whatever the umask). `false`: it was there.
    pub(crate) fn make_dir(&self, dir: &Path) -> Result<bool, DiskError> {
        self.attempt(Call::MakeDir, dir, || match DirBuilder::new().mode(DIR_MODE).create(dir) {
            Ok(()) => {
                fs::set_permissions(dir, Permissions::from_mode(DIR_MODE))?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(false),
            Err(error) => Err(error),
        })
    }

    /// Creates a directory and what is missing above it. `true`: something was created.
    pub(crate) fn make_dirs(&self, dir: &Path) -> Result<bool, DiskError> {
        if dir.is_dir() {
            return Ok(false);
        }
        match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => self.make_dirs(parent).and_then(|_| self.make_dir(dir)),
            None => self.make_dir(dir),
        }
    }

    /// Renames within the store, replacing what is there.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.attempt(Call::Rename, to, || fs::rename(from, to))
    }

    /// Removes a file. One that is not there counts as removed.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.attempt(Call::Remove, path, || absent_is_fine(fs::remove_file(path)))
    }

    /// Removes a file that is of no use; one that stays is found by the next open.
    pub(crate) fn remove_quietly(&self, path: &Path) {
        if let Err(error) = self.remove(path) {
            tracing::warn!(%error, cause = %error.io(), "useless file stays");
        }
    }

    /// Removes a directory and everything in it. One that is not there counts as removed.
    pub(crate) fn remove_tree(&self, path: &Path) -> Result<(), DiskError> {
        self.attempt(Call::Remove, path, || absent_is_fine(fs::remove_dir_all(path)))
    }

    /// Removes a directory in which there is nothing; any other is left alone.
    pub(crate) fn remove_empty_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.attempt(Call::Remove, path, || match absent_is_fine(fs::remove_dir(path)) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed,
        })
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        self.attempt(Call::SyncDir, dir, || File::open(dir)?.sync_all())
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A fifo or device under a store's name would block or do worse: only regular files are opened.
fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_a_file()) }
}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

fn entry(entry: io::Result<fs::DirEntry>) -> io::Result<DirectoryEntry> {
    let entry = entry?;
    let kind = entry.file_type()?;
    let kind = match (kind.is_file(), kind.is_dir()) {
        (true, _) => Kind::File,
        (_, true) => Kind::Directory,
        _ => Kind::Other,
    };
    Ok(DirectoryEntry { name: entry.file_name().to_string_lossy().into_owned(), kind })
}
