//! What comes from another replica now, and that no replica waits for it.
//!
//! Two replicas that each take the other for the owner of an object would wait for each other for
//! ever: each one's question waits for the download that has asked the other. So whoever is about
//! to get something from a replica says so first, and a replica that wants the same is told at once
//! to look elsewhere. No circle closes: its last side would lead to one who has said so.

use std::collections::HashMap;
use std::sync::Arc;

use entrepot_oci::{Digest, Registry};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::access::Place;

/// What is fetched, and from which registry in the end.
type Object = (Digest, Registry);

/// What comes from other replicas now; cheap to clone.
#[derive(Clone)]
pub(super) struct Hops(Arc<Inner>);

struct Inner {
    /// For which places.
    coming: Mutex<HashMap<Object, Vec<Place>>>,
    /// Changes with each that begins.
    begun: watch::Sender<()>,
}

/// Something comes from another replica, or is about to, until this is dropped.
pub(super) struct FromReplica {
    hops: Hops,
    object: Object,
    place: Place,
}

impl Default for Hops {
    fn default() -> Self {
        Self(Arc::new(Inner { coming: Mutex::default(), begun: watch::Sender::new(()) }))
    }
}

impl Hops {
    /// `digest` is about to be got from another replica. To be said before that is asked.
    pub(super) fn begin(&self, digest: &Digest, place: &Place) -> FromReplica {
        let (object, place) = ((*digest, place.registry.clone()), place.clone());
        self.0.coming.lock().entry(object.clone()).or_default().push(place.clone());
        self.0.begun.send_replace(());
        FromReplica { hops: self.clone(), object, place }
    }

    /// Whether `digest` comes for `place` from another replica, or is about to.
    pub(super) fn bring_for(&self, digest: &Digest, place: &Place) -> bool {
        let object = (*digest, place.registry.clone());
        self.0.coming.lock().get(&object).is_some_and(|places| places.contains(place))
    }

    /// Whether `digest` comes from another replica for anybody, or is about to.
    pub(super) fn bring(&self, digest: &Digest, registry: &Registry) -> bool {
        self.0.coming.lock().contains_key(&(*digest, registry.clone()))
    }

    /// What `waiting` comes to, for whoever may wait for nothing that comes from a replica; `None`
    /// as soon as it would.
    ///
    /// Cancel safe if `waiting` is.
    pub(super) async fn unless_brought<V>(
        &self,
        digest: &Digest,
        registry: &Registry,
        waiting: impl Future<Output = V>,
    ) -> Option<V> {
        let mut begun = self.0.begun.subscribe();
        let brought = async {
            while !self.bring(digest, registry) {
                // The sending end is as old as this.
                if begun.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            biased;
            () = brought => None,
            come = waiting => Some(come).filter(|_| !self.bring(digest, registry)),
        }
    }
}

impl Drop for FromReplica {
    fn drop(&mut self) {
        let mut coming = self.hops.0.coming.lock();
        let Some(places) = coming.get_mut(&self.object) else { return };
        if let Some(at) = places.iter().position(|place| *place == self.place) {
            places.swap_remove(at);
        }
        if places.is_empty() {
            coming.remove(&self.object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_oci::Algorithm;
    use std::time::Duration;

    fn digest(name: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, name)
    }

    fn place(repository: &str) -> Place {
        let registry = Registry::at(&"ghcr.io:443".parse().unwrap());
        Place { registry, repository: repository.parse().unwrap() }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_what_comes_from_a_replica() {
        let (hops, digest, other) = (Hops::default(), digest(b"a"), digest(b"b"));
        let (place, beside) = (place("a/b"), place("a/c"));
        let registry = place.registry.clone();
        let waiting = || hops.unless_brought(&digest, &registry, std::future::pending::<()>());
        let patience = Duration::from_mins(5);
        assert!(tokio::time::timeout(patience, waiting()).await.is_err(), "nothing comes");
        // What is told while somebody waits counts as what was told before.
        let telling = async {
            let _unlike = hops.begin(&other, &place);
            tokio::time::sleep(patience).await;
            hops.begin(&digest, &beside)
        };
        let (waited, coming) = tokio::join!(waiting(), telling);
        assert_eq!(waited, None);
        assert_eq!(waiting().await, None);
        let at_once = || hops.unless_brought(&digest, &registry, std::future::ready(7));
        assert_eq!(at_once().await, None, "it would be joined");
        assert!(hops.bring_for(&digest, &beside) && !hops.bring_for(&digest, &place));
        drop((hops.begin(&digest, &place), coming));
        assert_eq!(at_once().await, Some(7));
        assert!(!hops.bring(&digest, &registry) && !hops.bring(&other, &registry));
    }
}
