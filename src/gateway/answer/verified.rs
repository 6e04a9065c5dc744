//! An upstream's body that is checked while it is passed on.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use entrepot_oci::{Digest, Hasher};
use http_body::{Body as _, Frame, SizeHint};

use super::broken::{FrameResult, ResponseError};
use crate::upstream::body::IdleBody;

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

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<FrameResult> {
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

    pub(super) fn is_over(&self) -> bool {
        self.state.is_none() && self.held.is_none()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
