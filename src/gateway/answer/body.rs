//! The bodies that clients receive.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::broken::{FrameResult, ResponseError};
use super::multipart::Multipart;
use super::stored::StoredBody;
use super::verified::VerifiedBody;
use crate::memory::Room;
use crate::upstream::body::IdleBody;

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

    /// How many bytes of an upstream's are passed on as they come, as far as that is known; `None`
    /// where none are.
    pub(in crate::gateway) fn passed_on(&self) -> Option<u64> {
        match self {
            Self::Upstream(_) | Self::Verified(_) if self.is_end_stream() => None,
            Self::Upstream(_) | Self::Verified(_) => {
                Some(self.size_hint().upper().unwrap_or(u64::MAX))
            }
            Self::Empty | Self::Full(_) | Self::Stored(_) | Self::Multipart(_) => None,
        }
    }

    /// What is passed on takes `room` for as long as it lasts.
    pub(in crate::gateway) fn hold(&mut self, room: Room) {
        match self {
            Self::Upstream(body) => body.hold(room),
            Self::Verified(body) => body.hold(room),
            Self::Empty | Self::Full(_) | Self::Stored(_) | Self::Multipart(_) => {}
        }
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
            Self::Verified(body) => body.is_over(),
            Self::Stored(body) => body.left() == Some(0),
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
            Self::Verified(body) => body.size_hint(),
            Self::Stored(body) => body.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Multipart(body) => SizeHint::with_exact(body.length()),
        }
    }
}
