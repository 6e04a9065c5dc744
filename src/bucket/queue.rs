//! What is to be done yet, and when: names, bounded, each once.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// So many names at most: some megabytes.
pub(super) const MOST: usize = 100_000;
/// How long one that failed waits; twice as long after each failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// It waits for its turn.
    New,
    /// It was there already.
    Known,
    /// There is no place.
    Full,
}

/// What waits and what is being done, with how many bytes each is about.
#[derive(Debug)]
pub(super) struct Queue<T> {
    most: usize,
    entries: HashMap<Arc<T>, Entry>,
    /// By when they are due, then in the order in which they came.
    waiting: BinaryHeap<Reverse<(Instant, u64, OrderedLast<T>)>>,
    /// Since when each is there.
    since: BTreeSet<(Instant, u64)>,
    next: u64,
    bytes: u64,
}

/// Carried along in an order that it has no part in: numbers differ.
#[derive(Debug)]
struct OrderedLast<T>(Arc<T>);

impl<T> PartialEq for OrderedLast<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for OrderedLast<T> {}

impl<T> PartialOrd for OrderedLast<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for OrderedLast<T> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

#[derive(Debug)]
struct Entry {
    since: (Instant, u64),
    bytes: u64,
    wait: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    AtWork,
    /// It is being done, and was offered again meanwhile: what was read may be old.
    AtWorkAndWanted,
}

/// What is pending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) objects: u64,
    pub(super) bytes: u64,
    /// Since when the oldest waits.
    pub(super) oldest: Option<Instant>,
}

impl<T: Hash + Eq> Queue<T> {
    /// One with room for so many.
    pub(super) fn new(most: usize) -> Self {
        let (entries, waiting) = (HashMap::new(), BinaryHeap::new());
        Self { most, entries, waiting, since: BTreeSet::new(), next: 0, bytes: 0 }
    }

    /// Takes `what` in, which is about so many bytes.
    pub(super) fn offer(&mut self, what: T, bytes: u64, now: Instant) -> Offered {
        if let Some(entry) = self.entries.get_mut(&what) {
            if entry.state == State::AtWork {
                entry.state = State::AtWorkAndWanted;
            }
            return Offered::Known;
        }
        if self.entries.len() >= self.most {
            return Offered::Full;
        }
        let what = Arc::new(what);
        self.bytes = self.bytes.saturating_add(bytes);
        let since = (now, self.next);
        self.since.insert(since);
        let entry = Entry { since, bytes, wait: FIRST_WAIT, state: State::Waiting };
        self.entries.insert(what.clone(), entry);
        self.wait(what, now);
        Offered::New
    }

    /// The next that is due; it is being done until [`done`](Self::done) or
    /// [`failed`](Self::failed) says otherwise.
    pub(super) fn take(&mut self, now: Instant) -> Option<Arc<T>> {
        let Reverse((due, _, _)) = self.waiting.peek()?;
        if *due > now {
            return None;
        }
        let Reverse((_, _, OrderedLast(what))) = self.waiting.pop()?;
        self.entries.get_mut(&what)?.state = State::AtWork;
        Some(what)
    }

