//! The thread that holds the bounds: measure, choose, remove.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use entrepot_oci::{Digest, UnixSeconds};

use super::clock::Clock;
use super::groups::{self, Group, enough, enough_objects};
use super::ledger::Ledger;
use super::partials;
use super::records;
use super::remover::{Remover, TooManyHang};
use super::stock::{Stock, Tally};
use super::wake::Wake;
use crate::disk::DiskError;
use crate::index::node::{Candidate, Node};
use crate::index::references::References;
use crate::options::Bounds;

/// How often the thread looks without being woken.
const ROUND: Duration = Duration::from_secs(5);
/// How often it looks whether the index is complete.
const YOUNG_ROUND: Duration = Duration::from_millis(100);
/// How long a file system may take to count what was removed as free.
const SETTLING: Duration = Duration::from_secs(1);
/// What broken downloads have left is looked at no more often, and may be a tenth of `max_size`.
const PARTIALS_ROUND: Duration = Duration::from_secs(30);
const PARTIALS_SHARE: u64 = 10;
/// Records are counted no more often, unless there are too many.
const RECORDS_ROUND: Duration = Duration::from_hours(1);
/// Idle objects are looked for at least so often, and no more than twenty times in `max_idle`.
const IDLE_ROUND: Duration = Duration::from_mins(1);

pub(super) struct Sweeper {
    bounds: Bounds,
    ledger: Arc<Ledger>,
    wake: Arc<Wake>,
    remover: Remover,
    clock: Clock,
    complete: bool,
    opened: UnixSeconds,
    /// When space was last made, and when idle objects were last looked for.
    made_space: Option<Instant>,
    looked_for_idle: Option<Instant>,
    looked_at_partials: Option<Instant>,
    counted_records: Option<Instant>,
    /// Whether it has been said that a bound can't be held.
    helpless: bool,
}

/// Whether this sweep was asked for: then nothing is put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    Asked,
    Routine,
}

/// Whether objects that are being used now may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spared {
    InUse,
    Nothing,
}

impl Sweeper {
    pub(super) fn new(bounds: Bounds, ledger: Arc<Ledger>, wake: Arc<Wake>) -> Self {
        Self {
            bounds,
            ledger,
            wake,
            remover: Remover::default(),
            clock: Clock::new(),
            complete: false,
            opened: UnixSeconds::now(),
            made_space: None,
            looked_for_idle: None,
            looked_at_partials: None,
            counted_records: None,
            helpless: false,
        }
    }

    /// Sweeps until the store is closed or gone.
    pub(super) fn run(mut self, stock: &Weak<Stock>) {
        while let Some(asked) = self.wake.wait(self.patience()) {
            let Some(stock) = stock.upgrade() else { return };
            let urgency = if asked.is_empty() { Urgency::Routine } else { Urgency::Asked };
            if catch_unwind(AssertUnwindSafe(|| self.sweep(&stock, urgency))).is_err() {
                tracing::error!("a sweep of the cache panicked");
            }
            drop(stock);
            for one in asked {
                let _ = one.send(());
            }
        }
    }

    fn patience(&self) -> Duration {
        if self.complete {
            self.idle_round().map_or(ROUND, |round| round.min(ROUND))
        } else {
            YOUNG_ROUND
        }
    }

    fn idle_round(&self) -> Option<Duration> {
        self.bounds.max_idle.map(|idle| (idle / 20).clamp(YOUNG_ROUND, IDLE_ROUND))
    }

