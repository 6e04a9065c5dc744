//! A part of an object in the store, or on its way into it, as a body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use entrepot_cache::Reader;
use http_body::Frame;

use super::broken::{FrameResult, ResponseError};
use super::piece::{Allowance, Pieces, Wish};
use super::rescue::{self, Remainder, StoreFailure};
use super::verified::VerifiedBody;
use crate::gateway::exchange::Source;
use crate::memory::Room;

type Working<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A part of an object in the store, or on its way into it.
///
/// Where the store fails, the rest comes from the registry.
pub struct StoredBody {
    reader: Reader,
    remainder: Remainder,
    /// Where the rest is to be had if the store fails; taken once.
    source: Option<Source>,
    pieces: Pieces,
    state: StoredState,
}

enum StoredState {
    /// Nothing is being done.
    Idle,
    Reading(Working<Result<(Bytes, Option<Room>), StoreFailure>>),
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
        Self::new(reader, remainder, source)
    }

    /// The bytes of `reader` from `offset`, `length` of them.
    pub(super) fn part(reader: Reader, offset: u64, length: u64, source: Source) -> Self {
        let remainder = Remainder { first: offset, offset, left: Some(length), is_whole: false };
        Self::new(reader, remainder, source)
    }

    fn new(reader: Reader, remainder: Remainder, source: Source) -> Self {
        let pieces = Pieces::new(source.exchange.asked.account.clone());
        Self { reader, remainder, source: Some(source), pieces, state: StoredState::Idle }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<FrameResult> {
        loop {
            if self.remainder.left == Some(0) {
                return Poll::Ready(None);
            }
            match &mut self.state {
                StoredState::Idle => {
                    ready!(self.pieces.poll_next(cx));
                    self.state = self.reading();
                }
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
        let (remainder, reader) = (self.remainder, self.reader.clone());
        let wish = self.pieces.wish(remainder.left);
        StoredState::Reading(Box::pin(read(reader, remainder, wish)))
    }

    /// What follows from a read; `None` where the registry is asked for the rest.
    fn after(&mut self, read: Result<(Bytes, Option<Room>), StoreFailure>) -> Option<FrameResult> {
        let failure = match read {
            Ok((bytes, _)) if bytes.is_empty() => return Some(None),
            Ok((bytes, room)) => {
                self.remainder.advance(bytes.len());
                let is_last = self.remainder.left == Some(0);
                let piece = self.pieces.hand_out(bytes, room, is_last);
                return Some(Some(Ok(Frame::data(piece))));
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

/// The next piece, and the room that it takes.
async fn read(
    reader: Reader,
    remainder: Remainder,
    wish: Wish,
) -> Result<(Bytes, Option<Room>), StoreFailure> {
    let Remainder { offset, left, is_whole, .. } = remainder;
    if reader.available() <= offset {
        // The upstream is waited for, and nothing is held meanwhile.
        let first = rescue::read(reader.clone(), offset, 1).await?;
        if first.is_empty() {
            return Ok((first, None));
        }
    }
    let Allowance { mut most, room } = wish.granted();
    if !is_whole && !reader.is_verified() && left.is_some_and(|left| left <= most as u64) {
        // The end of a part is nothing that the store holds back: its last byte waits here.
        if most > 1 {
            most -= 1;
        } else {
            reader.verified().await.map_err(StoreFailure::Read)?;
        }
    }
    Ok((rescue::read(reader, offset, most).await?, room))
}
