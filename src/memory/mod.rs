//! One bound for everything that grows with what strangers ask for and send.
//!
//! The budget (`memory-budget`) is divided once. What is *kept* (what documents need, listings,
//! answers, tokens, who may have what) gets shares for good, each table weighing what it holds.
//! What is *under way* (whole bodies, pieces for readers, bodies that are passed on) draws from
//! what is left for as long as it lasts, and no client gets more of that than a quarter of what
//! others leave.
//!
//! - `gather`: a document that is wanted whole
//! - `machine`: how much this process may use at all
//! - `table`: small things that are kept, by what they weigh

mod gather;
mod machine;
mod table;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

pub(crate) use gather::Gathered;
pub(crate) use machine::available;
pub(crate) use table::{NAME, table};

/// No budget is smaller: the largest manifest must find room in a client's part of it.
pub(crate) const LEAST: u64 = 128 << 20;
/// Of what this process may use, one part in so many is the default.
const DEFAULT_PART: u64 = 4;
/// How long who finds no room waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How often who waits looks again. Being told of each piece that comes back would cost more than
/// the pieces are worth: they come back by the thousand.
const LOOK: Duration = Duration::from_millis(20);
/// One client gets one part in so many of what others leave.
const CLIENT_PART: u64 = 4;
/// Of a client's part, documents that don't lead leave all but one part in so many to the one that
/// does.
const LEADERS_PART: u64 = 4;
/// What a client's connection takes at its worst beside what draws from the budget: its part of a
/// head, a record of TLS, the state of both.
const CONNECTION: u64 = 48 << 10;
/// How many bytes the kernel takes for a socket beyond what the network carries now: enough that
/// the next are there when those are gone.
pub(crate) const UNSENT: u32 = 128 << 10;
/// What an object takes in the index and while it is decided which goes.
const OBJECT: u64 = 512;

/// How the budget is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// All of it.
    pub(crate) whole: u64,
}

impl Shares {
    /// The shares of a budget; where none is configured, of the default on this machine. Reads
    /// what the system says of it: blocking.
    pub(crate) fn new(configured: Option<u64>) -> Self {
        // Whole MiB, for whoever reads it.
        let part = |available| (available / DEFAULT_PART) >> 20 << 20;
        let default = || available().map_or(LEAST, part);
        Self { whole: configured.unwrap_or_else(default).max(LEAST) }
    }

    /// For what documents need of each other.
    pub(crate) const fn references(self) -> u64 {
        at_most(self.whole / 8, 64 << 20)
    }

    /// How many objects may be kept.
    pub(crate) const fn objects(self) -> u64 {
        self.whole / 8 / OBJECT
    }

    /// For what waits between upstreams and the disk.
    pub(crate) fn queued(self) -> usize {
        usize::try_from(at_most(self.whole / 16, 256 << 20)).unwrap_or(usize::MAX)
    }

    /// For listings.
    pub(crate) const fn listings(self) -> u64 {
        at_most(self.whole / 16, 64 << 20)
    }

    /// For answers that refuse.
    pub(crate) const fn refusals(self) -> u64 {
        at_most(self.whole / 64, 4 << 20)
    }

    /// For one of the tables of small things that grow with the registries; there are a dozen.
    pub(crate) const fn small_table(self) -> u64 {
        at_most(self.whole / 512, 8 << 20)
    }

    /// For one of those that grow with repositories, tags, and objects; there are six.
    pub(crate) const fn large_table(self) -> u64 {
        at_most(self.whole / 64, 64 << 20)
    }

    /// How many connections clients may have.
    pub(crate) fn connections(self) -> usize {
        usize::try_from(self.whole / CONNECTION).unwrap_or(usize::MAX)
    }

    /// For everything under way.
    const fn under_way(self) -> u64 {
        self.whole / 8 * 3
    }
}

const fn at_most(bytes: u64, most: u64) -> u64 {
    if bytes < most { bytes } else { most }
}

/// What there is for what is kept, and for what is under way; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    /// For what is kept.
    pub(crate) shares: Shares,
    /// For what is under way.
    pub(crate) budget: Budget,
}

