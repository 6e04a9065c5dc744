//! A client's stream whose requests are counted as they go by.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::framing::{Framing, FramingFault};
use super::patience::{Awaited, Patience};
use super::places::Place;
use crate::memory::{Account, Room};
use crate::trickle::Trickle;

/// How long what a client still sends is taken, and thrown away, once it has its answer: a
/// connection that is closed with bytes unread is reset, and the answer may be lost with it
/// (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(30);

/// Answered to HTTP/2 without TLS's leave ("prior knowledge", RFC 9113 §3.3): nothing here speaks
/// it, and whoever sent it gets to read why.
const NO_HTTP_2: &[u8] = b"HTTP/1.1 505 entrepot: HTTP/2 is not spoken here\r\n\
    Content-Type: text/plain\r\nContent-Length: 34\r\nConnection: close\r\n\r\n\
    HTTP/1.1 alone is understood here\n";

/// Answered to a client whose head is long, where there is no room for it.
const NO_ROOM: &[u8] = b"HTTP/1.1 503 entrepot: no room for so long a head\r\n\
    Content-Type: application/json\r\nRetry-After: 1\r\nContent-Length: 133\r\n\
    Connection: close\r\n\r\n\
    {\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"too much is under way \
    for the memory that may be used (memory-budget); try again\"}]}\n";

/// A head of no more than this is a part of what a connection costs.
const USUAL_HEAD: usize = 16 * 1024;
/// What a longer one takes: itself in a buffer, its fields, a line that has not ended.
const LONG_HEAD: usize = 128 * 1024;

/// A stream that passes its bytes on as they are and follows the requests in them. One fails
/// with [`io::ErrorKind::InvalidData`] within a request's malformed body, since hyper would take
/// some of those for whole, and with [`io::ErrorKind::TimedOut`] where a client takes too long.
pub(super) struct Watched<T> {
    inner: T,
    framing: Framing,
    count: Arc<Count>,
    patience: Patience,
    closing: Closing,
    account: Account,
    /// How much of a head has come, and the room for it if it is long.
    head: (usize, Option<Room>),
    trickle: Trickle,
    pause: Option<Pin<Box<Sleep>>>,
}

/// How far the stream's end has come.
enum Closing {
    NotYet,
    /// So much of this is to be written, for this reason.
    Refusing(&'static [u8], io::ErrorKind),
    /// Nothing more is sent; what comes is thrown away until then.
    Lingering(Pin<Box<Sleep>>),
}

/// What the one who serves the requests knows of the stream they come from. Relaxed: reading and
/// serving are the same task.
#[derive(Debug, Default)]
struct Count {
    heads: AtomicU64,
    answers: AtomicU64,
    fault: OnceLock<FramingFault>,
}

/// The requests of one connection, in the order in which they are served.
pub(super) struct Admissions {
    count: Arc<Count>,
    served: AtomicU64,
}

/// A request whose head was not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uncounted {
    Fault(FramingFault),
    /// hyper has found a head where the count found none.
    Disagreement,
}

impl<T> Watched<T> {
    /// Follows `inner`, whose client may be silent for so long within a body, either way, and has
    /// this account.
    pub(super) fn new(inner: T, silence: Duration, account: Account) -> (Self, Admissions) {
        let count = Arc::new(Count::default());
        let admissions = Admissions { count: count.clone(), served: AtomicU64::new(0) };
        let (patience, closing) = (Patience::new(silence), Closing::NotYet);
        let (framing, head, trickle, pause) = Default::default();
        let watched =
            Self { inner, framing, count, patience, closing, account, head, trickle, pause };
        (watched, admissions)
    }

    pub(super) fn into_inner(self) -> T {
        self.inner
    }

    fn observe(&mut self, bytes: &[u8]) -> io::Result<()> {
        let before = self.framing.shortfall();
        self.framing.observe(bytes);
        let wait = self.trickle.note(self.framing.shortfall() - before);
        self.pause = wait.map(|wait| Box::pin(tokio::time::sleep(wait)));
        self.count.heads.store(self.framing.heads(), Ordering::Relaxed);
        let Some(loss) = self.framing.loss() else { return Ok(()) };
        // Set once: the first fault ends the count.
        let _ = self.count.fault.set(loss.fault);
        if loss.is_in_body {
            return Err(io::Error::new(io::ErrorKind::InvalidData, loss.fault));
        }
        Ok(())
    }

    /// Whether there is room for the head whose next bytes have come, so many.
    fn has_room(&mut self, more: usize) -> bool {
        let (length, room) = &mut self.head;
        if !self.framing.is_in_head() {
            (*length, *room) = (0, None);
            return true;
        }
        *length = length.saturating_add(more);
        if *length > USUAL_HEAD && room.is_none() {
            *room = self.account.try_take(LONG_HEAD);
            return room.is_some();
        }
        true
    }

