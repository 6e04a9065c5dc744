//! Whose the files are that root makes.
//!
//! Operators look after a service's store as root. What root makes there must be the service's, or it
//! can't use it when it runs again.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::{MetadataExt as _, fchown, lchown};
use std::path::Path;

/// To whom root gives what it makes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// Whoever `dir` belongs to, if this process is root and they are not.
    pub(super) fn of(dir: &Path) -> Option<Self> {
        let metadata = fs::metadata(dir).ok().filter(|_| rustix::process::geteuid().is_root())?;
        (!is_roots(&metadata)).then(|| Self { uid: metadata.uid(), gid: metadata.gid() })
    }

    // A root that may not give files away (a container's, without CHOWN) keeps them.

    /// Gives them a file, if it is root's.
    pub(super) fn take_file(self, file: &File) {
        if file.metadata().is_ok_and(|metadata| is_roots(&metadata)) {
            let _ = fchown(file, Some(self.uid), Some(self.gid));
        }
    }

    /// Gives them what is at `path`, if it is root's; not what a link leads to.
    pub(super) fn take(self, path: &Path) {
        if fs::symlink_metadata(path).is_ok_and(|metadata| is_roots(&metadata)) {
            let _ = lchown(path, Some(self.uid), Some(self.gid));
        }
    }

    /// The same with all that is in it.
    pub(super) fn take_all(self, path: &Path) {
        self.take(path);
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.for_each(|entry| self.take_all(&entry.path()));
        }
    }
}

fn is_roots(metadata: &Metadata) -> bool {
    metadata.uid() == 0
}
