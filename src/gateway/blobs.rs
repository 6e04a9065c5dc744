//! Blobs, from the store or into it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use entrepot_cache::{
    BeginError, ContentRecord, FinishError, Lookup, Presence, Reader, Reservation, WriteError,
    Writer,
};
use entrepot_oci::Digest;
use http::{Method, Response};
use tokio::time::Instant;

use super::access::{Question, SharedContent};
use super::answer::errors::{elsewhere, unusable};
use super::answer::object::{PassedObject, Presentation, passed_object, respond, respond_unseen};
use super::answer::passed::{not_content, passed_on};
use super::answer::provenance::{Forward, Provenance, Reason};
use super::answer::served::Served;
use super::arrivals::Begun;
use super::download::{self, DownloadError, Fetch, Fetching};
use super::exchange::{Exchange, Source};
use super::shares::{Share, Shares};
use super::supplies::{Coming, Flow, Opened, Supplier, Supplies};
use crate::bucket::Bucket;
use crate::collapse::Collapse;
use crate::registry::answer::{
    begins, consents, content_length, is_gone, is_whole, names, refuse_trouble,
};
use crate::registry::fields::{for_content, for_whole_content};
use crate::upstream::UpstreamError;
use crate::upstream::body::IdleBody;
use crate::upstream::client::Followed;

/// How long a request waits for another's to begin the download of the same object, or for its
/// answer to the same question.
const RESERVED: Duration = Duration::from_secs(30);
/// How long it waits where that one asks for another repository, or as somebody else.
const ANOTHERS: Duration = Duration::from_secs(2);
/// How long an answer waits for the object to be hashed, the first time after a start: nothing is
/// sent yet, and what is damaged can be fetched in its place.
const PROVED: Duration = Duration::from_millis(250);
/// What registries call every blob.
const MEDIA_TYPE: &str = "application/octet-stream";

/// What requests for blobs share.
#[derive(Default)]
pub(super) struct Blobs {
    fetching: Fetching,
    /// Whether a registry would serve somebody an object: when it was asked, if so.
    consents: Collapse<Question, Result<Option<Instant>, Arc<UpstreamError>>>,
    /// Room for downloads that outlive their clients.
    downloads: Shares,
}

impl Blobs {
    /// Answers a GET or HEAD of a blob.
    pub(super) async fn serve(
        self: &Arc<Self>,
        exchange: Arc<Exchange>,
        digest: &Digest,
    ) -> Result<Served, UpstreamError> {
        let is_head = exchange.asked.method == Method::HEAD;
        let request = BlobRequest { blobs: self.clone(), exchange, digest: *digest };
        if is_head { Box::pin(request.head()).await } else { request.get().await }
    }
}

#[derive(Clone)]
struct BlobRequest {
    blobs: Arc<Blobs>,
    exchange: Arc<Exchange>,
    digest: Digest,
}

impl BlobRequest {
    /// A HEAD is a pusher's question, whether the registry has the blob: its answer counts while it
    /// can be had, and what is kept stands in for it only then. Engines make none when they pull.
    async fn head(&self) -> Result<Served, UpstreamError> {
        let Exchange { asked, rights, .. } = &*self.exchange;
        let headers = for_content(&asked.headers);
        let began = Instant::now();
        let (error, answer) =
            match self.exchange.follow(Method::HEAD, &asked.target(), &headers).await {
                Ok(answer) => match refuse_trouble(&asked.authority, &answer) {
                    Ok(()) => return Ok(self.told_of(answer, began).await),
                    Err(error) => (error, Some(answer.response)),
                },
                Err(error) => (error, None),
            };
        if let Some((reader, record)) = self.kept().await
            && rights.may_have_unasked(&record, &error).await
        {
            return Ok(self.kept_as(reader, unasked(&error), Some(record.recorded)));
        }
        if let Some(served) = self.told_by_bucket(&error).await {
            return Ok(served);
        }
        answer.map(|response| passed_on(response, Forward::Request)).ok_or(error)
    }

