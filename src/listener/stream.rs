//! A client's byte stream, plain or TLS, with what was read ahead of its reader.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

/// The first byte of a TLS connection: a record of type handshake (RFC 8446 §5.1). No HTTP method
/// begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a connection's first byte says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    Tls,
    Plain,
    /// Closed before anything was said.
    Nothing,
}

/// A stream with bytes in front of it that were read before.
pub(super) struct Rewound<T> {
    ahead: Bytes,
    inner: T,
}

impl<T> Rewound<T> {
    pub(super) fn new(ahead: Bytes, inner: T) -> Self {
        let mut rewound = Self { ahead, inner };
        rewound.let_go();
        rewound
    }

    /// Bytes that have all been read still hold the buffer that they were a part of.
    fn let_go(&mut self) {
        if self.ahead.is_empty() {
            self.ahead = Bytes::new();
        }
    }
}

impl<T: AsyncRead + Unpin> Rewound<T> {
    /// Reads what has come, at least a byte, says what it is, and puts it back.
    pub(super) async fn opening(&mut self) -> io::Result<Opening> {
        if self.ahead.is_empty() {
            let mut buffer = BytesMut::with_capacity(512);
            self.inner.read_buf(&mut buffer).await?;
            self.ahead = buffer.freeze();
        }
        Ok(match self.ahead.first() {
            Some(&TLS_HANDSHAKE) => Opening::Tls,
            Some(_) => Opening::Plain,
            None => Opening::Nothing,
        })
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewound<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead.split_to(count));
        self.let_go();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewound<T> {
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

/// A TCP connection as it was accepted.
pub(super) type TcpClient = Rewound<TcpStream>;

/// A client's connection to the proxy, by HTTP or by HTTPS; TLS is boxed, since its state is large.
pub(super) type ClientStream = Either<TcpClient, Box<TlsStream<TcpClient>>>;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn what_was_looked_at_is_read_again() {
        let (mut far, near) = tokio::io::duplex(64);
        far.write_all(b"GET / HTTP/1.1").await.unwrap();
        drop(far);
        let mut near = Rewound::new(Bytes::new(), near);
        assert_eq!(near.opening().await.unwrap(), Opening::Plain);
        let mut text = String::new();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "GET / HTTP/1.1");
        assert_eq!(near.opening().await.unwrap(), Opening::Nothing);
    }

    #[tokio::test]
    async fn a_handshake_is_told_from_http() {
        let mut tls = Rewound::new(Bytes::from_static(&[0x16, 3, 1]), tokio::io::empty());
        assert_eq!(tls.opening().await.unwrap(), Opening::Tls);
    }
}
