//! Hints: sizes, last use, hits, what needs what. Never the truth.
//!
//! It lives in memory. One owner thread reads it from the engine at the start, walks the tree when
//! what it read can't be complete, and writes changes in batches; no request ever waits for it.
//! When the engine fails in any way (error, panic, full disk) there is one log line, the engine's
//! directory is moved aside, and everything goes on in memory; the next start rebuilds it.
//!
//! | file | subject |
//! |---|---|
//! | `state` | what it says: of itself, of one object, and in sum |
//! | `owner` | the thread that reads, walks and writes |
//! | `sled_engine`, `engine` | what keeps it on disk: sled, behind a seam |
//! | `codec` | keys and checksummed values |
//! | `table` | the hints in memory |
//! | `node` | what eviction needs to know of a kept object |
//! | `references` | which other objects a document needs |

pub(crate) mod codec;
pub(crate) mod engine;
pub(crate) mod node;
mod owner;
pub(crate) mod references;
#[expect(clippy::disallowed_methods, reason = "the engine has files of its own")]
mod sled_engine;
pub(crate) mod state;
mod table;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use entrepot_oci::{Digest, UnixSeconds};
use parking_lot::Mutex;

use crate::disk::lock::Lock;
use crate::disk::tree::Tree;
use engine::Opener;
use node::{Candidate, Node};
use owner::Owner;
use references::{Interpreter, References};
use state::{IndexState, Kept, Knowledge, Totals};
use table::Table;
pub(crate) use table::{Proof, TakenOut};

/// How long closing waits for the last batch; the index is not worth more.
const PATIENCE: Duration = Duration::from_secs(10);

/// How documents are read, and how many bytes of memory what they need may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Documents {
    pub(crate) interpreter: Interpreter,
    pub(crate) room: u64,
}

/// The hints of an open store.
#[derive(Debug)]
pub(crate) struct Index {
    table: Arc<Mutex<Table>>,
    owner: Mutex<Option<OwnerThread>>,
}

#[derive(Debug)]
struct OwnerThread {
    /// Dropping it tells the owner to write a last batch and end.
    alive: Sender<()>,
    /// Disconnected when the owner has ended.
    ended: Receiver<()>,
}

impl Index {
    /// Starts the owner on the index of `tree`. Blocks for three file calls: from here on the index
    /// is not taken for complete by who comes next, however this process ends.
    ///
    /// `lock` is the store's: it is not given back before the owner has ended.
    pub(crate) fn start(tree: Tree, documents: Documents, lock: Arc<Lock>) -> Self {
        let promise = sled_engine::take_clean(&tree);
        let opener = Box::new(move |tree: &Tree| sled_engine::open(tree, promise));
        Self::start_with(tree, documents, Some(lock), opener)
    }

    #[cfg(test)]
    pub(crate) fn start_young(tree: Tree, documents: Documents, _: Arc<Lock>) -> Self {
        let never = |_: &Tree| {
            loop {
                std::thread::park();
            }
        };
        Self::start_with(tree, documents, None, Box::new(never))
    }

    fn start_with(
        tree: Tree,
        documents: Documents,
        lock: Option<Arc<Lock>>,
        opener: Opener,
    ) -> Self {
        let Documents { interpreter: documents, room } = documents;
        let table = Arc::new(Mutex::new(Table::new(room)));
        let (alive, closed) = channel();
        let (at_work, ended) = channel();
        let owner = Owner::new(Arc::clone(&table), tree, documents, closed);
        let work = move || {
            let _at_work: Sender<()> = at_work;
            owner.run(opener);
            drop(lock);
        };
        let running = match std::thread::Builder::new().name("index".to_owned()).spawn(work) {
            Ok(_detached) => Some(OwnerThread { alive, ended }),
            Err(error) => {
                tracing::warn!(%error, "index not available: no thread for it");
                table.lock().state = IndexState::InMemory;
                None
            }
        };
        Self { table, owner: Mutex::new(running) }
    }

