//! How registries want to be authenticated to, remembered.
//!
//! A registry's challenge is the same for everybody and changes with its operator's moods: it is
//! kept in memory and on disk, so that a client's first question is answered without the registry.

use std::sync::Arc;
use std::time::Duration;

use entrepot_cache::Fact;
use entrepot_oci::Registry;
use entrepot_oci::challenge::Challenge;
use http::{HeaderMap, HeaderValue, header};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::token_server::Realm;
use crate::memory::{NAME, Shares, table};
use crate::records::Archive;
use crate::upstream::{Target, UpstreamError};

/// The longest of a challenge's parts that is believed: realms are URLs, and none is near it.
const LONGEST: usize = 4 * 1024;
/// How long the registry is not asked again.
const FRESH: Duration = Duration::from_hours(1);
/// How often it is asked again although it has said something, since that leads nowhere.
const DOUBTED: Duration = Duration::from_secs(30);
/// How long after a question that was left unanswered the next is given up without being asked.
const SILENT: Duration = Duration::from_secs(5);

/// How a registry wants to be authenticated to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scheme", rename_all = "lowercase")]
pub(crate) enum Authentication {
    /// Not at all.
    None,
    /// With a name and a password in every request.
    Basic {
        /// The challenge as it came.
        challenge: String,
    },
    /// With a token.
    Bearer {
        /// The token server's URL.
        realm: String,
        /// Who the tokens are for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
    },
}

impl Authentication {
    /// What a registry's 401 says; `None` where that is nothing usable.
    pub(crate) fn of_challenge(registry: &Target, headers: &HeaderMap) -> Option<Self> {
        let challenges: Vec<_> = all(headers).collect();
        let bearer = challenges.iter().find_map(|(_, challenge)| {
            let bearer = challenge.bearer()?;
            let is_usual = |text: &str| text.len() <= LONGEST;
            if !is_usual(bearer.realm) || !bearer.service.is_none_or(is_usual) {
                return None;
            }
            Realm::parse(registry, bearer.realm, bearer.service).ok()?;
            let service = bearer.service.map(str::to_owned);
            Some(Self::Bearer { realm: bearer.realm.to_owned(), service })
        });
        bearer.or_else(|| {
            let is_usable = |(value, challenge): &&(&str, Challenge)| {
                challenge.scheme == "basic" && value.len() <= LONGEST
            };
            let basic = challenges.iter().find(is_usable);
            basic.map(|(value, _)| Self::Basic { challenge: (*value).to_owned() })
        })
    }

    /// The token server that a 401 for some repository leads to.
    pub(crate) fn bearer_of(registry: &Target, headers: &HeaderMap) -> Option<Self> {
        let told = Self::of_challenge(registry, headers);
        told.filter(|told| matches!(told, Self::Bearer { .. }))
    }

    /// What it has on the heap.
    fn weight(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Basic { challenge } => challenge.len(),
            Self::Bearer { realm, service } => {
                realm.len() + service.as_ref().map_or(0, String::len)
            }
        }
    }

    /// The token server.
    pub(crate) fn realm(&self, registry: &Target) -> Option<Realm> {
        let Self::Bearer { realm, service } = self else { return None };
        Realm::parse(registry, realm, service.as_deref()).ok()
    }
}

impl Authentication {
    /// Leads a client that is sent to this token server to our own token endpoint, on the host that
    /// it trusts already. Any other realm stays as it is.
    pub(crate) fn lead_to(&self, registry: &Target, own_realm: &str, headers: &mut HeaderMap) {
        let Some(known) = self.realm(registry) else { return };
        let rewritten: Vec<_> = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .map(|value| {
                through_us(value, registry, &known, own_realm).unwrap_or_else(|| value.clone())
            })
            .collect();
        headers.remove(header::WWW_AUTHENTICATE);
        for value in rewritten {
            headers.append(header::WWW_AUTHENTICATE, value);
        }
    }
}

#[derive(Clone)]
struct KnownChallenge {
    authentication: Authentication,
    since: Instant,
}

