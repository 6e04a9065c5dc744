//! What downloads that broke off have left: it may be of use, and must not fill the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use entrepot_oci::{Algorithm, Digest, UnixSeconds};

use super::remover::{Remover, TooManyHang};
use super::stock::Stock;
use crate::disk::tree::partial_digest;
use crate::disk::{DiskError, Kind};

/// A partial file.
struct LeftOver {
    /// When it was last written to.
    written: UnixSeconds,
    size: u64,
    digest: Digest,
    path: PathBuf,
}

/// Removes partial files that no download writes to, those first that have been left longest, until
/// no more than `most` bytes of them are there, or `enough` says so. How many bytes went. Blocks.
///
/// What can't be looked at or removed stays: nothing else has to wait for it.
pub(super) fn hold(
    stock: &Arc<Stock>,
    remover: &mut Remover,
    most: u64,
    mut enough: impl FnMut() -> bool,
) -> Result<u64, TooManyHang> {
    let mut all = all(stock);
    all.sort_unstable_by_key(|one| (one.written, one.digest));
    let mut bytes = all.iter().fold(0_u64, |sum, one| sum.saturating_add(one.size));
    let mut gone = 0_u64;
    for one in all {
        if bytes <= most || enough() {
            break;
        }
        let LeftOver { size, digest, path, .. } = one;
        let target = path.clone();
        match remover.run(stock, &path, move |stock| remove(stock, &digest, &target))? {
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

fn all(stock: &Stock) -> Vec<LeftOver> {
    let (tree, mut found) = (&stock.kept.tree, Vec::new());
    for algorithm in Algorithm::ALL {
        let dir = tree.partials(algorithm);
        for entry in tree.disk().list(&dir).unwrap_or_default() {
            let digest = partial_digest(algorithm, &entry.name);
            let Some(digest) = digest.filter(|_| entry.kind == Kind::File) else { continue };
            // One that has gone meanwhile is none.
            let path = dir.join(&entry.name);
            let Ok((size, written)) = tree.disk().file_size_and_time(&path) else { continue };
            found.push(LeftOver { written, size, digest, path });
        }
    }
    found
}

/// Removes it, unless it is being written to, or about to be.
fn remove(stock: &Stock, digest: &Digest, path: &Path) -> Result<bool, DiskError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(_reserved) = stock.in_flight.reserve_partial(digest, name) else { return Ok(false) };
    stock.kept.tree.disk().remove(path)?;
    Ok(true)
}
