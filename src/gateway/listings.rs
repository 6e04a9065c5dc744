//! Listings: a repository's tags, and what refers to a manifest.
//!
//! They change at any moment, so that they are kept for some seconds only; past that while the
//! registry can't be asked. A registry may list less to one than to another: what it has listed to
//! a client is that client's, and what it has listed to everybody stands in for it where there is
//! nothing else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_cache::{Fact, Presence};
use entrepot_oci::{Algorithm, Digest, Route, UnixSeconds};
use http::{HeaderMap, HeaderValue, Method, Response, header};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};

use super::accept::Accept;
use super::access::Place;
use super::answer::addresses::absolute_links;
use super::answer::body::ResponseBody;
use super::answer::errors::{broken, say_api_version, unusable};
use super::answer::passed::passed_on;
use super::answer::provenance::{Forward, Provenance, Reason};
use super::answer::served::Served;
use super::exchange::Exchange;
use super::generations::Generation;
use crate::collapse::{Collapse, Turn};
use crate::memory::{Shares, table};
use crate::records::Records;
use crate::registry::answer::{content_length, is_plain_content, refuse_trouble};
use crate::registry::fields::{for_content, text};
use crate::registry::identity::Identity;
use crate::upstream::body::IdleBody;
use crate::upstream::client::AnsweredAt;
use crate::upstream::{Target, UpstreamError, via};

/// How long a listing is served without asking.
const FRESH: Duration = Duration::from_secs(30);
/// Longer listings are passed on.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// How long a listing stays in memory; past that what is written down stands in for it.
const LASTING: Duration = Duration::from_hours(24);
/// Of longer fields nothing is kept: a `Link` is a URL.
const LONGEST_FIELD: usize = 16 * 1024;
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
    #[serde(with = "as_text")]
    body: Bytes,
    asked: UnixSeconds,
    /// Of the question that it answers.
    #[serde(skip)]
    generation: Generation,
}

impl Listing {
    fn age(&self) -> Duration {
        self.asked.age().unwrap_or(Duration::MAX)
    }

    /// What it has on the heap.
    fn weight(&self) -> usize {
        let field = |(name, value): &(String, String)| {
            size_of::<(String, String)>() + name.len() + value.len()
        };
        size_of::<Self>() + self.body.len() + self.fields.iter().map(field).sum::<usize>()
    }
}

/// A body on record: text, as it came.
mod as_text {
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serializer, ser::Error as _};

    pub(super) fn serialize<S: Serializer>(body: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(std::str::from_utf8(body).map_err(S::Error::custom)?)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        String::deserialize(from).map(Bytes::from)
    }
}

/// Which listing, to whom, and in which form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ListingKey {
    place: Place,
    identity: Identity,
    /// Path and query.
    target: String,
    accept: Accept,
}

impl ListingKey {
    /// Under what it is written down.
    fn name(&self) -> Digest {
        let Self { target, accept, .. } = self;
        let text = match accept.as_str() {
            "" => target.clone(),
            accept => format!("{target}\n{accept}"),
        };
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }
}

/// What requests for listings share; cheap to clone.
#[derive(Clone)]
pub(super) struct Listings {
    kept: Cache<ListingKey, Arc<Listing>>,
    asked: Collapse<(ListingKey, Generation), ()>,
}

impl Listings {
    /// Nothing was listed yet.
    pub(super) fn new(shares: Shares) -> Self {
        let weight = |key: &ListingKey, listing: &Arc<Listing>| {
            key.place.weight() + key.target.len() + key.accept.as_str().len() + listing.weight()
        };
        let kept = table(shares.listings(), weight).time_to_live(LASTING).build();
        Self { kept, asked: Collapse::default() }
    }

    /// Answers a GET of a listing.
    pub(super) async fn serve(&self, exchange: Arc<Exchange>) -> Result<Served, UpstreamError> {
        let key = ListingKey {
            place: exchange.rights.place().clone(),
            identity: exchange.client.identity.clone(),
            target: exchange.asked.target().path_and_query,
            accept: Accept::of(&exchange.asked.headers),
        };
        ListingRequest { listings: self.clone(), exchange, key }.serve().await
    }

    /// Something was written to the repository: what was listed of it is not so any more.
    pub(super) async fn forget(&self, records: &Records, place: &Place) {
        let of_place = self.kept.iter().filter(|(key, _)| key.place == *place);
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
    key: ListingKey,
}

impl ListingRequest {
    async fn serve(self) -> Result<Served, UpstreamError> {
        if let Some(served) = self.while_fresh().await {
            return Ok(served);
        }
        if self.known().await.is_none() {
            return self.asking().await;
        }
        let (it, asked) = (self.clone(), &self.exchange.asked);
        let mut question = self.exchange.common.ask(asked, async move { it.asking().await });
        match question.in_time().await {
            Ok(answer) => answer,
            Err(late) => match self.stale(&late).await {
                Some(served) => Ok(served),
                None => question.answer().await,
            },
        }
    }

