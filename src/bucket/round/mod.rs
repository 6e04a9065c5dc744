//! The round: once a day each replica looks at the whole bucket.
//!
//! It brings what is kept and used here and is not there, says what is used, and removes what
//! nobody has used for long. Any replica may do it, none must, and two at a time are harmless:
//! every step says again what is so already.
//!
//! - `plan`: what is to be done, as far as that can be said without asking
//! - `pins`: what stays whatever its age, here and there
//! - `objects`: what there is, what is used, what goes
//! - `records`: forgetting what leads to nothing
//! - `bringing`: what is kept here and is not there

mod bringing;
mod objects;
mod pins;
mod plan;
mod records;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use entrepot_cache::Store;
use entrepot_oci::{Digest, UnixSeconds};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use plan::{Excess, Listed, Tally, UsedWith};

use super::notes::Notes;
use super::uploads::Uploads;
use super::{Bounds, Bucket, BucketError};

/// Questions to the bucket at a time.
const AT_ONCE: usize = 8;
/// Objects that are looked at at once: some megabytes.
const AT_A_TIME: usize = 20_000;
/// How long the store may take to know what it keeps, and what that needs.
const KNOWN: Duration = Duration::from_hours(1);
/// When the first round is after a start; replicas are often started together.
const FIRST: Range = Range(Duration::from_mins(1), Duration::from_mins(10));
/// When the next is.
const NEXT: Range = Range(Duration::from_hours(20), Duration::from_hours(28));
/// When it is tried again if it came to no end.
const AGAIN: Range = Range(Duration::from_mins(20), Duration::from_mins(40));

struct Range(Duration, Duration);

impl Range {
    /// Some time in it.
    fn some(&self) -> Duration {
        let Self(least, most) = *self;
        let random = RandomState::new().hash_one(0_u8) % 1024;
        least + (most.saturating_sub(least)) * u32::try_from(random).unwrap_or_default() / 1024
    }
}

/// What a round is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// It looks at the objects there are, and at their use.
    Looking,
    /// It removes what is unused, or more than there is room for.
    Removing,
    /// It looks at the records.
    Records,
    /// It brings what is kept here alone.
    Uploading,
}

/// How far it is: of the step, so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoundProgress {
    /// Which step.
    pub(crate) step: Step,
    /// Looked at, removed or brought.
    pub(crate) done: u64,
    /// Of so many, where that is known.
    pub(crate) total: Option<u64>,
    /// Bytes sent so far.
    pub(crate) bytes: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoundReport {
    /// When it ended.
    pub(crate) ended: UnixSeconds,
    /// How long it took.
    pub(crate) duration_ms: u64,
    /// Objects in the bucket then.
    pub(crate) objects: u64,
    /// Their sizes' sum.
    pub(crate) bytes: u64,
    /// When what was used least lately was used, as far as the bucket knows.
    pub(crate) oldest_use: Option<UnixSeconds>,
    /// Objects that were brought.
    pub(crate) uploaded_objects: u64,
    /// Their sizes' sum.
    pub(crate) uploaded_bytes: u64,
    /// Records that were brought.
    pub(crate) uploaded_records: u64,
    /// What could not be brought yet, and is tried again.
    pub(crate) failed: u64,
    /// Objects of which it was said that they are in use.
    pub(crate) marked: u64,
    /// Objects that were removed.
    pub(crate) removed_objects: u64,
    /// Their sizes' sum.
    pub(crate) removed_bytes: u64,
    /// Records and notes that were removed.
    pub(crate) removed_records: u64,
    /// Pinned documents in the bucket.
    pub(crate) pins: u64,
}

/// One line of what a running proxy tells of a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RoundLine {
    /// Now and then.
    Progress(RoundProgress),
    /// The last line, if it came to an end.
    Summary(RoundReport),
    /// The last line, if not.
    Error(String),
}

/// Who hears how far it is.
type Tell<'a> = &'a mut (dyn FnMut(RoundProgress) + Send + Sync);

/// Why there was no round.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RoundError {
    /// There is one.
    #[error("a round is under way already")]
    UnderWay,
    /// It is not known yet what is kept here.
    #[error("the store's index is still being read: try again later")]
    Loading,
    /// The store can't be read.
    #[error("the store can't be read: {0}")]
    Store(String),
    /// The bucket can't be used.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// The round; cheap to clone.
#[derive(Clone)]
pub(crate) struct Round {
    inner: Arc<Inner>,
}

struct Inner {
    bucket: Bucket,
    store: Store,
    uploads: Uploads,
    notes: Notes,
    bounds: Bounds,
    /// So many objects are looked at at once; where there are more, shard by shard.
    at_a_time: usize,
    /// Who is at it.
    turn: Semaphore,
    last: Mutex<Option<RoundReport>>,
}

