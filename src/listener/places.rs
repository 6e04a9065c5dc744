//! Places for connections: how many there are, who has them, and who gives way.
//!
//! Every connection is accepted; then it has a place, or it is a guest who may ask a little, and
//! soon has to go. One client, an address or a network of IPv6, has a share of the places at most.
//! Where there is none left, the connection gives way that has lain longest without a request under
//! way: half a head, half a handshake, or nothing between two requests. So a client that holds what
//! it does not use keeps nobody out, and the share bounds what it can use.
//!
//! Connections that other proxies have announced (`proxy_protocol`) count for nobody until their
//! client is told, and then for that client.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::access::one_client;

/// Places are never more: what each costs in memory is reckoned with so many.
const MOST: usize = 16 * 1024;
/// Nor fewer, however few files may be open.
const LEAST: usize = 8;
/// One client may have so large a part of them.
const SHARE: usize = 4;
/// How many more this machine's own programs may have, on top: the container's own probe.
const MOST_LOCAL: usize = 64;
/// Guests are never more, nor fewer.
const MOST_GUESTS: usize = 64;
const LEAST_GUESTS: usize = 4;

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlaceCount {
    /// Of all clients.
    most: usize,
    /// Of one.
    of_one: usize,
    /// On top, for what comes from this machine.
    local: usize,
}

impl PlaceCount {
    /// As many as a process may have that may open so many files: each costs up to three (its own,
    /// one of the store, one to a registry), and a fourth part of the files is for everything else.
    #[must_use]
    pub(crate) fn within(files: Option<u64>) -> Self {
        let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
        Self::of((files / 4).clamp(LEAST, MOST))
    }

    /// So many, if so many files allow it.
    #[must_use]
    pub(crate) fn at_most(most: usize, files: Option<u64>) -> Self {
        let all = Self::within(files).most;
        Self::of(most.min((all / 4).max(LEAST)))
    }

    /// These, or so many where that is fewer.
    #[must_use]
    pub(crate) fn no_more_than(self, most: usize) -> Self {
        Self::of(self.most.min(most))
    }

    fn of(most: usize) -> Self {
        let local = (most / 8).clamp(2, MOST_LOCAL);
        Self { most, of_one: (most / SHARE).max(1), local }
    }

    /// The places of guests beside these. One client may have half of them.
    #[must_use]
    pub(crate) fn guests(self) -> Self {
        let most = (self.most / 16).clamp(LEAST_GUESTS, MOST_GUESTS);
        Self { most, of_one: most / 2, local: LEAST_GUESTS }
    }

    /// How many there are for all clients.
    #[must_use]
    pub(crate) const fn most(self) -> usize {
        self.most
    }
}

/// Whom a connection counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    /// A client's at this address.
    Client(IpAddr),
    /// One of this machine's, by the connection itself.
    Local(IpAddr),
    /// A proxy's that is yet to say whose.
    Untold,
}

impl Whose {
    /// Whom a connection from `address` counts for.
    pub(crate) fn at(address: IpAddr) -> Self {
        let client = one_client(address);
        if address.to_canonical().is_loopback() {
            Self::Local(client)
        } else {
            Self::Client(client)
        }
    }

    const fn is_local(self) -> bool {
        matches!(self, Self::Local(_))
    }
}

/// The places of one listener. Cheap to clone; all clones are the same places.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    count: PlaceCount,
    state: Arc<Mutex<State>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    id: u64,
    given_up: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// Numbers for places and for moments: later ones are larger.
    next: u64,
    holders: HashMap<u64, Holder>,
    of_clients: HashMap<Whose, OfClient>,
    /// Who lies idle, by the moment since when.
    idle: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Holder {
    whose: Whose,
    idle_since: Option<u64>,
    given_up: CancellationToken,
}

#[derive(Debug, Default)]
struct OfClient {
    count: usize,
    idle: BTreeMap<u64, u64>,
}

impl Places {
    /// So many places, all of them free.
    pub(crate) fn new(count: PlaceCount) -> Self {
        Self { count, state: Arc::default() }
    }

    /// A place for a new connection, which has nothing under way yet; none where whoever could give
    /// way is at work.
    pub(crate) fn take(&self, whose: Whose) -> Option<Place> {
        let mut state = self.state.lock();
        if !state.makes_share(whose, self.count) || !state.makes_room(whose, self.count) {
            return None;
        }
        let id = state.number();
        let given_up = CancellationToken::new();
        let holder = Holder { whose, idle_since: None, given_up: given_up.clone() };
        state.holders.insert(id, holder);
        state.of_clients.entry(whose).or_default().count += 1;
        state.lies_idle(id);
        Some(Place { places: self.clone(), id, given_up })
    }

