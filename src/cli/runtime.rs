//! The runtime that the work of a subcommand is done on.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// How long what was interrupted may take to clean up.
const LINGER: Duration = Duration::from_secs(1);

/// What is said of images that were on their way between the store and an archive.
pub(super) const INTERRUPTED: &str = "interrupted: nothing half-done is visible, and what has come \
                                      is used when it is done again";

/// A runtime of its own.
pub(super) fn start() -> io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build()
}

/// Does `work` to its end.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    start()?.block_on(work)
}

/// Does `work` to its end, unless somebody interrupts it: then there is no result.
pub(super) fn until_interrupted<T>(
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    let runtime = start()?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = work => done.map(Some),
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted.map(|()| None)?),
        }
    });
    // A thread that reads or writes somewhere slow is waited for no longer.
    runtime.shutdown_timeout(LINGER);
    done
}