impl Memory {
    /// The memory that is divided so.
    pub(crate) fn new(shares: Shares) -> Self {
        Self { shares, budget: Budget::new(shares) }
    }
}

/// What everything under way draws from; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Mutex<State>>);

/// Invariant: `free` and what everybody has are the whole together.
#[derive(Debug)]
struct State {
    free: u64,
    taken: HashMap<Option<IpAddr>, u64>,
    /// Who has a document under way that goes before their others.
    leading: HashSet<Option<IpAddr>>,
}

/// There was no room within [`PATIENCE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much is under way for the memory that may be used (memory-budget); try again")]
pub struct NoRoom;

impl Budget {
    /// All of what is under way may take so much of `shares`.
    pub(crate) fn new(shares: Shares) -> Self {
        Self::of(shares.under_way())
    }

    fn of(bytes: u64) -> Self {
        let (taken, leading) = Default::default();
        Self(Arc::new(Mutex::new(State { free: bytes, taken, leading })))
    }

    /// What `client` takes, nothing yet; an address stands for all that count as one client.
    /// `None`: the proxy itself, on nobody's behalf.
    pub(crate) fn account(&self, client: Option<IpAddr>) -> Account {
        Account { budget: self.clone(), client }
    }
}

impl State {
    /// What a client has, and the most that it may have now.
    fn part(&self, client: Option<IpAddr>) -> (u64, u64) {
        let own = self.taken.get(&client).copied().unwrap_or_default();
        (own, self.free.saturating_add(own) / CLIENT_PART)
    }

    fn take(&mut self, client: Option<IpAddr>, bytes: u64) -> bool {
        let (own, part) = self.part(client);
        if bytes > self.free || own.saturating_add(bytes) > part {
            return false;
        }
        self.free -= bytes;
        self.taken.insert(client, own + bytes);
        true
    }

    /// [`take`](Self::take) for a document that grows. Many of one client's that all wait for the
    /// rest of their room would wait for each other: so one leads, and the others leave it room.
    fn take_more(&mut self, client: Option<IpAddr>, bytes: u64, leads: &mut bool) -> bool {
        let (own, part) = self.part(client);
        let is_much = own.saturating_add(bytes) > part / LEADERS_PART;
        if is_much && !*leads {
            *leads = self.leading.insert(client);
        }
        (*leads || !is_much) && self.take(client, bytes)
    }

    fn give_back(&mut self, client: Option<IpAddr>, bytes: u64) {
        self.free = self.free.saturating_add(bytes);
        if let Some(own) = self.taken.get_mut(&client) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                self.taken.remove(&client);
            }
        }
    }
}

/// Whom what is drawn counts for; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    budget: Budget,
    client: Option<IpAddr>,
}

impl Account {
    /// Whose it is; `None`: the proxy's own.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// Room for so many bytes, if there is some now.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Room> {
        let bytes = bytes as u64;
        let is_taken = self.budget.0.lock().take(self.client, bytes);
        is_taken.then(|| {
            let mut room = self.nothing();
            room.bytes = bytes;
            room
        })
    }

    /// Room for nothing, which can grow.
    pub(crate) fn nothing(&self) -> Room {
        let (bytes, waited, leads) = Default::default();
        Room { account: self.clone(), bytes, waited, leads }
    }

    /// Room for so many bytes, for which is waited a while. Cancel safe.
    pub(crate) async fn take(&self, bytes: usize) -> Result<Room, NoRoom> {
        let mut room = self.nothing();
        room.wait(bytes as u64, |state, client, _| state.take(client, bytes as u64)).await?;
        Ok(room)
    }
}

/// Bytes of the budget, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Room {
    account: Account,
    bytes: u64,
    /// For how long it was waited for.
    waited: Duration,
    /// Whether it is for the document that goes before its client's others.
    leads: bool,
}

