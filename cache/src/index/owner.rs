//! The one thread that reads and writes the index, behind a fence.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::engine::{Engine, EngineError, Hint, Last, Loaded};
use super::sled_engine::move_aside;
use super::table::Table;
use super::{IndexState, Opener};
use crate::inspect::walk;
use crate::sync::locked;
use crate::tree::Tree;

/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_secs(2);

pub(super) struct Owner {
    table: Arc<Mutex<Table>>,
    tree: Tree,
    /// Disconnected when the store is closed or gone.
    ended: Receiver<()>,
}

impl Owner {
    pub(super) const fn new(table: Arc<Mutex<Table>>, tree: Tree, ended: Receiver<()>) -> Self {
        Self { table, tree, ended }
    }

    /// Reads, walks if need be, then writes batches until the store is closed.
    pub(super) fn run(self, opener: Opener) {
        let engine = self.fenced(|| {
            let mut engine = opener(&self.tree)?;
            let loaded = engine.load()?;
            Ok((engine, loaded))
        });
        let (mut engine, loaded) = match engine {
            Some((engine, loaded)) => (Some(engine), loaded),
            None => (None, Loaded::default()),
        };
        self.take_over(&loaded);
        if !loaded.clean {
            self.rebuild();
        }
        self.settle();
        while self.ended.recv_timeout(GATHER) == Err(RecvTimeoutError::Timeout) {
            engine = self.write(engine, Last::No);
        }
        let totals = locked(&self.table).totals();
        let engine = self.write(engine, Last::Yes(totals));
        let _ = self.fenced(|| {
            drop(engine);
            Ok(())
        });
    }

    fn take_over(&self, loaded: &Loaded) {
        for (digest, hint) in &loaded.hints {
            locked(&self.table).merge(digest, *hint);
        }
    }

    /// Learns from the tree what is kept, one look a file.
    fn rebuild(&self) {
        let mut found = HashSet::new();
        let walked = walk(&self.tree, |digest| {
            found.insert(digest);
            self.learn(digest);
        });
        match walked {
            Ok(()) => locked(&self.table).retain_found(&found),
            Err(error) => tracing::warn!(%error, cause = %error.io(), "walk of the tree cut short"),
        }
    }

    fn learn(&self, digest: crate::Digest) {
        if locked(&self.table).knows(&digest) {
            return;
        }
        let path = self.tree.blob(&digest);
        if let Ok((size, last_use)) = self.tree.disk().file_size_and_age(&path) {
            let mut table = locked(&self.table);
            table.merge(&digest, Hint { size, last_use, hits: 0 });
            table.note(&digest);
        }
    }

    fn settle(&self) {
        let mut table = locked(&self.table);
        table.complete = true;
        if table.state == IndexState::Loading {
            table.state = IndexState::Ready;
        }
    }

    /// The engine again, unless it failed.
    fn write(&self, engine: Option<Box<dyn Engine>>, last: Last) -> Option<Box<dyn Engine>> {
        let changes = locked(&self.table).take_changes();
        let mut engine = engine?;
        if changes.is_empty() && last == Last::No {
            return Some(engine);
        }
        self.fenced(move || engine.apply(&changes, last).map(|()| engine))
    }

    /// Does `work`; when it fails or panics the index is out for this run.
    fn fenced<T>(&self, work: impl FnOnce() -> Result<T, EngineError>) -> Option<T> {
        let cause = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(error)) => error.to_string(),
            Err(_panic) => "the index engine panicked".to_owned(),
        };
        let before = std::mem::replace(&mut locked(&self.table).state, IndexState::InMemory);
        if before != IndexState::InMemory {
            tracing::warn!(
                cause,
                "index out of order: going on in memory; the next start rebuilds it"
            );
        }
        let _ = move_aside(&self.tree);
        None
    }
}
