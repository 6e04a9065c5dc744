//! The queue between a download's async end and its disk end.
//!
//! It is bounded in bytes. There is no thread waiting for a slow upstream: the pen rests in the
//! queue, and the first order that finds it resting sends it to the blocking pool, where it works
//! until the queue is empty. A fast upstream thus meets one long-lived task and large batches, a
//! slow one a short task a chunk.

use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::disk::DiskError;
use crate::download::disk_end::{End, Pen};
use crate::{FinishError, WriteError};

/// How many bytes may wait between the upstream and the disk, a download.
const QUEUE_BYTES: u32 = 2 * 1024 * 1024;
/// What a chunk costs at least: tiny ones must not pile up by the million.
const LEAST_COST: u32 = 512;
/// How many bytes are hashed and written before readers are told.
const BATCH_BYTES: usize = 512 * 1024;

pub(crate) type Verdict = oneshot::Sender<Result<Box<Pen>, FinishError>>;

/// Something for the pen to do; orders are carried out one after the other.
#[derive(Debug)]
pub(crate) enum Order {
    Chunk(Bytes, OwnedSemaphorePermit),
    Verify(Verdict),
    Abandon,
}

/// The queue of one download.
#[derive(Debug)]
pub(crate) struct Feed {
    state: Mutex<State>,
    budget: Arc<Semaphore>,
    failure: OnceLock<WriteError>,
    end: End,
}

#[derive(Debug)]
struct State {
    orders: Vec<Order>,
    desk: Desk,
}

#[derive(Debug)]
enum Desk {
    Resting(Box<Pen>),
    Working,
    /// The download has ended, one way or another.
    Over,
}

impl Feed {
    pub(crate) fn new(pen: Pen) -> Arc<Self> {
        let end = pen.end();
        let state = State { orders: Vec::new(), desk: Desk::Resting(Box::new(pen)) };
        Arc::new(Self {
            state: Mutex::new(state),
            budget: Arc::new(Semaphore::new(QUEUE_BYTES as usize)),
            failure: OnceLock::new(),
            end,
        })
    }

    /// Waits until `len` more bytes may be queued. Cancel safe.
    pub(crate) async fn admit(&self, len: usize) -> Result<OwnedSemaphorePermit, WriteError> {
        let cost = u32::try_from(len).unwrap_or(u32::MAX).clamp(LEAST_COST, QUEUE_BYTES);
        let admitted = Arc::clone(&self.budget).acquire_many_owned(cost).await;
        admitted.map_err(|_closed| self.failure())
    }

    /// Why the download has ended without being finished.
    pub(crate) fn failure(&self) -> WriteError {
        let unknown = || WriteError::Store(stopped());
        self.failure.get().cloned().unwrap_or_else(unknown)
    }

    /// Ends the download without success. Who asks from now on waits for the next one's turn.
    pub(crate) fn abandon(self: &Arc<Self>) {
        self.end.hold();
        self.push(Order::Abandon);
    }

    /// Queues `order`; without effect once the download has ended. Does not block.
    pub(crate) fn push(self: &Arc<Self>, order: Order) {
        let mut state = self.state.lock();
        match std::mem::replace(&mut state.desk, Desk::Working) {
            Desk::Over => state.desk = Desk::Over,
            Desk::Working => state.orders.push(order),
            Desk::Resting(pen) => {
                state.orders.push(order);
                drop(state);
                let feed = Arc::clone(self);
                off_thread(move || feed.work(pen));
            }
        }
    }

    /// Carries out orders until there are none. A panic on the way ends the download.
    fn work(self: Arc<Self>, mut pen: Box<Pen>) {
        let shift = Shift { feed: &self };
        loop {
            let Some((at_work, orders)) = self.next_orders(pen) else {
                std::mem::forget(shift);
                return;
            };
            match self.carry_out(at_work, orders) {
                Some(at_work) => pen = at_work,
                None => return,
            }
        }
    }

    /// The orders that have come, or none: then the pen rests.
    fn next_orders(&self, pen: Box<Pen>) -> Option<(Box<Pen>, Vec<Order>)> {
        let mut state = self.state.lock();
        if state.orders.is_empty() {
            state.desk = Desk::Resting(pen);
            return None;
        }
        Some((pen, std::mem::take(&mut state.orders)))
    }

    /// The pen again, or nothing when the download has ended.
    fn carry_out(&self, pen: Box<Pen>, orders: Vec<Order>) -> Option<Box<Pen>> {
        let mut orders = orders.into_iter();
        let served = serve(pen, &mut orders);
        served.unwrap_or_else(|error| {
            // Before the orders behind are dropped: a verification among them asks for the reason.
            let _ = self.failure.set(error);
            None
        })
    }
}

/// Runs `work`, which blocks, on the blocking pool; outside a runtime (a writer dropped late) here
/// and now.
pub(crate) fn off_thread(work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_none) => work(),
    }
}

fn serve(
    mut pen: Box<Pen>,
    orders: &mut std::vec::IntoIter<Order>,
) -> Result<Option<Box<Pen>>, WriteError> {
    let mut batch = Batch::default();
    for order in orders {
        match order {
            Order::Chunk(chunk, permit) => batch.take(chunk, permit, &mut pen)?,
            Order::Verify(verdict) => {
                let flushed = batch.flush(&mut pen).map_err(FinishError::from);
                // Nobody waits for it any more: then it is given up.
                let _ = verdict.send(flushed.and_then(|()| pen.verify()).map(|()| pen));
                return Ok(None);
            }
            Order::Abandon => {
                // What can't be written is removed, and the readers know why.
                if batch.flush(&mut pen).is_ok() {
                    pen.abandon();
                }
                return Ok(None);
            }
        }
    }
    batch.flush(&mut pen).map(|()| Some(pen))
}

/// Ends the download when dropped: no order will be carried out any more.
struct Shift<'a> {
    feed: &'a Feed,
}

impl Drop for Shift<'_> {
    fn drop(&mut self) {
        self.feed.budget.close();
        let mut state = self.feed.state.lock();
        state.desk = Desk::Over;
        state.orders.clear();
    }
}

/// Chunks that are written together, with the room in the queue that they take.
#[derive(Default)]
struct Batch {
    chunks: Vec<Bytes>,
    permits: Vec<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Batch {
    fn take(
        &mut self,
        chunk: Bytes,
        permit: OwnedSemaphorePermit,
        pen: &mut Pen,
    ) -> Result<(), WriteError> {
        self.bytes = self.bytes.saturating_add(chunk.len());
        self.chunks.push(chunk);
        self.permits.push(permit);
        if self.bytes >= BATCH_BYTES { self.flush(pen) } else { Ok(()) }
    }

    fn flush(&mut self, pen: &mut Pen) -> Result<(), WriteError> {
        let chunks = std::mem::take(&mut self.chunks);
        self.bytes = 0;
        let written = if chunks.is_empty() { Ok(()) } else { pen.absorb(&chunks) };
        self.permits.clear();
        written
    }
}

/// What a writer is told when its download ended without a reason: a defect, or a shutdown.
fn stopped() -> DiskError {
    crate::download::reservation::interrupted(std::io::Error::other("the download was stopped"))
}
