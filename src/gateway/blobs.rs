//! Blobs, from the store or into it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use entrepot_cache::{
    BeginError, ContentRecord, FinishError, Lookup, Presence, Reader, Reservation, Start,
    WriteError,
};
use entrepot_oci::Digest;
use entrepot_oci::{Authority, RepositoryName};
use http::{HeaderMap, Method, Response, StatusCode, header};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::access::Rights;
use super::caller::Caller;
use super::errors::is_trouble;
use super::fetching::Fetch;
use super::fill::{FillError, Opened, Source};
use super::headers::{for_content, for_whole_content, text};
use super::object::{Presentation, respond};
use super::ranges::ByteRanges;
use super::relay::{passed_on, passed_verified};
use super::{Asked, Gateway, Parts, Served};
use crate::log::Outcome;
use crate::upstream::body::IdleBody;
use crate::upstream::{UpstreamError, client::Followed};

/// A range that begins further than this beyond what has arrived is asked of the registry at
/// once: waiting for a download to get there takes longer than a request of its own.
const FAR: u64 = 8 * 1024 * 1024;
/// How long a request waits for another's to begin the download of the same object.
const RESERVED: Duration = Duration::from_secs(30);
/// The same where that one asks for another repository, or as somebody else.
const ANOTHERS: Duration = Duration::from_secs(2);
/// How long an answer waits for the object to be hashed, the first time after a start: nothing is
/// sent yet, and what is damaged can be fetched in its place.
const PROVED: Duration = Duration::from_millis(250);
/// What registries call every blob.
const MEDIA_TYPE: &str = "application/octet-stream";

/// Answers a GET or HEAD of a blob.
pub(super) async fn serve(
    gateway: &Gateway,
    asked: Box<Asked>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Served, UpstreamError> {
    let caller = gateway.caller(&asked, Some(repository));
    let Some(rights) = caller.rights.clone() else {
        return Box::pin(super::relay::serve(gateway, asked)).await;
    };
    let request = Request { gateway, asked, caller, rights, digest };
    if request.asked.method == Method::HEAD {
        Box::pin(request.head()).await
    } else {
        request.get().await
    }
}

struct Request<'a> {
    gateway: &'a Gateway,
    asked: Box<Asked>,
    caller: Caller,
    rights: Arc<Rights>,
    digest: &'a Digest,
}

