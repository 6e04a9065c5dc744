//! Manifests by digest.
//!
//! What a digest names never goes stale: once it is here, only the right to it is a question.
//! `tagged` leads from tags to here.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use entrepot_cache::{ContentRecord, Lookup, Presence, Reader};
use entrepot_oci::Digest;
use entrepot_oci::{Algorithm, MediaType, Reference, RepositoryName};
use http::{HeaderMap, Method, Response, StatusCode, header};

use super::access::{Place, Rights};
use super::blobs::{consents, content_length, is_plain_content, refuse_trouble};
use super::body::ResponseBody;
use super::caller::Caller;
use super::errors::unusable;
use super::fill::Source;
use super::headers::{cache_status, for_content, for_whole_content, returned, text};
use super::identity::Identity;
use super::object::{Presentation, respond};
use super::reason::Reason;
use super::relay::{passed_on, passed_verified};
use super::{Asked, Gateway, Served};
use crate::log::Outcome;
use crate::upstream::body::IdleBody;
use crate::upstream::realm::read_whole;
use crate::upstream::{Target, UpstreamError, client::Followed};

/// The largest manifest kept. The specification asks registries for at least 4 MiB; engines take
/// little more.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Answers a GET or HEAD of a manifest.
pub(super) async fn serve(
    gateway: &Gateway,
    asked: Box<Asked>,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Served, UpstreamError> {
    let caller = gateway.caller(&asked, Some(repository));
    let Some(rights) = caller.rights.clone() else {
        return Box::pin(super::relay::serve(gateway, asked)).await;
    };
    let request = Request { gateway, asked, caller, rights };
    match reference {
        Reference::Digest(digest) => request.by_digest(digest).await,
        Reference::Tag(tag) => super::tagged::serve(request, tag).await,
    }
}

/// A request for a manifest.
pub(super) struct Request<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) asked: Box<Asked>,
    pub(super) caller: Caller,
    pub(super) rights: Arc<Rights>,
}

/// A manifest in the store, and what is known of it here.
pub(super) struct Kept {
    pub(super) reader: Reader,
    pub(super) media_type: MediaType,
    pub(super) since: SystemTime,
    pub(super) record: ContentRecord,
    /// Whether the registry has shown it in this repository, rather than in another.
    pub(super) belongs: bool,
}

/// What is fetched by one for all who wait.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Errand {
    place: Place,
    identity: Identity,
    target: String,
}

impl Errand {
    /// What `caller` wants at `target`.
    pub(super) fn new(rights: &Rights, caller: &Caller, target: &str) -> Self {
        let (place, identity) = (rights.place().clone(), caller.identity.clone());
        Self { place, identity, target: target.to_owned() }
    }
}

