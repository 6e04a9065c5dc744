//! Registries that have had enough: after a 429, or several errors of their own in a row, they are
//! asked once a second, or when they said.
//!
//! Only what was refused is held back. A 429 is about one kind of question (the Hub counts GETs of
//! manifests, and neither blobs nor HEADs), and about somebody's quota: who was refused is held
//! back, not the others. Where two were, and the registry does not say whose quota it is, it is the
//! address that has had too much (the Hub calls that its abuse limit), and everybody is held back.
//! Errors are counted for each repository and kind: one broken layer tells nothing of other images.

use std::time::Duration;

use entrepot_oci::{Authority, RepositoryName, Route};
use http::{HeaderMap, Method, StatusCode, header};
use moka::sync::Cache;
use tokio::time::Instant;

use super::fields::text;
use super::identity::Identity;

/// Between two requests to a registry that has had enough.
const PACE: Duration = Duration::from_secs(1);
/// The longest `Retry-After` that is kept to: quotas of hours are asked about now and then.
const LONGEST: Duration = Duration::from_mins(5);
/// Entries of each kind kept at a time.
const MOST: u64 = 10_000;
/// Errors of its own in a row after which a registry is unwell: one may be a single request's.
const UNWELL: u32 = 3;
/// A registry that was not asked for so long is asked as any other.
const FORGOTTEN: Duration = Duration::from_mins(10);

/// What kind of question it is, as registries count and serve them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
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

/// What a question is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Topic {
    authority: Authority,
    kind: Kind,
    repository: Option<RepositoryName>,
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
        Self { authority: authority.clone(), kind, repository: route.repository().cloned() }
    }
}

/// At which registry a 429 holds, for what, and for which identity; `None` is all of them.
type QuotaKey = (Authority, Kind, Option<Identity>);

/// A refusal: when to ask again, and with what the registry has refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal {
    next: Instant,
    status: StatusCode,
}

impl Refusal {
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

/// Who has been refused where.
pub(crate) struct Pressure {
    /// By 429.
    limited: Cache<QuotaKey, Refusal>,
    /// The last to be refused so, without a word on whose quota it was.
    last: Cache<(Authority, Kind), Identity>,
    /// By errors.
    unwell: Cache<Topic, Refusal>,
    /// Errors in a row.
    errors: Cache<Topic, u32>,
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            limited: Cache::builder().max_capacity(MOST).time_to_idle(FORGOTTEN).build(),
            last: Cache::builder().max_capacity(MOST).time_to_live(FORGOTTEN).build(),
            unwell: Cache::builder().max_capacity(MOST).time_to_idle(FORGOTTEN).build(),
            errors: Cache::builder().max_capacity(MOST).time_to_live(FORGOTTEN).build(),
        }
    }
}

impl Pressure {
    /// A place in the queue, or how long until the next and why.
    pub(crate) fn admit(
        &self,
        topic: &Topic,
        identity: &Identity,
    ) -> Result<(), (Duration, StatusCode)> {
        if let Some(refusal) = self.refusal(topic, identity) {
            return Err(refusal);
        }
        for key in quota_keys(topic, identity) {
            if let Some(refusal) = self.limited.get(&key) {
                self.limited.insert(key, refusal.paced());
            }
        }
        if let Some(refusal) = self.unwell.get(topic) {
            self.unwell.insert(topic.clone(), refusal.paced());
        }
        Ok(())
    }

