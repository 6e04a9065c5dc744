//! In which state each registry is: well, or what is wrong with it, since when and why.
//!
//! One place for all who tell of it: the status page, `status`, readiness, metrics. Nothing is
//! decided by it. What is wrong is known by evidence, each of its own cause, and over when the
//! registry does the same thing well; where nobody asks for it any more, some minutes later. A
//! registry that is away is asked by the proxy itself whether it is back, so that this is known
//! whether somebody pulls or not.
//!
//! A user's typing mistake is no registry's state: a host that has never answered, and that the
//! configuration doesn't name, has none.

use std::fmt;
use std::time::{Duration, SystemTime};

use entrepot_oci::{Authority, Registry, RepositoryName};
use http::StatusCode;
use moka::sync::Cache;
use tokio::time::Instant;

use super::pressure::{Kind, Sign, Topic, pause, tells_of_state};
use super::quota;
use crate::memory::{NAME, Shares, table};
use crate::upstream::in_words;

/// How long what nobody asks for again stays wrong.
const HELD: Duration = Duration::from_mins(2);
/// How long a registry that is away counts as that, once no client asks for it any more.
const AWAY: Duration = Duration::from_hours(1);
/// How long a registry that is away is left alone before it is asked whether it is back.
const PROBED: Duration = Duration::from_secs(25);
/// Repositories that have to meet an odd error (a 500) before it is the registry's.
const ODD: usize = 2;
/// The longest reason that is kept.
const LONGEST_REASON: usize = 1024;

/// What a registry's state is called. Of several, the first is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum State {
    /// It can't be reached.
    Away,
    /// It does not take the proxy's own credentials, or they can't be had.
    CredentialsRefused,
    /// It has asked the proxy to wait (429).
    Limited,
    /// It answers with errors of its own.
    Unwell,
    /// It takes longer to answer than clients wait where what is kept may be served.
    Slow,
    /// Nothing is wrong, as far as its last answers tell.
    Well,
    /// It was not asked since the start.
    Unknown,
}

impl State {
    /// Those that a registry which was asked may be in.
    pub(crate) const ALL: [Self; 6] =
        [Self::Away, Self::CredentialsRefused, Self::Limited, Self::Unwell, Self::Slow, Self::Well];

    /// The word in the API and in metrics.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::CredentialsRefused => "credentials-refused",
            Self::Limited => "limited",
            Self::Unwell => "unwell",
            Self::Slow => "slow",
            Self::Well => "well",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state of one registry.
#[derive(Debug, Clone)]
pub(crate) struct RegistryState {
    /// Which.
    pub(crate) registry: Registry,
    /// What it is called.
    pub(crate) state: State,
    /// Since when, where something is wrong.
    pub(crate) since: Option<SystemTime>,
    /// Until when, where that is told.
    pub(crate) until: Option<SystemTime>,
    /// Why, in words; empty where nothing is wrong.
    pub(crate) why: String,
}

impl RegistryState {
    /// Nothing is known to be wrong.
    pub(crate) fn of(registry: Registry, state: State) -> Self {
        Self { registry, state, since: None, until: None, why: String::new() }
    }
}

/// What may be wrong, apart from what else may be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Cause {
    /// The registry's own host can't be reached.
    Away(Authority),
    /// A host that it leads to for this.
    PartAway(Kind),
    Credentials,
    Limited(Kind),
    Unwell(Kind),
    Slow(Kind),
}

impl Cause {
    fn state(&self) -> State {
        match self {
            Self::Away(_) | Self::PartAway(_) => State::Away,
            Self::Credentials => State::CredentialsRefused,
            Self::Limited(_) => State::Limited,
            Self::Unwell(_) => State::Unwell,
            Self::Slow(_) => State::Slow,
        }
    }
}

/// Why something is taken for wrong.
#[derive(Debug, Clone)]
struct Evidence {
    since: SystemTime,
    /// When it was seen last.
    last: Instant,
    /// When the proxy has asked last whether it is over.
    probed: Instant,
    until: Option<SystemTime>,
    why: String,
}

