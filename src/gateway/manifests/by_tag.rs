//! Manifests by tag.
//!
//! What a tag means is the registry's to say: by HEAD, which is free where pulls are counted, and
//! shared by all who ask at that moment. The body then comes from the store, or by its digest from
//! the registry. When the registry can't say, what it said last stands in.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use entrepot_cache::Presence;
use entrepot_oci::{ErrorCode, ErrorDocument, MediaType, Reference, Registry, Route, Tag};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use tokio::time::Instant;

use super::by_digest::{KeptManifest, ManifestRequest};
use super::tags::{KnownResolution, Resolution, TagEntry};
use crate::collapse::Collapse;
use crate::gateway::accept::Accept;
use crate::gateway::access::Place;
use crate::gateway::answer::body::ResponseBody;
use crate::gateway::answer::errors::{error_response, say_api_version};
use crate::gateway::answer::passed::{passed_head, tell_quota};
use crate::gateway::answer::provenance::{Forward, Provenance, Reason};
use crate::gateway::answer::served::Served;
use crate::gateway::exchange::Exchange;
use crate::gateway::generations::Generation;
use crate::log::Outcome;
use crate::registry::answer::{named_digest, trouble, trouble_of};
use crate::registry::fields::{for_whole_content, text};
use crate::registry::identity::Identity;
use crate::upstream::client::Followed;
use crate::upstream::{UpstreamError, via};

/// How long a request waits for the answer to another's question.
const PATIENCE: Duration = Duration::from_secs(30);

/// What tags mean, as registries are being asked by one for all who wait.
pub(super) type Heads = Collapse<HeadQuestion, Result<Arc<HeadAnswer>, Arc<UpstreamError>>>;

/// What a tag means to somebody.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct HeadQuestion {
    place: Place,
    identity: Identity,
    tag: Tag,
    accept: Accept,
    generation: Generation,
}

/// The registry's answer to it. A HEAD has no body.
pub(super) struct HeadAnswer {
    status: StatusCode,
    headers: HeaderMap,
    /// Whether it tells of the registry's own state, and nothing of the tag.
    is_trouble: bool,
    /// What the tag stands for, if it says so.
    resolution: Option<Resolution>,
}

impl HeadAnswer {
    fn new(answer: Followed) -> Self {
        let is_trouble = trouble_of(&answer).is_some();
        let (head, _) = answer.response.into_parts();
        let resolution = resolution(head.status, &head.headers);
        Self { status: head.status, headers: head.headers, is_trouble, resolution }
    }

