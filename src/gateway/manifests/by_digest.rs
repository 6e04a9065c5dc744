//! Manifests by digest.
//!
//! What a digest names never goes stale: once it is here, only the right to it is a question.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use entrepot_cache::{ContentRecord, Lookup, Presence, Reader};
use entrepot_oci::manifest::signed_payload;
use entrepot_oci::{Algorithm, Digest, MediaType, Reference, Route};
use http::{HeaderMap, Method, Response, header};
use tokio::time::Instant;

use super::tags::Tags;
use crate::bucket::Bucket;
use crate::collapse::{Collapse, Turn};
use crate::gateway::access::{Place, SharedContent};
use crate::gateway::answer::body::ResponseBody;
use crate::gateway::answer::errors::{broken, elsewhere, unusable};
use crate::gateway::answer::object::{Presentation, respond};
use crate::gateway::answer::passed::{not_content, passed_on, passed_verified, tell_quota};
use crate::gateway::answer::provenance::{Forward, PeerStatus, Provenance, Reason};
use crate::gateway::answer::served::Served;
use crate::gateway::exchange::{Exchange, Source};
use crate::gateway::generations::Generation;
use crate::registry::answer::{
    consents, content_length, digest_of, is_gone, is_plain_content, is_whole, named_digest,
    refuse_trouble,
};
use crate::registry::fields::{for_content, for_whole_content, returned, text};
use crate::registry::identity::Identity;
use crate::upstream::body::IdleBody;
use crate::upstream::{Target, UpstreamError};

/// The largest manifest kept. The specification asks registries for at least 4 MiB; engines take
/// little more.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// How long a request waits for another that fetches the same.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request for a manifest; cheap to clone.
#[derive(Clone)]
pub(super) struct ManifestRequest {
    pub(super) tags: Arc<Tags>,
    pub(super) fetches: Fetches,
    pub(super) bringing: Bringing,
    pub(super) exchange: Arc<Exchange>,
}

/// A manifest in the store, and what is known of it here.
pub(super) struct KeptManifest {
    pub(super) reader: Reader,
    pub(super) media_type: MediaType,
    pub(super) record: ContentRecord,
    /// Whether the registry has shown it in this repository, rather than in another.
    pub(super) belongs: bool,
    /// Whether it has come from the bucket for this request.
    is_of_bucket: bool,
}

/// That a registry would serve a manifest, and what it calls it.
struct Confirmed {
    media_type: Option<MediaType>,
}

/// What is being fetched, by one for all who wait.
pub(super) type Fetches = Collapse<ManifestFetch, Result<Digest, Arc<UpstreamError>>>;

/// What is being brought from the bucket, by one for all who wait: whether it has come.
pub(super) type Bringing = Collapse<(Place, Digest), bool>;

/// A manifest for somebody.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct ManifestFetch {
    place: Place,
    identity: Identity,
    path: String,
    generation: Generation,
}

impl ManifestRequest {
    pub(super) async fn by_digest(self, digest: &Digest) -> Result<Served, UpstreamError> {
        let kept = self.kept(digest, None).await;
        let is_kept = kept.is_some();
        if let Some(kept) = kept {
            let rights = &self.exchange.rights;
            if kept.belongs && rights.may_pull().await {
                self.confirm_behind(&kept);
                return Ok(self.as_kept(&kept, Provenance::Kept(None)));
            }
            match Box::pin(self.confirmed_in_time(&kept, digest)).await {
                Ok(Some(kept)) => return Ok(self.as_kept(&kept, Provenance::Kept(None))),
                Ok(None) => {}
                Err(error) => match Box::pin(self.without_registry(&kept, &error)).await {
                    Some(served) => return Ok(served),
                    None if error.is_known() => return Err(error),
                    None => {}
                },
            }
        }
        if self.exchange.asked.method == Method::HEAD {
            return Box::pin(self.head()).await;
        }
        let (target, exchange) = (self.exchange.asked.target(), self.exchange.clone());
        let served = Box::pin(self.fetch(target, Some(digest))).await?;
        // How long a refusal takes does not tell whether the manifest is kept: where it is, a HEAD
        // comes before.
        let is_refused = served.response.status().is_client_error();
        if is_refused && !is_kept && !exchange.rights.may_pull().await {
            // Whatever it says, the GET has said it.
            let headers = for_whole_content(&exchange.asked.headers);
            let _ = Box::pin(exchange.inquire(&headers, None)).await;
        }
        Ok(served)
    }

