//! How long a client is waited for.
//!
//! Never for ever, but where it is the client that waits: while its answer is awaited or goes out,
//! a client has nothing to say, and how long that may take is the configuration's to say.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// How long a connection may lie idle before a request begins. Go's clients keep theirs for 90 s,
/// and do not repeat a POST that met a closing connection.
const REQUEST: Duration = Duration::from_secs(95);
/// From a head's first byte to its end, however the bytes come.
const HEAD: Duration = Duration::from_secs(30);

/// What the client's next bytes would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The beginning of a request.
    Request,
    /// More of a head.
    Head,
    /// More of a body.
    Body,
    /// None of this: the client waits for its answer.
    Answer,
}

/// The clocks of one connection.
pub(super) struct Patience {
    /// How long a client may neither send a body's next byte nor take one.
    silence: Duration,
    /// What was awaited last, of which request.
    awaited: (Awaited, u64),
    read_due: Option<Instant>,
    write_due: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Patience {
    pub(super) fn new(silence: Duration) -> Self {
        let timer = Box::pin(tokio::time::sleep(silence));
        let awaited = (Awaited::Request, 0);
        Self { silence, awaited, read_due: None, write_due: None, timer }
    }

    /// Judges a read at a moment when this was awaited, of the request of that number: one that
    /// must wait fails with [`io::ErrorKind::TimedOut`] when it has waited too long.
    pub(super) fn with_read(
        &mut self,
        cx: &mut Context<'_>,
        awaited: (Awaited, u64),
        result: Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        // A piece of a body is worth another wait. A head's clock runs on.
        let is_moved = result.is_ready() && awaited.0 == Awaited::Body;
        if is_moved || awaited != self.awaited {
            self.awaited = awaited;
            self.read_due = None;
        }
        let limit = match awaited.0 {
            Awaited::Request => REQUEST,
            Awaited::Head => HEAD,
            Awaited::Body => self.silence,
            Awaited::Answer => return result,
        };
        if result.is_pending() {
            self.read_due.get_or_insert_with(|| Instant::now() + limit);
            return self.out_of_patience(cx);
        }
        result
    }

    /// Judges a write: one that must wait fails with [`io::ErrorKind::TimedOut`] in the end.
    pub(super) fn with_write<R>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if result.is_ready() {
            self.write_due = None;
            return result;
        }
        self.write_due.get_or_insert_with(|| Instant::now() + self.silence);
        self.out_of_patience(cx)
    }

    /// Fails when one of the clocks has run out, and wakes the task when one does.
    fn out_of_patience<R>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        while let Some(due) = self.read_due.into_iter().chain(self.write_due).min() {
            // A timer that is set for earlier needs no other: it is looked at again when it fires.
            if self.timer.deadline() > due || self.timer.is_elapsed() {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        Poll::Pending
    }
}
