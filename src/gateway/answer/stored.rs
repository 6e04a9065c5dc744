//! A part of an object in the store, or on its way into it, as a body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use entrepot_cache::Reader;
use http_body::Frame;

use super::broken::{FrameResult, ResponseError};
use super::rescue::{self, Remainder, StoreFailure};
use super::verified::VerifiedBody;
use crate::gateway::exchange::Source;

/// Bytes read from the store at a time: large enough that system calls and TLS records cost
/// little, small enough that a slow client's share of memory stays small.
const CHUNK: usize = 256 * 1024;

type Working<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A part of an object in the store, or on its way into it.
///
/// Where the store fails, the rest comes from the registry.
pub struct StoredBody {
    reader: Reader,
    remainder: Remainder,
    /// Where the rest is to be had if the store fails; taken once.
    source: Option<Source>,
    state: StoredState,
}

enum StoredState {
    /// Nothing is being done.
    Idle,
    Reading(Working<Result<Bytes, StoreFailure>>),
    Rescuing(Working<Result<VerifiedBody, ResponseError>>),
    /// The rest, from the registry.
    Rest(Box<VerifiedBody>),
}

impl StoredBody {
    /// How many bytes are still to come; unknown while the object's length is.
    pub(super) fn left(&self) -> Option<u64> {
        self.remainder.left
    }

    /// All of `reader`'s bytes.
    pub(super) fn whole(reader: Reader, source: Source) -> Self {
        let remainder = Remainder { first: 0, offset: 0, left: reader.size(), is_whole: true };
        Self { reader, remainder, source: Some(source), state: StoredState::Idle }
    }

    /// The bytes of `reader` from `offset`, `length` of them.
    pub(super) fn part(reader: Reader, offset: u64, length: u64, source: Source) -> Self {
        let remainder = Remainder { first: offset, offset, left: Some(length), is_whole: false };
        Self { reader, remainder, source: Some(source), state: StoredState::Idle }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<FrameResult> {
        loop {
            if self.remainder.left == Some(0) {
                return Poll::Ready(None);
            }
            match &mut self.state {
                StoredState::Idle => self.state = self.reading(),
                StoredState::Reading(reading) => {
                    let read = ready!(reading.as_mut().poll(cx));
                    self.state = StoredState::Idle;
                    if let Some(frame) = self.after(read) {
                        return Poll::Ready(frame);
                    }
                }
                StoredState::Rescuing(rescuing) => match ready!(rescuing.as_mut().poll(cx)) {
                    Ok(rest) => self.state = StoredState::Rest(Box::new(rest)),
                    Err(error) => return Poll::Ready(Some(Err(error))),
                },
                StoredState::Rest(rest) => {
                    let frame = ready!(rest.poll_next(cx));
                    return Poll::Ready(frame.map(|frame| frame.map(|f| self.remainder.take(f))));
                }
            }
        }
    }

    fn reading(&self) -> StoredState {
        let Remainder { offset, left, is_whole, .. } = self.remainder;
        let most = left.map_or(CHUNK, |left| usize::try_from(left).unwrap_or(CHUNK)).min(CHUNK);
        let reader = self.reader.clone();
        if is_whole || reader.is_verified() || left.is_none_or(|left| left > most as u64) {
            return StoredState::Reading(Box::pin(rescue::read(reader, offset, most)));
        }
        if most > 1 {
            return StoredState::Reading(Box::pin(rescue::read(reader, offset, most - 1)));
        }
        // The end of a part is nothing that the store holds back: its last byte waits here.
        StoredState::Reading(Box::pin(async move {
            reader.verified().await.map_err(StoreFailure::Read)?;
            rescue::read(reader, offset, most).await
        }))
    }

    /// What follows from a read; `None` where the registry is asked for the rest.
    fn after(&mut self, read: Result<Bytes, StoreFailure>) -> Option<FrameResult> {
        let failure = match read {
            Ok(bytes) if bytes.is_empty() => return Some(None),
            Ok(bytes) => {
                self.remainder.advance(bytes.len());
                return Some(Some(Ok(Frame::data(bytes))));
            }
            Err(failure) => failure,
        };
        let Some(source) = self.source.take().filter(|_| failure.is_of_disk()) else {
            return Some(Some(Err(failure.into_error())));
        };
        let rest = rescue::rest(source, self.reader.clone(), self.remainder);
        self.state = StoredState::Rescuing(Box::pin(rest));
        None
    }
}