    /// Asks whether the registry would serve this client the manifest here; one that takes long to
    /// say so counts as away, where what is kept may be served then. The manifest as the registry
    /// has it here, if it would.
    async fn confirmed_in_time(
        &self,
        kept: &KeptManifest,
        digest: &Digest,
    ) -> Result<Option<KeptManifest>, UpstreamError> {
        let Exchange { common, asked, rights, .. } = &*self.exchange;
        let (it, wanted, size) = (self.clone(), *digest, kept.reader.size());
        let asking = async move { it.confirmed(&wanted, size).await };
        let mut question = common.ask(asked, asking);
        let confirmed = match question.in_time().await {
            Ok(told) => told?,
            Err(late) if kept.belongs && rights.may_have_unasked(&kept.record, &late).await => {
                return Err(late);
            }
            Err(_) => question.answer().await?,
        };
        let Some(Confirmed { media_type }) = confirmed else { return Ok(None) };
        let kept = self.kept(digest, media_type.as_ref()).await;
        if let Some(kept) = &kept {
            self.note_belonging(kept, digest).await;
        }
        Ok(kept)
    }

    async fn confirmed(
        &self,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<Option<Confirmed>, UpstreamError> {
        let Exchange { asked, rights, .. } = &*self.exchange;
        let began = Instant::now();
        let answer = self.exchange.inquire(&for_whole_content(&asked.headers), None).await?;
        refuse_trouble(&asked.authority, &answer)?;
        if !consents(&answer, digest, size) {
            return Ok(None);
        }
        rights.grant(began).await;
        Ok(Some(Confirmed { media_type: media_type_of(answer.response.headers()) }))
    }

    /// Asks the registry once more whether it has the manifest here, if that is due, behind the
    /// answer: what it has withdrawn is not served for ever.
    pub(super) fn confirm_behind(&self, kept: &KeptManifest) {
        let (digest, size) = (*kept.reader.digest(), kept.reader.size());
        if !self.exchange.rights.is_to_be_confirmed(&digest, &kept.record) {
            return;
        }
        let it = self.clone();
        self.exchange.common.tasks.spawn(async move {
            let Exchange { asked, rights, is_peculiar, .. } = &*it.exchange;
            let (began, headers) = (Instant::now(), for_whole_content(&asked.headers));
            let repository = rights.place().repository.clone();
            let route = Route::Manifest { repository, reference: Reference::Digest(digest) };
            let target = asked.target_of(&route);
            let Ok(answer) = it.exchange.inquire_at(&target, &headers, None).await else { return };
            if consents(&answer, &digest, size) {
                rights.grant(began).await;
                let told = media_type_of(answer.response.headers());
                rights.confirm(&digest, told.as_ref()).await;
            } else if is_gone(&answer) && !is_peculiar && rights.may_pull().await {
                tracing::info!(registry = %asked.registry, %digest, "withdrawn by its registry");
                rights.disown(&digest).await;
                // What a tag has meant would be taken for the registry's word for it.
                it.tags.forget_digest(rights.records(), rights.place(), &digest).await;
            }
        });
    }

    /// The registry has said that the manifest is here, and what it calls it.
    pub(super) async fn note_belonging(&self, kept: &KeptManifest, digest: &Digest) {
        self.exchange.rights.confirm(digest, Some(&kept.media_type)).await;
    }

    /// What is served while the registry can't say whether it may be.
    async fn without_registry(&self, kept: &KeptManifest, error: &UpstreamError) -> Option<Served> {
        let may = kept.belongs && self.exchange.rights.may_have_unasked(&kept.record, error).await;
        let reason = Reason::Unreachable(error.to_string());
        may.then(|| self.as_kept(kept, Provenance::Kept(Some(reason))))
    }

    /// The registry's own answer to a HEAD.
    async fn head(&self) -> Result<Served, UpstreamError> {
        let Exchange { asked, rights, .. } = &*self.exchange;
        let (began, headers) = (Instant::now(), for_content(&asked.headers));
        let answer = self.exchange.follow(Method::HEAD, &asked.target(), &headers).await?;
        if named_digest(answer.response.status(), answer.response.headers()).is_some() {
            rights.grant(began).await;
        }
        Ok(passed_on(answer.response, Forward::Request))
    }

    /// The manifest, if it is kept and this registry has delivered it. What it is called is the
    /// registry's word for it here, now or before; what the same bytes are called elsewhere counts
    /// only where it has none.
    pub(super) async fn kept(
        &self,
        digest: &Digest,
        told: Option<&MediaType>,
    ) -> Option<KeptManifest> {
        let Exchange { common, asked, rights, .. } = &*self.exchange;
        let is_here = common.store.contains(digest) == Presence::Kept;
        if !is_here && !self.is_brought(digest).await {
            return None;
        }
        let (belongs, record) = match rights.content(digest).await {
            Some(record) => (true, record),
            None => (false, rights.delivered(digest).await?),
        };
        let media_type = match told {
            Some(told) => *told,
            None => MediaType::of_manifest(record.media_type.as_deref()?)?,
        };
        let is_of_bucket = !is_here;
        match common.store.lookup(digest, asked.registry.as_str()).await {
            Lookup::Kept(reader) => {
                Some(KeptManifest { reader, media_type, record, belongs, is_of_bucket })
            }
            Lookup::InFlight(_) | Lookup::Absent(_) => None,
        }
    }

    /// Brings a manifest that is not kept from the bucket, if a registry is on record to have it
    /// here or elsewhere: once for all who want it at this moment. Who may have it is another
    /// question.
    async fn is_brought(&self, digest: &Digest) -> bool {
        let Exchange { common, rights, .. } = &*self.exchange;
        let Some(fleet) = common.archive.fleet() else { return false };
        if matches!(rights.shared(digest).await, SharedContent::Unknown) {
            return false;
        }
        let (it, bucket, digest) = (self.clone(), fleet.bucket().clone(), *digest);
        let bringing = async move { it.bring(&bucket, &digest).await };
        self.bringing.once((rights.place().clone(), digest), PATIENCE, bringing).await
    }

    async fn bring(&self, bucket: &Bucket, digest: &Digest) -> bool {
        let bytes = match bucket.whole(digest, MAX_BYTES).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return false,
            Err(error) => {
                tracing::debug!(%digest, %error, "the bucket was not to be asked for a manifest");
                return false;
            }
        };
        if Digest::of(digest.algorithm(), &bytes) != *digest {
            bucket.rotten(digest).await;
            return false;
        }
        let Exchange { common, rights, .. } = &*self.exchange;
        if let Err(error) = common.store.put(digest, bytes).await {
            tracing::warn!(%digest, %error, "a manifest could not be kept");
            return false;
        }
        self.tags.settle(rights.records(), rights.place(), digest).await;
        true
    }