    fn sweep(&mut self, stock: &Arc<Stock>, urgency: Urgency) {
        self.complete = stock.kept.index.is_complete();
        let held = self
            .hold_records(stock, urgency)
            .and_then(|()| self.hold_max_size(stock))
            .and_then(|()| self.hold_max_objects(stock))
            .and_then(|()| self.hold_max_idle(stock, urgency))
            .and_then(|()| self.hold_min_free(stock, urgency))
            .and_then(|()| self.hold_partials(stock, urgency));
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

    /// Counts records, now and then and where one registry has too many.
    fn hold_records(&mut self, stock: &Arc<Stock>, urgency: Urgency) -> Result<(), Unheld> {
        let early = |round| self.counted_records.is_some_and(|at| at.elapsed() < round);
        let is_early = match (self.ledger.is_over(), urgency) {
            (true, Urgency::Asked) => false,
            (true, Urgency::Routine) => early(ROUND),
            (false, _) => early(RECORDS_ROUND),
        };
        if is_early {
            return Ok(());
        }
        let held = records::hold(stock, &self.ledger).map_err(Unheld::Disk);
        self.counted_records = Some(Instant::now());
        held
    }

    fn hold_max_size(&mut self, stock: &Arc<Stock>) -> Result<(), Unheld> {
        let Some(max) = self.bounds.max_size.filter(|_| self.complete) else { return Ok(()) };
        let records = self.ledger.bytes();
        let kept = || stock.kept.index.totals().bytes.saturating_add(records);
        if kept() <= max {
            return Ok(());
        }
        // What everything else would have to go for.
        if stock.kept.index.has_larger(max) {
            let too_large = known(stock, Spared::Nothing, max).into_iter();
            self.evict(stock, too_large.filter(Group::is_too_large))?;
        }
        let low = low_water(max);
        for spared in [Spared::InUse, Spared::Nothing] {
            if kept() > max || (spared == Spared::InUse && kept() > low) {
                let need = kept().saturating_sub(low);
                self.evict(stock, enough(known(stock, spared, u64::MAX), need))?;
            }
        }
        if kept() > max { Err(Unheld::InUse) } else { Ok(()) }
    }

    /// Each object takes memory for good, however small it is.
    fn hold_max_objects(&mut self, stock: &Arc<Stock>) -> Result<(), Unheld> {
        let Some(max) = self.bounds.max_objects.filter(|_| self.complete) else { return Ok(()) };
        let kept = || stock.kept.index.totals().objects;
        if kept() <= max {
            return Ok(());
        }
        let need = kept().saturating_sub(low_water(max));
        self.evict(stock, enough_objects(known(stock, Spared::InUse, u64::MAX), need))?;
        if kept() > max { Err(Unheld::InUse) } else { Ok(()) }
    }

    fn hold_max_idle(&mut self, stock: &Arc<Stock>, urgency: Urgency) -> Result<(), Unheld> {
        let (wall, steady) = (UnixSeconds::now(), Instant::now());
        let steady_since = self.clock.observe(wall, steady);
        let bound = self.bounds.max_idle.filter(|_| self.complete).zip(self.idle_round());
        let Some((idle, round)) = bound else { return Ok(()) };
        let early = self.looked_for_idle.is_some_and(|at| at.elapsed() < round);
        if early && urgency == Urgency::Routine {
            return Ok(());
        }
        self.looked_for_idle = Some(steady);
        // An index that had to be built anew does not know what was used.
        let is_rebuilt = stock.kept.index.is_rebuilt();
        let known_since = if is_rebuilt { self.opened } else { UnixSeconds(0) };
        let since = steady_since.max(known_since);
        let is_idle = |used: UnixSeconds| wall.0.saturating_sub(used.max(since).0) > idle.as_secs();
        let mut groups = known(stock, Spared::InUse, u64::MAX);
        groups.retain(|group| is_idle(group.last_use()));
        for group in &mut groups {
            // A layer that several idle images share, but that was used itself.
            group.members.retain(|member| is_idle(member.last_use));
        }
        self.evict(stock, groups)
    }

    fn hold_partials(&mut self, stock: &Arc<Stock>, urgency: Urgency) -> Result<(), Unheld> {
        let Some(max) = self.bounds.max_size else { return Ok(()) };
        let early = self.looked_at_partials.is_some_and(|at| at.elapsed() < PARTIALS_ROUND);
        if early && urgency == Urgency::Routine {
            return Ok(());
        }
        self.looked_at_partials = Some(Instant::now());
        let held = partials::hold(stock, &mut self.remover, max / PARTIALS_SHARE, || false);
        held.map(drop).map_err(|TooManyHang| Unheld::Hanging)
    }

    fn hold_min_free(&mut self, stock: &Arc<Stock>, urgency: Urgency) -> Result<(), Unheld> {
        let Some(min) = self.bounds.min_free else { return Ok(()) };
        let settling = self.made_space.is_some_and(|at| at.elapsed() < SETTLING);
        if settling && urgency == Urgency::Routine {
            return Ok(());
        }
        let free = || stock.kept.tree.disk().free_space(stock.kept.tree.dir());
        if free().map_err(Unheld::Disk)? >= min {
            return Ok(());
        }
        // Before anything that is whole.
        let is_enough = || free().is_ok_and(|free| free >= min);
        let gone = partials::hold(stock, &mut self.remover, 0, is_enough).unwrap_or_default();
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
            known(stock, Spared::InUse, u64::MAX)
        } else {
            found(stock).map_err(Unheld::Disk)?
        };
        if chosen.is_empty() {
            return Err(Unheld::InUse);
        }
        self.made_space = Some(Instant::now());
        self.evict(stock, enough(chosen, need))
    }

