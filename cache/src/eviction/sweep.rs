//! The thread that holds the bounds: measure, choose, remove.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::clock::Steps;
use super::groups::{self, Unit, enough};
use super::remover::{Hanging, Remover};
use super::{Bell, Bounds, Candidate, Node, partials};
use crate::Digest;
use crate::bytes::verify::walk;
use crate::disk::DiskError;
use crate::download::in_flight::Boarding;
use crate::download::origin::Origin;
use crate::index::now;
use crate::index::references::References;
use crate::inner::Shared;

/// How often the thread looks without being woken.
const TICK: Duration = Duration::from_secs(5);
/// How often it looks whether the index is complete.
const YOUNG_TICK: Duration = Duration::from_millis(100);
/// How long a file system may take to count what was removed as free.
const SETTLING: Duration = Duration::from_secs(1);
/// What broken downloads have left is looked at no more often, and may be a tenth of `max_size`.
const PARTIALS_ROUND: Duration = Duration::from_secs(30);
const PARTIALS_SHARE: u64 = 10;
/// Idle objects are looked for at least so often, and no more than twenty times in `max_idle`.
const IDLE_ROUND: Duration = Duration::from_mins(1);

pub(super) struct Sweeper {
    bounds: Bounds,
    bell: Arc<Bell>,
    remover: Remover,
    steps: Steps,
    complete: bool,
    opened: u64,
    /// When space was last made, and when idle objects were last looked for.
    made_space: Option<Instant>,
    looked_for_idle: Option<Instant>,
    looked_at_partials: Option<Instant>,
    /// Whether it has been said that a bound can't be held.
    helpless: bool,
}

/// Whether somebody waits for this sweep: then nothing is put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    Asked,
    Routine,
}

/// Whether objects that are being used now may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mercy {
    SpareUsed,
    SpareNone,
}

impl Sweeper {
    pub(super) fn new(bounds: Bounds, bell: Arc<Bell>) -> Self {
        Self {
            bounds,
            bell,
            remover: Remover::default(),
            steps: Steps::new(),
            complete: false,
            opened: now(),
            made_space: None,
            looked_for_idle: None,
            looked_at_partials: None,
            helpless: false,
        }
    }

    /// Sweeps until the store is closed or gone.
    pub(super) fn run(mut self, store: &Weak<Shared>) {
        while let Some(asked) = self.bell.wait(self.patience()) {
            let Some(shared) = store.upgrade() else { return };
            let urgency = if asked.is_empty() { Urgency::Routine } else { Urgency::Asked };
            if catch_unwind(AssertUnwindSafe(|| self.sweep(&shared, urgency))).is_err() {
                tracing::error!("a sweep of the cache panicked");
            }
            drop(shared);
            for one in asked {
                let _ = one.send(());
            }
        }
    }

    fn patience(&self) -> Duration {
        if self.complete {
            self.idle_round().map_or(TICK, |round| round.min(TICK))
        } else {
            YOUNG_TICK
        }
    }

    fn idle_round(&self) -> Option<Duration> {
        self.bounds.max_idle.map(|idle| (idle / 20).clamp(YOUNG_TICK, IDLE_ROUND))
    }

    fn sweep(&mut self, shared: &Arc<Shared>, urgency: Urgency) {
        self.complete = shared.index.is_complete();
        let held = self
            .hold_max_size(shared)
            .and_then(|()| self.hold_max_idle(shared, urgency))
            .and_then(|()| self.hold_min_free(shared, urgency))
            .and_then(|()| self.hold_partials(shared, urgency));
        match held {
            Ok(()) => self.helpless = false,
            Err(Unheld::Disk(error)) => self.complain(&error.to_string(), Some(error.io())),
            Err(Unheld::Hanging) => self.complain("removing objects takes too long", None),
            Err(Unheld::InUse) => self.complain("what is left is pinned or in use", None),
        }
    }

    /// One line when a bound can't be held, and no other until it can.
    fn complain(&mut self, reason: &str, cause: Option<&std::io::Error>) {
        if !std::mem::replace(&mut self.helpless, true) {
            tracing::warn!(
                reason,
                cause = cause.map(tracing::field::display),
                "a bound of the cache can't be held"
            );
        }
    }

