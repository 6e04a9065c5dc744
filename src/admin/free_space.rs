//! What is left of the store's disk, as of a moment ago.
//!
//! Asking a file system that hangs takes for ever: one task asks, and everybody else is told what
//! it heard last.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(10);
/// Not known.
const UNKNOWN: u64 = u64::MAX;

/// Bytes that are free; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct FreeSpace(Arc<AtomicU64>);

impl Default for FreeSpace {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(UNKNOWN)))
    }
}

impl FreeSpace {
    /// Bytes that others than root may still write; none while that is not known.
    #[must_use]
    pub(crate) fn bytes(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|bytes| *bytes != UNKNOWN)
    }

    /// Asks the file system of `directory` again and again, until the shutdown.
    pub(crate) async fn watch(self, directory: PathBuf, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let directory = directory.clone();
            let asked = tokio::task::spawn_blocking(move || {
                let system = rustix::fs::statvfs(&directory).ok()?;
                Some(system.f_bavail.saturating_mul(system.f_frsize))
            });
            // One that hangs is left alone, and nobody is asked in its place.
            let Some(answer) = shutdown.run_until_cancelled(asked).await else { return };
            self.0.store(answer.ok().flatten().unwrap_or(UNKNOWN), Ordering::Relaxed);
        }
    }
}
