//! Counters by registry, for so many registries and no more.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use entrepot_oci::UnixSeconds;
use http::{Method, StatusCode};
use parking_lot::Mutex;

use super::Count;
use super::latency::Latency;
use super::tally::{Sums, Tally, counted};
use crate::log::{ContentKind, Outcome, RequestLine};

/// Registries that are told apart: more than a site uses, and few enough that somebody who asks for
/// ever new names (`intercept = ["*"]`) fills no memory here or in a time series database.
const MOST: usize = 100;
/// What the others are called.
const OTHER: &str = "other";
/// What requests are called that are about none.
const NONE: &str = "none";
/// The registry that is known to count pulls.
const HUB: &str = "docker.io";

/// Methods that are told apart; the last one is all others.
pub(super) const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "other"];
/// Classes of status; the last one is no answer at all.
pub(super) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// Why a request is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeldBack {
    /// The host could not be reached a moment ago.
    Unreachable,
    /// It has asked for a pause (429), or answers with errors of its own.
    Limited,
}

impl HeldBack {
    pub(super) const ALL: [Self; 2] = [Self::Unreachable, Self::Limited];

    /// The word in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Limited => "limited",
        }
    }
}

/// What went wrong last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastError {
    /// When.
    pub at: SystemTime,
    /// In words.
    pub reason: String,
}

/// What was counted of one registry since the start.
#[derive(Debug, Clone)]
pub(crate) struct RegistrySummary {
    /// Its name.
    pub registry: String,
    /// Requests answered, by how.
    pub requests: Vec<(Outcome, u64)>,
    /// Bytes of bodies that went to clients.
    pub sent_bytes: u64,
    /// Bytes of bodies that came from upstreams.
    pub received_bytes: u64,
    /// When it last gave an answer that was no error of its own, to the second.
    pub last_success: Option<UnixSeconds>,
    /// The last request that failed, or was answered from the store in its place.
    pub last_error: Option<LastError>,
    /// What was served and fetched.
    pub sums: Sums,
    /// How long it takes to begin with its answers: half of the last ones less than the first of
    /// these, 19 of 20 less than the second.
    pub first_byte: Option<(Duration, Duration)>,
}

/// What is known of whether a registry counts pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Counting {
    /// It was not asked yet.
    Unknown = 0,
    /// It tells of a quota.
    Counts = 1,
    /// It serves manifests to a login without a word of one.
    Free = 2,
}

/// What is counted of one registry.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    answered: [Count; Outcome::ALL.len()],
    /// GETs that were answered with content, by its kind.
    content: [[Count; Outcome::ALL.len()]; ContentKind::ALL.len()],
    sent_bytes: [Count; Outcome::ALL.len()],
    tally: Tally,
    quota_pulls_spent: Count,
    /// As [`Counting`].
    counting: AtomicU8,
    first_byte: [Latency; ContentKind::ALL.len()],
    held_back: [Count; HeldBack::ALL.len()],
    /// Seconds since the epoch; 0: never.
    last_success: AtomicU64,
    last_error: Mutex<Option<LastError>>,
    asked: [[Count; CLASSES.len()]; METHODS.len()],
    received_bytes: Count,
}