    /// A kept manifest, as old as its delivery.
    fn as_kept(&self, kept: &KeptManifest, provenance: Provenance) -> Served {
        self.presented(kept, kept.record.recorded, provenance)
    }

    /// A kept manifest, as old as that.
    pub(super) fn presented(
        &self,
        kept: &KeptManifest,
        since: SystemTime,
        provenance: Provenance,
    ) -> Served {
        let provenance = match provenance {
            Provenance::Kept(reason) if kept.is_of_bucket => Provenance::Bucket(reason),
            Provenance::Revalidated if kept.is_of_bucket => Provenance::Bucket(None),
            other => other,
        };
        self.shown(kept.reader.clone(), &kept.media_type, Some(since), provenance)
    }

    fn shown(
        &self,
        reader: Reader,
        media_type: &MediaType,
        since: Option<SystemTime>,
        provenance: Provenance,
    ) -> Served {
        let source = Source::of_manifest(&self.exchange, reader.digest());
        let media_type = media_type.as_str();
        respond(reader, Presentation { media_type, provenance, since, source })
    }

    /// Gets a manifest, keeps it if it is one, and serves it. Who asks for the same meanwhile
    /// waits, and is served from the store.
    pub(super) async fn fetch(
        self,
        target: Target,
        expected: Option<&Digest>,
    ) -> Result<Served, UpstreamError> {
        let Exchange { asked, client, rights, .. } = &*self.exchange;
        let (place, identity) = (rights.place().clone(), client.identity.clone());
        let (path, generation) = (target.path_and_query.clone(), self.exchange.generation());
        let fetch = ManifestFetch { place, identity, path, generation };
        let turn = self.fetches.turn(fetch, asked.patience(PATIENCE));
        let turn = match expected {
            Some(digest) if asked.is_hop() => {
                let hops = &self.exchange.common.hops;
                let turn = hops.unless_brought(digest, &asked.registry, turn).await;
                match turn {
                    Some(turn) => turn,
                    None if self.exchange.may_know_of_hop(digest).await => {
                        return Ok(elsewhere(&asked.registry));
                    }
                    None => Turn::Late,
                }
            }
            _ => turn.await,
        };
        // It may have come since it was looked for, by whomever it was fetched.
        let began = Instant::now();
        let known = match &turn {
            Turn::Told(fetched) => Some(fetched.clone()?),
            Turn::Lead(_) | Turn::GivenUp | Turn::Late => expected.copied(),
        };
        if let Some(digest) = known
            && let Some(kept) = self.kept(&digest, None).await
            && kept.belongs
            && rights.may_pull().await
        {
            if let Turn::Lead(permit) = turn {
                permit.tell(Ok(digest));
            }
            return Ok(self.as_kept(&kept, Provenance::Joined));
        }
        let fetched = match Box::pin(self.fetched(&target, expected, began)).await {
            Ok(fetched) => fetched,
            Err(error) => {
                let error = Arc::new(error);
                if let Turn::Lead(permit) = turn {
                    permit.tell(Err(error.clone()));
                }
                return Err(error.into());
            }
        };
        if let Turn::Lead(permit) = turn {
            match fetched.kept {
                Some(digest) => permit.tell(Ok(digest)),
                None => permit.give_up(),
            }
        }
        Ok(fetched.served)
    }

