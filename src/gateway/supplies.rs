//! The supplies of an object: where it is to be had, asked in turn.
//!
//! The registry comes last, and its word alone says who may have the object. Whatever fails in
//! another supply is a miss there, and the next is asked under the same reservation.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use bytes::Bytes;
use entrepot_cache::{Reservation, Start};
use entrepot_oci::Digest;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;

use super::answer::provenance::PeerStatus;
use super::exchange::Source;
use super::hops::FromReplica;
use crate::bucket::{Bucket, BucketBody, BucketError, BucketObject};
use crate::peers::PeerError;
use crate::registry::answer::{consents, content_length, is_trouble, is_whole, starts_at, total};
use crate::upstream::UpstreamError;
use crate::upstream::body::{BodyError, IdleBody};
use crate::upstream::client::Followed;

/// A registry that wants to be asked once a second is waited for so often, and so long at a time.
const MAX_PAUSES: usize = 5;
const PAUSE: Duration = Duration::from_secs(2);
/// The wait before the first resumption; it doubles with each break.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// So many replicas that turn out not to be there are asked before the registry is.
const MAX_ABSENT: u32 = 2;
/// How often, and how long after, a replica is asked again for the rest of an object that can't be
/// waited for: it may have lost the replica that this one has lost, and goes on in a moment.
const PATIENCE: u32 = 5;
const BUSY: Duration = Duration::from_millis(200);

/// Where one object is to be had, to be asked again when its transfer breaks.
pub(super) struct Supplies {
    source: Source,
    /// What is got, whoever sends it.
    digest: Digest,
    /// The bucket, until it was asked.
    bucket: Option<Bucket>,
    /// Whether anything of what has come is the bucket's.
    is_of_bucket: bool,
    /// Whether anything of it is the registry's.
    is_of_registry: bool,
    /// It comes from another replica now.
    from_replica: Option<FromReplica>,
}

/// Who sends an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Supplier {
    /// The bucket that replicas share.
    Bucket,
    /// The replica that fetches it for all, which says this of itself.
    Peer(PeerStatus),
    /// The registry.
    Registry,
}

/// An object, or the rest of it, on its way here.
pub(super) struct Coming {
    pub(super) flow: Flow,
    /// Where it begins.
    pub(super) start: Start,
    /// How many bytes the whole has, where that is told.
    pub(super) total: Option<u64>,
    /// Who sends it.
    pub(super) supplier: Supplier,
    /// Whether it is the registry's word that this client may have it.
    pub(super) is_consent: bool,
}

/// What comes of an object, piece by piece.
pub(super) enum Flow {
    /// An answer's body.
    Http(IdleBody),
    /// What the bucket sends.
    Bucket(BucketBody),
}

/// What comes of an object has broken off.
#[derive(Debug, thiserror::Error)]
pub(super) enum FlowError {
    #[error(transparent)]
    Http(#[from] BodyError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

impl Flow {
    /// The next piece, or why it breaks off; `None` at the end. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, FlowError>> {
        match self {
            Self::Http(body) => loop {
                match body.frame().await?.map(http_body::Frame::into_data) {
                    Ok(Ok(bytes)) => return Some(Ok(bytes)),
                    Ok(Err(_trailers)) => {}
                    Err(error) => return Some(Err(error.into())),
                }
            },
            Self::Bucket(body) => Some(body.next().await?.map_err(FlowError::from)),
        }
    }
}

/// What is answered to a request for an object.
pub(super) enum Opened {
    /// It comes.
    Coming(Coming),
    /// The registry says something else, which is the client's to see.
    Other(Response<IdleBody>),
}

/// The rest of an object was not to be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResumeError {
    #[error("the transfer could not be resumed: {0}")]
    Upstream(#[from] UpstreamError),
    #[error("the transfer could not be resumed: the registry answered {0}")]
    Refused(StatusCode),
    #[error("the transfer could not be resumed: the registry announces another length now")]
    Changed,
}

impl ResumeError {
    /// Whether the same question may have another answer in a moment.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Upstream(_) => true,
            Self::Refused(status) => is_trouble(*status),
            Self::Changed => false,
        }
    }
}

impl Supplies {
    /// Where the blob is to be had that is asked for at `source`.
    pub(super) fn of(source: Source, digest: Digest) -> Self {
        let (bucket, is_of_bucket, is_of_registry, from_replica) = Default::default();
        Self { source, digest, bucket, is_of_bucket, is_of_registry, from_replica }
    }