impl Request<'_> {
    /// A HEAD never begins a download.
    async fn head(&self) -> Result<Served, UpstreamError> {
        let access = &self.gateway.parts.access;
        let kept = self.kept().await;
        if let Some((reader, record)) = &kept
            && self.rights.may_pull(access).await
        {
            return Ok(self.kept_as(reader.clone(), Outcome::Hit, "hit", Some(record.recorded)));
        }
        let headers = for_content(&self.asked.headers);
        let asking = self.caller.follow(Method::HEAD, &self.asked.target, &headers).await;
        let answer = match (asking, kept) {
            (Ok(answer), _) => answer,
            (Err(error), Some((reader, record)))
                if self.rights.may_have_unasked(access, &record, &error).await =>
            {
                return Ok(self.kept_as(reader, Outcome::Hit, "hit", Some(record.recorded)));
            }
            (Err(error), _) => return Err(error),
        };
        if consents(&answer, self.digest, None) {
            self.confirmed().await;
        }
        Ok(passed_on(answer.response, "fwd=request"))
    }

    /// The object, if it is kept and belongs here.
    async fn kept(&self) -> Option<(Reader, ContentRecord)> {
        let parts = &self.gateway.parts;
        if parts.store.contains(self.digest) != Presence::Kept {
            return None;
        }
        let record = self.rights.content(&parts.access, self.digest).await?;
        match parts.store.lookup(self.digest, self.asked.registry.as_str()).await {
            Lookup::Kept(reader) => Some((reader, record)),
            Lookup::InFlight(_) | Lookup::Absent(_) => None,
        }
    }

    async fn get(self) -> Result<Served, UpstreamError> {
        let Some(found) = self.found().await else {
            return Box::pin(self.pass_through()).await;
        };
        let (reader, outcome) = match found {
            Lookup::Absent(_) if self.is_far(0) || self.gateway.parts.trouble.is_recent() => {
                return Box::pin(self.pass_through()).await;
            }
            Lookup::Absent(reservation) => return Box::pin(self.fetch(reservation)).await,
            Lookup::Kept(reader) => (reader, Outcome::Hit),
            // What another registry is sending is its clients' alone until it is verified.
            Lookup::InFlight(reader) if !self.is_ours(&reader) => {
                return Box::pin(self.pass_through()).await;
            }
            Lookup::InFlight(reader) => (reader, Outcome::Joined),
        };
        let belonging = self.belonging(&reader).await;
        match self.may_have(&reader, &belonging).await {
            Ok(true) => {}
            Err(error) if self.may_unasked(&belonging, &error).await => {}
            // Known without asking: it would be the same again.
            Err(error) if error.is_known() => return Err(error),
            Ok(false) | Err(_) => return Box::pin(self.pass_through()).await,
        }
        if outcome == Outcome::Joined && self.is_far(reader.available()) {
            return Box::pin(self.pass_through()).await;
        }
        let status = if outcome == Outcome::Hit { "hit" } else { "fwd=miss; collapsed" };
        Ok(self.kept_as(reader, outcome, status, belonging.since()))
    }

    /// What there is of the object; `None` where that takes too long: another's reservation may be for
    /// a registry that does not answer, and a disk may hang.
    async fn found(&self) -> Option<Lookup> {
        let Parts { fetching, .. } = &*self.gateway.parts;
        let deadline = Instant::now() + RESERVED;
        let mut looking = std::pin::pin!(self.look_up());
        loop {
            if let Ok(found) = tokio::time::timeout(ANOTHERS, &mut looking).await {
                return Some(found);
            }
            let (place, identity) = (self.rights.place(), &self.caller.identity);
            let is_for_others = fetching.is_for_others(self.digest, place, identity);
            if Instant::now() >= deadline || is_for_others {
                return None;
            }
        }
    }

    /// Whether these are bytes that nobody need doubt, or this registry's own.
    fn is_ours(&self, reader: &Reader) -> bool {
        reader.origin().is_none_or(|origin| origin == self.asked.registry.as_str())
    }

    /// The object, as far as it is proved to be what its name says: one that the disk has damaged
    /// is set aside, and absent.
    async fn look_up(&self) -> Lookup {
        loop {
            let registry = self.asked.registry.as_str();
            let found = self.gateway.parts.store.lookup(self.digest, registry).await;
            let Lookup::Kept(reader) = &found else { return found };
            if reader.is_verified() {
                return found;
            }
            let is_part = self.asked.headers.contains_key(header::RANGE);
            let patience = if is_part { RESERVED } else { PROVED };
            match tokio::time::timeout(patience, reader.verified()).await {
                // The end of the whole is held back until it is proved; a part has no such end.
                Err(_) if !is_part => return found,
                Ok(Ok(())) => return found,
                Err(_) | Ok(Err(_)) => {}
            }
        }
    }

    /// What is known of whether the object belongs here.
    async fn belonging(&self, reader: &Reader) -> Belonging {
        let parts = &self.gateway.parts;
        let is_coming = reader.origin() == Some(self.asked.registry.as_str());
        // In this order: what is not fetched for this place any more is on record.
        if is_coming && parts.fetching.is_for(self.digest, self.rights.place()) {
            return Belonging::Coming;
        }
        match self.rights.content(&parts.access, self.digest).await {
            Some(record) => Belonging::OnRecord(record),
            None if is_coming || self.rights.delivered(self.digest).await.is_some() => {
                Belonging::Elsewhere
            }
            None => Belonging::Unknown,
        }
    }

    /// Whether this client may have these bytes: by what is known, or by asking the registry
    /// whether it would serve them here, where it has shown that it has them.
    async fn may_have(
        &self,
        reader: &Reader,
        belonging: &Belonging,
    ) -> Result<bool, UpstreamError> {
        let is_here = matches!(belonging, Belonging::Coming | Belonging::OnRecord(_));
        if is_here && self.rights.may_pull(&self.gateway.parts.access).await {
            return Ok(true);
        }
        if matches!(belonging, Belonging::Unknown)
            || !Box::pin(self.is_confirmed(reader.size())).await?
        {
            return Ok(false);
        }
        self.confirmed().await;
        Ok(true)
    }

    /// Whether the object may be served although the registry can't say so now.
    async fn may_unasked(&self, belonging: &Belonging, error: &UpstreamError) -> bool {
        let Belonging::OnRecord(record) = belonging else { return false };
        self.rights.may_have_unasked(&self.gateway.parts.access, record, error).await
    }

    /// Whether the registry would serve this request's credential now; asked once for all who wait.
    async fn is_confirmed(&self, size: Option<u64>) -> Result<bool, UpstreamError> {
        let question = self.rights.question(self.digest);
        let asking = async {
            let headers = for_whole_content(&self.asked.headers);
            let object = self.digest.hex();
            let asked = self.caller.inquire(&self.asked.target, &headers, Some(&object)).await;
            let answer = asked?;
            refuse_trouble(&self.asked.target.authority, &answer)?;
            Ok(consents(&answer, self.digest, size))
        };
        let answers = &self.gateway.parts.answers;
        answers.try_get_with(question, asking).await.map_err(UpstreamError::from)
    }

    /// The registry would serve this client the object here.
    async fn confirmed(&self) {
        let access = &self.gateway.parts.access;
        self.rights.grant(access).await;
        let is_known = self.rights.content(access, self.digest).await.is_some();
        if !is_known && self.rights.delivered(self.digest).await.is_some() {
            self.rights.belongs(access, self.digest, None).await;
        }
    }

    fn is_far(&self, available: u64) -> bool {
        match text(&self.asked.headers, header::RANGE).and_then(ByteRanges::parse) {
            Some(ranges) => {
                ranges.earliest().is_none_or(|first| first > available.saturating_add(FAR))
            }
            None => false,
        }
    }

    fn kept_as(
        &self,
        reader: Reader,
        outcome: Outcome,
        status: &'static str,
        since: Option<SystemTime>,
    ) -> Served {
        let rescue = Some(Arc::new(self.source()));
        let shown = Presentation { media_type: MEDIA_TYPE, status, since, rescue };
        Served::new(outcome, respond(&self.asked.method, &self.asked.headers, reader, &shown))
    }

    /// Downloads the whole object into the store, or what is missing of it, and serves the client
    /// from there.
    async fn fetch(self, reservation: Reservation) -> Result<Served, UpstreamError> {
        let Ok(permit) = self.gateway.parts.downloads.clone().try_acquire_owned() else {
            // As many downloads as the proxy has room for: this one is the client's own.
            drop(reservation);
            return self.pass_through().await;
        };
        let (place, identity) = (self.rights.place().clone(), self.caller.identity.clone());
        let fetch = self.gateway.parts.fetching.begin(*self.digest, place, identity);
        let source = self.source();
        let (start, answer, length) = match source.open(reservation.resume_from()).await? {
            Opened::Rest(answer, length) => (Start::Resumed, answer, length),
            Opened::Whole(answer) => {
                let length = content_length(&answer.response);
                (Start::Fresh, answer, length)
            }
            Opened::Other(response) => return Ok(passed_on(response, "fwd=miss")),
        };
        if self.is_certainly_wrong(length) {
            return Ok(self.unusable());
        }
        if consents(&answer, self.digest, None) {
            self.rights.grant(&self.gateway.parts.access).await;
        }
        let (writer, reader) = match reservation.begin(start, length).await {
            Ok(begun) => begun,
            Err(error) => {
                if matches!(error, BeginError::Store(_)) {
                    self.gateway.parts.trouble.note(&error);
                }
                return self.pass_through().await;
            }
        };
        let running = Running { _fetch: fetch, _permit: permit, began: Instant::now() };
        self.spawn_fill(source, answer.response.into_body(), writer, running);
        Ok(self.kept_as(reader, Outcome::Miss, "fwd=miss; stored", None))
    }

    /// Where the object is to be had.
    fn source(&self) -> Source {
        Source {
            caller: self.caller.clone(),
            target: self.asked.target.clone(),
            headers: for_whole_content(&self.asked.headers),
        }
    }

    fn spawn_fill(
        &self,
        source: Source,
        body: IdleBody,
        writer: entrepot_cache::Writer,
        running: Running,
    ) {
        let registry = self.asked.registry.clone();
        let (gateway, rights, digest) = (self.gateway.clone(), self.rights.clone(), *self.digest);
        self.gateway.parts.tasks.spawn(async move {
            match source.fill(body, writer).await {
                Ok(verified) => {
                    // On record before it can be found.
                    delivered(&gateway, &rights, &digest, running.began).await;
                    if let Err(error) = verified.publish().await {
                        gateway.parts.trouble.note(&error);
                    }
                }
                Err(
                    error @ (FillError::Write(WriteError::Store(_))
                    | FillError::Finish(FinishError::Store(_))),
                ) => gateway.parts.trouble.note(&error),
                Err(error) => {
                    if matches!(error, FillError::Finish(FinishError::DigestMismatch { .. })) {
                        gateway.parts.upstream.metrics().mismatched();
                    }
                    tracing::warn!(%registry, %digest, %error, "a download failed");
                }
            }
            drop(running);
        });
    }

    /// Passes on what the registry itself answers, past the store: it has not delivered the object
    /// for this repository yet, would not serve this client, or the part is far from being here.
    async fn pass_through(self) -> Result<Served, UpstreamError> {
        let headers = for_content(&self.asked.headers);
        let answer = self.caller.follow(Method::GET, &self.asked.target, &headers).await?;
        if answer.response.status().is_success() && names(&answer, self.digest) {
            self.rights.grant(&self.gateway.parts.access).await;
        }
        let response = answer.response;
        // A registry may send everything whatever part was asked for.
        if is_plain_content(&response) {
            if self.is_certainly_wrong(content_length(&response)) {
                return Ok(self.unusable());
            }
            return Ok(self.passed_verified(response));
        }
        let wants_part = self.asked.headers.contains_key(header::RANGE);
        Ok(passed_on(response, if wants_part { "fwd=partial" } else { "fwd=miss" }))
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
        let (gateway, rights, digest) = (self.gateway.clone(), self.rights.clone(), *self.digest);
        let began = Instant::now();
        let on_success = Box::new(move || {
            let tasks = gateway.parts.tasks.clone();
            tasks.spawn(async move { delivered(&gateway, &rights, &digest, began).await });
        });
        passed_verified(response, self.digest, on_success, Outcome::Miss)
    }
}

