//! Names to addresses.
//!
//! Nothing is kept: the system's resolver has its own memory, and a failure that is remembered
//! here would outlive its cause. What runs is shared: getaddrinfo(3) can't be called off, and a
//! name whose servers are silent would else take a thread for each request that gave up on it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use entrepot_oci::Host;

/// Lookups at once: each takes a thread of the blocking pool, which the store's reads need too.
const MAX_LOOKUPS: usize = 64;

/// Who turns names into addresses.
#[derive(Debug, Clone)]
pub enum Resolver {
    /// The system's: `/etc/hosts`, every name server, search lists.
    System(Lookups),
    /// A table, for tests.
    Table(Vec<(String, Vec<IpAddr>)>),
    /// One that never answers, for tests.
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
    /// The addresses of `host`, each with this port, in the resolver's order. Takes as long as the
    /// resolver does.
    ///
    /// Cancel safe: the lookup goes on, for whoever asks next.
    pub(super) async fn addresses(&self, host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
        let name = match host {
            Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, port)]),
            Host::Name(name) => name,
        };
        let found = match self {
            Self::System(lookups) => lookups.look_up(name).await?,
            Self::Silent => std::future::pending().await,
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
type Running = Shared<BoxFuture<'static, Found>>;

/// The lookups that run, one a name; cheap to clone.
#[derive(Clone)]
pub struct Lookups {
    parts: Arc<Parts>,
}

struct Parts {
    look_up: Box<LookUp>,
    under_way: Mutex<HashMap<String, Running>>,
    places: Arc<Semaphore>,
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lookups({})", self.parts.under_way.lock().len())
    }
}

impl Lookups {
    fn new(look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        let (under_way, places) = (Mutex::default(), Arc::new(Semaphore::new(MAX_LOOKUPS)));
        Self { parts: Arc::new(Parts { look_up: Box::new(look_up), under_way, places }) }
    }

    async fn look_up(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let running = self.parts.under_way.lock().get(name).cloned();
        let running = if let Some(running) = running {
            running
        } else {
            let places = self.parts.places.clone();
            let place = places.acquire_owned().await.map_err(io::Error::other)?;
            self.begun(name, place)
        };
        running.await.map_err(|(kind, words)| io::Error::new(kind, words))
    }

    /// The lookup of this name that runs meanwhile, or a new one in this place.
    fn begun(&self, name: &str, place: OwnedSemaphorePermit) -> Running {
        let mut under_way = self.parts.under_way.lock();
        if let Some(running) = under_way.get(name) {
            return running.clone();
        }
        let entry = Entry { parts: self.parts.clone(), name: name.to_owned(), _place: place };
        let task = tokio::task::spawn_blocking(move || (entry.parts.look_up)(&entry.name));
        let found = task.map(|ended| match ended {
            Ok(found) => found.map_err(|error| (error.kind(), error.to_string())),
            Err(error) => Err((io::ErrorKind::Other, error.to_string())),
        });
        let running = found.boxed().shared();
        under_way.insert(name.to_owned(), running.clone());
        running
    }
}

/// A lookup's entry: gone when the lookup ends, whether somebody has waited for it or not, so that
/// nobody is given what was found long ago.
struct Entry {
    parts: Arc<Parts>,
    name: String,
    _place: OwnedSemaphorePermit,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.parts.under_way.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            while lookups.parts.under_way.lock().is_empty() {
                tokio::task::yield_now().await;
            }
            answers.send(Ok(vec![address])).unwrap();
        };
        let ((first, second), ()) = tokio::join!(asking, answering);
        assert_eq!((first.unwrap(), second.unwrap()), (vec![address], vec![address]));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert!(lookups.parts.under_way.lock().is_empty(), "nothing is kept");
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
        assert_eq!(lookups.parts.places.available_permits(), MAX_LOOKUPS - 1);
        // The next one to ask gets what comes at last.
        let answering = async { answers.send(Ok(Vec::new())).unwrap() };
        let (found, ()) = tokio::join!(lookups.look_up("silent.test"), answering);
        assert!(found.is_ok());
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}