    fn told_before(resolution: Resolution) -> Self {
        let headers = HeaderMap::new();
        let status = StatusCode::OK;
        Self { status, headers, is_trouble: false, resolution: Some(resolution) }
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
pub(super) async fn serve(
    request: ManifestRequest,
    heads: &Heads,
    tag: &Tag,
) -> Result<Served, UpstreamError> {
    let accept = Accept::of(&request.exchange.asked.headers);
    Tagged { request, heads: heads.clone(), tag: tag.clone(), accept }.serve().await
}

#[derive(Clone)]
struct Tagged {
    request: ManifestRequest,
    heads: Heads,
    tag: Tag,
    accept: Accept,
}

impl Tagged {
    async fn serve(self) -> Result<Served, UpstreamError> {
        let known = self.entry().known().await;
        if let Some(known) = &known
            && let Some(served) = self.while_fresh(known).await
        {
            return Ok(served);
        }
        Box::pin(self.asking(known)).await
    }

    /// The answer where the registry has to be asked.
    async fn asking(self, known: Option<KnownResolution>) -> Result<Served, UpstreamError> {
        // What others were told stands in where this client takes that as well.
        let headers = &self.exchange().asked.headers;
        let told = if known.is_some() || self.entry().is_known_to_others(headers).await {
            let (it, asked) = (self.clone(), &self.exchange().asked);
            let asking = async move { it.ask().await };
            let mut question = self.exchange().common.ask(asked, asking);
            match question.in_time().await {
                Ok(told) => told,
                Err(late) => {
                    let reason = Reason::Unreachable(late.to_string());
                    if let Some(served) = self.stale(&late, reason).await {
                        return Ok(served);
                    }
                    question.answer().await
                }
            }
        } else {
            self.ask().await
        };
        match told {
            Ok(answer) => match &answer.resolution {
                Some(resolution) => self.resolved(resolution, &answer).await,
                None => self.unresolved(&answer).await,
            },
            Err(error) => {
                let reason = Reason::Unreachable(error.to_string());
                self.stale(&error, reason).await.ok_or(error)
            }
        }
    }

    /// The answer within the tag's `tag-ttl`.
    async fn while_fresh(&self, known: &KnownResolution) -> Option<Served> {
        if !self.is_fresh_for_client(known).await {
            return None;
        }
        let fresh = Provenance::Kept(Some(Reason::FreshTag));
        match self.kept(known).await {
            Some(kept) => {
                self.request.confirm_behind(&kept);
                Some(self.request.presented(&kept, known.asked, fresh))
            }
            None if self.exchange().asked.method == Method::HEAD => {
                described(&known.resolution, fresh)
            }
            None => None,
        }
    }

    /// Whether the registry need not be asked again so soon, for somebody whom it has let in.
    async fn is_fresh_for_client(&self, known: &KnownResolution) -> bool {
        let Exchange { common, asked, rights, is_peculiar, .. } = self.exchange();
        let ttl = common.options.load().tag_ttl(&asked.authority, &self.tag);
        !is_peculiar
            && known.age() < ttl
            && known.generation == self.exchange().generation()
            && rights.may_pull().await
    }

    fn exchange(&self) -> &Exchange {
        &self.request.exchange
    }

    fn entry(&self) -> TagEntry<'_> {
        let rights = &self.exchange().rights;
        TagEntry {
            tags: &self.request.tags,
            records: rights.records(),
            place: rights.place(),
            tag: &self.tag,
            accept: self.accept.clone(),
        }
    }

    /// What the tag stood for, if it is kept and belongs here.
    async fn kept(&self, known: &KnownResolution) -> Option<KeptManifest> {
        let Resolution { digest, media_type, .. } = &known.resolution;
        let kept = self.request.kept(digest, media_type.as_ref()).await?;
        kept.belongs.then_some(kept)
    }

    /// What the tag stood for last of what is kept and belongs here. What it stands for now need
    /// not be: somebody may have asked what it means, and nobody for that yet.
    async fn last_kept(&self) -> Option<(KnownResolution, KeptManifest)> {
        for known in self.entry().candidates(&self.exchange().asked.headers).await {
            if let Some(kept) = self.kept(&known).await {
                return Some((known, kept));
            }
        }
        None
    }

    /// Asks the registry, once for all who ask at this moment.
    async fn ask(&self) -> Result<Arc<HeadAnswer>, UpstreamError> {
        let Exchange { common, asked, client, rights, is_peculiar } = self.exchange();
        let generation = self.exchange().generation();
        let question = HeadQuestion {
            place: rights.place().clone(),
            identity: client.identity.clone(),
            tag: self.tag.clone(),
            accept: self.accept.clone(),
            generation,
        };
        let asking = async {
            // It may have been told since this request looked.
            if let Some(known) = self.entry().known().await
                && self.is_fresh_for_client(&known).await
            {
                return Ok(Arc::new(HeadAnswer::told_before(known.resolution)));
            }
            let (began, headers) = (Instant::now(), for_whole_content(&asked.headers));
            let answer = self.exchange().inquire(&headers, None).await.map_err(Arc::new)?;
            let answer = HeadAnswer::new(answer);
            // Before anybody can ask again: who comes now finds it.
            if let Some(resolution) = &answer.resolution {
                rights.grant(began).await;
                let is_current = self.exchange().generation() == generation;
                if is_current && !is_peculiar && self.spared(resolution).await.is_none() {
                    let is_kept = common.store.contains(&resolution.digest) == Presence::Kept;
                    self.entry().learn(resolution.clone(), is_kept, generation).await;
                }
            }
            Ok(Arc::new(answer))
        };
        let patience = via::patience(&asked.headers, PATIENCE);
        Ok(self.heads.once(question, patience, asking).await?)
    }

    /// The registry says what the tag stands for.
    async fn resolved(
        self,
        resolution: &Resolution,
        answer: &HeadAnswer,
    ) -> Result<Served, UpstreamError> {
        let mut served = self.what_it_means(resolution, answer).await?;
        tell_quota(&answer.headers, &mut served);
        Ok(served)
    }

    async fn what_it_means(
        self,
        resolution: &Resolution,
        answer: &HeadAnswer,
    ) -> Result<Served, UpstreamError> {
        let digest = resolution.digest;
        if let Some(kept) = self.request.kept(&digest, resolution.media_type.as_ref()).await {
            self.request.note_belonging(&kept, &digest).await;
            let now = SystemTime::now();
            return Ok(self.request.presented(&kept, now, Provenance::Revalidated));
        }
        if let Some((known, kept)) = self.spared(resolution).await {
            let left = self.exchange().client.pulls_left().unwrap_or_default();
            let stale = Provenance::Stale(Reason::QuotaFloor(left));
            return Ok(self.request.presented(&kept, known.asked, stale));
        }
        let asked = &self.exchange().asked;
        if asked.method == Method::HEAD {
            let described = described(resolution, Provenance::Relayed(Forward::Request));
            return Ok(described.unwrap_or_else(|| passed_head(answer.status, &answer.headers)));
        }
        let repository = self.exchange().rights.place().repository.clone();
        let route = Route::Manifest { repository, reference: Reference::Digest(digest) };
        let fetched = self.request.clone().fetch(asked.target_of(&route), Some(&digest)).await;
        self.fetched(fetched).await
    }

    /// What came of the GET by digest that the tag led to, which the client has not asked for:
    /// where the registry is in trouble what the tag meant before goes on, and where it refuses
    /// that it is asked as the client did.
    async fn fetched(
        self,
        fetched: Result<Served, UpstreamError>,
    ) -> Result<Served, UpstreamError> {
        let (error, answer) = match fetched {
            Err(error) => (error, None),
            Ok(served) => {
                let (status, headers) = (served.response.status(), served.response.headers());
                let authority = self.exchange().asked.authority.clone();
                match trouble(status, headers) {
                    Some(status) => (UpstreamError::Unwell { authority, status }, Some(served)),
                    None if status.is_client_error() => {
                        let target = self.exchange().asked.target();
                        return self.request.fetch(target, None).await;
                    }
                    None => return Ok(served),
                }
            }
        };
        let reason = match &answer {
            Some(served) => Reason::RegistryError(served.response.status()),
            None => Reason::Unreachable(error.to_string()),
        };
        match self.stale(&error, reason).await {
            Some(served) => Ok(served),
            None => answer.ok_or(error),
        }
    }

    /// What the tag stood for before, where that is served in place of what it stands for now: the
    /// few pulls that are left are better spent on what is not held at all.
    async fn spared(&self, now: &Resolution) -> Option<(KnownResolution, KeptManifest)> {
        let Exchange { common, client, .. } = self.exchange();
        let floor = common.options.load().quota_floor;
        let is_low = client.pulls_left().is_some_and(|left| left <= floor);
        if !is_low || self.request.kept(&now.digest, None).await.is_some() {
            return None;
        }
        self.last_kept().await
    }

    /// The registry says something else.
    async fn unresolved(self, answer: &HeadAnswer) -> Result<Served, UpstreamError> {
        let status = answer.status;
        let asked = &self.exchange().asked;
        let unwell = UpstreamError::Unwell { authority: asked.authority.clone(), status };
        if answer.is_trouble
            && let Some(served) = self.stale(&unwell, Reason::RegistryError(status)).await
        {
            return Ok(served);
        }
        if status == StatusCode::NOT_FOUND
            && let Some(served) = self.deleted(&unwell).await
        {
            return Ok(served);
        }
        if asked.method == Method::HEAD {
            return Ok(passed_head(status, &answer.headers));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Ok(too_many_requests(&asked.registry, answer));
        }
        let generation = self.exchange().generation();
        let served = match self.request.clone().fetch(asked.target(), None).await {
            Ok(served) => served,
            Err(error) => {
                let reason = Reason::Unreachable(error.to_string());
                return self.stale(&error, reason).await.ok_or(error);
            }
        };
        if let Some(status) = trouble(served.response.status(), served.response.headers()) {
            let unwell = UpstreamError::Unwell { authority: asked.authority.clone(), status };
            let stale = self.stale(&unwell, Reason::RegistryError(status)).await;
            return Ok(stale.unwrap_or(served));
        }
        // Some registries answer no HEAD, or name no digest in it: the body tells as well.
        let told = resolution(served.response.status(), served.response.headers());
        if let Some(resolution) = told.filter(|_| served.outcome() == Outcome::Miss)
            && self.exchange().generation() == generation
            && !self.exchange().is_peculiar
        {
            let store = &self.exchange().common.store;
            let is_kept = store.contains(&resolution.digest) == Presence::Kept;
            self.entry().learn(resolution, is_kept, generation).await;
        }
        Ok(served)
    }

    /// The registry has not got the tag for this client, which it lets in: the tag is gone, unless
    /// the operator wants it all the same. (To others a registry may say so of what it hides.)
    async fn deleted(&self, unwell: &UpstreamError) -> Option<Served> {
        let Exchange { common, rights, is_peculiar, .. } = self.exchange();
        if common.options.load().keep_deleted {
            return self.stale(unwell, Reason::Deleted).await;
        }
        if !is_peculiar && rights.may_pull().await {
            self.entry().forget().await;
        }
        None
    }

    /// What is known of the tag, to those who may have it without the registry's word.
    async fn stale(&self, error: &UpstreamError, reason: Reason) -> Option<Served> {
        let Exchange { asked, rights, .. } = self.exchange();
        if let Some((known, kept)) = self.last_kept().await {
            let may = rights.may_have_unasked(&kept.record, error).await;
            return may
                .then(|| self.request.presented(&kept, known.asked, Provenance::Stale(reason)));
        }
        // Only what it means was ever asked for, as update checkers do.
        if asked.method != Method::HEAD || !rights.may_pull_unasked(error).await {
            return None;
        }
        described(&self.entry().known().await?.resolution, Provenance::Stale(reason))
    }
}

/// The answer to a HEAD from what is known alone; the object itself was not asked for yet.
fn described(resolution: &Resolution, provenance: Provenance) -> Option<Served> {
    let mut response = Response::new(ResponseBody::Empty);
    let fields = response.headers_mut();
    let media_type = resolution.media_type.as_ref()?.as_str();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_str(media_type).ok()?);
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(resolution.size?));
    let digest = resolution.digest.to_string();
    // As a GET has it.
    fields.insert(header::ETAG, HeaderValue::from_str(&format!("\"{digest}\"")).ok()?);
    fields.insert("docker-content-digest", HeaderValue::from_str(&digest).ok()?);
    say_api_version(fields);
    Some(Served::new(provenance, response))
}

/// The registry's 429, from a HEAD, which has no body: asking again for one would make it worse.
fn too_many_requests(registry: &Registry, answer: &HeadAnswer) -> Served {
    let mut served = passed_head(answer.status, &answer.headers);
    let message = format!(
        "{registry}: the registry refuses further requests for now \
         (429 Too Many Requests)"
    );
    let document =
        ErrorDocument::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, message);
    let own = error_response(&document);
    let theirs = std::mem::replace(&mut served.response, own);
    let fields = served.response.headers_mut();
    for (name, value) in theirs.headers() {
        if !fields.contains_key(name) && *name != header::CONTENT_LENGTH {
            fields.append(name, value.clone());
        }
    }
    served
}
