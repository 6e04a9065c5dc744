//! How much of the downloads into the store one client may bring about.
//!
//! A download outlives its client, so that a pull that is broken off and begun again goes on where
//! it was. A client that asks and hangs up, and asks for something else, must not have all places,
//! the whole line and the whole store by that: it has a part of the places that are free, and what
//! nobody reads goes on within a budget, as long as places are not short. What stops stays as far
//! as it came, and the next download goes on there.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Downloads into the store at a time, where enough files may be open; what is beyond them is
/// passed on.
const MOST: usize = 256;
/// One in so many of the files that may be open is a place: a download has two, and outlives the
/// connection that they are reckoned with.
const FILES: u64 = 16;
/// The part of the free places that one client may have, and the part of all below which places are
/// short.
const PART: usize = 4;
/// How many bytes of a client's downloads come that nobody reads, at once or in so long a time: an
/// ordinary image several times over.
const BUDGET: u64 = 1024 * 1024 * 1024;
const REFILLED: Duration = Duration::from_mins(10);
/// How long a download goes on that nobody reads.
const LONGEST: Duration = Duration::from_mins(10);
/// Clients remembered before those are forgotten whose budget is whole again.
const MANY: usize = 4096;

/// For whom a request is: a client, or a network of clients that counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Requester(pub(crate) IpAddr);

/// The places of downloads. Cheap to clone.
#[derive(Clone)]
pub(super) struct Shares {
    most: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    taken: usize,
    clients: HashMap<Requester, Client>,
}

struct Client {
    places: usize,
    /// What was left of the budget, and when that was.
    left: u64,
    at: Instant,
}

/// A place for a download, until it is dropped.
pub(super) struct Share {
    shares: Shares,
    /// Who has brought the download about; nobody: the operator.
    requester: Option<Requester>,
    /// Since when nobody reads it.
    alone: Option<Instant>,
}

impl Default for Shares {
    fn default() -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let most = files.and_then(|files| usize::try_from(files / FILES).ok());
        Self::of(most.unwrap_or(MOST).clamp(PART, MOST))
    }
}

impl Shares {
    fn of(most: usize) -> Self {
        Self { most, state: Arc::default() }
    }

    /// A place for a download that `requester` brings about.
    pub(super) fn take(&self, requester: Option<Requester>) -> Option<Share> {
        let mut state = self.state.lock();
        let free = self.most.saturating_sub(state.taken);
        if free == 0 {
            return None;
        }
        if let Some(requester) = requester {
            state.forget_some();
            let client = state.clients.entry(requester).or_insert_with(Client::new);
            if client.places >= ((free + client.places) / PART).max(1) {
                return None;
            }
            client.places += 1;
        }
        state.taken += 1;
        Some(Share { shares: self.clone(), requester, alone: None })
    }
}

impl Share {
    /// Whether a download goes on that has just got so many bytes, and is read or is not.
    pub(super) fn goes_on(&mut self, has_readers: bool, bytes: usize) -> bool {
        let Some(requester) = self.requester.filter(|_| !has_readers) else {
            self.alone = None;
            return true;
        };
        let since = *self.alone.get_or_insert_with(Instant::now);
        let mut state = self.shares.state.lock();
        let is_short = self.shares.most.saturating_sub(state.taken) < self.shares.most / PART;
        let client = state.clients.entry(requester).or_insert_with(Client::new);
        !is_short && since.elapsed() < LONGEST && client.pays(bytes as u64)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.shares.state.lock();
        state.taken = state.taken.saturating_sub(1);
        if let Some(client) = self.requester.and_then(|it| state.clients.get_mut(&it)) {
            client.places = client.places.saturating_sub(1);
        }
    }
}

impl State {
    fn forget_some(&mut self) {
        if self.clients.len() >= MANY {
            self.clients.retain(|_, client| client.places > 0 || client.left_now() < BUDGET);
        }
    }
}

impl Client {
    fn new() -> Self {
        Self { places: 0, left: BUDGET, at: Instant::now() }
    }

    fn left_now(&self) -> u64 {
        let millis = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let refill = millis.saturating_mul(BUDGET / 1000 / REFILLED.as_secs());
        self.left.saturating_add(refill).min(BUDGET)
    }

    /// Takes so much out of the budget, if there is anything left.
    fn pays(&mut self, bytes: u64) -> bool {
        let left = self.left_now();
        (self.left, self.at) = (left.saturating_sub(bytes), Instant::now());
        left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place that the client at this address takes.
    fn taken(shares: &Shares, last: u8) -> Option<Share> {
        shares.take(Some(Requester([10, 0, 0, last].into())))
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_has_a_part_of_what_is_free() {
        let shares = Shares::of(64);
        let taken_by = |last| std::iter::from_fn(|| taken(&shares, last)).collect::<Vec<_>>();
        let first = taken_by(1);
        assert_eq!(first.len(), 16);
        let second = taken_by(2);
        assert_eq!(second.len(), 12);
        let third = taken(&shares, 3).unwrap();
        drop((first, second, third));
        assert_eq!(taken_by(4).len(), 16);
        // The operator's are nobody's share.
        let all: Vec<_> = std::iter::from_fn(|| shares.take(None)).collect();
        assert_eq!(all.len(), 64);
        assert!(taken(&shares, 1).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_reads_goes_on_within_a_budget() {
        const PIECE: usize = 64 * 1024 * 1024;
        let shares = Shares::of(64);
        let mut one = taken(&shares, 1).unwrap();
        let alone = std::iter::repeat_with(|| one.goes_on(false, PIECE)).take_while(|goes| *goes);
        assert_eq!(alone.count(), 16);
        // By whichever download.
        let mut another = taken(&shares, 1).unwrap();
        assert!(!another.goes_on(false, PIECE));
        assert!(another.goes_on(true, PIECE), "one that is read");
        let mut others = taken(&shares, 2).unwrap();
        assert!(others.goes_on(false, PIECE));
        tokio::time::advance(REFILLED / 10).await;
        let alone =
            std::iter::repeat_with(|| another.goes_on(false, PIECE)).take_while(|goes| *goes);
        assert_eq!(alone.count(), 2);
        // Nor for ever, though it costs nothing.
        assert!(others.goes_on(false, 0) && others.goes_on(true, 0));
        tokio::time::advance(LONGEST).await;
        assert!(others.goes_on(false, 0));
        tokio::time::advance(LONGEST).await;
        assert!(!others.goes_on(false, 0));
        let mut operators = shares.take(None).unwrap();
        assert!((0..100).all(|_| operators.goes_on(false, PIECE)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_reads_gives_way_where_places_are_short() {
        let shares = Shares::of(16);
        let mut alone = taken(&shares, 1).unwrap();
        assert!(alone.goes_on(false, 1));
        let mut busy: Vec<_> = (2..14).map(|last| taken(&shares, last).unwrap()).collect();
        assert!(!alone.goes_on(false, 1) && alone.goes_on(true, 1));
        busy.pop();
        assert!(alone.goes_on(false, 1));
    }
}