impl Counters {
    pub(super) fn answered(&self, line: &RequestLine) {
        if let Some(count) = self.answered.get(line.outcome as usize) {
            count.add_one();
        }
        if let Some(kind) = counted(line)
            && let Some(count) =
                self.content.get(kind as usize).and_then(|of| of.get(line.outcome as usize))
        {
            count.add_one();
        }
        // What a registry refuses to a client is no error of the registry's.
        let is_clients = line.status.is_some_and(|status| {
            status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS
        });
        if let (Outcome::Error | Outcome::Stale, Some(reason), false) =
            (line.outcome, &line.reason, is_clients)
        {
            let error = LastError { at: SystemTime::now(), reason: reason.clone() };
            *self.last_error.lock() = Some(error);
        }
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn sent(&self, outcome: Outcome, bytes: u64) {
        if let Some(count) = self.sent_bytes.get(outcome as usize) {
            count.add(bytes);
        }
    }

    /// Whether the registry counts pulls, as it has just said by a quota, or by none.
    pub(super) fn told_of_quota(&self, tells: bool) {
        let counting = if tells { Counting::Counts } else { Counting::Free };
        self.counting.store(counting as u8, Ordering::Relaxed);
    }

    /// A GET of a manifest was answered by the registry.
    pub(super) fn spent_a_pull(&self) {
        self.quota_pulls_spent.add_one();
    }

    /// Whether the registry called `name` counts pulls: by its own word, and the Hub unless it has
    /// said otherwise.
    pub(super) fn counts_pulls(&self, name: &str) -> bool {
        match self.counting.load(Ordering::Relaxed) {
            known if known == Counting::Unknown as u8 => name == HUB,
            known => known == Counting::Counts as u8,
        }
    }

    /// The registry has taken so long to begin with an answer about content, its tokens and
    /// redirects and all.
    pub(super) fn began(&self, kind: ContentKind, after: Duration) {
        if let Some(latency) = self.first_byte.get(kind as usize) {
            latency.note(after);
        }
    }

    /// How long it takes to begin, by the kind of content.
    pub(super) fn first_bytes(&self) -> impl Iterator<Item = (ContentKind, &Latency)> {
        ContentKind::ALL.into_iter().zip(&self.first_byte)
    }

    pub(crate) fn held_back(&self, why: HeldBack) {
        if let Some(count) = self.held_back.get(why as usize) {
            count.add_one();
        }
    }

    pub(crate) fn asked(&self, method: &Method, status: Option<StatusCode>) {
        let method = METHODS.iter().position(|known| *known == method.as_str());
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100));
        let class = class.checked_sub(1).unwrap_or(CLASSES.len() - 1).min(CLASSES.len() - 1);
        let of_method = self.asked.get(method.unwrap_or(METHODS.len() - 1));
        if let Some(count) = of_method.and_then(|classes| classes.get(class)) {
            count.add_one();
        }
        let is_well = |status: StatusCode| {
            !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS
        };
        if status.is_some_and(is_well) {
            self.last_success.store(UnixSeconds::now().0, Ordering::Relaxed);
        }
    }

    /// Bytes of a body have come.
    pub(super) fn received(&self, bytes: u64) {
        self.received_bytes.add(bytes);
    }

    /// GETs that were answered with content: its kind, how, how often.
    pub(super) fn by_content(&self) -> impl Iterator<Item = (ContentKind, Outcome, u64)> {
        ContentKind::ALL.into_iter().zip(&self.content).flat_map(|(kind, outcomes)| {
            Outcome::ALL
                .into_iter()
                .zip(outcomes)
                .map(move |(outcome, n)| (kind, outcome, n.value()))
        })
    }

    /// Bytes of bodies that went to clients, by how they were answered.
    pub(super) fn sent_by_outcome(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.into_iter().zip(self.sent_bytes.iter().map(Count::value))
    }

    /// GETs of manifests that the registry has counted.
    pub(super) fn quota_pulls_spent(&self) -> u64 {
        self.quota_pulls_spent.value()
    }

    /// When it last gave an answer that was no error of its own.
    pub(super) fn last_success(&self) -> Option<UnixSeconds> {
        let last_success = self.last_success.load(Ordering::Relaxed);
        (last_success > 0).then_some(UnixSeconds(last_success))
    }

    /// How often it was answered each way.
    pub(super) fn by_outcome(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.into_iter().zip(self.answered.iter().map(Count::value))
    }

    /// How often it was asked by each method, with each class of answers.
    pub(super) fn by_question(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        METHODS.into_iter().zip(&self.asked).flat_map(|(method, classes)| {
            CLASSES.into_iter().zip(classes).map(move |(class, n)| (method, class, n.value()))
        })
    }

    /// How often it was not asked, by why.
    pub(super) fn by_hindrance(&self) -> impl Iterator<Item = (HeldBack, u64)> {
        HeldBack::ALL.into_iter().zip(self.held_back.iter().map(Count::value))
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes.value()
    }

    fn summary(&self, registry: &str) -> RegistrySummary {
        RegistrySummary {
            registry: registry.to_owned(),
            requests: self.by_outcome().collect(),
            sent_bytes: self.sent_bytes.iter().map(Count::value).sum(),
            received_bytes: self.received_bytes(),
            last_success: self.last_success(),
            last_error: self.last_error.lock().clone(),
            sums: self.tally.sums(),
            first_byte: Latency::of_all(&self.first_byte),
        }
    }
}

#[derive(Debug)]
struct NamedCounters {
    name: String,
    counters: Arc<Counters>,
}

impl NamedCounters {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), counters: Arc::default() }
    }
}

/// The registries seen so far. Looking one up takes no lock: a place once taken never changes.
#[derive(Debug)]
pub(super) struct RegistryTable {
    places: Vec<OnceLock<NamedCounters>>,
    other: NamedCounters,
    none: NamedCounters,
}

impl RegistryTable {
    pub(super) fn new(known: impl Iterator<Item = String>) -> Self {
        let places = (0..MOST).map(|_| OnceLock::new()).collect();
        let registries =
            Self { places, other: NamedCounters::new(OTHER), none: NamedCounters::new(NONE) };
        for name in known {
            registries.placed(&name);
        }
        registries
    }

    /// The counters of the registry that a client's request is about.
    pub(super) fn of_request(&self, name: Option<&str>) -> &Arc<Counters> {
        &name.map_or(&self.none, |name| self.placed(name)).counters
    }

    /// The counters of a registry, if clients have asked for it.
    pub(super) fn of_upstream(&self, name: &str) -> &Arc<Counters> {
        &self.taken().find(|place| place.name == name).unwrap_or(&self.other).counters
    }

    /// Whether it is told apart.
    pub(super) fn has(&self, name: &str) -> bool {
        self.taken().any(|place| place.name == name)
    }

