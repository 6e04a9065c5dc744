//! Moving file work off the async threads.

use std::io;

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
