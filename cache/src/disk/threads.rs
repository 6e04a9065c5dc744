//! The threads that wait for the disk: how blocking work reaches them, and how many one file takes.
//!
//! tokio's pool has 512 threads for everything: a disk that hangs on one file must not take them
//! all. A request for a file that has all its threads waits here, without a thread, until one of
//! them is done.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::DiskError;

/// How many threads one file may take. More would not make it faster: what they wait for is one
/// device, and what is in the page cache needs none of them.
const PER_FILE: usize = 8;

/// Runs `work` on tokio's blocking pool and waits for it.
///
/// Fails only when `work` panicked or the runtime is shutting down. Dropping the returned future
/// does not stop `work` once it has begun.
pub(crate) async fn run<T, F>(work: F) -> Result<T, DiskError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| DiskError::cut_short(io::Error::other(error)))
}

/// Runs `work`, which blocks, on the blocking pool without waiting for it; outside a runtime here
/// and now.
pub(crate) fn detach(work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_none) => work(),
    }
}

/// The permits of one file to take a thread. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Permits(Arc<Semaphore>);

/// The right to take a thread for a file, to be kept until the thread is done: it goes with the
/// work, not with who waits for it, for a thread that hangs goes on hanging.
#[derive(Debug)]
pub(crate) struct FilePermit {
    _permit: OwnedSemaphorePermit,
}

impl Default for Permits {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PER_FILE)))
    }
}

impl Permits {
    /// A permit, if there is one just now.
    pub(crate) fn try_take(&self) -> Option<FilePermit> {
        let taken = Arc::clone(&self.0).try_acquire_owned();
        taken.ok().map(|permit| FilePermit { _permit: permit })
    }

    /// Waits for a permit. Cancel safe.
    pub(crate) async fn take(&self) -> Result<FilePermit, DiskError> {
        let taken = Arc::clone(&self.0).acquire_owned().await;
        taken
            .map(|permit| FilePermit { _permit: permit })
            .map_err(|closed| DiskError::cut_short(io::Error::other(closed)))
    }
}

/// The permits of every file, by its name, on which blocking work is being done.
#[derive(Debug, Default)]
pub(crate) struct FilePermits {
    table: Mutex<HashMap<PathBuf, PathPermits>>,
}

#[derive(Debug, Default)]
struct PathPermits {
    permits: Permits,
    users: usize,
}

/// One that works on a name, or waits to. Dropping the last of a name forgets the name.
struct PathUser {
    all: Arc<FilePermits>,
    path: PathBuf,
}

impl FilePermits {
    /// Runs `work`, which is about `path`, on the blocking pool; see [`run`].
    pub(crate) async fn run<T, F>(self: &Arc<Self>, path: &Path, work: F) -> Result<T, DiskError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (user, permits) = self.enter(path);
        let permit = permits.take().await?;
        let work = move || {
            let done = work();
            drop(permit);
            drop(user);
            done
        };
        run(work).await
    }

    fn enter(self: &Arc<Self>, path: &Path) -> (PathUser, Permits) {
        let mut table = self.table.lock();
        let of_path = table.entry(path.to_owned()).or_default();
        of_path.users = of_path.users.saturating_add(1);
        (PathUser { all: Arc::clone(self), path: path.to_owned() }, of_path.permits.clone())
    }
}

impl Drop for PathUser {
    fn drop(&mut self) {
        let mut table = self.all.table.lock();
        if let Some(of_path) = table.get_mut(&self.path) {
            of_path.users = of_path.users.saturating_sub(1);
            if of_path.users == 0 {
                table.remove(&self.path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier};

    use super::{FilePermits, PER_FILE, run};

    #[tokio::test]
    async fn work_that_is_cut_short_is_no_file_call_that_failed() {
        let error = run::<(), _>(|| panic!("a defect")).await.unwrap_err();
        assert_eq!(error.to_string(), "the work on the disk was cut short");
        assert!(error.source().unwrap().to_string().contains("panicked"), "{error:?}");
        assert!(!error.is_not_found() && !error.is_no_space());
    }

    #[tokio::test]
    async fn a_name_takes_so_many_threads_and_is_forgotten() {
        let permits = Arc::new(FilePermits::default());
        let started = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Barrier::new(PER_FILE + 1));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..PER_FILE * 2 {
            let (permits, started, gate) =
                (Arc::clone(&permits), Arc::clone(&started), Arc::clone(&gate));
            let work = move || {
                started.fetch_add(1, Ordering::SeqCst);
                gate.wait();
            };
            tasks.spawn(async move { permits.run(Path::new("a"), work).await });
        }
        for round in 1..=2 {
            while started.load(Ordering::SeqCst) < round * PER_FILE {
                tokio::task::yield_now().await;
            }
            assert_eq!(permits.run(Path::new("b"), || 7).await.unwrap(), 7);
            assert_eq!(started.load(Ordering::SeqCst), round * PER_FILE);
            let gate = Arc::clone(&gate);
            tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
        }
        while tasks.join_next().await.is_some() {}
        assert!(permits.table.lock().is_empty());
        drop(permits.run(Path::new("a"), || ()));
        assert!(permits.table.lock().is_empty());
    }
}