    /// What the next bytes would be, and of which request.
    fn awaited(&self) -> (Awaited, u64) {
        let heads = self.framing.heads();
        let awaited = if self.framing.is_in_body() {
            Awaited::Body
        } else if heads > self.count.answers.load(Ordering::Relaxed) {
            Awaited::Answer
        } else if self.framing.is_between_requests() {
            Awaited::Request
        } else {
            Awaited::Head
        };
        (awaited, heads)
    }
}

impl<T: AsyncWrite + Unpin> Watched<T> {
    /// Writes `rest`, and fails with `kind`.
    fn poll_refuse(
        &mut self,
        cx: &mut Context<'_>,
        mut rest: &'static [u8],
        kind: io::ErrorKind,
    ) -> Poll<io::Result<()>> {
        while !rest.is_empty() {
            self.closing = Closing::Refusing(rest, kind);
            let wrote = Pin::new(&mut self.inner).poll_write(cx, rest);
            let written = ready!(self.patience.with_write(cx, wrote))?;
            rest = rest.get(written..).unwrap_or_default();
        }
        self.closing = Closing::Refusing(rest, kind);
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        Poll::Ready(Err(kind.into()))
    }
}

impl<T: AsyncRead + Unpin> Watched<T> {
    /// Throws away what comes, until nothing does any more.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Admissions {
    /// Whether the next request's head was counted. Once one was not, none will be.
    pub(super) fn next(&self) -> Result<(), Uncounted> {
        let number = self.served.fetch_add(1, Ordering::Relaxed);
        if number < self.count.heads.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(self
            .count
            .fault
            .get()
            .map_or(Uncounted::Disagreement, |fault| Uncounted::Fault(*fault)))
    }

    /// A request's answer, whose end is noticed: `place` lies idle then.
    pub(super) fn answered<B>(&self, inner: B, place: Option<Arc<Place>>) -> Answered<B> {
        Answered { inner, count: self.count.clone(), place }
    }

    /// What ends the count, to be asked when the connection is gone.
    pub(super) fn faults(&self) -> Faults {
        Faults(self.count.clone())
    }
}

/// What was wrong with a connection's requests.
pub(super) struct Faults(Arc<Count>);

impl Faults {
    /// Whether the client spoke HTTP/2.
    pub(super) fn is_http_2(&self) -> bool {
        self.0.fault.get() == Some(&FramingFault::Http2)
    }
}

/// The body of an answer; the client waits for nothing more when it is dropped.
pub(super) struct Answered<B> {
    inner: B,
    count: Arc<Count>,
    place: Option<Arc<Place>>,
}

impl<B> Drop for Answered<B> {
    fn drop(&mut self) {
        self.count.answers.fetch_add(1, Ordering::Relaxed);
        if let Some(place) = &self.place {
            place.lies_idle();
        }
    }
}

impl<B: Body + Unpin> Body for Answered<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Closing::Refusing(rest, kind) = self.closing {
            return self.poll_refuse(cx, rest, kind);
        }
        if let Some(resting) = &mut self.pause {
            ready!(resting.as_mut().poll(cx));
            self.pause = None;
        }
        let before = buf.filled().len();
        let awaited = self.awaited();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        ready!(self.patience.with_read(cx, awaited, read))?;
        let observed = self.observe(buf.filled().get(before..).unwrap_or_default());
        if self.framing.loss().is_some_and(|loss| loss.fault == FramingFault::Http2) {
            return self.poll_refuse(cx, NO_HTTP_2, io::ErrorKind::InvalidData);
        }
        if !self.has_room(buf.filled().len() - before) {
            return self.poll_refuse(cx, NO_ROOM, io::ErrorKind::OutOfMemory);
        }
        Poll::Ready(observed)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.patience.with_write(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.patience.with_write(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.patience.with_write(cx, flushed)
    }

    /// Ends what is sent; where the client is in the middle of a request, its rest is waited for.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !matches!(self.closing, Closing::Lingering(_)) {
            let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
            ready!(self.patience.with_write(cx, shut))?;
            if self.framing.is_between_requests() {
                return Poll::Ready(Ok(()));
            }
            self.closing = Closing::Lingering(Box::pin(tokio::time::sleep(LINGER)));
        }
        if let Poll::Ready(drained) = self.poll_drain(cx) {
            return Poll::Ready(drained);
        }
        let Closing::Lingering(until) = &mut self.closing else { return Poll::Ready(Ok(())) };
        until.as_mut().poll(cx).map(Ok)
    }
}