impl Request<'_> {
    async fn by_digest(self, digest: &Digest) -> Result<Served, UpstreamError> {
        if let Some(kept) = self.kept(digest).await {
            if kept.belongs && self.rights.may_pull(&self.gateway.parts.access).await {
                return Ok(self.kept_as(&kept, Outcome::Hit));
            }
            match Box::pin(self.is_confirmed(&kept, digest)).await {
                Ok(true) => return Ok(self.kept_as(&kept, Outcome::Hit)),
                Ok(false) => {}
                Err(error) => match Box::pin(self.without_registry(&kept, &error)).await {
                    Some(served) => return Ok(served),
                    None if error.is_known() => return Err(error),
                    None => {}
                },
            }
        }
        if self.asked.method == Method::HEAD {
            return Box::pin(self.head()).await;
        }
        let target = self.asked.target.clone();
        Box::pin(self.fetch(target, Some(digest))).await
    }

    /// Asks whether the registry would serve this client the manifest here.
    async fn is_confirmed(&self, kept: &Kept, digest: &Digest) -> Result<bool, UpstreamError> {
        let headers = for_whole_content(&self.asked.headers);
        let answer = self.caller.inquire(&self.asked.target, &headers, None).await?;
        refuse_trouble(&self.asked.target.authority, &answer)?;
        let consents = consents(&answer, digest, kept.reader.size());
        if consents {
            self.rights.grant(&self.gateway.parts.access).await;
            self.note_belonging(kept, digest).await;
        }
        Ok(consents)
    }

    /// The registry has said that the manifest is here.
    pub(super) async fn note_belonging(&self, kept: &Kept, digest: &Digest) {
        if !kept.belongs {
            let access = &self.gateway.parts.access;
            self.rights.belongs(access, digest, Some(&kept.media_type)).await;
        }
    }

    /// What is served while the registry can't say whether it may be.
    async fn without_registry(&self, kept: &Kept, error: &UpstreamError) -> Option<Served> {
        let access = &self.gateway.parts.access;
        if !kept.belongs || !self.rights.may_have_unasked(access, &kept.record, error).await {
            return None;
        }
        Some(self.kept_as(kept, Outcome::Hit).why(&Reason::Unreachable(error.to_string())))
    }

    /// The registry's own answer to a HEAD.
    async fn head(&self) -> Result<Served, UpstreamError> {
        let headers = for_content(&self.asked.headers);
        let answer = self.caller.follow(Method::HEAD, &self.asked.target, &headers).await?;
        if named_digest(answer.response.status(), answer.response.headers()).is_some() {
            self.rights.grant(&self.gateway.parts.access).await;
        }
        Ok(passed_on(answer.response, "fwd=request"))
    }

    /// The manifest, if it is kept and this registry has delivered it.
    pub(super) async fn kept(&self, digest: &Digest) -> Option<Kept> {
        let parts = &self.gateway.parts;
        if parts.store.contains(digest) != Presence::Kept {
            return None;
        }
        let here = || self.rights.content(&parts.access, digest);
        let (belongs, record) = if let Some(record) = here().await {
            (true, record)
        } else {
            let delivered = self.rights.delivered(digest).await?;
            // It is noted here first: that may have been done since.
            here().await.map_or((false, delivered), |record| (true, record))
        };
        let media_type = MediaType::of_manifest(record.media_type.as_deref()?)?;
        match parts.store.lookup(digest, self.asked.registry.as_str()).await {
            Lookup::Kept(reader) => {
                Some(Kept { reader, media_type, since: record.recorded, record, belongs })
            }
            Lookup::InFlight(_) | Lookup::Absent(_) => None,
        }
    }

    pub(super) fn kept_as(&self, kept: &Kept, outcome: Outcome) -> Served {
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
            Outcome::Joined => "fwd=miss; collapsed",
            Outcome::Stale => "hit; detail=stale",
            _ => "hit",
        };
        let rescue = Some(Arc::new(Source {
            caller: self.caller.clone(),
            target: by_digest(&self.asked.target, reader.digest()),
            headers: for_whole_content(&self.asked.headers),
        }));
        let shown = Presentation { media_type: media_type.as_str(), status, since, rescue };
        Served::new(outcome, respond(&self.asked.method, &self.asked.headers, reader, &shown))
    }

    /// Gets a manifest, keeps it if it is one, and serves it. Who asks for the same meanwhile waits,
    /// and is served from the store.
    pub(super) async fn fetch(
        self,
        target: Target,
        expected: Option<&Digest>,
    ) -> Result<Served, UpstreamError> {
        let errand = Errand::new(&self.rights, &self.caller, target.path());
        let _turn = self.gateway.parts.errands.wait(errand).await;
        if let Some(digest) = expected
            && let Some(kept) = self.kept(digest).await
            && kept.belongs
            && self.rights.may_pull(&self.gateway.parts.access).await
        {
            return Ok(self.kept_as(&kept, Outcome::Joined));
        }
        let headers = for_whole_content(&self.asked.headers);
        let Followed { response, .. } = self.caller.follow(Method::GET, &target, &headers).await?;
        self.keep_answer(response, expected).await
    }

    async fn keep_answer(
        &self,
        response: Response<IdleBody>,
        expected: Option<&Digest>,
    ) -> Result<Served, UpstreamError> {
        let media_type =
            text(response.headers(), header::CONTENT_TYPE).and_then(MediaType::of_manifest);
        let too_long = content_length(&response).is_some_and(|length| length > MAX_BYTES as u64);
        let media_type = match media_type {
            Some(media_type) if is_plain_content(&response) && !too_long => media_type,
            _ => return Ok(not_a_manifest(response, expected)),
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
        let parts = &self.gateway.parts;
        // On record before it can be found.
        self.rights.deliver(&parts.access, digest, Some(media_type)).await;
        let kept = parts.store.put(digest, bytes.clone()).await;
        let reader = kept
            .inspect_err(|error| tracing::warn!(%digest, %error, "a manifest could not be kept"))
            .ok()?;
        parts.tags.settle(self.rights.records(), self.rights.place(), digest).await;
        Some(reader)
    }
}

/// Something else than a manifest, as it came; under a digest's name only if it has that digest.
fn not_a_manifest(response: Response<IdleBody>, expected: Option<&Digest>) -> Served {
    let Some(digest) = expected.filter(|_| is_plain_content(&response)) else {
        return passed_on(response, "fwd=miss");
    };
    passed_verified(response, digest, Box::new(|| {}), Outcome::Relay)
}

/// A manifest that could not be kept, as it came.
fn passed_whole(fields: &HeaderMap, bytes: Bytes) -> Served {
    let mut response = Response::new(ResponseBody::full(bytes));
    *response.headers_mut() = returned(fields);
    cache_status(response.headers_mut(), "fwd=miss");
    Served::new(Outcome::Miss, response)
}

/// The digest under which a registry serves what was asked for; a page of something else has none.
pub(super) fn named_digest(status: StatusCode, headers: &HeaderMap) -> Option<Digest> {
    if status == StatusCode::OK { digest_of(headers) } else { None }
}

/// The same repository's manifest, by digest.
pub(super) fn by_digest(target: &Target, digest: &Digest) -> Target {
    let path = target.path();
    let base = path.rsplit_once('/').map_or(path, |(base, _)| base);
    Target { path_and_query: format!("{base}/{digest}"), ..target.clone() }
}

fn digest_of(headers: &HeaderMap) -> Option<Digest> {
    text(headers, "docker-content-digest")?.parse().ok()
}