/// The challenges of all registries.
pub(crate) struct Challenges {
    known: Cache<Registry, KnownChallenge>,
    /// Whose challenge was asked for lately because it seemed to be wrong.
    doubted: Cache<Registry, ()>,
    /// Who has just left that question unanswered, for as long as it is waited for.
    silent: Cache<Registry, Arc<UpstreamError>>,
}

impl Challenges {
    /// Nothing is known yet.
    pub(crate) fn new(shares: Shares) -> Self {
        let weight = |registry: &Registry, known: &KnownChallenge| {
            registry.as_str().len() + known.authentication.weight()
        };
        let known = table(shares.small_table(), weight).build();
        let doubted =
            table(shares.small_table(), |registry: &Registry, ()| registry.as_str().len());
        let silent = table(shares.small_table(), |registry: &Registry, _: &Arc<_>| {
            registry.as_str().len() + NAME
        });
        let silent = silent.time_to_live(SILENT).build();
        Self { known, doubted: doubted.time_to_live(DOUBTED).build(), silent }
    }

    /// Notes a question that has failed; returns the failure, to be told. One that was waited for
    /// is not worth as long a wait again: a client asks for the manifest right after its ping.
    pub(crate) fn note_failure(&self, registry: &Registry, error: UpstreamError) -> UpstreamError {
        if !error.is_silence() {
            return error;
        }
        let error = Arc::new(error);
        self.silent.insert(registry.clone(), error.clone());
        UpstreamError::Shared(error)
    }

    /// That the registry has just left the question unanswered, if it has.
    pub(crate) fn silence(&self, registry: &Registry) -> Option<UpstreamError> {
        self.silent.get(registry).map(UpstreamError::Shared)
    }

    /// Whether a challenge that seems to be wrong is to be asked for anew: once in a while, or a
    /// token server that is away would have the registry asked at every request.
    pub(crate) fn may_doubt(&self, registry: &Registry) -> bool {
        self.doubted.entry_by_ref(registry).or_insert(()).is_fresh()
    }

    /// What the registry has said within the last hour.
    pub(crate) fn fresh(&self, registry: &Registry) -> Option<Authentication> {
        let known = self.known.get(registry)?;
        (known.since.elapsed() < FRESH).then_some(known.authentication)
    }

    /// What the registry has said last, be it before the proxy's last start.
    pub(crate) async fn last(
        &self,
        archive: &Archive,
        registry: &Registry,
    ) -> Option<Authentication> {
        if let Some(known) = self.known.get(registry) {
            return Some(known.authentication);
        }
        let records = archive.registry(registry);
        match records.fact(Fact::Challenge).await {
            Some(known) => Some(known),
            None => records.shared_fact(Fact::Challenge).await,
        }
    }

    /// Remembers what the registry says of itself: in its 401 to an anonymous `/v2/`. To
    /// others, and elsewhere, some say other things.
    pub(crate) async fn learn(
        &self,
        archive: &Archive,
        registry: &Registry,
        asked: &Target,
        headers: &HeaderMap,
    ) {
        if let Some(authentication) = Authentication::of_challenge(asked, headers) {
            self.remember(archive, registry, authentication).await;
        }
    }

    /// Remembers how the registry wants to be authenticated to.
    pub(crate) async fn remember(
        &self,
        archive: &Archive,
        registry: &Registry,
        authentication: Authentication,
    ) {
        let is_known = self.last(archive, registry).await.as_ref() == Some(&authentication);
        let known =
            KnownChallenge { authentication: authentication.clone(), since: Instant::now() };
        self.known.insert(registry.clone(), known);
        let records = archive.registry(registry);
        if !is_known && let Err(error) = records.record_fact(Fact::Challenge, authentication).await
        {
            tracing::warn!(%registry, %error, "a challenge could not be recorded");
        }
    }
}

/// A challenge's field value with our realm in place of `known`, if that is in it.
fn through_us(
    value: &HeaderValue,
    registry: &Target,
    known: &Realm,
    own_realm: &str,
) -> Option<HeaderValue> {
    let is_known = |realm: &str| {
        Realm::parse(registry, realm, None).is_ok_and(|realm| realm.target == known.target)
    };
    let challenges = Challenge::parse_all(value.to_str().ok()?);
    let bearer = challenges
        .iter()
        .find(|challenge| challenge.bearer().is_some_and(|bearer| is_known(bearer.realm)))?;
    HeaderValue::try_from(bearer.with_realm(own_realm)).ok()
}

