//! Bodies that do not wait for ever.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Collected, Limited};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::memory::{Account, Gathered, NoRoom, Room};
use crate::metrics::Behalf;
use crate::trickle::Trickle;
use crate::words::of_exchange;

/// A body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Nothing came for too long.
    #[error("nothing came for {} s", .0.as_secs())]
    Idle(Duration),
    /// The connection broke, or its framing was wrong.
    #[error("the transfer broke off: {}", of_exchange(.0))]
    Transfer(#[from] hyper::Error),
    /// All of it took too long, however little came at a time.
    #[error("it had not come whole within {} s", .0.as_secs())]
    Slow(Duration),
    /// Whoever sends it has been silent for too long about itself.
    #[error("whoever sends it is gone")]
    Gone,
    /// There was no room for it.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// More came than anything of its kind may have.
    #[error("it is longer than {0} bytes")]
    TooLong(u64),
}

/// How long a document may take that is wanted whole, however slowly it comes: the largest manifest
/// by a line of 100 kB/s.
const WHOLE: Duration = Duration::from_mins(2);
/// An upstream's body; an upstream that falls silent for the idle time breaks it.
pub struct IdleBody {
    /// What was read of it already, and is handed out before the rest.
    front: Option<Bytes>,
    /// What is still to come, if anything is.
    inner: Option<(Incoming, Behalf)>,
    limit: Duration,
    deadline: Pin<Box<Sleep>>,
    /// When it breaks before that: whoever sends it is known to be gone.
    gone: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// What it takes of the budget while it is passed on.
    room: Option<Room>,
    /// What comes in pieces that are too small is slowed.
    trickle: Trickle,
    pause: Option<Pin<Box<Sleep>>>,
}

impl IdleBody {
    /// Watches over `inner`; what comes counts on this behalf.
    #[must_use]
    pub(crate) fn new(inner: Incoming, limit: Duration, behalf: Behalf) -> Self {
        let deadline = Box::pin(tokio::time::sleep(limit));
        let inner = Some((inner, behalf));
        let (front, gone, room, trickle, pause) = Default::default();
        Self { front, inner, limit, deadline, gone, room, trickle, pause }
    }

    /// The same, which breaks when whoever sends it is `gone`.
    #[must_use]
    pub(crate) fn until(self, gone: CancellationToken) -> Self {
        Self { gone: Some(Box::pin(gone.cancelled_owned())), ..self }
    }

    /// It takes `room` for as long as it is there.
    pub(crate) fn hold(&mut self, room: Room) {
        self.room = Some(room);
    }

    /// A body that was read before, and is counted already.
    #[must_use]
    pub fn read(bytes: Bytes) -> Self {
        let front = (!bytes.is_empty()).then_some(bytes);
        let limit = Duration::ZERO;
        let deadline = Box::pin(tokio::time::sleep(limit));
        let (inner, gone, room, trickle, pause) = Default::default();
        Self { front, inner, limit, deadline, gone, room, trickle, pause }
    }

    /// All of it, if that is no more than `most` bytes, on `account` for as long as it is there.
    pub(crate) async fn whole(self, most: usize, account: &Account) -> Result<Bytes, BodyError> {
        let whole = self.whole_or_rest(most, account).await?;
        whole.map_err(|_longer| BodyError::TooLong(most as u64))
    }

    /// All of it, or the body as it was where it has more than `most` bytes. On `account` is what
    /// is there of it, never what was announced.
    pub(crate) async fn whole_or_rest(
        mut self,
        most: usize,
        account: &Account,
    ) -> Result<Result<Bytes, Self>, BodyError> {
        let mut gathered = Gathered::new(account);
        let deadline = Instant::now() + WHOLE;
        loop {
            let next = tokio::time::timeout_at(deadline, self.frame()).await;
            let Some(frame) = next.map_err(|_| BodyError::Slow(WHOLE))? else {
                return Ok(Ok(gathered.finish()));
            };
            let Ok(data) = frame?.into_data() else { continue };
            gathered.push(&data).await?;
            if gathered.len() > most {
                self.front = Some(gathered.finish());
                return Ok(Err(self));
            }
        }
    }
}

