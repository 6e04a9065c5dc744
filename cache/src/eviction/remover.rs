//! Removing objects on a thread of its own, so that a disk that hangs on one delays no other.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::stock::Stock;
use crate::disk::DiskError;
use crate::index::TakenOut;
use crate::index::node::Candidate;

/// How long one removal is waited for. It goes on all the same.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many removals may hang before no other is tried.
const MOST_HANGING: usize = 8;

struct Removal {
    stock: Arc<Stock>,
    work: Work,
    answer: Sender<RemovalResult>,
}

type Work = Box<dyn FnOnce(&Stock) -> RemovalResult + Send>;

type RemovalResult = Result<bool, DiskError>;

/// The thread that removes, and those that hang.
#[derive(Debug, Default)]
pub(super) struct Remover {
    removals: Option<Sender<Removal>>,
    /// Every such thread has one.
    threads: Arc<()>,
}

/// A removal was not tried: too many hang.
pub(super) struct TooManyHang;

impl Remover {
    /// [Takes out](Stock::take_out) `candidate`. `Ok(false)` also when that takes too long. Blocks.
    pub(super) fn evict(
        &mut self,
        stock: &Arc<Stock>,
        candidate: Candidate,
    ) -> Result<RemovalResult, TooManyHang> {
        let path = stock.kept.tree.blob(&candidate.digest);
        self.run(stock, &path, move |stock| stock.take_out(&candidate, TakenOut::Evicted))
    }

    /// Does `work`, which removes what is at `path`. `Ok(false)` also when that takes too long.
    /// Blocks.
    pub(super) fn run(
        &mut self,
        stock: &Arc<Stock>,
        path: &Path,
        work: impl FnOnce(&Stock) -> RemovalResult + Send + 'static,
    ) -> Result<RemovalResult, TooManyHang> {
        let (answer, answered) = channel();
        self.hand(Removal { stock: Arc::clone(stock), work: Box::new(work), answer })?;
        match answered.recv_timeout(PATIENCE) {
            Ok(outcome) => Ok(outcome),
            Err(RecvTimeoutError::Timeout) => {
                // The thread is left to what it hangs in, and ends after that.
                self.removals = None;
                tracing::warn!(path = %path.display(), "removing a file takes too long");
                Ok(Ok(false))
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.removals = None;
                Ok(Ok(false))
            }
        }
    }

    fn hand(&mut self, removal: Removal) -> Result<(), TooManyHang> {
        if self.removals.is_none() {
            self.removals = Some(self.start()?);
        }
        let handed = self.removals.as_ref().map(|removals| removals.send(removal));
        if matches!(handed, Some(Ok(()))) { Ok(()) } else { Err(TooManyHang) }
    }

    fn start(&self) -> Result<Sender<Removal>, TooManyHang> {
        if Arc::strong_count(&self.threads) > MOST_HANGING {
            return Err(TooManyHang);
        }
        let (removals, handed) = channel();
        let one = Arc::clone(&self.threads);
        let work = move || {
            work(&handed);
            drop(one);
        };
        let started = std::thread::Builder::new().name("removal".to_owned()).spawn(work);
        started.map(|_detached| removals).map_err(|_error| TooManyHang)
    }
}

/// Removes what comes; ends when the remover is gone or has left it.
fn work(removals: &Receiver<Removal>) {
    for Removal { stock, work, answer } in removals {
        let outcome = work(&stock);
        // Before the answer: who has it may look whether the store is free.
        drop(stock);
        let _ = answer.send(outcome);
    }
}
