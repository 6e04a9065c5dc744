//! A small object that comes whole.

use std::sync::Arc;

use bytes::Bytes;
use entrepot_oci::Digest;

use super::publish::Publisher;
use crate::bytes::object::Object;
use crate::bytes::opening;
use crate::disk::DiskError;
use crate::errors::PutError;
use crate::index::references::References;

/// Keeps `bytes` under `digest`, if they are what it names. Blocks.
pub(crate) fn put(
    publisher: &Publisher,
    digest: &Digest,
    bytes: Bytes,
) -> Result<Arc<Object>, PutError> {
    let actual = Digest::of(digest.algorithm(), &bytes);
    if actual != *digest {
        return Err(PutError::DigestMismatch { expected: *digest, actual: Box::new(actual) });
    }
    let references = publisher.documents.read(digest, &bytes);
    match opening::open(&publisher.kept, digest) {
        Ok(Some(object)) if object.is_verified() => {
            publisher.kept.index.learnt(digest, references);
            Ok(object)
        }
        _ => write(publisher, digest, bytes, references).map_err(PutError::Store),
    }
}

fn write(
    publisher: &Publisher,
    digest: &Digest,
    bytes: Bytes,
    references: References,
) -> Result<Arc<Object>, DiskError> {
    let tree = &publisher.kept.tree;
    let draft = tree.temporary();
    let size = bytes.len() as u64;
    let file = tree.disk().create_new(&draft)?;
    file.write_all_at(&[bytes], 0).inspect_err(|_| tree.disk().remove_quietly(&draft))?;
    let keeps = publisher.eviction.keeps(digest, size);
    if keeps {
        publisher.publish(&file, &draft, digest)?;
    } else {
        tree.disk().remove_quietly(&draft);
    }
    let object = Arc::new(Object::kept(*digest, Arc::new(file), &publisher.kept.buffers, size));
    if keeps {
        publisher.published(&object, references);
    }
    Ok(object)
}