    fn hold_max_size(&mut self, shared: &Arc<Shared>) -> Result<(), Unheld> {
        let Some(max) = self.bounds.max_size.filter(|_| self.complete) else { return Ok(()) };
        let kept = || shared.index.totals().bytes;
        if kept() <= max {
            return Ok(());
        }
        // What everything else would have to go for.
        if shared.index.has_larger(max) {
            let too_large = known(shared, Mercy::SpareNone, max).into_iter();
            self.evict(shared, too_large.filter(Unit::is_too_large))?;
        }
        let low = low_water(max);
        for mercy in [Mercy::SpareUsed, Mercy::SpareNone] {
            if kept() > max || (mercy == Mercy::SpareUsed && kept() > low) {
                let need = kept().saturating_sub(low);
                self.evict(shared, enough(known(shared, mercy, u64::MAX), need))?;
            }
        }
        if kept() > max { Err(Unheld::InUse) } else { Ok(()) }
    }

    fn hold_max_idle(&mut self, shared: &Arc<Shared>, urgency: Urgency) -> Result<(), Unheld> {
        let (wall, steady) = (now(), Instant::now());
        let steady_since = self.steps.observe(wall, steady);
        let bound = self.bounds.max_idle.filter(|_| self.complete).zip(self.idle_round());
        let Some((idle, round)) = bound else { return Ok(()) };
        let early = self.looked_for_idle.is_some_and(|at| at.elapsed() < round);
        if early && urgency == Urgency::Routine {
            return Ok(());
        }
        self.looked_for_idle = Some(steady);
        // An index that had to be built anew does not know what was used.
        let known_since = if shared.index.is_rebuilt() { self.opened } else { 0 };
        let since = steady_since.max(known_since);
        let is_idle = |used: u64| wall.saturating_sub(used.max(since)) > idle.as_secs();
        let mut units = known(shared, Mercy::SpareUsed, u64::MAX);
        units.retain(|unit| is_idle(unit.last_use()));
        for unit in &mut units {
            // A layer that several idle images share, and somebody uses all the same.
            unit.members.retain(|member| is_idle(member.last_use));
        }
        self.evict(shared, units)
    }

    fn hold_partials(&mut self, shared: &Arc<Shared>, urgency: Urgency) -> Result<(), Unheld> {
        let Some(max) = self.bounds.max_size else { return Ok(()) };
        let early = self.looked_at_partials.is_some_and(|at| at.elapsed() < PARTIALS_ROUND);
        if early && urgency == Urgency::Routine {
            return Ok(());
        }
        self.looked_at_partials = Some(Instant::now());
        let held = partials::hold(shared, &mut self.remover, max / PARTIALS_SHARE, || false);
        held.map(drop).map_err(|Hanging| Unheld::Hanging)
    }

    fn hold_min_free(&mut self, shared: &Arc<Shared>, urgency: Urgency) -> Result<(), Unheld> {
        let Some(min) = self.bounds.min_free else { return Ok(()) };
        let settling = self.made_space.is_some_and(|at| at.elapsed() < SETTLING);
        if settling && urgency == Urgency::Routine {
            return Ok(());
        }
        let free = || shared.tree.disk().free_space(shared.tree.dir());
        if free().map_err(Unheld::Disk)? >= min {
            return Ok(());
        }
        // Before anything that is whole.
        let is_enough = || free().is_ok_and(|free| free >= min);
        let gone = partials::hold(shared, &mut self.remover, 0, is_enough).unwrap_or_default();
        let free = free().map_err(Unheld::Disk)?;
        if free >= min {
            return Ok(());
        }
        if gone > 0 && urgency == Urgency::Routine {
            self.made_space = Some(Instant::now());
            return Ok(());
        }
        let need = min.saturating_add(min / 20).saturating_sub(free);
        // An object that is being used frees nothing before it is read to its end.
        let chosen = if self.complete {
            known(shared, Mercy::SpareUsed, u64::MAX)
        } else {
            found(shared).map_err(Unheld::Disk)?
        };
        if chosen.is_empty() {
            return Err(Unheld::InUse);
        }
        self.made_space = Some(Instant::now());
        self.evict(shared, enough(chosen, need))
    }

