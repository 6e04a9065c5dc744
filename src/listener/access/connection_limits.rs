//! How many connections one client may have.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::one_client;

/// Who has how many connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimits {
    /// The most that one client may have.
    limit: usize,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A permit among all connections and among those of its client, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    limits: ConnectionLimits,
    client: IpAddr,
    _among_all: OwnedSemaphorePermit,
}

impl ConnectionLimits {
    /// At most `limit` connections for each client at once.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, taken: Arc::default() }
    }

    /// A permit for another connection of this client's; none when it has too many.
    pub(crate) fn take(
        &self,
        client: IpAddr,
        among_all: OwnedSemaphorePermit,
    ) -> Option<ConnectionPermit> {
        let client = one_client(client);
        let mut taken = self.taken.lock();
        let count = taken.entry(client).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(ConnectionPermit { limits: self.clone(), client, _among_all: among_all })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut taken = self.limits.taken.lock();
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
        const LIMIT: usize = 3;
        let all = Arc::new(Semaphore::new(2 * LIMIT));
        let limits = ConnectionLimits::new(LIMIT);
        let take = |client: &str| {
            let among_all = all.clone().try_acquire_owned().unwrap();
            limits.take(client.parse().unwrap(), among_all)
        };
        let mut taken: Vec<_> = (0..LIMIT).map(|_| take("10.0.0.1").unwrap()).collect();
        assert!(take("10.0.0.1").is_none() && take("::ffff:10.0.0.1").is_none());
        assert!(take("10.0.0.2").is_some());
        assert_eq!(all.available_permits(), LIMIT, "what is refused holds no place");
        taken.pop();
        assert!(take("10.0.0.1").is_some());
        drop(taken);
        assert!(limits.taken.lock().is_empty());
        assert_eq!(all.available_permits(), 2 * LIMIT);
    }
}