impl Round {
    /// One between this store and this bucket.
    #[must_use]
    pub(crate) fn new(bucket: Bucket, store: Store, uploads: Uploads, notes: Notes) -> Self {
        Self::with_room(bucket, store, uploads, notes, AT_A_TIME)
    }

    /// The same, which looks at so many objects at once.
    fn with_room(
        bucket: Bucket,
        store: Store,
        uploads: Uploads,
        notes: Notes,
        at_a_time: usize,
    ) -> Self {
        let bounds = bucket.bounds();
        let (turn, last) = (Semaphore::new(1), Mutex::default());
        let inner = Inner { bucket, store, uploads, notes, bounds, at_a_time, turn, last };
        Self { inner: Arc::new(inner) }
    }

    /// What the last one of this process has found.
    #[must_use]
    pub(crate) fn last(&self) -> Option<RoundReport> {
        self.inner.last.lock().clone()
    }

    /// Whether there is one now.
    #[must_use]
    pub(crate) fn is_under_way(&self) -> bool {
        self.inner.turn.available_permits() == 0
    }

    /// Goes round some minutes after the start and then once a day, until the shutdown.
    pub(crate) async fn keep(self, shutdown: CancellationToken) {
        let keeping = async {
            let mut wait = FIRST.some();
            loop {
                tokio::time::sleep(wait).await;
                wait = match self.run(&mut |_| {}).await {
                    // Somebody else has just had it run.
                    Ok(_) | Err(RoundError::UnderWay) => NEXT.some(),
                    Err(_) => AGAIN.some(),
                };
            }
        };
        shutdown.run_until_cancelled(keeping).await;
    }

    /// Goes round once, unless that is being done. `tell` hears how far it is. Cancel safe: what
    /// was done stays so, and the next round does the rest.
    pub(crate) async fn run(&self, tell: Tell<'_>) -> Result<RoundReport, RoundError> {
        let Inner { bucket, turn, store, last, .. } = &*self.inner;
        let Ok(_turn) = turn.try_acquire() else { return Err(RoundError::UnderWay) };
        let began = Instant::now();
        if !store.is_known_within(KNOWN).await {
            return Err(RoundError::Loading);
        }
        let ran = Box::pin(Walk::new(&self.inner, tell).go()).await;
        let mut report = ran.inspect_err(|error| {
            tracing::warn!(%error, "the round through the bucket came to no end");
        })?;
        report.ended = UnixSeconds::now();
        report.duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let counters = bucket.metrics().bucket();
        counters.objects.set(report.objects);
        counters.bytes.set(report.bytes);
        counters.round_ended.set(report.ended.0);
        tracing::info!(
            objects = report.objects,
            bytes = report.bytes,
            uploaded = report.uploaded_objects,
            removed = report.removed_objects,
            duration_ms = report.duration_ms,
            "went round the bucket"
        );
        *last.lock() = Some(report.clone());
        Ok(report)
    }
}

/// A round that is being gone.
struct Walk<'a> {
    of: &'a Inner,
    now: UnixSeconds,
    /// What pins need.
    needed: HashSet<Digest>,
    used: UsedWith,
    tally: Tally,
    /// Where the bucket was too full.
    excess: Option<Excess>,
    /// The objects that are there.
    objects: Listed,
    /// The records that are there.
    records: Listed,
    report: RoundReport,
    tell: Tell<'a>,
}

impl<'a> Walk<'a> {
    fn new(of: &'a Inner, tell: Tell<'a>) -> Self {
        Self {
            of,
            now: UnixSeconds::now(),
            needed: HashSet::new(),
            used: UsedWith::default(),
            tally: Tally::default(),
            excess: None,
            objects: Listed::new(),
            records: Listed::new(),
            report: RoundReport::default(),
            tell,
        }
    }

    async fn go(mut self) -> Result<RoundReport, RoundError> {
        self.settle_pins().await?;
        self.note_uses().await;
        let survey = self.look_at_objects().await?;
        self.make_room(survey).await?;
        self.look_at_records().await?;
        self.report.removed_records += self.of.notes.prune(self.now).await?;
        self.bring().await?;
        let Tally { objects, bytes, oldest, .. } = self.tally;
        Ok(RoundReport { objects, bytes, oldest_use: oldest, ..self.report })
    }

    /// How long ago that was.
    fn age(&self, of: SystemTime) -> Duration {
        Duration::from_secs(self.now.0.saturating_sub(UnixSeconds::from(of).0))
    }

    /// When an object was last used here, for its own sake or with what needs it.
    fn used_here(&self, digest: &Digest) -> Option<UnixSeconds> {
        let own = self.of.store.find(digest).map(|kept| UnixSeconds::from(kept.last_use));
        own.max(self.used.of(digest))
    }

    fn progress(&mut self, step: Step, done: u64, total: Option<u64>) {
        let bytes = self.report.uploaded_bytes;
        (self.tell)(RoundProgress { step, done, total, bytes });
    }
}
