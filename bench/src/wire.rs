//! As much of HTTP/1.1 as a client that knows its servers needs: heads, and bodies of a known
//! length.

use std::io;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::size::length;

/// How much is read at a time; a head must fit.
const BUFFER: usize = 256 * 1024;

/// The first line and the fields of a message.
#[derive(Debug)]
pub(crate) struct Head(String);

impl Head {
    /// A response's status, 0 if it has none.
    pub(crate) fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or_default()
    }

    /// A request's method.
    pub(crate) fn method(&self) -> &str {
        self.word(0)
    }

    /// A request's target.
    pub(crate) fn target(&self) -> &str {
        self.word(1)
    }

    fn word(&self, number: usize) -> &str {
        let line = self.0.lines().next().unwrap_or_default();
        line.split(' ').nth(number).unwrap_or_default()
    }

    /// A field's value, by its name in small letters.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.0.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// How long the body is, where that is said.
    pub(crate) fn body_bytes(&self) -> Option<u64> {
        self.field("content-length")?.parse().ok()
    }

    /// Whether the sender closes the connection behind this message.
    pub(crate) fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// A stream that messages are read from.
#[derive(Debug)]
pub(crate) struct Incoming<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
    /// What of the buffer is read and not yet used.
    start: usize,
    end: usize,
}

impl<S: AsyncRead + Unpin> Incoming<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: vec![0; BUFFER], start: 0, end: 0 }
    }

    /// The stream again; what was read ahead must be nothing.
    pub(crate) fn into_inner(self) -> io::Result<S> {
        if self.start == self.end { Ok(self.stream) } else { Err(broken("bytes before TLS")) }
    }

    /// The next head; `None` if the peer has closed before it.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            let seen = self.unused();
            if let Some(at) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(seen.get(..at).unwrap_or_default()).into_owned();
                self.start += at + 4;
                return Ok(Some(Head(text)));
            }
            let begun = !seen.is_empty();
            if self.more().await? == 0 {
                return if begun { Err(broken("the end within a head")) } else { Ok(None) };
            }
        }
    }

    /// Reads a body of `len` bytes, piece by piece; when its first byte was there.
    pub(crate) async fn body(
        &mut self,
        len: u64,
        mut piece: impl FnMut(&[u8]),
    ) -> io::Result<Instant> {
        let (mut left, mut first) = (length(len), None);
        while left > 0 {
            if self.start == self.end && self.more().await? == 0 {
                return Err(broken("the end within a body"));
            }
            first.get_or_insert_with(Instant::now);
            let unused = self.unused();
            let part = unused.get(..left.min(unused.len())).unwrap_or_default();
            piece(part);
            let used = part.len();
            self.start += used;
            left -= used;
        }
        Ok(first.unwrap_or_else(Instant::now))
    }

    fn unused(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    async fn more(&mut self) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        if room.is_empty() {
            return Err(broken("a head without an end"));
        }
        let read = self.stream.read(room).await?;
        self.end += read;
        Ok(read)
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::Incoming;

    #[tokio::test]
    async fn messages_are_told_apart() {
        let bytes: &[u8] =
            b"HTTP/1.1 206 Partial\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n";
        let mut incoming = Incoming::new(bytes);
        let head = incoming.head().await.unwrap().unwrap();
        assert_eq!((head.status(), head.body_bytes(), head.closes()), (206, Some(3), false));
        let mut body = Vec::new();
        incoming.body(3, |piece| body.extend_from_slice(piece)).await.unwrap();
        assert_eq!(body, b"abc");
        let head = incoming.head().await.unwrap().unwrap();
        assert!(head.status() == 200 && head.closes());
        assert!(incoming.head().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_ends_early_is_an_error() {
        let mut incoming = Incoming::new(&b"HTTP/1.1 200"[..]);
        assert!(incoming.head().await.is_err());
        let mut incoming = Incoming::new(&b"ab"[..]);
        assert!(incoming.body(3, |_| ()).await.is_err());
    }
}
