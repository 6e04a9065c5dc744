//! The queue between a download's async end and its disk end.
//!
//! It is bounded in bytes. There is no thread waiting for a slow upstream: the disk end rests in
//! the queue, and the first job that finds it resting sends it to the blocking pool, where it works
//! until the queue is empty. A fast upstream thus meets one long-lived task and large batches, a
//! slow one a short task a chunk.

use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::disk_end::{DiskEnd, EndNotice};
use crate::disk::{DiskError, threads};
use crate::errors::{FinishError, WriteError};

/// How many bytes may wait between the upstream and the disk, a download.
const QUEUE_BYTES: u32 = 2 * 1024 * 1024;
/// What a chunk costs at least: tiny ones must not pile up by the million.
const LEAST_COST: u32 = 512;
/// How many bytes are hashed and written before readers are told.
const BATCH_BYTES: usize = 512 * 1024;

/// Where the end of a verification is told.
pub(crate) type Asker = oneshot::Sender<Result<Box<DiskEnd>, FinishError>>;

/// Something for the disk end to do; jobs are done one after the other.
#[derive(Debug)]
pub(crate) enum Job {
    Chunk(Bytes, Admission),
    Verify(Asker),
    Abandon,
}

/// Room for a chunk: in its download's queue, and among all downloads'.
#[derive(Debug)]
pub(crate) struct Admission {
    _own: OwnedSemaphorePermit,
    _among_all: OwnedSemaphorePermit,
}

/// The queue of one download.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    budget: Arc<Semaphore>,
    /// What may wait for the disk, of all downloads together.
    among_all: Arc<Semaphore>,
    failure: OnceLock<WriteError>,
    notice: EndNotice,
}

#[derive(Debug)]
struct QueueState {
    jobs: Vec<Job>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Resting(Box<DiskEnd>),
    Working,
    /// The download has ended, one way or another.
    Over,
}

impl Queue {
    pub(crate) fn new(disk_end: DiskEnd, among_all: Arc<Semaphore>) -> Arc<Self> {
        let notice = disk_end.notice();
        let state = QueueState { jobs: Vec::new(), stage: Stage::Resting(Box::new(disk_end)) };
        Arc::new(Self {
            state: Mutex::new(state),
            budget: Arc::new(Semaphore::new(QUEUE_BYTES as usize)),
            among_all,
            failure: OnceLock::new(),
            notice,
        })
    }

    /// Waits until `len` more bytes may be queued. Cancel safe.
    pub(crate) async fn admit(&self, len: usize) -> Result<Admission, WriteError> {
        let cost = u32::try_from(len).unwrap_or(u32::MAX).clamp(LEAST_COST, QUEUE_BYTES);
        let admitted = Arc::clone(&self.budget).acquire_many_owned(cost).await;
        let own = admitted.map_err(|_closed| self.failure())?;
        let among_all = Arc::clone(&self.among_all).acquire_many_owned(cost).await;
        let among_all = among_all.map_err(|_closed| self.failure())?;
        Ok(Admission { _own: own, _among_all: among_all })
    }

    /// Why the download has ended without being finished.
    pub(crate) fn failure(&self) -> WriteError {
        let unknown = || io::Error::other("the download was stopped");
        let unknown = || WriteError::Store(DiskError::cut_short(unknown()));
        self.failure.get().cloned().unwrap_or_else(unknown)
    }

    /// Ends the download without success. Lookups from now on wait for the next one.
    pub(crate) fn abandon(self: &Arc<Self>) {
        self.notice.hold();
        self.push(Job::Abandon);
    }

    /// Queues `job`; without effect once the download has ended. Does not block.
    pub(crate) fn push(self: &Arc<Self>, job: Job) {
        let mut state = self.state.lock();
        match std::mem::replace(&mut state.stage, Stage::Working) {
            Stage::Over => state.stage = Stage::Over,
            Stage::Working => state.jobs.push(job),
            Stage::Resting(disk_end) => {
                state.jobs.push(job);
                drop(state);
                let queue = Arc::clone(self);
                threads::detach(move || queue.work(disk_end));
            }
        }
    }

    /// Does jobs until there are none. A panic on the way ends the download.
    fn work(self: Arc<Self>, mut disk_end: Box<DiskEnd>) {
        let closing = CloseOnDrop { queue: &self };
        loop {
            let Some((at_work, jobs)) = self.next_jobs(disk_end) else {
                std::mem::forget(closing);
                return;
            };
            match self.do_all(at_work, jobs) {
                Some(at_work) => disk_end = at_work,
                None => return,
            }
        }
    }

    /// The jobs that have come, or none: then the disk end rests.
    fn next_jobs(&self, disk_end: Box<DiskEnd>) -> Option<(Box<DiskEnd>, Vec<Job>)> {
        let mut state = self.state.lock();
        if state.jobs.is_empty() {
            state.stage = Stage::Resting(disk_end);
            return None;
        }
        Some((disk_end, std::mem::take(&mut state.jobs)))
    }

    /// The disk end again, or nothing when the download has ended.
    fn do_all(&self, disk_end: Box<DiskEnd>, jobs: Vec<Job>) -> Option<Box<DiskEnd>> {
        let mut jobs = jobs.into_iter();
        let done = do_jobs(disk_end, &mut jobs);
        done.unwrap_or_else(|error| {
            // Before the jobs behind are dropped: a verification among them asks for the reason.
            let _ = self.failure.set(error);
            None
        })
    }
}

fn do_jobs(
    mut disk_end: Box<DiskEnd>,
    jobs: &mut std::vec::IntoIter<Job>,
) -> Result<Option<Box<DiskEnd>>, WriteError> {
    let mut batch = Batch::default();
    for job in jobs {
        match job {
            Job::Chunk(chunk, permit) => batch.take(chunk, permit, &mut disk_end)?,
            Job::Verify(asker) => {
                let flushed = batch.flush(&mut disk_end).map_err(FinishError::from);
                // If the asker is gone the download is given up.
                let _ = asker.send(flushed.and_then(|()| disk_end.verify()).map(|()| disk_end));
                return Ok(None);
            }
            Job::Abandon => {
                // What can't be written is removed, and the readers know why.
                if batch.flush(&mut disk_end).is_ok() {
                    disk_end.abandon();
                }
                return Ok(None);
            }
        }
    }
    batch.flush(&mut disk_end).map(|()| Some(disk_end))
}

/// Ends the download when dropped: no job will be done any more.
struct CloseOnDrop<'a> {
    queue: &'a Queue,
}

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.queue.budget.close();
        let mut state = self.queue.state.lock();
        state.stage = Stage::Over;
        state.jobs.clear();
    }
}

/// Chunks that are written together, with the room in the queue that they take.
#[derive(Default)]
struct Batch {
    chunks: Vec<Bytes>,
    permits: Vec<Admission>,
    bytes: usize,
}

impl Batch {
    fn take(
        &mut self,
        chunk: Bytes,
        permit: Admission,
        disk_end: &mut DiskEnd,
    ) -> Result<(), WriteError> {
        self.bytes = self.bytes.saturating_add(chunk.len());
        self.chunks.push(chunk);
        self.permits.push(permit);
        if self.bytes >= BATCH_BYTES { self.flush(disk_end) } else { Ok(()) }
    }

    fn flush(&mut self, disk_end: &mut DiskEnd) -> Result<(), WriteError> {
        let chunks = std::mem::take(&mut self.chunks);
        self.bytes = 0;
        let written = if chunks.is_empty() { Ok(()) } else { disk_end.absorb(&chunks) };
        self.permits.clear();
        written
    }
}
