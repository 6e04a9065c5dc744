//! The one thread that reads and writes the index, behind a fence.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use entrepot_oci::Digest;
use parking_lot::Mutex;

use super::engine::{Engine, EngineError, Hint, Last, Loaded, Opener};
use super::references::Interpreter;
use super::sled_engine::{move_aside, take_clean};
use super::state::IndexState;
use super::table::{LastBatch, Table};
use crate::disk::tree::Tree;

/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_secs(5);
/// How many documents are looked for at a time that have not been read.
const READ_AT_ONCE: usize = 1024;

pub(super) struct Owner {
    table: Arc<Mutex<Table>>,
    tree: Tree,
    documents: Interpreter,
    /// Disconnected when the store is closed or gone.
    closed: Receiver<()>,
}

impl Owner {
    pub(super) const fn new(
        table: Arc<Mutex<Table>>,
        tree: Tree,
        documents: Interpreter,
        closed: Receiver<()>,
    ) -> Self {
        Self { table, tree, documents, closed }
    }

    /// Reads, walks if need be, then writes batches until the store is closed.
    pub(super) fn run(self, opener: Opener) {
        let mut engine = self.fenced(|| opener(&self.tree));
        let Loaded { count, clean } = self.load(engine.as_mut());
        self.table.lock().rebuilt = count == 0;
        let is_whole = clean || self.rebuild();
        self.read_documents();
        self.settle();
        while self.closed.recv_timeout(GATHER) == Err(RecvTimeoutError::Timeout) {
            self.write(engine.as_mut());
        }
        self.write_last(engine.as_mut(), is_whole);
        let _ = self.fenced(|| {
            drop(engine);
            Ok(())
        });
    }

    /// Takes over what the engine has, one by one: a start needs no more memory than a run did.
    fn load(&self, engine: Option<&mut Box<dyn Engine>>) -> Loaded {
        let mut take_over = |digest: Digest, hint: Hint| self.table.lock().merge(&digest, hint);
        let loaded = |engine: &mut Box<dyn Engine>| self.fenced(|| engine.load(&mut take_over));
        engine.and_then(loaded).unwrap_or_default()
    }

    /// Learns from the tree what is kept, one look a file. Whether all of it could be seen.
    fn rebuild(&self) -> bool {
        let mut found = HashSet::new();
        let walked = self.tree.walk(|digest| {
            found.insert(digest);
            self.learn(digest);
        });
        match walked {
            Ok(()) => self.table.lock().retain_found(&found),
            Err(ref error) => {
                tracing::warn!(%error, cause = %error.io(), "walk of the tree cut short");
            }
        }
        walked.is_ok()
    }

    fn learn(&self, digest: Digest) {
        if self.table.lock().knows(&digest) {
            return;
        }
        let path = self.tree.blob(&digest);
        if let Ok((size, last_use)) = self.tree.disk().file_size_and_time(&path) {
            let mut table = self.table.lock();
            table.merge(&digest, Hint { size, last_use, ..Hint::default() });
            table.note(&digest);
        }
    }

    /// Learns from the files what needs what, where that is not known yet.
    fn read_documents(&self) {
        if !self.documents.is_there() {
            return;
        }
        loop {
            let unread = self.table.lock().unread(READ_AT_ONCE);
            if unread.is_empty() {
                return;
            }
            for (digest, size) in unread {
                if self.is_closed() {
                    return;
                }
                self.read_document(&digest, size);
            }
        }
    }

    fn read_document(&self, digest: &Digest, size: u64) {
        // Where nothing more is remembered there is nothing to be read.
        let read = self.table.lock().has_reference_room().then(|| {
            let file = self.tree.disk().open(&self.tree.blob(digest))?;
            self.documents.read_file(digest, &file, size)
        });
        let mut table = self.table.lock();
        if let Some(Ok(references)) = read {
            table.learn(digest, references);
        }
        // What could not be read now is looked at again at the next start.
        table.give_up(digest);
    }

    fn is_closed(&self) -> bool {
        self.closed.try_recv() == Err(TryRecvError::Disconnected)
    }

    fn settle(&self) {
        let mut table = self.table.lock();
        table.complete = true;
        if table.state == IndexState::Loading {
            table.state = IndexState::Ready;
        }
    }

    /// Writes what has changed, unless the engine has failed in this run.
    fn write(&self, engine: Option<&mut Box<dyn Engine>>) {
        let changes = self.table.lock().take_changes();
        if let Some(engine) = engine.filter(|_| !changes.is_empty() && self.in_order()) {
            let _ = self.fenced(|| engine.apply(&changes, Last::No));
        }
    }

    /// Writes what has changed for the last time, promising that the index is whole if it is. What
    /// is published later takes that promise back, before or after it is made.
    fn write_last(&self, engine: Option<&mut Box<dyn Engine>>, is_whole: bool) {
        let mut table = self.table.lock();
        table.end = LastBatch::Taken;
        let last = if is_whole { Last::Yes(table.totals()) } else { Last::No };
        let changes = table.take_changes();
        drop(table);
        if let Some(engine) = engine.filter(|_| self.in_order()) {
            let _ = self.fenced(|| engine.apply(&changes, last));
        }
        if self.table.lock().end == LastBatch::Outdated {
            let _ = take_clean(&self.tree);
        }
    }

    fn in_order(&self) -> bool {
        self.table.lock().state != IndexState::InMemory
    }

    /// Does `work`; when it fails or panics the index is out for this run.
    fn fenced<T>(&self, work: impl FnOnce() -> Result<T, EngineError>) -> Option<T> {
        let cause = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(error)) => error.to_string(),
            Err(_panic) => "the index engine panicked".to_owned(),
        };
        self.retire(&cause);
        None
    }

    /// The index is not used any more in this run, and out of the next one's way.
    fn retire(&self, cause: &str) {
        let before = std::mem::replace(&mut self.table.lock().state, IndexState::InMemory);
        if before != IndexState::InMemory {
            tracing::warn!(cause, "index given up: going on in memory, the next start rebuilds it");
            let _ = move_aside(&self.tree);
        }
    }
}