    fn placed(&self, name: &str) -> &NamedCounters {
        // Whoever comes second to a free place finds another name there, and goes on.
        let mut places =
            self.places.iter().map(|place| place.get_or_init(|| NamedCounters::new(name)));
        places.find(|place| place.name == name).unwrap_or(&self.other)
    }

    fn taken(&self) -> impl Iterator<Item = &NamedCounters> {
        self.places.iter().map_while(OnceLock::get)
    }

    /// Every registry with its counters.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Counters)> {
        let all = self.taken().chain([&self.other, &self.none]);
        all.map(|named| (named.name.as_str(), named.counters.as_ref()))
    }

    /// Every registry that is told apart.
    pub(super) fn summaries(&self) -> Vec<RegistrySummary> {
        self.taken().map(|named| named.counters.summary(&named.name)).collect()
    }

    pub(super) fn answered(&self, outcome: Outcome) -> u64 {
        let count = |(_, counters): (&str, &Counters)| {
            counters.answered.get(outcome as usize).map_or(0, Count::value)
        };
        self.all().map(count).sum()
    }

    /// Bytes of bodies that went to clients, answered like that.
    pub(super) fn sent(&self, outcome: Outcome) -> u64 {
        let count = |(_, counters): (&str, &Counters)| {
            counters.sent_bytes.get(outcome as usize).map_or(0, Count::value)
        };
        self.all().map(count).sum()
    }

    pub(super) fn received(&self) -> u64 {
        self.all().map(|(_, counters)| counters.received_bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Subject;

    fn line(outcome: Outcome) -> RequestLine {
        let subject = Subject::Other("x".to_owned());
        RequestLine::new(outcome, Method::GET, subject, [10, 0, 0, 7].into())
    }

    #[test]
    fn registries_beyond_the_bound_are_others() {
        let registries = RegistryTable::new(["mine.example".to_owned()].into_iter());
        for number in 0..10 * MOST {
            registries
                .of_request(Some(&format!("r{number}.example")))
                .answered(&line(Outcome::Miss));
        }
        registries.of_request(Some("mine.example")).answered(&line(Outcome::Hit));
        let names: Vec<_> = registries.all().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names.len(), MOST + 2);
        assert_eq!(names[0], "mine.example");
        assert_eq!(registries.answered(Outcome::Hit), 1);
        assert_eq!(registries.answered(Outcome::Miss), 10 * MOST as u64);
        let of_others = registries.other.counters.by_outcome().map(|(_, n)| n).sum::<u64>();
        assert_eq!(of_others, 9 * MOST as u64 + 1);
    }

    #[test]
    fn the_last_error_and_the_last_success_are_remembered() {
        let counters = Counters::default();
        assert_eq!(counters.summary("x").last_success, None);
        counters.asked(&Method::GET, Some(StatusCode::BAD_GATEWAY));
        counters.asked(&Method::GET, Some(StatusCode::TOO_MANY_REQUESTS));
        counters.asked(&Method::GET, None);
        assert_eq!(counters.summary("x").last_success, None);
        counters.asked(&Method::GET, Some(StatusCode::NOT_FOUND));
        assert!(counters.summary("x").last_success.is_some());
        counters.answered(&line(Outcome::Hit).because(Some("the client left".to_owned())));
        assert_eq!(counters.summary("x").last_error, None, "no fault of the registry's");
        counters.answered(&line(Outcome::Error).because(Some("refused".to_owned())));
        assert_eq!(counters.summary("x").last_error.unwrap().reason, "refused");
    }

    #[test]
    fn an_upstream_takes_no_place() {
        let registries = RegistryTable::new(std::iter::empty());
        let get = |name: &str, status: Option<u16>| {
            let status = status.map(|status| StatusCode::from_u16(status).unwrap());
            registries.of_upstream(name).asked(&Method::GET, status);
        };
        get("auth.example", Some(200));
        registries.of_request(Some("ghcr.io"));
        get("ghcr.io", Some(404));
        get("ghcr.io", None);
        registries.of_upstream("ghcr.io").asked(&Method::OPTIONS, Some(StatusCode::OK));
        let counted: Vec<_> = registries
            .all()
            .flat_map(|(name, counters)| {
                counters.by_question().filter(|(.., n)| *n > 0).map(move |asked| (name, asked))
            })
            .collect();
        assert_eq!(
            counted,
            [
                ("ghcr.io", ("GET", "4xx", 1)),
                ("ghcr.io", ("GET", "none", 1)),
                ("ghcr.io", ("other", "2xx", 1)),
                ("other", ("GET", "2xx", 1)),
            ]
        );
    }

    #[test]
    fn many_at_once_share_one_place() {
        let registries = RegistryTable::new(std::iter::empty());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for number in 0..50 {
                        let name = format!("r{number}");
                        registries.of_request(Some(&name)).answered(&line(Outcome::Hit));
                    }
                });
            }
        });
        assert_eq!(registries.taken().count(), 50);
        assert!(
            registries
                .taken()
                .all(|named| { named.counters.by_outcome().map(|(_, n)| n).sum::<u64>() == 8 })
        );
    }
}
