//! Bytes passed through unread.

use std::time::Instant;

use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::Peer;
use super::answer::refusal;
use crate::gateway::ResponseBody;
use crate::log::{Outcome, RequestLine};
use crate::oci::ErrorCode;
use crate::upstream::DialError;

/// The answer to a CONNECT whose destination can't be had.
pub(super) fn failed(error: &DialError) -> (Outcome, Response<ResponseBody>) {
    let (outcome, status, code) = match error {
        DialError::NotPublic { .. } => (Outcome::Denied, StatusCode::FORBIDDEN, ErrorCode::Denied),
        DialError::Timeout { .. } => {
            (Outcome::Error, StatusCode::GATEWAY_TIMEOUT, ErrorCode::Upstream)
        }
        DialError::Resolve { .. } | DialError::NoAddress { .. } | DialError::Connect { .. } => {
            (Outcome::Error, StatusCode::BAD_GATEWAY, ErrorCode::Upstream)
        }
    };
    (outcome, refusal(status, code, &error.to_string()))
}

/// Passes bytes both ways once the client has its 200, and writes the tunnel's line at its end.
pub(super) fn spawn(peer: &Peer, upgrade: OnUpgrade, far: TcpStream, mut line: RequestLine) {
    let began = Instant::now();
    let shutdown = peer.shared.services.shutdown.clone();
    peer.shared.services.tasks.spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut near = TokioIo::new(upgraded);
        let mut far = super::idle::IdleStream::new(far, super::accept::IDLE);
        let passed = tokio::select! {
            passed = pass(&mut near, &mut far) => passed,
            // Nobody can tell when an opaque tunnel is between two exchanges.
            () = shutdown.cancelled() => 0,
        };
        line.outcome = Outcome::Tunnel;
        line.body_bytes = passed;
        line.elapsed = began.elapsed();
        line.emit();
    });
}

/// The bytes that went to the client; a broken tunnel is as good an end as any.
async fn pass<A, B>(near: &mut A, far: &mut B) -> u64
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    match tokio::io::copy_bidirectional(near, far).await {
        Ok((_, to_client)) => to_client,
        Err(error) => {
            tracing::debug!(%error, "a tunnel broke");
            0
        }
    }
}
