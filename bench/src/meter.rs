//! What a run costs a server, and whether anybody else was at work meanwhile.

use std::time::Duration;

use crate::procs::{Tree, busy_secs};

/// What counts from the moment of its making.
#[derive(Debug)]
pub(crate) struct Meter {
    server: Tree,
    before: Seconds,
}

/// Seconds of CPU so far.
#[derive(Debug, Clone, Copy)]
struct Seconds {
    server: f64,
    /// Of this process and all that it has started.
    ours: f64,
    all: Option<f64>,
}

/// What a run has cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Of the server.
    pub(crate) cpu_secs: f64,
    /// The most memory it had, where the system tells.
    pub(crate) peak_kb: Option<u64>,
    /// CPU that went to programs that are no part of this, where the system tells.
    foreign_secs: Option<f64>,
}

/// How much of one CPU others may use before a run counts as disturbed.
const DISTURBED: f64 = 0.25;

impl Meter {
    /// Begins to count.
    pub(crate) fn start(server: Tree) -> Self {
        server.reset_peak();
        Self { server, before: Self::now(server) }
    }

    fn now(server: Tree) -> Seconds {
        let used = server.cpu_secs();
        // Whatever is measured, and the registry, has been started by this process.
        Seconds { server: used, ours: Tree::own().cpu_secs(), all: busy_secs() }
    }

    /// What it was up to now.
    pub(crate) fn finish(self) -> Cost {
        let after = Self::now(self.server);
        let before = self.before;
        Cost {
            cpu_secs: after.server - before.server,
            peak_kb: self.server.peak_kb(),
            foreign_secs: after.all.zip(before.all).map(|(after_all, before_all)| {
                (after_all - before_all) - (after.ours - before.ours)
            }),
        }
    }
}

impl Cost {
    /// Whether others were at work while it was measured for so long.
    pub(crate) fn is_disturbed(&self, elapsed: Duration) -> bool {
        let allowed = DISTURBED * elapsed.as_secs_f64().max(0.2);
        self.foreign_secs.is_some_and(|secs| secs > allowed)
    }
}
