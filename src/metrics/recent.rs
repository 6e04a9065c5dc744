//! The last requests, and which repositories are asked for most: for people who watch.
//!
//! One short lock a request, with no allocation under it but for a repository that is new.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::tally::counted;
use crate::log::{Outcome, RequestLine};

/// Requests kept: what fits a screen several times over. A line holds a path of 8 KiB at most.
pub(crate) const MOST_REQUESTS: usize = 256;
/// Refusals and failures kept: they must not be washed away by what goes well.
pub(crate) const MOST_ERRORS: usize = 64;
/// Repositories that are told apart; a new one takes the place of the one that was not asked for
/// the longest.
const MOST_REPOSITORIES: usize = 256;

/// A request that has been answered.
#[derive(Debug, Clone)]
pub struct Answered {
    /// How many were answered before it.
    pub number: u64,
    /// When its answer ended.
    pub at: SystemTime,
    /// What there is to say of it.
    pub line: Arc<RequestLine>,
}

/// How much a repository was asked for since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Its registry.
    pub registry: String,
    /// Its name there.
    pub repository: String,
    /// GETs of its manifests and blobs.
    pub requests: u64,
    /// Those of them that needed no transfer of their own.
    pub hits: u64,
    /// Bytes of bodies that went to clients.
    pub sent_bytes: u64,
    /// When it was asked for last.
    pub last: SystemTime,
}

#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    count: u64,
    requests: VecDeque<Answered>,
    errors: VecDeque<Answered>,
    /// By registry, then by repository: so they are found without making a key.
    demand: HashMap<String, HashMap<String, Demand>>,
}

impl Recent {
    pub(super) fn note(&self, line: &Arc<RequestLine>) {
        let at = SystemTime::now();
        let mut seen = self.0.lock();
        let answered = Answered { number: seen.count, at, line: line.clone() };
        seen.count += 1;
        if matches!(line.outcome, Outcome::Error | Outcome::Denied) {
            push(&mut seen.errors, MOST_ERRORS, answered.clone());
        } else {
            seen.want(line, at);
        }
        let dropped = push(&mut seen.requests, MOST_REQUESTS, answered);
        drop(seen);
        // What it holds is given back without the lock.
        drop(dropped);
    }

    /// The requests kept whose number is this or larger, oldest first.
    pub(super) fn since(&self, number: u64) -> Vec<Answered> {
        let seen = self.0.lock();
        let first = seen.requests.partition_point(|answered| answered.number < number);
        seen.requests.iter().skip(first).cloned().collect()
    }

    /// The refusals and failures kept, oldest first.
    pub(super) fn errors(&self) -> Vec<Answered> {
        self.0.lock().errors.iter().cloned().collect()
    }

    /// The repositories for which most bytes went out, at most so many, most first.
    pub(super) fn most_wanted(&self, limit: usize) -> Vec<Demand> {
        let mut demand: Vec<_> =
            self.0.lock().demand.values().flat_map(HashMap::values).cloned().collect();
        demand.sort_by(|a, b| {
            let names = || (&a.registry, &a.repository).cmp(&(&b.registry, &b.repository));
            b.sent_bytes.cmp(&a.sent_bytes).then_with(names)
        });
        demand.truncate(limit);
        demand
    }
}

impl Seen {
    fn want(&mut self, line: &RequestLine, at: SystemTime) {
        let (registry, repository) = (line.subject.registry(), line.subject.repository());
        let is_served = line.status.is_some_and(|status| status.is_success());
        let (Some(registry), Some(repository), true) = (registry, repository, is_served) else {
            return;
        };
        let known = self.demand.get_mut(registry).and_then(|there| there.get_mut(repository));
        if let Some(demand) = known {
            return demand.add(line, at);
        }
        self.make_room();
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        let there = self.demand.entry(registry.clone()).or_default();
        let empty = Demand { registry, repository, requests: 0, hits: 0, sent_bytes: 0, last: at };
        there.entry(empty.repository.clone()).or_insert(empty).add(line, at);
    }

