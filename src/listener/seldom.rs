//! Lines of the log that strangers could write by the thousand.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How often such a line is written at most.
const PAUSE: Duration = Duration::from_secs(10);

/// When something was last said, and how often it has happened since.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// Whether it is to be said now: then how often it has happened unsaid before.
    pub(crate) fn happens(&self) -> Option<u64> {
        let (said, unsaid) = &mut *self.0.lock();
        if said.is_some_and(|said| said.elapsed() < PAUSE) {
            *unsaid = unsaid.saturating_add(1);
            return None;
        }
        *said = Some(Instant::now());
        Some(std::mem::take(unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_happens_often_is_said_now_and_then() {
        let seldom = Seldom::default();
        assert_eq!(seldom.happens(), Some(0));
        assert_eq!((seldom.happens(), seldom.happens()), (None, None));
        tokio::time::advance(PAUSE).await;
        assert_eq!(seldom.happens(), Some(2));
        assert_eq!(seldom.happens(), None);
    }
}
