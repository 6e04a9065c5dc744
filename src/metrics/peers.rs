//! What is counted of other replicas.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::registries::Counters;
use super::{Count, Families};

/// What has come of a question to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerOutcome {
    /// It delivers what it was asked for.
    Served,
    /// It gets that from a replica itself.
    Busy,
    /// It answers something else, and the registry is asked.
    Refused,
    /// It takes too long, or can't be understood.
    Failed,
    /// It is not there.
    Absent,
}

impl PeerOutcome {
    const ALL: [Self; 5] = [Self::Served, Self::Busy, Self::Refused, Self::Failed, Self::Absent];

    fn label(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Absent => "absent",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct PeerCounts {
    present: AtomicU64,
    asked: [Count; PeerOutcome::ALL.len()],
    /// What comes from them, of no registry.
    pub(super) counters: Arc<Counters>,
    pub(super) sent: Count,
}

impl PeerCounts {
    pub(super) fn present(&self, replicas: u64) {
        self.present.store(replicas, Ordering::Relaxed);
    }

    pub(super) fn asked(&self, outcome: PeerOutcome) {
        if let Some(count) = self.asked.get(outcome as usize) {
            count.add_one();
        }
    }

    pub(super) fn write(&self, families: &mut Families<'_, '_>) -> fmt::Result {
        let help = "Replicas that answer, this one included; 0 where none are configured.";
        families.gauge("entrepot_peers", help, self.present.load(Ordering::Relaxed))?;
        let outcomes = PeerOutcome::ALL.into_iter().zip(&self.asked);
        let asked = outcomes.map(|(outcome, n)| ([("outcome", outcome.label())], n.value()));
        let help = "Questions to the replica that fetches an object for all, by what came of them.";
        families.counters("entrepot_peer_requests", help, asked)?;
        let bytes = [("received", self.counters.received_bytes()), ("sent", self.sent.value())];
        let bytes = bytes.into_iter().map(|(way, bytes)| ([("direction", way)], bytes));
        let help = "Bytes of bodies that came from other replicas, and that went to them.";
        families.counters("entrepot_peer_bytes", help, bytes)
    }
}