impl Evidence {
    fn is_current(&self, cause: &Cause) -> bool {
        let has_ended = || self.until.is_none_or(|until| until <= SystemTime::now());
        match cause {
            Cause::Credentials => true,
            Cause::Away(_) => self.last.elapsed() < AWAY,
            Cause::PartAway(_) | Cause::Limited(_) | Cause::Unwell(_) | Cause::Slow(_) => {
                self.last.elapsed() < HELD || !has_ended()
            }
        }
    }
}

/// What is wrong where.
pub(crate) struct States {
    evidence: Cache<(Registry, Cause), Evidence>,
    /// Repositories that have met odd errors in a row.
    odd: Cache<(Registry, Kind), Vec<RepositoryName>>,
}

impl States {
    /// Nothing is known to be wrong.
    pub(crate) fn new(shares: Shares) -> Self {
        let bytes = shares.small_table();
        let weight = |_: &(Registry, Cause), evidence: &Evidence| 2 * NAME + evidence.why.len();
        Self {
            evidence: table(bytes, weight).build(),
            odd: table(bytes, |_, names: &Vec<_>| (1 + names.len()) * NAME)
                .time_to_live(HELD)
                .build(),
        }
    }

    /// Notes an answer of the registry's own. `is_ours`: the proxy itself has asked, and not a
    /// client with a credential.
    pub(crate) fn note_answer(
        &self,
        registry: &Registry,
        topic: &Topic,
        is_ours: bool,
        sign: Sign<'_>,
    ) {
        let kind = topic.kind();
        self.end(registry, Cause::Away(topic.authority().clone()));
        let Some(status) = sign.trouble else {
            self.end(registry, Cause::PartAway(kind));
            self.end(registry, Cause::Unwell(kind));
            if is_ours {
                self.end(registry, Cause::Limited(kind));
            }
            if self.odd.contains_key(&(registry.clone(), kind)) {
                self.odd.invalidate(&(registry.clone(), kind));
            }
            return;
        };
        // What a client has said beside may have brought it about.
        if !is_ours || !sign.is_plain {
            return;
        }
        let why = format!("it answers {status}");
        if status == StatusCode::TOO_MANY_REQUESTS {
            self.note(registry, Cause::Limited(kind), why, Some(limit_ends(sign.headers)));
        } else if tells_of_state(status) || self.is_often_odd(registry, topic) {
            self.note(registry, Cause::Unwell(kind), why, None);
        }
    }

    /// Whether an error that may be one name's has been met by several repositories.
    fn is_often_odd(&self, registry: &Registry, topic: &Topic) -> bool {
        let Some(repository) = topic.repository() else { return true };
        let key = (registry.clone(), topic.kind());
        let mut names = self.odd.get(&key).unwrap_or_default();
        if !names.contains(repository) && names.len() < ODD {
            names.push(repository.clone());
            self.odd.insert(key, names.clone());
        }
        names.len() >= ODD
    }

    /// The registry itself can't be reached.
    pub(crate) fn note_away(&self, registry: &Registry, authority: &Authority, why: String) {
        self.note(registry, Cause::Away(authority.clone()), why, None);
    }

    /// A host that it leads to can't be.
    pub(crate) fn note_part_away(&self, registry: &Registry, topic: &Topic, why: String) {
        self.note(registry, Cause::PartAway(topic.kind()), why, None);
    }

    /// An exchange has failed in another way.
    pub(crate) fn note_broken(&self, registry: &Registry, topic: &Topic, why: String) {
        self.note(registry, Cause::Unwell(topic.kind()), why, None);
    }

    /// The registry lets clients wait for longer than this.
    pub(crate) fn note_slow(&self, registry: &Registry, topic: &Topic, after: Duration) {
        if topic.kind().is_quickly_answered() {
            let why = format!("it takes longer than {} to answer", in_words(after));
            self.note(registry, Cause::Slow(topic.kind()), why, None);
        }
    }

    /// It has answered in time.
    pub(crate) fn note_quick(&self, registry: &Registry, topic: &Topic) {
        self.end(registry, Cause::Slow(topic.kind()));
    }

    /// The proxy's own credentials are of no use there.
    pub(crate) fn note_credentials(&self, registry: &Registry, why: String) {
        self.note(registry, Cause::Credentials, why, None);
    }

    /// The registry has taken them.
    pub(crate) fn note_taken(&self, registry: &Registry) {
        self.end(registry, Cause::Credentials);
    }

