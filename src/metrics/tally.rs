//! What was served and what was fetched for it: of a registry, of a network of clients, of all.
//!
//! Only what is about content counts, the GETs of manifests and blobs: a ping, a token or a listing
//! is neither a hit nor saved, and a HEAD has no content.

use std::ops::{Add, AddAssign};

use http::Method;
use serde::{Deserialize, Serialize};

use super::Count;
use crate::log::{ContentKind, Outcome, RequestLine};

/// Counts of one kind of content.
#[derive(Debug, Default)]
struct KindTally {
    requests: Count,
    hits: Count,
}

/// What is counted while requests are served: additions to atomic numbers, no lock.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    served_bytes: Count,
    fetched_bytes: Count,
    pulls: Count,
    quota_pulls_saved: Count,
    manifests: KindTally,
    blobs: KindTally,
}

/// Requests for one kind of content, and those of them that needed no transfer of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KindSums {
    /// GETs that were answered.
    pub requests: u64,
    /// Those of them that were answered from what is here.
    pub hits: u64,
}

/// A tally, read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sums {
    /// Bytes of content that went to clients.
    pub served_bytes: u64,
    /// Bytes that came from registries when they were asked for content.
    pub fetched_bytes: u64,
    /// Pulls of clients.
    pub pulls: u64,
    /// GETs of manifests that a registry would have counted, and that it was not asked.
    pub quota_pulls_saved: u64,
    /// Of manifests.
    pub manifests: KindSums,
    /// Of blobs.
    pub blobs: KindSums,
}

impl Tally {
    /// One that goes on from there.
    pub(super) fn from(sums: &Sums) -> Self {
        let tally = Self::default();
        tally.add(sums);
        tally
    }

    pub(super) fn add(&self, sums: &Sums) {
        self.served_bytes.add(sums.served_bytes);
        self.fetched_bytes.add(sums.fetched_bytes);
        self.pulls.add(sums.pulls);
        self.quota_pulls_saved.add(sums.quota_pulls_saved);
        for (kind, sums) in [(&self.manifests, sums.manifests), (&self.blobs, sums.blobs)] {
            kind.requests.add(sums.requests);
            kind.hits.add(sums.hits);
        }
    }

    pub(super) fn served(&self, bytes: u64) {
        self.served_bytes.add(bytes);
    }

    pub(super) fn fetched(&self, bytes: u64) {
        self.fetched_bytes.add(bytes);
    }

    pub(super) fn pulled(&self) {
        self.pulls.add_one();
    }

    /// A request has been answered; with what of it saves a pull of a quota.
    pub(super) fn answered(&self, line: &RequestLine, saves_a_pull: bool) {
        let Some(kind) = counted(line) else { return };
        let tally = match kind {
            ContentKind::Manifest => &self.manifests,
            ContentKind::Blob => &self.blobs,
        };
        tally.requests.add_one();
        if line.outcome.is_from_store() {
            tally.hits.add_one();
        }
        if saves_a_pull {
            self.quota_pulls_saved.add_one();
        }
    }

    /// What it has come to.
    pub(crate) fn sums(&self) -> Sums {
        let kind = |kind: &KindTally| KindSums {
            requests: kind.requests.value(),
            hits: kind.hits.value(),
        };
        Sums {
            served_bytes: self.served_bytes.value(),
            fetched_bytes: self.fetched_bytes.value(),
            pulls: self.pulls.value(),
            quota_pulls_saved: self.quota_pulls_saved.value(),
            manifests: kind(&self.manifests),
            blobs: kind(&self.blobs),
        }
    }
}

/// The kind of content that a request was for, where it counts: a GET that was answered with it.
/// What the registry refused, and what was refused or failed here, is no content.
pub(crate) fn counted(line: &RequestLine) -> Option<ContentKind> {
    let kind = line.subject.content().filter(|_| line.method == Method::GET)?;
    let status = line.status?;
    let is_content = status.is_success() || status == http::StatusCode::NOT_MODIFIED;
    (is_content && is_passed(line.outcome)).then_some(kind)
}

/// Whether the bytes of an answer like that count as served.
pub(super) fn is_served(line: &RequestLine) -> bool {
    let is_content = line.method == Method::GET && line.subject.content().is_some();
    is_content && is_passed(line.outcome)
}

