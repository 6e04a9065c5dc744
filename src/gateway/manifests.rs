//! Manifests by digest and by tag.

use std::time::SystemTime;

use bytes::Bytes;
use entrepot_cache::{Digest, Lookup, Presence, Reader};
use http::{HeaderMap, Method, Response, StatusCode, header};

use super::access::Rights;
use super::blobs::{consents, content_length, is_plain_content};
use super::body::ResponseBody;
use super::caller::Caller;
use super::errors::unusable;
use super::headers::{cache_status, for_content, for_whole_content, returned, text};
use super::object::{Presentation, respond};
use super::relay::passed_on;
use super::{Asked, Gateway, Served};
use crate::log::Outcome;
use crate::oci::{Algorithm, ErrorCode, ErrorDocument, MediaType, Reference, RepositoryName};
use crate::upstream::body::IdleBody;
use crate::upstream::realm::read_whole;
use crate::upstream::{Target, UpstreamError, client::Followed};

/// The largest manifest kept. The specification asks registries for at least 4 MiB; engines take
/// little more.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Answers a GET or HEAD of a manifest.
pub(super) async fn serve(
    gateway: &Gateway,
    asked: Asked,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Served, UpstreamError> {
    let caller = gateway.caller(&asked, Some(repository));
    let Some(rights) = caller.rights.clone() else {
        return super::relay::serve(gateway, asked).await;
    };
    let request = Request { gateway, asked, caller, rights };
    match (&request.asked.method, reference) {
        (_, Reference::Digest(digest)) => request.by_digest(digest).await,
        (&Method::HEAD, Reference::Tag(_)) => request.head().await,
        (_, Reference::Tag(_)) => request.by_tag().await,
    }
}

struct Request<'a> {
    gateway: &'a Gateway,
    asked: Asked,
    caller: Caller,
    rights: Rights,
}

/// A manifest in the store, and what is known of it here.
struct Kept {
    reader: Reader,
    media_type: MediaType,
    since: SystemTime,
    /// Whether the registry has shown it in this repository, rather than in another.
    belongs: bool,
}