    /// The registries that hold the shared identity back now: for how long yet, and with what they
    /// refused it; one line for each registry and status.
    pub(crate) fn on_us(&self) -> Vec<(Authority, Duration, StatusCode)> {
        let is_ours = |key: &QuotaKey| key.2.as_ref().is_none_or(|who| *who == Identity::Shared);
        let limited = self.limited.iter().filter(|(key, _)| is_ours(key));
        let limited = limited.map(|(key, refusal)| (key.0.clone(), refusal));
        let unwell = self.unwell.iter();
        let unwell = unwell.map(|(topic, refusal)| (topic.authority.clone(), refusal));
        let now = Instant::now();
        let mut all: Vec<_> = limited
            .chain(unwell)
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
    pub(crate) fn refusal(
        &self,
        topic: &Topic,
        identity: &Identity,
    ) -> Option<(Duration, StatusCode)> {
        let limits = quota_keys(topic, identity).into_iter();
        let mut limits = limits.filter_map(|key| self.limited.get(&key));
        limits
            .find_map(|refusal| refusal.left())
            .or_else(|| self.unwell.get(topic).and_then(|refusal| refusal.left()))
    }

    /// Notes an answer; `trouble` is its status where that tells of the registry's own state.
    pub(crate) fn note(
        &self,
        topic: &Topic,
        identity: &Identity,
        trouble: Option<StatusCode>,
        headers: &HeaderMap,
    ) {
        match trouble {
            None => self.relax(topic, identity),
            Some(StatusCode::TOO_MANY_REQUESTS) => self.note_limit(topic, identity, headers),
            Some(status) => self.note_error(topic, status),
        }
    }

    fn note_limit(&self, topic: &Topic, identity: &Identity, headers: &HeaderMap) {
        let next = Instant::now() + pause(headers);
        let refusal = Refusal { next, status: StatusCode::TOO_MANY_REQUESTS };
        let [own, everybodys] = quota_keys(topic, identity);
        self.limited.insert(own, refusal);
        if headers.contains_key("ratelimit-remaining") {
            return;
        }
        let about = (topic.authority.clone(), topic.kind);
        if self.last.get(&about).is_some_and(|last| last != *identity) {
            self.limited.insert(everybodys, refusal);
        }
        self.last.insert(about, identity.clone());
    }

    fn note_error(&self, topic: &Topic, status: StatusCode) {
        if topic.kind == Kind::Other {
            // One odd question, asked again and again, tells nothing of the others.
            return;
        }
        let errors = self.errors.get(topic).unwrap_or(0).saturating_add(1);
        self.errors.insert(topic.clone(), errors);
        if errors >= UNWELL {
            let refusal = Refusal { next: Instant::now() + PACE, status };
            self.unwell.insert(topic.clone(), refusal);
        }
    }

    /// What was refused to others without a word on whose quota it was is over as well.
    fn relax(&self, topic: &Topic, identity: &Identity) {
        for key in quota_keys(topic, identity) {
            forget(&self.limited, &key);
        }
        forget(&self.last, &(topic.authority.clone(), topic.kind));
        forget(&self.unwell, topic);
        forget(&self.errors, topic);
    }
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

    fn topic(repository: &str, method: &Method) -> Topic {
        let hub = "registry-1.docker.io:443".parse().unwrap();
        let route = Route::parse(&format!("/v2/{repository}/manifests/1"), None);
        Topic::new(&hub, method, &route)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_refused_is_not_held_back() {
        let pressure = Pressure::default();
        let pull = topic("a/b", &Method::GET);
        let blob = {
            let digest = format!("sha256:{}", "a".repeat(64));
            let route = Route::parse(&format!("/v2/a/b/blobs/{digest}"), None);
            Topic::new(&"registry-1.docker.io:443".parse().unwrap(), &Method::GET, &route)
        };
        let other = topic("c/d", &Method::GET);
        let limited = Some(StatusCode::TOO_MANY_REQUESTS);
        pressure.note(&pull, &Identity::Shared, limited, &HeaderMap::new());
        for held in [&pull, &other] {
            assert!(pressure.admit(held, &Identity::Shared).is_err(), "{held:?}");
        }
        for free in [&blob, &topic("a/b", &Method::HEAD)] {
            assert!(pressure.admit(free, &Identity::Shared).is_ok(), "{free:?}");
        }
        pressure.note(&pull, &Identity::Shared, None, &HeaderMap::new());
        for _ in 0..UNWELL {
            let broken = Some(StatusCode::BAD_GATEWAY);
            pressure.note(&blob, &Identity::Shared, broken, &HeaderMap::new());
        }
        assert!(pressure.admit(&blob, &Identity::Shared).is_err());
        for free in [&pull, &other] {
            assert!(pressure.admit(free, &Identity::Shared).is_ok(), "{free:?}");
        }
        let hub = "registry-1.docker.io:443".parse().unwrap();
        let odd = Topic::new(&hub, &Method::GET, &Route::parse("/v2/a/manifests/!", None));
        for _ in 0..=UNWELL {
            let broken = Some(StatusCode::INTERNAL_SERVER_ERROR);
            pressure.note(&odd, &Identity::Shared, broken, &HeaderMap::new());
        }
        assert!(pressure.admit(&odd, &Identity::Shared).is_ok());
        let told: Vec<_> = pressure.on_us().into_iter().map(|(.., status)| status).collect();
        assert_eq!(told, [StatusCode::BAD_GATEWAY]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_client_is_held_back_and_the_others_are_not() {
        let pressure = Pressure::default();
        let hub = topic("a/b", &Method::GET);
        let (shared, alice) = (Identity::Shared, client("alice"));
        let refuse = |who: &Identity| {
            let limited = Some(StatusCode::TOO_MANY_REQUESTS);
            pressure.note(&hub, who, limited, &HeaderMap::new());
        };
        assert!(pressure.admit(&hub, &shared).is_ok());
        refuse(&shared);
        assert!(pressure.admit(&hub, &shared).is_err());
        assert!(pressure.admit(&hub, &alice).is_ok(), "she has a quota of her own");
        tokio::time::advance(PACE).await;
        assert!(pressure.admit(&hub, &shared).is_ok());
        assert!(pressure.admit(&hub, &shared).is_err(), "one a second");

        refuse(&alice);
        tokio::time::advance(PACE).await;
        assert!(pressure.admit(&hub, &client("bob")).is_ok());
        assert!(pressure.admit(&hub, &alice).is_err(), "now it is everybody's");
        pressure.note(&hub, &alice, None, &HeaderMap::new());
        assert!(pressure.admit(&hub, &alice).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn errors_in_a_row_are_the_registrys_state() {
        let pressure = Pressure::default();
        let hub = topic("a/b", &Method::GET);
        let note = |status| pressure.note(&hub, &Identity::Shared, status, &HeaderMap::new());
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
        let pressure = Pressure::default();
        let hub = topic("a/b", &Method::GET);
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit-remaining", HeaderValue::from_static("0;w=21600"));
        for who in [Identity::Shared, client("alice")] {
            pressure.note(&hub, &who, Some(StatusCode::TOO_MANY_REQUESTS), &headers);
            assert!(pressure.admit(&hub, &who).is_err());
        }
        assert!(pressure.admit(&hub, &client("bob")).is_ok());
        pressure.note(&hub, &client("bob"), None, &HeaderMap::new());
        assert!(pressure.admit(&hub, &Identity::Shared).is_err(), "his luck is not theirs");
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_kept_to() {
        let pressure = Pressure::default();
        let hub = topic("a/b", &Method::GET);
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
        let limited = Some(StatusCode::TOO_MANY_REQUESTS);
        pressure.note(&hub, &Identity::Shared, limited, &headers);
        tokio::time::advance(Duration::from_secs(29)).await;
        let told = Err((Duration::from_secs(1), StatusCode::TOO_MANY_REQUESTS));
        assert_eq!(pressure.admit(&hub, &Identity::Shared), told);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pressure.admit(&hub, &Identity::Shared).is_ok());
    }
}
