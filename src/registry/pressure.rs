//! Registries that have had enough: after a 429, or several errors of their own in a row, they are
//! asked once a second, or when they said.
//!
//! Only what was refused is held back: nobody brings about that others are. A 429 is about one kind
//! of question (the Hub counts GETs of manifests, and neither blobs nor HEADs), and about
//! somebody's quota: who was refused is held back, not the others. One repository's 429 holds the
//! others back for a second at a time, and longer only where the registry speaks of a quota, or
//! says so of another repository too. Where two were refused whom the registry has served before,
//! and it does not say whose quota it is, it is the address that has had too much (the Hub calls
//! that its abuse limit), and everybody is held back. Errors are counted for each object: one
//! broken layer tells nothing of other images, and one odd name nothing of other names.

use std::time::Duration;

use entrepot_oci::{Authority, Digest, Reference, RepositoryName, Route};
use http::{HeaderMap, Method, StatusCode, header};
use moka::sync::Cache;
use tokio::time::Instant;

use super::fields::text;
use super::identity::Identity;
use crate::memory::{NAME, Shares, table};
use crate::upstream::is_passing;

/// Between two requests to a registry that has had enough.
const PACE: Duration = Duration::from_secs(1);
/// The longest `Retry-After` that is kept to: quotas of hours are asked about now and then.
const LONGEST: Duration = Duration::from_mins(5);
/// Errors of its own in a row after which a registry is unwell: one may be a single request's.
const UNWELL: u32 = 3;
/// A registry that was not asked for so long is asked as any other.
const FORGOTTEN: Duration = Duration::from_mins(10);

/// What kind of question it is, as registries count and serve them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A pull, where pulls are counted.
    Manifest,
    /// What a tag means.
    ManifestHead,
    Blob,
    Listing,
    Ping,
    /// Whatever else: each is a question of its own.
    Other,
}

impl Kind {
    /// Whether a registry has to do little for an answer: one that takes long is slow.
    pub(super) fn is_quickly_answered(self) -> bool {
        match self {
            Self::Manifest | Self::ManifestHead | Self::Ping => true,
            Self::Blob | Self::Listing | Self::Other => false,
        }
    }
}

/// What of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Object {
    Manifest(Reference),
    Blob(Digest),
    ReferrersOf(Digest),
}

/// What a question is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Topic {
    authority: Authority,
    kind: Kind,
    repository: Option<RepositoryName>,
    object: Option<Object>,
}

impl Topic {
    /// A question for `route` of the registry at `authority`.
    pub(crate) fn new(authority: &Authority, method: &Method, route: &Route) -> Self {
        let kind = match route {
            Route::Manifest { .. } if method == Method::HEAD => Kind::ManifestHead,
            Route::Manifest { .. } => Kind::Manifest,
            Route::Blob { .. } => Kind::Blob,
            Route::Tags { .. } | Route::Referrers { .. } => Kind::Listing,
            Route::Ping => Kind::Ping,
            Route::Upload { .. } | Route::Api | Route::Other => Kind::Other,
        };
        let object = match route {
            Route::Manifest { reference, .. } => Some(Object::Manifest(reference.clone())),
            Route::Blob { digest, .. } => Some(Object::Blob(*digest)),
            Route::Referrers { subject, .. } => Some(Object::ReferrersOf(*subject)),
            Route::Tags { .. } | Route::Ping | Route::Upload { .. } | Route::Api | Route::Other => {
                None
            }
        };
        let repository = route.repository().cloned();
        Self { authority: authority.clone(), kind, repository, object }
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn repository(&self) -> Option<&RepositoryName> {
        self.repository.as_ref()
    }

    /// Whatever of the kind, in the same repository.
    fn of_repository(&self) -> Self {
        Self { object: None, ..self.clone() }
    }
}

/// At which registry a 429 holds, for what, and for which identity; `None` is all of them.
type QuotaKey = (Authority, Kind, Option<Identity>);

/// Who is held back at a topic; `None` is everybody.
type TopicKey = (Topic, Option<Identity>);

/// A refusal: when to ask again, and with what the registry has refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal {
    next: Instant,
    status: StatusCode,
}

