//! A download on its way into the store, and who fetches what for whom.
//!
//! It runs as a task of its own: at the upstream's speed, whatever its readers do, and to its end,
//! even when the client that caused it has left.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_cache::{FinishError, Reservation, Verified, WriteError, Writer};
use entrepot_oci::{Digest, Registry};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;

use super::access::Place;
use super::arrivals::Arrival;
use super::exchange::Source;
use super::shares::Share;
use crate::registry::answer::{content_length, is_trouble, is_whole, starts_at, total};
use crate::registry::identity::Identity;
use crate::upstream::UpstreamError;
use crate::upstream::body::{BodyError, IdleBody};
use crate::upstream::client::Followed;

/// Breaks in a row, without much gained, after which a download is given up.
const MAX_BREAKS: u32 = 4;
/// What counts as gained: an upstream that hangs up after every few bytes must not be asked
/// hundreds of thousands of times.
const GAIN: u64 = 1024 * 1024;
/// A registry that wants to be asked once a second is waited for so often, and so long at a time.
const MAX_PAUSES: usize = 5;
const PAUSE: Duration = Duration::from_secs(2);
/// How often it is looked whether a download is read that gets nothing.
const LOOK: Duration = Duration::from_secs(1);
/// The wait before the first resumption; it doubles with each break.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// A download failed for good.
#[derive(Debug, thiserror::Error)]
pub(super) enum DownloadError {
    #[error("the transfer broke {MAX_BREAKS} times in a row, the last time because {0}")]
    Broken(BodyError),
    #[error("the transfer could not be resumed: {0}")]
    Resume(#[from] UpstreamError),
    #[error("the transfer could not be resumed: the registry answered {0}")]
    Refused(StatusCode),
    #[error("the transfer could not be resumed: the registry announces another length now")]
    Changed,
    #[error("nobody reads it, and whoever asked for it has used up what goes on all the same")]
    Unread,
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Finish(#[from] FinishError),
}

impl DownloadError {
    /// Whether the same question may have another answer in a moment.
    fn is_passing(&self) -> bool {
        match self {
            Self::Broken(_) | Self::Resume(_) => true,
            Self::Refused(status) => is_trouble(*status),
            Self::Changed | Self::Unread | Self::Write(_) | Self::Finish(_) => false,
        }
    }
}

/// How often a download has broken without gaining much.
struct Breaks {
    count: u32,
    reached: u64,
}

impl Breaks {
    /// Counts a failure at `offset`; hands it back where it is one too many.
    fn count(&mut self, offset: u64, error: DownloadError) -> Result<(), DownloadError> {
        if offset >= self.reached + GAIN {
            self.reached = offset;
            self.count = 0;
        }
        self.count += 1;
        if self.count > MAX_BREAKS || !error.is_passing() {
            return Err(error);
        }
        tracing::debug!(%error, offset, "resuming a broken download");
        Ok(())
    }
}

/// Writes `body` to its end, continuing with `Range` where it breaks, and verifies the object.
/// Stops where nobody reads it and `share` has it go on no longer. Tells `arrival` what comes.
pub(super) async fn run(
    source: &Source,
    mut body: IdleBody,
    mut writer: Writer,
    share: &mut Share,
    arrival: &Arrival,
) -> Result<Verified, DownloadError> {
    let mut breaks = Breaks { count: 0, reached: writer.offset() };
    let mut known = 0;
    while let Err(error) = copy(&mut body, known, &mut writer, (share, arrival)).await? {
        breaks.count(writer.offset(), DownloadError::Broken(error))?;
        (body, known) = loop {
            tokio::time::sleep(backoff(breaks.count)).await;
            match resume(source, &writer).await {
                Ok(next) => break next,
                Err(error) => breaks.count(writer.offset(), error)?,
            }
        };
    }
    Ok(writer.verify().await?)
}

/// Asks for the rest. With it, how many bytes that are here already come before it: under a digest
/// there is only one right content, so that they need no comparing.
async fn resume(source: &Source, writer: &Writer) -> Result<(IdleBody, u64), DownloadError> {
    let offset = writer.offset();
    let mut response = ask(source, offset).await?.response;
    source.exchange.common.metrics().resumed();
    if is_refused_part(&response, offset) {
        // The whole is another question, and may be had.
        response = ask(source, 0).await?.response;
    }
    match response.status() {
        StatusCode::PARTIAL_CONTENT if starts_at(&response, offset) => {
            Ok((response.into_body(), 0))
        }
        StatusCode::OK if is_whole(&response) => {
            let lengths = content_length(&response).zip(writer.total());
            if lengths.is_some_and(|(now, before)| now != before) {
                return Err(DownloadError::Changed);
            }
            Ok((response.into_body(), offset))
        }
        other => Err(DownloadError::Refused(other)),
    }
}

/// Asks for what is missing of a reserved object, or for all of it where the registry can't do
/// that.
///
/// This is the place of any other supply of an object than its registry: it would be tried before.
pub(super) async fn open(
    source: &Source,
    reservation: &mut Reservation,
) -> Result<Opened, UpstreamError> {
    let offset = reservation.resume_from();
    if offset == 0 {
        return Ok(classified(source.ask(None).await?));
    }
    let answer = ask(source, offset).await?;
    if starts_at(&answer.response, offset) {
        let total = total(answer.response.headers());
        return Ok(Opened::Rest(answer, total));
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
    Ok(classified(ask(source, 0).await?))
}

/// Whether an answer to a request for the rest from `offset` is neither that nor all, and will not
/// be either in a moment: another part, a refusal of any part, or storage that takes no ranges.
fn is_refused_part(response: &Response<IdleBody>, offset: u64) -> bool {
    let status = response.status();
    offset > 0 && status != StatusCode::OK && !starts_at(response, offset) && !is_trouble(status)
}

/// Asks on the download's own behalf: for the rest from `offset`, or for the whole after that was
/// refused. A short pause that the registry wants is waited for.
async fn ask(source: &Source, offset: u64) -> Result<Followed, UpstreamError> {
    let range = (offset > 0).then(|| format!("bytes={offset}-"));
    for _ in 0..MAX_PAUSES {
        match source.ask(range.as_deref()).await {
            Err(error) if error.retry_after().is_some_and(|wait| wait <= PAUSE) => {
                tokio::time::sleep(error.retry_after().unwrap_or(PAUSE)).await;
            }
            answer => return answer,
        }
    }
    source.ask(range.as_deref()).await
}

/// What a registry answers to a request for an object.
pub(super) enum Opened {
    /// All of it.
    Whole(Followed),
    /// What was missing, and the length of the whole where it is told.
    Rest(Followed, Option<u64>),
    /// Something else, which is the client's to see.
    Other(Response<IdleBody>),
}

fn classified(answer: Followed) -> Opened {
    if is_whole(&answer.response) { Opened::Whole(answer) } else { Opened::Other(answer.response) }
}

/// Copies all but the first `known` bytes until the body's end (`Ok(Ok)`), its break (`Ok(Err)`),
/// or the store's failure (`Err`), or that nobody reads it any more.
async fn copy(
    body: &mut IdleBody,
    mut known: u64,
    writer: &mut Writer,
    (share, arrival): (&mut Share, &Arrival),
) -> Result<Result<(), BodyError>, DownloadError> {
    loop {
        // One that sends nothing is looked at too.
        let come = tokio::time::timeout(LOOK, body.frame()).await;
        let bytes = come.as_ref().ok().and_then(Option::as_ref).map(|frame| frame.as_ref());
        let bytes = bytes.and_then(Result::ok).and_then(http_body::Frame::data_ref);
        let count = bytes.map_or(0, Bytes::len);
        arrival.came(count);
        if !share.goes_on(writer.has_readers(), count) {
            return Err(DownloadError::Unread);
        }
        let frame = match come {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(Ok(())),
            Err(_) => continue,
        };
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(mut bytes)) => {
                let skipped = bytes.len().min(usize::try_from(known).unwrap_or(usize::MAX));
                known -= skipped as u64;
                writer.write(bytes.split_off(skipped)).await?;
            }
            Ok(Err(_trailers)) => {}
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Doubling waits, each with up to half of itself added at random, so that many do not come back
/// at one moment.
fn backoff(breaks: u32) -> Duration {
    let wait = FIRST_WAIT * 2u32.saturating_pow(breaks.saturating_sub(1));
    let random = RandomState::new().hash_one(breaks) % 512;
    wait + wait * u32::try_from(random).unwrap_or_default() / 1024
}

/// What is fetched, and from where.
type Flight = (Digest, Registry);

/// For which repository, and as whom.
type Purpose = (Place, Identity);

/// Who fetches what, and for whom: of each object there is one download at a time from one
/// registry. Cheap to clone.
///
/// An entry lasts from the question to the registry until the object is on record and has its name.
/// So each state of an object has one question: *in flight*, is it fetched for this place; *kept*,
/// is it on record there.
#[derive(Clone, Default)]
pub(super) struct Fetching(Arc<Mutex<HashMap<Flight, Arc<Purpose>>>>);

/// Keeps an entry in [`Fetching`] until it is dropped.
pub(super) struct Fetch {
    fetching: Fetching,
    digest: Digest,
    purpose: Arc<Purpose>,
}

impl Fetching {
    /// Notes that `digest`, which the caller has reserved, is being fetched.
    pub(super) fn begin(&self, digest: Digest, place: Place, identity: Identity) -> Fetch {
        let key = (digest, place.registry.clone());
        let purpose = Arc::new((place, identity));
        self.0.lock().insert(key, purpose.clone());
        Fetch { fetching: self.clone(), digest, purpose }
    }

    /// Whether `digest` is being fetched for `place`.
    pub(super) fn is_for(&self, digest: &Digest, place: &Place) -> bool {
        let key = (*digest, place.registry.clone());
        self.0.lock().get(&key).is_some_and(|purpose| purpose.0 == *place)
    }

    /// Whether `digest` is being fetched for another repository of the registry, or as somebody
    /// else: its answer may be another then, and come when it likes.
    pub(super) fn is_for_others(
        &self,
        digest: &Digest,
        place: &Place,
        identity: &Identity,
    ) -> bool {
        let is_own = |purpose: &Purpose| purpose.0 == *place && purpose.1 == *identity;
        let key = (*digest, place.registry.clone());
        self.0.lock().get(&key).is_some_and(|purpose| !is_own(purpose))
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let mut fetching = self.fetching.0.lock();
        // A later download of the same digest has an entry of its own.
        let key = (self.digest, self.purpose.0.registry.clone());
        if fetching.get(&key).is_some_and(|it| Arc::ptr_eq(it, &self.purpose)) {
            fetching.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_differ() {
        for breaks in 1..=MAX_BREAKS {
            let wait = backoff(breaks);
            let least = FIRST_WAIT * 2u32.pow(breaks - 1);
            assert!(wait >= least && wait <= least * 3 / 2, "{wait:?}");
        }
    }

    #[test]
    fn a_download_is_given_up_when_it_gains_nothing() {
        let mut breaks = Breaks { count: 0, reached: 0 };
        let passing = || DownloadError::Refused(StatusCode::SERVICE_UNAVAILABLE);
        for _ in 0..MAX_BREAKS {
            breaks.count(10, passing()).unwrap();
        }
        assert!(breaks.count(10, passing()).is_err());
        assert!(breaks.count(GAIN, passing()).is_ok(), "much was gained");
        assert!(breaks.count(GAIN, DownloadError::Refused(StatusCode::FORBIDDEN)).is_err());
    }

    #[test]
    fn an_object_is_fetched_for_one_repository_as_somebody() {
        let fetching = Fetching::default();
        let digest = Digest::of(entrepot_oci::Algorithm::Sha256, b"x");
        let at = |text: &str, repository: &str| Place {
            registry: Registry::at(&text.parse().unwrap()),
            repository: repository.parse().unwrap(),
        };
        let (ghcr, evil) = (at("ghcr.io:443", "a/b"), at("evil.example:443", "a/b"));
        let beside = at("ghcr.io:443", "a/c");
        assert!(!fetching.is_for_others(&digest, &beside, &Identity::Shared));
        let first = fetching.begin(digest, ghcr.clone(), Identity::Shared);
        assert!(fetching.is_for(&digest, &ghcr) && !fetching.is_for(&digest, &beside));
        assert!(fetching.is_for_others(&digest, &beside, &Identity::Shared));
        assert!(!fetching.is_for_others(&digest, &ghcr, &Identity::Shared));
        // What another registry is asked for is another download.
        assert!(!fetching.is_for(&digest, &evil));
        assert!(!fetching.is_for_others(&digest, &evil, &Identity::Shared));
        let others = fetching.begin(digest, evil.clone(), Identity::Shared);
        assert!(fetching.is_for(&digest, &evil) && fetching.is_for(&digest, &ghcr));
        drop(others);
        let second = fetching.begin(digest, ghcr.clone(), Identity::Shared);
        drop(first);
        assert!(fetching.is_for(&digest, &ghcr), "the second is still there");
        drop(second);
        assert!(!fetching.is_for(&digest, &ghcr));
    }
}
