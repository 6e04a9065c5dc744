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
        let Loaded { hints, clean, .. } = self.load(engine.as_mut());
        self.table.lock().rebuilt = hints.is_empty();
        self.take_over(hints);
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

    fn load(&self, engine: Option<&mut Box<dyn Engine>>) -> Loaded {
        engine.and_then(|engine| self.fenced(|| engine.load())).unwrap_or_default()
    }

    fn take_over(&self, hints: Vec<(Digest, Hint)>) {
        for (digest, hint) in hints {
            self.table.lock().merge(&digest, hint);
        }
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
        let unread = self.table.lock().unread();
        for (digest, size) in unread.into_iter().take_while(|_| !self.is_closed()) {
            let file = self.tree.disk().open(&self.tree.blob(&digest));
            let read = file.and_then(|file| self.documents.read_file(&digest, &file, size));
            if let Ok(references) = read {
                self.table.lock().learn(&digest, references);
            }
        }
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
