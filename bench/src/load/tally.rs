//! What came of a job.

use std::time::Duration;

/// Counts and times.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    /// Of bodies.
    pub(crate) bytes: u64,
    /// From the request (with a fresh connection: from its SYN) to the body's first byte.
    pub(crate) first_bytes: Times,
    /// The same, to its last.
    pub(crate) latencies: Times,
    pub(crate) errors: Vec<String>,
    pub(crate) elapsed: Duration,
}

impl Tally {
    pub(super) fn answered(&mut self, bytes: u64, first_byte: Duration, latency: Duration) {
        self.requests += 1;
        self.bytes += bytes;
        self.first_bytes.0.push(first_byte);
        self.latencies.0.push(latency);
    }

    pub(super) fn add(&mut self, part: Self) {
        self.requests += part.requests;
        self.bytes += part.bytes;
        self.first_bytes.0.extend(part.first_bytes.0);
        self.latencies.0.extend(part.latencies.0);
        self.errors.extend(part.errors);
    }
}

/// Durations of which percentiles are wanted.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// The time in milliseconds that so many of a thousand do not exceed; nothing without any.
    pub(crate) fn per_mille(&self, share: usize) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * share).div_ceil(1000).saturating_sub(1);
        sorted.get(rank).map(|time| time.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Times};

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times = Times((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!(times.per_mille(500), Some(50.0));
        assert_eq!(times.per_mille(990), Some(99.0));
        assert_eq!(times.per_mille(1000), Some(100.0));
        assert_eq!(Times::default().per_mille(500), None);
    }
}
