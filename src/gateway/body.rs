//! The bodies that clients receive.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use entrepot_cache::{Digest, Hasher, ReadError, Reader};
use http_body::{Body, Frame, SizeHint};

use super::multipart::Multipart;
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

    pub(super) fn upstream(body: IdleBody) -> Self {
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
            Self::Stored(body) => body.left == Some(0),
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
            Self::Stored(body) => body.left.map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Multipart(body) => SizeHint::with_exact(body.length()),
        }
    }
}

type Reading = Pin<Box<dyn Future<Output = Result<Bytes, ReadError>> + Send>>;

/// A part of an object in the store, or on its way into it.
pub struct StoredBody {
    reader: Reader,
    offset: u64,
    /// Bytes still to send; unknown while the object's length is.
    left: Option<u64>,
    reading: Option<Reading>,
}

impl StoredBody {
    /// The bytes of `reader` from `offset`, `length` of them or all that there are.
    #[must_use]
    pub fn new(reader: Reader, offset: u64, length: Option<u64>) -> Self {
        Self { reader, offset, left: length, reading: None }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<FrameResult> {
        if self.left == Some(0) {
            return Poll::Ready(None);
        }
        let most =
            self.left.map_or(CHUNK, |left| usize::try_from(left).unwrap_or(CHUNK).min(CHUNK));
        let (reader, offset) = (&self.reader, self.offset);
        let reading = self.reading.get_or_insert_with(|| {
            let reader = reader.clone();
            Box::pin(async move { reader.read_at(offset, most).await })
        });
        let result = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        Poll::Ready(self.advance(result))
    }

    fn advance(&mut self, result: Result<Bytes, ReadError>) -> FrameResult {
        let bytes = match result {
            Ok(bytes) if bytes.is_empty() => return None,
            Ok(bytes) => bytes,
            Err(error) => return Some(Err(error.into())),
        };
        let count = bytes.len() as u64;
        self.offset += count;
        self.left = self.left.map(|left| left.saturating_sub(count));
        Some(Ok(Frame::data(bytes)))
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
            let Ok(bytes) = frame.into_data() else {
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