    /// Writes a last batch and waits for the owner, but not for ever. Blocks.
    pub(crate) fn close(&self) {
        let Some(OwnerThread { alive, ended }) = self.owner.lock().take() else { return };
        drop(alive);
        if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the index's last batch takes too long; it is left behind");
        }
    }

    /// An object of `size` bytes has been published in `tree`. Blocks only after
    /// [`close`](Self::close): then the index must not claim to be whole.
    pub(crate) fn added(&self, tree: &Tree, digest: &Digest, size: u64, references: References) {
        let mut table = self.table.lock();
        table.add(digest, size, UnixSeconds::now(), Proof::Sound);
        table.learn(digest, references);
        let is_late = table.came_late();
        drop(table);
        if is_late {
            let _ = sled_engine::take_clean(tree);
        }
    }

    /// What a kept object needs has become known.
    pub(crate) fn learnt(&self, digest: &Digest, references: References) {
        self.table.lock().learn(digest, references);
    }

    #[cfg(test)]
    pub(crate) fn reference_bytes(&self) -> u64 {
        self.table.lock().reference_bytes()
    }

    /// What an object needs, as far as that is known.
    pub(crate) fn references(&self, digest: &Digest) -> References {
        self.table.lock().references(digest)
    }

    /// A kept object of `size` bytes has been found on disk.
    pub(crate) fn found(&self, digest: &Digest, size: u64) {
        let mut table = self.table.lock();
        if !table.knows(digest) {
            table.add(digest, size, UnixSeconds::now(), Proof::None);
        }
    }

    /// A kept object, known already, has been asked for.
    pub(crate) fn used(&self, digest: &Digest) {
        self.table.lock().touch(digest, UnixSeconds::now());
    }

    /// Nobody has read what has just been published to its end: it goes before all that somebody
    /// wants, until it has been [read](Self::warmed). Only this run knows.
    pub(crate) fn cool(&self, digest: &Digest) {
        self.table.lock().cool(digest);
    }

    /// Whether nobody has read it since it came.
    pub(crate) fn is_cold(&self, digest: &Digest) -> bool {
        self.table.lock().is_cold(digest)
    }

    /// What nobody had read has been read.
    pub(crate) fn warmed(&self, digest: &Digest) {
        self.table.lock().warm(digest, UnixSeconds::now());
    }

    /// A damaged object was set aside.
    pub(crate) fn quarantined(&self) {
        self.table.lock().count_quarantined();
    }

    /// An object is no longer kept.
    pub(crate) fn removed(&self, digest: &Digest) {
        self.table.lock().remove(digest);
    }

    /// An object that this index knew, last used at `tick`, was not found.
    pub(crate) fn missed(&self, digest: &Digest, tick: Option<u64>) {
        let mut table = self.table.lock();
        if tick.is_some() && table.tick(digest) == tick {
            table.remove(digest);
        }
    }

    /// An object, which came at the tick `added`, was taken out.
    pub(crate) fn taken_out(&self, candidate: &Candidate, added: Option<u64>, why: TakenOut) {
        self.table.lock().take_out(candidate, added, why);
    }

    /// At which tick of this run an object came, to tell it from one that came later.
    pub(crate) fn added_at(&self, digest: &Digest) -> Option<u64> {
        self.table.lock().added(digest)
    }

    /// At which tick of this run an object was last used; 0: it was not used in this run.
    pub(crate) fn tick(&self, digest: &Digest) -> Option<u64> {
        self.table.lock().tick(digest)
    }

    /// What eviction needs to know of an object.
    pub(crate) fn node(&self, digest: &Digest) -> Option<Node> {
        self.table.lock().node(digest, UnixSeconds::now())
    }

    /// Everything that is known, in no order: a copy, so that the lock is not held while it is
    /// looked at.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        self.table.lock().nodes(UnixSeconds::now())
    }

    /// Whether an object of more than `size` bytes is kept.
    pub(crate) fn has_larger(&self, size: u64) -> bool {
        self.table.lock().has_larger(size)
    }

    /// Whether everything that is kept is known.
    pub(crate) fn is_complete(&self) -> bool {
        self.table.lock().complete
    }

    /// Whether there was nothing to read: then what was used before this run is not known.
    pub(crate) fn is_rebuilt(&self) -> bool {
        self.table.lock().rebuilt
    }

    /// What is known of an object, in one look.
    pub(crate) fn knowledge(&self, digest: &Digest) -> Knowledge {
        let table = self.table.lock();
        if table.proof(digest) == Proof::Damaged {
            return Knowledge::NotKept;
        }
        match (table.knows(digest), table.complete) {
            (true, _) => Knowledge::Kept,
            (false, true) => Knowledge::NotKept,
            (false, false) => Knowledge::NotYet,
        }
    }

    /// What this process itself knows of an object's bytes.
    pub(crate) fn proof(&self, digest: &Digest) -> Proof {
        self.table.lock().proof(digest)
    }

    /// A kept object has been verified.
    pub(crate) fn proved(&self, digest: &Digest) {
        self.table.lock().prove(digest, Proof::Sound);
    }

    /// A kept object is damaged and stays in place: it counts as absent from now on.
    pub(crate) fn condemned(&self, digest: &Digest) {
        self.table.lock().prove(digest, Proof::Damaged);
    }

    /// The size that a kept object is known to have.
    pub(crate) fn size(&self, digest: &Digest) -> Option<u64> {
        self.table.lock().size(digest)
    }

    /// What is known of at most `limit` objects behind `after`, in their order.
    pub(crate) fn kept(&self, after: Option<&Digest>, limit: usize) -> Vec<Kept> {
        self.table.lock().kept(after, limit)
    }

    /// What is known of one object.
    pub(crate) fn find(&self, digest: &Digest) -> Option<Kept> {
        self.table.lock().find(digest)
    }

    pub(crate) fn totals(&self) -> Totals {
        self.table.lock().totals()
    }

    pub(crate) fn state(&self) -> IndexState {
        self.table.lock().state
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests look at the files, and damage them")]
mod tests;
