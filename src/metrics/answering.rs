//! A request that is being answered.

use std::sync::Arc;

use super::Metrics;
use super::registries::Counters;
use super::tally::{Tally, counted, is_served};
use crate::log::{ContentKind, Outcome, RequestLine};

/// What counts an answer: looked up once, so that a body costs no more than additions.
#[derive(Debug)]
pub struct Answering {
    metrics: Metrics,
    counters: Arc<Counters>,
    network: Option<Arc<Tally>>,
    /// Whether the bytes are of content, and go to a client.
    is_served: bool,
    /// Whether they go to a replica, which counts them as served when it serves them.
    is_for_replica: bool,
}

impl Answering {
    pub(super) fn new(
        metrics: Metrics,
        counters: Arc<Counters>,
        network: Option<Arc<Tally>>,
        line: &RequestLine,
    ) -> Self {
        let is_for_replica = line.from_replica;
        let network = network.filter(|_| !is_for_replica);
        let is_served = is_served(line) && !is_for_replica;
        Self { metrics, counters, network, is_served, is_for_replica }
    }

    /// Bytes of the body have gone to the client.
    pub fn sent(&self, outcome: Outcome, bytes: u64) {
        self.counters.sent(outcome, bytes);
        if self.is_for_replica {
            self.metrics.sent_to_peers(bytes);
        }
        if self.is_served {
            self.counters.tally().served(bytes);
            if let Some(network) = &self.network {
                network.served(bytes);
            }
        }
    }

    /// An upstream has delivered other bytes than the digest names.
    pub(crate) fn mismatched(&self) {
        self.metrics.mismatched();
    }

    /// All of it has been answered.
    pub fn answered(&self, line: &Arc<RequestLine>) {
        self.counters.answered(line);
        let counts_pulls = counted(line) == Some(ContentKind::Manifest)
            && line.subject.registry().is_some_and(|name| self.counters.counts_pulls(name));
        let is_saved = counts_pulls && line.outcome.is_from_store();
        if counts_pulls && !is_saved {
            self.counters.spent_a_pull();
        }
        if !self.is_for_replica {
            self.counters.tally().answered(line, is_saved);
        }
        if let Some(network) = &self.network {
            network.answered(line, is_saved);
        }
        self.metrics.note(line);
    }
}
