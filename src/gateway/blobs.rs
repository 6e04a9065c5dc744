//! Blobs, from the store or into it.

use entrepot_cache::{Digest, Lookup, Presence, Reader, Repository, Reservation, Start};
use http::{Method, Response, StatusCode, header};

use super::body::{ResponseBody, VerifiedBody};
use super::fill::{FillGuard, Opened, Source};
use super::headers::{cache_status, for_content, for_whole_content, returned, text};
use super::object::{Presentation, respond};
use super::ranges::ByteRanges;
use super::relay::passed_on;
use super::{Asked, Gateway, Served};
use crate::log::Outcome;
use crate::oci::RepositoryName;
use crate::upstream::body::IdleBody;
use crate::upstream::{UpstreamError, client::Followed};

/// A range that begins further than this beyond what has arrived is asked of the registry at
/// once: waiting for a download to get there takes longer than a request of its own.
const FAR: u64 = 8 * 1024 * 1024;
/// What registries call every blob.
const MEDIA_TYPE: &str = "application/octet-stream";

/// Answers a GET or HEAD of a blob.
pub(super) async fn serve(
    gateway: &Gateway,
    asked: Asked,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Served, UpstreamError> {
    let Some(records) = gateway.repository(&asked, repository) else {
        return super::relay::serve(gateway, asked).await;
    };
    let request = Request { gateway, asked, records, digest };
    if request.asked.method == Method::HEAD { request.head().await } else { request.get().await }
}

struct Request<'a> {
    gateway: &'a Gateway,
    asked: Asked,
    records: Repository,
    digest: &'a Digest,
}

