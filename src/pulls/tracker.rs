//! The pulls under way.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use entrepot_cache::Store;
use entrepot_oci::manifest::platform_of_config;
use entrepot_oci::{Contents, Digest, Registry, RepositoryName};
use moka::sync::Cache;
use tokio::time::Instant;

use super::event::{PullEvent, Puller};
use super::grouping::{Group, Known, Request, groups};
use super::history::History;
use super::noted::{Asker, Noted, Object};
use crate::log::Outcome;
use crate::memory::{Shares, table};
use crate::metrics::Metrics;

/// How long a pull that has all is waited with: a client may yet ask for something again.
const LINGER: Duration = Duration::from_secs(1);
/// How long a client is silent, with nothing under way, before its pull is over.
const SILENCE: Duration = Duration::from_secs(5);
/// How long where a blob was not served in the end: dockerd tries again after five seconds, and
/// then after ten.
const RETRIED: Duration = Duration::from_secs(12);
/// How long what is known of a manifest is waited for: a disk may hang.
const PATIENCE: Duration = Duration::from_secs(2);
/// Requests of one client for one repository that are held: an image has some hundred at most.
const MOST_REQUESTS: usize = 1024;
/// Clients and repositories with something under way at a time.
const MOST_SESSIONS: usize = 4096;
/// Requests of all that are held before whatever is not under way is told of.
const MOST_HELD: usize = 16 * 1024;
/// The largest manifest or configuration that is looked into.
const LARGEST: u64 = 1024 * 1024;
/// Manifests of an index, or blobs of an image, that are told apart: more are nobody's image.
const MOST_PARTS: usize = 512;

/// One client and one repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Session {
    asker: Asker,
    registry: Registry,
    repository: RepositoryName,
}

pub(super) struct Tracker {
    store: Store,
    metrics: Metrics,
    history: Arc<History>,
    sessions: HashMap<Session, Vec<Request>>,
    /// Nothing is known of those that are no manifests, or too large ones.
    contents: Cache<Digest, Option<Arc<Contents>>>,
}

impl Tracker {
    pub(super) fn new(
        store: Store,
        metrics: Metrics,
        history: Arc<History>,
        shares: Shares,
    ) -> Self {
        let weight = |_: &Digest, contents: &Option<Arc<Contents>>| {
            contents.as_ref().map_or(0, |contents| weight(contents))
        };
        let contents = table(shares.small_table(), weight).build();
        Self { store, metrics, history, sessions: HashMap::new(), contents }
    }

    /// Takes in what was noted, and tells of what is over; at the end, of all that nothing of is
    /// under way.
    pub(super) async fn turn(&mut self, noted: Vec<Noted>, is_end: bool) {
        for noted in noted {
            self.take_in(noted).await;
        }
        let sessions: Vec<_> = self.sessions.keys().cloned().collect();
        let held = self.sessions.values().map(Vec::len).sum::<usize>();
        let is_full = sessions.len() > MOST_SESSIONS || held > MOST_HELD;
        for session in sessions {
            self.settle(&session, is_end || is_full).await;
        }
    }

    async fn take_in(&mut self, noted: Noted) {
        let (begun, end) = match noted {
            Noted::Begun(begun) => (begun, None),
            Noted::Ended(begun, end) => (begun, Some(end)),
        };
        let session = Session {
            asker: begun.asker.clone(),
            registry: begun.registry.clone(),
            repository: begun.repository.clone(),
        };
        if !matches!(begun.object, Object::Blob(_))
            && let Some(digest) = end.as_ref().and_then(|end| end.digest)
        {
            self.learn(&digest).await;
        }
        let requests = self.sessions.entry(session.clone()).or_default();
        let of_it = requests.iter_mut().rev().find(|one| one.begun.number == begun.number);
        match (of_it, end) {
            (Some(request), end) => request.end = end,
            (None, end) => requests.push(Request { begun, end }),
        }
        if requests.len() >= MOST_REQUESTS {
            self.settle(&session, true).await;
        }
    }

    /// Reads what a manifest names, if it is kept.
    async fn learn(&self, digest: &Digest) {
        if self.contents.contains_key(digest) {
            return;
        }
        let bytes = tokio::time::timeout(PATIENCE, self.store.peek(digest)).await;
        // One that is not kept may yet be.
        let Some(bytes) = bytes.ok().flatten() else { return };
        let contents =
            if bytes.len() as u64 > LARGEST { None } else { Contents::parse(&bytes).ok() };
        let contents = contents.filter(|contents| parts(contents) <= MOST_PARTS);
        self.contents.insert(*digest, contents.map(Arc::new));
    }

    /// Tells of the pulls of one client that are over, and forgets their requests.
    async fn settle(&mut self, session: &Session, is_forced: bool) {
        let Some(requests) = self.sessions.remove(session) else { return };
        let known = self.known(&requests);
        let (now, mut over) = (Instant::now(), HashSet::new());
        let mut grouped = HashSet::new();
        for group in groups(&requests, &known) {
            let numbers = || group.requests.iter().map(|request| request.begun.number);
            grouped.extend(numbers());
            if !is_over(&group, &known, now, is_forced) {
                continue;
            }
            over.extend(numbers());
            let event = self.event(session, &group, &known).await;
            self.history.add(event);
        }
        // What belongs to no pull is waited with as long as one may begin that it is of.
        let is_stray = |request: &Request| {
            let ended = request.end.as_ref().map(|end| end.at);
            !grouped.contains(&request.begun.number)
                && ended.is_some_and(|at| is_forced || now.duration_since(at) >= SILENCE)
        };
        let strays: Vec<_> = requests.iter().filter(|request| is_stray(request)).collect();
        let sum =
            |requests: &mut dyn Iterator<Item = &&Request>| requests.map(|one| bytes(one)).sum();
        if let Some(last) =
            strays.iter().filter_map(|request| Some(request.end.as_ref()?.when)).max()
        {
            let bytes = sum(&mut strays.iter());
            let from_cache = sum(&mut strays.iter().filter(|request| is_from_cache(request)));
            self.history.add_rest(&session.asker, bytes, from_cache, last);
        }
        let mut left = requests.clone();
        left.retain(|request| !over.contains(&request.begun.number) && !is_stray(request));
        // So many under way at a time are no engine's. Those that are forgotten are found again
        // when they end.
        if left.len() >= MOST_REQUESTS {
            left.truncate(MOST_REQUESTS / 2);
        }
        if !left.is_empty() {
            self.sessions.insert(session.clone(), left);
        }
    }

