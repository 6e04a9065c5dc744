//! Who is there: the addresses behind the names that the operator gives, each asked after its
//! health.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use entrepot_oci::{Authority, Digest};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::client::{Member, Peer, Ways};
use super::health::{self, Heard};
use super::owner::owner;
use crate::metrics::Metrics;
use crate::upstream::Dialer;
use crate::upstream::reach::OwnListeners;
use crate::upstream::resolve::Resolver;

/// How often names are looked up, and how long at most that may take.
const LOOKUPS: Duration = Duration::from_secs(5);
/// How often each address is asked.
const QUESTIONS: Duration = Duration::from_secs(2);
/// So many questions in a row that are not answered: nobody is there.
const SILENCES: u32 = 3;
/// Addresses that are asked; more are no fleet, but a name that leads astray.
const MOST: usize = 128;

/// The replicas that are known.
pub(super) struct Members {
    own_id: String,
    names: Vec<Authority>,
    ways: Ways,
    metrics: Metrics,
    dialer: Dialer,
    resolver: Resolver,
    /// By address, whether anybody is there or not.
    places: Mutex<BTreeMap<SocketAddr, Place>>,
    /// There is an address that nobody has been asked about.
    news: Notify,
    /// Those that are there, each once, without this one.
    present: ArcSwap<Vec<Arc<Member>>>,
}

/// An address, and what is known of who is there.
#[derive(Default)]
struct Place {
    state: State,
    silences: u32,
}

#[derive(Default)]
enum State {
    /// Nobody has been heard yet.
    #[default]
    Unknown,
    /// This very process.
    Own,
    There(Arc<Member>),
    Away(String),
}

/// What is known of one address, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Which.
    pub address: SocketAddr,
    /// Who is there.
    pub id: Option<String>,
    /// Whether it fetches anything for others.
    pub standing: Standing,
}

/// Whether a replica fetches anything for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does.
    Present,
    /// This is it.
    Own,
    /// It does not, for this reason.
    Away(String),
}

impl Members {
    pub(super) fn new(
        own_id: String,
        names: Vec<Authority>,
        own: OwnListeners,
        ways: Ways,
        metrics: Metrics,
    ) -> Self {
        Self {
            own_id,
            names,
            dialer: Dialer::straight(health::PATIENCE, own, ways.trust.clone()),
            ways,
            metrics,
            resolver: Resolver::default(),
            places: Mutex::default(),
            news: Notify::new(),
            present: ArcSwap::default(),
        }
    }

    /// The replica that fetches `digest` for all, where it is another.
    pub(super) fn owner(&self, digest: &Digest) -> Option<Peer> {
        let present = self.present.load();
        let others = present.iter().filter(|member| member.shunned().is_none());
        let others = others.map(|member| (member.id.as_str(), Some(member)));
        let own = std::iter::once((self.own_id.as_str(), None));
        owner(others.chain(own), digest).flatten().map(|member| Peer(member.clone()))
    }

    /// Finds out who is there. Never ends.
    pub(super) async fn keep(&self) {
        tokio::join!(self.keep_looking(), self.keep_asking());
    }

    async fn keep_looking(&self) {
        let mut known = vec![Vec::new(); self.names.len()];
        loop {
            let lookups = self.names.iter().zip(&mut known).map(|(name, known)| async move {
                let found = self.resolver.addresses(name.host(), name.port());
                match timeout(LOOKUPS, found).await {
                    Ok(Ok(found)) => *known = found,
                    // What was there a moment ago is there still, as far as it answers.
                    Ok(Err(error)) => {
                        tracing::debug!(%name, %error, "replicas could not be looked up");
                    }
                    Err(_) => tracing::debug!(%name, "no name server answers about replicas"),
                }
            });
            join_all(lookups).await;
            self.found(known.iter().flatten().copied().collect());
            sleep(LOOKUPS).await;
        }
    }