impl Request<'_> {
    /// A HEAD never begins a download; its answer is the registry's.
    async fn head(&self) -> Result<Served, UpstreamError> {
        let headers = for_content(&self.asked.headers);
        let upstream = &self.gateway.parts.upstream;
        let Followed { response, .. } =
            upstream.follow(Method::HEAD, self.asked.target.clone(), headers).await?;
        Ok(passed_on(response, "fwd=request"))
    }

    async fn get(self) -> Result<Served, UpstreamError> {
        let registry = self.asked.registry.as_str();
        let found = self.gateway.parts.store.lookup(self.digest, registry).await;
        let (reader, outcome) = match found {
            Lookup::Absent(_) if self.is_far(0) => return self.pass_part().await,
            Lookup::Absent(reservation) => return self.fetch(reservation).await,
            Lookup::Kept(reader) => (reader, Outcome::Hit),
            Lookup::InFlight(reader) => (reader, Outcome::Joined),
        };
        let is_ours = reader.origin() == Some(registry) || self.is_delivered().await;
        if !(is_ours && self.is_confirmed().await?) {
            return self.pass_through().await;
        }
        if outcome == Outcome::Joined && self.is_far(reader.available()) {
            return self.pass_part().await;
        }
        Ok(self.kept_as(reader, outcome).await)
    }

    /// Whether this registry itself has delivered the object for this repository, or its delivery
    /// is just being recorded.
    async fn is_delivered(&self) -> bool {
        self.gateway.parts.fills.is_from(self.digest, &self.asked.registry)
            || self.records.content(self.digest).await.is_some()
    }

    /// Whether the registry would serve this request's credential now.
    async fn is_confirmed(&self) -> Result<bool, UpstreamError> {
        let headers = for_whole_content(&self.asked.headers);
        let upstream = &self.gateway.parts.upstream;
        Ok(upstream.inquire(&self.asked.target, headers).await?.is_consent())
    }

    fn is_far(&self, available: u64) -> bool {
        match text(&self.asked.headers, header::RANGE).and_then(ByteRanges::parse) {
            Some(ranges) => {
                ranges.earliest().is_none_or(|first| first > available.saturating_add(FAR))
            }
            None => false,
        }
    }

    async fn kept_as(&self, reader: Reader, outcome: Outcome) -> Served {
        let since = self.records.content(self.digest).await.map(|record| record.recorded);
        let status = if outcome == Outcome::Hit { "hit" } else { "fwd=miss; collapsed" };
        let shown = Presentation { media_type: MEDIA_TYPE, status, since };
        let response = respond(&Method::GET, &self.asked.headers, reader, &shown);
        Served::new(outcome, response)
    }

    /// Downloads the whole object into the store, or what is missing of it, and serves the client
    /// from there.
    async fn fetch(self, reservation: Reservation) -> Result<Served, UpstreamError> {
        let source = Source {
            upstream: self.gateway.parts.upstream.clone(),
            target: self.asked.target.clone(),
            headers: for_whole_content(&self.asked.headers),
        };
        let (start, response, length) = match source.open(reservation.resume_from()).await? {
            Opened::Rest(response, length) => (Start::Resumed, response, length),
            Opened::Whole(response) => {
                let length = content_length(&response);
                (Start::Fresh, response, length)
            }
            Opened::Other(response) => return Ok(passed_on(response, "fwd=miss")),
        };
        if self.is_certainly_wrong(length) {
            return Ok(self.unusable());
        }
        // Before the download can be found: whoever finds it looks here whether it may join.
        let fills = &self.gateway.parts.fills;
        let guard = fills.begin(*self.digest, self.asked.registry.clone());
        let (writer, reader) = match reservation.begin(start, length).await {
            Ok(begun) => begun,
            Err(error) => {
                tracing::warn!(%error, "the store can't take a download: passing it on instead");
                return self.pass_through().await;
            }
        };
        self.spawn_fill(source, response.into_body(), writer, guard);
        let shown =
            Presentation { media_type: MEDIA_TYPE, status: "fwd=miss; stored", since: None };
        let response = respond(&Method::GET, &self.asked.headers, reader, &shown);
        Ok(Served::new(Outcome::Miss, response))
    }

    fn spawn_fill(
        &self,
        source: Source,
        body: IdleBody,
        writer: entrepot_cache::Writer,
        guard: FillGuard,
    ) {
        let registry = self.asked.registry.clone();
        let (records, digest) = (self.records.clone(), *self.digest);
        self.gateway.parts.tasks.spawn(async move {
            match source.fill(body, writer).await {
                Ok(_) => record(&records, &digest).await,
                Err(error) => {
                    tracing::warn!(%registry, %digest, %error, "a download failed");
                }
            }
            drop(guard);
        });
    }

    /// Asks the registry although the object lies here: it has not delivered it for this
    /// repository yet, or would not serve this client. What comes is its own answer.
    async fn pass_through(self) -> Result<Served, UpstreamError> {
        if text(&self.asked.headers, header::RANGE).is_some() {
            return self.pass_part().await;
        }
        let headers = for_content(&self.asked.headers);
        let upstream = &self.gateway.parts.upstream;
        let target = self.asked.target.clone();
        let response = upstream.follow(Method::GET, target, headers).await?.response;
        if is_plain_content(&response) {
            if self.is_certainly_wrong(content_length(&response)) {
                return Ok(self.unusable());
            }
            Ok(self.passed_verified(response))
        } else {
            Ok(passed_on(response, "fwd=miss"))
        }
    }

    /// Whether an answer is empty and the object is not: nothing of it could be held back.
    fn is_certainly_wrong(&self, length: Option<u64>) -> bool {
        length == Some(0) && Digest::of(self.digest.algorithm(), b"") != *self.digest
    }

    fn unusable(&self) -> Served {
        super::errors::unusable(&self.asked.registry, "an empty answer in place of the blob")
    }

    /// Passes a whole object on, checked; once it has come right, the registry has delivered it.
    fn passed_verified(&self, response: Response<IdleBody>) -> Served {
        let (records, digest) = (self.records.clone(), *self.digest);
        let store = self.gateway.parts.store.clone();
        let tasks = self.gateway.parts.tasks.clone();
        let on_success = Box::new(move || {
            if store.contains(&digest) == Presence::Kept {
                tasks.spawn(async move { record(&records, &digest).await });
            }
        });
        let (head, body) = response.into_parts();
        let verified = VerifiedBody::new(body, *self.digest, on_success);
        let mut response = Response::new(ResponseBody::Verified(Box::new(verified)));
        *response.headers_mut() = returned(&head.headers);
        cache_status(response.headers_mut(), "fwd=miss");
        Served::new(Outcome::Miss, response)
    }

    /// Passes on the part that the client wants, as the registry sends it.
    async fn pass_part(self) -> Result<Served, UpstreamError> {
        let headers = for_content(&self.asked.headers);
        let upstream = &self.gateway.parts.upstream;
        let target = self.asked.target.clone();
        let followed = upstream.follow(Method::GET, target, headers).await?;
        Ok(passed_on(followed.response, "fwd=partial"))
    }
}

/// Notes that the registry delivered this object for this repository.
async fn record(records: &Repository, digest: &Digest) {
    if let Err(error) = records.record_content(digest, Some(MEDIA_TYPE)).await {
        tracing::warn!(%digest, %error, "a record could not be written");
    }
}

/// A 200 whose bytes are the object's own: an encoded body hashes to something else.
pub(super) fn is_plain_content(response: &Response<IdleBody>) -> bool {
    let encoding = text(response.headers(), header::CONTENT_ENCODING).unwrap_or("identity");
    response.status() == StatusCode::OK && encoding.eq_ignore_ascii_case("identity")
}

pub(super) fn content_length(response: &Response<IdleBody>) -> Option<u64> {
    text(response.headers(), header::CONTENT_LENGTH)?.parse().ok()
}
