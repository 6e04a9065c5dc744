//! Record files: one line of JSON behind a checksum, replaced atomically, dropped when damaged.
//!
//! ```text
//! 0123456789abcdef {"media_type":"application/vnd.oci.image.index.v1+json","recorded":1760000000}
//! ```
//!
//! A record is knowledge that can be learnt again: damage costs a question to a registry.

use std::path::Path;

use bytes::Bytes;
use entrepot_oci::hex::{decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk::DiskError;
use crate::disk::checksum::checksum;
use crate::disk::tree::Tree;
use crate::errors::RecordError;

/// More than any record has; what is larger is damaged.
const LIMIT: usize = 64 * 1024;
/// How often a record is put into its directory once more, which may go while it is empty.
const TRIES: usize = 8;

/// Reads the record at `path`. One that is damaged is removed. Blocks.
pub(crate) fn read<T: DeserializeOwned>(tree: &Tree, path: &Path) -> Option<T> {
    let line = match read_file(tree, path) {
        Ok(line) => line,
        Err(error) if error.is_not_found() => return None,
        Err(error) => {
            tracing::warn!(%error, cause = %error.io(), "record not read");
            return None;
        }
    };
    decode_line(&line).or_else(|| {
        tracing::warn!(path = %path.display(), "damaged record dropped");
        let _ = tree.disk().remove(path);
        None
    })
}

fn read_file(tree: &Tree, path: &Path) -> Result<Vec<u8>, DiskError> {
    read_within(tree, path, LIMIT)
}

/// What is in the file at `path`; nothing where that is more than `limit` bytes. Blocks.
pub(super) fn read_within(tree: &Tree, path: &Path, limit: usize) -> Result<Vec<u8>, DiskError> {
    let file = tree.disk().open(path)?;
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    if len > limit { Ok(Vec::new()) } else { file.read_exact_at(len, 0) }
}

/// What stands in a record's file; `None` where that is damaged, or no `T`.
pub(crate) fn decode_line<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (sum, json) = line.split_once(' ')?;
    let intact = decode(sum)? == checksum(&[json.as_bytes()]);
    if intact { serde_json::from_str(json).ok() } else { None }
}

/// Replaces the record at `path`: a temporary file, synced, then renamed. Blocks.
pub(crate) fn write<T: Serialize>(tree: &Tree, path: &Path, record: &T) -> Result<(), RecordError> {
    let line = encode_line(record).ok_or(RecordError::Encode)?;
    replace(tree, path, Bytes::from(line)).map_err(RecordError::Store)
}

/// The line that stands in a record's file; `None` where it would be larger than any record.
pub(crate) fn encode_line<T: Serialize>(record: &T) -> Option<String> {
    encode_within(record, LIMIT)
}

/// [`encode_line`] of at most so many bytes.
pub(super) fn encode_within<T: Serialize>(record: &T, limit: usize) -> Option<String> {
    let json = serde_json::to_string(record).ok()?;
    let line = format!("{} {json}\n", encode(&checksum(&[json.as_bytes()])));
    (line.len() <= limit).then_some(line)
}

/// Replaces the file at `path`: a temporary file, synced, then renamed. Blocks.
pub(super) fn replace(tree: &Tree, path: &Path, line: Bytes) -> Result<(), DiskError> {
    let disk = tree.disk();
    let draft = tree.temporary();
    let file = disk.create_new(&draft)?;
    let place = || {
        path.parent().map_or(Ok(false), |dir| disk.make_dirs(dir))?;
        disk.rename(&draft, path)
    };
    let placed = file.write_all_at(&[line], 0).and_then(|()| file.sync()).and_then(|()| {
        let mut placed = place();
        // A directory that was empty until now may just have been removed.
        for _ in 0..TRIES {
            if !placed.as_ref().is_err_and(DiskError::is_not_found) {
                break;
            }
            placed = place();
        }
        placed
    });
    placed.inspect_err(|_| drop(disk.remove(&draft)))
}
