//! What is counted, for `/metrics` and for the statistics of the admin API.
//!
//! Everything that is counted on a request's way is an atomic addition: no lock, no allocation
//! (what is remembered of its end takes one short lock). Labels come from closed sets, or are names
//! of registries, of which so many are told apart and no more. What others know already (the store,
//! the gateway) is asked when somebody looks, by `admin::scrape`.
//!
//! - `registries`: counters by registry
//! - `recent`: the last requests, and what is asked for most
//! - `servings`: what each client was served lately
//! - `histogram`: how long requests take
//! - `collect`: these as families with names and words
//! - `exposition`: a page of families, as OpenMetrics or as the older text format
//! - `process`: what the system says of this process

mod collect;
mod exposition;
mod histogram;
mod process;
mod recent;
mod registries;
mod servings;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};

use crate::log::{Outcome, RequestLine};
pub(crate) use exposition::{Families, Flavour, exposed};
use histogram::Histogram;
use recent::Recent;
pub(crate) use recent::{Answered, Demand, MOST_REQUESTS};
use registries::RegistryTable;
pub(crate) use registries::{Counters, HeldBack, RegistrySummary};
pub(crate) use servings::Serving;
use servings::Servings;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// One more.
    pub(crate) fn add_one(&self) {
        self.add(1);
    }

    /// So many more.
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many by now.
    #[must_use]
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters; cheap to clone, and all clones are the same counters.
#[derive(Debug, Clone)]
pub struct Metrics {
    parts: Arc<MetricsInner>,
}

#[derive(Debug)]
struct MetricsInner {
    started: SystemTime,
    registries: RegistryTable,
    recent: Recent,
    servings: Servings,
    sent_bytes: [Count; Outcome::ALL.len()],
    durations: [Histogram; Outcome::ALL.len()],
    connections: Arc<AtomicI64>,
    tunnels: Arc<AtomicI64>,
    resumed: Count,
    mismatches: Count,
    rescued: Count,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(std::iter::empty())
    }
}

impl Metrics {
    /// Counters that are all 0. These registries have their places among those that are told
    /// apart, whatever others are seen before them.
    pub fn new(known: impl Iterator<Item = String>) -> Self {
        let parts = MetricsInner {
            started: SystemTime::now(),
            registries: RegistryTable::new(known),
            recent: Recent::default(),
            servings: Servings::default(),
            sent_bytes: Default::default(),
            durations: Default::default(),
            connections: Arc::default(),
            tunnels: Arc::default(),
            resumed: Count::default(),
            mismatches: Count::default(),
            rescued: Count::default(),
        };
        Self { parts: Arc::new(parts) }
    }

    /// When counting began.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.parts.started
    }

    /// A request has been answered, all of it.
    pub fn answered(&self, line: &Arc<RequestLine>) {
        let counters = self.parts.registries.of_request(line.subject.registry());
        counters.answered(line);
        if let Some(histogram) = self.parts.durations.get(line.outcome as usize) {
            histogram.observe(line.elapsed);
        }
        self.parts.recent.note(line);
        self.parts.servings.note(line);
    }

    /// What a client was served lately, the latest first.
    #[must_use]
    pub(crate) fn servings(&self, client: IpAddr) -> Vec<Serving> {
        self.parts.servings.of(client)
    }

    /// Bytes of a body have gone to a client.
    pub fn sent(&self, outcome: Outcome, bytes: u64) {
        if let Some(count) = self.parts.sent_bytes.get(outcome as usize) {
            count.add(bytes);
        }
    }

    /// An upstream has answered a request that was about `registry`; without a status it has not.
    ///
    /// What is not known from clients' requests (a token server) is counted as `other`.
    pub fn asked(&self, registry: &str, method: &Method, status: Option<StatusCode>) {
        self.parts.registries.of_upstream(registry).asked(method, status);
    }

    /// A request about `registry` was not sent, because of what its last answers were.
    pub fn held_back(&self, registry: &str, why: HeldBack) {
        self.parts.registries.of_upstream(registry).held_back(why);
    }

    /// Where bytes are counted that come from upstreams about `registry`.
    #[must_use]
    pub fn of_upstream(&self, registry: &str) -> Arc<Counters> {
        self.parts.registries.of_upstream(registry).clone()
    }

    /// A client's connection, counted until it is dropped.
    #[must_use]
    pub fn connection(&self) -> Open {
        Open::new(&self.parts.connections)
    }

    /// A tunnel, counted until it is dropped.
    #[must_use]
    pub fn tunnel(&self) -> Open {
        Open::new(&self.parts.tunnels)
    }

    /// A broken download goes on.
    pub fn resumed(&self) {
        self.parts.resumed.add_one();
    }

    /// An upstream has delivered other bytes than the digest names.
    pub fn mismatched(&self) {
        self.parts.mismatches.add_one();
    }

    /// A body goes on from the registry because the store has failed.
    pub fn rescued(&self) {
        self.parts.rescued.add_one();
    }

    /// The last requests, from this number on, oldest first, as many as are kept.
    #[must_use]
    pub fn requests_since(&self, number: u64) -> Vec<Answered> {
        self.parts.recent.since(number)
    }

    /// The last refusals and failures, oldest first, as many as are kept.
    #[must_use]
    pub fn last_errors(&self) -> Vec<Answered> {
        self.parts.recent.errors()
    }

    /// The repositories for which most bytes went out, at most so many, most first.
    #[must_use]
    pub fn most_wanted(&self, limit: usize) -> Vec<Demand> {
        self.parts.recent.most_wanted(limit)
    }

    /// What was counted of each registry that is configured or was asked for.
    #[must_use]
    pub fn by_registry(&self) -> Vec<RegistrySummary> {
        self.parts.registries.summaries()
    }

    /// The sums that people ask for.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut summary = Summary { uptime: self.uptime(), ..Summary::default() };
        for (outcome, bytes) in Outcome::ALL.into_iter().zip(&self.parts.sent_bytes) {
            let requests = self.parts.registries.answered(outcome);
            summary.requests += requests;
            summary.sent_bytes += bytes.value();
            if outcome.is_from_store() {
                summary.hits += requests;
                summary.saved_bytes += bytes.value();
            }
            if outcome.is_from_store() || outcome == Outcome::Miss {
                summary.cacheable += requests;
            }
        }
        summary.received_bytes = self.parts.registries.received();
        summary
    }

    fn uptime(&self) -> Duration {
        self.parts.started.elapsed().unwrap_or_default()
    }
}