    /// And in the bucket: it belongs where it is asked for, and may be served there.
    pub(super) fn and_bucket(self, bucket: Option<Bucket>) -> Self {
        Self { bucket, ..self }
    }

    /// Where the registry is asked.
    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// Asks for what is missing of a reserved object, or for all of it where that can't be had.
    pub(super) async fn open(
        &mut self,
        reservation: &mut Reservation,
    ) -> Result<Opened, UpstreamError> {
        if let Some(coming) = self.open_in_bucket(reservation).await {
            return Ok(Opened::Coming(coming));
        }
        if let Some(coming) = self.open_at_peer(reservation).await {
            return Ok(Opened::Coming(coming));
        }
        self.is_of_registry = true;
        self.open_at_registry(reservation).await
    }

    /// Whether anything of what has come is the registry's: then no other replica has it from
    /// there, as far as this one knows.
    pub(super) fn are_of_registry(&self) -> bool {
        self.is_of_registry
    }

    /// The bucket takes itself up again where what it sends breaks off, so that it is asked once.
    async fn open_in_bucket(&mut self, reservation: &Reservation) -> Option<Coming> {
        let (digest, offset) = (reservation.digest(), reservation.resume_from());
        let found = self.bucket.take()?.open(digest, offset).await;
        let found = found.inspect_err(|error| {
            tracing::debug!(%digest, %error, "the bucket was not to be asked for an object");
        });
        let BucketObject { total, from, body } = found.ok().flatten()?;
        self.is_of_bucket = true;
        if total == 0 && Digest::of(digest.algorithm(), b"") != *digest {
            self.mismatched(digest).await;
            return None;
        }
        let start = if from > 0 { Start::Resumed } else { Start::Fresh };
        let (flow, total, supplier) = (Flow::Bucket(body), Some(total), Supplier::Bucket);
        Some(Coming { flow, start, total, supplier, is_consent: false })
    }

    /// What has come in all is not what its name says: if any of it was the bucket's, nobody is to
    /// have it from there again.
    pub(super) async fn mismatched(&self, digest: &Digest) {
        let fleet = self.source.exchange.common.archive.fleet();
        if let Some(fleet) = fleet.filter(|_| self.is_of_bucket) {
            fleet.bucket().rotten(digest).await;
        }
    }

    /// Asks the replica that fetches the object for all. Its refusals are not passed on: what the
    /// registry would say is the registry's to say.
    async fn open_at_peer(&mut self, reservation: &Reservation) -> Option<Coming> {
        let offset = reservation.resume_from();
        let answer = self.ask_peers(offset, 0).await?;
        let supplier = Supplier::Peer(PeerStatus::of(answer.headers()));
        let (start, total) = if starts_at(&answer, offset) {
            (Start::Resumed, total(answer.headers()))
        } else {
            (Start::Fresh, content_length(&answer))
        };
        let flow = Flow::Http(answer.into_body());
        Some(Coming { flow, start, total, supplier, is_consent: false })
    }

    /// Asks whoever fetches the object for all, for the rest from `offset`: its answer, if that is
    /// the rest or the whole. Where one turns out not to be there, the next is asked, as others do.
    /// One that can't be waited for is asked again so often.
    async fn ask_peers(&mut self, offset: u64, patience: u32) -> Option<Response<IdleBody>> {
        let exchange = self.source.exchange.clone();
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        let (mut absent, mut busy) = (0, 0);
        loop {
            let peer = exchange.owner(&self.digest)?;
            // Said before it is asked: a replica that asks here meanwhile must not wait.
            let hops = &exchange.common.hops;
            let from_replica = hops.begin(&self.digest, exchange.rights.place());
            match self.source.ask_peer(&peer, range.as_deref()).await {
                Ok(answer) if is_whole(&answer) || (offset > 0 && starts_at(&answer, offset)) => {
                    self.from_replica = Some(from_replica);
                    return Some(answer);
                }
                Err(PeerError::Busy) if busy < patience => busy += 1,
                Err(error) if error.is_absence() && absent < MAX_ABSENT => {
                    absent += 1;
                    continue;
                }
                Ok(_) | Err(_) => return None,
            }
            drop(from_replica);
            tokio::time::sleep(BUSY).await;
        }
    }

