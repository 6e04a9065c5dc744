//! Opening a kept object: one file for all who read it, and a small one verified before.

use std::sync::Arc;

use entrepot_oci::Digest;

use super::first_use::{self, SMALL};
use super::kept::KeptObjects;
use super::object::Object;
use crate::disk::{DiskError, DiskFile};
use crate::index::Proof;

/// Opens a kept object. Blocks.
///
/// One that this process does not know to be sound is verified here when it is small; a large one
/// is left to [`first_use::start`]. One of another size than it was published with is damaged.
pub(crate) fn open(kept: &KeptObjects, digest: &Digest) -> Result<Option<Arc<Object>>, DiskError> {
    if let Some(object) = kept.open_files.find(digest) {
        return Ok(Some(object));
    }
    let proof = kept.index.proof(digest);
    if proof == Proof::Damaged {
        return Ok(None);
    }
    let Some(file) = open_file(kept, digest)? else { return Ok(None) };
    let size = file.len()?;
    if kept.index.size(digest).is_some_and(|published| published != size) {
        kept.set_aside(digest);
        return Ok(None);
    }
    kept.index.found(digest, size);
    let object = match proof {
        Proof::Sound => Object::kept(*digest, file, &kept.buffers, size),
        _ => Object::unverified(*digest, file, &kept.buffers, size),
    };
    if size <= SMALL && !first_use::settle(kept, &object) {
        return Ok(None);
    }
    let object = Arc::new(object);
    kept.open_files.insert(&object);
    Ok(Some(object))
}

/// The file of a kept object; the index forgets one that is not there.
fn open_file(kept: &KeptObjects, digest: &Digest) -> Result<Option<Arc<DiskFile>>, DiskError> {
    let known = kept.index.tick(digest);
    match kept.tree.disk().open(&kept.tree.blob(digest)) {
        Ok(file) => Ok(Some(Arc::new(file))),
        Err(error) if error.is_not_found() => {
            kept.index.missed(digest, known);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