    /// What the bucket knows of the blob, which is not here, while the registry can't say.
    async fn told_by_bucket(&self, error: &UpstreamError) -> Option<Served> {
        let Exchange { common, rights, .. } = &*self.exchange;
        let bucket = common.archive.fleet()?.bucket();
        let SharedContent::Here(record) = rights.shared(&self.digest).await else { return None };
        if !rights.may_have_unasked(&record, error).await {
            return None;
        }
        let length = bucket.size(&self.digest).await.ok().flatten()?;
        let provenance = Provenance::Bucket(Some(Reason::Unreachable(error.to_string())));
        let since = Some(record.recorded);
        Some(respond_unseen(&self.digest, length, MEDIA_TYPE, since, provenance))
    }

    /// Passes on what the registry says of the blob, and remembers it.
    async fn told_of(&self, answer: Followed, began: Instant) -> Served {
        let Exchange { rights, is_peculiar, .. } = &*self.exchange;
        if consents(&answer, &self.digest, None) {
            self.confirmed(began).await;
        } else if is_gone(&answer) && !is_peculiar && rights.may_pull().await {
            // To whom it lets in; from others it may hide what it has.
            rights.disown(&self.digest).await;
        }
        passed_on(answer.response, Forward::Request)
    }

    /// The object, if it is kept and belongs here.
    async fn kept(&self) -> Option<(Reader, ContentRecord)> {
        let store = &self.exchange.common.store;
        if store.contains(&self.digest) != Presence::Kept {
            return None;
        }
        let record = self.exchange.rights.content(&self.digest).await?;
        match store.lookup(&self.digest, self.exchange.asked.registry.as_str()).await {
            Lookup::Kept(reader) => Some((reader, record)),
            Lookup::InFlight(_) | Lookup::Absent(_) => None,
        }
    }

    async fn get(self) -> Result<Served, UpstreamError> {
        let found = if self.exchange.asked.is_hop() {
            let Exchange { common, asked, .. } = &*self.exchange;
            let finding = self.found();
            let found = common.hops.unless_brought(&self.digest, &asked.registry, finding).await;
            let Some(found) = found else {
                if self.exchange.may_know_of_hop(&self.digest).await {
                    return Ok(elsewhere(&asked.registry));
                }
                return Box::pin(self.pass_through(Prior::KEPT)).await;
            };
            found
        } else {
            self.found().await
        };
        let Some(found) = found else {
            return Box::pin(self.pass_through(Prior::UNKEPT)).await;
        };
        let (reader, provenance) = match found {
            Lookup::Absent(_) if self.exchange.common.trouble.is_recent() => {
                return Box::pin(self.pass_through(Prior::UNKEPT)).await;
            }
            Lookup::Absent(reservation) => {
                let entitled = Box::pin(self.in_bucket()).await;
                return Box::pin(self.fetch(reservation, entitled)).await;
            }
            Lookup::Kept(reader) => (reader, Provenance::Kept(None)),
            // What another registry is sending is its clients' alone until it is published.
            Lookup::InFlight(reader) if !self.is_ours(&reader) => {
                return Box::pin(self.pass_through(Prior::KEPT)).await;
            }
            Lookup::InFlight(reader) => (reader, Provenance::Joined),
        };
        let belonging = self.belonging(&reader).await;
        let is_asked = !matches!(belonging, Belonging::Unknown);
        let provenance = match self.may_have(&reader, &belonging).await {
            Ok(true) => provenance,
            Err(error) if self.may_unasked(&belonging, &error).await => match provenance {
                Provenance::Kept(_) => unasked(&error),
                joined => joined,
            },
            // Known without asking: it would be the same again.
            Err(error) if error.is_known() => return Err(error),
            Ok(false) | Err(_) => {
                let prior = Prior { is_asked, ..Prior::KEPT };
                return Box::pin(self.pass_through(prior)).await;
            }
        };
        if let Belonging::OnRecord(record) = &belonging
            && self.exchange.rights.is_to_be_confirmed(&self.digest, record)
        {
            self.confirm_behind(reader.size());
        }
        Ok(self.kept_as(reader, provenance, belonging.since()))
    }

