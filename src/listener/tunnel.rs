//! Bytes passed through unread.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use entrepot_oci::ErrorCode;
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::answer::refusal;
use super::idle::IdleStream;
use super::{Peer, http as connection};
use crate::gateway::ResponseBody;
use crate::log::{Outcome, RequestLine};
use crate::upstream::{DialError, Link, far_address};
use crate::words::chain;

/// How long nothing may come through a tunnel during the drain before it is taken for done.
const SILENCE: Duration = Duration::from_secs(1);

/// The answer to a CONNECT whose destination can't be had.
pub(super) fn failed(error: &DialError) -> (Outcome, Response<ResponseBody>) {
    let (outcome, status, code) = match error {
        DialError::NotPublic { .. } | DialError::Metadata { .. } | DialError::NotFound { .. } => {
            (Outcome::Denied, StatusCode::FORBIDDEN, ErrorCode::Denied)
        }
        DialError::Own { .. } => (Outcome::Denied, StatusCode::LOOP_DETECTED, ErrorCode::Denied),
        DialError::Offline { .. } => {
            (Outcome::Denied, StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Denied)
        }
        error if error.is_timeout() => {
            (Outcome::Error, StatusCode::GATEWAY_TIMEOUT, ErrorCode::Upstream)
        }
        DialError::Resolve { .. }
        | DialError::NoAddress { .. }
        | DialError::Connect { .. }
        | DialError::Timeout { .. }
        | DialError::Proxy(_) => (Outcome::Error, StatusCode::BAD_GATEWAY, ErrorCode::Upstream),
    };
    (outcome, refusal(status, code, &error.to_string()))
}

/// Passes bytes both ways once the client has its 200, and writes the tunnel's line at its end.
pub(super) fn spawn(peer: &Peer, upgrade: OnUpgrade, far: Link, line: RequestLine) {
    let began = Instant::now();
    let peer = peer.clone();
    peer.shared.services.tasks.clone().spawn(async move {
        let _open = peer.metrics().tunnel();
        let near = match upgrade.await {
            Ok(near) => near,
            Err(error) => return never_opened(&peer, line, &error),
        };
        let Some(near) = connection::unwrapped(near) else {
            return;
        };
        let address = far_address(&far);
        let passed = Arc::<Passed>::default();
        let silence = peer.shared.tunnel_silence;
        let mut near = IdleStream::new(near, silence);
        let far = IdleStream::new(far, silence);
        let mut far = Counted { inner: far, passed: passed.clone() };
        tokio::select! {
            ended = tokio::io::copy_bidirectional(&mut near, &mut far) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a tunnel broke");
                }
            }
            () = falls_silent(&peer.shared.services.shutdown, &passed) => {}
        }
        let body_bytes = passed.back.load(Ordering::Relaxed);
        if let Some(address) = address.filter(|_| passed.is_unanswered()) {
            // The client tries again by itself, and then elsewhere.
            peer.shared.services.dialer.set_back(address);
        }
        peer.metrics().tunnelled(body_bytes);
        peer.finish(RequestLine { body_bytes, elapsed: began.elapsed(), ..line });
    });
}

/// The line of a CONNECT whose client left before it was answered.
pub(super) fn never_opened(peer: &Peer, line: RequestLine, error: &hyper::Error) {
    let reason = format!("the client left before the tunnel was open: {}", chain(error));
    peer.finish(line.with(Outcome::Error).because(Some(reason)));
}

/// Resolves when the shutdown has begun and nothing moves any more: nobody can tell otherwise when
/// an opaque tunnel is between two exchanges.
async fn falls_silent(shutdown: &CancellationToken, passed: &Passed) {
    shutdown.cancelled().await;
    let mut before = None;
    loop {
        let now = Some(passed.back.load(Ordering::Relaxed));
        if now == before {
            return;
        }
        before = now;
        tokio::time::sleep(SILENCE).await;
    }
}

/// How many bytes have gone through a tunnel.
#[derive(Default)]
struct Passed {
    forth: AtomicU64,
    back: AtomicU64,
}

impl Passed {
    /// Whether the far side has heard something and said nothing.
    fn is_unanswered(&self) -> bool {
        self.forth.load(Ordering::Relaxed) > 0 && self.back.load(Ordering::Relaxed) == 0
    }
}

/// Counts the bytes that go to the far side and come from it.
struct Counted<T> {
    inner: T,
    passed: Arc<Passed>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.passed.back.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = wrote {
            self.passed.forth.fetch_add(count as u64, Ordering::Relaxed);
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
