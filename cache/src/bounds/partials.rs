//! What downloads that broke off have left: it may be of use, and must not fill the disk.

use crate::Algorithm;
use crate::Digest;
use crate::disk::{DiskError, Kind};
use crate::flights::Boarding;
use crate::origin::{Origin, partial_digest};
use crate::shared::Shared;

/// A partial file.
struct Left {
    /// When it was last written to, in seconds since the epoch.
    written: u64,
    size: u64,
    algorithm: Algorithm,
    digest: Digest,
    name: String,
}

/// Removes partial files that nobody writes to, those first that have been left longest, until no more
/// than `most` bytes of them are there, or `enough` says so. How many bytes went. Blocks.
pub(super) fn hold(
    shared: &Shared,
    most: u64,
    mut enough: impl FnMut() -> bool,
) -> Result<u64, DiskError> {
    let mut all = all(shared)?;
    all.sort_unstable_by_key(|one| (one.written, one.digest));
    let mut bytes = all.iter().fold(0_u64, |sum, one| sum.saturating_add(one.size));
    let mut gone = 0_u64;
    for one in all {
        if bytes <= most || enough() {
            break;
        }
        if remove(shared, &one)? {
            gone = gone.saturating_add(one.size);
        }
        // What is being written to is no left-over.
        bytes = bytes.saturating_sub(one.size);
    }
    if gone > 0 {
        tracing::info!(bytes = gone, "what broken downloads had left was removed");
    }
    Ok(gone)
}

fn all(shared: &Shared) -> Result<Vec<Left>, DiskError> {
    let mut found = Vec::new();
    for algorithm in Algorithm::ALL {
        let dir = shared.tree.partials(algorithm);
        for entry in shared.tree.disk().list(&dir)? {
            let digest = partial_digest(algorithm, &entry.name);
            let Some(digest) = digest.filter(|_| entry.kind == Kind::File) else { continue };
            // One that has gone meanwhile is none.
            let seen = shared.tree.disk().file_size_and_age(&dir.join(&entry.name));
            let Ok((size, written)) = seen else { continue };
            found.push(Left { written, size, algorithm, digest, name: entry.name });
        }
    }
    Ok(found)
}

/// Removes it, unless it is being written to, or about to be.
fn remove(shared: &Shared, left: &Left) -> Result<bool, DiskError> {
    let Boarding::Lead(_reserved) = shared.flights.board(&left.digest, &Origin::new("")) else {
        return Ok(false);
    };
    shared.tree.disk().remove(&shared.tree.partials(left.algorithm).join(&left.name))?;
    Ok(true)
}
