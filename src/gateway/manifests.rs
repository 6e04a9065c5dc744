//! Manifests by digest and by tag.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use entrepot_cache::{Digest, Lookup, Presence, Reader, Repository};
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body_util::BodyExt as _;

use super::blobs::{consents, content_length, is_plain_content};
use super::body::ResponseBody;
use super::errors::unusable;
use super::headers::{cache_status, for_content, for_whole_content, returned, text};
use super::object::{Presentation, respond};
use super::relay::passed_on;
use super::{Asked, Gateway, Served};
use crate::log::Outcome;
use crate::oci::{Algorithm, ErrorCode, ErrorDocument, MediaType, Reference, RepositoryName};
use crate::upstream::body::{BodyError, IdleBody};
use crate::upstream::{Target, UpstreamError, client::Followed};

/// The largest manifest kept. The specification asks registries for at least 4 MiB; engines take
/// little more.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Answers a GET or HEAD of a manifest.
pub(super) async fn serve(
    gateway: &Gateway,
    asked: Asked,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Served, UpstreamError> {
    let Some(records) = gateway.repository(&asked, repository) else {
        return super::relay::serve(gateway, asked).await;
    };
    let request = Request { gateway, asked, records };
    match (&request.asked.method, reference) {
        (&Method::HEAD, _) => request.head().await,
        (_, Reference::Digest(digest)) => request.by_digest(digest).await,
        (_, Reference::Tag(_)) => request.by_tag().await,
    }
}

struct Request<'a> {
    gateway: &'a Gateway,
    asked: Asked,
    records: Repository,
}

impl Request<'_> {
    /// A version check is the registry's to answer, and costs no pull.
    async fn head(&self) -> Result<Served, UpstreamError> {
        let headers = for_content(&self.asked.headers);
        let upstream = &self.gateway.parts.upstream;
        let followed = upstream.follow(Method::HEAD, self.asked.target.clone(), headers).await?;
        Ok(passed_on(followed.response, "fwd=request"))
    }

    async fn by_digest(self, digest: &Digest) -> Result<Served, UpstreamError> {
        if let Some((reader, media_type, since)) = self.kept(digest).await
            && consents(&self.inquire().await?, digest, reader.size())
        {
            return Ok(self.kept_as(reader, &media_type, Some(since), Outcome::Hit));
        }
        let target = self.asked.target.clone();
        self.fetch(target, Some(digest)).await
    }

    /// What the tag means is the registry's to say: by HEAD, which is free where pulls are
    /// counted. The body then comes from the store, or by its digest from the registry.
    async fn by_tag(self) -> Result<Served, UpstreamError> {
        let response = self.inquire().await?.response;
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            return Ok(too_many_requests(&self.asked, response));
        }
        let named =
            if response.status() == StatusCode::OK { digest_of(response.headers()) } else { None };
        let Some(digest) = named else {
            let target = self.asked.target.clone();
            return self.fetch(target, None).await;
        };
        if let Some((reader, media_type, _)) = self.kept(&digest).await {
            return Ok(self.kept_as(
                reader,
                &media_type,
                Some(SystemTime::now()),
                Outcome::Revalidated,
            ));
        }
        let target = by_digest(&self.asked.target, &digest);
        self.fetch(target, Some(&digest)).await
    }

    /// The object, its media type and since when, if this registry delivered it for this repository.
    async fn kept(&self, digest: &Digest) -> Option<(Reader, MediaType, SystemTime)> {
        let store = &self.gateway.parts.store;
        if store.contains(digest) != Presence::Kept {
            return None;
        }
        let record = self.records.content(digest).await?;
        let media_type = MediaType::of_manifest(&record.media_type?)?;
        match store.lookup(digest, self.asked.registry.as_str()).await {
            Lookup::Kept(reader) => Some((reader, media_type, record.recorded)),
            Lookup::InFlight(_) | Lookup::Absent(_) => None,
        }
    }

    async fn inquire(&self) -> Result<Followed, UpstreamError> {
        let headers = for_whole_content(&self.asked.headers);
        self.gateway.parts.upstream.inquire(self.asked.target.clone(), headers, None).await
    }

    fn kept_as(
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
        let shown = Presentation { media_type: media_type.as_str(), status, since };
        Served::new(outcome, respond(&Method::GET, &self.asked.headers, reader, &shown))
    }

    /// Gets a manifest, keeps it if it is one, and serves it.
    async fn fetch(
        self,
        target: Target,
        expected: Option<&Digest>,
    ) -> Result<Served, UpstreamError> {
        let headers = for_whole_content(&self.asked.headers);
        let upstream = &self.gateway.parts.upstream;
        let response = upstream.follow(Method::GET, target, headers).await?.response;
        let media_type =
            text(response.headers(), header::CONTENT_TYPE).and_then(MediaType::of_manifest);
        let too_long = content_length(&response).is_some_and(|length| length > MAX_BYTES);
        let media_type = match media_type {
            Some(media_type) if is_plain_content(&response) && !too_long => media_type,
            _ => return Ok(passed_on(response, "fwd=miss")),
        };
        let (head, body) = response.into_parts();
        let bytes = match whole(body).await {
            Ok(bytes) => bytes,
            Err(error) => return Ok(unusable(&self.asked.registry, &error.to_string())),
        };
        let expected = expected.copied().or_else(|| digest_of(&head.headers));
        let algorithm = expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = Digest::of(algorithm, &bytes);
        if expected.is_some_and(|expected| expected != digest) {
            let reason = "the manifest's bytes do not match its digest";
            return Ok(unusable(&self.asked.registry, reason));
        }
        match self.keep(&digest, &bytes, &media_type).await {
            Some(reader) => Ok(self.kept_as(reader, &media_type, None, Outcome::Miss)),
            None => Ok(passed_whole(&head.headers, bytes)),
        }
    }

    async fn keep(&self, digest: &Digest, bytes: &Bytes, media_type: &MediaType) -> Option<Reader> {
        let kept = self.gateway.parts.store.put(digest, bytes.clone()).await;
        let reader = kept
            .inspect_err(|error| tracing::warn!(%digest, %error, "a manifest could not be kept"))
            .ok()?;
        if let Err(error) = self.records.record_content(digest, Some(media_type.as_str())).await {
            tracing::warn!(%digest, %error, "a record could not be written");
        }
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

fn digest_of(headers: &HeaderMap) -> Option<Digest> {
    text(headers, "docker-content-digest")?.parse().ok()
}

/// The same repository's manifest, by digest.
fn by_digest(target: &Target, digest: &Digest) -> Target {
    let path = target.path();
    let base = path.rsplit_once('/').map_or(path, |(base, _)| base);
    Target { path_and_query: format!("{base}/{digest}"), ..target.clone() }
}

/// The whole of a body, up to [`MAX_BYTES`].
async fn whole(mut body: IdleBody) -> Result<Bytes, BodyError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if (bytes.len() + data.len()) as u64 > MAX_BYTES {
            return Err(BodyError::TooLong(MAX_BYTES));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}
