//! Manifests by tag.
//!
//! What a tag means is the registry's to say: by HEAD, which is free where pulls are counted, and
//! shared by all who ask at that moment. The body then comes from the store, or by its digest from
//! the registry. When the registry can't say, what it said last stands in.

use std::sync::Arc;
use std::time::SystemTime;

use entrepot_cache::Presence;
use entrepot_oci::{ErrorCode, ErrorDocument, MediaType, Registry, Tag};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::Served;
use super::access::Place;
use super::body::ResponseBody;
use super::errors::is_trouble;
use super::headers::{cache_status, for_whole_content, returned, text};
use super::identity::Identity;
use super::manifests::{Kept, Request, by_digest, named_digest};
use super::reason::Reason;
use super::tags::{Accept, Known, Resolution, TagEntry};
use crate::log::Outcome;
use crate::upstream::UpstreamError;

/// A question to a registry that is asked once for all who wait.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct HeadQuestion {
    place: Place,
    identity: Identity,
    tag: Tag,
    accept: Accept,
}

/// The registry's answer to it. A HEAD has no body.
pub(super) struct HeadAnswer {
    status: StatusCode,
    headers: HeaderMap,
    /// What the tag stands for, if it says so.
    resolution: Option<Resolution>,
}

impl HeadAnswer {
    fn new(status: StatusCode, headers: HeaderMap) -> Self {
        let resolution = resolution(status, &headers);
        Self { status, headers, resolution }
    }

    fn told_before(resolution: Resolution) -> Self {
        let headers = HeaderMap::new();
        Self { status: StatusCode::OK, headers, resolution: Some(resolution) }
    }
}

/// What a tag stands for by an answer's head, if that says so.
fn resolution(status: StatusCode, headers: &HeaderMap) -> Option<Resolution> {
    named_digest(status, headers).map(|digest| Resolution {
        digest,
        media_type: text(headers, header::CONTENT_TYPE).and_then(MediaType::of_manifest),
        size: text(headers, header::CONTENT_LENGTH).and_then(|size| size.parse().ok()),
    })
}

/// Answers a GET or HEAD of a manifest by its tag.
pub(super) async fn serve(request: Request<'_>, tag: &Tag) -> Result<Served, UpstreamError> {
    let parts = request.gateway.parts.clone();
    let (place, records) = (request.rights.place().clone(), request.rights.records().clone());
    let accept = Accept::of(&request.asked.headers);
    let entry = TagEntry { tags: &parts.tags, records: &records, place: &place, tag, accept };
    Tagged { request, entry }.serve().await
}

struct Tagged<'a> {
    request: Request<'a>,
    entry: TagEntry<'a>,
}