    /// The manifest from whoever fetches it for all, or what the registry says.
    async fn fetched(
        &self,
        target: &Target,
        expected: Option<&Digest>,
        began: Instant,
    ) -> Result<Fetched, UpstreamError> {
        if let Some(digest) = expected
            && let Some(fetched) = self.brought_by_peer(digest).await
        {
            return Ok(fetched);
        }
        let headers = for_whole_content(&self.exchange.asked.headers);
        let answer = self.exchange.follow(Method::GET, target, &headers).await?;
        Ok(self.keep_answer(answer.response, expected, began).await)
    }

    /// The manifest from the replica that fetches it for all, where that is another and has it.
    /// Those who wait for it here may have it only where the registry has said so here: it is asked
    /// first, which costs nothing where pulls are counted.
    async fn brought_by_peer(&self, digest: &Digest) -> Option<Fetched> {
        let Exchange { common, asked, rights, .. } = &*self.exchange;
        let mut peer = self.exchange.owner(digest)?;
        if !rights.may_pull().await && matches!(self.confirmed(digest, None).await, Ok(None)) {
            return None;
        }
        let source = Source::of_manifest(&self.exchange, digest);
        let _from_replica = common.hops.begin(digest, rights.place());
        let answer = match source.ask_peer(&peer, None).await {
            Err(error) if error.is_absence() => {
                peer = self.exchange.owner(digest)?;
                source.ask_peer(&peer, None).await.ok()?
            }
            answer => answer.ok()?,
        };
        let media_type = media_type_of(answer.headers()).filter(|_| is_plain_content(&answer))?;
        let (head, body) = answer.into_parts();
        let bytes = body.whole(MAX_BYTES, &asked.account).await.ok()?;
        if Digest::of(digest.algorithm(), &bytes) != *digest {
            common.metrics().mismatched();
            return None;
        }
        let Some(reader) = self.keep(digest, &bytes, &media_type).await else {
            return Some(passed_whole(&head.headers, bytes).into());
        };
        let provenance = Provenance::Peer(PeerStatus::of(&head.headers));
        let served = self.shown(reader, &media_type, None, provenance);
        Some(Fetched { served, kept: Some(*digest) })
    }

