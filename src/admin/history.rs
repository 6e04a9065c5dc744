//! How it went, minute by minute, since the process began or for a day.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, Summary, Sums};

/// What a point covers.
pub(super) const STEP: Duration = Duration::from_mins(1);
/// Points kept: a day.
const MOST: usize = 24 * 60;

/// What happened within a minute, or in as much of it as is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    /// When it began.
    pub(super) at: SystemTime,
    /// Requests answered.
    pub(super) requests: u64,
    /// What was served of content, and what was fetched for it.
    pub(super) sums: Sums,
    /// Bytes that went to clients.
    pub(super) sent_bytes: u64,
    /// Bytes that came from upstreams.
    pub(super) received_bytes: u64,
}

/// The points, and the minute that is not over; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct History {
    metrics: Metrics,
    past: Arc<Mutex<Past>>,
}

#[derive(Debug)]
struct Past {
    points: VecDeque<Point>,
    /// The sums when the last point ended.
    before: Summary,
    since: SystemTime,
}

impl History {
    /// One that begins now.
    #[must_use]
    pub(crate) fn new(metrics: Metrics) -> Self {
        let before = metrics.summary();
        let past = Past { points: VecDeque::new(), before, since: SystemTime::now() };
        Self { metrics, past: Arc::new(Mutex::new(past)) }
    }

    /// Adds a point each minute, until the shutdown.
    pub(crate) async fn keep(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval_at(Instant::now() + STEP, STEP);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.turn();
        }
    }

    /// The points, oldest first; the last one is that of the minute under way.
    pub(super) fn points(&self) -> Vec<Point> {
        let past = self.past.lock();
        past.points.iter().copied().chain([past.point(&self.metrics.summary())]).collect()
    }

    /// The minute under way.
    pub(super) fn now(&self) -> Point {
        self.past.lock().point(&self.metrics.summary())
    }

    fn turn(&self) {
        let summary = self.metrics.summary();
        let mut past = self.past.lock();
        let point = past.point(&summary);
        if past.points.len() >= MOST {
            past.points.pop_front();
        }
        past.points.push_back(point);
        (past.before, past.since) = (summary, SystemTime::now());
    }
}

impl Past {
    fn point(&self, now: &Summary) -> Point {
        let before = &self.before;
        Point {
            at: self.since,
            requests: now.requests.saturating_sub(before.requests),
            sums: now.sums.since(&before.sums),
            sent_bytes: now.sent_bytes.saturating_sub(before.sent_bytes),
            received_bytes: now.received_bytes.saturating_sub(before.received_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use entrepot_oci::{Registry, Route};
    use http::Method;

    use super::*;
    use crate::log::{ContentKind, Outcome, RequestLine, Subject};

    fn serve(metrics: &Metrics, bytes: u64) {
        let path = "/v2/a/manifests/1";
        let registry = Registry::at(&"ghcr.io:443".parse().unwrap());
        let subject = Subject::of(registry, Route::parse(path, None), path);
        let line = RequestLine::new(Outcome::Hit, Method::GET, subject, [10, 0, 0, 7].into());
        metrics.answering(&line, None).sent(Outcome::Hit, bytes);
    }

    #[test]
    fn a_point_is_what_came_since_the_one_before() {
        let metrics = Metrics::default();
        serve(&metrics, 5);
        let history = History::new(metrics.clone());
        serve(&metrics, 10);
        assert_eq!(history.now().sums.saved_bytes(), 10, "what was before does not count");
        history.turn();
        metrics.asking("ghcr.io", None, Some(ContentKind::Blob)).received(7);
        let points = history.points();
        let told: Vec<_> =
            points.iter().map(|one| (one.sent_bytes, one.sums.saved_bytes())).collect();
        assert_eq!(told, [(10, 10), (0, -7)]);
    }

    #[test]
    fn a_day_is_kept_and_no_more() {
        let history = History::new(Metrics::default());
        (0..MOST + 5).for_each(|_| history.turn());
        assert_eq!(history.points().len(), MOST + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn every_minute_makes_a_point_until_the_shutdown() {
        let (history, shutdown) = (History::new(Metrics::default()), CancellationToken::new());
        let keeping = TaskTracker::new().spawn(history.clone().keep(shutdown.clone()));
        tokio::time::sleep(STEP * 3 + STEP / 2).await;
        assert_eq!(history.points().len(), 4);
        shutdown.cancel();
        keeping.await.unwrap();
    }
}
