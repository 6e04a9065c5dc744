//! A client's stream whose requests are counted as they go by.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{Framing, FramingFault};

/// A stream that passes its bytes on as they are and follows the requests in them. One fails
/// with [`io::ErrorKind::InvalidData`] within a request's malformed body, since hyper would take
/// some of those for whole.
pub(super) struct Watched<T> {
    inner: T,
    framing: Framing,
    count: Arc<Count>,
}

/// What the one who serves the requests knows of the stream they come from. Relaxed: reading and
/// serving are the same task.
#[derive(Debug, Default)]
struct Count {
    heads: AtomicU64,
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
    pub(super) fn new(inner: T) -> (Self, Admissions) {
        let count = Arc::new(Count::default());
        let admissions = Admissions { count: count.clone(), served: AtomicU64::new(0) };
        (Self { inner, framing: Framing::default(), count }, admissions)
    }

    pub(super) fn into_inner(self) -> T {
        self.inner
    }

    fn observe(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.framing.observe(bytes);
        self.count.heads.store(self.framing.heads(), Ordering::Relaxed);
        let Some(loss) = self.framing.loss() else { return Ok(()) };
        // Set once: the first fault ends the count.
        let _ = self.count.fault.set(loss.fault);
        if loss.is_in_body {
            return Err(io::Error::new(io::ErrorKind::InvalidData, loss.fault));
        }
        Ok(())
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
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        Poll::Ready(self.observe(buf.filled().get(before..).unwrap_or_default()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