    /// What came has broken off: whoever sent it sends nothing any more.
    pub(super) fn let_go(&mut self) {
        self.from_replica = None;
    }

    async fn open_at_registry(
        &self,
        reservation: &mut Reservation,
    ) -> Result<Opened, UpstreamError> {
        let (offset, digest) = (reservation.resume_from(), *reservation.digest());
        let supplier = Supplier::Registry;
        let classified = |answer: Followed| {
            if !is_whole(&answer.response) {
                return Opened::Other(answer.response);
            }
            let is_consent = consents(&answer, &digest, None);
            let total = content_length(&answer.response);
            let flow = Flow::Http(answer.response.into_body());
            Opened::Coming(Coming { flow, start: Start::Fresh, total, supplier, is_consent })
        };
        if offset == 0 {
            return Ok(classified(self.source.ask(None).await?));
        }
        let answer = self.ask(offset).await?;
        if starts_at(&answer.response, offset) {
            let is_consent = consents(&answer, &digest, None);
            let total = total(answer.response.headers());
            let flow = Flow::Http(answer.response.into_body());
            return Ok(Opened::Coming(Coming {
                flow,
                start: Start::Resumed,
                total,
                supplier,
                is_consent,
            }));
        }
        // A part is only our wish: whatever refuses it says nothing of the whole.
        if answer.response.status() == StatusCode::OK {
            return Ok(classified(answer));
        }
        if is_trouble(answer.response.status()) {
            tokio::time::sleep(backoff(1)).await;
        } else {
            reservation.discard_partial().await;
        }
        Ok(classified(self.ask(0).await?))
    }

    /// Asks for the rest from `offset`, of `total` bytes if that is known. With it, how many bytes
    /// that are here already come before it: under a digest there is only one right content, so
    /// that they need no comparing.
    pub(super) async fn resume(
        &mut self,
        offset: u64,
        total: Option<u64>,
    ) -> Result<(Flow, u64), ResumeError> {
        let mut response = if let Some(answer) = self.ask_peers(offset, PATIENCE).await {
            answer
        } else {
            self.is_of_registry = true;
            self.ask(offset).await?.response
        };
        self.source.exchange.common.metrics().resumed();
        if is_refused_part(&response, offset) {
            // The whole is another question, and may be had.
            response = self.ask(0).await?.response;
        }
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response, offset) => {
                Ok((Flow::Http(response.into_body()), 0))
            }
            StatusCode::OK if is_whole(&response) => {
                let lengths = content_length(&response).zip(total);
                if lengths.is_some_and(|(now, before)| now != before) {
                    return Err(ResumeError::Changed);
                }
                Ok((Flow::Http(response.into_body()), offset))
            }
            other => Err(ResumeError::Refused(other)),
        }
    }

    /// Asks the registry on the download's own behalf: for the rest from `offset`, or for the whole
    /// after that was refused. A short pause that the registry wants is waited for.
    async fn ask(&self, offset: u64) -> Result<Followed, UpstreamError> {
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        for _ in 0..MAX_PAUSES {
            match self.source.ask(range.as_deref()).await {
                Err(error) if error.retry_after().is_some_and(|wait| wait <= PAUSE) => {
                    tokio::time::sleep(error.retry_after().unwrap_or(PAUSE)).await;
                }
                answer => return answer,
            }
        }
        self.source.ask(range.as_deref()).await
    }
}

/// Whether an answer to a request for the rest from `offset` is neither that nor all, and will not
/// be either in a moment: another part, a refusal of any part, or storage that takes no ranges.
fn is_refused_part(response: &Response<IdleBody>, offset: u64) -> bool {
    let status = response.status();
    offset > 0 && status != StatusCode::OK && !starts_at(response, offset) && !is_trouble(status)
}

/// Doubling waits, each with up to half of itself added at random, so that many do not come back
/// at one moment.
pub(super) fn backoff(breaks: u32) -> Duration {
    let wait = FIRST_WAIT * 2u32.saturating_pow(breaks.saturating_sub(1));
    let random = RandomState::new().hash_one(breaks) % 512;
    wait + wait * u32::try_from(random).unwrap_or_default() / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_differ() {
        for breaks in 1..=4 {
            let wait = backoff(breaks);
            let least = FIRST_WAIT * 2u32.pow(breaks - 1);
            assert!(wait >= least && wait <= least * 3 / 2, "{wait:?}");
        }
    }
}