impl Tagged<'_> {
    async fn serve(self) -> Result<Served, UpstreamError> {
        let known = self.entry.known().await;
        if let Some(known) = &known
            && let Some(served) = self.while_fresh(known).await
        {
            return Ok(served);
        }
        Box::pin(self.asking(known)).await
    }

    /// The answer where the registry has to be asked.
    async fn asking(self, known: Option<Known>) -> Result<Served, UpstreamError> {
        match self.ask(known.as_ref()).await {
            Ok(answer) => match &answer.resolution {
                Some(resolution) => self.resolved(known, resolution, &answer).await,
                None => self.unresolved(known, &answer).await,
            },
            Err(error) => {
                let reason = Reason::Unreachable(error.to_string());
                self.stale(known, &error, &reason).await.ok_or(error)
            }
        }
    }

    /// The answer within the tag's `tag-ttl`.
    async fn while_fresh(&self, known: &Known) -> Option<Served> {
        if !self.is_fresh_for_client(known).await {
            return None;
        }
        let request = &self.request;
        let served = match self.kept(known).await {
            Some(kept) => request.kept_as(&kept, Outcome::Hit),
            None if request.asked.method == Method::HEAD => {
                described(&known.resolution, Outcome::Hit, "hit")?
            }
            None => return None,
        };
        Some(served.why(&Reason::FreshTag))
    }

    /// Whether the registry need not be asked again so soon, for somebody whom it has let in.
    async fn is_fresh_for_client(&self, known: &Known) -> bool {
        let Request { gateway, asked, rights, .. } = &self.request;
        let ttl =
            gateway.parts.in_force.load().options.tag_ttl(&asked.target.authority, self.entry.tag);
        known.age() < ttl && rights.may_pull(&gateway.parts.access).await
    }

    /// What the tag stood for, if it is kept and belongs here; as old as the registry's word on it.
    async fn kept(&self, known: &Known) -> Option<Kept> {
        let kept = self.request.kept(&known.resolution.digest).await?;
        kept.belongs.then_some(Kept { since: known.asked, ..kept })
    }

    /// Asks the registry, once for all who ask at this moment.
    async fn ask(&self, known: Option<&Known>) -> Result<Arc<HeadAnswer>, UpstreamError> {
        let Request { gateway, asked, caller, rights, .. } = &self.request;
        let question = HeadQuestion {
            place: self.entry.place.clone(),
            identity: caller.identity.clone(),
            tag: self.entry.tag.clone(),
            accept: self.entry.accept.clone(),
        };
        let asking = async {
            // It may have been told since this request looked.
            if let Some(known) = self.entry.known().await
                && self.is_fresh_for_client(&known).await
            {
                return Ok(Arc::new(HeadAnswer::told_before(known.resolution)));
            }
            let headers = for_whole_content(&asked.headers);
            let answer = caller.inquire(&asked.target, &headers, None).await?;
            let (head, _) = answer.response.into_parts();
            let answer = HeadAnswer::new(head.status, head.headers);
            // Before anybody can ask again: who comes now finds it.
            if let Some(resolution) = &answer.resolution {
                rights.grant(&gateway.parts.access).await;
                if !self.spares_quota(known, resolution).await {
                    let store = &gateway.parts.store;
                    let is_kept = store.contains(&resolution.digest) == Presence::Kept;
                    self.entry.learn(resolution.clone(), is_kept).await;
                }
            }
            Ok(Arc::new(answer))
        };
        let heads = &gateway.parts.heads;
        let answered: Result<_, Arc<UpstreamError>> =
            heads.try_get_with(question.clone(), asking).await;
        // It is an answer to those who have waited for it, and to nobody after them.
        heads.invalidate(&question).await;
        Ok(answered?)
    }

    /// The registry says what the tag stands for.
    async fn resolved(
        self,
        known: Option<Known>,
        resolution: &Resolution,
        answer: &HeadAnswer,
    ) -> Result<Served, UpstreamError> {
        let digest = resolution.digest;
        if let Some(kept) = self.request.kept(&digest).await {
            self.request.note_belonging(&kept, &digest).await;
            let kept = Kept { since: SystemTime::now(), ..kept };
            return Ok(self.request.kept_as(&kept, Outcome::Revalidated));
        }
        if let Some(known) = known
            && self.spares_quota(Some(&known), resolution).await
            && let Some(kept) = self.kept(&known).await
        {
            let left = self.pulls_left().unwrap_or_default();
            return Ok(self.request.kept_as(&kept, Outcome::Stale).why(&Reason::QuotaFloor(left)));
        }
        if self.request.asked.method == Method::HEAD {
            let described = described(resolution, Outcome::Relay, "fwd=request");
            return Ok(described.unwrap_or_else(|| passed_head(answer)));
        }
        let target = by_digest(&self.request.asked.target, &digest);
        self.request.fetch(target, Some(&digest)).await
    }

    /// Whether what the tag stood for before is served in place of what it stands for now: the few
    /// pulls that are left are better spent on what is not held at all.
    async fn spares_quota(&self, known: Option<&Known>, now: &Resolution) -> bool {
        let floor = self.request.gateway.parts.in_force.load().options.quota_floor;
        let is_low = self.pulls_left().is_some_and(|left| left <= floor);
        let Some(known) = known.filter(|_| is_low) else { return false };
        let is_news = known.resolution.digest != now.digest;
        is_news
            && self.request.kept(&now.digest).await.is_none()
            && self.kept(known).await.is_some()
    }

    fn pulls_left(&self) -> Option<u64> {
        let Request { gateway, asked, caller, .. } = &self.request;
        gateway.parts.quotas.remaining(&asked.registry, &caller.identity)
    }

    /// The registry says something else.
    async fn unresolved(
        self,
        known: Option<Known>,
        answer: &HeadAnswer,
    ) -> Result<Served, UpstreamError> {
        let status = answer.status;
        let authority = self.request.asked.target.authority.clone();
        let unwell = UpstreamError::Unwell { authority, status };
        if is_trouble(status)
            && let Some(served) =
                self.stale(known.clone(), &unwell, &Reason::RegistryError(status)).await
        {
            return Ok(served);
        }
        if status == StatusCode::NOT_FOUND
            && let Some(served) = self.deleted(&unwell).await
        {
            return Ok(served);
        }
        if self.request.asked.method == Method::HEAD {
            return Ok(passed_head(answer));
        }
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            return Ok(too_many_requests(&self.request.asked.registry, answer));
        }
        let Self { request, entry } = self;
        let parts = request.gateway.parts.clone();
        let target = request.asked.target.clone();
        let served = request.fetch(target, None).await?;
        // Some registries answer no HEAD, or name no digest in it: the body tells as well.
        let Served { response, outcome, .. } = &served;
        let told = resolution(response.status(), response.headers());
        if let Some(resolution) = told.filter(|_| *outcome == Outcome::Miss) {
            let is_kept = parts.store.contains(&resolution.digest) == Presence::Kept;
            entry.learn(resolution, is_kept).await;
        }
        Ok(served)
    }

    /// The registry has not got the tag for this client, which it lets in: the tag is gone, unless
    /// the operator wants it all the same. (To others a registry may say so of what it hides.)
    async fn deleted(&self, unwell: &UpstreamError) -> Option<Served> {
        let parts = &self.request.gateway.parts;
        if parts.in_force.load().options.keep_deleted {
            return self.stale(None, unwell, &Reason::Deleted).await;
        }
        if self.request.rights.may_pull(&parts.access).await {
            self.entry.forget().await;
        }
        None
    }

    /// What is known of the tag, to those who may have it without the registry's word.
    async fn stale(
        &self,
        known: Option<Known>,
        error: &UpstreamError,
        reason: &Reason,
    ) -> Option<Served> {
        let request = &self.request;
        let known = match known {
            Some(known) => known,
            None => match self.entry.known().await {
                Some(known) => known,
                None => self.entry.known_to_others(&request.asked.headers).await?,
            },
        };
        let kept = self.kept(&known).await?;
        let access = &request.gateway.parts.access;
        let may = request.rights.may_have_unasked(access, &kept.record, error).await;
        may.then(|| request.kept_as(&kept, Outcome::Stale).why(reason))
    }
}

