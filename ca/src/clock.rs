//! The clock: the system's, or one that tests move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// Where the authority reads the time from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's wall clock.
    #[default]
    System,
    /// A clock that stands still until it is moved; for tests.
    Manual(ManualClock),
}

impl Clock {
    /// The time now, in whole seconds: certificates know no smaller unit (RFC 5280 §4.1.2.5).
    pub(crate) fn now(&self) -> OffsetDateTime {
        let now = match self {
            Self::System => SystemTime::now(),
            Self::Manual(clock) => clock.now(),
        };
        whole_seconds(now)
    }
}

/// A clock that stands still until it is moved. Clones share the time.
#[derive(Clone, Debug)]
pub struct ManualClock {
    unix_secs: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that shows `now`, cut to whole seconds. Times before 1970 are taken for 1970.
    #[must_use]
    pub fn new(now: SystemTime) -> Self {
        let unix_secs = Arc::new(AtomicU64::new(unix_secs(now)));
        Self { unix_secs }
    }

    /// The time that the clock shows.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.unix_secs.load(Ordering::SeqCst))
    }

    /// Sets the clock, forwards or back.
    pub fn set(&self, now: SystemTime) {
        self.unix_secs.store(unix_secs(now), Ordering::SeqCst);
    }

    /// Moves the clock forward, by whole seconds.
    pub fn advance(&self, by: Duration) {
        self.unix_secs.fetch_add(by.as_secs(), Ordering::SeqCst);
    }
}

fn unix_secs(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A system time without its fraction. One that certificates can't express (after 9999) becomes
/// 1970, which nothing trusts.
fn whole_seconds(time: SystemTime) -> OffsetDateTime {
    i64::try_from(unix_secs(time))
        .ok()
        .and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_when_told() {
        let start = UNIX_EPOCH + Duration::from_millis(1_700_000_000_900);
        let manual = ManualClock::new(start);
        let clock = Clock::Manual(manual.clone());
        assert_eq!(clock.now().unix_timestamp(), 1_700_000_000);
        manual.advance(Duration::from_mins(1));
        assert_eq!(clock.now().unix_timestamp(), 1_700_000_060);
        manual.set(UNIX_EPOCH);
        assert_eq!(clock.now(), OffsetDateTime::UNIX_EPOCH);
    }
}
