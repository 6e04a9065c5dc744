//! What an operator has done on one replica, for the others: removals and pins.
//!
//! A replica reads once a minute what the others have noted since, and does the same here. What is
//! noted may be done twice, after a restart for one: a removal takes away only what was known
//! before it, and of pins the last word counts.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use entrepot_oci::{Digest, ImageName, UnixSeconds};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::layout::{Entry, NoteName, Prefix, RecordKey};
use super::{Bucket, BucketError};

/// How often it is looked for notes.
const LOOK: Duration = Duration::from_mins(1);
/// The same, while one waits to be written.
const AGAIN: Duration = Duration::from_secs(10);
/// How long notes are kept: a replica that is away for longer keeps what others have removed.
const KEPT: Duration = Duration::from_hours(30 * 24);
/// How much later than it is named a note may come: the clocks of replicas differ, and so does how
/// long they take.
const LATE: Duration = Duration::from_mins(15);
/// Images that one note names at most, so that it stays small.
const MOST_IMAGES: usize = 100;
/// Notes that wait for the bucket to come back.
const MOST_WAITING: usize = 1_000;
/// Notes that are read at most in one look: those of a busy year.
const MOST_READ: usize = 100_000;

/// Notes of one process are so far apart: it is what their names tell.
const MILLISECOND: Duration = Duration::from_millis(1);

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Deed {
    /// Images were removed.
    Removed(Vec<String>),
    /// An object stays, with all that it needs.
    Pinned(String),
    /// It needs to stay no more.
    Unpinned(String),
}

/// What was done, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// By the clock of who did it.
    pub(crate) at: UnixSeconds,
    /// What.
    pub(crate) done: Deed,
}

impl Note {
    /// The images that were removed, if that was it; those whose names are none are left out.
    pub(crate) fn removed(&self) -> impl Iterator<Item = ImageName> {
        let names = match &self.done {
            Deed::Removed(names) => names.as_slice(),
            Deed::Pinned(_) | Deed::Unpinned(_) => &[],
        };
        names.iter().filter_map(|name| name.parse().ok())
    }
}

/// Does here what a note says. An error: not now, but perhaps later.
pub(crate) type Apply = Arc<dyn Fn(Note) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The notes of the fleet; cheap to clone.
#[derive(Clone)]
pub(crate) struct Notes {
    inner: Arc<Inner>,
}

struct Inner {
    bucket: Bucket,
    /// Who writes, in the names of notes.
    replica: String,
    apply: Apply,
    /// When the last note was named.
    last: Mutex<SystemTime>,
    waiting: Mutex<VecDeque<(NoteName, Note)>>,
    /// Held while notes are read: each is applied once.
    read: tokio::sync::Mutex<Read>,
}

/// How far notes have been read.
#[derive(Default)]
struct Read {
    /// Nothing older than this is looked for.
    after: Option<SystemTime>,
    /// What was applied of what is looked for again.
    applied: HashSet<NoteName>,
    /// What was last said of a pin.
    pins: HashMap<Digest, (NoteName, bool)>,
}

impl Notes {
    /// The notes in `bucket`; what others have done is done here by `apply`.
    #[must_use]
    pub(crate) fn new(bucket: Bucket, apply: Apply) -> Self {
        let replica = format!("{:016x}", RandomState::new().hash_one(0_u8));
        let (waiting, read) = (Mutex::default(), tokio::sync::Mutex::default());
        let last = Mutex::new(SystemTime::UNIX_EPOCH);
        Self { inner: Arc::new(Inner { bucket, replica, apply, last, waiting, read }) }
    }

    /// Tells the others. A note that can't be written now waits, and is written while this process
    /// runs; the error says why.
    pub(crate) async fn tell(&self, done: Deed) -> Result<(), BucketError> {
        let deeds = match done {
            Deed::Removed(names) => {
                names.chunks(MOST_IMAGES).map(|part| Deed::Removed(part.to_vec())).collect()
            }
            other => vec![other],
        };
        for done in deeds {
            let Some((name, note)) = self.name(done) else { continue };
            let mut read = self.inner.read.lock().await;
            read.heed(&name, &note);
            drop(read);
            let mut waiting = self.inner.waiting.lock();
            waiting.push_back((name, note));
            if waiting.len() > MOST_WAITING {
                waiting.pop_front();
                tracing::warn!("a note for other replicas is dropped: too many wait");
            }
        }
        self.write().await
    }

    /// What was done now, under a name that no other note has: those of one process are a
    /// millisecond apart at least.
    fn name(&self, done: Deed) -> Option<(NoteName, Note)> {
        let mut last = self.inner.last.lock();
        let at = SystemTime::now().max(*last + MILLISECOND);
        *last = at;
        let name = NoteName::new(at, &self.inner.replica)?;
        Some((name, Note { at: at.into(), done }))
    }

