//! `savings`: one record about the store as a whole, for the store's user to count in.
//!
//! It is written as every record is, and may be larger than others. What is in it is its user's
//! affair; that it is intact is seen here.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::files::{decode_line, encode_within, read_within, replace};
use crate::disk::DiskError;
use crate::errors::RecordError;
use crate::inner::Inner;

/// More than it ever has: some hundred names with some numbers each.
const LIMIT: usize = 1024 * 1024;

/// What is in the record.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SavingsRecord {
    /// There is none.
    Absent,
    /// It is not what was written.
    Damaged,
    /// This.
    Intact(Value),
}

/// Reads it. Blocks.
pub(crate) fn read(inner: &Inner) -> Result<SavingsRecord, DiskError> {
    let tree = inner.tree();
    match read_within(tree, &tree.savings(), LIMIT) {
        Ok(line) => Ok(decode_line(&line).map_or(SavingsRecord::Damaged, SavingsRecord::Intact)),
        Err(error) if error.is_not_found() => Ok(SavingsRecord::Absent),
        Err(error) => Err(error),
    }
}

/// Replaces it whole, waiting for whoever else does. A disk that hangs is waited for.
pub(crate) async fn write<T: Serialize>(inner: &Arc<Inner>, record: &T) -> Result<(), RecordError> {
    let line = encode_within(record, LIMIT).ok_or(RecordError::Encode)?;
    let (permits, path) = (Arc::clone(&inner.permits), inner.tree().savings());
    let inner = Arc::clone(inner);
    let work = {
        let path = path.clone();
        move || replace(inner.tree(), &path, Bytes::from(line))
    };
    permits.run(&path, work).await.and_then(|done| done).map_err(RecordError::Store)
}