/// The answer to a HEAD from what is known alone; the object itself was not asked for yet.
fn described(resolution: &Resolution, outcome: Outcome, status: &str) -> Option<Served> {
    let mut response = Response::new(ResponseBody::Empty);
    let fields = response.headers_mut();
    let media_type = resolution.media_type.as_ref()?.as_str();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_str(media_type).ok()?);
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(resolution.size?));
    let digest = HeaderValue::from_str(&resolution.digest.to_string()).ok()?;
    fields.insert("docker-content-digest", digest);
    fields.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    cache_status(fields, status);
    Some(Served::new(outcome, response))
}

/// The registry's own answer to a HEAD.
fn passed_head(answer: &HeadAnswer) -> Served {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = answer.status;
    *response.headers_mut() = returned(&answer.headers);
    // It may be the answer to another client's question.
    response.headers_mut().remove(header::SET_COOKIE);
    if !answer.status.is_client_error() {
        cache_status(response.headers_mut(), "fwd=request");
    }
    Served::new(Outcome::Relay, response)
}

/// The registry's 429, from a HEAD, which has no body: asking again for one would make it worse.
fn too_many_requests(registry: &Registry, answer: &HeadAnswer) -> Served {
    let mut served = passed_head(answer);
    let message = format!(
        "{registry}: the registry refuses further requests for now (429 Too Many Requests)"
    );
    let document =
        ErrorDocument::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, message);
    *served.response.body_mut() = ResponseBody::full(document.to_json());
    let fields = served.response.headers_mut();
    fields.remove(header::CONTENT_LENGTH);
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    served
}
