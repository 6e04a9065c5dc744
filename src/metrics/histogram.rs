//! How long something takes, without a lock.

use std::time::Duration;

use super::Count;

/// Upper bounds of whole requests, in microseconds: a hit on a manifest takes a millisecond, a
/// large layer from far away minutes.
pub(super) const REQUESTS: &[u64] = &[
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
    600_000_000,
];

/// Upper bounds of what registries take to begin with an answer: one nearby takes milliseconds, and
/// after half a minute (`header-timeout`) nobody waits any more.
pub(super) const FIRST_BYTE: &[u64] = &[
    10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
    30_000_000, 60_000_000,
];

/// Counts by duration.
#[derive(Debug)]
pub(super) struct Histogram {
    /// Upper bounds in microseconds.
    bounds: &'static [u64],
    /// One for each bound, and one for what is beyond all.
    counts: Box<[Count]>,
    sum_micros: Count,
}

impl Histogram {
    /// One with these upper bounds in microseconds.
    pub(super) fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| Count::default()).collect();
        Self { bounds, counts, sum_micros: Count::default() }
    }

    pub(super) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get(bucket) {
            count.add_one();
        }
        self.sum_micros.add(micros);
    }

    /// How many there are of each upper bound in seconds, not of those below it as well.
    #[expect(clippy::cast_precision_loss, reason = "bounds are small numbers")]
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().map(|micros| *micros as f64 / 1e6);
        bounds.chain([f64::INFINITY]).zip(self.counts.iter().map(Count::value)).collect()
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| count.value() == 0)
    }

    /// The sum of all durations in seconds.
    #[expect(clippy::cast_precision_loss, reason = "a sum of years is exact to the microsecond")]
    pub(super) fn sum_secs(&self) -> f64 {
        self.sum_micros.value() as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_for_the_least_bound_that_holds_it() {
        let histogram = Histogram::new(REQUESTS);
        assert!(histogram.is_empty());
        for micros in [0, 500, 501, 600_000_000, 600_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let counted: Vec<_> = histogram.buckets().into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [(0.0005, 2), (0.001, 1), (600.0, 1), (f64::INFINITY, 1)]);
        assert!((histogram.sum_secs() - 1_200.001_002).abs() < 1e-9);
        assert!(!histogram.is_empty());
    }
}
