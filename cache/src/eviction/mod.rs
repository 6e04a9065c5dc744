//! What goes when a bound is reached, and what never does.
//!
//! The bounds: how much is kept, how much stays free, how long without use. One thread holds them,
//! woken by what is published and now and then by itself; no request waits for it. What it must
//! never do: take a pinned object, believe an index that is not complete yet, or hurt a reader (an
//! object that is being read is taken last, and is read to its end all the same).
//!
//! | file | subject |
//! |---|---|
//! | `sweep` | the thread: measure, choose, remove |
//! | `ledger` | how much room records take, and how much they may |
//! | `records` | counting them, and forgetting the oldest of a registry with too many |
//! | `partials` | what broken downloads have left |
//! | `remover` | removing without being held up by a disk that hangs |
//! | `withdrawal` | taking documents out on request |
//! | `stock` | what may be taken out of a store, and taking it out |
//! | `groups` | what leaves together: least recently used images and objects |
//! | `clock` | telling time that passed from a clock that was set |
//! | `wake` | waking the thread, and hearing from it |
//! | `pins` | what is never evicted |

mod clock;
mod groups;
pub(crate) mod ledger;
mod partials;
pub(crate) mod pins;
mod records;
mod remover;
pub(crate) mod stock;
mod sweep;
mod wake;
pub(crate) mod withdrawal;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use entrepot_oci::Digest;
use tokio::sync::oneshot;

use crate::disk::tree::Tree;
use crate::options::Bounds;
use ledger::Ledger;
use pins::Pins;
use stock::Stock;
use sweep::Sweeper;
use wake::Wake;

/// How long closing waits for a sweep to stop; it looks after every object.
const PATIENCE: Duration = Duration::from_secs(10);

/// The bounds of an open store and the way to the thread that holds them. Dropping it tells the
/// thread to end.
#[derive(Debug)]
pub(crate) struct Eviction {
    bounds: Bounds,
    stock: Arc<Stock>,
    ledger: Arc<Ledger>,
    wake: Arc<Wake>,
}

impl Eviction {
    /// Starts the thread, if there is anything to hold.
    pub(crate) fn start(bounds: Bounds, stock: Stock) -> Self {
        let (stock, ledger) = (Arc::new(stock), Arc::new(Ledger::new(bounds.max_size)));
        let eviction = Self { bounds, stock, ledger, wake: Arc::default() };
        if bounds != Bounds::default() {
            eviction.start_thread();
        }
        eviction
    }

    fn start_thread(&self) {
        let (stock, end) = (Arc::downgrade(&self.stock), self.wake.thread());
        let sweeper = Sweeper::new(self.bounds, Arc::clone(&self.ledger), Arc::clone(&self.wake));
        let work = move || {
            let _end = end;
            sweeper.run(&stock);
        };
        if let Err(error) = std::thread::Builder::new().name("eviction".to_owned()).spawn(work) {
            tracing::error!(%error, "the cache's bounds are not held: no thread for it");
        }
    }

    /// What may be taken out.
    pub(crate) fn stock(&self) -> &Arc<Stock> {
        &self.stock
    }

    /// Whether a new record may be written at `path`: its registry has a share of them. Blocks.
    pub(crate) fn admits_record(&self, tree: &Tree, path: &Path) -> bool {
        let admits = self.ledger.admits(tree, path);
        if !admits {
            self.wake.wake();
        }
        admits
    }

    /// What never goes.
    pub(crate) fn pins(&self) -> &Pins {
        &self.stock.pins
    }

    /// Something has changed: look soon. Cheap.
    pub(crate) fn wake(&self) {
        self.wake.wake();
    }

    /// Resolves when a sweep that began after this call is over, or there is none.
    pub(crate) fn ask(&self) -> oneshot::Receiver<()> {
        self.wake.ask()
    }

    /// Whether an object of `size` bytes is to be kept once it is verified. Blocks for one that is
    /// too large: a pin may need it.
    pub(crate) fn keeps(&self, digest: &Digest, size: u64) -> bool {
        let Stock { pins, .. } = &*self.stock;
        let fits = self.bounds.max_size.is_none_or(|max| size <= max);
        let is_needed = || self.stock.closure(pins.all()).contains(digest);
        fits || pins.has(digest) || is_needed()
    }

    /// Ends the thread and waits for it, but not for ever. Blocks.
    pub(crate) fn close(&self) {
        self.wake.close();
        self.wake.join(PATIENCE);
    }
}

impl Drop for Eviction {
    fn drop(&mut self) {
        self.wake.close();
    }
}
