//! A question to a registry that somebody waits for no longer than `stale-after`, since what is
//! kept can be served without its answer. It goes on behind.
//!
//! A pull puts one question after the other. Where one was left waiting, the next about the same
//! repository are hardly waited for, until one is answered in time or some seconds have passed.

use std::time::Duration;

use entrepot_oci::{Authority, RepositoryName};
use moka::sync::Cache;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::memory::{NAME, Shares, table};
use crate::upstream::UpstreamError;

/// For how long a registry counts as late after it has been.
const STILL: Duration = Duration::from_secs(10);
/// Which part of `stale-after` one is waited for that was late a moment ago.
const LITTLE: u32 = 10;

/// Who may be late: a registry, about one of its repositories.
pub(super) type About = (Authority, Option<RepositoryName>);

/// Who has been late.
pub(super) struct Lateness(Cache<About, ()>);

impl Lateness {
    /// Nobody was yet.
    pub(super) fn new(shares: Shares) -> Self {
        Self(table(shares.small_table(), |_, ()| 2 * NAME).time_to_live(STILL).build())
    }

    /// Puts a question whose asker waits for `stale_after`: its answer is remembered, and its
    /// failure too, when nobody waits for it any more.
    pub(super) fn ask<V: Send + 'static>(
        &self,
        about: About,
        stale_after: Duration,
        tasks: &TaskTracker,
        asking: impl Future<Output = Result<V, UpstreamError>> + Send + 'static,
    ) -> Question<V> {
        let is_late = self.0.contains_key(&about);
        let patience = if is_late { stale_after / LITTLE } else { stale_after };
        Question { late: self.0.clone(), about, patience, running: tasks.spawn(asking) }
    }
}

/// A question under way.
pub(super) struct Question<V> {
    late: Cache<About, ()>,
    about: About,
    patience: Duration,
    running: JoinHandle<Result<V, UpstreamError>>,
}

impl<V> Question<V> {
    /// The answer, if it comes in time; else that it has not, as if the registry were unwell.
    pub(super) async fn in_time(&mut self) -> Result<Result<V, UpstreamError>, UpstreamError> {
        if let Ok(ended) = tokio::time::timeout(self.patience, &mut self.running).await {
            if self.late.contains_key(&self.about) {
                self.late.invalidate(&self.about);
            }
            return Ok(ended.unwrap_or_else(|_| Err(self.stopped())));
        }
        self.late.insert(self.about.clone(), ());
        Err(UpstreamError::Late { authority: self.about.0.clone(), after: self.patience })
    }

    /// The answer, whenever it comes.
    pub(super) async fn answer(mut self) -> Result<V, UpstreamError> {
        let ended = (&mut self.running).await;
        ended.unwrap_or_else(|_| Err(self.stopped()))
    }

    fn stopped(&self) -> UpstreamError {
        let reason = "the question was given up".to_owned();
        UpstreamError::Exchange { authority: self.about.0.clone(), reason }
    }
}