impl Refusal {
    fn lasting(wait: Duration, status: StatusCode) -> Self {
        Self { next: Instant::now() + wait, status }
    }

    /// How long until the next place, and why, if there is none now.
    fn left(&self) -> Option<(Duration, StatusCode)> {
        let wait = self.next.checked_duration_since(Instant::now())?;
        (!wait.is_zero()).then_some((wait, self.status))
    }

    /// The place has been taken: the next is a moment later.
    fn paced(self) -> Self {
        Self { next: Instant::now() + PACE, ..self }
    }
}

/// A refusal by a 429, and about which repository it was given.
#[derive(Debug, Clone)]
struct Limit {
    refusal: Refusal,
    about: Option<RepositoryName>,
}

/// Why a question has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// How long yet.
    pub(crate) wait: Duration,
    /// With what the registry has refused.
    pub(crate) status: StatusCode,
    /// Whether that was about this very repository.
    pub(crate) is_own: bool,
}

/// An answer, as far as it tells of a registry's state.
#[derive(Clone, Copy)]
pub(crate) struct Sign<'a> {
    pub(crate) status: StatusCode,
    /// The status again, where it tells of the registry's own state.
    pub(crate) trouble: Option<StatusCode>,
    /// Whether the question had nothing in it that may have brought the answer about.
    pub(crate) is_plain: bool,
    pub(crate) headers: &'a HeaderMap,
}

/// Who has been refused where.
pub(crate) struct Pressure {
    /// By 429, of the kind.
    limited: Cache<QuotaKey, Limit>,
    /// By 429, in the repository.
    limited_here: Cache<TopicKey, Refusal>,
    /// The last to be refused so, without a word on whose quota it was.
    last: Cache<(Authority, Kind), Identity>,
    /// Whom a registry has served.
    served: Cache<(Authority, Identity), ()>,
    /// By errors.
    unwell: Cache<TopicKey, Refusal>,
    /// Errors in a row.
    errors: Cache<TopicKey, u32>,
}

impl Pressure {
    /// Nobody was refused yet.
    pub(crate) fn new(shares: Shares) -> Self {
        let bytes = shares.small_table();
        Self {
            limited: table(bytes, |_, _| 2 * NAME).time_to_idle(FORGOTTEN).build(),
            limited_here: table(bytes, |_, _| 2 * NAME).time_to_idle(FORGOTTEN).build(),
            last: table(bytes, |_, _| NAME).time_to_live(FORGOTTEN).build(),
            served: table(bytes, |_, ()| NAME).time_to_live(FORGOTTEN).build(),
            unwell: table(bytes, |_, _| 3 * NAME).time_to_idle(FORGOTTEN).build(),
            errors: table(bytes, |_, _| 3 * NAME).time_to_live(FORGOTTEN).build(),
        }
    }

    /// A place in the queue, or how long until the next and why.
    pub(crate) fn admit(&self, topic: &Topic, identity: &Identity) -> Result<(), Held> {
        if let Some(held) = self.held(topic, identity) {
            return Err(held);
        }
        for key in quota_keys(topic, identity) {
            if let Some(limit) = self.limited.get(&key) {
                self.limited.insert(key, Limit { refusal: limit.refusal.paced(), ..limit });
            }
        }
        self.pace(topic, identity);
        Ok(())
    }

    /// As `admit`, for who must be asked about whatever other repositories have met.
    pub(crate) fn admit_here(&self, topic: &Topic, identity: &Identity) -> Result<(), Held> {
        if let Some(held) = self.held_here(topic, identity) {
            return Err(held);
        }
        self.pace(topic, identity);
        Ok(())
    }

    fn pace(&self, topic: &Topic, identity: &Identity) {
        let here = (topic.of_repository(), Some(identity.clone()));
        if let Some(refusal) = self.limited_here.get(&here) {
            self.limited_here.insert(here, refusal.paced());
        }
        for key in topic_keys(topic, identity) {
            if let Some(refusal) = self.unwell.get(&key) {
                self.unwell.insert(key, refusal.paced());
            }
        }
    }

