//! Bodies in pieces too small to be worth what each costs.
//!
//! A chunk of one byte costs its reader as much as one of a thousand, and its sender next to
//! nothing. What is usual never meets this: compressors write chunks of some hundred bytes, and
//! what people type comes slowly.

use std::time::Duration;

use tokio::time::Instant;

/// A piece of so many bytes is worth its cost.
pub(crate) const WORTH: u64 = 64;
/// So many pieces that are not are taken without a pause.
const BURST: u64 = 2_000;
/// And so many a second.
const A_SECOND: u64 = 1_000;
/// How many pieces a pause is for at least: each costs a timer.
const AT_ONCE: u64 = 50;

/// How many pieces of one sender were not worth their cost.
#[derive(Debug, Default)]
pub(crate) struct Trickle {
    /// In bytes that were missing.
    debt: u64,
    since: Option<Instant>,
}

impl Trickle {
    /// What a piece of so many bytes is short of its cost.
    #[must_use]
    pub(crate) const fn shortfall(bytes: u64) -> u64 {
        WORTH.saturating_sub(bytes)
    }

    /// Pieces have come that were short of their cost by so much together; how long the next must
    /// wait, if that was too much.
    #[must_use]
    pub(crate) fn note(&mut self, shortfall: u64) -> Option<Duration> {
        if shortfall == 0 {
            return None;
        }
        let now = Instant::now();
        let since = self.since.replace(now).unwrap_or(now);
        let millis = u64::try_from((now - since).as_millis()).unwrap_or(u64::MAX);
        let made_good = millis.saturating_mul(A_SECOND * WORTH) / 1000;
        self.debt = self.debt.saturating_sub(made_good).saturating_add(shortfall);
        let excess = self.debt.saturating_sub(BURST * WORTH);
        if excess == 0 {
            return None;
        }
        let pause = (excess + AT_ONCE * WORTH).saturating_mul(1000) / (A_SECOND * WORTH);
        Some(Duration::from_millis(pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long `count` pieces of so many bytes take, which come as fast as they are taken.
    async fn taken(count: u64, bytes: u64) -> Duration {
        let (began, mut trickle) = (Instant::now(), Trickle::default());
        for _ in 0..count {
            if let Some(pause) = trickle.note(Trickle::shortfall(bytes)) {
                tokio::time::sleep(pause).await;
            }
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn only_many_pieces_that_are_not_worth_it_are_slowed() {
        for (count, bytes) in [(BURST, 1), (1_000_000, WORTH), (1_000_000, 240)] {
            assert_eq!(taken(count, bytes).await, Duration::ZERO, "{count} of {bytes}");
        }
        let slowed = taken(12_000, 1).await.as_secs();
        assert!((8..=11).contains(&slowed), "{slowed} s");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_slowly_is_never_slowed() {
        let mut trickle = Trickle::default();
        for _ in 0..10_000 {
            tokio::time::advance(Duration::from_millis(2)).await;
            assert_eq!(trickle.note(Trickle::shortfall(1)), None);
        }
    }
}
