//! Telling time that passed from a clock that was set.
//!
//! A clock that jumps ten years ahead must not make everything look unused for ten years.

use std::time::{Duration, Instant};

/// By how many seconds the clocks may drift apart between two looks.
const TOLERANCE: u64 = 60;

/// Watches the wall clock (seconds since the epoch) beside the monotonic one.
#[derive(Debug)]
pub(super) struct Steps {
    seen: Option<(u64, Instant)>,
    since: u64,
}

impl Steps {
    pub(super) const fn new() -> Self {
        Self { seen: None, since: 0 }
    }

    /// From when on the clock is known to have run steadily, 0 if it was never seen to jump.
    pub(super) fn observe(&mut self, wall: u64, steady: Instant) -> u64 {
        if let Some((before, at)) = self.seen.replace((wall, steady)) {
            let passed = steady.saturating_duration_since(at) + Duration::from_millis(500);
            let expected = before.saturating_add(passed.as_secs());
            if expected.abs_diff(wall) > TOLERANCE {
                tracing::warn!("the clock was set: idle time counts from now");
                self.since = wall;
            }
        }
        self.since
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Steps;

    #[test]
    fn time_that_passes_is_no_step_and_a_jump_is_one() {
        let (mut steps, start) = (Steps::new(), Instant::now());
        let later = |secs| start + Duration::from_secs(secs);
        assert_eq!(steps.observe(1_000, start), 0);
        assert_eq!(steps.observe(4_600, later(3_600)), 0);
        assert_eq!(steps.observe(4_640, later(3_610)), 0);
        assert_eq!(steps.observe(999_999, later(3_620)), 999_999);
        assert_eq!(steps.observe(1_000_009, later(3_630)), 999_999);
        assert_eq!(steps.observe(500, later(3_640)), 500);
    }
}
