//! A download on its way into the store.
//!
//! It runs as a task of its own: at the upstream's speed, whatever its readers do, and to its end,
//! even when the client that caused it has left.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use entrepot_cache::{Digest, FinishError, Reader, WriteError, Writer};
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body_util::BodyExt as _;

use super::blobs::{content_length, is_plain_content};
use super::headers::{append, text};
use crate::oci::Registry;
use crate::upstream::body::{BodyError, IdleBody};
use crate::upstream::{Target, Upstream, UpstreamError};

/// Breaks in a row, without much gained, after which a download is given up.
const MAX_BREAKS: u32 = 4;
/// What counts as gained: an upstream that hangs up after every few bytes must not be asked
/// hundreds of thousands of times.
const GAIN: u64 = 1024 * 1024;
/// The wait before the first resumption; it doubles with each break.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Which registry each download comes from, until its delivery is recorded: the object is there a
/// moment before its record is.
#[derive(Clone, Default)]
pub(super) struct Fills(Arc<Mutex<HashMap<Digest, Registry>>>);

impl Fills {
    /// Whether `digest` is being downloaded from `registry`.
    pub(super) fn is_from(&self, digest: &Digest, registry: &Registry) -> bool {
        let fills = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fills.get(digest) == Some(registry)
    }

    /// Notes a download, until the guard is dropped.
    pub(super) fn begin(&self, digest: Digest, registry: Registry) -> FillGuard {
        let mut fills = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fills.insert(digest, registry);
        FillGuard { fills: self.clone(), digest }
    }
}

/// Keeps a download's entry in [`Fills`].
pub(super) struct FillGuard {
    fills: Fills,
    digest: Digest,
}

impl Drop for FillGuard {
    fn drop(&mut self) {
        let mut fills = self.fills.0.lock().unwrap_or_else(PoisonError::into_inner);
        fills.remove(&self.digest);
    }
}

/// Where a download comes from, to ask again when it breaks.
pub(super) struct Source {
    pub(super) upstream: Upstream,
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
}

