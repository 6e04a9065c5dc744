//! How long requests take, without a lock.

use std::time::Duration;

use super::Count;

/// Upper bounds in microseconds: a hit on a manifest takes a millisecond, a large layer from far
/// away minutes.
const BOUNDS_MICROS: [u64; 14] = [
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    5_000_000,
    15_000_000,
    60_000_000,
    300_000_000,
];

/// Counts by duration.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// One for each bound, and one for what is beyond all.
    counts: [Count; BOUNDS_MICROS.len() + 1],
    sum_micros: Count,
}

impl Histogram {
    pub(super) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get(bucket) {
            count.add_one();
        }
        self.sum_micros.add(micros);
    }

    /// How many there are of each upper bound in seconds, not of those below it as well.
    #[expect(clippy::cast_precision_loss, reason = "bounds are small numbers")]
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS_MICROS.iter().map(|micros| *micros as f64 / 1e6);
        bounds.chain([f64::INFINITY]).zip(self.counts.iter().map(Count::value)).collect()
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
        let histogram = Histogram::default();
        for micros in [0, 500, 501, 300_000_000, 300_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let counted: Vec<_> = histogram.buckets().into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [(0.0005, 2), (0.001, 1), (300.0, 1), (f64::INFINITY, 1)]);
        assert!((histogram.sum_secs() - 600.001_002).abs() < 1e-9);
    }
}