    /// What there is of the object; `None` where that takes too long: another's reservation may be
    /// for a registry that does not answer, and a disk may hang.
    async fn found(&self) -> Option<Lookup> {
        let (rights, client) = (&self.exchange.rights, &self.exchange.client);
        let deadline = Instant::now() + RESERVED;
        let mut looking = std::pin::pin!(self.look_up());
        loop {
            if let Ok(found) = tokio::time::timeout(ANOTHERS, &mut looking).await {
                return Some(found);
            }
            let fetching = &self.blobs.fetching;
            let is_for_others =
                fetching.is_for_others(&self.digest, rights.place(), &client.identity);
            if Instant::now() >= deadline || is_for_others {
                return None;
            }
        }
    }

    /// Whether these bytes are verified, or still come from this very registry.
    fn is_ours(&self, reader: &Reader) -> bool {
        reader.origin().is_none_or(|origin| origin == self.exchange.asked.registry.as_str())
    }

    /// The object, as far as it is proved to be what its name says: one that the disk has damaged
    /// is set aside, and absent.
    async fn look_up(&self) -> Lookup {
        loop {
            let registry = self.exchange.asked.registry.as_str();
            let found = self.exchange.common.store.lookup(&self.digest, registry).await;
            let Lookup::Kept(reader) = &found else { return found };
            if reader.is_verified() {
                return found;
            }
            let is_part = self.exchange.asked.wants_part();
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
        let Exchange { asked, rights, .. } = &*self.exchange;
        let is_coming = reader.origin() == Some(asked.registry.as_str());
        // In this order: what is not fetched for this place any more is on record.
        if is_coming && self.blobs.fetching.is_for(&self.digest, rights.place()) {
            return Belonging::Coming;
        }
        match rights.content(&self.digest).await {
            Some(record) => Belonging::OnRecord(record),
            None if is_coming || rights.delivered(&self.digest).await.is_some() => {
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
        self.may_have_of(reader.size(), belonging).await
    }

    async fn may_have_of(
        &self,
        size: Option<u64>,
        belonging: &Belonging,
    ) -> Result<bool, UpstreamError> {
        let is_here = matches!(belonging, Belonging::Coming | Belonging::OnRecord(_));
        if is_here && self.exchange.rights.may_pull().await {
            return Ok(true);
        }
        if matches!(belonging, Belonging::Unknown) {
            return Ok(false);
        }
        let it = self.clone();
        let asking = async move { it.is_confirmed(size).await };
        let Exchange { common, asked, .. } = &*self.exchange;
        let mut question = common.ask(asked, asking);
        let confirmed = match question.in_time().await {
            Ok(told) => told?,
            Err(late) if self.may_unasked(belonging, &late).await => return Err(late),
            Err(_) => question.answer().await?,
        };
        if let Some(began) = confirmed {
            self.confirmed(began).await;
        }
        Ok(confirmed.is_some())
    }

    /// Asks the registry once more whether it has the object here, behind the answer: what it has
    /// withdrawn is not served for ever.
    fn confirm_behind(&self, size: Option<u64>) {
        let it = self.clone();
        self.exchange.common.tasks.spawn(async move {
            let Exchange { asked, rights, is_peculiar, .. } = &*it.exchange;
            let headers = for_whole_content(&asked.headers);
            let (began, object) = (Instant::now(), it.digest.hex());
            let Ok(answer) = it.exchange.inquire(&headers, Some(&object)).await else { return };
            if consents(&answer, &it.digest, size) {
                it.confirmed(began).await;
            } else if is_gone(&answer) && !is_peculiar && rights.may_pull().await {
                let registry = &asked.registry;
                tracing::info!(%registry, digest = %it.digest, "withdrawn by its registry");
                rights.disown(&it.digest).await;
            }
        });
    }

    /// The bucket, if the object belongs here and this client may have it from there: the rule is
    /// that of what is kept.
    async fn in_bucket(&self) -> Option<Entitled> {
        let Exchange { common, rights, .. } = &*self.exchange;
        let bucket = common.archive.fleet()?.bucket();
        let belonging = match rights.shared(&self.digest).await {
            SharedContent::Here(record) => Belonging::OnRecord(record),
            SharedContent::Elsewhere => Belonging::Elsewhere,
            SharedContent::Unknown => return None,
        };
        let reason = match self.may_have_of(None, &belonging).await {
            Ok(true) => None,
            Err(error) if self.may_unasked(&belonging, &error).await => {
                Some(Reason::Unreachable(error.to_string()))
            }
            Ok(false) | Err(_) => return None,
        };
        Some(Entitled { bucket: bucket.clone(), reason, since: belonging.since() })
    }

    /// Whether the object may be served although the registry can't say so now.
    async fn may_unasked(&self, belonging: &Belonging, error: &UpstreamError) -> bool {
        let rights = &self.exchange.rights;
        match belonging {
            Belonging::OnRecord(record) => rights.may_have_unasked(record, error).await,
            // What comes from the bucket, or once more, is on record already.
            Belonging::Coming => match rights.content(&self.digest).await {
                Some(record) => rights.may_have_unasked(&record, error).await,
                None => false,
            },
            Belonging::Elsewhere | Belonging::Unknown => false,
        }
    }

    /// Whether the registry would serve this request's credential now, and when it was asked; asked
    /// once for all who wait.
    async fn is_confirmed(&self, size: Option<u64>) -> Result<Option<Instant>, UpstreamError> {
        let asked = &self.exchange.asked;
        let asking = async {
            let began = Instant::now();
            let headers = for_whole_content(&asked.headers);
            let object = self.digest.hex();
            let answer = self.exchange.inquire(&headers, Some(&object)).await?;
            refuse_trouble(&asked.authority, &answer)?;
            let is_yes = consents(&answer, &self.digest, size);
            if is_yes || is_gone(&answer) {
                return Ok(is_yes.then_some(began));
            }
            let answer = self.exchange.probe(&object).await?;
            refuse_trouble(&asked.authority, &answer)?;
            let is_yes = consents(&answer, &self.digest, size);
            Ok((is_yes || begins(&answer, &self.digest, size)).then_some(began))
        };
        let asking = async { asking.await.map_err(Arc::new) };
        let question = self.exchange.rights.question(&self.digest);
        let patience = self.exchange.asked.patience(RESERVED);
        Ok(self.blobs.consents.once(question, patience, asking).await?)
    }

    /// The registry would serve this client the object here, as it said when it was asked then.
    async fn confirmed(&self, began: Instant) {
        let rights = &self.exchange.rights;
        rights.grant(began).await;
        let is_known = rights.content(&self.digest).await.is_some();
        if is_known || rights.delivered(&self.digest).await.is_some() {
            rights.confirm(&self.digest, None).await;
        }
    }

    fn kept_as(&self, reader: Reader, provenance: Provenance, since: Option<SystemTime>) -> Served {
        let Exchange { common, asked, .. } = &*self.exchange;
        let is_coming = reader.origin().is_some();
        let follow = || common.arrivals.follow(&self.digest, &asked.registry, asked.asker);
        let follower = if is_coming { follow() } else { None };
        let source = Source::of_blob(&self.exchange).followed_by(follower);
        respond(reader, Presentation { media_type: MEDIA_TYPE, provenance, since, source })
    }

    /// Downloads the whole object into the store, or what is missing of it, and serves the client
    /// from there.
    async fn fetch(
        self,
        mut reservation: Reservation,
        entitled: Option<Entitled>,
    ) -> Result<Served, UpstreamError> {
        let Some(share) = self.blobs.downloads.take(self.exchange.asked.requester) else {
            // As many as the proxy has room for, all in all or of this client: this is its own.
            drop(reservation);
            return self.pass_through(Prior::UNKEPT).await;
        };
        let began = Instant::now();
        let Exchange { common, asked, client, rights, .. } = &*self.exchange;
        let purpose = (rights.place().clone(), client.identity.clone());
        let fetch = self.blobs.fetching.begin(self.digest, purpose.0, purpose.1);
        let (bucket, reason, since) = match entitled {
            Some(Entitled { bucket, reason, since }) => (Some(bucket), reason, since),
            None => (None, None, None),
        };
        let source = Source::of_blob(&self.exchange);
        let mut supplies = Supplies::of(source, self.digest).and_bucket(bucket);
        let opened = supplies.open(&mut reservation).await?;
        let Coming { flow, start, total, supplier, is_consent } = match opened {
            Opened::Coming(coming) => coming,
            Opened::Other(response) => return Ok(self.other(response, Prior::UNKEPT).await),
        };
        if self.is_certainly_wrong(total) {
            return Ok(self.unusable());
        }
        if is_consent {
            rights.grant(began).await;
        }
        let (writer, reader) = match reservation.begin(start, total).await {
            Ok(ends) => ends,
            Err(error) => {
                if matches!(error, BeginError::Store(_)) {
                    common.trouble.note(&error);
                }
                return self.pass_through(Prior::UNKEPT).await;
            }
        };
        let arrival = common.arrivals.begin(self.digest, rights.place(), asked.asker);
        let running = Running { _fetch: fetch, arrival, share, supplier, began };
        common.tasks.spawn(running.run(supplies, self.digest, flow, writer));
        Ok(match supplier {
            Supplier::Bucket => self.kept_as(reader, Provenance::Bucket(reason), since),
            Supplier::Peer(status) => self.kept_as(reader, Provenance::Peer(status), None),
            Supplier::Registry => self.kept_as(reader, Provenance::Stored, None),
        })
    }

    /// Passes on what the registry itself answers, past the store: it has not delivered the object
    /// for this repository yet, or would not serve this client. The whole is asked for, whatever
    /// part the client wants: nothing less proves it, and the registry does not see what is kept.
    async fn pass_through(self, prior: Prior) -> Result<Served, UpstreamError> {
        let asked = &self.exchange.asked;
        let (headers, began) = (for_whole_content(&asked.headers), Instant::now());
        let answer = self.exchange.follow(Method::GET, &asked.target(), &headers).await?;
        if answer.response.status().is_success() && names(&answer, &self.digest) {
            self.exchange.rights.grant(began).await;
        }
        let response = answer.response;
        if !is_whole(&response) {
            return Ok(self.other(response, prior).await);
        }
        let length = content_length(&response);
        if self.is_certainly_wrong(length) {
            return Ok(self.unusable());
        }
        Ok(self.passed_verified(response, length, began, prior))
    }

    /// The registry's answer to a GET that is not the blob. How long a refusal takes does not tell
    /// whether the blob is kept: where it is, the same is asked before.
    async fn other(&self, response: Response<IdleBody>, prior: Prior) -> Served {
        let Exchange { asked, rights, .. } = &*self.exchange;
        if !prior.is_asked && response.status().is_client_error() && !rights.may_pull().await {
            // Whatever it says, the GET has said it.
            let _ = self.is_confirmed(None).await;
        }
        not_content(&asked.registry, response)
    }

    /// Whether an answer is empty and the object is not: nothing of it could be held back.
    fn is_certainly_wrong(&self, length: Option<u64>) -> bool {
        length == Some(0) && Digest::of(self.digest.algorithm(), b"") != self.digest
    }

    fn unusable(&self) -> Served {
        unusable(&self.exchange.asked.registry, "an empty answer in place of the blob")
    }

    /// Passes an object on, or a part of it, checked; once it has come right, the registry has
    /// delivered it. It looks as what is fetched into the store does.
    fn passed_verified(
        &self,
        response: Response<IdleBody>,
        length: Option<u64>,
        began: Instant,
        prior: Prior,
    ) -> Served {
        let (exchange, digest) = (self.exchange.clone(), self.digest);
        let on_success = Box::new(move || {
            let tasks = exchange.common.tasks.clone();
            tasks.spawn(async move { delivered(&exchange, &digest, Some(began)).await });
        });
        let provenance = if prior.is_kept { Provenance::Stored } else { Provenance::Unkept };
        passed_object(
            response,
            &self.exchange.asked,
            PassedObject { digest, length, media_type: MEDIA_TYPE, provenance },
            on_success,
        )
    }
}

/// That a client may have an object from the bucket.
struct Entitled {
    bucket: Bucket,
    /// Why the registry was not asked, if it could not be.
    reason: Option<Reason>,
    /// Since when the object has been there, as far as is known.
    since: Option<SystemTime>,
}

/// What is known before a registry's answer is passed on.
#[derive(Clone, Copy)]
struct Prior {
    /// Whether the object is here, or on its way, though not for this client.
    is_kept: bool,
    /// Whether the registry was asked by HEAD.
    is_asked: bool,
}

impl Prior {
    const KEPT: Self = Self { is_kept: true, is_asked: false };
    const UNKEPT: Self = Self { is_kept: false, is_asked: false };
}

/// What is kept is right, whatever the registry can't say now.
fn unasked(error: &UpstreamError) -> Provenance {
    Provenance::Kept(Some(Reason::Unreachable(error.to_string())))
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
    arrival: Begun,
    share: Share,
    supplier: Supplier,
    began: Instant,
}

impl Running {
    async fn run(mut self, mut supplies: Supplies, digest: Digest, flow: Flow, writer: Writer) {
        let exchange = supplies.source().exchange.clone();
        let trouble = &exchange.common.trouble;
        let (share, arrival) = (&mut self.share, self.arrival.arrival());
        match download::run(&mut supplies, flow, writer, share, arrival).await {
            Ok(verified) => {
                // On record before it can be found.
                match self.supplier {
                    Supplier::Registry => delivered(&exchange, &digest, Some(self.began)).await,
                    // The registry has delivered it to another replica, and has let nobody in here.
                    Supplier::Peer(_) => delivered(&exchange, &digest, None).await,
                    // As it is on record already, or was confirmed.
                    Supplier::Bucket => {}
                }
                match verified.publish().await {
                    // Who has it from a registry has it for all.
                    Ok(_) if supplies.are_of_registry() => {
                        exchange.rights.records().share(&digest);
                    }
                    Ok(_) => {}
                    Err(error) => trouble.note(&error),
                }
            }
            Err(
                error @ (DownloadError::Write(WriteError::Store(_))
                | DownloadError::Finish(FinishError::Store(_))),
            ) => trouble.note(&error),
            Err(DownloadError::Unread) => {
                tracing::info!(%digest, "a download that nobody reads stops; the next goes on there");
            }
            Err(error) => {
                if matches!(error, DownloadError::Finish(FinishError::DigestMismatch { .. })) {
                    exchange.common.metrics().mismatched();
                    supplies.mismatched(&digest).await;
                }
                let registry = &exchange.asked.registry;
                tracing::warn!(%registry, %digest, %error, "a download failed");
            }
        }
    }
}

/// Notes that the registry delivered this object, all of it and right, here or to another replica;
/// to this client, where it was `asked` then and let it in.
async fn delivered(exchange: &Exchange, digest: &Digest, asked: Option<Instant>) {
    if let Some(asked) = asked {
        exchange.rights.grant(asked).await;
    }
    exchange.rights.deliver(digest, None).await;
}