impl Room {
    /// Makes it room for `bytes` of a document in all, if it is less; waits a while for that, all
    /// waits for one room together. Cancel safe.
    pub(crate) async fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let more = (bytes as u64).saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        self.wait(more, |state, client, leads| state.take_more(client, more, leads)).await
    }

    async fn wait(
        &mut self,
        more: u64,
        mut take: impl FnMut(&mut State, Option<IpAddr>, &mut bool) -> bool,
    ) -> Result<(), NoRoom> {
        let Account { budget: Budget(state), client } = &self.account;
        while !take(&mut state.lock(), *client, &mut self.leads) {
            if self.waited >= PATIENCE {
                return Err(NoRoom);
            }
            let began = Instant::now();
            tokio::time::sleep(LOOK).await;
            self.waited += began.elapsed();
        }
        self.bytes += more;
        Ok(())
    }

    /// The document is whole: the next may lead.
    fn stop_leading(&mut self) {
        if std::mem::take(&mut self.leads) {
            self.account.budget.0.lock().leading.remove(&self.account.client);
        }
    }

    /// `bytes`, which take this room until the last of their handles is dropped.
    pub(crate) fn hold(mut self, bytes: Vec<u8>) -> Bytes {
        self.stop_leading();
        Bytes::from_owner(Held { bytes, _room: self })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.stop_leading();
        if self.bytes > 0 {
            self.account.budget.0.lock().give_back(self.account.client, self.bytes);
        }
    }
}

struct Held {
    bytes: Vec<u8>,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(budget: &Budget, number: u8) -> Account {
        budget.account(Some([10, 0, 0, number].into()))
    }

    #[test]
    fn no_client_gets_more_than_a_quarter_of_what_others_leave() {
        let budget = Budget::of(1_000);
        let first = account(&budget, 1);
        let held = [first.try_take(200).unwrap(), first.try_take(50).unwrap()];
        assert!(first.try_take(1).is_none());
        let second = account(&budget, 2);
        assert!(second.try_take(188).is_none());
        let other = second.try_take(187).unwrap();
        drop(held);
        assert!(first.try_take(203).is_some());
        drop(other);
        assert!(first.try_take(250).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_waits_and_not_for_ever() {
        let account = Budget::of(1_000).account(None);
        let mut room = account.take(100).await.unwrap();
        room.grow(250).await.unwrap();
        let began = Instant::now();
        assert_eq!(account.take(1).await.unwrap_err(), NoRoom);
        assert!(began.elapsed() >= PATIENCE && began.elapsed() < 2 * PATIENCE);
        let (bytes, waiting) = (room.hold(vec![7; 250]), account.take(250));
        let part = bytes.slice(200..);
        let freed = async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(bytes);
            tokio::time::sleep(PATIENCE / 4).await;
            assert_eq!(part[..], [7; 50]);
            drop(part);
        };
        let began = Instant::now();
        let (taken, ()) = tokio::join!(waiting, freed);
        assert!(taken.is_ok() && began.elapsed() >= PATIENCE * 3 / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn documents_of_one_client_do_not_wait_for_each_other() {
        let budget = Budget::of(4_000);
        let account = account(&budget, 1);
        let whole = async |number: u64| {
            let mut room = account.nothing();
            for step in 1..=8 {
                room.grow(step * 100).await?;
                tokio::time::sleep(Duration::from_millis(10 + number)).await;
            }
            Ok::<_, NoRoom>(())
        };
        let all = futures_util::future::join_all((0..20).map(whole)).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        // One that never ends ends nobody else's.
        let mut endless = account.nothing();
        endless.grow(400).await.unwrap();
        let other = budget.account(None);
        other.nothing().grow(800).await.unwrap();
        account.nothing().grow(150).await.unwrap_err();
        drop(endless);
        account.nothing().grow(800).await.unwrap();
    }

    #[test]
    fn the_shares_leave_room_for_what_is_under_way() {
        for whole in [0, 128 << 20, 1 << 30, 1 << 36] {
            let shares = Shares::new(Some(whole));
            let Shares { whole } = shares;
            let kept = shares.references()
                + shares.objects() * OBJECT
                + shares.queued() as u64
                + shares.listings()
                + shares.refusals()
                + 12 * shares.small_table()
                + 6 * shares.large_table();
            assert!(kept + shares.under_way() <= whole, "{whole}");
            // The largest manifest, for the second of two clients.
            assert!(shares.under_way() * 3 / 16 >= 8 << 20);
        }
    }
}