    /// Writes what waits.
    async fn write(&self) -> Result<(), BucketError> {
        loop {
            let next = self.inner.waiting.lock().front().cloned();
            let Some((name, note)) = next else { return Ok(()) };
            self.inner.bucket.put_record(&RecordKey::Note(name.clone()), &note).await?;
            self.inner.waiting.lock().retain(|(written, _)| *written != name);
        }
    }

    /// Reads what others have noted since this was last called, and does it here.
    pub(crate) async fn catch_up(&self) -> Result<(), BucketError> {
        let Inner { bucket, replica, apply, read, .. } = &*self.inner;
        let (mut read, began) = (read.lock().await, SystemTime::now());
        let from = read.after.unwrap_or_else(|| began.checked_sub(KEPT).unwrap_or(began));
        let after = NoteName::new(from, "0");
        let after = after.map(|name| Entry::Record(RecordKey::Note(name)).to_string());
        let mut names = Vec::new();
        {
            let listed = bucket.list(&Prefix::Notes, after.as_deref());
            let mut listed = std::pin::pin!(listed.take(MOST_READ));
            while let Some(item) = listed.next().await {
                if let Ok(Entry::Record(RecordKey::Note(name))) = item?.name.parse() {
                    names.push(name);
                }
            }
        }
        names.sort_unstable();
        names.retain(|name| name.replica() != replica && !read.applied.contains(name));
        let mut again = began.checked_sub(LATE).unwrap_or(began);
        for name in names {
            let key = RecordKey::Note(name.clone());
            // One that is forged, or of a kind that this version does not know, says nothing.
            if let Some(note) = bucket.record_behind::<Note>(&key).await? {
                read.heed(&name, &note);
                if let Err(error) = apply(note.clone()).await {
                    tracing::debug!(note = %name, error, "a note can't be heeded yet");
                    again = again.min(name.at().checked_sub(MILLISECOND).unwrap_or(began));
                    continue;
                }
            }
            read.applied.insert(name);
        }
        read.after = Some(again);
        read.applied.retain(|name| name.at() >= again.checked_sub(LATE).unwrap_or(again));
        Ok(())
    }

    /// Whether the last word on a pin, of all that were read, is that it is none.
    pub(super) async fn is_unpinned(&self, digest: &Digest) -> bool {
        let read = self.inner.read.lock().await;
        read.pins.get(digest).is_some_and(|(_, is_pinned)| !is_pinned)
    }

    /// Writes what waits, and reads what others have noted.
    pub(super) async fn settle(&self) -> Result<(), BucketError> {
        let written = self.write().await;
        self.catch_up().await.and(written)
    }

    /// Reads and writes notes now and then, until the shutdown.
    pub(crate) async fn keep(self, shutdown: CancellationToken) {
        let keeping = async {
            loop {
                if let Err(error) = self.settle().await {
                    // That the bucket is away is told by who asks it for more.
                    tracing::debug!(%error, "notes can't be read or written");
                }
                let is_written = self.inner.waiting.lock().is_empty();
                tokio::time::sleep(if is_written { LOOK } else { AGAIN }).await;
            }
        };
        shutdown.run_until_cancelled(keeping).await;
    }

    /// Removes notes that everybody has had time to read. How many.
    pub(super) async fn prune(&self, now: UnixSeconds) -> Result<u64, BucketError> {
        let bucket = &self.inner.bucket;
        let mut old = Vec::new();
        {
            let mut listed = std::pin::pin!(bucket.list(&Prefix::Notes, None).take(MOST_READ));
            while let Some(item) = listed.next().await {
                let item = item?;
                let age = now.0.saturating_sub(UnixSeconds::from(item.modified).0);
                if age > KEPT.as_secs()
                    && let Ok(Entry::Record(key)) = item.name.parse()
                {
                    old.push(key);
                }
            }
        }
        for key in &old {
            bucket.remove_record(key).await?;
        }
        Ok(old.len() as u64)
    }
}

impl Read {
    fn heed(&mut self, name: &NoteName, note: &Note) {
        let (digest, is_pinned) = match &note.done {
            Deed::Pinned(digest) => (digest, true),
            Deed::Unpinned(digest) => (digest, false),
            Deed::Removed(_) => return,
        };
        let Ok(digest) = digest.parse::<Digest>() else { return };
        let said = self.pins.entry(digest).or_insert_with(|| (name.clone(), is_pinned));
        if *name >= said.0 {
            *said = (name.clone(), is_pinned);
        }
    }
}
