//! A download on its way into the store.
//!
//! It runs as a task of its own: at the upstream's speed, whatever its readers do, and to its end,
//! even when the client that caused it has left.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use entrepot_cache::{FinishError, Verified, WriteError, Writer};
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body_util::BodyExt as _;

use super::blobs::{content_length, is_plain_content, is_unencoded};
use super::caller::Caller;
use super::errors::is_trouble;
use super::headers::{append, text};
use crate::upstream::body::{BodyError, IdleBody};
use crate::upstream::client::Followed;
use crate::upstream::{Target, UpstreamError};

/// Breaks in a row, without much gained, after which a download is given up.
const MAX_BREAKS: u32 = 4;
/// What counts as gained: an upstream that hangs up after every few bytes must not be asked
/// hundreds of thousands of times.
const GAIN: u64 = 1024 * 1024;
/// A registry that is asked once a second is waited for so often, and for so long at a time.
const MAX_TURNS: usize = 5;
const TURN: Duration = Duration::from_secs(2);
/// The wait before the first resumption; it doubles with each break.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Where a download comes from, to ask again when it breaks.
pub(super) struct Source {
    pub(super) caller: Caller,
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
    #[error("the transfer could not be resumed: the registry announces another length now")]
    Changed,
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Finish(#[from] FinishError),
}

impl FillError {
    /// Whether the same question may have another answer in a moment.
    fn is_passing(&self) -> bool {
        match self {
            Self::Broken(_) | Self::Resume(_) => true,
            Self::Refused(status) => is_trouble(*status),
            Self::Changed | Self::Write(_) | Self::Finish(_) => false,
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
    fn count(&mut self, offset: u64, error: FillError) -> Result<(), FillError> {
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

impl Source {
    /// Writes `body` to its end, continuing with `Range` where it breaks, and verifies the object.
    pub(super) async fn fill(
        self,
        mut body: IdleBody,
        mut writer: Writer,
    ) -> Result<Verified, FillError> {
        let mut breaks = Breaks { count: 0, reached: writer.offset() };
        let mut known = 0;
        while let Err(error) = copy(&mut body, known, &mut writer).await? {
            breaks.count(writer.offset(), FillError::Broken(error))?;
            (body, known) = loop {
                tokio::time::sleep(backoff(breaks.count)).await;
                match self.resume(&writer).await {
                    Ok(next) => break next,
                    Err(error) => breaks.count(writer.offset(), error)?,
                }
            };
        }
        Ok(writer.verify().await?)
    }

    /// Asks for the rest. With it, how many bytes that are here already come before it: under a
    /// digest there is only one right content, so that they need no comparing.
    async fn resume(&self, writer: &Writer) -> Result<(IdleBody, u64), FillError> {
        let offset = writer.offset();
        let response = self.ask(offset).await?.response;
        self.caller.parts.upstream.metrics().resumed();
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response, offset) => {
                Ok((response.into_body(), 0))
            }
            StatusCode::OK if is_plain_content(&response) => {
                let lengths = content_length(&response).zip(writer.total());
                if lengths.is_some_and(|(now, before)| now != before) {
                    return Err(FillError::Changed);
                }
                Ok((response.into_body(), offset))
            }
            other => Err(FillError::Refused(other)),
        }
    }

    /// Asks for what is missing of an object of which `offset` bytes are here, or for all of it
    /// where the registry can't do that.
    pub(super) async fn open(&self, offset: u64) -> Result<Opened, UpstreamError> {
        if offset > 0 {
            let answer = self.ask(offset).await?;
            if starts_at(&answer.response, offset) {
                let total = total(answer.response.headers());
                return Ok(Opened::Rest(answer, total));
            }
            let not_that_part = [StatusCode::PARTIAL_CONTENT, StatusCode::RANGE_NOT_SATISFIABLE];
            if !not_that_part.contains(&answer.response.status()) {
                return Ok(classified(answer));
            }
        }
        Ok(classified(self.ask(0).await?))
    }

    /// Asks from `offset` on, through the registry again each time: signed URLs expire.
    async fn ask(&self, offset: u64) -> Result<Followed, UpstreamError> {
        let mut headers = self.headers.clone();
        if offset > 0 {
            append(&mut headers, header::RANGE, &format!("bytes={offset}-"));
        }
        for _ in 0..MAX_TURNS {
            match self.caller.follow(Method::GET, &self.target, &headers).await {
                Err(error) if offset > 0 && error.retry_after().is_some_and(|w| w <= TURN) => {
                    tokio::time::sleep(error.retry_after().unwrap_or(TURN)).await;
                }
                answer => return answer,
            }
        }
        self.caller.follow(Method::GET, &self.target, &headers).await
    }
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
    if is_plain_content(&answer.response) {
        Opened::Whole(answer)
    } else {
        Opened::Other(answer.response)
    }
}

/// The object's length in `Content-Range: bytes 5-9/10`.
fn total(headers: &HeaderMap) -> Option<u64> {
    text(headers, header::CONTENT_RANGE)?.rsplit_once('/')?.1.parse().ok()
}

/// Whether an answer is the part from `offset` on, as it is stored (RFC 9110 §14.4).
pub(super) fn starts_at(response: &Response<IdleBody>, offset: u64) -> bool {
    response.status() == StatusCode::PARTIAL_CONTENT
        && is_unencoded(response.headers())
        && first_byte(response.headers()) == Some(offset)
}

/// The offset in `Content-Range: bytes 5-9/10`.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    text(headers, header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// Copies all but the first `known` bytes until the body's end (`Ok(Ok)`), its break (`Ok(Err)`), or
/// the store's failure (`Err`).
async fn copy(
    body: &mut IdleBody,
    mut known: u64,
    writer: &mut Writer,
) -> Result<Result<(), BodyError>, WriteError> {
    while let Some(frame) = body.frame().await {
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
    fn a_content_range_is_read() {
        let mut headers = HeaderMap::new();
        assert_eq!((first_byte(&headers), total(&headers)), (None, None));
        append(&mut headers, header::CONTENT_RANGE, "bytes 5-9/10");
        assert_eq!((first_byte(&headers), total(&headers)), (Some(5), Some(10)));
    }

    #[test]
    fn a_download_is_given_up_when_it_gains_nothing() {
        let mut breaks = Breaks { count: 0, reached: 0 };
        let passing = || FillError::Refused(StatusCode::SERVICE_UNAVAILABLE);
        for _ in 0..MAX_BREAKS {
            breaks.count(10, passing()).unwrap();
        }
        assert!(breaks.count(10, passing()).is_err());
        assert!(breaks.count(GAIN, passing()).is_ok(), "much was gained");
        assert!(breaks.count(GAIN, FillError::Refused(StatusCode::FORBIDDEN)).is_err());
    }
}
