//! Requests, as they are noted.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use entrepot_oci::{Digest, Reference, Registry, RepositoryName, Route, Tag};
use http::{HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::log::{Outcome, RequestLine};

/// What is noted between two looks: more than a machine answers in that time. Whatever is beyond
/// it is no part of any pull that is told of.
const MOST: usize = 32 * 1024;
/// The longest name of a program that is kept.
const LONGEST_AGENT: usize = 200;
/// The longest reason that is kept.
const LONGEST_REASON: usize = 300;

/// The beginning of a reason, which may have a registry's own words in it.
fn shortened(reason: &str) -> String {
    let end = reason.floor_char_boundary(LONGEST_REASON);
    reason.get(..end).unwrap_or_default().to_owned()
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Asker {
    /// From where.
    pub client: IpAddr,
    /// As which user of the proxy, where it asks for users.
    pub user: Option<Arc<str>>,
    /// By which program, as it says itself.
    pub user_agent: Option<Arc<str>>,
    /// Whether it is a replica, which asks for others.
    pub is_replica: bool,
}

impl Asker {
    /// The beginning of a `User-Agent`, as text.
    #[must_use]
    pub(crate) fn program(field: Option<&HeaderValue>) -> Option<Arc<str>> {
        let bytes = field?.as_bytes();
        let text = String::from_utf8_lossy(bytes.get(..LONGEST_AGENT).unwrap_or(bytes));
        Some(Arc::from(&*text))
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Object {
    /// What a tag stands for.
    Tag(Tag),
    /// A manifest by digest.
    Manifest(Digest),
    /// A blob.
    Blob(Digest),
}

impl Object {
    fn of(route: &Route) -> Option<(RepositoryName, Self)> {
        match route {
            Route::Manifest { repository, reference: Reference::Tag(tag) } => {
                Some((repository.clone(), Self::Tag(tag.clone())))
            }
            Route::Manifest { repository, reference: Reference::Digest(digest) } => {
                Some((repository.clone(), Self::Manifest(*digest)))
            }
            Route::Blob { repository, digest } => Some((repository.clone(), Self::Blob(*digest))),
            Route::Ping
            | Route::Tags { .. }
            | Route::Referrers { .. }
            | Route::Upload { .. }
            | Route::Api
            | Route::Other => None,
        }
    }
}

/// A request that has begun.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) number: u64,
    pub(super) asker: Asker,
    pub(super) registry: Registry,
    pub(super) repository: RepositoryName,
    pub(super) object: Object,
    pub(super) is_head: bool,
    /// Whether a part is asked for.
    pub(super) is_part: bool,
    pub(super) at: Instant,
}

/// How a request has ended.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) at: Instant,
    pub(super) when: SystemTime,
    /// None where the client left before there was an answer.
    pub(super) outcome: Option<Outcome>,
    pub(super) status: Option<StatusCode>,
    pub(super) bytes: u64,
    /// Whether the client took all of the answer.
    pub(super) is_whole: bool,
    /// What the answer is, by its own word.
    pub(super) digest: Option<Digest>,
    pub(super) reason: Option<String>,
}

/// What has happened.
#[derive(Debug)]
pub(super) enum Noted {
    Begun(Arc<Begun>),
    Ended(Arc<Begun>, End),
}

/// What has happened since somebody looked.
#[derive(Debug, Default)]
pub(super) struct Notes {
    list: Mutex<Vec<Noted>>,
    next: AtomicU64,
}

impl Notes {
    fn add(&self, noted: Noted) {
        let mut list = self.list.lock();
        if list.len() < MOST {
            list.push(noted);
        }
    }

    pub(super) fn take(&self) -> Vec<Noted> {
        std::mem::take(&mut self.list.lock())
    }
}

/// A request for content that is being answered. Dropped, it has ended without an answer.
#[derive(Debug)]
pub(crate) struct Asking {
    notes: Arc<Notes>,
    begun: Arc<Begun>,
    digest: Option<Digest>,
    is_over: bool,
}

impl Asking {
    pub(super) fn begin(
        notes: &Arc<Notes>,
        asker: &Asker,
        registry: Registry,
        route: &Route,
        method: &Method,
        is_part: bool,
    ) -> Option<Self> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let (repository, object) = Object::of(route)?;
        let digest = match &object {
            Object::Tag(_) => None,
            Object::Manifest(digest) | Object::Blob(digest) => Some(*digest),
        };
        let begun = Arc::new(Begun {
            number: notes.next.fetch_add(1, Ordering::Relaxed),
            asker: asker.clone(),
            registry,
            repository,
            object,
            is_head: method == Method::HEAD,
            is_part,
            at: Instant::now(),
        });
        notes.add(Noted::Begun(begun.clone()));
        Some(Self { notes: notes.clone(), begun, digest, is_over: false })
    }

    /// The answer says what a tag stands for.
    pub(crate) fn serves(&mut self, named: Option<&HeaderValue>) {
        if self.digest.is_none() {
            self.digest = named.and_then(|named| named.to_str().ok()?.parse().ok());
        }
    }

    /// The answer has ended; whether the client took all of it.
    pub(crate) fn ended(mut self, line: &RequestLine, is_whole: bool) {
        self.is_over = true;
        let end = End {
            at: Instant::now(),
            when: SystemTime::now(),
            outcome: Some(line.outcome),
            status: line.status,
            bytes: line.body_bytes,
            is_whole,
            digest: self.digest,
            reason: line.reason.as_deref().map(shortened),
        };
        self.notes.add(Noted::Ended(self.begun.clone(), end));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let end = End {
            at: Instant::now(),
            when: SystemTime::now(),
            outcome: None,
            status: None,
            bytes: 0,
            is_whole: false,
            digest: None,
            reason: None,
        };
        self.notes.add(Noted::Ended(self.begun.clone(), end));
    }
}