    /// The registries that hold the shared identity back now: for how long yet, and with what they
    /// refused it; one line for each registry and status.
    pub(crate) fn on_us(&self) -> Vec<(Authority, Duration, StatusCode)> {
        let is_ours =
            |who: &Option<Identity>| who.as_ref().is_none_or(|who| *who == Identity::Shared);
        let limited = self.limited.iter().filter(|(key, _)| is_ours(&key.2));
        let limited = limited.map(|(key, limit)| (key.0.clone(), limit.refusal));
        let here = self.limited_here.iter().chain(self.unwell.iter());
        let here = here.filter(|(key, _)| is_ours(&key.1));
        let here = here.map(|(key, refusal)| (key.0.authority.clone(), refusal));
        let now = Instant::now();
        let mut all: Vec<_> = limited
            .chain(here)
            .map(|(authority, refusal)| {
                (authority, refusal.next.saturating_duration_since(now), refusal.status)
            })
            .collect();
        // The longest first, so that it is the one that stays.
        all.sort_unstable_by(|a, b| (&a.0, a.2, b.1).cmp(&(&b.0, b.2, a.1)));
        all.dedup_by(|a, b| (&a.0, a.2) == (&b.0, b.2));
        all
    }

    /// How long until the next place, and why, if there is none now; takes none.
    pub(crate) fn held(&self, topic: &Topic, identity: &Identity) -> Option<Held> {
        self.held_here(topic, identity).or_else(|| {
            let limits = quota_keys(topic, identity).into_iter();
            let mut limits = limits.filter_map(|key| self.limited.get(&key));
            let (wait, status) = limits.find_map(|limit| limit.refusal.left())?;
            Some(Held { wait, status, is_own: false })
        })
    }

    /// As `held`, for what was said of this very repository.
    fn held_here(&self, topic: &Topic, identity: &Identity) -> Option<Held> {
        let here = (topic.of_repository(), Some(identity.clone()));
        let limited = self.limited_here.get(&here).and_then(|refusal| refusal.left());
        let unwell = || {
            let refusals = topic_keys(topic, identity).into_iter();
            let mut refusals = refusals.filter_map(|key| self.unwell.get(&key));
            refusals.find_map(|refusal| refusal.left())
        };
        let (wait, status) = limited.or_else(unwell)?;
        Some(Held { wait, status, is_own: true })
    }

    /// Notes an answer.
    pub(crate) fn note(&self, topic: &Topic, identity: &Identity, sign: Sign<'_>) {
        if sign.status.is_success() && topic.repository.is_some() {
            self.served.insert((topic.authority.clone(), identity.clone()), ());
        }
        match sign.trouble {
            None => self.relax(topic, identity),
            // Others have not asked so, and what they ask is not known to be refused.
            Some(_) if !sign.is_plain => {}
            Some(StatusCode::TOO_MANY_REQUESTS) => self.note_limit(topic, identity, sign.headers),
            Some(status) if tells_of_state(status) => self.note_error(topic, identity, status),
            Some(_) => {}
        }
    }

    fn note_limit(&self, topic: &Topic, identity: &Identity, headers: &HeaderMap) {
        let (wait, status) = (pause(headers), StatusCode::TOO_MANY_REQUESTS);
        let here = (topic.of_repository(), Some(identity.clone()));
        self.limited_here.insert(here, Refusal::lasting(wait, status));
        let [own, everybodys] = quota_keys(topic, identity);
        let is_of_quota = headers.contains_key("ratelimit-remaining");
        let before = self.limited.get(&own);
        let is_told_of_others = before.is_some_and(|before| before.about != topic.repository);
        let wait = if is_of_quota || is_told_of_others { wait } else { PACE };
        let limit =
            Limit { refusal: Refusal::lasting(wait, status), about: topic.repository.clone() };
        self.limited.insert(own, limit.clone());
        let who = (topic.authority.clone(), identity.clone());
        // Anybody can make credentials up, and be refused for them.
        if is_of_quota || !self.served.contains_key(&who) {
            return;
        }
        let about = (topic.authority.clone(), topic.kind);
        if self.last.get(&about).is_some_and(|last| last != *identity) {
            self.limited.insert(everybodys, limit);
        }
        self.last.insert(about, identity.clone());
    }