impl Request<'_> {
    /// A version check is the registry's to answer, and costs no pull.
    async fn head(&self) -> Result<Served, UpstreamError> {
        let headers = for_content(&self.asked.headers);
        let answer = self.caller.follow(Method::HEAD, &self.asked.target, &headers).await?;
        if named_digest(&answer.response).is_some() {
            self.rights.grant(&self.gateway.parts.access).await;
        }
        Ok(passed_on(answer.response, "fwd=request"))
    }

    async fn by_digest(self, digest: &Digest) -> Result<Served, UpstreamError> {
        let access = &self.gateway.parts.access;
        if let Some(kept) = self.kept(digest).await {
            if kept.belongs && self.rights.may_pull(access).await {
                return Ok(self.kept_as(&kept, Outcome::Hit));
            }
            let answer = self.inquire().await?;
            if consents(&answer, digest, kept.reader.size()) {
                self.confirmed(&kept, digest).await;
                return Ok(self.kept_as(&kept, Outcome::Hit));
            }
        }
        if self.asked.method == Method::HEAD {
            return self.head().await;
        }
        let target = self.asked.target.clone();
        self.fetch(target, Some(digest)).await
    }

    /// The registry would serve this client the manifest here.
    async fn confirmed(&self, kept: &Kept, digest: &Digest) {
        let access = &self.gateway.parts.access;
        self.rights.grant(access).await;
        if !kept.belongs {
            self.rights.belongs(access, digest, Some(&kept.media_type)).await;
        }
    }

    /// What the tag means is the registry's to say: by HEAD, which is free where pulls are
    /// counted. The body then comes from the store, or by its digest from the registry.
    async fn by_tag(self) -> Result<Served, UpstreamError> {
        let response = self.inquire().await?.response;
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            return Ok(too_many_requests(&self.asked, response));
        }
        let Some(digest) = named_digest(&response) else {
            let target = self.asked.target.clone();
            return self.fetch(target, None).await;
        };
        self.rights.grant(&self.gateway.parts.access).await;
        if let Some(kept) = self.kept(&digest).await {
            self.confirmed(&kept, &digest).await;
            let kept = Kept { since: SystemTime::now(), ..kept };
            return Ok(self.kept_as(&kept, Outcome::Revalidated));
        }
        let target = by_digest(&self.asked.target, &digest);
        self.fetch(target, Some(&digest)).await
    }

    /// The manifest, if it is kept and this registry has delivered it.
    async fn kept(&self, digest: &Digest) -> Option<Kept> {
        let parts = &self.gateway.parts;
        if parts.store.contains(digest) != Presence::Kept {
            return None;
        }
        let here = self.rights.content(&parts.access, digest).await;
        let (belongs, record) = match here {
            Some(record) => (true, record),
            None => (false, self.rights.delivered(digest).await?),
        };
        let media_type = MediaType::of_manifest(&record.media_type?)?;
        match parts.store.lookup(digest, self.asked.registry.as_str()).await {
            Lookup::Kept(reader) => {
                Some(Kept { reader, media_type, since: record.recorded, belongs })
            }
            Lookup::InFlight(_) | Lookup::Absent(_) => None,
        }
    }

    async fn inquire(&self) -> Result<Followed, UpstreamError> {
        let headers = for_whole_content(&self.asked.headers);
        self.caller.inquire(&self.asked.target, &headers, None).await
    }

    fn kept_as(&self, kept: &Kept, outcome: Outcome) -> Served {
        self.presented(kept.reader.clone(), &kept.media_type, Some(kept.since), outcome)
    }

    fn presented(
        &self,
        reader: Reader,
        media_type: &MediaType,
        since: Option<SystemTime>,
        outcome: Outcome,
    ) -> Served {
        let status = match outcome {
            Outcome::Miss => "fwd=miss; stored",
            _ => "hit",
        };
        let rescue = None;
        let shown = Presentation { media_type: media_type.as_str(), status, since, rescue };
        Served::new(outcome, respond(&self.asked.method, &self.asked.headers, reader, &shown))
    }

    /// Gets a manifest, keeps it if it is one, and serves it.
    async fn fetch(
        self,
        target: Target,
        expected: Option<&Digest>,
    ) -> Result<Served, UpstreamError> {
        let headers = for_whole_content(&self.asked.headers);
        let response = self.caller.follow(Method::GET, &target, &headers).await?.response;
        let media_type =
            text(response.headers(), header::CONTENT_TYPE).and_then(MediaType::of_manifest);
        let too_long = content_length(&response).is_some_and(|length| length > MAX_BYTES as u64);
        let media_type = match media_type {
            Some(media_type) if is_plain_content(&response) && !too_long => media_type,
            _ => return Ok(passed_on(response, "fwd=miss")),
        };
        let (head, body) = response.into_parts();
        let bytes = match read_whole(body, MAX_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) => return Ok(unusable(&self.asked.registry, &error.to_string())),
        };
        let expected = expected.copied().or_else(|| digest_of(&head.headers));
        let algorithm = expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = Digest::of(algorithm, &bytes);
        if expected.is_some_and(|expected| expected != digest) {
            self.gateway.parts.upstream.metrics().mismatched();
            let reason = "the manifest's bytes do not match its digest";
            return Ok(unusable(&self.asked.registry, reason));
        }
        self.rights.grant(&self.gateway.parts.access).await;
        match self.keep(&digest, &bytes, &media_type).await {
            Some(reader) => Ok(self.presented(reader, &media_type, None, Outcome::Miss)),
            None => Ok(passed_whole(&head.headers, bytes)),
        }
    }

    async fn keep(&self, digest: &Digest, bytes: &Bytes, media_type: &MediaType) -> Option<Reader> {
        let kept = self.gateway.parts.store.put(digest, bytes.clone()).await;
        let reader = kept
            .inspect_err(|error| tracing::warn!(%digest, %error, "a manifest could not be kept"))
            .ok()?;
        self.rights.deliver(&self.gateway.parts.access, digest, Some(media_type)).await;
        Some(reader)
    }
}

/// A manifest that could not be kept, as it came.
fn passed_whole(fields: &HeaderMap, bytes: Bytes) -> Served {
    let mut response = Response::new(ResponseBody::full(bytes));
    *response.headers_mut() = returned(fields);
    cache_status(response.headers_mut(), "fwd=miss");
    Served::new(Outcome::Miss, response)
}

/// The registry's 429, from a HEAD, which has no body: asking again for one would make it worse.
fn too_many_requests(asked: &Asked, response: Response<IdleBody>) -> Served {
    let mut served = passed_on(response, "fwd=miss");
    let message = format!(
        "{}: the registry refuses further requests for now (429 Too Many Requests)",
        asked.registry
    );
    let document =
        ErrorDocument::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, message);
    *served.response.body_mut() = ResponseBody::full(document.to_json());
    let fields = served.response.headers_mut();
    fields.remove(header::CONTENT_LENGTH);
    fields.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    served
}

/// The digest under which a registry serves what was asked for; a page of something else has none.
fn named_digest(response: &Response<IdleBody>) -> Option<Digest> {
    if response.status() == StatusCode::OK { digest_of(response.headers()) } else { None }
}

fn digest_of(headers: &HeaderMap) -> Option<Digest> {
    text(headers, "docker-content-digest")?.parse().ok()
}

/// The same repository's manifest, by digest.
fn by_digest(target: &Target, digest: &Digest) -> Target {
    let path = target.path();
    let base = path.rsplit_once('/').map_or(path, |(base, _)| base);
    Target { path_and_query: format!("{base}/{digest}"), ..target.clone() }
}
