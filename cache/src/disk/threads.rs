//! How many blocking threads one file may take: a disk that hangs on it must not take them all.
//!
//! tokio's pool has 512 threads for everything. Who asks for a file that many others ask for waits
//! here, without a thread, until one of them is done.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;

/// How many threads one file may take. More would not make it faster: what they wait for is one
/// device, and what is in the page cache needs none of them.
pub(crate) const WIDTH: usize = 8;

/// The names that blocking work is being done on.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    table: Mutex<HashMap<PathBuf, Lane>>,
}

#[derive(Debug)]
struct Lane {
    turns: Arc<Semaphore>,
    guests: usize,
}

/// Somebody who works on a name, or waits to. Dropping it forgets a name that is nobody's any more.
struct Guest {
    lanes: Arc<Lanes>,
    path: PathBuf,
}

impl Lanes {
    /// Runs `work`, which is about `path`, on the blocking pool; see [`run`].
    pub(crate) async fn run<T, F>(self: &Arc<Self>, path: &Path, work: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (guest, turns) = self.enter(path);
        let turn = turns.acquire_owned().await.map_err(io::Error::other)?;
        // Both go with the work, not with the future: a thread that hangs goes on hanging.
        let work = move || {
            let done = work();
            drop(turn);
            drop(guest);
            done
        };
        run(work).await
    }

    fn enter(self: &Arc<Self>, path: &Path) -> (Guest, Arc<Semaphore>) {
        let mut table = self.table.lock();
        let new = || Lane { turns: Arc::new(Semaphore::new(WIDTH)), guests: 0 };
        let lane = table.entry(path.to_owned()).or_insert_with(new);
        lane.guests = lane.guests.saturating_add(1);
        (Guest { lanes: Arc::clone(self), path: path.to_owned() }, Arc::clone(&lane.turns))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut table = self.lanes.table.lock();
        if let Some(lane) = table.get_mut(&self.path) {
            lane.guests = lane.guests.saturating_sub(1);
            if lane.guests == 0 {
                table.remove(&self.path);
            }
        }
    }
}

/// Runs `work` on tokio's blocking pool and waits for it.
///
/// Fails only when `work` panicked or the runtime is shutting down. Dropping the returned future
/// does not stop `work` once it has begun.
pub(crate) async fn run<T, F>(work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier};

    use super::{Lanes, WIDTH};

    #[tokio::test]
    async fn a_name_takes_so_many_threads_and_is_forgotten() {
        let lanes = Arc::new(Lanes::default());
        let (started, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(WIDTH + 1)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..WIDTH * 2 {
            let (lanes, started, gate) =
                (Arc::clone(&lanes), Arc::clone(&started), Arc::clone(&gate));
            let work = move || {
                started.fetch_add(1, Ordering::SeqCst);
                gate.wait();
            };
            tasks.spawn(async move { lanes.run(Path::new("a"), work).await });
        }
        for round in 1..=2 {
            while started.load(Ordering::SeqCst) < round * WIDTH {
                tokio::task::yield_now().await;
            }
            assert_eq!(lanes.run(Path::new("b"), || 7).await.unwrap(), 7);
            assert_eq!(started.load(Ordering::SeqCst), round * WIDTH);
            let gate = Arc::clone(&gate);
            tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
        }
        while tasks.join_next().await.is_some() {}
        assert!(lanes.table.lock().is_empty());
        drop(lanes.run(Path::new("a"), || ()));
        assert!(lanes.table.lock().is_empty());
    }
}
