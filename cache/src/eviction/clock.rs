//! Telling time that passed from a clock that was set.
//!
//! A clock that jumps ten years ahead must not make everything look unused for ten years.

use std::time::{Duration, Instant};

use entrepot_oci::UnixSeconds;

/// By how many seconds the clocks may drift apart between two looks.
const TOLERANCE: u64 = 60;

/// Watches the wall clock beside the monotonic one.
#[derive(Debug)]
pub(super) struct Clock {
    seen: Option<(UnixSeconds, Instant)>,
    since: UnixSeconds,
}

impl Clock {
    pub(super) const fn new() -> Self {
        Self { seen: None, since: UnixSeconds(0) }
    }

    /// From when on the clock is known to have run steadily, 0 if it was never seen to jump.
    pub(super) fn observe(&mut self, wall: UnixSeconds, steady: Instant) -> UnixSeconds {
        if let Some((before, at)) = self.seen.replace((wall, steady)) {
            let passed = steady.saturating_duration_since(at) + Duration::from_millis(500);
            let expected = before.0.saturating_add(passed.as_secs());
            if expected.abs_diff(wall.0) > TOLERANCE {
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

    use entrepot_oci::UnixSeconds;

    use super::Clock;

    #[test]
    fn time_that_passes_is_no_step_and_a_jump_is_one() {
        let (mut clock, start) = (Clock::new(), Instant::now());
        let mut observe = |wall, steady| clock.observe(UnixSeconds(wall), steady).0;
        let later = |secs| start + Duration::from_secs(secs);
        assert_eq!(observe(1_000, start), 0);
        assert_eq!(observe(4_600, later(3_600)), 0);
        assert_eq!(observe(4_640, later(3_610)), 0);
        assert_eq!(observe(999_999, later(3_620)), 999_999);
        assert_eq!(observe(1_000_009, later(3_630)), 999_999);
        assert_eq!(observe(500, later(3_640)), 500);
    }
}