/// A download failed for good.
#[derive(Debug, thiserror::Error)]
pub(super) enum FillError {
    #[error("the transfer broke {MAX_BREAKS} times in a row, the last time because {0}")]
    Broken(BodyError),
    #[error("the transfer could not be resumed: {0}")]
    Resume(#[from] UpstreamError),
    #[error("the transfer could not be resumed: the registry answered {0}")]
    Refused(StatusCode),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Finish(#[from] FinishError),
}

impl Source {
    /// Writes `body` to its end, continuing with `Range` where it breaks, and publishes the object.
    pub(super) async fn fill(
        self,
        mut body: IdleBody,
        mut writer: Writer,
    ) -> Result<Reader, FillError> {
        let mut breaks = 0;
        let mut reached = writer.offset();
        while let Err(error) = copy(&mut body, &mut writer).await? {
            breaks += 1;
            if writer.offset() >= reached + GAIN {
                reached = writer.offset();
                breaks = 1;
            }
            if breaks > MAX_BREAKS {
                return Err(FillError::Broken(error));
            }
            let target = &self.target.authority;
            tracing::debug!(%target, %error, offset = writer.offset(), "resuming a broken download");
            tokio::time::sleep(backoff(breaks)).await;
            match self.resume(&mut writer).await {
                Ok(next) => body = next,
                Err(FillError::Resume(error)) if breaks < MAX_BREAKS => {
                    tracing::debug!(%target, %error, "the download could not be resumed yet");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(writer.finish().await?)
    }

    /// Asks for the rest and makes the writer ready for what comes.
    async fn resume(&self, writer: &mut Writer) -> Result<IdleBody, FillError> {
        let offset = writer.offset();
        let response = self.ask(offset).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(response.headers(), offset) => {}
            StatusCode::OK => writer.restart(content_length(&response)),
            other => return Err(FillError::Refused(other)),
        }
        Ok(response.into_body())
    }

    /// Asks for what is missing of an object of which `offset` bytes are here, or for all of it
    /// where the registry can't do that.
    pub(super) async fn open(&self, offset: u64) -> Result<Opened, UpstreamError> {
        if offset > 0 {
            let response = self.ask(offset).await?;
            if starts_at(response.headers(), offset) {
                let total = total(response.headers());
                return Ok(Opened::Rest(response, total));
            }
            if is_plain_content(&response) {
                return Ok(Opened::Whole(response));
            }
        }
        let response = self.ask(0).await?;
        Ok(if is_plain_content(&response) {
            Opened::Whole(response)
        } else {
            Opened::Other(response)
        })
    }

    /// Asks from `offset` on, through the registry again each time: signed URLs expire.
    async fn ask(&self, offset: u64) -> Result<Response<IdleBody>, UpstreamError> {
        let mut headers = self.headers.clone();
        if offset > 0 {
            append(&mut headers, header::RANGE, &format!("bytes={offset}-"));
        }
        let followed = self.upstream.follow(Method::GET, self.target.clone(), headers).await?;
        Ok(followed.response)
    }
}

/// What a registry answers to a request for an object.
pub(super) enum Opened {
    /// All of it.
    Whole(Response<IdleBody>),
    /// What was missing, and the length of the whole where it is told.
    Rest(Response<IdleBody>, Option<u64>),
    /// Something else, which is the client's to see.
    Other(Response<IdleBody>),
}

/// The object's length in `Content-Range: bytes 5-9/10`.
fn total(headers: &HeaderMap) -> Option<u64> {
    text(headers, header::CONTENT_RANGE)?.rsplit_once('/')?.1.parse().ok()
}

/// Whether an answer is the part from `offset` on (RFC 9110 §14.4).
fn starts_at(headers: &HeaderMap, offset: u64) -> bool {
    text(headers, header::CONTENT_RANGE)
        .and_then(|value| value.strip_prefix("bytes "))
        .and_then(|range| range.split_once('-'))
        .is_some_and(|(first, _)| first.parse() == Ok(offset))
}

/// Copies until the body's end (`Ok(Ok)`), its break (`Ok(Err)`), or the store's failure (`Err`).
async fn copy(
    body: &mut IdleBody,
    writer: &mut Writer,
) -> Result<Result<(), BodyError>, WriteError> {
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(bytes)) => writer.write(bytes).await?,
            Ok(Err(_trailers)) => {}
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}

/// Doubling waits, each with up to half of itself added at random, so that many do not come back
/// at one moment.
fn backoff(breaks: u32) -> Duration {
    let wait = FIRST_WAIT * 2u32.saturating_pow(breaks.saturating_sub(1));
    let random = RandomState::new().hash_one(breaks) % 512;
    wait + wait * u32::try_from(random).unwrap_or_default() / 1024
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
    fn a_partial_answer_must_begin_where_it_was_asked_to() {
        let mut headers = HeaderMap::new();
        assert!(!starts_at(&headers, 5));
        append(&mut headers, header::CONTENT_RANGE, "bytes 5-9/10");
        assert_eq!(total(&headers), Some(10));
        assert!(starts_at(&headers, 5));
        assert!(!starts_at(&headers, 0));
    }

    #[test]
    fn only_the_same_registry_joins() {
        let fills = Fills::default();
        let digest = Digest::of(entrepot_cache::Algorithm::Sha256, b"x");
        let at = |text: &str| Registry::at(&text.parse().unwrap());
        let guard = fills.begin(digest, at("ghcr.io:443"));
        assert!(fills.is_from(&digest, &at("ghcr.io:443")));
        assert!(!fills.is_from(&digest, &at("evil.example:443")));
        drop(guard);
        assert!(!fills.is_from(&digest, &at("ghcr.io:443")));
    }
}