    async fn keep_answer(
        &self,
        response: Response<IdleBody>,
        expected: Option<&Digest>,
        began: Instant,
    ) -> Fetched {
        let media_type = media_type_of(response.headers());
        let too_long = content_length(&response).is_some_and(|length| length > MAX_BYTES as u64);
        let media_type = match media_type {
            Some(media_type) if is_plain_content(&response) && !too_long => media_type,
            _ => return self.not_a_manifest(response, expected).into(),
        };
        let Exchange { common, asked, rights, .. } = &*self.exchange;
        let (head, body) = response.into_parts();
        let bytes = match body.whole(MAX_BYTES, &asked.account).await {
            Ok(bytes) => bytes,
            Err(error) => return broken(&asked.registry, &error).into(),
        };
        let expected = expected.copied().or_else(|| digest_of(&head.headers));
        let algorithm = expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = Digest::of(algorithm, &bytes);
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            let payload = signed_payload(&bytes);
            if payload.is_some_and(|payload| Digest::of(algorithm, &payload) == expected) {
                // It has its payload's name: what is kept here has the name of all its bytes.
                rights.grant(began).await;
                return passed_whole(&head.headers, bytes).into();
            }
            common.metrics().mismatched();
            let reason = "the manifest's bytes do not match its digest";
            return unusable(&asked.registry, reason).into();
        }
        rights.grant(began).await;
        match self.keep(&digest, &bytes, &media_type).await {
            Some(reader) => {
                // Who has it from a registry has it for all.
                rights.records().share(&digest);
                let mut served = self.shown(reader, &media_type, None, Provenance::Stored);
                tell_quota(&head.headers, &mut served);
                Fetched { served, kept: Some(digest) }
            }
            None => passed_whole(&head.headers, bytes).into(),
        }
    }

    /// Something else than a manifest, as it came; under a digest's name only if it has that
    /// digest.
    fn not_a_manifest(&self, response: Response<IdleBody>, expected: Option<&Digest>) -> Served {
        if !is_whole(&response) {
            return not_content(&self.exchange.asked.registry, response);
        }
        let relayed = Provenance::Relayed(Forward::Miss);
        match expected {
            Some(digest) => passed_verified(response, digest, Box::new(|| {}), relayed),
            None => passed_on(response, Forward::Miss),
        }
    }

    async fn keep(&self, digest: &Digest, bytes: &Bytes, media_type: &MediaType) -> Option<Reader> {
        let Exchange { common, rights, .. } = &*self.exchange;
        // On record before it can be found.
        rights.deliver(digest, Some(media_type)).await;
        let kept = common.store.put(digest, bytes.clone()).await;
        let reader = kept
            .inspect_err(|error| tracing::warn!(%digest, %error, "a manifest could not be kept"))
            .ok()?;
        self.tags.settle(rights.records(), rights.place(), digest).await;
        Some(reader)
    }
}

fn media_type_of(headers: &HeaderMap) -> Option<MediaType> {
    text(headers, header::CONTENT_TYPE).and_then(MediaType::of_manifest)
}

/// What came of a GET.
struct Fetched {
    served: Served,
    /// Under which name it is kept, if it is.
    kept: Option<Digest>,
}

impl From<Served> for Fetched {
    fn from(served: Served) -> Self {
        Self { served, kept: None }
    }
}

/// A manifest that could not be kept, as it came.
fn passed_whole(fields: &HeaderMap, bytes: Bytes) -> Served {
    let mut response = Response::new(ResponseBody::full(bytes));
    *response.headers_mut() = returned(fields);
    Served::new(Provenance::Unkept, response)
}
