//! The bodies that clients receive.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use entrepot_cache::{ReadError, Reader};
use entrepot_oci::{Digest, Hasher};
use http_body::{Body, Frame, SizeHint};

use super::multipart::Multipart;
use super::rescue::{self, Remainder, RescueError, StoreFailure};
use crate::gateway::exchange::Source;
use crate::upstream::body::{BodyError, IdleBody};

/// Bytes read from the store at a time: large enough that system calls and TLS records cost
/// little, small enough that a slow client's share of memory stays small.
const CHUNK: usize = 256 * 1024;

/// A response body broke off: the connection is closed so that no client takes it for whole.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// The upstream's transfer broke.
    #[error(transparent)]
    Upstream(#[from] BodyError),
    /// The store could not deliver.
    #[error(transparent)]
    Store(#[from] ReadError),
    /// The store could not deliver, and the registry did not go on in its place.
    #[error(transparent)]
    Rescue(#[from] RescueError),
    /// The registry delivered other bytes than were asked for.
    #[error("the registry delivered other bytes than {0}")]
    Digest(Digest),
}

/// What a client receives.
pub enum ResponseBody {
    /// Nothing.
    Empty,
    /// A document of our own, or a manifest.
    Full(Option<Bytes>),
    /// An upstream's body as it comes.
    Upstream(Box<IdleBody>),
    /// An upstream's body whose end is held back until its digest is right.
    Verified(Box<VerifiedBody>),
    /// A part of an object in the store.
    Stored(Box<StoredBody>),
    /// Several parts of it.
    Multipart(Box<Multipart>),
}

impl ResponseBody {
    /// A document of our own.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Some(bytes.into()))
    }

    pub(super) fn stored(body: StoredBody) -> Self {
        Self::Stored(Box::new(body))
    }

    pub(super) fn multipart(body: Multipart) -> Self {
        Self::Multipart(Box::new(body))
    }

    pub(in crate::gateway) fn upstream(body: IdleBody) -> Self {
        Self::Upstream(Box::new(body))
    }
}

/// What a body's poll yields.
pub(super) type FrameResult = Option<Result<Frame<Bytes>, ResponseError>>;

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FrameResult> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Upstream(body) => Pin::new(body.as_mut())
                .poll_frame(cx)
                .map(|frame| frame.map(|result| result.map_err(ResponseError::from))),
            Self::Verified(body) => body.poll_next(cx),
            Self::Stored(body) => body.poll_next(cx),
            Self::Multipart(body) => body.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_none(),
            Self::Upstream(body) => body.is_end_stream(),
            Self::Verified(body) => body.state.is_none() && body.held.is_none(),
            Self::Stored(body) => body.remainder.left == Some(0),
            Self::Multipart(body) => body.length() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Upstream(body) => body.size_hint(),
            Self::Verified(body) => body.body.size_hint(),
            Self::Stored(body) => {
                body.remainder.left.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Self::Multipart(body) => SizeHint::with_exact(body.length()),
        }
    }
}

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
    Rescuing(Working<Result<ResponseBody, ResponseError>>),
    /// The rest, from the registry.
    Rest(Box<ResponseBody>),
}

impl StoredBody {
    /// All of `reader`'s bytes.
    pub(super) fn whole(reader: Reader, source: Source) -> Self {
        let remainder = Remainder { offset: 0, left: reader.size(), is_whole: true };
        Self { reader, remainder, source: Some(source), state: StoredState::Idle }
    }

    /// The bytes of `reader` from `offset`, `length` of them.
    pub(super) fn part(reader: Reader, offset: u64, length: u64, source: Source) -> Self {
        let remainder = Remainder { offset, left: Some(length), is_whole: false };
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
                    let frame = ready!(Pin::new(rest.as_mut()).poll_frame(cx));
                    return Poll::Ready(frame.map(|frame| frame.map(|f| self.remainder.take(f))));
                }
            }
        }
    }

    fn reading(&self) -> StoredState {
        let most = self.remainder.left.map_or(CHUNK, |left| usize::try_from(left).unwrap_or(CHUNK));
        let reading = rescue::read(self.reader.clone(), self.remainder.offset, most.min(CHUNK));
        StoredState::Reading(Box::pin(reading))
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

/// An upstream's body that is passed on without being kept, one frame behind, so that its last
/// bytes only follow when the digest of all is right.
pub struct VerifiedBody {
    body: IdleBody,
    held: Option<Bytes>,
    state: Option<(Hasher, Digest)>,
    on_success: Option<Box<dyn FnOnce() + Send>>,
}

impl VerifiedBody {
    /// Passes `body` on as `digest`; `on_success` runs once it has come whole and right.
    #[must_use]
    pub fn new(body: IdleBody, digest: Digest, on_success: Box<dyn FnOnce() + Send>) -> Self {
        let hasher = Hasher::new(digest.algorithm());
        let state = Some((hasher, digest));
        Self { body, held: None, state, on_success: Some(on_success) }
    }

    /// The rest of a body of which `hasher` has seen the beginning, to the end of `first`.
    pub(super) fn resumed(body: IdleBody, digest: Digest, hasher: Hasher, first: Bytes) -> Self {
        let held = (!first.is_empty()).then_some(first);
        Self { body, held, state: Some((hasher, digest)), on_success: None }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<FrameResult> {
        loop {
            let Some((hasher, _)) = &mut self.state else {
                return Poll::Ready(None);
            };
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(self.end()),
                Some(Err(error)) => {
                    self.state = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Some(Ok(frame)) => frame,
            };
            let Some(bytes) = frame.into_data().ok().filter(|bytes| !bytes.is_empty()) else {
                continue;
            };
            hasher.update(&bytes);
            if let Some(earlier) = self.held.replace(bytes) {
                return Poll::Ready(Some(Ok(Frame::data(earlier))));
            }
        }
    }

    fn end(&mut self) -> FrameResult {
        let (hasher, digest) = self.state.take()?;
        if hasher.finish() != digest {
            return Some(Err(ResponseError::Digest(digest)));
        }
        if let Some(report) = self.on_success.take() {
            report();
        }
        self.held.take().map(|bytes| Ok(Frame::data(bytes)))
    }
}
