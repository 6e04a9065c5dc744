//! An upstream's body that is checked while it is passed on.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use entrepot_oci::{Digest, Hasher};
use http_body::{Body as _, Frame, SizeHint};

use super::broken::{FrameResult, ResponseError};
use crate::memory::Room;
use crate::upstream::body::IdleBody;

/// An upstream's body that is passed on without being kept, one frame behind, so that its last
/// bytes only follow when the digest of all is right; whole, or a part of it.
pub struct VerifiedBody {
    body: IdleBody,
    /// The part that is passed on, if it is not all.
    window: Option<Window>,
    held: Option<Bytes>,
    state: Option<(Hasher, Digest)>,
    on_success: Option<Box<dyn FnOnce() + Send>>,
}

/// A part of a body that goes by.
struct Window {
    /// Bytes before it that are still to come.
    before: u64,
    /// Bytes of it that are still to come.
    coming: u64,
    /// Bytes of it that are still to be handed out.
    left: u64,
}

impl Window {
    /// What of the next `bytes` of the body is within.
    fn cut(&mut self, mut bytes: Bytes) -> Bytes {
        let length = |bytes: &Bytes| bytes.len() as u64;
        let before = self.before.min(length(&bytes));
        self.before -= before;
        bytes = bytes.split_off(usize::try_from(before).unwrap_or(bytes.len()));
        let within = self.coming.min(length(&bytes));
        self.coming -= within;
        bytes.truncate(usize::try_from(within).unwrap_or(bytes.len()));
        bytes
    }
}

impl VerifiedBody {
    /// Passes `body` on as `digest`; `on_success` runs once it has come whole and right.
    #[must_use]
    pub fn new(body: IdleBody, digest: Digest, on_success: Box<dyn FnOnce() + Send>) -> Self {
        let hasher = Hasher::new(digest.algorithm());
        let state = Some((hasher, digest));
        Self { body, window: None, held: None, state, on_success: Some(on_success) }
    }

    /// Passes `count` bytes from `first` of `body` on, which as a whole is `digest`.
    #[must_use]
    pub(super) fn part(
        body: IdleBody,
        digest: Digest,
        first: u64,
        count: u64,
        on_success: Box<dyn FnOnce() + Send>,
    ) -> Self {
        let window = Some(Window { before: first, coming: count, left: count });
        Self { window, ..Self::new(body, digest, on_success) }
    }

    /// The rest of a body of which `hasher` has seen the beginning, to the end of `first`.
    /// Of a part, `left` bytes are to be passed on.
    pub(super) fn resumed(
        body: IdleBody,
        digest: Digest,
        hasher: Hasher,
        first: Bytes,
        left: Option<u64>,
    ) -> Self {
        let mut window = left.map(|left| Window { before: 0, coming: left, left });
        let first = window.as_mut().map_or(first.clone(), |window| window.cut(first));
        let held = (!first.is_empty()).then_some(first);
        Self { body, window, held, state: Some((hasher, digest)), on_success: None }
    }

    /// It takes `room` for as long as it is there.
    pub(super) fn hold(&mut self, room: Room) {
        self.body.hold(room);
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
            let bytes = match &mut self.window {
                Some(window) => window.cut(bytes),
                None => bytes,
            };
            if !bytes.is_empty()
                && let Some(earlier) = self.held.replace(bytes)
            {
                return Poll::Ready(Some(Ok(self.handed_out(earlier))));
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.is_none() && self.held.is_none()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.window {
            Some(window) => SizeHint::with_exact(window.left),
            None => self.body.size_hint(),
        }
    }

    fn handed_out(&mut self, bytes: Bytes) -> Frame<Bytes> {
        if let Some(window) = &mut self.window {
            window.left = window.left.saturating_sub(bytes.len() as u64);
        }
        Frame::data(bytes)
    }

    fn end(&mut self) -> FrameResult {
        let (hasher, digest) = self.state.take()?;
        if hasher.finish() != digest {
            return Some(Err(ResponseError::Digest(digest)));
        }
        if let Some(report) = self.on_success.take() {
            report();
        }
        let last = self.held.take()?;
        Some(Ok(self.handed_out(last)))
    }
}
