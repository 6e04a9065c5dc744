//! What downloads that broke off have left: it may be of use, and must not fill the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::remover::{Hanging, Remover};
use crate::Algorithm;
use crate::Digest;
use crate::disk::{DiskError, Kind};
use crate::download::in_flight::Boarding;
use crate::download::origin::{Origin, partial_digest};
use crate::inner::Shared;

/// A partial file.
struct Left {
    /// When it was last written to, in seconds since the epoch.
    written: u64,
    size: u64,
    digest: Digest,
    path: PathBuf,
}

/// Removes partial files that nobody writes to, those first that have been left longest, until no more
/// than `most` bytes of them are there, or `enough` says so. How many bytes went. Blocks.
///
/// What can't be looked at or removed stays: nothing else has to wait for it.
pub(super) fn hold(
    shared: &Arc<Shared>,
    remover: &mut Remover,
    most: u64,
    mut enough: impl FnMut() -> bool,
) -> Result<u64, Hanging> {
    let mut all = all(shared);
    all.sort_unstable_by_key(|one| (one.written, one.digest));
    let mut bytes = all.iter().fold(0_u64, |sum, one| sum.saturating_add(one.size));
    let mut gone = 0_u64;
    for one in all {
        if bytes <= most || enough() {
            break;
        }
        let Left { size, digest, path, .. } = one;
        let target = path.clone();
        match remover.run(shared, &path, move |shared| remove(shared, &digest, &target))? {
            Ok(true) => gone = gone.saturating_add(size),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, cause = %error.io(), "what a broken download left stays");
            }
        }
        // What is being written to is no left-over.
        bytes = bytes.saturating_sub(size);
    }
    if gone > 0 {
        tracing::info!(bytes = gone, "what broken downloads had left was removed");
    }
    Ok(gone)
}

fn all(shared: &Shared) -> Vec<Left> {
    let mut found = Vec::new();
    for algorithm in Algorithm::ALL {
        let dir = shared.tree.partials(algorithm);
        for entry in shared.tree.disk().list(&dir).unwrap_or_default() {
            let digest = partial_digest(algorithm, &entry.name);
            let Some(digest) = digest.filter(|_| entry.kind == Kind::File) else { continue };
            // One that has gone meanwhile is none.
            let path = dir.join(&entry.name);
            let Ok((size, written)) = shared.tree.disk().file_size_and_age(&path) else { continue };
            found.push(Left { written, size, digest, path });
        }
    }
    found
}

/// Removes it, unless it is being written to, or about to be.
fn remove(shared: &Shared, digest: &Digest, path: &Path) -> Result<bool, DiskError> {
    let Boarding::Lead(_reserved) = shared.flights.board(digest, &Origin::new("")) else {
        return Ok(false);
    };
    shared.tree.disk().remove(path)?;
    Ok(true)
}
