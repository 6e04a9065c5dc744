//! The last pulls, and the sums by client.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::event::{PullEvent, Puller};
use super::noted::Asker;
use crate::log::Format;
use crate::metrics::Metrics;

/// Pulls kept: what a person looks through.
pub(crate) const MOST_PULLS: usize = 512;
/// Clients that are told apart; a new one takes the place of the one that was not seen the longest.
const MOST_CLIENTS: usize = 1024;

/// What a client has pulled since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientSums {
    /// Who.
    pub client: String,
    /// As which user of the proxy.
    pub user: Option<Arc<str>>,
    /// Images.
    pub pulls: u64,
    /// Bytes that went to it.
    pub bytes: u64,
    /// Those of them that needed no transfer of their own.
    pub bytes_from_cache: u64,
    /// What it cost of the registries' quotas.
    pub quota_pulls: u64,
    /// When it was last seen.
    pub last: SystemTime,
}

pub(super) struct History {
    metrics: Metrics,
    format: Format,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    count: u64,
    pulls: VecDeque<Arc<PullEvent>>,
    clients: HashMap<(String, Option<Arc<str>>), ClientSums>,
}

impl History {
    pub(super) fn new(metrics: Metrics, format: Format) -> Self {
        Self { metrics, format, seen: Mutex::default() }
    }

    /// A pull is over: it is counted, told and remembered.
    pub(super) fn add(&self, mut event: PullEvent) {
        if let Puller::Client(client) = event.puller
            && event.outcome.is_pull()
        {
            self.metrics.pulled(event.registry.as_str(), client);
        }
        // The text log has one line a request, and no other.
        if self.format == Format::Json {
            event.emit();
        }
        let mut seen = self.seen.lock();
        event.number = seen.count;
        seen.count += 1;
        seen.note_client(&event);
        if seen.pulls.len() >= MOST_PULLS {
            seen.pulls.pop_front();
        }
        seen.pulls.push_back(Arc::new(event));
    }

    /// A client has taken bytes that belong to no pull under way: of an image that it began to pull
    /// long before.
    pub(super) fn add_rest(&self, asker: &Asker, bytes: u64, from_cache: u64, at: SystemTime) {
        let name = Puller::Client(asker.client).name();
        let mut seen = self.seen.lock();
        let sums = seen.client((name, asker.user.clone()), at);
        sums.bytes += bytes;
        sums.bytes_from_cache += from_cache;
    }

    pub(super) fn since(&self, number: u64) -> Vec<Arc<PullEvent>> {
        let seen = self.seen.lock();
        let first = seen.pulls.partition_point(|event| event.number < number);
        seen.pulls.iter().skip(first).cloned().collect()
    }

    pub(super) fn clients(&self) -> Vec<ClientSums> {
        let mut clients: Vec<_> = self.seen.lock().clients.values().cloned().collect();
        clients.sort_by(|a, b| {
            b.bytes.cmp(&a.bytes).then_with(|| (&a.client, &a.user).cmp(&(&b.client, &b.user)))
        });
        clients
    }
}

impl Seen {
    fn note_client(&mut self, event: &PullEvent) {
        let sums = self.client((event.puller.name(), event.user.clone()), event.at);
        sums.pulls += u64::from(event.outcome.is_pull());
        sums.bytes += event.bytes;
        sums.bytes_from_cache += event.bytes_from_cache;
        sums.quota_pulls += event.quota_pulls;
    }

    /// The sums of a client that was seen then.
    fn client(&mut self, key: (String, Option<Arc<str>>), at: SystemTime) -> &mut ClientSums {
        if !self.clients.contains_key(&key) && self.clients.len() >= MOST_CLIENTS {
            let longest = self.clients.iter().min_by_key(|(_, sums)| sums.last);
            if let Some(longest) = longest.map(|(key, _)| key.clone()) {
                self.clients.remove(&longest);
            }
        }
        let (client, user) = key.clone();
        let new = ClientSums {
            client,
            user,
            pulls: 0,
            bytes: 0,
            bytes_from_cache: 0,
            quota_pulls: 0,
            last: at,
        };
        let sums = self.clients.entry(key).or_insert(new);
        sums.last = at;
        sums
    }
}
