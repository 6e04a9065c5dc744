//! The registry behind the caches: it serves a generated image, at a rate, and counts what it is
//! asked for.
//!
//! Beside the registry's paths it has `/count` (GETs of blobs and manifests so far),
//! `/count/DIGEST` (those of one object) and `/rate/BYTES` (a second, over all connections; 0 for
//! no limit).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until};

use crate::image::{self, MANIFEST_TYPE};
use crate::serve::Answers;
use crate::size::{float, length};
use crate::wire::Head;

/// How much is sent at a time: little enough for an even flow.
const PIECE: u64 = 64 * 1024;
/// How much time a late timer may make up for.
const SLACK: Duration = Duration::from_millis(20);

/// The registry.
#[derive(Debug)]
pub(crate) struct Origin {
    dir: PathBuf,
    counts: Mutex<HashMap<String, u64>>,
    pace: Mutex<Pace>,
}

/// When the next bytes may go.
#[derive(Debug)]
struct Pace {
    rate: u64,
    next: Instant,
}

impl Origin {
    /// One that serves the image in `dir`, as fast as it can.
    pub(crate) fn new(dir: PathBuf) -> Self {
        let pace = Pace { rate: 0, next: Instant::now() };
        Self { dir, counts: Mutex::default(), pace: Mutex::new(pace) }
    }

    fn count(&self, digest: &str) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if digest.is_empty() {
            counts.values().sum()
        } else {
            counts.get(digest).copied().unwrap_or_default()
        }
    }

    fn set_rate(&self, rate: u64) {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).rate = rate;
    }

    /// When `bytes` more may go.
    fn turn(&self, bytes: u64) -> Option<Instant> {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.rate == 0 {
            return None;
        }
        let now = Instant::now();
        let turn = pace.next.max(now.checked_sub(SLACK).unwrap_or(now));
        pace.next = turn + Duration::from_secs_f64(float(bytes) / float(pace.rate));
        Some(turn)
    }

    async fn object(
        &self,
        request: &Head,
        to: &mut (impl AsyncWrite + Unpin + Send),
        room: &mut [u8],
    ) -> io::Result<()> {
        let reference = request.target().rsplit('/').next().unwrap_or_default();
        let Some(path) = image::find(&self.dir, reference).filter(|path| path.exists()) else {
            return tell(to, 404, "no such object").await;
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let digest = format!("sha256:{name}");
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let part = request.field("range").and_then(|range| part(range, size));
        to.write_all(head(request, &digest, size, part).as_bytes()).await?;
        if request.method() == "HEAD" {
            return to.flush().await;
        }
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(digest).or_default() += 1;
        let (from, end) = part.unwrap_or((0, size));
        self.send(&file, (from, end), to, room).await
    }

    async fn send(
        &self,
        file: &File,
        (mut at, end): (u64, u64),
        to: &mut (impl AsyncWrite + Unpin + Send),
        room: &mut [u8],
    ) -> io::Result<()> {
        while at < end {
            let piece = PIECE.min(end - at);
            if let Some(turn) = self.turn(piece) {
                to.flush().await?;
                sleep_until(turn).await;
            }
            let room = room.get_mut(..length(piece)).unwrap_or_default();
            file.read_exact_at(room, at)?;
            to.write_all(room).await?;
            at += piece;
        }
        to.flush().await
    }
}

impl Answers for Origin {
    async fn answer(
        &self,
        request: &Head,
        to: &mut (impl AsyncWrite + Unpin + Send),
        room: &mut [u8],
    ) -> io::Result<()> {
        let target = request.target();
        if let Some(digest) = target.strip_prefix("/count") {
            return tell(to, 200, &self.count(digest.trim_matches('/')).to_string()).await;
        }
        if let Some(rate) = target.strip_prefix("/rate/") {
            self.set_rate(rate.parse().unwrap_or_default());
            return tell(to, 200, "").await;
        }
        match target {
            "/v2/" | "/v2" => tell(to, 200, "{}").await,
            _ if target.contains("/blobs/") || target.contains("/manifests/") => {
                self.object(request, to, room).await
            }
            _ => tell(to, 404, "").await,
        }
    }
}

async fn tell(
    to: &mut (impl AsyncWrite + Unpin + Send),
    status: u16,
    text: &str,
) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} Told\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    to.write_all(head.as_bytes()).await?;
    to.flush().await
}

fn head(request: &Head, digest: &str, size: u64, part: Option<(u64, u64)>) -> String {
    let kind = if request.target().contains("/manifests/") {
        MANIFEST_TYPE
    } else {
        "application/octet-stream"
    };
    let (status, range) = match part {
        Some((from, end)) => {
            ("206 Partial Content", format!("content-range: bytes {from}-{}/{size}\r\n", end - 1))
        }
        None => ("200 OK", String::new()),
    };
    let bytes = part.map_or(size, |(from, end)| end - from);
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {bytes}\r\n{range}\
         docker-content-digest: {digest}\r\netag: \"{digest}\"\r\naccept-ranges: bytes\r\n\
         docker-distribution-api-version: registry/2.0\r\ncache-control: max-age=31536000\r\n\r\n"
    )
}

/// From where and up to where, of a single range that can be satisfied.
fn part(range: &str, size: u64) -> Option<(u64, u64)> {
    let (from, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let from = from.parse().ok()?;
    let end = last.parse().map_or(size, |last: u64| size.min(last.saturating_add(1)));
    (from < end).then_some((from, end))
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn ranges_end_with_the_object() {
        for (range, expected) in [
            ("bytes=0-0", Some((0, 1))),
            ("bytes=5-", Some((5, 10))),
            ("bytes=5-99", Some((5, 10))),
            ("bytes=10-", None),
            ("bytes=-3", None),
            ("pages=1-2", None),
        ] {
            assert_eq!(part(range, 10), expected, "{range}");
        }
    }
}