/// The scope that a 401 asks for.
pub(crate) fn scope_asked_for(headers: &HeaderMap) -> Option<String> {
    let is_usual = |scope: &&str| scope.len() <= LONGEST;
    all(headers)
        .find_map(|(_, challenge)| challenge.bearer()?.scope.filter(is_usual).map(str::to_owned))
}

/// The `error` that a 401 tells, as `invalid_token` or `insufficient_scope` (RFC 6750 §3.1).
pub(crate) fn error_told(headers: &HeaderMap) -> Option<String> {
    let is_usual = |error: &&str| error.len() <= LONGEST;
    all(headers)
        .find_map(|(_, challenge)| challenge.parameter("error").filter(is_usual).map(str::to_owned))
}

fn all(headers: &HeaderMap) -> impl Iterator<Item = (&str, Challenge)> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| {
        Challenge::parse_all(value).into_iter().map(move |challenge| (value, challenge))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Scheme;
    use entrepot_cache::Store;

    fn challenge(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        headers
    }

    fn hub() -> (Registry, Target) {
        let authority = "registry-1.docker.io:443".parse().unwrap();
        let registry = Registry::at(&authority);
        (registry, Target::of_registry(Scheme::Https, authority, "/v2/"))
    }

    #[test]
    fn a_challenge_is_read_as_what_can_be_used_of_it() {
        let of = |value| Authentication::of_challenge(&hub().1, &challenge(value));
        let realm = "https://auth.docker.io/token".to_owned();
        let bearer = Authentication::Bearer { realm, service: Some("x".to_owned()) };
        let value = r#"Basic realm="r", Bearer realm="https://auth.docker.io/token",service="x""#;
        assert_eq!(of(value), Some(bearer));
        let basic = Authentication::Basic { challenge: "Basic realm=\"r\"".to_owned() };
        assert_eq!(of("Basic realm=\"r\""), Some(basic));
        for unusable in ["", "Negotiate", "Bearer", r#"Bearer realm="http://a.example/""#] {
            assert_eq!(of(unusable), None, "{unusable}");
        }
    }

    #[tokio::test]
    async fn a_challenge_is_remembered_and_leads_through_us() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(entrepot_cache::Options::new(dir.path())).await.unwrap();
        let archive = Archive::new(store, None);
        let (registry, target) = hub();
        let value = r#"Bearer realm="https://auth.docker.io/token",service="x",scope="s""#;
        let challenges = Challenges::new(Shares::new(Some(0)));
        assert_eq!(challenges.last(&archive, &registry).await, None);
        challenges.learn(&archive, &registry, &target, &challenge(value)).await;
        let again = Challenges::new(Shares::new(Some(0)));
        assert_eq!(again.fresh(&registry), None, "another run");
        assert_eq!(again.last(&archive, &registry).await, challenges.fresh(&registry));

        let mut headers = challenge(value);
        let own = "https://registry-1.docker.io/entrepot/token";
        let known = again.last(&archive, &registry).await.unwrap();
        known.lead_to(&target, own, &mut headers);
        let expected = format!(r#"Bearer realm="{own}",service="x",scope="s""#);
        assert_eq!(headers[header::WWW_AUTHENTICATE], expected);
        let mut foreign = challenge(r#"Bearer realm="https://evil.example/token""#);
        known.lead_to(&target, own, &mut foreign);
        assert_eq!(foreign, challenge(r#"Bearer realm="https://evil.example/token""#));
    }

    #[tokio::test(start_paused = true)]
    async fn a_challenge_is_asked_for_again_after_an_hour() {
        let challenges = Challenges::new(Shares::new(Some(0)));
        let (registry, _) = hub();
        let known = KnownChallenge { authentication: Authentication::None, since: Instant::now() };
        challenges.known.insert(registry.clone(), known);
        assert!(challenges.fresh(&registry).is_some());
        tokio::time::advance(FRESH).await;
        assert!(challenges.fresh(&registry).is_none());
    }
}
