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

use super::by_digest::{KeptManifest, ManifestRequest};
use super::tags::{Accept, KnownResolution, Resolution, TagEntry};
use crate::collapse::Collapse;
use crate::gateway::access::Place;
use crate::gateway::answer::body::ResponseBody;
use crate::gateway::answer::errors::say_api_version;
use crate::gateway::answer::passed::passed_head;
use crate::gateway::answer::provenance::{Forward, Provenance, Reason};
use crate::gateway::answer::served::Served;
use crate::gateway::exchange::Exchange;
use crate::log::Outcome;
use crate::registry::answer::{is_trouble, named_digest};
use crate::registry::fields::{for_whole_content, text};
use crate::registry::identity::Identity;
use crate::upstream::UpstreamError;

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
pub(super) async fn serve(
    request: ManifestRequest<'_>,
    heads: &Heads,
    tag: &Tag,
) -> Result<Served, UpstreamError> {
    let (tags, exchange) = (request.tags, request.exchange.clone());
    let (place, records) = (exchange.rights.place(), exchange.rights.records());
    let accept = Accept::of(&exchange.asked.headers);
    let entry = TagEntry { tags, records, place, tag, accept };
    Tagged { request, heads, entry }.serve().await
}

struct Tagged<'a> {
    request: ManifestRequest<'a>,
    heads: &'a Heads,
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
    async fn asking(self, known: Option<KnownResolution>) -> Result<Served, UpstreamError> {
        match self.ask(known.as_ref()).await {
            Ok(answer) => match &answer.resolution {
                Some(resolution) => self.resolved(known, resolution, &answer).await,
                None => self.unresolved(known, &answer).await,
            },
            Err(error) => {
                let reason = Reason::Unreachable(error.to_string());
                self.stale(known, &error, reason).await.ok_or(error)
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
            Some(kept) => Some(self.request.presented(&kept, known.asked, fresh)),
            None if self.exchange().asked.method == Method::HEAD => {
                described(&known.resolution, fresh)
            }
            None => None,
        }
    }

    /// Whether the registry need not be asked again so soon, for somebody whom it has let in.
    async fn is_fresh_for_client(&self, known: &KnownResolution) -> bool {
        let Exchange { common, asked, rights, .. } = self.exchange();
        let ttl = common.options.load().tag_ttl(&asked.authority, self.entry.tag);
        known.age() < ttl && rights.may_pull().await
    }

    fn exchange(&self) -> &Exchange {
        &self.request.exchange
    }

    /// What the tag stood for, if it is kept and belongs here.
    async fn kept(&self, known: &KnownResolution) -> Option<KeptManifest> {
        let kept = self.request.kept(&known.resolution.digest).await?;
        kept.belongs.then_some(kept)
    }

    /// Asks the registry, once for all who ask at this moment.
    async fn ask(&self, known: Option<&KnownResolution>) -> Result<Arc<HeadAnswer>, UpstreamError> {
        let Exchange { common, asked, client, rights } = self.exchange();
        let question = HeadQuestion {
            place: self.entry.place.clone(),
            identity: client.identity.clone(),
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
            let answer = self.exchange().inquire(&headers, None).await.map_err(Arc::new)?;
            let (head, _) = answer.response.into_parts();
            let answer = HeadAnswer::new(head.status, head.headers);
            // Before anybody can ask again: who comes now finds it.
            if let Some(resolution) = &answer.resolution {
                rights.grant().await;
                if !self.spares_quota(known, resolution).await {
                    let is_kept = common.store.contains(&resolution.digest) == Presence::Kept;
                    self.entry.learn(resolution.clone(), is_kept).await;
                }
            }
            Ok(Arc::new(answer))
        };
        Ok(self.heads.once(question, PATIENCE, asking).await?)
    }

    /// The registry says what the tag stands for.
    async fn resolved(
        self,
        known: Option<KnownResolution>,
        resolution: &Resolution,
        answer: &HeadAnswer,
    ) -> Result<Served, UpstreamError> {
        let digest = resolution.digest;
        if let Some(kept) = self.request.kept(&digest).await {
            self.request.note_belonging(&kept, &digest).await;
            let now = SystemTime::now();
            return Ok(self.request.presented(&kept, now, Provenance::Revalidated));
        }
        if let Some(known) = known
            && self.spares_quota(Some(&known), resolution).await
            && let Some(kept) = self.kept(&known).await
        {
            let left = self.exchange().client.pulls_left().unwrap_or_default();
            let stale = Provenance::Stale(Reason::QuotaFloor(left));
            return Ok(self.request.presented(&kept, known.asked, stale));
        }
        let asked = &self.exchange().asked;
        if asked.method == Method::HEAD {
            let described = described(resolution, Provenance::Relayed(Forward::Request));
            return Ok(described.unwrap_or_else(|| passed_head(answer.status, &answer.headers)));
        }
        let repository = self.entry.place.repository.clone();
        let route = Route::Manifest { repository, reference: Reference::Digest(digest) };
        let target = asked.target_of(&route);
        self.request.fetch(target, Some(&digest)).await
    }

    /// Whether what the tag stood for before is served in place of what it stands for now: the few
    /// pulls that are left are better spent on what is not held at all.
    async fn spares_quota(&self, known: Option<&KnownResolution>, now: &Resolution) -> bool {
        let Exchange { common, client, .. } = self.exchange();
        let floor = common.options.load().quota_floor;
        let is_low = client.pulls_left().is_some_and(|left| left <= floor);
        let Some(known) = known.filter(|_| is_low) else { return false };
        let is_news = known.resolution.digest != now.digest;
        is_news
            && self.request.kept(&now.digest).await.is_none()
            && self.kept(known).await.is_some()
    }

    /// The registry says something else.
    async fn unresolved(
        self,
        known: Option<KnownResolution>,
        answer: &HeadAnswer,
    ) -> Result<Served, UpstreamError> {
        let status = answer.status;
        let asked = &self.exchange().asked;
        let unwell = UpstreamError::Unwell { authority: asked.authority.clone(), status };
        if is_trouble(status)
            && let Some(served) =
                self.stale(known.clone(), &unwell, Reason::RegistryError(status)).await
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
        let target = asked.target();
        let Self { request, entry, .. } = self;
        let exchange = request.exchange.clone();
        let served = request.fetch(target, None).await?;
        // Some registries answer no HEAD, or name no digest in it: the body tells as well.
        let told = resolution(served.response.status(), served.response.headers());
        if let Some(resolution) = told.filter(|_| served.outcome() == Outcome::Miss) {
            let is_kept = exchange.common.store.contains(&resolution.digest) == Presence::Kept;
            entry.learn(resolution, is_kept).await;
        }
        Ok(served)
    }

    /// The registry has not got the tag for this client, which it lets in: the tag is gone, unless
    /// the operator wants it all the same. (To others a registry may say so of what it hides.)
    async fn deleted(&self, unwell: &UpstreamError) -> Option<Served> {
        let Exchange { common, rights, .. } = self.exchange();
        if common.options.load().keep_deleted {
            return self.stale(None, unwell, Reason::Deleted).await;
        }
        if rights.may_pull().await {
            self.entry.forget().await;
        }
        None
    }

    /// What is known of the tag, to those who may have it without the registry's word.
    async fn stale(
        &self,
        known: Option<KnownResolution>,
        error: &UpstreamError,
        reason: Reason,
    ) -> Option<Served> {
        let Exchange { asked, rights, .. } = self.exchange();
        let known = match known {
            Some(known) => known,
            None => match self.entry.known().await {
                Some(known) => known,
                None => self.entry.known_to_others(&asked.headers).await?,
            },
        };
        let kept = self.kept(&known).await?;
        let may = rights.may_have_unasked(&kept.record, error).await;
        may.then(|| self.request.presented(&kept, known.asked, Provenance::Stale(reason)))
    }
}

/// The answer to a HEAD from what is known alone; the object itself was not asked for yet.
fn described(resolution: &Resolution, provenance: Provenance) -> Option<Served> {
    let mut response = Response::new(ResponseBody::Empty);
    let fields = response.headers_mut();
    let media_type = resolution.media_type.as_ref()?.as_str();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_str(media_type).ok()?);
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(resolution.size?));
    let digest = HeaderValue::from_str(&resolution.digest.to_string()).ok()?;
    fields.insert("docker-content-digest", digest);
    say_api_version(fields);
    Some(Served::new(provenance, response))
}

/// The registry's 429, from a HEAD, which has no body: asking again for one would make it worse.
fn too_many_requests(registry: &Registry, answer: &HeadAnswer) -> Served {
    let mut served = passed_head(answer.status, &answer.headers);
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
