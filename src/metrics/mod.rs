//! What is counted, for `/metrics` and for the statistics of the admin API.
//!
//! Everything that is counted on a request's way is an atomic addition: no lock, no allocation
//! (what is remembered of its end takes one short lock). Labels come from closed sets, or are names
//! of registries, of which so many are told apart and no more. What others know already (the store,
//! the gateway) is asked when somebody looks, by `admin::scrape`.
//!
//! - `registries`: counters by registry
//! - `tally`: what was served and what was fetched for it
//! - `networks`: tallies by network of clients
//! - `latency`: how long registries take
//! - `bucket`: what is counted of the fleet's bucket
//! - `behalf`: on whose behalf upstreams are asked
//! - `answering`: a request that is being answered
//! - `peers`: what is counted of other replicas
//! - `recent`: the last requests, and what is asked for most
//! - `failures`: what goes wrong, each kind of it once
//! - `servings`: what each client was served lately
//! - `histogram`: how long requests take
//! - `collect`: these as families with names and words
//! - `exposition`: a page of families, as OpenMetrics or as the older text format
//! - `process`: what the system says of this process

mod answering;
mod behalf;
mod bucket;
mod collect;
mod exposition;
mod failures;
mod histogram;
mod latency;
mod networks;
mod peers;
mod process;
mod recent;
mod registries;
mod servings;
mod tally;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::log::{ContentKind, Outcome, RequestLine};
pub use answering::Answering;
pub(crate) use behalf::Behalf;
pub(crate) use bucket::{BucketAnswer, BucketMetrics, BucketOperation};
pub(crate) use exposition::{Families, Flavour, exposed};
use failures::Failures;
pub(crate) use failures::{FailureGroup, Side};
use histogram::{Histogram, REQUESTS};
pub(crate) use networks::Network;
use networks::Networks;
use peers::PeerCounts;
pub(crate) use peers::PeerOutcome;
use recent::Recent;
pub(crate) use recent::{Answered, Demand, MOST_REQUESTS};
use registries::RegistryTable;
pub(crate) use registries::{HeldBack, RegistrySummary};
pub(crate) use tally::{Sums, Tally};

