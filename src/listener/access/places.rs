//! How many connections one client may have.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

use super::one_client;

/// Connections of one client at once, a sixteenth of all: a build server with a hundred pulls side
/// by side has fewer, and one that leaks them leaves room for the others.
const MAX_PER_CLIENT: usize = 1024;

/// Who has how many connections. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place among all connections and among those of its client, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    client: IpAddr,
    _among_all: OwnedSemaphorePermit,
}

impl Places {
    /// A place for another connection of this client's; none when it has too many.
    pub(crate) fn take(&self, client: IpAddr, among_all: OwnedSemaphorePermit) -> Option<Place> {
        let client = one_client(client);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(client).or_default();
        if *count >= MAX_PER_CLIENT {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), client, _among_all: among_all })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = taken.get_mut(&self.client) else { return };
        *count -= 1;
        if *count == 0 {
            taken.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    #[test]
    fn one_client_leaves_room_for_the_others() {
        let all = Arc::new(Semaphore::new(2 * MAX_PER_CLIENT));
        let places = Places::default();
        let take = |client: &str| {
            let among_all = all.clone().try_acquire_owned().unwrap();
            places.take(client.parse().unwrap(), among_all)
        };
        let mut taken: Vec<_> = (0..MAX_PER_CLIENT).map(|_| take("10.0.0.1").unwrap()).collect();
        assert!(take("10.0.0.1").is_none() && take("::ffff:10.0.0.1").is_none());
        assert!(take("10.0.0.2").is_some());
        assert_eq!(all.available_permits(), MAX_PER_CLIENT, "what is refused holds no place");
        taken.pop();
        assert!(take("10.0.0.1").is_some());
        drop(taken);
        assert!(places.taken.lock().unwrap().is_empty());
        assert_eq!(all.available_permits(), 2 * MAX_PER_CLIENT);
    }
}
