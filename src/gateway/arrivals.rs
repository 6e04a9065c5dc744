//! What comes in now: for which image, for whom, and how fast. For people who watch.
//!
//! The store knows the digests and bytes of downloads, and no images. What belongs to an image is
//! asked for soon after its manifest, by the same client in the same repository: so an object is
//! told to belong to the image that its first client has named last there. It is a word for people,
//! on which nothing else depends.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use entrepot_oci::{Digest, Reference, Registry};
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::access::Place;
use crate::memory::{NAME, Shares, table};

/// How long the name of an image counts that nothing more of is asked for.
const IDLE: Duration = Duration::from_mins(10);
/// Within this time after a name, digests that are asked for are those of its parts.
const PARTS: Duration = Duration::from_mins(1);
/// What the speed is measured over, and how many times as long ago says nothing of now.
const WINDOW: Duration = Duration::from_secs(1);
const LONG_AGO: u32 = 5;
/// Those who wait that are named.
const MOST_NAMED: usize = 16;

/// The address of whoever has sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Asker(pub(crate) IpAddr);

/// For whom something comes: for nobody elsewhere, where the operator has it brought in.
type For = Option<Asker>;

/// What is fetched, and from where.
type Flight = (Digest, Registry);

/// Everything that comes in now. Cheap to clone.
#[derive(Clone)]
pub(super) struct Arrivals(Arc<Inner>);

struct Inner {
    under_way: Mutex<HashMap<Flight, Arc<Arrival>>>,
    /// Which image somebody has asked for last in a repository, and when that was.
    named: Cache<(Place, For), (Reference, Instant)>,
}

/// One object that comes.
pub(super) struct Arrival {
    image: String,
    readers: Mutex<BTreeMap<For, usize>>,
    pace: Mutex<Pace>,
}

/// Keeps an entry in [`Arrivals`] until it is dropped.
pub(super) struct Begun {
    arrivals: Arrivals,
    flight: Flight,
    arrival: Arc<Arrival>,
}

/// Somebody who reads what comes, until it is dropped.
pub(super) struct Follower {
    arrival: Arc<Arrival>,
    whose: For,
}

/// An object that comes, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Coming {
    /// The full name of the image that it is fetched for; without a tag where nobody has named one.
    pub image: String,
    /// For whom, in words: addresses of clients, or what the operator has begun.
    pub readers: Vec<String>,
    /// How many requests wait for it.
    pub waiting: usize,
    /// How many bytes a second have come of late.
    pub bytes_per_sec: u64,
}

impl Arrivals {
    /// Nothing comes yet.
    pub(super) fn new(shares: Shares) -> Self {
        let weight =
            |(place, _): &(Place, For), _: &(Reference, Instant)| place.weight() + 2 * NAME;
        let named = table(shares.small_table(), weight).time_to_idle(IDLE).build();
        Self(Arc::new(Inner { under_way: Mutex::default(), named }))
    }

    /// Somebody asks for a manifest: by a tag, or by a digest which may be a part of what he has
    /// named before.
    pub(super) fn named(&self, place: &Place, whose: For, reference: &Reference) {
        let key = (place.clone(), whose);
        let is_part = matches!(reference, Reference::Digest(_))
            && self.0.named.get(&key).is_some_and(|(_, since)| since.elapsed() < PARTS);
        if !is_part {
            self.0.named.insert(key, (reference.clone(), Instant::now()));
        }
    }

    /// An object begins to come that somebody has asked for.
    pub(super) fn begin(&self, digest: Digest, place: &Place, whose: For) -> Begun {
        let named = self.0.named.get(&(place.clone(), whose));
        let reference = named.map(|(reference, _)| match reference {
            Reference::Tag(tag) => format!(":{tag}"),
            Reference::Digest(digest) => format!("@{digest}"),
        });
        let Place { registry, repository } = place;
        let image = format!("{registry}/{repository}{}", reference.unwrap_or_default());
        let arrival = Arrival { image, readers: Mutex::default(), pace: Mutex::new(Pace::new()) };
        let arrival = Arc::new(arrival);
        let flight = (digest, registry.clone());
        self.0.under_way.lock().insert(flight.clone(), arrival.clone());
        Begun { arrivals: self.clone(), flight, arrival }
    }