    /// There are other credentials now: whether they are taken is not known.
    pub(crate) fn forget_credentials(&self) {
        for (key, _) in &self.evidence {
            if key.1 == Cause::Credentials {
                self.evidence.invalidate(&*key);
            }
        }
    }

    /// The registries that something is wrong with, each with what is told of it.
    pub(crate) fn troubles(&self) -> Vec<RegistryState> {
        let mut all = self.all();
        all.dedup_by(|later, first| later.registry == first.registry);
        all
    }

    /// Whatever is wrong, several things of one registry among it.
    pub(crate) fn all(&self) -> Vec<RegistryState> {
        let current = self.evidence.iter().filter(|(key, one)| one.is_current(&key.1));
        let mut all: Vec<_> = current
            .map(|(key, evidence)| RegistryState {
                registry: key.0.clone(),
                state: key.1.state(),
                since: Some(evidence.since),
                until: evidence.until,
                why: evidence.why,
            })
            .collect();
        all.sort_by_key(|one| (one.registry.clone(), one.state, one.since));
        all
    }

    /// The hosts of registries that are away, of which nobody knows since when they are back.
    pub(crate) fn take_due(&self) -> Vec<(Registry, Authority)> {
        let mut due = Vec::new();
        for (key, mut evidence) in &self.evidence {
            let Cause::Away(authority) = &key.1 else { continue };
            let is_due = evidence.last.elapsed() >= PROBED && evidence.probed.elapsed() >= PROBED;
            if is_due && evidence.is_current(&key.1) {
                due.push((key.0.clone(), authority.clone()));
                evidence.probed = Instant::now();
                self.evidence.insert((*key).clone(), evidence);
            }
        }
        due
    }

    /// The host of a registry has answered.
    pub(crate) fn note_back(&self, registry: &Registry, authority: &Authority) {
        self.end(registry, Cause::Away(authority.clone()));
    }

    fn note(&self, registry: &Registry, cause: Cause, why: String, until: Option<SystemTime>) {
        let key = (registry.clone(), cause);
        let before = self.evidence.get(&key).filter(|before| before.is_current(&key.1));
        let now = Instant::now();
        let since = before.as_ref().map_or_else(SystemTime::now, |before| before.since);
        let mut why = why;
        why.truncate(why.floor_char_boundary(LONGEST_REASON));
        if before.is_none() {
            tracing::warn!(%registry, state = %key.1.state(), why, "a registry is in trouble");
        }
        self.evidence.insert(key, Evidence { since, last: now, probed: now, until, why });
    }

    fn end(&self, registry: &Registry, cause: Cause) {
        let key = (registry.clone(), cause);
        // Hardly ever there: looking costs less than invalidating.
        if let Some(evidence) = self.evidence.get(&key) {
            self.evidence.invalidate(&key);
            if evidence.is_current(&key.1) {
                tracing::info!(%registry, was = %key.1.state(), "a registry has recovered");
            }
        }
    }
}

