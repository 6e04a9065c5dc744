//! A download on its way into the store, and who fetches what for whom.
//!
//! It runs as a task of its own: at the upstream's speed, whatever its readers do, and to its end,
//! even when the client that caused it has left.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_cache::{FinishError, Verified, WriteError, Writer};
use entrepot_oci::{Digest, Registry};
use parking_lot::Mutex;

use super::access::Place;
use super::arrivals::Arrival;
use super::shares::Share;
use super::supplies::{Flow, FlowError, ResumeError, Supplies, backoff};
use crate::registry::identity::Identity;

/// Breaks in a row, without much gained, after which a download is given up.
const MAX_BREAKS: u32 = 4;
/// What counts as gained: an upstream that hangs up after every few bytes must not be asked
/// hundreds of thousands of times.
const GAIN: u64 = 1024 * 1024;
/// How often it is looked whether a download is read that gets nothing.
const LOOK: Duration = Duration::from_secs(1);

/// A download failed for good.
#[derive(Debug, thiserror::Error)]
pub(super) enum DownloadError {
    #[error("the transfer broke {MAX_BREAKS} times in a row, the last time because {0}")]
    Broken(FlowError),
    #[error(transparent)]
    Resume(#[from] ResumeError),
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
            Self::Broken(_) => true,
            Self::Resume(error) => error.is_passing(),
            Self::Unread | Self::Write(_) | Self::Finish(_) => false,
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

/// Writes what comes to its end, continuing with `Range` where it breaks, and verifies the object.
/// Stops where nobody reads it and `share` has it go on no longer. Tells `arrival` what comes.
pub(super) async fn run(
    supplies: &mut Supplies,
    mut flow: Flow,
    mut writer: Writer,
    share: &mut Share,
    arrival: &Arrival,
) -> Result<Verified, DownloadError> {
    let mut breaks = Breaks { count: 0, reached: writer.offset() };
    let mut known = 0;
    while let Err(error) = copy(&mut flow, known, &mut writer, (share, arrival)).await? {
        supplies.let_go();
        breaks.count(writer.offset(), DownloadError::Broken(error))?;
        (flow, known) = loop {
            tokio::time::sleep(backoff(breaks.count)).await;
            match supplies.resume(writer.offset(), writer.total()).await {
                Ok(next) => break next,
                Err(error) => breaks.count(writer.offset(), error.into())?,
            }
        };
    }
    Ok(writer.verify().await?)
}

/// Copies all but the first `known` bytes until the end of what comes (`Ok(Ok)`), its break
/// (`Ok(Err)`), or the store's failure (`Err`), or that nobody reads it any more.
async fn copy(
    flow: &mut Flow,
    mut known: u64,
    writer: &mut Writer,
    (share, arrival): (&mut Share, &Arrival),
) -> Result<Result<(), FlowError>, DownloadError> {
    loop {
        let come = {
            let mut next = std::pin::pin!(flow.next());
            loop {
                let come = tokio::time::timeout(LOOK, next.as_mut()).await.ok();
                let bytes =
                    come.as_ref().and_then(Option::as_ref).and_then(|come| come.as_ref().ok());
                let count = bytes.map_or(0, Bytes::len);
                arrival.came(count);
                // One that sends nothing is looked at too.
                if !share.goes_on(writer.has_readers(), count) {
                    return Err(DownloadError::Unread);
                }
                if let Some(come) = come {
                    break come;
                }
            }
        };
        match come {
            Some(Ok(mut bytes)) => {
                let skipped = bytes.len().min(usize::try_from(known).unwrap_or(usize::MAX));
                known -= skipped as u64;
                writer.write(bytes.split_off(skipped)).await?;
            }
            Some(Err(error)) => return Ok(Err(error)),
            None => return Ok(Ok(())),
        }
    }
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
    use http::StatusCode;

    #[test]
    fn a_download_is_given_up_when_it_gains_nothing() {
        let mut breaks = Breaks { count: 0, reached: 0 };
        let passing = || DownloadError::from(ResumeError::Refused(StatusCode::SERVICE_UNAVAILABLE));
        for _ in 0..MAX_BREAKS {
            breaks.count(10, passing()).unwrap();
        }
        assert!(breaks.count(10, passing()).is_err());
        assert!(breaks.count(GAIN, passing()).is_ok(), "much was gained");
        assert!(
            breaks
                .count(GAIN, DownloadError::from(ResumeError::Refused(StatusCode::FORBIDDEN)))
                .is_err()
        );
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