    /// Somebody reads what comes, if it does.
    pub(super) fn follow(
        &self,
        digest: &Digest,
        registry: &Registry,
        whose: For,
    ) -> Option<Follower> {
        let key = (*digest, registry.clone());
        let arrival = self.0.under_way.lock().get(&key).cloned()?;
        *arrival.readers.lock().entry(whose).or_default() += 1;
        Some(Follower { arrival, whose })
    }

    /// What is known of an object that comes from this registry.
    pub(super) fn told(&self, digest: &Digest, registry: &str) -> Option<Coming> {
        let under_way = self.0.under_way.lock();
        // There is one of each at most, and they are few.
        let found =
            under_way.iter().find(|((it, from), _)| it == digest && from.as_str() == registry);
        let arrival = found?.1.clone();
        drop(under_way);
        Some(arrival.told())
    }
}

impl Arrival {
    /// So many bytes have come.
    pub(super) fn came(&self, bytes: usize) {
        if bytes > 0 {
            self.pace.lock().add(bytes as u64);
        }
    }

    fn told(&self) -> Coming {
        let readers = self.readers.lock();
        let named = readers.keys().take(MOST_NAMED).map(|whose| Whose(*whose).to_string());
        Coming {
            image: self.image.clone(),
            readers: named.collect(),
            waiting: readers.values().sum(),
            bytes_per_sec: self.pace.lock().per_second(),
        }
    }
}

impl Begun {
    /// What comes.
    pub(super) fn arrival(&self) -> &Arrival {
        &self.arrival
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut under_way = self.arrivals.0.under_way.lock();
        // A later download of the same digest has an entry of its own.
        if under_way.get(&self.flight).is_some_and(|it| Arc::ptr_eq(it, &self.arrival)) {
            under_way.remove(&self.flight);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut readers = self.arrival.readers.lock();
        if let Some(count) = readers.get_mut(&self.whose) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                readers.remove(&self.whose);
            }
        }
    }
}

/// For whom something comes, in a word.
struct Whose(For);

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Asker(address)) => address.to_canonical().fmt(f),
            None => f.write_str("entrepot pull"),
        }
    }
}

