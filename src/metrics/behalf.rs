//! On whose behalf upstreams are asked.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};

use super::Metrics;
use super::registries::{Counters, HeldBack};
use super::tally::Tally;
use crate::log::ContentKind;

/// What a client has asked a registry for: whatever it leads to (storage, another registry) counts
/// there. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Behalf {
    counters: Arc<Counters>,
    /// Whether the registry has not answered yet, ever.
    newcomer: Option<Arc<Newcomer>>,
    /// The network of the client, where content is asked for.
    network: Option<Arc<Tally>>,
    content: Option<ContentKind>,
}

/// What a client has named and nobody else: it has a place among the registries once it has
/// answered, since until then it may be a typing mistake.
#[derive(Debug)]
struct Newcomer {
    metrics: Metrics,
    name: String,
    counters: OnceLock<Arc<Counters>>,
}

impl Behalf {
    pub(super) fn new(
        counters: Arc<Counters>,
        network: Option<Arc<Tally>>,
        content: Option<ContentKind>,
    ) -> Self {
        Self { counters, newcomer: None, network, content }
    }

    /// The same, of a registry of this name that is not known as one; until it is, `self` counts.
    pub(super) fn of_newcomer(self, metrics: Metrics, name: &str) -> Self {
        let counters = OnceLock::new();
        let newcomer = Newcomer { metrics, name: name.to_owned(), counters };
        Self { newcomer: Some(Arc::new(newcomer)), ..self }
    }

    fn counters(&self) -> &Counters {
        let placed = self.newcomer.as_ref().and_then(|newcomer| newcomer.counters.get());
        placed.unwrap_or(&self.counters)
    }

    /// The same, about what is no content (how to authenticate).
    #[must_use]
    pub(crate) fn without_content(&self) -> Self {
        Self { network: None, content: None, ..self.clone() }
    }

    /// An upstream has answered; without a status it has not.
    pub(crate) fn asked(&self, method: &Method, status: Option<StatusCode>) {
        if let (Some(newcomer), Some(_)) = (&self.newcomer, status) {
            newcomer.counters.get_or_init(|| newcomer.metrics.placed(&newcomer.name));
        }
        self.counters().asked(method, status);
    }

    /// A request was not sent, because of how the last ones ended.
    pub(crate) fn held_back(&self, why: HeldBack) {
        self.counters().held_back(why);
    }

    /// It took so long until the answer began.
    pub(crate) fn began(&self, after: Duration) {
        if let Some(kind) = self.content {
            self.counters().began(kind, after);
        }
    }

    /// Whether the registry counts pulls, as it has just said by a quota, or by none.
    pub(crate) fn told_of_quota(&self, tells: bool) {
        self.counters().told_of_quota(tells);
    }

    /// Bytes of a body have come.
    pub(crate) fn received(&self, bytes: u64) {
        self.counters().received(bytes);
        if self.content.is_some() {
            self.counters().tally().fetched(bytes);
            if let Some(network) = &self.network {
                network.fetched(bytes);
            }
        }
    }
}
