//! A connection to an upstream, as the pooled client wants it.
//!
//! An upstream may answer before it has all of a request, and close the connection on the rest:
//! writing fails then while the answer lies there to be read, and whoever looks at the failure
//! first never sees it. So a connection that the other side has closed takes what is written on it
//! and drops it. Reading says how it ends: with the answer, or with the connection's end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{CaptureConnection, Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::error::is_hangup;
use super::link::{Link, ProxyStream, far_address};

/// Plain or TLS; TLS is boxed, since its state is large.
type Stream = Either<Either<TcpStream, ProxyStream>, Box<TlsStream<Link>>>;

/// A connection to an upstream.
pub(crate) struct UpstreamStream {
    inner: TokioIo<Stream>,
    /// Whether the other side takes nothing any more.
    is_cut: bool,
}

/// Where a connection leads, to be found among what the pooled client tells of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached(pub(super) SocketAddr);

/// Where a request has gone, if it has.
pub(super) fn reached(connection: &CaptureConnection) -> Option<Reached> {
    let mut extras = http::Extensions::new();
    connection.connection_metadata().as_ref()?.get_extras(&mut extras);
    extras.remove()
}

impl UpstreamStream {
    pub(super) fn new(stream: Stream) -> Self {
        Self { inner: TokioIo::new(stream), is_cut: false }
    }

    /// What comes of a write of so many bytes.
    fn written(
        &mut self,
        length: usize,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Err(error)) if is_hangup(&error) => {
                self.is_cut = true;
                Poll::Ready(Ok(length))
            }
            other => other,
        }
    }
}

impl Connection for UpstreamStream {
    fn connected(&self) -> Connected {
        let (is_proxy, address) = match self.inner.inner() {
            Either::Left(Either::Left(tcp)) => (false, tcp.peer_addr().ok()),
            Either::Left(Either::Right(_)) => (true, None),
            Either::Right(tls) => (false, far_address(tls.get_ref().0)),
        };
        // A proxy gets the absolute form (RFC 9112 §3.2.2).
        let connected = Connected::new().proxy(is_proxy);
        match address {
            Some(address) => connected.extra(Reached(address)),
            None => connected,
        }
    }
}

impl Read for UpstreamStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl Write for UpstreamStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut {
            return Poll::Ready(Ok(buf.len()));
        }
        let wrote = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.written(buf.len(), wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.is_cut {
            return Poll::Ready(Ok(length));
        }
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.written(length, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.written(0, flushed.map_ok(|()| 0)).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
