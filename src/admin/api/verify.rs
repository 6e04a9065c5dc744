//! `POST /api/v1/verify`: hash everything that is kept, while clients are served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use entrepot_cache::Pace;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::super::Services;
use super::super::body::AdminBody;
use super::super::pages::refused;
use super::super::verification::{Going, Told, verify};

/// Lines that wait for a slow listener; progress beyond that is not told.
pub(super) const WAITING: usize = 64;
/// How often progress is told at most.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// Who verifies, or imports: one at a time, since the disk is the clients'.
#[derive(Debug, Clone)]
pub struct Turn(Arc<Semaphore>);

impl Default for Turn {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Turn {
    /// The turn, unless somebody has it.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_owned().ok()
    }
}

/// Begins, and tells of it as JSON lines. It ends early when nobody listens any more, and with the
/// shutdown.
pub(super) fn start(services: &Arc<Services>) -> Response<AdminBody> {
    let Some(turn) = services.turn.take() else {
        let reason = "a verification is under way already";
        return refused(StatusCode::CONFLICT, reason).map(Into::into);
    };
    let (lines, body) = mpsc::channel(WAITING);
    let services = services.clone();
    services.tasks.clone().spawn(async move {
        tracing::info!("verifying what is kept");
        let is_deserted = tokio::select! {
            () = run(&services, &lines) => false,
            () = lines.closed() => true,
            () = services.shutdown.cancelled() => false,
        };
        // Before it is told: who reads that may begin another.
        drop(turn);
        if is_deserted {
            tracing::info!("nobody listens: the verification ends early");
        }
    });
    as_lines(body)
}

/// An answer of JSON lines as they come.
pub(super) fn as_lines(lines: mpsc::Receiver<Bytes>) -> Response<AdminBody> {
    let mut response = Response::new(AdminBody::Lines(lines));
    let media_type = HeaderValue::from_static("application/jsonl");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

async fn run(services: &Services, lines: &mpsc::Sender<Bytes>) {
    let mut last_progress: Option<Instant> = None;
    let tell = |told: Told| {
        if matches!(told, Told::Progress(_)) {
            if last_progress.is_some_and(|last| last.elapsed() < TICK) {
                return Going::On;
            }
            last_progress = Some(Instant::now());
        }
        // A listener that is slow misses steps of the progress; the summary has all that counts.
        match line(&told).map(|line| lines.try_send(line)) {
            Some(Err(mpsc::error::TrySendError::Closed(_))) => Going::Off,
            _ => Going::On,
        }
    };
    let last = match verify(&services.store, Pace::Gentle, tell).await {
        Ok(findings) => {
            let damaged = findings.damaged.len();
            tracing::info!(objects = findings.objects, damaged, "what is kept was verified");
            Told::Summary(findings)
        }
        Err(error) => {
            tracing::error!(%error, "what is kept could not be verified");
            Told::Error(error.to_string())
        }
    };
    if let Some(line) = line(&last) {
        // Whoever has left meanwhile has heard enough.
        let _ = lines.send(line).await;
    }
}

/// One of them.
pub(super) fn line(told: &impl Serialize) -> Option<Bytes> {
    let text = serde_json::to_string(told).ok()?;
    Some(Bytes::from(format!("{text}\n")))
}