    fn note_error(&self, topic: &Topic, identity: &Identity, status: StatusCode) {
        if topic.kind == Kind::Other {
            // One odd question, asked again and again, tells nothing of the others.
            return;
        }
        // What a client sends beside may have brought it about for him.
        let who = (*identity != Identity::Shared).then(|| identity.clone());
        let key = (topic.clone(), who);
        let errors = self.errors.get(&key).unwrap_or(0).saturating_add(1);
        self.errors.insert(key.clone(), errors);
        if errors >= UNWELL {
            self.unwell.insert(key, Refusal::lasting(PACE, status));
        }
    }

    /// What was refused to others without a word on whose quota it was is over as well.
    fn relax(&self, topic: &Topic, identity: &Identity) {
        for key in quota_keys(topic, identity) {
            forget(&self.limited, &key);
        }
        forget(&self.limited_here, &(topic.of_repository(), Some(identity.clone())));
        forget(&self.last, &(topic.authority.clone(), topic.kind));
        for key in topic_keys(topic, identity) {
            forget(&self.unwell, &key);
            forget(&self.errors, &key);
        }
    }
}

/// Whether trouble with this status is the registry's, or of what stands before it, for now.
pub(super) fn tells_of_state(trouble: StatusCode) -> bool {
    // A refusal that counts as trouble is a page of bot protection.
    is_passing(trouble) || !trouble.is_server_error()
}

/// Takes an entry away that is seldom there: looking costs less than invalidating.
fn forget<K, V>(cache: &Cache<K, V>, key: &K)
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    if cache.contains_key(key) {
        cache.invalidate(key);
    }
}

/// For how long a 429 with these fields holds.
pub(super) fn pause(headers: &HeaderMap) -> Duration {
    let told = text(headers, header::RETRY_AFTER).and_then(|told| told.parse().ok());
    told.map_or(PACE, Duration::from_secs).clamp(PACE, LONGEST)
}

/// What may hold somebody back: a refusal of his own, or of everybody.
fn quota_keys(topic: &Topic, identity: &Identity) -> [QuotaKey; 2] {
    [Some(identity.clone()), None].map(|who| (topic.authority.clone(), topic.kind, who))
}