/// What is known of whether an object belongs to a repository.
enum Belonging {
    /// It is being delivered there just now.
    Coming,
    /// The registry has delivered or confirmed it there.
    OnRecord(ContentRecord),
    /// The registry delivers it, or has, for another of its repositories.
    Elsewhere,
    /// The registry has never shown it.
    Unknown,
}

impl Belonging {
    /// Since when it has been there.
    fn since(&self) -> Option<SystemTime> {
        match self {
            Self::OnRecord(record) => Some(record.recorded),
            Self::Coming | Self::Elsewhere | Self::Unknown => None,
        }
    }
}

/// A download under way: what is given back once its object is on record and has its name.
struct Running {
    _fetch: Fetch,
    _permit: OwnedSemaphorePermit,
    began: Instant,
}

/// Notes that the registry delivered this object, all of it and right, to this client. What it said
/// of the client since it began counts for more.
async fn delivered(gateway: &Gateway, rights: &Rights, digest: &Digest, began: Instant) {
    let access = &gateway.parts.access;
    rights.grant_as_of(access, began).await;
    rights.deliver(access, digest, None).await;
}

/// Whether an answer is about this very object: storage that has it in its path, or a registry that
/// says so.
fn names(followed: &Followed, digest: &Digest) -> bool {
    let named = text(followed.response.headers(), "docker-content-digest");
    followed.names(&digest.hex()) || named == Some(&digest.to_string())
}

