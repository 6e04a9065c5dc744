//! Removing objects on a thread of its own, so that a disk that hangs on one delays no other.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::Candidate;
use super::sweep::evict;
use crate::disk::DiskError;
use crate::inner::Shared;

/// How long one removal is waited for. It goes on all the same.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many removals may hang before no other is tried.
const MOST_HANGING: usize = 8;

struct Job {
    shared: Arc<Shared>,
    work: Work,
    answer: Sender<Outcome>,
}

type Work = Box<dyn FnOnce(&Shared) -> Outcome + Send>;

type Outcome = Result<bool, DiskError>;

/// The thread that removes, and those that hang.
#[derive(Debug, Default)]
pub(super) struct Remover {
    jobs: Option<Sender<Job>>,
    /// Every such thread has one.
    threads: Arc<()>,
}

/// A removal was not tried: too many hang.
pub(super) struct Hanging;

impl Remover {
    /// [Evicts](evict) `candidate`. `Ok(false)` also when that takes too long. Blocks.
    pub(super) fn evict(
        &mut self,
        shared: &Arc<Shared>,
        candidate: Candidate,
    ) -> Result<Outcome, Hanging> {
        let path = shared.tree.blob(&candidate.digest);
        self.run(shared, &path, move |shared| evict(shared, &candidate))
    }

    /// Does `work`, which removes what is at `path`. `Ok(false)` also when that takes too long. Blocks.
    pub(super) fn run(
        &mut self,
        shared: &Arc<Shared>,
        path: &Path,
        work: impl FnOnce(&Shared) -> Outcome + Send + 'static,
    ) -> Result<Outcome, Hanging> {
        let (answer, answered) = channel();
        self.hand(Job { shared: Arc::clone(shared), work: Box::new(work), answer })?;
        match answered.recv_timeout(PATIENCE) {
            Ok(outcome) => Ok(outcome),
            Err(RecvTimeoutError::Timeout) => {
                // The thread is left to what it hangs in, and ends after that.
                self.jobs = None;
                tracing::warn!(path = %path.display(), "removing a file takes too long");
                Ok(Ok(false))
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.jobs = None;
                Ok(Ok(false))
            }
        }
    }

    fn hand(&mut self, job: Job) -> Result<(), Hanging> {
        if self.jobs.is_none() {
            self.jobs = Some(self.start()?);
        }
        let handed = self.jobs.as_ref().map(|jobs| jobs.send(job));
        if matches!(handed, Some(Ok(()))) { Ok(()) } else { Err(Hanging) }
    }

    fn start(&self) -> Result<Sender<Job>, Hanging> {
        if Arc::strong_count(&self.threads) > MOST_HANGING {
            return Err(Hanging);
        }
        let (jobs, handed) = channel();
        let one = Arc::clone(&self.threads);
        let work = move || {
            work(&handed);
            drop(one);
        };
        let started = std::thread::Builder::new().name("removal".to_owned()).spawn(work);
        started.map(|_detached| jobs).map_err(|_error| Hanging)
    }
}

/// Removes what comes; ends when the remover is gone or has left it.
fn work(jobs: &Receiver<Job>) {
    for Job { shared, work, answer } in jobs {
        let outcome = work(&shared);
        // Before the answer: who has it may look whether the store is free.
        drop(shared);
        let _ = answer.send(outcome);
    }
}