    /// Has the connection go that has lain idle longest: the process is out of files. Whether there
    /// was one.
    pub(crate) fn free_one(&self) -> bool {
        self.state.lock().free_oldest(None)
    }
}

impl Place {
    /// Nothing of a request is under way: the place is others' where they need it.
    pub(crate) fn lies_idle(&self) {
        self.places.state.lock().lies_idle(self.id);
    }

    /// A whole request has come: the place is kept until it is answered.
    pub(crate) fn is_at_work(&self) {
        self.places.state.lock().is_at_work(self.id);
    }

    /// Resolves when this place has been given to another: the connection has to go. Cancel safe.
    pub(crate) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }

    /// From now on the connection counts for the client at `address`; not if that has its share.
    #[must_use]
    pub(crate) fn counts_for(&self, address: IpAddr) -> bool {
        let whose = Whose::Client(one_client(address));
        let mut state = self.places.state.lock();
        if !state.makes_share(whose, self.places.count) {
            return false;
        }
        let Some(holder) = state.remove(self.id) else { return false };
        let is_idle = holder.idle_since.is_some();
        state.holders.insert(self.id, Holder { whose, idle_since: None, ..holder });
        state.of_clients.entry(whose).or_default().count += 1;
        if is_idle {
            state.lies_idle(self.id);
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.state.lock().remove(self.id);
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whether this client may have one more; one of its own gives way for it, if need be.
    fn makes_share(&mut self, whose: Whose, count: PlaceCount) -> bool {
        let share = count.of_one + if whose.is_local() { count.local } else { 0 };
        let taken = self.of_clients.get(&whose).map_or(0, |client| client.count);
        whose == Whose::Untold || taken < share || self.free_oldest(Some(whose))
    }

    /// Whether there is room for one more; somebody gives way for it, if need be.
    fn makes_room(&mut self, whose: Whose, count: PlaceCount) -> bool {
        let most = count.most + if whose.is_local() { count.local } else { 0 };
        self.holders.len() < most || self.free_oldest(None)
    }

    /// Takes its place from who has lain idle longest, of one client or of all.
    fn free_oldest(&mut self, whose: Option<Whose>) -> bool {
        let idle = match &whose {
            Some(whose) => self.of_clients.get(whose).map(|client| &client.idle),
            None => Some(&self.idle),
        };
        let oldest = idle.and_then(|idle| idle.first_key_value()).map(|(_, id)| *id);
        let Some(holder) = oldest.and_then(|id| self.remove(id)) else { return false };
        holder.given_up.cancel();
        true
    }

    fn lies_idle(&mut self, id: u64) {
        let now = self.number();
        let Some(holder) = self.holders.get_mut(&id) else { return };
        if holder.idle_since.is_none() {
            holder.idle_since = Some(now);
            self.idle.insert(now, id);
            self.of_clients.entry(holder.whose).or_default().idle.insert(now, id);
        }
    }

    fn is_at_work(&mut self, id: u64) {
        let Some(holder) = self.holders.get_mut(&id) else { return };
        let (whose, since) = (holder.whose, holder.idle_since.take());
        self.is_idle_no_more(whose, since);
    }

    fn is_idle_no_more(&mut self, whose: Whose, since: Option<u64>) {
        let Some(since) = since else { return };
        self.idle.remove(&since);
        if let Some(client) = self.of_clients.get_mut(&whose) {
            client.idle.remove(&since);
        }
    }

    fn remove(&mut self, id: u64) -> Option<Holder> {
        let holder = self.holders.remove(&id)?;
        self.is_idle_no_more(holder.whose, holder.idle_since);
        if let Some(client) = self.of_clients.get_mut(&holder.whose) {
            client.count = client.count.saturating_sub(1);
            if client.count == 0 {
                self.of_clients.remove(&holder.whose);
            }
        }
        Some(holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Whose {
        Whose::at(text.parse().unwrap())
    }

    /// Sixteen places, four of one client, two more for this machine.
    fn sixteen() -> Places {
        Places::new(PlaceCount::within(Some(64)))
    }

    fn is_given_up(place: &Place) -> bool {
        place.given_up.is_cancelled()
    }

    fn at_work(places: &Places, whose: Whose) -> Option<Place> {
        places.take(whose).inspect(Place::is_at_work)
    }

    #[test]
    fn places_follow_from_the_files_that_may_be_open() {
        let most = |files| PlaceCount::within(files).most();
        assert_eq!(most(None), MOST);
        assert_eq!(most(Some(1_048_576)), MOST);
        assert_eq!(most(Some(65_536)), MOST);
        assert_eq!(most(Some(1024)), 256);
        assert_eq!(most(Some(10)), LEAST);
        assert_eq!(PlaceCount::at_most(256, Some(1024)).most(), 64);
        assert_eq!(PlaceCount::at_most(256, None).most(), 256);
    }

    #[test]
    fn one_client_leaves_room_for_the_others() {
        let places = sixteen();
        let mut taken: Vec<_> = (0..4).map(|_| at_work(&places, at("10.0.0.1")).unwrap()).collect();
        assert!(at_work(&places, at("10.0.0.1")).is_none());
        assert!(at_work(&places, at("::ffff:10.0.0.1")).is_none());
        assert!(at_work(&places, at("10.0.0.2")).is_some());
        taken.pop();
        assert!(at_work(&places, at("10.0.0.1")).is_some());
        drop(taken);
        let state = places.state.lock();
        assert!(state.holders.is_empty() && state.of_clients.is_empty() && state.idle.is_empty());
    }

    #[test]
    fn what_a_client_does_not_use_gives_way_to_what_it_wants() {
        let places = sixteen();
        let held: Vec<_> = (0..4).map(|_| places.take(at("10.0.0.1")).unwrap()).collect();
        held[0].is_at_work();
        let other = places.take(at("10.0.0.2")).unwrap();
        let fifth = places.take(at("10.0.0.1")).unwrap();
        let given_up: Vec<_> = held.iter().map(is_given_up).collect();
        assert_eq!(given_up, [false, true, false, false]);
        assert!(!is_given_up(&other) && !is_given_up(&fifth));
    }

    #[test]
    fn many_clients_that_send_nothing_keep_nobody_out() {
        let places = sixteen();
        let silent: Vec<_> =
            (0..16).map(|number| places.take(at(&format!("10.0.{number}.1"))).unwrap()).collect();
        // One that has had an answer and lies idle since counts from then on.
        silent[0].is_at_work();
        silent[0].lies_idle();
        let honest = places.take(at("192.0.2.1")).unwrap();
        honest.is_at_work();
        assert!(is_given_up(&silent[1]) && !is_given_up(&silent[0]));
        assert_eq!(places.state.lock().holders.len(), 16);
        for number in 0..15 {
            let _one = places.take(at(&format!("192.0.2.{number}"))).unwrap();
        }
        assert!(!is_given_up(&honest), "what is at work stays");
        // A place that is given up is no more counted when its connection has gone.
        drop(silent);
        assert_eq!(places.state.lock().holders.len(), 1);
    }

    #[test]
    fn this_machine_has_places_of_its_own() {
        let places = sixteen();
        let _busy: Vec<_> = (0..16)
            .map(|number| at_work(&places, at(&format!("10.0.{number}.1"))).unwrap())
            .collect();
        assert!(places.take(at("10.1.0.1")).is_none());
        let first = at_work(&places, at("127.0.0.1")).unwrap();
        let _second = at_work(&places, at("::1")).unwrap();
        assert!(at_work(&places, at("127.0.0.1")).is_none());
        drop(first);
        assert!(at_work(&places, at("127.0.0.1")).is_some());
    }

    #[test]
    fn a_client_that_a_proxy_tells_counts_for_itself() {
        let places = sixteen();
        let told: Vec<_> = (0..8).map(|_| places.take(Whose::Untold).unwrap()).collect();
        let client = "10.0.0.1".parse().unwrap();
        for (number, place) in told.iter().enumerate() {
            place.is_at_work();
            assert_eq!(place.counts_for(client), number < 4, "{number}");
        }
        assert!(places.take(at("10.0.0.1")).is_none(), "wherever it comes from");
        drop(told);
        assert!(places.state.lock().of_clients.is_empty());
    }

    #[test]
    fn where_files_run_out_the_oldest_idle_connection_goes() {
        let places = sixteen();
        assert!(!places.free_one());
        let (first, second) = (places.take(at("10.0.0.1")), places.take(at("10.0.0.2")));
        assert!(places.free_one());
        assert!(is_given_up(&first.unwrap()) && !is_given_up(&second.unwrap()));
    }
}
