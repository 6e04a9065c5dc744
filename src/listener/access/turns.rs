//! Taking turns, of which the newest of those who wait gets the next.
//!
//! Whoever comes in great numbers pushes its own out: one who comes later finds no queue before it.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Turns that are taken one at a time.
#[derive(Debug)]
pub(super) struct Turns {
    /// How many may wait.
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_taken: bool,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<Turns>);

impl Turns {
    /// Turns for which so many may wait.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default() })
    }

    /// The next turn; none where too many have come since. Cancel safe.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Turn> {
        let told = {
            let mut state = self.state.lock();
            if !state.is_taken {
                state.is_taken = true;
                return Some(Turn(Arc::clone(self)));
            }
            let (turn, told) = oneshot::channel();
            state.waiting.push_back(turn);
            if state.waiting.len() > self.most {
                state.waiting.pop_front();
            }
            told
        };
        told.await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.state.lock();
            let next = state.waiting.pop_back();
            state.is_taken = next.is_some();
            next
        };
        if let Some(next) = next {
            // One that has left drops it, and so hands it on.
            let _ = next.send(Self(Arc::clone(&self.0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_newest_is_next_and_the_oldest_is_pushed_out() {
        let turns = Turns::new(2);
        let first = turns.take().await.unwrap();
        let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(turns.take())).collect();
        let mut polled = |number: usize| waiting[number].as_mut().now_or_never();
        assert!((0..4).all(|number| polled(number).is_none()));
        assert!(matches!((polled(0), polled(1)), (Some(None), Some(None))));
        drop(first);
        assert!(polled(2).is_none());
        let second = polled(3).unwrap().unwrap();
        drop(second);
        assert!(polled(2).unwrap().is_some());
        assert!(!turns.state.lock().is_taken);
    }

    #[tokio::test]
    async fn one_that_leaves_hands_its_turn_on() {
        let turns = Turns::new(4);
        let first = turns.take().await.unwrap();
        let mut stays = Box::pin(turns.take());
        assert!(stays.as_mut().now_or_never().is_none());
        let mut told_too_late = Box::pin(turns.take());
        assert!(told_too_late.as_mut().now_or_never().is_none());
        let mut leaves = Box::pin(turns.take());
        assert!(leaves.as_mut().now_or_never().is_none());
        drop(leaves);
        drop(first);
        drop(told_too_late);
        drop(stays.await.unwrap());
        assert!(!turns.state.lock().is_taken);
    }
}
