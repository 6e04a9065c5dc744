//! What the fuzz targets (`src/bin/`) share: a bound on memory, inputs that come in parts, streams
//! that come in pieces, a clock that does not wait.

use std::alloc::System;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use cap::Cap;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

/// The most that may be allocated at a time, by all that a target does: inputs have 64 KiB at most
/// (`scripts/fuzz`), so that whoever needs this much believes in a length that was only claimed.
/// Going beyond it is a crash.
const MOST_MEMORY: usize = 128 * 1024 * 1024;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, MOST_MEMORY);

/// The first lines of an input, and the rest of it; `None` where there are too few.
#[must_use]
pub fn parts<const N: usize>(text: &str) -> Option<[&str; N]> {
    text.splitn(N, '\n').collect::<Vec<_>>().try_into().ok()
}

/// Header fields, one a line; what is none is left out.
#[must_use]
pub fn fields(text: &str) -> HeaderMap {
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.trim().as_bytes()).ok()?))
    };
    let mut fields = HeaderMap::new();
    for (name, value) in text.lines().filter_map(field).take(100) {
        fields.append(name, value);
    }
    fields
}

/// Runs a future to its end. Its clock goes on by itself while nothing else does.
pub fn run<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: RefCell<Runtime> = RefCell::new(
            Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
        );
    }
    RUNTIME.with_borrow(|runtime| runtime.block_on(future))
}

/// The other side of a connection: what it sends comes in pieces of a given size, and then ends;
/// what it is sent it takes, and forgets.
pub struct Peer {
    left: Vec<u8>,
    at: usize,
    piece: usize,
}

impl Peer {
    /// One that sends `bytes`, so many at a time.
    #[must_use]
    pub fn new(bytes: &[u8], piece: usize) -> Self {
        Self { left: bytes.to_vec(), at: 0, piece: piece.max(1) }
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let end = self.left.len().min(self.at + self.piece.min(buf.remaining()));
        buf.put_slice(&self.left[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What stands for a password in inputs.
pub const SECRET: &str = "hunter2hunter2";

/// Whether [`SECRET`] is in an input, and only where a password is.
#[must_use]
pub fn is_secret_alone(text: &str) -> bool {
    let mut before = text.split(SECRET).collect::<Vec<_>>();
    before.pop();
    let is_password = |before: &&str| {
        let line = before.rsplit('\n').next().unwrap_or_default();
        line == "password = \"" || line == "proxy = \"http://user:"
    };
    // Not within a text of several lines.
    let is_plain = !text.contains("\"\"\"") && !text.contains("'''");
    is_plain && !before.is_empty() && before.iter().all(is_password)
}