    async fn keep_asking(&self) {
        loop {
            let next = Instant::now() + QUESTIONS;
            let places: Vec<_> = self.places.lock().keys().copied().collect();
            let asking = places.into_iter().map(|address| async move {
                let heard = health::ask(&self.dialer, address).await;
                self.heard(address, heard);
            });
            join_all(asking).await;
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.news.notified() => {}
            }
        }
    }

    /// The names lead to these addresses now.
    fn found(&self, addresses: BTreeSet<SocketAddr>) {
        if addresses.len() > MOST {
            let count = addresses.len();
            tracing::warn!(
                count,
                "peers.names lead to more than {MOST} addresses: some are not asked"
            );
        }
        let mut places = self.places.lock();
        let addresses: BTreeSet<_> = addresses.into_iter().take(MOST).collect();
        // What comes from one that is not there for new questions may come to its end.
        places.retain(|address, _| addresses.contains(address));
        let known = places.len();
        for address in addresses {
            places.entry(address).or_default();
        }
        if places.len() > known {
            self.news.notify_one();
        }
        self.publish(&places);
    }

    /// This was heard when somebody was asked at `address`.
    fn heard(&self, address: SocketAddr, heard: Heard) {
        let mut places = self.places.lock();
        let Some(place) = places.get_mut(&address) else { return };
        place.silences = if heard == Heard::Silence { place.silences + 1 } else { 0 };
        let state = match heard {
            Heard::Silence if place.silences < SILENCES => return,
            Heard::Silence => {
                if let State::There(member) = &place.state {
                    member.gone.cancel();
                }
                State::Away("it does not answer".to_owned())
            }
            Heard::Nobody(reason) => State::Away(reason),
            Heard::Own => State::Own,
            Heard::Here(id) if id == self.own_id => State::Own,
            Heard::Here(id) => match &place.state {
                State::There(member) if member.id == id => return,
                _ => {
                    let metrics = self.metrics.clone();
                    State::There(Arc::new(Member::new(id, address, &self.ways, metrics)))
                }
            },
        };
        tell(address, &place.state, &state);
        place.state = state;
        self.publish(&places);
    }

    fn publish(&self, places: &BTreeMap<SocketAddr, Place>) {
        let members = places.values().filter_map(|place| match &place.state {
            State::There(member) => Some(member),
            State::Unknown | State::Own | State::Away(_) => None,
        });
        // One that has several addresses is one.
        let by_id = members.map(|member| (member.id.as_str(), member)).rev();
        let present: BTreeMap<_, _> = by_id.collect();
        let present: Vec<_> = present.into_values().cloned().collect();
        self.metrics.peers_present(present.len() as u64 + 1);
        self.present.store(Arc::new(present));
    }

    /// What is known, for people.
    pub(super) fn told(&self) -> Vec<Told> {
        let places = self.places.lock();
        places.iter().map(|(address, place)| told(*address, &place.state, &self.own_id)).collect()
    }
}

fn told(address: SocketAddr, state: &State, own_id: &str) -> Told {
    let (id, standing) = match state {
        State::Unknown => (None, Standing::Away("it has not answered yet".to_owned())),
        State::Own => (Some(own_id.to_owned()), Standing::Own),
        State::There(member) => {
            let standing = member.shunned().map_or(Standing::Present, Standing::Away);
            (Some(member.id.clone()), standing)
        }
        State::Away(reason) => (None, Standing::Away(reason.clone())),
    };
    Told { address, id, standing }
}