    /// What is known of the manifests that these requests are about.
    fn known(&self, requests: &[Request]) -> Known {
        let digests = requests.iter().filter_map(|request| match request.begun.object {
            Object::Blob(_) => None,
            Object::Manifest(digest) => Some(digest),
            Object::Tag(_) => request.end.as_ref().and_then(|end| end.digest),
        });
        let mut known = Known::new();
        for digest in digests {
            if !known.contains_key(&digest)
                && let Some(Some(contents)) = self.contents.get(&digest)
            {
                known.insert(digest, contents);
            }
        }
        known
    }

    async fn event(&self, session: &Session, group: &Group<'_>, known: &Known) -> PullEvent {
        let ends = || group.requests.iter().filter_map(|request| request.end.as_ref());
        let is_served = |request: &&&Request| request.is_served();
        let counts_pulls = self.metrics.counts_pulls(session.registry.as_str());
        let is_counted = |request: &&&Request| {
            let is_manifest = !matches!(request.begun.object, Object::Blob(_));
            is_manifest && !request.begun.is_head && request.is_served() && !is_from_cache(request)
        };
        let quota_pulls = group.requests.iter().filter(is_counted).count() as u64;
        let began = group.requests.iter().map(|request| request.begun.at).min();
        let outcome = group.outcome(known);
        let reason = group.unserved().filter(|_| !outcome.is_pull());
        PullEvent {
            number: 0,
            at: ends().map(|end| end.when).max().unwrap_or_else(SystemTime::now),
            puller: Puller::Client(session.asker.client),
            user: session.asker.user.clone(),
            user_agent: session.asker.user_agent.clone(),
            registry: session.registry.clone(),
            repository: session.repository.clone(),
            tag: group.tag.clone(),
            digest: group.root,
            platform: self.platform(group, known).await,
            bytes: group.requests.iter().map(|request| bytes(request)).sum(),
            bytes_from_cache: group
                .requests
                .iter()
                .filter(|request| is_from_cache(request))
                .map(|request| bytes(request))
                .sum(),
            is_all_from_cache: group
                .requests
                .iter()
                .filter(is_served)
                .all(|request| is_from_cache(request)),
            duration: began
                .zip(group.last())
                .map(|(began, last)| last.duration_since(began))
                .unwrap_or_default(),
            outcome,
            quota_pulls: if counts_pulls { quota_pulls } else { 0 },
            reason: reason.and_then(|request| request.end.as_ref()?.reason.clone()),
        }
    }

    /// For which machine an image is: by the index that led to its manifest, or by its
    /// configuration.
    async fn platform(&self, group: &Group<'_>, known: &Known) -> Option<String> {
        let root = known.get(&group.root?)?;
        let names: Vec<_> = match &**root {
            Contents::Index(listed) => {
                let chosen = listed.iter().filter(|one| group.children.contains(&one.digest));
                let platforms = chosen.filter_map(|one| one.platform.as_ref());
                platforms.filter(|one| one.is_known()).map(ToString::to_string).collect()
            }
            Contents::Image(blobs) => {
                let is_read = |size: u64| size <= LARGEST;
                let config = blobs.iter().find(|blob| blob.is_config && is_read(blob.size))?;
                let reading = tokio::time::timeout(PATIENCE, self.store.peek(&config.digest));
                let bytes = reading.await.ok().flatten()?;
                platform_of_config(&bytes)
                    .map(|platform| platform.to_string())
                    .into_iter()
                    .collect()
            }
        };
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// Whether a request needed no transfer of its own.
fn is_from_cache(request: &Request) -> bool {
    let outcome = request.end.as_ref().and_then(|end| end.outcome);
    outcome.is_some_and(Outcome::is_from_store)
}

/// The bytes of content that a client was sent.
fn bytes(request: &Request) -> u64 {
    match &request.end {
        Some(end) if end.status.is_some_and(|status| status.is_success()) => end.bytes,
        _ => 0,
    }
}

fn is_over(group: &Group<'_>, known: &Known, now: Instant, is_forced: bool) -> bool {
    let Some(last) = group.last().filter(|_| !group.is_open()) else { return false };
    let quiet = now.saturating_duration_since(last);
    if is_forced || (quiet >= LINGER && group.is_complete(known)) {
        return true;
    }
    let is_wanted = group.unserved().is_some_and(Request::is_blob);
    quiet >= if is_wanted { RETRIED } else { SILENCE }
}

fn parts(contents: &Contents) -> usize {
    match contents {
        Contents::Index(listed) => listed.len(),
        Contents::Image(blobs) => blobs.len(),
    }
}

/// What a manifest's contents take.
fn weight(contents: &Contents) -> usize {
    const PART: usize = 256;
    parts(contents) * PART
}