    /// Removes `groups` in their order, each with its documents first.
    fn evict(
        &mut self,
        stock: &Arc<Stock>,
        groups: impl IntoIterator<Item = Group>,
    ) -> Result<(), Unheld> {
        let mut tally = Tally::default();
        let candidates = groups.into_iter().flat_map(|group| group.members);
        let wake = Arc::clone(&self.wake);
        let candidates = candidates.take_while(|_| !wake.is_closed());
        let evicted =
            stock.take_all_out(candidates, &mut tally, |candidate| self.remove(stock, *candidate));
        if tally.objects > 0 {
            let Tally { objects, bytes } = tally;
            tracing::info!(objects, bytes, "objects evicted");
        }
        evicted
    }

    fn remove(&mut self, stock: &Arc<Stock>, candidate: Candidate) -> Result<bool, Unheld> {
        match self.remover.evict(stock, candidate) {
            Ok(outcome) => outcome.map_err(Unheld::Disk),
            Err(TooManyHang) => Err(Unheld::Hanging),
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
fn known(stock: &Stock, spared: Spared, largest: u64) -> Vec<Group> {
    let mut exempt = exempt(stock, spared);
    // The groups know what is remembered; what a pin holds is read where it is not.
    exempt.extend(stock.closure(stock.pins.all()));
    groups::groups(&stock.kept.index.nodes(), &exempt, largest)
}

/// What may go by what the tree itself says: for a disk that is full before the index is complete.
fn found(stock: &Stock) -> Result<Vec<Group>, DiskError> {
    let mut exempt = exempt(stock, Spared::InUse);
    exempt.extend(stock.closure(stock.pins.all()));
    let mut nodes = Vec::new();
    stock.kept.tree.walk(|digest| nodes.extend(look_at(stock, digest)))?;
    Ok(groups::groups(&nodes, &exempt, u64::MAX))
}

fn look_at(stock: &Stock, digest: Digest) -> Option<Node> {
    if let Some(known) = stock.kept.index.node(&digest) {
        return Some(known);
    }
    let seen = stock.kept.tree.disk().file_size_and_time(&stock.kept.tree.blob(&digest));
    let (size, last_use) = seen.ok()?;
    let candidate = Candidate { last_use, tick: 0, size, digest };
    Some(Node { candidate, is_wanted: true, references: References::Unknown })
}

fn exempt(stock: &Stock, spared: Spared) -> HashSet<Digest> {
    let mut exempt = stock.pins.all();
    if spared == Spared::InUse {
        exempt.extend(stock.kept.open_files.in_use());
    }
    exempt
}
