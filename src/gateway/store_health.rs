//! A store that can't take downloads for now: a full disk, a failing one.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::metrics::Count;
use crate::words::chain;

/// How long downloads go past a store that has failed one: a disk does not heal within seconds,
/// and one that has is used again without a restart.
const PAUSE: Duration = Duration::from_secs(30);

/// When the store last failed a download; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<Instant>>>, Arc<Count>);

/// Whether the store takes downloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreHealth {
    /// Downloads go past it for now.
    pub is_troubled: bool,
    /// Downloads that it has failed since the start.
    pub failures: u64,
}

impl Trouble {
    /// Notes a failure, with one line in the log for as long as it lasts.
    pub(super) fn note(&self, error: &(dyn std::error::Error + 'static)) {
        self.1.add_one();
        let is_news = !self.is_recent();
        *self.0.lock() = Some(Instant::now());
        if is_news {
            let cause = error.source().map(chain);
            tracing::error!(%error, cause, "the store can't take downloads: they are passed on unkept");
        }
    }

    pub(super) fn health(&self) -> StoreHealth {
        StoreHealth { is_troubled: self.is_recent(), failures: self.1.value() }
    }

    /// Whether downloads go past the store.
    pub(super) fn is_recent(&self) -> bool {
        let failed = *self.0.lock();
        failed.is_some_and(|failed| failed.elapsed() < PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_is_tried_again_after_a_while() {
        let trouble = Trouble::default();
        assert!(!trouble.is_recent());
        trouble.note(&std::io::Error::other("full"));
        assert_eq!(trouble.health(), StoreHealth { is_troubled: true, failures: 1 });
        tokio::time::advance(PAUSE).await;
        assert!(!trouble.is_recent());
    }
}