/// When a 429 with these fields ends: what is told of a pause, or when the quota is whole again.
fn limit_ends(headers: &http::HeaderMap) -> SystemTime {
    let now = SystemTime::now();
    let window = quota::read(headers)
        .filter(|quota| quota.remaining == 0)
        .and_then(|quota| quota.window_secs)
        .map(Duration::from_secs);
    let wait = if headers.contains_key(http::header::RETRY_AFTER) {
        pause(headers)
    } else {
        window.unwrap_or_else(|| pause(headers))
    };
    now.checked_add(wait).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::answer::is_trouble;
    use entrepot_oci::Route;
    use http::{HeaderMap, HeaderValue, Method};

    fn hub() -> (Registry, Authority) {
        let authority: Authority = "registry-1.docker.io:443".parse().unwrap();
        (Registry::at(&authority), authority)
    }

    fn topic(repository: &str) -> Topic {
        let route = Route::parse(&format!("/v2/{repository}/manifests/1"), None);
        Topic::new(&hub().1, &Method::HEAD, &route)
    }

    fn answer(all: &States, repository: &str, status: u16) {
        let (status, headers) = (StatusCode::from_u16(status).unwrap(), HeaderMap::new());
        let trouble = is_trouble(status).then_some(status);
        let sign = Sign { status, trouble, is_plain: true, headers: &headers };
        all.note_answer(&hub().0, &topic(repository), true, sign);
    }

    fn told(all: &States) -> Vec<State> {
        all.troubles().iter().map(|one| one.state).collect()
    }

    fn none_wrong() -> States {
        States::new(Shares::new(Some(0)))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_is_over_when_it_goes_well_again() {
        let all = none_wrong();
        assert!(all.troubles().is_empty());
        answer(&all, "a", 503);
        assert_eq!(told(&all), [State::Unwell]);
        assert!(all.troubles()[0].why.contains("503"), "{:?}", all.troubles());
        answer(&all, "b", 404);
        assert!(all.troubles().is_empty());
        all.note_slow(&hub().0, &topic("a"), Duration::from_secs(2));
        all.note_slow(&hub().0, &topic("a"), Duration::from_millis(1500));
        assert_eq!(all.troubles()[0].why, "it takes longer than 1500 ms to answer");
        all.note_quick(&hub().0, &topic("a"));
        assert!(all.troubles().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_for_again_is_forgotten_but_for_dead_credentials() {
        let all = none_wrong();
        answer(&all, "a", 503);
        all.note_credentials(&hub().0, "user robot".to_owned());
        assert_eq!(told(&all), [State::CredentialsRefused], "that has to be mended by somebody");
        tokio::time::advance(HELD).await;
        all.note_taken(&hub().0);
        assert!(all.troubles().is_empty());
        all.note_credentials(&hub().0, "user robot".to_owned());
        tokio::time::advance(AWAY * 100).await;
        assert_eq!(told(&all), [State::CredentialsRefused]);
        all.forget_credentials();
        assert!(all.troubles().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_odd_name_is_no_state_of_the_registry() {
        let all = none_wrong();
        for _ in 0..5 {
            answer(&all, "odd", 500);
        }
        assert!(all.troubles().is_empty());
        answer(&all, "other", 500);
        assert_eq!(told(&all), [State::Unwell]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_lasts_as_long_as_the_registry_says() {
        let all = none_wrong();
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit-remaining", HeaderValue::from_static("0;w=21600"));
        let status = StatusCode::TOO_MANY_REQUESTS;
        let sign = Sign { status, trouble: Some(status), is_plain: true, headers: &headers };
        all.note_answer(&hub().0, &topic("a"), true, sign);
        tokio::time::advance(HELD * 2).await;
        assert_eq!(told(&all), [State::Limited]);
        let until = all.troubles()[0].until.unwrap();
        let left = until.duration_since(SystemTime::now()).unwrap();
        assert!(left > Duration::from_mins(350), "{left:?}");
        all.note_answer(&hub().0, &topic("a"), false, sign);
        answer(&all, "a", 200);
        assert!(all.troubles().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_refused_tells_nothing_of_the_registry() {
        let all = none_wrong();
        let (status, headers) = (StatusCode::TOO_MANY_REQUESTS, HeaderMap::new());
        let sign = Sign { status, trouble: Some(status), is_plain: true, headers: &headers };
        all.note_answer(&hub().0, &topic("a"), false, sign);
        let sign = Sign { is_plain: false, ..sign };
        all.note_answer(&hub().0, &topic("a"), true, sign);
        assert!(all.troubles().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_is_away_is_asked_whether_it_is_back() {
        let (all, (registry, authority)) = (none_wrong(), hub());
        all.note_away(&registry, &authority, "it is refused".to_owned());
        all.note_slow(&registry, &topic("a"), Duration::from_secs(2));
        assert_eq!(told(&all), [State::Away], "the worst is told");
        assert!(all.take_due().is_empty(), "it has just been asked");
        tokio::time::advance(PROBED).await;
        assert_eq!(all.take_due(), [(registry.clone(), authority.clone())]);
        assert!(all.take_due().is_empty());
        tokio::time::advance(HELD).await;
        assert_eq!(told(&all), [State::Away]);
        all.note_back(&registry, &authority);
        assert!(all.troubles().is_empty());
        all.note_away(&registry, &authority, "it is refused".to_owned());
        tokio::time::advance(AWAY).await;
        assert!(all.troubles().is_empty() && all.take_due().is_empty(), "nobody wants it");
    }
}
