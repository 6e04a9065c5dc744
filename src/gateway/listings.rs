//! Listings: a repository's tags, and what refers to a manifest.
//!
//! They change at any moment, so that they are kept for some seconds only; past that while the
//! registry can't be asked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_cache::{Fact, Presence, Repository};
use entrepot_oci::{Algorithm, Digest, Route, UnixSeconds};
use http::{HeaderMap, HeaderValue, Method, Response, header};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};

use super::access::Place;
use super::answer::addresses::absolute_links;
use super::answer::body::ResponseBody;
use super::answer::errors::{say_api_version, unusable};
use super::answer::passed::passed_on;
use super::answer::provenance::{Forward, Provenance, Reason};
use super::answer::served::Served;
use super::exchange::Exchange;
use super::generations::Generation;
use crate::collapse::{Collapse, Turn};
use crate::registry::answer::{content_length, is_plain_content, refuse_trouble};
use crate::registry::fields::{for_content, text};
use crate::registry::identity::Identity;
use crate::upstream::body::IdleBody;
use crate::upstream::client::AnsweredAt;
use crate::upstream::{Target, UpstreamError};

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
pub(super) struct Listing {
    fields: Vec<(String, String)>,
    body: String,
    asked: UnixSeconds,
    /// Of the question that it answers.
    #[serde(skip)]
    generation: Generation,
}

impl Listing {
    fn age(&self) -> Duration {
        self.asked.age().unwrap_or(Duration::MAX)
    }
}

/// What requests for listings share; cheap to clone.
#[derive(Clone)]
pub(super) struct Listings {
    /// By repository and by path and query.
    kept: Cache<(Place, String), Arc<Listing>>,
    asked: Collapse<(Place, Identity, String, Generation), ()>,
}

impl Default for Listings {
    fn default() -> Self {
        let weight = |key: &(Place, String), listing: &Arc<Listing>| {
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
        ListingRequest { listings: self.clone(), exchange, target }.serve().await
    }

    /// Something was written to the repository: what was listed of it is not so any more.
    pub(super) async fn forget(&self, records: &Repository, place: &Place) {
        let of_place = self.kept.iter().filter(|(key, _)| key.0 == *place);
        of_place.for_each(|(key, _)| self.kept.invalidate(&*key));
        if let Err(error) = records.forget_listings().await {
            tracing::warn!(%error, "the records of listings could not be removed");
        }
    }
}

#[derive(Clone)]
struct ListingRequest {
    listings: Listings,
    exchange: Arc<Exchange>,
    /// Path and query.
    target: String,
}

impl ListingRequest {
    async fn serve(self) -> Result<Served, UpstreamError> {
        if let Some(served) = self.while_fresh().await {
            return Ok(served);
        }
        if self.known().await.is_none() {
            return self.asking().await;
        }
        let (it, authority) = (self.clone(), &self.exchange.asked.authority);
        let mut question = self.exchange.common.ask(authority, async move { it.asking().await });
        match question.in_time().await {
            Ok(answer) => answer,
            Err(late) => match self.stale(&late).await {
                Some(served) => Ok(served),
                None => question.answer().await,
            },
        }
    }

