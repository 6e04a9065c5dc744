//! How much room records take, and how much they may.
//!
//! A record is a file, and often some directories, for whatever somebody has asked for and a
//! registry has said yes to; a hostile one says yes to everything. So they count towards
//! `max_size`, each file and directory with a block, and each registry has a share. One that comes
//! to it loses its oldest records, which can be learnt again; no other does.

use std::collections::HashMap;
use std::path::{Component, Path};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::disk::tree::Tree;

/// What a file or directory takes at least.
const BLOCK: u64 = 4096;
/// Records are counted as this part of `max_size` at most: objects always have the rest.
const PART: u64 = 4;
/// One registry's may take this part of it, but always so many files and directories, and never
/// more.
const SHARE: u64 = 16;
const FEWEST: u64 = 1024;
const MOST: u64 = 1024 * 1024;
/// No record is written where the file system can have no more files than this: others need some.
const FREE_FILES: u64 = 4096;
/// How long it is believed how many that are.
const BELIEVED: Duration = Duration::from_secs(1);

/// The count of records. What is written meanwhile is added; what goes is counted anew.
#[derive(Debug)]
pub(crate) struct Ledger {
    max_size: Option<u64>,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    /// Files and directories, by the directory of their registry.
    registries: HashMap<String, u64>,
    /// Whether the file system is short of files, and when that was looked at.
    short: Option<(bool, Instant)>,
}

impl Ledger {
    pub(crate) fn new(max_size: Option<u64>) -> Self {
        Self { max_size, counted: Mutex::default() }
    }

    /// How many files and directories one registry's records may be.
    pub(crate) fn share(&self) -> u64 {
        let share = self.max_size.map_or(MOST, |max| max / SHARE / BLOCK);
        share.clamp(FEWEST, MOST)
    }

    /// How many bytes of `max_size` records take.
    pub(crate) fn bytes(&self) -> u64 {
        let counted: u64 = self.counted.lock().registries.values().sum();
        counted.saturating_mul(BLOCK).min(self.max_size.unwrap_or(u64::MAX) / PART)
    }

    /// Whether a new record may be written at `path`; then it is counted, with the directories that
    /// are to be made. Blocks.
    pub(crate) fn admits(&self, tree: &Tree, path: &Path) -> bool {
        let Some(registry) = registry_of(tree, path) else { return true };
        let missing = path.ancestors().take_while(|it| tree.disk().file_size_and_time(it).is_err());
        let count = missing.count() as u64;
        let is_short = self.is_short_of_files(tree);
        let mut counted = self.counted.lock();
        let all = counted.registries.entry(registry).or_default();
        // A tenth more, while the oldest are being removed.
        let most = self.share() + self.share() / 10;
        if is_short || all.saturating_add(count) > most {
            return false;
        }
        *all = all.saturating_add(count);
        true
    }

    fn is_short_of_files(&self, tree: &Tree) -> bool {
        let known = self.counted.lock().short.filter(|(_, at)| at.elapsed() < BELIEVED);
        if let Some((is_short, _)) = known {
            return is_short;
        }
        let free = tree.disk().free_files(tree.dir()).ok().flatten();
        let is_short = free.is_some_and(|free| free < FREE_FILES);
        let before = self.counted.lock().short.replace((is_short, Instant::now()));
        if is_short && !before.is_some_and(|(was_short, _)| was_short) {
            tracing::warn!("the file system is short of files: no new records are written");
        }
        is_short
    }

    /// Whether some registry has more than its share.
    pub(super) fn is_over(&self) -> bool {
        let share = self.share();
        self.counted.lock().registries.values().any(|count| *count >= share)
    }

    /// Takes over what was counted.
    pub(super) fn count(&self, registries: HashMap<String, u64>) {
        self.counted.lock().registries = registries;
    }
}

/// The directory of the registry that a record at `path` is of.
fn registry_of(tree: &Tree, path: &Path) -> Option<String> {
    match path.strip_prefix(tree.repositories()).ok()?.components().next()? {
        Component::Normal(name) => name.to_str().map(str::to_owned),
        _ => None,
    }
}
