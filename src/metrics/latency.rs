//! How long registries take to begin with an answer: counted for good, and the last ones by
//! themselves, so that what was slow yesterday is not slow for ever.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Count;
use super::histogram::{FIRST_BYTE, Histogram};

/// How many of the last are looked at.
const LAST: usize = 128;
/// What a place has that holds nothing yet.
const NOTHING: u32 = u32::MAX;

/// Durations of one kind.
#[derive(Debug)]
pub(super) struct Latency {
    all: Histogram,
    /// The last, in milliseconds, in a ring.
    last: [AtomicU32; LAST],
    next: Count,
}

impl Default for Latency {
    fn default() -> Self {
        let last = std::array::from_fn(|_| AtomicU32::new(NOTHING));
        Self { all: Histogram::new(FIRST_BYTE), last, next: Count::default() }
    }
}

impl Latency {
    pub(super) fn note(&self, duration: Duration) {
        self.all.observe(duration);
        let place = usize::try_from(self.next.value()).unwrap_or_default() % LAST;
        self.next.add_one();
        let millis = u32::try_from(duration.as_millis()).unwrap_or(NOTHING - 1);
        if let Some(last) = self.last.get(place) {
            last.store(millis.min(NOTHING - 1), Ordering::Relaxed);
        }
    }

    pub(super) fn all(&self) -> &Histogram {
        &self.all
    }

    /// The median and the 95th percentile of the last ones of all these.
    pub(super) fn of_all(kinds: &[Self]) -> Option<(Duration, Duration)> {
        let last = kinds.iter().flat_map(|kind| &kind.last).map(|one| one.load(Ordering::Relaxed));
        let mut last: Vec<_> = last.filter(|millis| *millis != NOTHING).collect();
        last.sort_unstable();
        let at = |percent: usize| {
            let place = (last.len() * percent).div_ceil(100).saturating_sub(1);
            last.get(place).map(|millis| Duration::from_millis((*millis).into()))
        };
        Some((at(50)?, at(95)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_slow_long_ago_is_forgotten() {
        let latency = [Latency::default(), Latency::default()];
        assert_eq!(Latency::of_all(&latency), None);
        latency[0].note(Duration::from_secs(70));
        let told = Latency::of_all(&latency).unwrap();
        assert_eq!(told, (Duration::from_secs(70), Duration::from_secs(70)));
        (1..=100).for_each(|millis| latency[1].note(Duration::from_millis(millis)));
        let (half, most) = Latency::of_all(&latency).unwrap();
        assert_eq!((half.as_millis(), most.as_millis()), (51, 96));
        (0..LAST).for_each(|_| latency[0].note(Duration::from_millis(5)));
        let (_, most) = Latency::of_all(&latency).unwrap();
        assert!(most <= Duration::from_millis(100), "{most:?}");
    }
}
