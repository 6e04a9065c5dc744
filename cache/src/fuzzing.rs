//! What fuzz targets feed: index entries and records, as they lie on disk.

use entrepot_oci::{Digest, UnixSeconds};
use serde_json::Value;

use crate::index::codec;
use crate::index::engine::Hint;
use crate::index::references::References;
use crate::records::files;

/// What the index knows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Which object.
    pub digest: Digest,
    /// Size, last use, hits.
    pub numbers: [u64; 3],
    /// What it needs, if that is known.
    pub references: Option<Vec<Digest>>,
}

/// An entry's key and value.
#[must_use]
pub fn encode_entry(entry: &IndexEntry) -> (Vec<u8>, Vec<u8>) {
    let [size, last_use, hits] = entry.numbers;
    let references = match &entry.references {
        Some(needed) => References::Known(needed.iter().copied().collect()),
        None => References::Unknown,
    };
    let hint = Hint { size, last_use: UnixSeconds(last_use), hits, references };
    let key = codec::key(&entry.digest);
    let value = codec::value(&key, &hint);
    (key, value)
}

/// The entry that a key and a value are; `None` where they are damaged, or say that what the object
/// needs is in its file.
#[must_use]
pub fn decode_entry(key: &[u8], value: &[u8]) -> Option<IndexEntry> {
    let digest = codec::digest(key)?;
    let hint = codec::hint(key, value)?;
    let references = match &hint.references {
        References::Known(_) => Some(hint.references.remembered().collect()),
        References::Unknown => None,
        References::InFile | References::NoRoom => return None,
    };
    Some(IndexEntry { digest, numbers: [hint.size, hint.last_use.0, hint.hits], references })
}

/// A record as the line of its file; `None` where it would be too large.
#[must_use]
pub fn encode_record(record: &Value) -> Option<String> {
    files::encode_line(record)
}

/// The record that a file's bytes are; `None` where they are damaged.
#[must_use]
pub fn decode_record(line: &[u8]) -> Option<Value> {
    files::decode_line(line)
}
