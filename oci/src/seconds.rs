//! Points in time as records and documents have them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point in time, to the second: whole seconds since 1970 (Unix time), never before.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    /// Now, by the wall clock.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// So long ago, by the wall clock.
    #[must_use]
    pub fn ago(age: Duration) -> Self {
        Self(Self::now().0.saturating_sub(age.as_secs()))
    }

    /// This time on the system's clock; `None` where that can't count so far.
    #[must_use]
    pub fn time(self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.0))
    }

    /// How long ago that was; `None` if it lies in the future, or further back than can be counted.
    #[must_use]
    pub fn age(self) -> Option<Duration> {
        self.time()?.elapsed().ok()
    }
}

impl From<SystemTime> for UnixSeconds {
    /// A time before 1970 counts as 1970.
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_to_the_second() {
        let later = UNIX_EPOCH + Duration::from_millis(1_760_000_000_900);
        assert_eq!(UnixSeconds::from(later), UnixSeconds(1_760_000_000));
        assert_eq!(UnixSeconds(5).time(), Some(UNIX_EPOCH + Duration::from_secs(5)));
        assert_eq!(UnixSeconds::from(UNIX_EPOCH - Duration::from_secs(1)), UnixSeconds(0));
        assert!(UnixSeconds::now().age().unwrap() < Duration::from_mins(1));
        assert_eq!(UnixSeconds(UnixSeconds::now().0 + 1000).age(), None);
        assert_eq!(UnixSeconds(u64::MAX).time(), None);
    }
}