/// How fast bytes come.
struct Pace {
    /// When the window began, and what has come in it.
    since: Instant,
    bytes: u64,
    /// Bytes a second before that, smoothed; none before the first window is over.
    rate: Option<f64>,
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), bytes: 0, rate: None }
    }

    fn add(&mut self, bytes: u64) {
        self.turn();
        self.bytes += bytes;
    }

    fn per_second(&mut self) -> u64 {
        self.turn();
        let passed = self.since.elapsed().as_secs_f64().max(0.1);
        let rate = self.rate.unwrap_or(self.bytes_as_f64() / passed);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is not negative, and no more than a line can carry"
        )]
        let whole = rate.round() as u64;
        whole
    }

    /// Begins another window where this one is over.
    fn turn(&mut self) {
        let passed = self.since.elapsed();
        if passed < WINDOW {
            return;
        }
        let now = self.bytes_as_f64() / passed.as_secs_f64();
        // Where nothing comes any more, what came before says nothing of how long the rest takes.
        let before = self.rate.filter(|_| self.bytes > 0 && passed < WINDOW * LONG_AGO);
        self.rate = Some(before.map_or(now, |before| f64::midpoint(before, now)));
        (self.since, self.bytes) = (Instant::now(), 0);
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody reads a speed to its last digit")]
    fn bytes_as_f64(&self) -> f64 {
        self.bytes as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(repository: &str) -> Place {
        let registry = Registry::at(&"registry-1.docker.io:443".parse().unwrap());
        Place::new(&registry, &repository.parse().unwrap())
    }

    fn asker(last: u8) -> Asker {
        Asker([10, 0, 0, last].into())
    }

    fn digest(text: &str) -> Digest {
        Digest::of(entrepot_oci::Algorithm::Sha256, text.as_bytes())
    }

    fn told(arrivals: &Arrivals, blob: &str) -> Option<Coming> {
        arrivals.told(&digest(blob), "docker.io")
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_belongs_to_the_image_that_was_named_last() {
        let arrivals = Arrivals::new(Shares::new(Some(0)));
        let alpine = place("library/alpine");
        let image = |whose| {
            let begun = arrivals.begin(digest("blob"), &alpine, whose);
            let image = told(&arrivals, "blob").unwrap().image;
            drop(begun);
            image
        };
        let tag = |tag: &str| Reference::Tag(tag.parse().unwrap());
        assert_eq!(image(Some(asker(7))), "docker.io/library/alpine", "nobody has named one");
        arrivals.named(&alpine, Some(asker(7)), &tag("3.20"));
        arrivals.named(&alpine, Some(asker(7)), &Reference::Digest(digest("index")));
        arrivals.named(&alpine, Some(asker(8)), &tag("edge"));
        arrivals.named(&place("library/nginx"), Some(asker(7)), &tag("1"));
        assert_eq!(
            image(Some(asker(7))),
            "docker.io/library/alpine:3.20",
            "its parts have digests"
        );
        assert_eq!(image(Some(asker(8))), "docker.io/library/alpine:edge");
        assert_eq!(image(None), "docker.io/library/alpine");
        tokio::time::advance(PARTS).await;
        let other = digest("other");
        arrivals.named(&alpine, Some(asker(7)), &Reference::Digest(other));
        assert_eq!(image(Some(asker(7))), format!("docker.io/library/alpine@{other}"));
        assert_eq!(told(&arrivals, "blob"), None, "it has come");
    }

    #[test]
    fn those_who_wait_are_counted_while_they_do() {
        let arrivals = Arrivals::new(Shares::new(Some(0)));
        let alpine = place("library/alpine");
        let begun = arrivals.begin(digest("blob"), &alpine, Some(asker(7)));
        let follow = |whose| arrivals.follow(&digest("blob"), &alpine.registry, whose);
        let (first, second, own) = (follow(Some(asker(7))), follow(Some(asker(7))), follow(None));
        let incoming = told(&arrivals, "blob").unwrap();
        assert_eq!(incoming.readers, ["entrepot pull", "10.0.0.7"]);
        assert_eq!(incoming.waiting, 3);
        drop((second, own));
        let incoming = told(&arrivals, "blob").unwrap();
        assert_eq!(
            (incoming.readers.as_slice(), incoming.waiting),
            (&["10.0.0.7".to_owned()][..], 1)
        );
        // One that begins anew is not ended by the one before.
        let again = arrivals.begin(digest("blob"), &alpine, Some(asker(8)));
        drop(begun);
        assert_eq!(told(&arrivals, "blob").unwrap().waiting, 0);
        drop(again);
        assert!(follow(Some(asker(9))).is_none());
        drop(first);
    }

    #[tokio::test(start_paused = true)]
    async fn the_speed_is_that_of_the_last_seconds() {
        let mut pace = Pace::new();
        tokio::time::advance(Duration::from_millis(500)).await;
        pace.add(1000);
        assert_eq!(pace.per_second(), 2000, "in its first second");
        for _ in 0..20 {
            tokio::time::advance(Duration::from_millis(500)).await;
            pace.add(500);
        }
        assert!((990..=1100).contains(&pace.per_second()), "{}", pace.per_second());
        tokio::time::advance(WINDOW * LONG_AGO).await;
        pace.add(500);
        assert!(pace.per_second() <= 200, "what came long ago does not count");
        tokio::time::advance(WINDOW).await;
        pace.add(0);
        tokio::time::advance(WINDOW).await;
        assert_eq!(pace.per_second(), 0, "nothing comes any more");
    }
}