/// An answer that says nothing but that the registry is unwell.
pub(super) fn refuse_trouble(
    authority: &Authority,
    answer: &Followed,
) -> Result<(), UpstreamError> {
    let status = answer.response.status();
    if is_trouble(status) {
        return Err(UpstreamError::Unwell { authority: authority.clone(), status });
    }
    Ok(())
}

/// Whether a registry's answer to a HEAD is its yes to this very object: a login page is a 200
/// too, and a redirect to one is a redirect.
pub(super) fn consents(followed: &Followed, digest: &Digest, size: Option<u64>) -> bool {
    let response = &followed.response;
    if followed.names(&digest.hex()) {
        return true;
    }
    let named = text(response.headers(), "docker-content-digest");
    response.status() == StatusCode::OK
        && (named == Some(&digest.to_string())
            || (named.is_none() && size.is_some() && content_length(response) == size))
}

/// A 200 whose bytes are the object's own: an encoded body hashes to something else.
pub(super) fn is_plain_content(response: &Response<IdleBody>) -> bool {
    response.status() == StatusCode::OK && is_unencoded(response.headers())
}

pub(super) fn is_unencoded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

pub(super) fn content_length(response: &Response<IdleBody>) -> Option<u64> {
    text(response.headers(), header::CONTENT_LENGTH)?.parse().ok()
}