    /// When the next is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse((due, _, _))| *due)
    }

    /// It is done, unless it was offered again meanwhile.
    pub(super) fn done(&mut self, what: &Arc<T>, now: Instant) {
        let Some(entry) = self.entries.get_mut(what) else { return };
        if entry.state == State::AtWorkAndWanted {
            self.since.remove(&entry.since);
            entry.since = (now, self.next);
            self.since.insert(entry.since);
            (entry.wait, entry.state) = (FIRST_WAIT, State::Waiting);
            self.wait(what.clone(), now);
        } else if let Some(entry) = self.entries.remove(what) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
            self.since.remove(&entry.since);
        }
    }

    /// It waits longer than before.
    pub(super) fn failed(&mut self, what: &Arc<T>, now: Instant) {
        let Some(entry) = self.entries.get_mut(what) else { return };
        let wait = entry.wait;
        entry.wait = wait.saturating_mul(2).min(LONGEST_WAIT);
        entry.state = State::Waiting;
        self.wait(what.clone(), now + wait);
    }

    fn wait(&mut self, what: Arc<T>, due: Instant) {
        self.waiting.push(Reverse((due, self.next, OrderedLast(what))));
        self.next = self.next.wrapping_add(1);
    }

    pub(super) fn pending(&self) -> Pending {
        let oldest = self.since.first().map(|(since, _)| *since);
        Pending { objects: self.entries.len() as u64, bytes: self.bytes, oldest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[tokio::test(start_paused = true)]
    async fn names_come_in_their_order_and_each_once() {
        let (mut queue, now) = (Queue::new(3), Instant::now());
        for (name, expected) in [
            ("a", Offered::New),
            ("b", Offered::New),
            ("a", Offered::Known),
            ("c", Offered::New),
            ("d", Offered::Full),
        ] {
            assert_eq!(queue.offer(name, 10, now), expected, "{name}");
        }
        assert_eq!(queue.pending(), Pending { objects: 3, bytes: 30, oldest: Some(now) });
        for expected in ["a", "b", "c"] {
            let taken = queue.take(now).unwrap();
            assert_eq!(*taken, expected);
            queue.done(&taken, now);
        }
        assert_eq!(queue.take(now), None);
        assert_eq!(queue.pending(), Pending::default());
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_waits_twice_as_long_each_time() {
        let (mut queue, mut now) = (Queue::new(3), Instant::now());
        queue.offer("a", 0, now);
        let mut waits = Vec::new();
        for _ in 0..12 {
            let taken = queue.take(now).unwrap();
            queue.failed(&taken, now);
            assert_eq!(queue.take(now), None);
            let due = queue.due().unwrap();
            waits.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_offered_while_it_is_done_is_done_again() {
        let (mut queue, now) = (Queue::new(3), Instant::now());
        queue.offer("a", 1, now);
        let taken = queue.take(now).unwrap();
        assert_eq!(queue.offer("a", 1, now), Offered::Known);
        assert_eq!(queue.take(now), None, "not twice at a time");
        queue.done(&taken, now);
        let again = queue.take(now).unwrap();
        queue.done(&again, now);
        assert_eq!(queue.pending(), Pending::default());
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_forgets_nothing_it_has_taken_in(
            steps in prop::collection::vec((0_u8..4, 0_u8..12), 0..200),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let _inside = runtime.unwrap();
            let (mut queue, mut now) = (Queue::new(8), Instant::now());
            let (mut known, mut working) = (HashSet::new(), Vec::new());
            for (step, name) in steps {
                now += Duration::from_secs(40);
                match step {
                    0 => {
                        let is_known = known.contains(&name);
                        match queue.offer(name, 5, now) {
                            Offered::New => prop_assert!(known.insert(name)),
                            Offered::Known => prop_assert!(is_known),
                            Offered::Full => prop_assert!(!is_known && known.len() == 8),
                        }
                    }
                    1 => working.extend(queue.take(now)),
                    2 if !working.is_empty() => {
                        let what = working.remove(0);
                        queue.done(&what, now);
                        if queue.pending().objects < known.len() as u64 {
                            known.remove(&*what);
                        }
                    }
                    3 if !working.is_empty() => queue.failed(&working.remove(0), now),
                    _ => {}
                }
                prop_assert_eq!(queue.pending().objects, known.len() as u64);
                prop_assert_eq!(queue.pending().bytes, 5 * known.len() as u64);
            }
            // All that it knows is done in the end.
            while let Some(what) = working.pop() {
                queue.failed(&what, now);
            }
            now += LONGEST_WAIT;
            while let Some(what) = queue.take(now) {
                queue.done(&what, now);
                known.remove(&*what);
            }
            prop_assert!(known.is_empty() && queue.pending() == Pending::default());
        }
    }
}