/// At which topics somebody may be held back: as himself, or with everybody.
fn topic_keys(topic: &Topic, identity: &Identity) -> [TopicKey; 2] {
    [Some(identity.clone()), None].map(|who| (topic.clone(), who))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::identity::Identifier;
    use http::HeaderValue;

    fn client(name: &'static str) -> Identity {
        thread_local!(static IDENTIFIER: Identifier = Identifier::new());
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static(name));
        IDENTIFIER.with(|identifier| identifier.identify(&headers))
    }

    fn note(
        pressure: &Pressure,
        topic: &Topic,
        who: &Identity,
        trouble: Option<StatusCode>,
        headers: &HeaderMap,
    ) {
        let status = trouble.unwrap_or(StatusCode::OK);
        pressure.note(topic, who, Sign { status, trouble, is_plain: true, headers });
    }

    fn topic(repository: &str, method: &Method) -> Topic {
        let hub = "registry-1.docker.io:443".parse().unwrap();
        let route = Route::parse(&format!("/v2/{repository}/manifests/1"), None);
        Topic::new(&hub, method, &route)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_refused_is_not_held_back() {
        let pressure = Pressure::new(Shares::new(Some(0)));
        let pull = topic("a/b", &Method::GET);
        let blob = {
            let digest = format!("sha256:{}", "a".repeat(64));
            let route = Route::parse(&format!("/v2/a/b/blobs/{digest}"), None);
            Topic::new(&"registry-1.docker.io:443".parse().unwrap(), &Method::GET, &route)
        };
        let other = topic("c/d", &Method::GET);
        let limited = Some(StatusCode::TOO_MANY_REQUESTS);
        note(&pressure, &pull, &Identity::Shared, limited, &HeaderMap::new());
        for held in [&pull, &other] {
            assert!(pressure.admit(held, &Identity::Shared).is_err(), "{held:?}");
        }
        for free in [&blob, &topic("a/b", &Method::HEAD)] {
            assert!(pressure.admit(free, &Identity::Shared).is_ok(), "{free:?}");
        }
        note(&pressure, &pull, &Identity::Shared, None, &HeaderMap::new());
        for _ in 0..UNWELL {
            let broken = Some(StatusCode::BAD_GATEWAY);
            note(&pressure, &blob, &Identity::Shared, broken, &HeaderMap::new());
        }
        assert!(pressure.admit(&blob, &Identity::Shared).is_err());
        for free in [&pull, &other] {
            assert!(pressure.admit(free, &Identity::Shared).is_ok(), "{free:?}");
        }
        let hub = "registry-1.docker.io:443".parse().unwrap();
        let odd = Topic::new(&hub, &Method::GET, &Route::parse("/v2/a/manifests/!", None));
        for _ in 0..=UNWELL {
            let broken = Some(StatusCode::INTERNAL_SERVER_ERROR);
            note(&pressure, &odd, &Identity::Shared, broken, &HeaderMap::new());
        }
        assert!(pressure.admit(&odd, &Identity::Shared).is_ok());
        let told: Vec<_> = pressure.on_us().into_iter().map(|(.., status)| status).collect();
        assert_eq!(told, [StatusCode::BAD_GATEWAY]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_client_is_held_back_and_the_others_are_not() {
        let pressure = Pressure::new(Shares::new(Some(0)));
        let hub = topic("a/b", &Method::GET);
        let (shared, alice) = (Identity::Shared, client("alice"));
        let refuse = |who: &Identity| {
            let limited = Some(StatusCode::TOO_MANY_REQUESTS);
            note(&pressure, &hub, who, limited, &HeaderMap::new());
        };
        assert!(pressure.admit(&hub, &shared).is_ok());
        for known in [&shared, &alice] {
            note(&pressure, &hub, known, None, &HeaderMap::new());
        }
        refuse(&shared);
        refuse(&client("made up"));
        assert!(pressure.admit(&hub, &shared).is_err());
        assert!(pressure.admit(&hub, &alice).is_ok(), "she has a quota of her own");
        tokio::time::advance(PACE).await;
        assert!(pressure.admit(&hub, &shared).is_ok());
        assert!(pressure.admit(&hub, &shared).is_err(), "one a second");

        refuse(&alice);
        tokio::time::advance(PACE).await;
        assert!(pressure.admit(&hub, &client("bob")).is_ok());
        assert!(pressure.admit(&hub, &alice).is_err(), "now it is everybody's");
        note(&pressure, &hub, &alice, None, &HeaderMap::new());
        assert!(pressure.admit(&hub, &alice).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn errors_in_a_row_are_the_registrys_state() {
        let pressure = Pressure::new(Shares::new(Some(0)));
        let hub = topic("a/b", &Method::GET);
        let note = |status| note(&pressure, &hub, &Identity::Shared, status, &HeaderMap::new());
        for _ in 1..UNWELL {
            note(Some(StatusCode::BAD_GATEWAY));
            assert!(pressure.admit(&hub, &Identity::Shared).is_ok());
        }
        note(Some(StatusCode::BAD_GATEWAY));
        assert!(pressure.admit(&hub, &client("alice")).is_err());
        tokio::time::advance(PACE).await;
        assert!(pressure.admit(&hub, &client("alice")).is_ok());
        note(None);
        assert!(pressure.admit(&hub, &client("alice")).is_ok());
        note(Some(StatusCode::BAD_GATEWAY));
        assert!(pressure.admit(&hub, &client("alice")).is_ok(), "counted anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_quota_that_the_registry_tells_of_is_nobody_elses() {
        let pressure = Pressure::new(Shares::new(Some(0)));
        let hub = topic("a/b", &Method::GET);
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit-remaining", HeaderValue::from_static("0;w=21600"));
        for who in [Identity::Shared, client("alice")] {
            note(&pressure, &hub, &who, Some(StatusCode::TOO_MANY_REQUESTS), &headers);
            assert!(pressure.admit(&hub, &who).is_err());
        }
        assert!(pressure.admit(&hub, &client("bob")).is_ok());
        note(&pressure, &hub, &client("bob"), None, &HeaderMap::new());
        assert!(pressure.admit(&hub, &Identity::Shared).is_err(), "his luck is not theirs");
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_tells_of_the_registry_holds_others_back() {
        let pressure = Pressure::new(Shares::new(Some(0)));
        let [hub, other] = ["a/b", "c/d"].map(|name| topic(name, &Method::GET));
        let headers = HeaderMap::new();
        let told = |status: StatusCode, is_plain| {
            for _ in 0..=UNWELL {
                let trouble = Some(status);
                let sign = Sign { status, trouble, is_plain, headers: &headers };
                pressure.note(&hub, &Identity::Shared, sign);
            }
        };
        for of_question in [500, 501, 505, 508] {
            told(StatusCode::from_u16(of_question).unwrap(), true);
        }
        for oddly_asked in [429, 503] {
            told(StatusCode::from_u16(oddly_asked).unwrap(), false);
        }
        assert!(pressure.admit(&hub, &Identity::Shared).is_ok());
        for _ in 0..=UNWELL {
            note(&pressure, &hub, &client("x"), Some(StatusCode::BAD_GATEWAY), &headers);
        }
        assert!(pressure.admit(&hub, &client("x")).is_err(), "what he has met himself");
        assert!(pressure.admit(&hub, &Identity::Shared).is_ok());
        told(StatusCode::BAD_GATEWAY, true);
        let held = pressure.admit(&hub, &Identity::Shared).unwrap_err();
        assert!(held.is_own);
        assert!(pressure.admit(&other, &Identity::Shared).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_pause_is_one_repositorys_until_another_is_told_so() {
        let pressure = Pressure::new(Shares::new(Some(0)));
        let [hub, other, third] = ["a/b", "c/d", "e/f"].map(|name| topic(name, &Method::GET));
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("300"));
        let limited = Some(StatusCode::TOO_MANY_REQUESTS);
        note(&pressure, &hub, &Identity::Shared, limited, &headers);
        let held = pressure.admit(&other, &Identity::Shared).unwrap_err();
        assert_eq!((held.wait, held.is_own), (PACE, false));
        assert!(pressure.admit_here(&other, &Identity::Shared).is_ok(), "it has not been refused");
        tokio::time::advance(PACE).await;
        assert!(pressure.admit(&other, &Identity::Shared).is_ok());
        assert!(pressure.admit_here(&hub, &Identity::Shared).is_err());
        note(&pressure, &other, &Identity::Shared, limited, &headers);
        let held = pressure.admit(&third, &Identity::Shared).unwrap_err();
        assert_eq!((held.wait.as_secs(), held.is_own), (300, false));
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_kept_to() {
        let pressure = Pressure::new(Shares::new(Some(0)));
        let hub = topic("a/b", &Method::GET);
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
        let limited = Some(StatusCode::TOO_MANY_REQUESTS);
        note(&pressure, &hub, &Identity::Shared, limited, &headers);
        tokio::time::advance(Duration::from_secs(29)).await;
        let (wait, status) = (Duration::from_secs(1), StatusCode::TOO_MANY_REQUESTS);
        let told = Err(Held { wait, status, is_own: true });
        assert_eq!(pressure.admit(&hub, &Identity::Shared), told);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pressure.admit(&hub, &Identity::Shared).is_ok());
    }
}