fn is_passed(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Hit
        | Outcome::Miss
        | Outcome::Joined
        | Outcome::Bucket
        | Outcome::Peer
        | Outcome::Revalidated
        | Outcome::Stale
        | Outcome::Relay => true,
        Outcome::Tunnel | Outcome::Denied | Outcome::Error => false,
    }
}

impl KindSums {
    fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            hits: self.hits.saturating_sub(before.hits),
        }
    }
}

impl AddAssign for KindSums {
    fn add_assign(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.hits = self.hits.saturating_add(other.hits);
    }
}

impl Sums {
    /// What did not come from registries of what went to clients; less than nothing where more was
    /// fetched than served, as by pulling ahead.
    #[must_use]
    pub(crate) fn saved_bytes(&self) -> i64 {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        signed(self.served_bytes) - signed(self.fetched_bytes)
    }

    /// GETs of content.
    #[must_use]
    pub(crate) fn requests(&self) -> u64 {
        self.manifests.requests + self.blobs.requests
    }

    /// Those of them that were answered from what is here.
    #[must_use]
    pub(crate) fn hits(&self) -> u64 {
        self.manifests.hits + self.blobs.hits
    }

    /// What has come since `before`.
    #[must_use]
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            served_bytes: self.served_bytes.saturating_sub(before.served_bytes),
            fetched_bytes: self.fetched_bytes.saturating_sub(before.fetched_bytes),
            pulls: self.pulls.saturating_sub(before.pulls),
            quota_pulls_saved: self.quota_pulls_saved.saturating_sub(before.quota_pulls_saved),
            manifests: self.manifests.since(before.manifests),
            blobs: self.blobs.since(before.blobs),
        }
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.served_bytes = self.served_bytes.saturating_add(other.served_bytes);
        self.fetched_bytes = self.fetched_bytes.saturating_add(other.fetched_bytes);
        self.pulls = self.pulls.saturating_add(other.pulls);
        self.quota_pulls_saved = self.quota_pulls_saved.saturating_add(other.quota_pulls_saved);
        self.manifests += other.manifests;
        self.blobs += other.blobs;
    }
}

impl Add for Sums {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl std::iter::Sum for Sums {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Subject;
    use entrepot_oci::{Registry, Route};
    use http::StatusCode;

    fn line(outcome: Outcome, method: Method, path: &str, status: u16) -> RequestLine {
        let registry = Registry::at(&"docker.io:443".parse().unwrap());
        let subject = Subject::of(registry, Route::parse(path, None), path);
        let line = RequestLine::new(outcome, method, subject, [10, 0, 0, 7].into());
        RequestLine { status: Some(StatusCode::from_u16(status).unwrap()), ..line }
    }

    #[test]
    fn only_content_counts() {
        let manifest = "/v2/a/manifests/1";
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let blob = format!("/v2/a/blobs/sha256:{hex}");
        let kind = |outcome, method: Method, path: &str, status| {
            counted(&line(outcome, method, path, status))
        };
        assert_eq!(kind(Outcome::Hit, Method::GET, manifest, 200), Some(ContentKind::Manifest));
        assert_eq!(kind(Outcome::Miss, Method::GET, &blob, 206), Some(ContentKind::Blob));
        assert_eq!(kind(Outcome::Hit, Method::GET, &blob, 304), Some(ContentKind::Blob));
        assert_eq!(kind(Outcome::Revalidated, Method::HEAD, manifest, 200), None);
        assert_eq!(kind(Outcome::Relay, Method::GET, manifest, 404), None);
        assert_eq!(kind(Outcome::Error, Method::GET, manifest, 200), None);
        for path in ["/v2/", "/v2/a/tags/list", "/entrepot/token", "/v2/_catalog"] {
            assert_eq!(kind(Outcome::Hit, Method::GET, path, 200), None, "{path}");
        }
    }

    #[test]
    fn pulling_ahead_saves_nothing_by_itself() {
        let tally = Tally::default();
        tally.fetched(87);
        assert_eq!(tally.sums().saved_bytes(), -87);
        tally.served(100);
        let sums = tally.sums();
        assert_eq!(sums.saved_bytes(), 13);
        assert_eq!(Tally::from(&sums).sums(), sums);
        assert_eq!((sums + sums).since(&sums), sums);
    }
}
