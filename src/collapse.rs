//! What several ask at one moment is asked once.
//!
//! Who comes first for a key leads; who comes meanwhile waits for what the leader tells. A wait
//! ends in one of four ways, each with a name ([`Turn`]), and never because a leader went away:
//! then one of those who wait leads in its place. Nothing is remembered: who comes after the answer
//! asks anew. (Downloads are collapsed by the store, which has their bytes to share.)

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// Questions under way, by what is asked; cheap to clone.
pub(crate) struct Collapse<K, V>(Arc<Mutex<HashMap<K, watch::Receiver<Verdict<V>>>>>);

/// What a leader has made of its question.
#[derive(Clone)]
enum Verdict<V> {
    /// Nothing yet. The leader holds the sending end: when that is dropped, it is gone.
    Pending,
    Told(V),
    GivenUp,
}

/// How a wait for a turn ends.
pub(crate) enum Turn<K: Eq + Hash, V> {
    /// The caller leads, and owes the others an answer.
    Lead(Permit<K, V>),
    /// What the leader has told.
    Told(V),
    /// The leader has found nothing that would serve others: everybody for itself.
    GivenUp,
    /// The leader takes longer than the caller has patience for.
    Late,
}

/// The right, and duty, to answer for all who wait. Dropping it lets one of them lead.
pub(crate) struct Permit<K: Eq + Hash, V> {
    running: Collapse<K, V>,
    /// `None` once it is answered.
    answer: Option<(K, watch::Sender<Verdict<V>>)>,
}

impl<K, V> Default for Collapse<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, V> Collapse<K, V> {
    /// Whether no question is under way.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl<K, V> Clone for Collapse<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Collapse<K, V> {
    /// Leads on `key`, or waits for who does, for so long at most.
    ///
    /// Cancel safe: who stops waiting disturbs no other.
    pub(crate) async fn turn(&self, key: K, patience: Duration) -> Turn<K, V> {
        let deadline = Instant::now() + patience;
        loop {
            let mut told = match self.join(&key) {
                Ok(permit) => return Turn::Lead(permit),
                Err(told) => told,
            };
            let verdict = told.wait_for(|verdict| !matches!(verdict, Verdict::Pending));
            match tokio::time::timeout_at(deadline, verdict).await {
                Err(_) => return Turn::Late,
                // The leader is gone.
                Ok(Err(_)) => {}
                Ok(Ok(verdict)) => match &*verdict {
                    Verdict::Told(value) => return Turn::Told(value.clone()),
                    Verdict::GivenUp | Verdict::Pending => return Turn::GivenUp,
                },
            }
        }
    }

    /// What `ask` yields, asked by one for all who want it; each for itself where that takes longer
    /// than `patience`.
    ///
    /// Cancel safe if `ask` is.
    pub(crate) async fn once(&self, key: K, patience: Duration, ask: impl Future<Output = V>) -> V {
        match self.turn(key, patience).await {
            Turn::Told(value) => value,
            Turn::Lead(permit) => {
                let value = ask.await;
                permit.tell(value.clone());
                value
            }
            Turn::GivenUp | Turn::Late => ask.await,
        }
    }

    fn join(&self, key: &K) -> Result<Permit<K, V>, watch::Receiver<Verdict<V>>> {
        match self.0.lock().entry(key.clone()) {
            Entry::Occupied(running) => Err(running.get().clone()),
            Entry::Vacant(free) => {
                let (sender, told) = watch::channel(Verdict::Pending);
                free.insert(told);
                let answer = Some((key.clone(), sender));
                Ok(Permit { running: self.clone(), answer })
            }
        }
    }
}

impl<K: Eq + Hash, V> Permit<K, V> {
    /// Answers for all who wait.
    pub(crate) fn tell(mut self, value: V) {
        self.end(Verdict::Told(value));
    }

    /// What the leader has found serves it alone.
    pub(crate) fn give_up(mut self) {
        self.end(Verdict::GivenUp);
    }

    fn end(&mut self, verdict: Verdict<V>) {
        if let Some((key, sender)) = self.answer.take() {
            // First: who comes from now on asks anew.
            self.running.0.lock().remove(&key);
            sender.send_replace(verdict);
        }
    }
}

impl<K: Eq + Hash, V> Drop for Permit<K, V> {
    fn drop(&mut self) {
        if let Some((key, _gone)) = self.answer.take() {
            self.running.0.lock().remove(&key);
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test waits for what it spawns")]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn permit(turn: Turn<&'static str, u32>) -> Permit<&'static str, u32> {
        match turn {
            Turn::Lead(permit) => permit,
            _ => panic!("somebody else leads"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_meanwhile_is_told_and_who_asks_later_asks_anew() {
        let collapse = Collapse::default();
        let leader = permit(collapse.turn("a", PATIENCE).await);
        drop(permit(collapse.turn("b", PATIENCE).await));
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                tokio::spawn({
                    let collapse = collapse.clone();
                    async move { collapse.turn("a", PATIENCE).await }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        leader.tell(7);
        for told in waiting {
            assert!(matches!(told.await.unwrap(), Turn::Told(7)));
        }
        permit(collapse.turn("a", PATIENCE).await).give_up();
        assert!(collapse.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_those_who_wait_leads_where_the_leader_goes() {
        let collapse = Collapse::default();
        let leader = permit(collapse.turn("a", PATIENCE).await);
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                tokio::spawn({
                    let collapse = collapse.clone();
                    async move { collapse.once("a", PATIENCE, async { 1 }).await }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(leader);
        for told in waiting {
            assert_eq!(told.await.unwrap(), 1);
        }
        assert!(collapse.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_and_a_leader_may_give_up() {
        let collapse = Collapse::default();
        let leader = permit(collapse.turn("a", PATIENCE).await);
        assert!(matches!(collapse.turn("a", PATIENCE).await, Turn::Late));
        let waiting = tokio::spawn({
            let collapse = collapse.clone();
            async move { collapse.turn("a", PATIENCE).await }
        });
        tokio::task::yield_now().await;
        leader.give_up();
        assert!(matches!(waiting.await.unwrap(), Turn::GivenUp));
    }
}
