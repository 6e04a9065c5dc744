//! Pulls as events: who pulled which image, how much of it came from the cache, what it cost.
//!
//! A pull is many requests: of a tag, of manifests by digest, of blobs, by one client, with one
//! program, for one repository. Whoever answers requests notes here when one begins and when it
//! ends, which is a push onto a list and no more; four times a second a task looks at what has come
//! and puts together what belongs together. When a pull is over (all that its manifest names was
//! served, or its client has been silent for some seconds with nothing under way) it is told: as a
//! line of the JSON log, to those who watch, and in the sums by client.
//!
//! Nothing here is on a request's way, and nothing grows without bound: what is noted, the requests
//! of one client, the clients, and what is remembered of pulls that are over.
//!
//! - `noted`: requests, as they are noted
//! - `grouping`: which requests are one pull
//! - `tracker`: the pulls under way
//! - `event`: a pull that is over
//! - `history`: the last ones, and the sums by client

mod event;
mod grouping;
mod history;
mod noted;
mod tracker;

use std::sync::Arc;
use std::time::Duration;

use entrepot_cache::Store;
use entrepot_oci::{Registry, Route};
use http::{Request, header};
use tokio_util::sync::CancellationToken;

pub(crate) use event::{Outcome as PullOutcome, PullEvent, Puller};
pub(crate) use history::{ClientSums, MOST_PULLS};
pub(crate) use noted::{Asker, Asking};

use crate::log::Format;
use crate::memory::Shares;
use crate::metrics::Metrics;
use history::History;
use noted::Notes;
use tracker::Tracker;

/// How often it is looked what has come.
const LOOK: Duration = Duration::from_millis(250);

/// The pulls of all clients; cheap to clone.
#[derive(Clone)]
pub(crate) struct Pulls {
    parts: Arc<Parts>,
}

struct Parts {
    notes: Arc<Notes>,
    history: Arc<History>,
    /// Held while it looks, by one at a time.
    tracker: tokio::sync::Mutex<Tracker>,
}

impl Pulls {
    /// None yet. What their manifests name is read in `store`; they are counted in `metrics`, and
    /// told in the log where that is for machines.
    #[must_use]
    pub(crate) fn new(store: Store, metrics: Metrics, shares: Shares, format: Format) -> Self {
        let history = Arc::new(History::new(metrics.clone(), format));
        let tracker = Tracker::new(store, metrics, history.clone(), shares);
        let parts = Parts { notes: Arc::default(), history, tracker: tracker.into() };
        Self { parts: Arc::new(parts) }
    }

    /// Notes a request for content of `registry`, until what this returns is told of its end or
    /// dropped; `None` for what is no part of a pull.
    #[must_use]
    pub(crate) fn asks<B>(
        &self,
        asker: &Asker,
        registry: Registry,
        route: &Route,
        request: &Request<B>,
    ) -> Option<Asking> {
        // The pull is told by the replica whose client makes it.
        if asker.is_replica {
            return None;
        }
        let is_part = request.headers().contains_key(header::RANGE);
        Asking::begin(&self.parts.notes, asker, registry, route, request.method(), is_part)
    }

    /// An image was brought in ahead of time, or not.
    pub(crate) fn ahead(&self, event: PullEvent) {
        self.parts.history.add(event);
    }

    /// Puts together what has come, until the shutdown.
    pub(crate) async fn keep(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.look(false).await;
        }
    }

    /// Tells of all pulls that nothing of is under way: the process ends.
    pub(crate) async fn finish(&self) {
        self.look(true).await;
    }

    async fn look(&self, is_end: bool) {
        let noted = self.parts.notes.take();
        self.parts.tracker.lock().await.turn(noted, is_end).await;
    }

    /// The pulls kept whose number is this or larger, oldest first.
    #[must_use]
    pub(crate) fn since(&self, number: u64) -> Vec<Arc<PullEvent>> {
        self.parts.history.since(number)
    }

    /// What each client has pulled since the start, most bytes first.
    #[must_use]
    pub(crate) fn clients(&self) -> Vec<ClientSums> {
        self.parts.history.clients()
    }
}

#[cfg(test)]
mod tests;
