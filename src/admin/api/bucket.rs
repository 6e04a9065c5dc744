//! The bucket that replicas have in common: how it is, and looking after it now.

use std::sync::Arc;
use std::time::Instant;

use http::{Response, StatusCode};
use serde_json::Value;

use super::super::AdminServices;
use super::super::body::AdminBody;
use super::super::shared::Shared;
use super::ApiRefusal;
use super::lines::{self, Lines};
use super::verify::TICK;
use crate::bucket::round::{Round, RoundError, RoundLine, RoundProgress};

/// How it is.
pub(super) fn show(services: &AdminServices) -> Result<Value, ApiRefusal> {
    shared(services).map(Shared::document)
}

/// Runs the round now, and tells of it as JSON lines. It ends early when nobody listens any more,
/// and with the shutdown.
pub(super) fn sync(services: &Arc<AdminServices>) -> Response<AdminBody> {
    let round = match shared(services) {
        Ok(shared) => shared.round.clone(),
        Err(refusal) => return refusal.into(),
    };
    if round.is_under_way() {
        let reason = RoundError::UnderWay.to_string();
        return ApiRefusal { status: StatusCode::CONFLICT, reason }.into();
    }
    let deserted = "nobody listens: the round through the bucket ends early";
    lines::tell(services, deserted, |_, lines| async move {
        let last = run(&round, &lines).await;
        lines.say(&last).await;
    })
}

async fn run(round: &Round, lines: &Lines) -> RoundLine {
    let mut last_progress: Option<Instant> = None;
    let mut tell = |progress: RoundProgress| {
        if last_progress.is_some_and(|last| last.elapsed() < TICK) {
            return;
        }
        last_progress = Some(Instant::now());
        lines.hint(&RoundLine::Progress(progress));
    };
    match Box::pin(round.run(&mut tell)).await {
        Ok(report) => RoundLine::Summary(report),
        Err(error) => RoundLine::Error(error.to_string()),
    }
}

fn shared(services: &AdminServices) -> Result<&Shared, ApiRefusal> {
    services.shared.as_ref().ok_or_else(|| ApiRefusal {
        status: StatusCode::NOT_FOUND,
        reason: "no bucket is configured ([bucket] url)".to_owned(),
    })
}