impl Body for IdleBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(front) = self.front.take() {
            return Poll::Ready(Some(Ok(Frame::data(front))));
        }
        let Self { inner, deadline, limit, gone, trickle, pause, .. } = &mut *self;
        let Some((inner, behalf)) = inner else { return Poll::Ready(None) };
        if let Some(resting) = pause {
            ready!(resting.as_mut().poll(cx));
            *pause = None;
        }
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) {
            deadline.as_mut().reset(Instant::now() + *limit);
            if let Some(Ok(frame)) = &frame {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                behalf.received(length);
                let wait = trickle.note(Trickle::shortfall(length));
                *pause = wait.map(|wait| Box::pin(tokio::time::sleep(wait)));
            }
            return Poll::Ready(frame.map(|result| result.map_err(BodyError::from)));
        }
        if gone.as_mut().is_some_and(|gone| gone.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Some(Err(BodyError::Gone)));
        }
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyError::Idle(*limit))))
    }

    fn is_end_stream(&self) -> bool {
        let is_over = |inner: &(Incoming, _)| inner.0.is_end_stream();
        self.front.is_none() && self.inner.as_ref().is_none_or(is_over)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.front, &self.inner) {
            (None, Some((inner, _))) => inner.size_hint(),
            (Some(_), Some(_)) => SizeHint::default(),
            (front, None) => SizeHint::with_exact(front.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

/// When a request last moved: it got its connection, or a piece of its body went out. The wait for
/// the answer begins where that ends.
#[derive(Debug, Clone)]
pub(crate) struct SendProgress(Arc<(Instant, AtomicU64)>);

impl SendProgress {
    /// It has not moved yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new((Instant::now(), AtomicU64::new(0))))
    }

    /// It moves.
    pub(crate) fn mark(&self) {
        let millis = u64::try_from(self.0.0.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.1.store(millis, Ordering::Relaxed);
    }

    /// The moment of the last movement.
    pub(crate) fn last(&self) -> Instant {
        self.0.0 + Duration::from_millis(self.0.1.load(Ordering::Relaxed))
    }
}

/// What is sent upstream: nothing, or a client's body as it comes.
pub(crate) enum RequestBody {
    /// No body.
    Empty,
    /// A form of our own.
    Whole(Option<Bytes>),
    /// A client's upload.
    Client(Incoming),
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        Self::Client(body)
    }
}

impl RequestBody {
    /// All of it, if that is no more than `most` bytes; else why not.
    pub(crate) async fn whole(self, most: usize) -> Result<Bytes, String> {
        match self {
            Self::Empty => Ok(Bytes::new()),
            Self::Whole(bytes) => Ok(bytes.unwrap_or_default()),
            Self::Client(incoming) => {
                let whole = Limited::new(incoming, most).collect().await;
                whole.map(Collected::to_bytes).map_err(|error| error.to_string())
            }
        }
    }

    /// At most how many bytes it has, as far as is known.
    pub(crate) fn most(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Whole(bytes) => Some(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Client(incoming) if incoming.is_end_stream() => Some(0),
            Self::Client(incoming) => incoming.size_hint().upper(),
        }
    }

    /// Whether nothing of it is left to send.
    #[must_use]
    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::Client(incoming) => incoming.is_end_stream(),
        }
    }
}

/// A request body that marks its progress.
pub(super) struct SentBody {
    pub(super) body: RequestBody,
    pub(super) progress: SendProgress,
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let incoming = match &mut self.body {
            RequestBody::Empty => return Poll::Ready(None),
            RequestBody::Whole(bytes) => {
                return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))));
            }
            RequestBody::Client(incoming) => incoming,
        };
        loop {
            let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
            // Trailers end here: nothing that a client names there is for the registry.
            if let Some(Ok(frame)) = &frame
                && !frame.is_data()
            {
                continue;
            }
            self.progress.mark();
            return Poll::Ready(frame);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            RequestBody::Client(incoming) => incoming.size_hint(),
        }
    }
}