    async fn asking(self) -> Result<Served, UpstreamError> {
        let asked = &self.exchange.asked;
        let generation = self.exchange.generation();
        let question = (self.key.clone(), generation);
        let patience = via::patience(&asked.headers, PATIENCE);
        let turn = self.listings.asked.turn(question, patience).await;
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
        let known = self.listings.kept.get(&self.key)?;
        let is_fresh = known.age() < FRESH && known.generation == self.exchange.generation();
        let may = is_fresh && self.exchange.rights.may_pull().await;
        may.then(|| shown(&known, Provenance::Kept(None)))
    }

    async fn stale(&self, error: &UpstreamError) -> Option<Served> {
        if !self.exchange.rights.may_pull_unasked(error).await {
            return None;
        }
        let known = match self.known().await {
            Some(known) => known,
            None => self.of_everybody().await?,
        };
        Some(shown(&known, Provenance::Stale(Reason::Unreachable(error.to_string()))))
    }

    /// What the registry listed last to whom asks.
    async fn known(&self) -> Option<Arc<Listing>> {
        self.kept_as(&self.key).await
    }

    async fn kept_as(&self, key: &ListingKey) -> Option<Arc<Listing>> {
        match self.listings.kept.get(key) {
            Some(known) => Some(known),
            None if key.identity == Identity::Shared => {
                self.exchange.rights.records().fact(Fact::Listing(&key.name())).await.map(Arc::new)
            }
            None => None,
        }
    }

    /// What the registry listed last to everybody, in any form: all of it, where only some is asked
    /// for.
    async fn of_everybody(&self) -> Option<Arc<Listing>> {
        let everybodys = ListingKey { identity: Identity::Shared, ..self.key.clone() };
        let mut keys = vec![everybodys];
        keys.extend(self.unfiltered().map(|target| ListingKey {
            identity: Identity::Shared,
            target: target.to_owned(),
            ..self.key.clone()
        }));
        let plain = |key: &ListingKey| ListingKey { accept: Accept::default(), ..key.clone() };
        keys.extend(keys.iter().map(plain).collect::<Vec<_>>());
        for key in keys {
            if let Some(known) = self.kept_as(&key).await {
                return Some(known);
            }
        }
        None
    }

    /// The target of all referrers, where only those of some type are asked for: a client filters
    /// them itself where `OCI-Filters-Applied` does not say that it was done ("Listing Referrers"
    /// of the specification).
    fn unfiltered(&self) -> Option<&str> {
        let (path, query) = self.key.target.split_once('?')?;
        let is_filter = |pair: &str| pair.starts_with("artifactType=");
        let is_of_referrers = matches!(self.exchange.asked.route, Route::Referrers { .. });
        (is_of_referrers && query.split('&').all(is_filter)).then_some(path)
    }

    /// Whether the listing is written down: strangers could ask for as many as there are queries
    /// and digests, and what one client is told is nobody else's.
    fn is_written_down(&self) -> bool {
        let Exchange { common, asked, .. } = &*self.exchange;
        let is_of_something = match &asked.route {
            Route::Referrers { subject, .. } => common.store.contains(subject) == Presence::Kept,
            _ => true,
        };
        let is_everybodys = self.key.identity == Identity::Shared;
        is_everybodys && is_of_something && asked.query().is_none()
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
        let bytes = match body.whole_or_rest(MAX_BYTES, &self.exchange.asked.account).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(longer)) => return passed_on(Response::from_parts(head, longer), Forward::Miss),
            Err(error) => return broken(registry, &error),
        };
        if std::str::from_utf8(&bytes).is_err() {
            return unusable(registry, "a listing that is not text");
        }
        let base = head.extensions.get::<AnsweredAt>().map(|AnsweredAt(base)| base.clone());
        let base = base.unwrap_or_else(|| self.exchange.asked.target());
        let (fields, asked) = (fields(&base, &head.headers), UnixSeconds::now());
        let is_usual = fields.iter().all(|(_, value)| value.len() <= LONGEST_FIELD);
        let listing = Arc::new(Listing { fields, body: bytes, asked, generation });
        // It is served to those alone who may pull, and a listing says nothing of that.
        let may_be_used = generation == self.exchange.generation()
            && is_usual
            && self.key.target.len() <= LONGEST_TARGET
            && self.exchange.rights.may_pull().await;
        if !may_be_used {
            return shown(&listing, Provenance::Unkept);
        }
        // What is kept takes its share, and nothing of what is under way.
        let body = Bytes::copy_from_slice(&listing.body);
        let listing = Arc::new(Listing { body, ..Listing::clone(&listing) });
        self.remember(&listing).await;
        shown(&listing, Provenance::Stored)
    }

    async fn remember(&self, listing: &Arc<Listing>) {
        self.listings.kept.insert(self.key.clone(), listing.clone());
        if listing.body.len() > MAX_RECORD || !self.is_written_down() {
            return;
        }
        let (records, name) = (self.exchange.rights.records(), self.key.name());
        if let Err(error) = records.record_fact(Fact::Listing(&name), Listing::clone(listing)).await
        {
            tracing::warn!(%error, "a listing could not be recorded");
        }
    }
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
    let mut response = Response::new(ResponseBody::full(listing.body.clone()));
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