/// Kinds of requests whose durations are told apart: those of content, and all others.
const KINDS: [&str; 3] = ["manifest", "blob", "other"];
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
    networks: Networks,
    failures: Failures,
    recent: Recent,
    durations: [[Histogram; Outcome::ALL.len()]; KINDS.len()],
    servings: Servings,
    peers: PeerCounts,
    connections: Arc<AtomicI64>,
    tunnels: Arc<AtomicI64>,
    resumed: Count,
    mismatches: Count,
    rescued: Count,
    bucket: BucketMetrics,
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
            networks: Networks::default(),
            failures: Failures::default(),
            recent: Recent::default(),
            durations: std::array::from_fn(|_| std::array::from_fn(|_| Histogram::new(REQUESTS))),
            servings: Servings::default(),
            peers: PeerCounts::default(),
            connections: Arc::default(),
            tunnels: Arc::default(),
            resumed: Count::default(),
            mismatches: Count::default(),
            rescued: Count::default(),
            bucket: BucketMetrics::default(),
        };
        Self { parts: Arc::new(parts) }
    }

    /// When counting began.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.parts.started
    }

    /// A request has been answered, all of it, with no body that was counted.
    pub fn answered(&self, line: &Arc<RequestLine>) {
        self.counting(line).answered(line);
    }

    /// A request that is being answered to a client that counts in no network.
    #[must_use]
    pub fn counting(&self, line: &RequestLine) -> Answering {
        self.answering(line, None)
    }

    /// A request that is being answered to a client of `network`.
    pub(crate) fn answering(&self, line: &RequestLine, network: Option<Arc<Tally>>) -> Answering {
        let registries = &self.parts.registries;
        let counters = match (line.subject.registry(), line.outcome) {
            // Whoever can't be asked may be no registry, but a typing mistake.
            (Some(name), Outcome::Error | Outcome::Denied) => registries.of_upstream(name),
            (name, _) => registries.of_request(name),
        };
        let counters = counters.clone();
        Answering::new(self.clone(), counters, network, line)
    }

    /// Bytes have gone to a client through a tunnel.
    pub fn tunnelled(&self, bytes: u64) {
        self.parts.registries.of_request(None).sent(Outcome::Tunnel, bytes);
    }

    fn note(&self, line: &Arc<RequestLine>) {
        let kind = line.subject.content().map_or(KINDS.len() - 1, |kind| kind as usize);
        let histogram = self.parts.durations.get(kind).and_then(|of| of.get(line.outcome as usize));
        if let Some(histogram) = histogram {
            histogram.observe(line.elapsed);
        }
        self.parts.recent.note(line);
        self.parts.failures.note(line);
        self.parts.servings.note(line);
    }

    /// What a client was served lately, the latest first.
    #[must_use]
    pub(crate) fn servings(&self, client: IpAddr) -> Vec<Serving> {
        self.parts.servings.of(client)
    }

    /// Where is counted what a client is served; a lock.
    pub(crate) fn network(&self, client: IpAddr) -> Arc<Tally> {
        self.parts.networks.of(Some(client))
    }

    /// On whose behalf upstreams are asked for what a client wants of `registry`, whoever answers;
    /// `None`: the operator.
    pub(crate) fn asking(
        &self,
        registry: &str,
        client: Option<IpAddr>,
        content: Option<ContentKind>,
    ) -> Behalf {
        let registries = &self.parts.registries;
        let counters = registries.of_upstream(registry).clone();
        let network = content.map(|_| self.parts.networks.of(client));
        let behalf = Behalf::new(counters, network, content);
        if registries.has(registry) { behalf } else { behalf.of_newcomer(self.clone(), registry) }
    }

    /// On behalf of what is no registry that clients have asked for (a token server, a host of
    /// plain HTTP): it is counted as `other`.
    pub(crate) fn asking_others(&self, name: &str) -> Behalf {
        Behalf::new(self.parts.registries.of_upstream(name).clone(), None, None)
    }

    /// On behalf of whoever gets something from another replica: it comes from no registry.
    pub(crate) fn asking_peers(&self) -> Behalf {
        Behalf::new(self.parts.peers.counters.clone(), None, None)
    }

    /// Another replica was asked.
    pub(crate) fn peer_asked(&self, outcome: PeerOutcome) {
        self.parts.peers.asked(outcome);
    }

    /// Bytes of a body have gone to another replica.
    fn sent_to_peers(&self, bytes: u64) {
        self.parts.peers.sent.add(bytes);
    }

    /// So many replicas answer, this one included.
    pub(crate) fn peers_present(&self, replicas: u64) {
        self.parts.peers.present(replicas);
    }

    /// Whether this registry has a place among those that are told apart.
    #[must_use]
    pub fn is_told_apart(&self, registry: &str) -> bool {
        self.parts.registries.has(registry)
    }

    /// Gives this registry such a place, if there is one left.
    pub fn tell_apart(&self, registry: &str) {
        self.placed(registry);
    }

    pub(super) fn placed(&self, registry: &str) -> Arc<registries::Counters> {
        self.parts.registries.of_request(Some(registry)).clone()
    }

    /// Where bytes are counted that come from upstreams about `registry`.
    /// A client has pulled an image.
    pub(crate) fn pulled(&self, registry: &str, client: IpAddr) {
        self.parts.registries.of_request(Some(registry)).tally().pulled();
        self.parts.networks.of(Some(client)).pulled();
    }

    /// Whether a registry counts pulls.
    #[must_use]
    pub(crate) fn counts_pulls(&self, registry: &str) -> bool {
        self.parts.registries.of_upstream(registry).counts_pulls(registry)
    }

    /// What was counted of each registry since the start, the rest included.
    #[must_use]
    pub(crate) fn registry_sums(&self) -> Vec<(String, Sums)> {
        let all = self.parts.registries.all();
        all.map(|(name, counters)| (name.to_owned(), counters.tally().sums())).collect()
    }

    /// What was counted of each network, the rest included; before the start as well, where that is
    /// known.
    #[must_use]
    pub(crate) fn network_sums(&self) -> Vec<(Network, Sums)> {
        self.parts.networks.sums()
    }

    /// What was counted of networks before the start is counted on.
    pub(crate) fn go_on_from(&self, before: impl Iterator<Item = (Network, Sums)>) {
        self.parts.networks.go_on_from(before);
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

    /// What is counted of the fleet's bucket.
    pub(crate) fn bucket(&self) -> &BucketMetrics {
        &self.parts.bucket
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

    /// What has gone wrong of late, each kind of it once.
    #[must_use]
    pub fn failures(&self) -> Vec<FailureGroup> {
        self.parts.failures.groups()
    }

    /// The repositories for which most bytes went out, at most so many, most first.
    #[must_use]
    pub fn most_wanted(&self, limit: usize) -> Vec<Demand> {
        self.parts.recent.most_wanted(limit)
    }

    /// What was counted of each registry that is configured or was asked for.
    #[must_use]
    pub(crate) fn by_registry(&self) -> Vec<RegistrySummary> {
        self.parts.registries.summaries()
    }

    /// The sums that people ask for.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let registries = &self.parts.registries;
        Summary {
            uptime: self.uptime(),
            requests: Outcome::ALL.into_iter().map(|outcome| registries.answered(outcome)).sum(),
            sums: registries.all().map(|(_, counters)| counters.tally().sums()).sum(),
            sent_bytes: Outcome::ALL.into_iter().map(|outcome| registries.sent(outcome)).sum(),
            received_bytes: registries.received(),
        }
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
    /// What was served of content, and what was fetched for it.
    pub(crate) sums: Sums,
    /// Bytes of bodies that went to clients, whatever they were.
    pub sent_bytes: u64,
    /// Bytes of bodies that came from upstreams, whatever they were.
    pub received_bytes: u64,
}

impl Summary {
    /// Which part of the requests for content needed no transfer of its own; none before the first.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio is told to three digits")]
    pub fn hit_ratio(&self) -> Option<f64> {
        let requests = self.sums.requests();
        (requests > 0).then(|| self.sums.hits() as f64 / requests as f64)
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
    use http::{Method, StatusCode};

    fn line(outcome: Outcome, path: &str) -> Arc<RequestLine> {
        let registry = Registry::at(&"docker.io:443".parse().unwrap());
        let subject = Subject::of(registry, Route::parse(path, None), path);
        let line = RequestLine::new(outcome, Method::GET, subject, [10, 0, 0, 7].into());
        Arc::new(RequestLine { status: Some(StatusCode::OK), ..line })
    }

    #[test]
    fn hits_are_of_content_alone() {
        let metrics = Metrics::default();
        assert_eq!(metrics.summary().hit_ratio(), None);
        let outcomes = [Outcome::Hit, Outcome::Miss, Outcome::Joined, Outcome::Stale];
        for outcome in outcomes {
            let line = line(outcome, "/v2/a/manifests/1");
            let answering = metrics.answering(&line, None);
            answering.sent(outcome, 10);
            answering.answered(&line);
        }
        for path in ["/v2/", "/v2/a/tags/list", "/entrepot/token"] {
            metrics.answered(&line(Outcome::Hit, path));
        }
        metrics.answered(&line(Outcome::Denied, "/v2/a/manifests/1"));
        let summary = metrics.summary();
        assert_eq!((summary.requests, summary.sums.requests(), summary.sums.hits()), (8, 4, 3));
        assert_eq!((summary.sent_bytes, summary.sums.served_bytes), (40, 40));
        assert_eq!(summary.hit_ratio(), Some(0.75));
        assert_eq!(summary.sums.quota_pulls_saved, 3, "the Hub counts pulls");
    }

    #[test]
    fn pulls_are_saved_where_they_count() {
        let metrics = Metrics::default();
        let hub = metrics.asking("docker.io", None, Some(ContentKind::Manifest));
        hub.asked(&Method::GET, Some(StatusCode::OK));
        let hit = line(Outcome::Hit, "/v2/a/manifests/1");
        hub.told_of_quota(false);
        metrics.answered(&hit);
        assert_eq!(metrics.summary().sums.quota_pulls_saved, 0, "it is not limited");
        hub.told_of_quota(true);
        metrics.answered(&hit);
        assert_eq!(metrics.summary().sums.quota_pulls_saved, 1);
        assert!(!metrics.counts_pulls("ghcr.io"));
    }

    #[test]
    fn what_is_fetched_counts_for_whom_it_was_asked() {
        let metrics = Metrics::new(["docker.io".to_owned()].into_iter());
        let client = Some([10, 0, 0, 7].into());
        let new = metrics.asking("new.example", client, Some(ContentKind::Blob));
        new.asked(&Method::GET, None);
        assert!(!metrics.is_told_apart("new.example"), "it may be mistyped");
        new.asked(&Method::GET, Some(StatusCode::OK));
        new.received(5);
        metrics.asking("new.example", client, None).received(3);
        metrics.asking("docker.io", None, Some(ContentKind::Blob)).received(7);
        metrics.asking_others("auth.docker.io").received(1);
        let fetched: Vec<_> = metrics
            .registry_sums()
            .into_iter()
            .map(|(name, sums)| (name, sums.fetched_bytes))
            .filter(|(_, bytes)| *bytes > 0)
            .collect();
        assert_eq!(fetched, [("docker.io".to_owned(), 7), ("new.example".to_owned(), 5)]);
        let mut networks: Vec<_> = metrics
            .network_sums()
            .into_iter()
            .map(|(network, sums)| (network.to_string(), sums.fetched_bytes))
            .filter(|(_, bytes)| *bytes > 0)
            .collect();
        networks.sort();
        assert_eq!(networks, [("10.0.0.0/24".to_owned(), 5), ("operator".to_owned(), 7)]);
        assert_eq!(metrics.summary().received_bytes, 16);
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
