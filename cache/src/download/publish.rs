//! From a verified file to a final name: sync the file, rename it, sync the directory.
//!
//! Any other order puts wrong bytes under a digest's name when the power fails.

use std::path::Path;

use crate::Digest;
use crate::disk::{DiskError, DiskFile};
use crate::inner::Shared;

/// Gives `file`, which lies at `from` and has been verified, its final name.
///
/// When any step fails nothing is published and the file is removed: after a failed sync its
/// bytes are suspect for ever. Whoever has it open goes on reading. Blocks.
pub(crate) fn publish(
    shared: &Shared,
    file: &DiskFile,
    from: &Path,
    digest: &Digest,
) -> Result<(), DiskError> {
    let to = shared.tree.blob(digest);
    let moved = move_into_place(shared, file, from, &to, digest).inspect_err(|error| {
        tracing::warn!(%digest, %error, cause = %error.io(), "object not kept");
        // What has the final name, if anything, is another's and as good as it was.
        remove_quietly(shared, from);
    });
    moved?;
    let dir = shared.tree.shard(digest);
    shared.tree.disk().sync_dir(&dir).inspect_err(|error| {
        tracing::warn!(%digest, %error, cause = %error.io(), "object not kept");
        remove_quietly(shared, &to);
    })
}

/// Everything but making the final name durable.
fn move_into_place(
    shared: &Shared,
    file: &DiskFile,
    from: &Path,
    to: &Path,
    digest: &Digest,
) -> Result<(), DiskError> {
    let disk = shared.tree.disk();
    file.sync()?;
    prepare_shard(shared, digest)?;
    disk.rename(from, to)
}

/// The shard directory's own name must be as durable as the names in it.
fn prepare_shard(shared: &Shared, digest: &Digest) -> Result<(), DiskError> {
    let dir = shared.tree.shard(digest);
    if shared.durable_shards.lock().contains(&dir) {
        return Ok(());
    }
    let disk = shared.tree.disk();
    disk.make_dir(&dir)?;
    disk.sync_dir(&shared.tree.blobs(digest.algorithm()))?;
    shared.durable_shards.lock().insert(dir);
    Ok(())
}

/// Removes a file that is of no use; one that stays is found by the next open.
pub(crate) fn remove_quietly(shared: &Shared, path: &Path) {
    if let Err(error) = shared.tree.disk().remove(path) {
        tracing::warn!(%error, cause = %error.io(), "useless file stays");
    }
}