/// Tells the operator who comes and goes.
fn tell(address: SocketAddr, before: &State, now: &State) {
    match (before, now) {
        (_, State::There(member)) => {
            tracing::info!(%address, id = member.id, "a replica is there");
        }
        (State::There(member), State::Away(reason)) => {
            tracing::warn!(%address, id = member.id, reason, "a replica is away");
        }
        (State::Unknown, State::Away(reason)) => {
            tracing::info!(%address, reason, "no replica is there yet");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Timeouts;
    use crate::upstream::trust::Trust;
    use entrepot_ca::Authority as Ca;
    use entrepot_oci::Algorithm;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_util::task::TaskTracker;

    /// A replica called `own` that looks names up in this table.
    fn members(name: &str, table: &[(&str, &[&str])]) -> Members {
        let directory = tempfile::tempdir().unwrap();
        let ca = Ca::open(directory.path(), &entrepot_ca::Options::default()).unwrap();
        let second = Duration::from_secs(1);
        let ways = Ways {
            trust: Trust::only(ca.issuer().clone()).unwrap(),
            credential: None,
            timeouts: Timeouts { connect: second, header: second, idle: second },
        };
        let table = table.iter().map(|(name, addresses)| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap());
            ((*name).to_owned(), addresses.collect())
        });
        let resolver = Resolver::Table(table.collect());
        let (names, own) = (vec![name.parse().unwrap()], OwnListeners::default());
        let members = Members::new("own".to_owned(), names, own, ways, Metrics::default());
        Members { resolver, ..members }
    }

    fn here(members: &Members, address: &str, id: &str) {
        members.heard(address.parse().unwrap(), Heard::Here(id.to_owned()));
    }

    fn present(members: &Members) -> Vec<String> {
        members.present.load().iter().map(|member| member.id.clone()).collect()
    }

    fn standings(members: &Members) -> Vec<Standing> {
        members.told().into_iter().map(|told| told.standing).collect()
    }

    /// Listens there, and says that it is this replica.
    async fn answering(address: &str, port: u16, id: &'static str) -> Option<u16> {
        let listener = TcpListener::bind((address, port)).await.ok()?;
        let port = listener.local_addr().unwrap().port();
        TaskTracker::new().spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut question = [0; 512];
                let _ = stream.read(&mut question).await;
                let answer =
                    format!("HTTP/1.1 200 OK\r\nEntrepot-Id: {id}\r\nContent-Length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Some(port)
    }

    #[tokio::test]
    async fn every_address_behind_a_name_is_asked_who_is_there() {
        let port = loop {
            let Some(port) = answering("127.0.0.1", 0, "a").await else { continue };
            let (b, own) = (answering("127.0.0.2", port, "b"), answering("127.0.0.3", port, "own"));
            // Somebody else may have that port there: then another is tried.
            if let (Some(_), Some(_)) = (b.await, own.await) {
                break port;
            }
        };
        let all = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"];
        let members = members(&format!("peers.test:{port}"), &[("peers.test", &all)]);
        let found = async {
            while present(&members).len() < 2 || members.told().len() < 4 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = members.keep() => {}
            () = found => {}
        }
        assert_eq!(present(&members), ["a", "b"], "without this one");
    }

    #[tokio::test]
    async fn a_name_that_leads_nowhere_for_a_moment_takes_nobody_away() {
        let members = members("peers.test:3128", &[]);
        let mut looking = std::pin::pin!(members.keep_looking());
        assert!(futures_util::poll!(&mut looking).is_pending());
        assert_eq!(members.told(), []);
    }

    #[tokio::test]
    async fn who_is_silent_three_times_or_refuses_once_is_away() {
        let members = members("peers.test:3128", &[]);
        let address: SocketAddr = "10.0.0.1:3128".parse().unwrap();
        members.found([address].into());
        assert_eq!(present(&members), [""; 0]);
        here(&members, "10.0.0.1:3128", "a");
        let gone = members.present.load()[0].gone.clone();
        for _ in 1..SILENCES {
            members.heard(address, Heard::Silence);
            assert_eq!(present(&members), ["a"]);
        }
        members.heard(address, Heard::Silence);
        assert_eq!((present(&members).len(), gone.is_cancelled()), (0, true));
        here(&members, "10.0.0.1:3128", "a");
        assert_eq!(present(&members), ["a"]);
        let draining = members.present.load()[0].gone.clone();
        members.heard(address, Heard::Nobody("refused".to_owned()));
        assert_eq!(present(&members), [""; 0]);
        assert_eq!(standings(&members), [Standing::Away("refused".to_owned())]);
        assert!(!draining.is_cancelled(), "what it has begun it brings to its end");
        // Three in a row, whatever was before.
        here(&members, "10.0.0.1:3128", "a");
        members.heard(address, Heard::Silence);
        assert_eq!(present(&members), ["a"]);
        members.found(BTreeSet::new());
        assert_eq!((present(&members).len(), members.told().len()), (0, 0));
    }

    #[tokio::test]
    async fn one_with_several_addresses_is_one_and_this_one_is_none() {
        let members = members("peers.test:3128", &[]);
        let addresses = ["10.0.0.1:3128", "10.0.0.2:3128", "10.0.0.3:3128", "[fd00::1]:3128"];
        members.found(addresses.map(|address| address.parse().unwrap()).into());
        here(&members, "10.0.0.1:3128", "a");
        here(&members, "[fd00::1]:3128", "a");
        here(&members, "10.0.0.2:3128", "own");
        members.heard("10.0.0.3:3128".parse().unwrap(), Heard::Own);
        assert_eq!(present(&members), ["a"]);
        assert_eq!(members.present.load()[0].address, "10.0.0.1:3128".parse().unwrap());
        let [a, own, also_own, again] = standings(&members).try_into().unwrap();
        assert_eq!((a, again), (Standing::Present, Standing::Present));
        assert_eq!((own, also_own), (Standing::Own, Standing::Own));
        // After a restart it is another, by connections of its own.
        here(&members, "10.0.0.1:3128", "b");
        assert_eq!(present(&members), ["a", "b"]);
    }

    #[tokio::test]
    async fn what_this_one_owns_is_asked_of_nobody() {
        let members = members("peers.test:3128", &[]);
        let digests = (0..100u8).map(|n| Digest::of(Algorithm::Sha256, &[n]));
        assert!(digests.clone().all(|digest| members.owner(&digest).is_none()));
        members.found(["10.0.0.1:3128".parse().unwrap()].into());
        here(&members, "10.0.0.1:3128", "a");
        let others = digests.filter(|digest| members.owner(digest).is_some()).count();
        assert!((30..70).contains(&others), "{others}");
    }
}
