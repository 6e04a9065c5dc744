//! Listings: a repository's tags, and what refers to a manifest.
//!
//! They change at any moment, so that they are kept for some seconds only; past that while the
//! registry can't be asked.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use entrepot_cache::{Fact, Presence};
use entrepot_oci::{Algorithm, Digest, Registry, RepositoryName, Route};
use http::{HeaderMap, HeaderValue, Method, Response, header};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};

use super::access::Rights;
use super::blobs::{content_length, is_plain_content, refuse_trouble};
use super::body::ResponseBody;
use super::caller::Caller;
use super::errors::unusable;
use super::headers::{cache_status, for_content, text};
use super::manifests::Errand;
use super::reason::Reason;
use super::relay::passed_on;
use super::{Asked, Gateway, Served};
use crate::log::Outcome;
use crate::upstream::UpstreamError;
use crate::upstream::realm::read_whole;

/// How long a listing is served without asking.
const FRESH: Duration = Duration::from_secs(30);
/// Longer listings are passed on.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of all listings in memory.
const MAX_MEMORY: u64 = 64 * 1024 * 1024;
/// Longer ones are not written down.
const MAX_RECORD: usize = 40 * 1024;
/// A longer query is nobody's who means it.
const LONGEST_TARGET: usize = 2048;
/// What of the registry's fields belongs to a listing. A `Link` is to the next page.
const FIELDS: [&str; 3] = ["content-type", "link", "oci-filters-applied"];

/// A listing as the registry gave it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Listing {
    fields: Vec<(String, String)>,
    body: String,
    asked: u64,
}

impl Listing {
    fn age(&self) -> Duration {
        let asked = UNIX_EPOCH.checked_add(Duration::from_secs(self.asked));
        asked.and_then(|asked| asked.elapsed().ok()).unwrap_or(Duration::MAX)
    }
}

/// The listings of all repositories, by registry and by path and query.
pub(super) struct Listings(Cache<(Registry, String), Listing>);

impl Default for Listings {
    fn default() -> Self {
        let weight = |key: &(Registry, String), listing: &Listing| {
            u32::try_from(key.1.len() + listing.body.len()).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().weigher(weight).max_capacity(MAX_MEMORY).build())
    }
}

/// Answers a GET of a listing.
pub(super) async fn serve(
    gateway: &Gateway,
    asked: Box<Asked>,
    route: &Route,
    repository: &RepositoryName,
) -> Result<Served, UpstreamError> {
    let caller = gateway.caller(&asked, Some(repository));
    let rights = caller.rights.clone();
    let Some(rights) = rights.filter(|_| asked.target.path_and_query.len() <= LONGEST_TARGET)
    else {
        return super::relay::serve(gateway, asked).await;
    };
    let subject = match route {
        Route::Referrers { subject, .. } => Some(*subject),
        _ => None,
    };
    let has_query = asked.target.path_and_query.contains('?');
    Request { gateway, asked, caller, rights, subject, has_query }.serve().await
}

struct Request<'a> {
    gateway: &'a Gateway,
    asked: Box<Asked>,
    caller: Caller,
    rights: Arc<Rights>,
    subject: Option<Digest>,
    has_query: bool,
}

