//! Names to addresses.
//!
//! Nothing is kept: the system's resolver has its own memory, and a failure that is remembered here
//! would outlive its cause. What runs is shared: getaddrinfo(3) can't be called off, and a name
//! whose servers are silent would else take a thread for each request that gave up on it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use entrepot_oci::Host;
use tokio::sync::Semaphore;

use crate::collapse::{Collapse, Permit, Turn};

/// Lookups at once: each takes a thread of the blocking pool, which the store's reads need too.
const MAX_LOOKUPS: usize = 64;
/// How long at a time another's lookup is waited for; each caller has a timeout of its own.
const PATIENCE: Duration = Duration::from_mins(1);

/// Who turns names into addresses.
#[derive(Debug, Clone)]
pub(crate) enum Resolver {
    /// The system's: `/etc/hosts`, every name server, search lists.
    System(Lookups),
    /// A table.
    #[cfg(test)]
    Table(Vec<(String, Vec<IpAddr>)>),
    /// One that never answers.
    #[cfg(test)]
    Silent,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::System(Lookups::new(|name| {
            let found = (name, 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        }))
    }
}

impl Resolver {
    /// Another of the same kind, which shares no lookup with this one.
    pub(super) fn anew(&self) -> Self {
        match self {
            Self::System(_) => Self::default(),
            #[cfg(test)]
            other => other.clone(),
        }
    }

    /// The addresses of `host`, each with this port, in the resolver's order. Takes as long as the
    /// resolver does.
    ///
    /// Cancel safe: the lookup goes on, for the next caller.
    pub(crate) async fn addresses(&self, host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
        let name = match host {
            Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, port)]),
            Host::Name(name) => name,
        };
        let found = match self {
            Self::System(lookups) => lookups.look_up(name).await?,
            #[cfg(test)]
            Self::Silent => std::future::pending().await,
            #[cfg(test)]
            Self::Table(table) => table
                .iter()
                .find(|(known, _)| *known == **name)
                .map(|(_, ips)| ips.clone())
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "not in the table"))?,
        };
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }
}

type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;
/// Errors can't be shared themselves.
type Found = Result<Vec<IpAddr>, (io::ErrorKind, String)>;

/// The lookups that run, one a name; cheap to clone.
#[derive(Clone)]
pub(crate) struct Lookups {
    look_up: Arc<LookUp>,
    running: Collapse<String, Found>,
    places: Arc<Semaphore>,
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookups")
    }
}

impl Lookups {
    fn new(look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        let (look_up, places) = (Arc::new(look_up), Arc::new(Semaphore::new(MAX_LOOKUPS)));
        Self { look_up, running: Collapse::default(), places }
    }

    /// Cancel safe: the lookup goes on, for the next caller.
    async fn look_up(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        loop {
            let found = match self.running.turn(name.to_owned(), PATIENCE).await {
                Turn::Told(found) => found,
                Turn::Late | Turn::GivenUp => continue,
                Turn::Lead(permit) => self.run(name, permit).await?,
            };
            return found.map_err(|(kind, words)| io::Error::new(kind, words));
        }
    }

    /// Looks `name` up. The answer is told by the thread that does it, to all who wait then.
    async fn run(&self, name: &str, permit: Permit<String, Found>) -> io::Result<Found> {
        let place = self.places.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (look_up, name) = (self.look_up.clone(), name.to_owned());
        let task = tokio::task::spawn_blocking(move || {
            let found = look_up(&name).map_err(|error| (error.kind(), error.to_string()));
            drop(place);
            permit.tell(found.clone());
            found
        });
        task.await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    /// Lookups that end with what is sent, and how many there were.
    fn scripted() -> (Lookups, mpsc::Sender<io::Result<Vec<IpAddr>>>, Arc<AtomicUsize>) {
        let (sender, receiver) = mpsc::channel();
        let (receiver, count) = (Mutex::new(receiver), Arc::new(AtomicUsize::new(0)));
        let counted = count.clone();
        let lookups = Lookups::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            receiver.lock().recv().unwrap_or_else(|_| Ok(Vec::new()))
        });
        (lookups, sender, count)
    }

    #[tokio::test]
    async fn who_asks_meanwhile_shares_the_lookup() {
        let (lookups, answers, count) = scripted();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let asking = async { tokio::join!(lookups.look_up("a.test"), lookups.look_up("a.test")) };
        let answering = async {
            while lookups.running.is_empty() {
                tokio::task::yield_now().await;
            }
            answers.send(Ok(vec![address])).unwrap();
        };
        let ((first, second), ()) = tokio::join!(asking, answering);
        assert_eq!((first.unwrap(), second.unwrap()), (vec![address], vec![address]));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert!(lookups.running.is_empty(), "nothing is kept");
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered() {
        let (lookups, answers, _) = scripted();
        answers.send(Err(io::Error::new(io::ErrorKind::NotFound, "no such name"))).unwrap();
        let failed = lookups.look_up("a.test").await.unwrap_err();
        assert_eq!(
            (failed.kind(), failed.to_string().as_str()),
            (io::ErrorKind::NotFound, "no such name")
        );
        answers.send(Ok(vec!["192.0.2.1".parse().unwrap()])).unwrap();
        assert_eq!(lookups.look_up("a.test").await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_name_that_nobody_answers_for_takes_one_place() {
        let (lookups, answers, count) = scripted();
        for _ in 0..2 * MAX_LOOKUPS {
            let given_up = tokio::time::timeout(Duration::ZERO, lookups.look_up("silent.test"));
            assert!(given_up.await.is_err());
        }
        assert_eq!(lookups.places.available_permits(), MAX_LOOKUPS - 1);
        // The next one to ask gets what comes at last.
        let answering = async { answers.send(Ok(Vec::new())).unwrap() };
        let (found, ()) = tokio::join!(lookups.look_up("silent.test"), answering);
        assert!(found.is_ok());
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}