    async fn asking(self) -> Result<Served, UpstreamError> {
        let Exchange { asked, client, rights, .. } = &*self.exchange;
        let generation = self.exchange.generation();
        let (place, identity) = (rights.place().clone(), client.identity.clone());
        let question = (place, identity, self.target.clone(), generation);
        let turn = self.listings.asked.turn(question, PATIENCE).await;
        if let Some(served) = self.while_fresh().await {
            return Ok(served);
        }
        let headers = for_content(&asked.headers);
        let answer = self.exchange.follow(Method::GET, &asked.target(), &headers).await;
        let (error, answer) = match answer {
            Ok(answer) => match refuse_trouble(&asked.authority, &answer) {
                Ok(()) => {
                    let served = self.keep(answer.response, generation).await;
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
        let known = self.listings.kept.get(&self.key())?;
        let is_fresh = known.age() < FRESH && known.generation == self.exchange.generation();
        let may = is_fresh && self.exchange.rights.may_pull().await;
        may.then(|| shown(&known, Provenance::Kept(None)))
    }

    fn key(&self) -> (Place, String) {
        (self.exchange.rights.place().clone(), self.target.clone())
    }

    async fn stale(&self, error: &UpstreamError) -> Option<Served> {
        if !self.exchange.rights.may_pull_unasked(error).await {
            return None;
        }
        let known = match self.known().await {
            Some(known) => known,
            None => self.unfiltered().await?,
        };
        Some(shown(&known, Provenance::Stale(Reason::Unreachable(error.to_string()))))
    }

    /// What the registry listed last.
    async fn known(&self) -> Option<Arc<Listing>> {
        match self.listings.kept.get(&self.key()) {
            Some(known) => Some(known),
            None if self.is_written_down() => self.recorded(&self.target).await,
            None => None,
        }
    }

    /// All referrers, where only those of some type are asked for: a client filters them itself
    /// where `OCI-Filters-Applied` does not say that it was done ("Listing Referrers" of the
    /// specification).
    async fn unfiltered(&self) -> Option<Arc<Listing>> {
        let (path, query) = self.target.split_once('?')?;
        let is_filter = |pair: &str| pair.starts_with("artifactType=");
        let is_of_referrers = matches!(self.exchange.asked.route, Route::Referrers { .. });
        if !is_of_referrers || !query.split('&').all(is_filter) {
            return None;
        }
        let key = (self.exchange.rights.place().clone(), path.to_owned());
        match self.listings.kept.get(&key) {
            Some(known) => Some(known),
            None => self.recorded(path).await,
        }
    }

    async fn recorded(&self, target: &str) -> Option<Arc<Listing>> {
        self.exchange.rights.records().fact(Fact::Listing(&name(target))).await.map(Arc::new)
    }

    /// Whether the listing is written down: strangers could ask for as many as there are queries
    /// and digests.
    fn is_written_down(&self) -> bool {
        let Exchange { common, asked, .. } = &*self.exchange;
        let is_of_something = match &asked.route {
            Route::Referrers { subject, .. } => common.store.contains(subject) == Presence::Kept,
            _ => true,
        };
        is_of_something && asked.query().is_none()
    }

    async fn keep(&self, response: Response<IdleBody>, generation: Generation) -> Served {
        let registry = &self.exchange.asked.registry;
        let is_json = text(response.headers(), header::CONTENT_TYPE)
            .is_some_and(|content_type| content_type.contains("json"));
        let is_long = content_length(&response).is_some_and(|length| length > MAX_BYTES as u64);
        if !is_json || is_long || !is_plain_content(&response) {
            return passed_on(response, Forward::Miss);
        }
        let (head, body) = response.into_parts();
        let bytes = match body.whole_or_rest(MAX_BYTES).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(longer)) => return passed_on(Response::from_parts(head, longer), Forward::Miss),
            Err(error) => return unusable(registry, &error.to_string()),
        };
        let Ok(body) = String::from_utf8(bytes.into()) else {
            return unusable(registry, "a listing that is not text");
        };
        let base = head.extensions.get::<AnsweredAt>().map(|AnsweredAt(base)| base.clone());
        let base = base.unwrap_or_else(|| self.exchange.asked.target());
        let (fields, asked) = (fields(&base, &head.headers), UnixSeconds::now());
        let listing = Arc::new(Listing { fields, body, asked, generation });
        // It is served to those alone who may pull, and a listing says nothing of that.
        let may_be_used = generation == self.exchange.generation()
            && self.target.len() <= LONGEST_TARGET
            && self.exchange.rights.may_pull().await;
        if !may_be_used {
            return shown(&listing, Provenance::Unkept);
        }
        self.remember(&listing).await;
        shown(&listing, Provenance::Stored)
    }

    async fn remember(&self, listing: &Arc<Listing>) {
        self.listings.kept.insert(self.key(), listing.clone());
        if listing.body.len() > MAX_RECORD || !self.is_written_down() {
            return;
        }
        let (records, name) = (self.exchange.rights.records(), name(&self.target));
        if let Err(error) = records.record_fact(Fact::Listing(&name), Listing::clone(listing)).await
        {
            tracing::warn!(%error, "a listing could not be recorded");
        }
    }
}

/// Under what a listing is written down.
fn name(target: &str) -> Digest {
    Digest::of(Algorithm::Sha256, target.as_bytes())
}

/// Links are kept absolute: who is served from here may come by another door.
fn fields(base: &Target, headers: &HeaderMap) -> Vec<(String, String)> {
    let field = |name: &str| {
        let value = text(headers, name)?;
        let value = match name {
            "link" => absolute_links(base, value),
            _ => value.to_owned(),
        };
        Some((name.to_owned(), value))
    };
    FIELDS.iter().filter_map(|name| field(name)).collect()
}

pub(super) fn shown(listing: &Listing, provenance: Provenance) -> Served {
    let mut response = Response::new(ResponseBody::full(Bytes::from(listing.body.clone())));
    let headers = response.headers_mut();
    for (name, value) in &listing.fields {
        let name = header::HeaderName::try_from(name.as_str());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    say_api_version(headers);
    if !matches!(provenance, Provenance::Stored | Provenance::Unkept) {
        headers.insert(header::AGE, HeaderValue::from(listing.age().as_secs()));
    }
    Served::new(provenance, response)
}
