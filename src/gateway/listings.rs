//! Listings: a repository's tags, and what refers to a manifest.
//!
//! They change at any moment, so that they are kept for some seconds only; past that while the
//! registry can't be asked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_cache::{Fact, Presence};
use entrepot_oci::{Algorithm, Digest, Registry, Route, UnixSeconds};
use http::{HeaderMap, HeaderValue, Method, Response, header};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};

use super::access::Place;
use super::answer::body::ResponseBody;
use super::answer::errors::{say_api_version, unusable};
use super::answer::passed::passed_on;
use super::answer::provenance::{Forward, Provenance, Reason};
use super::answer::served::Served;
use super::exchange::Exchange;
use crate::collapse::{Collapse, Turn};
use crate::registry::answer::{content_length, is_plain_content, refuse_trouble};
use crate::registry::fields::{for_content, text};
use crate::registry::identity::Identity;
use crate::upstream::UpstreamError;
use crate::upstream::body::IdleBody;

/// How long a listing is served without asking.
const FRESH: Duration = Duration::from_secs(30);
/// Longer listings are passed on.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of all listings in memory.
const MAX_MEMORY: u64 = 64 * 1024 * 1024;
/// Longer ones are not written down.
const MAX_RECORD: usize = 40 * 1024;
/// Longest path and query whose listing is kept; no client's own is near it.
const LONGEST_TARGET: usize = 2048;
/// How long a request waits for another that asks for the same.
const PATIENCE: Duration = Duration::from_secs(10);
/// What of the registry's fields belongs to a listing. A `Link` is to the next page.
const FIELDS: [&str; 3] = ["content-type", "link", "oci-filters-applied"];

/// A listing as the registry gave it.
#[derive(Clone, Serialize, Deserialize)]
struct Listing {
    fields: Vec<(String, String)>,
    body: String,
    asked: UnixSeconds,
}

impl Listing {
    fn age(&self) -> Duration {
        self.asked.age().unwrap_or(Duration::MAX)
    }
}

/// What requests for listings share.
pub(super) struct Listings {
    /// By registry and by path and query.
    kept: Cache<(Registry, String), Listing>,
    asked: Collapse<(Place, Identity, String), ()>,
}

impl Default for Listings {
    fn default() -> Self {
        let weight = |key: &(Registry, String), listing: &Listing| {
            u32::try_from(key.1.len() + listing.body.len()).unwrap_or(u32::MAX)
        };
        let kept = Cache::builder().weigher(weight).max_capacity(MAX_MEMORY).build();
        Self { kept, asked: Collapse::default() }
    }
}

impl Listings {
    /// Answers a GET of a listing.
    pub(super) async fn serve(&self, exchange: Arc<Exchange>) -> Result<Served, UpstreamError> {
        let target = exchange.asked.target().path_and_query;
        ListingRequest { listings: self, exchange, target }.serve().await
    }
}

struct ListingRequest<'a> {
    listings: &'a Listings,
    exchange: Arc<Exchange>,
    /// Path and query.
    target: String,
}