    /// Removes `units` in their order, each with its documents first.
    fn evict(
        &mut self,
        shared: &Arc<Shared>,
        units: impl IntoIterator<Item = Unit>,
    ) -> Result<(), Unheld> {
        let (mut objects, mut bytes) = (0_u64, 0_u64);
        let mut outcome = Ok(());
        let mut needed = HashSet::new();
        for candidate in units.into_iter().flat_map(|unit| unit.members) {
            if self.bell.is_closed() {
                break;
            }
            if needed.contains(&candidate.digest) {
                continue;
            }
            match self.remove(shared, candidate) {
                Ok(true) => {
                    objects = objects.saturating_add(1);
                    bytes = bytes.saturating_add(candidate.size);
                }
                // It stays: then so does what it needs.
                Ok(false) => needed.extend(shared.index.closure([candidate.digest].into())),
                Err(unheld) => {
                    outcome = Err(unheld);
                    break;
                }
            }
        }
        if objects > 0 {
            tracing::info!(objects, bytes, "objects evicted");
        }
        outcome
    }

    fn remove(&mut self, shared: &Arc<Shared>, candidate: Candidate) -> Result<bool, Unheld> {
        match self.remover.evict(shared, candidate) {
            Ok(outcome) => outcome.map_err(Unheld::Disk),
            Err(Hanging) => Err(Unheld::Hanging),
        }
    }
}

/// Why a bound is not held.
enum Unheld {
    Disk(DiskError),
    Hanging,
    InUse,
}

/// Where evicting for size stops once it has begun.
pub(super) const fn low_water(max: u64) -> u64 {
    max - max / 20
}

/// What may go of the objects that the index knows.
fn known(shared: &Shared, mercy: Mercy, largest: u64) -> Vec<Unit> {
    let exempt = exempt(shared, mercy);
    groups::units(&shared.index.nodes(), &exempt, largest)
}

/// What may go by what the tree itself says: for a disk that is full before the index is complete.
fn found(shared: &Shared) -> Result<Vec<Unit>, DiskError> {
    let mut exempt = exempt(shared, Mercy::SpareUsed);
    exempt.extend(pinned_closure(shared));
    let mut nodes = Vec::new();
    walk(&shared.tree, |digest| nodes.extend(look_at(shared, digest)))?;
    Ok(groups::units(&nodes, &exempt, u64::MAX))
}

fn look_at(shared: &Shared, digest: Digest) -> Option<Node> {
    if let Some(known) = shared.index.node(&digest) {
        return Some(known);
    }
    let seen = shared.tree.disk().file_size_and_age(&shared.tree.blob(&digest));
    let (size, last_use) = seen.ok()?;
    let candidate = Candidate { last_use, turn: 0, size, digest };
    Some(Node { candidate, references: References::Unknown })
}

/// All that pinned objects need, read from the tree where the index does not know it yet.
fn pinned_closure(shared: &Shared) -> HashSet<Digest> {
    let mut closure = shared.pins.all();
    let mut rest: Vec<Digest> = closure.iter().copied().collect();
    while let Some(digest) = rest.pop() {
        let references = match shared.index.references(&digest) {
            References::Unknown => read(shared, &digest).unwrap_or_default(),
            known @ References::Known(_) => known,
        };
        rest.extend(references.as_slice().iter().filter(|one| closure.insert(**one)));
    }
    closure
}

fn read(shared: &Shared, digest: &Digest) -> Result<References, DiskError> {
    let file = shared.tree.disk().open(&shared.tree.blob(digest))?;
    shared.documents.read_file(digest, &file, file.len()?)
}

fn exempt(shared: &Shared, mercy: Mercy) -> HashSet<Digest> {
    let mut exempt = shared.pins.all();
    if mercy == Mercy::SpareUsed {
        exempt.extend(shared.opened.in_use());
    }
    exempt
}

/// Removes one object, unless it was pinned or used since it was chosen. Blocks.
///
/// It is reserved meanwhile: nobody can begin to download it, and publish it, under the removal.
pub(super) fn evict(shared: &Shared, candidate: &Candidate) -> Result<bool, DiskError> {
    let digest = &candidate.digest;
    let Boarding::Lead(_reserved) = shared.flights.board(digest, &Origin::new("")) else {
        return Ok(false);
    };
    let added = shared.index.added_at(digest);
    let used = shared.index.turn(digest).is_some_and(|turn| turn != candidate.turn);
    if used || shared.pins.has(digest) {
        return Ok(false);
    }
    shared.tree.disk().remove(&shared.tree.blob(digest))?;
    shared.opened.forget(digest);
    shared.index.evicted(candidate, added);
    Ok(true)
}
