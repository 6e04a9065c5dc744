//! `POST /api/v1/verify`: hash everything that is kept, while clients are served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use entrepot_cache::Pace;
use http::{Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::AdminServices;
use super::super::body::AdminBody;
use super::super::pages::refused;
use super::super::verification::{VerificationLine, verify};
use super::lines::{self, Lines};

/// How often progress is told at most.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// Who verifies, or imports: one at a time, since the disk is the clients'.
#[derive(Debug, Clone)]
pub(crate) struct OneAtATime(Arc<Semaphore>);

impl Default for OneAtATime {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl OneAtATime {
    /// The turn, unless somebody has it.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_owned().ok()
    }
}

/// Begins, and tells of it as JSON lines. It ends early when nobody listens any more, and with the
/// shutdown.
pub(super) fn start(services: &Arc<AdminServices>) -> Response<AdminBody> {
    let Some(turn) = services.queues.verification.take() else {
        let reason = "a verification is under way already";
        return refused(StatusCode::CONFLICT, reason).map(Into::into);
    };
    let deserted = "nobody listens: the verification ends early";
    lines::tell(services, deserted, |services, lines| async move {
        tracing::info!("verifying what is kept");
        let last = run(&services, &lines).await;
        // Before it is told: who reads that may begin another.
        drop(turn);
        lines.say(&last).await;
    })
}

async fn run(services: &AdminServices, lines: &Lines) -> VerificationLine {
    let mut last_progress: Option<Instant> = None;
    let tell = |told: VerificationLine| {
        if matches!(told, VerificationLine::Progress(_)) {
            if last_progress.is_some_and(|last| last.elapsed() < TICK) {
                return;
            }
            last_progress = Some(Instant::now());
        }
        // A listener that is slow misses steps of the progress; the summary has all that counts.
        lines.hint(&told);
    };
    match verify(&services.store, Pace::Gentle, tell).await {
        Ok(findings) => {
            let damaged = findings.damaged.len();
            tracing::info!(objects = findings.objects, damaged, "what is kept was verified");
            VerificationLine::Summary(findings)
        }
        Err(error) => {
            tracing::error!(%error, "what is kept could not be verified");
            VerificationLine::Error(error.to_string())
        }
    }
}