impl ListingRequest<'_> {
    async fn serve(self) -> Result<Served, UpstreamError> {
        if let Some(served) = self.while_fresh().await {
            return Ok(served);
        }
        let Exchange { asked, client, rights, .. } = &*self.exchange;
        let question = (rights.place().clone(), client.identity.clone(), self.target.clone());
        let turn = self.listings.asked.turn(question, PATIENCE).await;
        if let Some(served) = self.while_fresh().await {
            return Ok(served);
        }
        let headers = for_content(&asked.headers);
        let answer = self.exchange.follow(Method::GET, &asked.target(), &headers).await;
        let (error, answer) = match answer {
            Ok(answer) => match refuse_trouble(&asked.authority, &answer) {
                Ok(()) => {
                    let served = self.keep(answer.response).await;
                    if let Turn::Lead(permit) = turn {
                        permit.tell(());
                    }
                    return Ok(served);
                }
                Err(error) => (error, Some(answer.response)),
            },
            Err(error) => (error, None),
        };
        if let Turn::Lead(permit) = turn {
            permit.give_up();
        }
        match (self.stale(&error).await, answer) {
            (Some(served), _) => Ok(served),
            (None, Some(response)) => Ok(passed_on(response, Forward::Miss)),
            (None, None) => Err(error),
        }
    }

    async fn while_fresh(&self) -> Option<Served> {
        let known = self.listings.kept.get(&self.key()).filter(|known| known.age() < FRESH)?;
        let may = self.exchange.rights.may_pull().await;
        may.then(|| shown(&known, Provenance::Kept(None)))
    }

    fn key(&self) -> (Registry, String) {
        (self.exchange.asked.registry.clone(), self.target.clone())
    }

    async fn stale(&self, error: &UpstreamError) -> Option<Served> {
        let rights = &self.exchange.rights;
        if !rights.may_pull_unasked(error).await {
            return None;
        }
        let known = match self.listings.kept.get(&self.key()) {
            Some(known) => known,
            None => rights.records().fact(Fact::Listing(&self.name()?)).await?,
        };
        Some(shown(&known, Provenance::Stale(Reason::Unreachable(error.to_string()))))
    }

    /// Under what the listing is written down, if it is: strangers could ask for as many as there
    /// are queries and digests.
    fn name(&self) -> Option<Digest> {
        let Exchange { common, asked, .. } = &*self.exchange;
        let is_of_something = match &asked.route {
            Route::Referrers { subject, .. } => common.store.contains(subject) == Presence::Kept,
            _ => true,
        };
        let is_plain = is_of_something && asked.query().is_none();
        is_plain.then(|| Digest::of(Algorithm::Sha256, self.target.as_bytes()))
    }

    async fn keep(&self, response: Response<IdleBody>) -> Served {
        let registry = &self.exchange.asked.registry;
        let is_json = text(response.headers(), header::CONTENT_TYPE)
            .is_some_and(|content_type| content_type.contains("json"));
        let is_long = content_length(&response).is_none_or(|length| length > MAX_BYTES as u64);
        if !is_json || is_long || !is_plain_content(&response) {
            return passed_on(response, Forward::Miss);
        }
        let (head, body) = response.into_parts();
        let bytes = match body.whole(MAX_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) => return unusable(registry, &error.to_string()),
        };
        let Ok(body) = String::from_utf8(bytes.into()) else {
            return unusable(registry, "a listing that is not text");
        };
        let listing = Listing { fields: fields(&head.headers), body, asked: UnixSeconds::now() };
        if self.target.len() <= LONGEST_TARGET {
            self.remember(&listing).await;
        }
        shown(&listing, Provenance::Stored)
    }

    async fn remember(&self, listing: &Listing) {
        self.listings.kept.insert(self.key(), listing.clone());
        if listing.body.len() > MAX_RECORD {
            return;
        }
        let records = self.exchange.rights.records();
        if let Some(name) = self.name()
            && let Err(error) = records.record_fact(Fact::Listing(&name), listing.clone()).await
        {
            tracing::warn!(%error, "a listing could not be recorded");
        }
    }
}

fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let field = |name: &str| Some((name.to_owned(), text(headers, name)?.to_owned()));
    FIELDS.iter().filter_map(|name| field(name)).collect()
}

fn shown(listing: &Listing, provenance: Provenance) -> Served {
    let mut response = Response::new(ResponseBody::full(Bytes::from(listing.body.clone())));
    let headers = response.headers_mut();
    for (name, value) in &listing.fields {
        let name = header::HeaderName::try_from(name.as_str());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    say_api_version(headers);
    if provenance != Provenance::Stored {
        headers.insert(header::AGE, HeaderValue::from(listing.age().as_secs()));
    }
    Served::new(provenance, response)
}