    fn make_room(&mut self) {
        let known = self.demand.values().map(HashMap::len).sum::<usize>();
        if known < MOST_REPOSITORIES {
            return;
        }
        let all = self.demand.values().flat_map(HashMap::values);
        let Some(oldest) = all.min_by_key(|demand| demand.last).cloned() else { return };
        if let Some(there) = self.demand.get_mut(&oldest.registry) {
            there.remove(&oldest.repository);
            if there.is_empty() {
                self.demand.remove(&oldest.registry);
            }
        }
    }
}

impl Demand {
    fn add(&mut self, line: &RequestLine, at: SystemTime) {
        let is_content = counted(line).is_some();
        self.requests += u64::from(is_content);
        self.hits += u64::from(is_content && line.outcome.is_from_store());
        self.sent_bytes += line.body_bytes;
        self.last = at;
    }
}

/// Returns what had to go.
fn push(ring: &mut VecDeque<Answered>, most: usize, answered: Answered) -> Option<Answered> {
    let dropped = if ring.len() >= most { ring.pop_front() } else { None };
    ring.push_back(answered);
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Subject;
    use entrepot_oci::{Registry, Route};
    use http::{Method, StatusCode};

    fn line(outcome: Outcome, repository: &str, body_bytes: u64) -> Arc<RequestLine> {
        let path = format!("/v2/{repository}/manifests/1");
        let route = Route::parse(&path, None);
        let ghcr = Registry::at(&"ghcr.io:443".parse().unwrap());
        let subject = Subject::of(ghcr, route, &path);
        let client = [10, 0, 0, 7].into();
        let status = Some(StatusCode::OK);
        let line = RequestLine::new(outcome, Method::GET, subject, client);
        Arc::new(RequestLine { status, body_bytes, ..line })
    }

    #[test]
    fn the_last_requests_are_kept_and_no_more() {
        let recent = Recent::default();
        for number in 0..MOST_REQUESTS as u64 + 10 {
            recent.note(&line(Outcome::Hit, "a", number));
        }
        let kept = recent.since(0);
        assert_eq!(kept.len(), MOST_REQUESTS);
        assert_eq!(kept[0].number, 10);
        let new = recent.since(MOST_REQUESTS as u64 + 8);
        assert_eq!(new.iter().map(|one| one.line.body_bytes).collect::<Vec<_>>(), [264, 265]);
    }

    #[test]
    fn what_went_wrong_stays_longer() {
        let recent = Recent::default();
        recent.note(&line(Outcome::Error, "a", 0));
        (0..1000).for_each(|_| recent.note(&line(Outcome::Hit, "a", 0)));
        assert_eq!(recent.errors().len(), 1);
        (0..1000).for_each(|_| recent.note(&line(Outcome::Denied, "a", 0)));
        assert_eq!(recent.errors().len(), MOST_ERRORS);
    }

    #[test]
    fn demand_is_told_by_repository() {
        let recent = Recent::default();
        for (outcome, repository, bytes) in
            [(Outcome::Miss, "a", 10), (Outcome::Hit, "a", 10), (Outcome::Hit, "b", 50)]
        {
            recent.note(&line(outcome, repository, bytes));
        }
        let wanted = recent.most_wanted(10);
        let told: Vec<_> = wanted
            .iter()
            .map(|one| (one.repository.as_str(), one.requests, one.hits, one.sent_bytes))
            .collect();
        assert_eq!(told, [("b", 1, 1, 50), ("a", 2, 1, 20)]);
        for number in 0..2 * MOST_REPOSITORIES {
            recent.note(&line(Outcome::Hit, &format!("r{number}"), 1));
        }
        assert_eq!(recent.most_wanted(10 * MOST_REPOSITORIES).len(), MOST_REPOSITORIES);
    }
}
