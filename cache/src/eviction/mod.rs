//! What goes when a bound is reached, and what never does.
//!
//! The bounds: how much is kept, how much stays free, how long without use. One thread holds them, woken by what is published and now and then by itself; no request waits for
//! it. What it must never do: take a pinned object, believe an index that is not complete yet, or
//! hurt a reader (an object that is being read is taken last, and is read to its end all the same).
//!
//! | file | subject |
//! |---|---|
//! | `sweep` | the thread: measure, choose, remove |
//! | `groups` | what leaves together: least recently used images and objects |
//! | `partials` | what broken downloads have left |
//! | `remover` | removing without being held up by a disk that hangs |
//! | `clock` | telling time that passed from a clock that was set |
//! | `withdrawal` | taking documents out with what nothing else needs |
//! | `pins` | what is never evicted |

mod clock;
mod groups;
mod partials;
pub(crate) mod pins;
mod remover;
mod sweep;
pub(crate) mod withdrawal;

use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::Options;
use crate::inner::Shared;
pub(crate) use groups::{Candidate, Node, documents_first};
use sweep::Sweeper;

/// How long closing waits for a sweep to stop; it looks after every object.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    max_size: Option<u64>,
    min_free: Option<u64>,
    max_idle: Option<Duration>,
}

impl Bounds {
    pub(crate) const fn of(options: &Options) -> Self {
        let Options { max_size, min_free, max_idle, .. } = options;
        Self { max_size: *max_size, min_free: *min_free, max_idle: *max_idle }
    }
}

/// The way to the thread that holds the bounds. Dropping it tells the thread to end.
#[derive(Debug)]
pub(crate) struct Keeper {
    bounds: Bounds,
    bell: Arc<Bell>,
}

/// Wakes the thread; wakes that come while it works are one wake.
#[derive(Debug, Default)]
struct Bell {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rung: bool,
    /// Who wants to know when the next sweep is over.
    asked: Vec<oneshot::Sender<()>>,
    closed: bool,
    running: bool,
}

impl Keeper {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, bell: Arc::default() }
    }

    /// Starts the thread, if there is anything to hold.
    pub(crate) fn start(&self, shared: &Arc<Shared>) {
        if self.bounds == Bounds::default() {
            return;
        }
        self.bell.state.lock().running = true;
        let (store, bell) = (Arc::downgrade(shared), Arc::clone(&self.bell));
        let sweeper = Sweeper::new(self.bounds, Arc::clone(&self.bell));
        let work = move || {
            let _running = Running(bell);
            sweeper.run(&store);
        };
        if let Err(error) = std::thread::Builder::new().name("eviction".to_owned()).spawn(work) {
            self.bell.state.lock().running = false;
            tracing::error!(%error, "the cache's bounds are not held: no thread for it");
        }
    }

    /// Something has changed: look soon. Cheap.
    pub(crate) fn wake(&self) {
        self.bell.state.lock().rung = true;
        self.bell.changed.notify_all();
    }

    /// Resolves when a sweep that began after this call is over, or there is none.
    pub(crate) fn ask(&self) -> oneshot::Receiver<()> {
        let (over, told) = oneshot::channel();
        let mut state = self.bell.state.lock();
        if state.running && !state.closed {
            state.asked.push(over);
            self.bell.changed.notify_all();
        }
        told
    }

    /// Whether an object of `size` bytes fits into the store at all.
    pub(crate) fn fits(&self, size: u64) -> bool {
        self.bounds.max_size.is_none_or(|max| size <= max)
    }

    /// Ends the thread and waits for it, but not for ever. Blocks.
    pub(crate) fn close(&self) {
        let mut state = self.bell.state.lock();
        state.closed = true;
        self.bell.changed.notify_all();
        let running = |state: &mut State| state.running;
        self.bell.changed.wait_while_for(&mut state, running, PATIENCE);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.bell.state.lock().closed = true;
        self.bell.changed.notify_all();
    }
}

impl Bell {
    /// Waits to be rung, `patience` at most. Those who asked for the sweep that comes now, or
    /// `None` when there is to be none any more.
    fn wait(&self, patience: Duration) -> Option<Vec<oneshot::Sender<()>>> {
        let quiet = |state: &mut State| !state.rung && state.asked.is_empty() && !state.closed;
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, quiet, patience);
        state.rung = false;
        if state.closed { None } else { Some(std::mem::take(&mut state.asked)) }
    }

    fn is_closed(&self) -> bool {
        self.state.lock().closed
    }
}

/// Says, when dropped, that the thread has ended.
struct Running(Arc<Bell>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.running = false;
        state.asked.clear();
        drop(state);
        self.0.changed.notify_all();
    }
}
