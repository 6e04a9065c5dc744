//! Waking the thread that holds the bounds, and hearing from it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// Wakes the thread; wakes that come while it works are one wake.
#[derive(Debug, Default)]
pub(super) struct Wake {
    state: Mutex<WakeState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WakeState {
    woken: bool,
    /// Who wants to know when the next sweep is over.
    asked: Vec<oneshot::Sender<()>>,
    closed: bool,
    running: bool,
}

/// Says, when dropped, that the thread has ended.
pub(super) struct ThreadEnd(Arc<Wake>);

impl Wake {
    /// A thread is about to run: it is waited for until what is returned is dropped.
    pub(super) fn thread(self: &Arc<Self>) -> ThreadEnd {
        self.state.lock().running = true;
        ThreadEnd(Arc::clone(self))
    }

    /// Something has changed: the thread looks soon. Cheap.
    pub(super) fn wake(&self) {
        self.state.lock().woken = true;
        self.changed.notify_all();
    }

    /// Resolves when a sweep that began after this call is over, or there is none.
    pub(super) fn ask(&self) -> oneshot::Receiver<()> {
        let (over, told) = oneshot::channel();
        let mut state = self.state.lock();
        if state.running && !state.closed {
            state.asked.push(over);
            self.changed.notify_all();
        }
        told
    }

    /// Waits to be woken, `patience` at most. Those who asked for the sweep that comes now, or
    /// `None` when there is to be none any more.
    pub(super) fn wait(&self, patience: Duration) -> Option<Vec<oneshot::Sender<()>>> {
        let is_quiet =
            |state: &mut WakeState| !state.woken && state.asked.is_empty() && !state.closed;
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, is_quiet, patience);
        state.woken = false;
        if state.closed { None } else { Some(std::mem::take(&mut state.asked)) }
    }

    /// Tells the thread to end.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits until the thread has ended, `patience` at most.
    pub(super) fn join(&self, patience: Duration) {
        let is_running = |state: &mut WakeState| state.running;
        self.changed.wait_while_for(&mut self.state.lock(), is_running, patience);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }
}

impl Drop for ThreadEnd {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.running = false;
        state.asked.clear();
        drop(state);
        self.0.changed.notify_all();
    }
}
