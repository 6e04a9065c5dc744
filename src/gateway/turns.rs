//! One at a time: who wants the same waits for whoever is at it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

/// Nobody waits longer: whoever is at it may wait for a registry that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Turns at things that are named by `K`.
pub(super) struct Turns<K>(Mutex<HashMap<K, Weak<tokio::sync::Mutex<()>>>>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A turn, until it is dropped.
pub(super) struct Turn {
    _held: Option<OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash> Turns<K> {
    /// Waits for a turn; in the end without one.
    pub(super) async fn wait(&self, key: K) -> Turn {
        let lock = self.lock_of(key);
        Turn { _held: tokio::time::timeout(PATIENCE, lock.lock_owned()).await.ok() }
    }

    fn lock_of(&self, key: K) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // As many as there are turns now: what nobody holds goes as soon as another comes.
        locks.retain(|_, lock| lock.strong_count() > 0);
        let known = locks.get(&key).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let lock = Arc::default();
            locks.insert(key, Arc::downgrade(&lock));
            lock
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_is_done_by_one_at_a_time() {
        let turns = Turns::default();
        let first = turns.wait("a").await;
        let _other = tokio::time::timeout(Duration::from_secs(1), turns.wait("b")).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_secs(1), turns.wait("a")).await;
        assert!(waiting.is_err(), "somebody is at it");
        drop(first);
        tokio::time::timeout(Duration::from_secs(1), turns.wait("a")).await.unwrap();
        assert!(turns.0.lock().unwrap().len() <= 2);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let turns = Turns::default();
        let _first = turns.wait("a").await;
        let second = tokio::time::timeout(PATIENCE * 2, turns.wait("a")).await;
        assert!(second.is_ok());
    }
}