impl Request<'_> {
    async fn serve(self) -> Result<Served, UpstreamError> {
        let parts = &self.gateway.parts;
        if let Some(served) = self.while_fresh().await {
            return Ok(served);
        }
        let errand = Errand::new(&self.rights, &self.caller, &self.asked.target.path_and_query);
        let _turn = parts.errands.wait(errand).await;
        if let Some(served) = self.while_fresh().await {
            return Ok(served);
        }
        let headers = for_content(&self.asked.headers);
        let answer = self.caller.follow(Method::GET, &self.asked.target, &headers).await;
        let (error, answer) = match answer {
            Ok(answer) => match refuse_trouble(&self.asked.target.authority, &answer) {
                Ok(()) => return self.keep(answer.response).await,
                Err(error) => (error, Some(answer.response)),
            },
            Err(error) => (error, None),
        };
        match (self.stale(&error).await, answer) {
            (Some(served), _) => Ok(served),
            (None, Some(response)) => Ok(passed_on(response, "fwd=miss")),
            (None, None) => Err(error),
        }
    }

    async fn while_fresh(&self) -> Option<Served> {
        let parts = &self.gateway.parts;
        let known = parts.listings.0.get(&self.key()).filter(|known| known.age() < FRESH)?;
        self.rights.may_pull(&parts.access).await.then(|| shown(&known, Outcome::Hit))
    }

    fn key(&self) -> (Registry, String) {
        (self.asked.registry.clone(), self.asked.target.path_and_query.clone())
    }

    async fn stale(&self, error: &UpstreamError) -> Option<Served> {
        let parts = &self.gateway.parts;
        if !self.rights.may_pull_unasked(&parts.access, error).await {
            return None;
        }
        let known = match parts.listings.0.get(&self.key()) {
            Some(known) => known,
            None => self.rights.records().fact(Fact::Listing(&self.name()?)).await?,
        };
        Some(shown(&known, Outcome::Stale).why(&Reason::Unreachable(error.to_string())))
    }

    /// Under what the listing is written down, if it is: strangers could ask for as many as there
    /// are queries and digests.
    fn name(&self) -> Option<Digest> {
        let store = &self.gateway.parts.store;
        let is_of_something = self.subject.is_none_or(|it| store.contains(&it) == Presence::Kept);
        let target = self.asked.target.path_and_query.as_bytes();
        (is_of_something && !self.has_query).then(|| Digest::of(Algorithm::Sha256, target))
    }

    async fn keep(
        &self,
        response: Response<crate::upstream::body::IdleBody>,
    ) -> Result<Served, UpstreamError> {
        let is_json = text(response.headers(), header::CONTENT_TYPE)
            .is_some_and(|content_type| content_type.contains("json"));
        let is_long = content_length(&response).is_none_or(|length| length > MAX_BYTES as u64);
        if !is_json || is_long || !is_plain_content(&response) {
            return Ok(passed_on(response, "fwd=miss"));
        }
        let (head, body) = response.into_parts();
        let bytes = match read_whole(body, MAX_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) => return Ok(unusable(&self.asked.registry, &error.to_string())),
        };
        let Ok(body) = String::from_utf8(bytes.into()) else {
            return Ok(unusable(&self.asked.registry, "a listing that is not text"));
        };
        let asked = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let listing = Listing { fields: fields(&head.headers), body, asked };
        self.remember(&listing).await;
        Ok(shown(&listing, Outcome::Miss))
    }

    async fn remember(&self, listing: &Listing) {
        self.gateway.parts.listings.0.insert(self.key(), listing.clone());
        if listing.body.len() > MAX_RECORD {
            return;
        }
        if let Some(name) = self.name()
            && let Err(error) =
                self.rights.records().record_fact(Fact::Listing(&name), listing.clone()).await
        {
            tracing::warn!(%error, "a listing could not be recorded");
        }
    }
}

fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let field = |name: &str| Some((name.to_owned(), text(headers, name)?.to_owned()));
    FIELDS.iter().filter_map(|name| field(name)).collect()
}

fn shown(listing: &Listing, outcome: Outcome) -> Served {
    let mut response = Response::new(ResponseBody::full(Bytes::from(listing.body.clone())));
    let headers = response.headers_mut();
    for (name, value) in &listing.fields {
        let name = header::HeaderName::try_from(name.as_str());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    let status = match outcome {
        Outcome::Hit => "hit",
        Outcome::Stale => "hit; detail=stale",
        _ => "fwd=miss; stored",
    };
    cache_status(headers, status);
    if outcome != Outcome::Miss {
        headers.insert(header::AGE, HeaderValue::from(listing.age().as_secs()));
    }
    Served::new(outcome, response)
}
