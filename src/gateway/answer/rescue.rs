//! A body whose disk fails goes on from the registry, so that no pull breaks because of ours.

use bytes::Bytes;
use entrepot_cache::{ReadError, Reader};
use entrepot_oci::Hasher;
use http_body::Frame;
use http_body_util::BodyExt as _;

use super::broken::{RescueError, ResponseError, STALL};
use super::verified::VerifiedBody;
use crate::gateway::exchange::Source;
use crate::registry::answer::is_whole;
use crate::upstream::body::IdleBody;

/// What is still to be sent of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remainder {
    /// The first byte that was sent.
    pub(super) first: u64,
    /// The next byte.
    pub(super) offset: u64,
    /// How many are to come; unknown while the object's length is.
    pub(super) left: Option<u64>,
    /// Whether all of the object is sent, rather than a part.
    pub(super) is_whole: bool,
}

impl Remainder {
    /// What of a registry's frame belongs to it: some send more than they were asked for.
    pub(super) fn take(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let left = self.left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX);
        let frame = frame.map_data(|mut bytes| {
            bytes.truncate(left);
            bytes
        });
        self.advance(frame.data_ref().map_or(0, Bytes::len));
        frame
    }

    /// So many bytes have been sent.
    pub(super) fn advance(&mut self, count: usize) {
        self.offset += count as u64;
        self.left = self.left.map(|left| left.saturating_sub(count as u64));
    }
}

/// Reads from the store, without waiting for ever for a disk that hangs.
pub(super) async fn read(reader: Reader, offset: u64, most: usize) -> Result<Bytes, StoreFailure> {
    if reader.available() <= offset {
        // The upstream is waited for, which has its own timeouts.
        return reader.read_at(offset, most).await.map_err(StoreFailure::Read);
    }
    match tokio::time::timeout(STALL, reader.read_at(offset, most)).await {
        Ok(read) => read.map_err(StoreFailure::Read),
        Err(_) => Err(StoreFailure::Stalled),
    }
}

/// The store did not deliver.
pub(super) enum StoreFailure {
    Read(ReadError),
    Stalled,
}

impl StoreFailure {
    /// The failure, as the end of a body.
    pub(super) fn into_error(self) -> ResponseError {
        match self {
            Self::Read(error) => error.into(),
            Self::Stalled => RescueError::Stalled.into(),
        }
    }

    /// Whether what was sent is right all the same, and can be gone on with elsewhere.
    pub(super) fn is_of_disk(&self) -> bool {
        matches!(self, Self::Stalled | Self::Read(ReadError::Store(_)))
    }
}

/// The rest of an object from where the store has failed.
pub(super) async fn rest(
    source: Source,
    reader: Reader,
    remainder: Remainder,
) -> Result<VerifiedBody, ResponseError> {
    let digest = *reader.digest();
    tracing::warn!(%digest, "the store does not deliver an object: going on from the registry");
    source.exchange.common.metrics().rescued();
    rest_of(&source, &reader, remainder).await.map_err(ResponseError::from)
}

/// All of the object again, hashed: nothing less proves it. What the client has is skipped.
async fn rest_of(
    source: &Source,
    reader: &Reader,
    remainder: Remainder,
) -> Result<VerifiedBody, RescueError> {
    let asked = source.ask(None).await;
    let answer = asked.map_err(|error| RescueError::Registry(error.to_string()))?;
    if !is_whole(&answer.response) {
        return Err(RescueError::Registry(format!("it answered {}", answer.response.status())));
    }
    let digest = *reader.digest();
    let mut hasher = Hasher::new(digest.algorithm());
    let mut body = answer.response.into_body();
    let next = skip(&mut body, &mut hasher, reader, remainder).await?;
    let left = remainder.left.filter(|_| !remainder.is_whole);
    Ok(VerifiedBody::resumed(body, digest, hasher, next, left))
}

/// Reads up to the next byte that is to be sent; returns what came along with the last before it.
///
/// What was sent of an unverified object must be what comes now: else the end could
/// be right and the whole wrong.
async fn skip(
    body: &mut IdleBody,
    hasher: &mut Hasher,
    reader: &Reader,
    Remainder { first, offset, .. }: Remainder,
) -> Result<Bytes, RescueError> {
    let is_unverified = !reader.is_verified();
    let mut position = 0;
    while position < offset {
        let Some(frame) = body.frame().await else { return Err(RescueError::Changed) };
        let frame = frame.map_err(|error| RescueError::Registry(error.to_string()))?;
        let Ok(mut bytes) = Frame::into_data(frame) else { continue };
        let left = usize::try_from(offset - position).unwrap_or(usize::MAX);
        let beyond = bytes.split_off(left.min(bytes.len()));
        let unsent = first.saturating_sub(position).min(bytes.len() as u64);
        let sent = bytes.get(usize::try_from(unsent).unwrap_or(bytes.len())..).unwrap_or_default();
        if is_unverified && !is_same(reader, position + unsent, sent).await {
            return Err(RescueError::Changed);
        }
        hasher.update(&bytes);
        hasher.update(&beyond);
        position += bytes.len() as u64;
        if !beyond.is_empty() {
            return Ok(beyond);
        }
    }
    Ok(Bytes::new())
}

/// Whether the store has these bytes at `offset`.
async fn is_same(reader: &Reader, mut offset: u64, mut expected: &[u8]) -> bool {
    while !expected.is_empty() {
        let Ok(Ok(ours)) =
            tokio::time::timeout(STALL, reader.read_at(offset, expected.len())).await
        else {
            return false;
        };
        match expected.strip_prefix(&*ours) {
            Some(rest) if !ours.is_empty() => expected = rest,
            _ => return false,
        }
        offset += ours.len() as u64;
    }
    true
}
