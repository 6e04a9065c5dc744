//! Looking at kept objects: verification, quarantine, removal, listing.

use std::time::Instant;

use bytes::Bytes;

use crate::disk::{DiskError, DiskFile, Kind};
use crate::index::references;
use crate::inner::Shared;
use crate::{Algorithm, Digest, Hasher, QuarantineError};

/// How much is read and hashed at a time.
const PIECE: u64 = 1024 * 1024;

/// How hard the disk and the processor are used for hashing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As hard as can be: nobody else is there.
    Full,
    /// At most half of a processor and of the disk's time, and what others have in the page cache
    /// stays there.
    Gentle,
}

/// What a kept object turned out to be.
#[derive(Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// Its bytes are those that its digest names.
    Sound {
        /// Its size in bytes.
        size: u64,
    },
    /// Its bytes are others: quarantine it.
    Damaged {
        /// The digest of the bytes that are there.
        actual: Digest,
    },
    /// It can't be read to its end: quarantine it.
    Unreadable(DiskError),
    /// It is not kept.
    Absent,
}

/// Hashes a kept object from the disk. Blocks.
pub(crate) fn verify(shared: &Shared, digest: &Digest, pace: Pace) -> Verdict {
    match hash(shared, digest, pace) {
        Ok((actual, size)) if actual == *digest => {
            shared.index.proved(digest);
            Verdict::Sound { size }
        }
        Ok((actual, _)) => Verdict::Damaged { actual },
        Err(error) if error.is_not_found() => Verdict::Absent,
        Err(error) => Verdict::Unreadable(error),
    }
}

fn hash(shared: &Shared, digest: &Digest, pace: Pace) -> Result<(Digest, u64), DiskError> {
    let file = shared.tree.disk().open(&shared.tree.blob(digest))?;
    let size = file.len()?;
    let hasher = match pace {
        Pace::Full => hash_file(&file, digest.algorithm(), size)?,
        Pace::Gentle => hash_gently(&file, digest.algorithm(), size)?,
    };
    Ok((hasher.finish(), size))
}

/// A hasher that has seen the first `len` bytes of `file`, in twice the time. Blocks.
///
/// What was not in the page cache is not left there: it would drive out what clients ask for.
fn hash_gently(file: &DiskFile, algorithm: Algorithm, len: u64) -> Result<Hasher, DiskError> {
    let mut hasher = Hasher::new(algorithm);
    // What is read ahead would look like what others had there.
    file.expect_no_sequence();
    for (at, piece) in pieces(len) {
        let began = Instant::now();
        let mut bytes = vec![0; piece];
        let cached = file.read_cached_at(&mut bytes, at)?;
        if cached != Some(piece) {
            file.fill_from(&mut bytes, at)?;
        }
        hasher.update(&bytes);
        if cached.is_none() {
            file.drop_cached(at, piece);
        }
        std::thread::sleep(began.elapsed());
    }
    Ok(hasher)
}

/// A hasher that has seen the first `len` bytes of `file`. Blocks.
pub(crate) fn hash_file(
    file: &DiskFile,
    algorithm: Algorithm,
    len: u64,
) -> Result<Hasher, DiskError> {
    let mut hasher = Hasher::new(algorithm);
    for (at, piece) in pieces(len) {
        hasher.update(&file.read_exact_at(piece, at)?);
    }
    Ok(hasher)
}

/// Offsets and lengths of the pieces in which `len` bytes are read.
pub(crate) fn pieces(len: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..len.div_ceil(PIECE)).map(move |number| {
        let at = number.saturating_mul(PIECE);
        (at, usize::try_from(PIECE.min(len.saturating_sub(at))).unwrap_or(usize::MAX))
    })
}

/// Moves a kept object to `quarantine/`. Blocks.
pub(crate) fn quarantine(shared: &Shared, digest: &Digest) -> Result<(), QuarantineError> {
    let (from, to) = (shared.tree.blob(digest), shared.tree.quarantined(digest));
    take_out(shared, digest, || shared.tree.disk().rename(&from, &to))?;
    shared.index.quarantined();
    tracing::warn!(%digest, "object quarantined");
    Ok(())
}

/// Removes a kept object. Blocks.
pub(crate) fn remove(shared: &Shared, digest: &Digest) -> Result<(), QuarantineError> {
    let path = shared.tree.blob(digest);
    take_out(shared, digest, || {
        shared.tree.disk().file_size(&path)?;
        shared.tree.disk().remove(&path)
    })
}

fn take_out(
    shared: &Shared,
    digest: &Digest,
    work: impl FnOnce() -> Result<(), DiskError>,
) -> Result<(), QuarantineError> {
    let done = work();
    if done.as_ref().is_ok_and(|()| true) || done.as_ref().is_err_and(DiskError::is_not_found) {
        shared.gone(digest);
    }
    done.map_err(|error| match error {
        error if error.is_not_found() => QuarantineError::Absent,
        error => QuarantineError::Store(error),
    })
}

/// The bytes of a small kept object, if they are right. Blocks.
pub(crate) fn peek(shared: &Shared, digest: &Digest) -> Option<Bytes> {
    let file = shared.tree.disk().open(&shared.tree.blob(digest)).ok()?;
    let len = file.len().ok().filter(|len| *len <= references::LARGEST)?;
    let bytes = file.read_exact_at(usize::try_from(len).ok()?, 0).ok()?;
    (Digest::of(digest.algorithm(), &bytes) == *digest).then(|| bytes.into())
}

/// Calls `visit` with every kept object of `shared`'s tree, in no order. Blocks.
pub(crate) fn walk(
    tree: &crate::disk::tree::Tree,
    mut visit: impl FnMut(Digest),
) -> Result<(), DiskError> {
    for algorithm in Algorithm::ALL {
        let dir = tree.blobs(algorithm);
        for shard in tree.disk().list(&dir)? {
            if shard.kind != Kind::Directory {
                continue;
            }
            for entry in tree.disk().list(&dir.join(&shard.name))? {
                let named = Digest::from_hex(algorithm, &entry.name).ok();
                let placed = entry.kind == Kind::File && entry.name.starts_with(&shard.name);
                if let Some(digest) = named.filter(|_| placed) {
                    visit(digest);
                }
            }
        }
    }
    Ok(())
}
