//! Hashing kept objects from the disk.

use std::time::Instant;

use bytes::Bytes;
use entrepot_oci::{Algorithm, Digest, Hasher};

use super::kept::KeptObjects;
use crate::disk::{DiskError, DiskFile};
use crate::index::references;

/// How much is read and hashed at a time.
const PIECE: u64 = 1024 * 1024;

/// How hard the disk and the processor are used for hashing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As hard as can be: there are no other users.
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
pub(crate) fn verify(kept: &KeptObjects, digest: &Digest, pace: Pace) -> Verdict {
    match hash(kept, digest, pace) {
        Ok((actual, size)) if actual == *digest => {
            kept.index.proved(digest);
            Verdict::Sound { size }
        }
        Ok((actual, _)) => Verdict::Damaged { actual },
        Err(error) if error.is_not_found() => Verdict::Absent,
        Err(error) => Verdict::Unreadable(error),
    }
}

fn hash(kept: &KeptObjects, digest: &Digest, pace: Pace) -> Result<(Digest, u64), DiskError> {
    let file = kept.tree.disk().open(&kept.tree.blob(digest))?;
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
pub(super) fn pieces(len: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..len.div_ceil(PIECE)).map(move |number| {
        let at = number.saturating_mul(PIECE);
        (at, usize::try_from(PIECE.min(len.saturating_sub(at))).unwrap_or(usize::MAX))
    })
}

/// The bytes of a small kept object, if they are right. Blocks.
pub(crate) fn peek(kept: &KeptObjects, digest: &Digest) -> Option<Bytes> {
    let file = kept.tree.disk().open(&kept.tree.blob(digest)).ok()?;
    let len = file.len().ok().filter(|len| *len <= references::LARGEST)?;
    let bytes = file.read_exact_at(usize::try_from(len).ok()?, 0).ok()?;
    (Digest::of(digest.algorithm(), &bytes) == *digest).then(|| bytes.into())
}