/// Sums since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Since when.
    pub uptime: Duration,
    /// Requests answered, whichever way.
    pub requests: u64,
    /// Those for something that can be kept.
    pub cacheable: u64,
    /// Those of them that needed no transfer from an upstream of their own.
    pub hits: u64,
    /// Bytes of bodies that went to clients.
    pub sent_bytes: u64,
    /// Those of them that needed no transfer of their own.
    pub saved_bytes: u64,
    /// Bytes of bodies that came from upstreams.
    pub received_bytes: u64,
}

impl Summary {
    /// Which part of what can be kept was; none before the first request.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio is told to three digits")]
    pub fn hit_ratio(&self) -> Option<f64> {
        (self.cacheable > 0).then(|| self.hits as f64 / self.cacheable as f64)
    }
}

/// One of something that is counted as long as it is there.
#[derive(Debug)]
pub struct Open(Arc<AtomicI64>);

impl Open {
    fn new(count: &Arc<AtomicI64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Subject;
    use entrepot_oci::{Registry, Route};

    fn line(outcome: Outcome, registry: &str) -> Arc<RequestLine> {
        let registry = Registry::at(&format!("{registry}:443").parse().unwrap());
        let subject = Subject::of(registry, Route::Ping, "/v2/");
        Arc::new(RequestLine::new(outcome, Method::GET, subject, [10, 0, 0, 7].into()))
    }

    #[test]
    fn what_needed_no_transfer_is_saved() {
        let metrics = Metrics::default();
        assert_eq!(metrics.summary().hit_ratio(), None);
        for outcome in [Outcome::Hit, Outcome::Miss, Outcome::Joined, Outcome::Stale] {
            metrics.sent(outcome, 10);
            metrics.answered(&line(outcome, "docker.io"));
        }
        metrics.answered(&line(Outcome::Denied, "docker.io"));
        let summary = metrics.summary();
        assert_eq!((summary.requests, summary.cacheable, summary.hits), (5, 4, 3));
        assert_eq!((summary.sent_bytes, summary.saved_bytes), (40, 30));
        assert_eq!(summary.hit_ratio(), Some(0.75));
    }

    #[test]
    fn every_outcome_has_its_place() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
            assert_eq!(outcome.label(), outcome.as_str().to_lowercase());
        }
    }

    #[test]
    fn what_is_over_is_not_open() {
        let metrics = Metrics::default();
        let (first, second) = (metrics.connection(), metrics.clone().connection());
        drop(first);
        assert_eq!(metrics.parts.connections.load(Ordering::Relaxed), 1);
        drop(second);
        assert_eq!(metrics.parts.connections.load(Ordering::Relaxed), 0);
    }
}
