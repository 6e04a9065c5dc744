//! Cleaning up, at open, what a crash left behind.
//!
//! Only `partial/` is cleaned: nothing there was ever promised. `blobs/` is right by
//! construction and is neither walked nor swept.

use std::path::Path;
use std::time::Duration;

use entrepot_oci::Algorithm;

use super::calls::{DirectoryEntry, Kind};
use super::error::DiskError;
use super::seam::Disk;
use super::tree::{Tree, partial_digest};

/// A partial file that was not written to for so long is not going to be continued.
const STALE: Duration = Duration::from_hours(7 * 24);

/// Removes temporary files and partial files that are of no use; keeps the other partial files.
pub(crate) fn recover(tree: &Tree) -> Result<(), DiskError> {
    let disk = tree.disk();
    for entry in disk.list(&tree.partial_root())? {
        match Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == entry.name) {
            Some(algorithm) => clean_partials(tree, algorithm)?,
            None if entry.name == "tmp" => clean_temporaries(tree)?,
            None => discard(disk, &tree.partial_root(), &entry),
        }
    }
    Ok(())
}

fn clean_partials(tree: &Tree, algorithm: Algorithm) -> Result<(), DiskError> {
    let dir = tree.partials(algorithm);
    for entry in tree.disk().list(&dir)? {
        if !is_of_use(tree, algorithm, &entry) {
            discard(tree.disk(), &dir, &entry);
        }
    }
    Ok(())
}

/// A regular file with a partial file's name, not too old, whose object is not kept already.
fn is_of_use(tree: &Tree, algorithm: Algorithm, entry: &DirectoryEntry) -> bool {
    match partial_digest(algorithm, &entry.name) {
        Some(digest) if entry.kind == Kind::File => {
            let fresh = !is_stale(tree, &tree.partials(algorithm).join(&entry.name));
            fresh && tree.disk().file_size(&tree.blob(&digest)).is_err()
        }
        _ => false,
    }
}

fn is_stale(tree: &Tree, path: &Path) -> bool {
    let Ok((_, written)) = tree.disk().file_size_and_time(path) else { return false };
    written.age().is_some_and(|age| age > STALE)
}

fn clean_temporaries(tree: &Tree) -> Result<(), DiskError> {
    let dir = tree.temporaries();
    for entry in tree.disk().list(&dir)? {
        discard(tree.disk(), &dir, &entry);
    }
    Ok(())
}

/// What can't be removed costs space and nothing else: it is not a reason to refuse to start.
fn discard(disk: &Disk, dir: &Path, entry: &DirectoryEntry) {
    let path = dir.join(&entry.name);
    let removed = match entry.kind {
        Kind::Directory => disk.remove_tree(&path),
        Kind::File | Kind::Other => disk.remove(&path),
    };
    match removed {
        Ok(()) => tracing::debug!(path = %path.display(), "left-over file removed"),
        Err(error) => {
            tracing::warn!(path = %path.display(), cause = %error.io(), "left-over file stays");
        }
    }
}
