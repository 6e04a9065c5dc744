//! Counting the records of each registry, and taking away the oldest of one that has too many.
//!
//! A repository's records go together, what is on record of a registry's objects one by one. Those
//! of what an operator has imported or pinned stay.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use entrepot_oci::{Algorithm, UnixSeconds};

use super::ledger::Ledger;
use super::stock::Stock;
use crate::disk::{DirectoryEntry, DiskError, Kind};

/// Records that go together.
struct Unit {
    /// When one of them was last written.
    written: UnixSeconds,
    /// Files, and directories of their own.
    count: u64,
    /// A file, or a repository whose records lie here.
    place: Place,
}

enum Place {
    File(PathBuf),
    Repository(PathBuf),
}

/// The records of one registry.
#[derive(Default)]
struct Found {
    /// Files and directories.
    count: u64,
    units: Vec<Unit>,
}

/// Counts all records, and holds each registry to its share. Blocks.
pub(super) fn hold(stock: &Stock, ledger: &Ledger) -> Result<(), DiskError> {
    let root = stock.kept.tree.repositories();
    let mut counts = HashMap::new();
    for entry in directories(stock, &root)? {
        let dir = root.join(&entry.name);
        let mut found = Found::default();
        look(stock, &dir, &dir, &mut found)?;
        if found.count >= ledger.share() {
            shrink(stock, found, ledger.share() - ledger.share() / 10)?;
            found = Found::default();
            look(stock, &dir, &dir, &mut found)?;
            tracing::info!(
                registry = entry.name,
                left = found.count,
                "the oldest records of a registry that had too many are forgotten"
            );
        }
        let count = found.count;
        counts.insert(entry.name, count);
    }
    ledger.count(counts);
    Ok(())
}

/// The records at `dir` and below.
fn look(stock: &Stock, registry: &Path, dir: &Path, found: &mut Found) -> Result<(), DiskError> {
    let mut own = Unit { written: UnixSeconds(0), count: 0, place: Place::Repository(dir.into()) };
    found.count += 1;
    for entry in list(stock, dir)? {
        let path = dir.join(&entry.name);
        match entry.kind {
            Kind::Directory if !entry.name.starts_with(['_', '.']) => {
                look(stock, registry, &path, found)?;
            }
            Kind::Directory if dir == registry => each(stock, &path, found)?,
            Kind::Directory => all(stock, &path, &mut own)?,
            Kind::File | Kind::Other => own.note(stock, &path),
        }
    }
    found.count += own.count;
    // A registry's own few files stay, and a directory goes with what is in it.
    if dir != registry && own.count > 0 {
        found.units.push(own);
    }
    Ok(())
}

/// The files below `dir`, together.
fn all(stock: &Stock, dir: &Path, own: &mut Unit) -> Result<(), DiskError> {
    own.count += 1;
    for entry in list(stock, dir)? {
        let path = dir.join(&entry.name);
        match entry.kind {
            Kind::Directory => all(stock, &path, own)?,
            Kind::File | Kind::Other => own.note(stock, &path),
        }
    }
    Ok(())
}

/// The files below `dir`, each for itself.
fn each(stock: &Stock, dir: &Path, found: &mut Found) -> Result<(), DiskError> {
    found.count += 1;
    for entry in list(stock, dir)? {
        let path = dir.join(&entry.name);
        if entry.kind == Kind::Directory {
            each(stock, &path, found)?;
            continue;
        }
        let place = Place::File(path.clone());
        let mut unit = Unit { written: UnixSeconds(0), count: 0, place };
        unit.note(stock, &path);
        found.count += 1;
        found.units.push(unit);
    }
    Ok(())
}

impl Unit {
    fn note(&mut self, stock: &Stock, path: &Path) {
        let written = stock.kept.tree.disk().file_size_and_time(path);
        self.written = self.written.max(written.map_or(UnixSeconds(0), |(_, written)| written));
        self.count += 1;
    }
}

/// Removes the oldest until no more than `most` are left.
fn shrink(stock: &Stock, found: Found, most: u64) -> Result<(), DiskError> {
    let Found { count: mut left, mut units } = found;
    units.sort_unstable_by_key(|unit| unit.written);
    for unit in units {
        if left <= most {
            break;
        }
        let is_gone = match &unit.place {
            Place::File(path) => stock.kept.tree.disk().remove(path).map(|()| true)?,
            Place::Repository(dir) => forget(stock, dir)?,
        };
        if is_gone {
            left = left.saturating_sub(unit.count);
        }
    }
    Ok(())
}

/// Removes what is on record of one repository, but for what an operator has asked for. Whether it
/// did.
fn forget(stock: &Stock, dir: &Path) -> Result<bool, DiskError> {
    let disk = stock.kept.tree.disk();
    let is_imported = disk.file_size(&dir.join("_import")).is_ok();
    if is_imported || is_pinned(stock, dir)? {
        return Ok(false);
    }
    for entry in list(stock, dir)? {
        let path = dir.join(&entry.name);
        match entry.kind {
            Kind::Directory if entry.name.starts_with('_') => disk.remove_tree(&path)?,
            Kind::Directory => {}
            Kind::File | Kind::Other => disk.remove(&path)?,
        }
    }
    let root = stock.kept.tree.repositories();
    for dir in dir.ancestors().take_while(|dir| *dir != root) {
        disk.remove_empty_dir(dir)?;
    }
    Ok(true)
}

/// Whether an object is on record there that is pinned.
fn is_pinned(stock: &Stock, dir: &Path) -> Result<bool, DiskError> {
    let pinned = stock.pins.all();
    for algorithm in Algorithm::ALL {
        let contents = list(stock, &dir.join("_contents").join(algorithm.as_str()))?;
        let has =
            |name: &str| pinned.iter().any(|pin| pin.algorithm() == algorithm && pin.hex() == name);
        if !pinned.is_empty() && contents.iter().any(|entry| has(&entry.name)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn directories(stock: &Stock, dir: &Path) -> Result<Vec<DirectoryEntry>, DiskError> {
    let mut entries = list(stock, dir)?;
    entries.retain(|entry| entry.kind == Kind::Directory);
    Ok(entries)
}

/// What is in `dir`; nothing where there is no such directory.
fn list(stock: &Stock, dir: &Path) -> Result<Vec<DirectoryEntry>, DiskError> {
    match stock.kept.tree.disk().list(dir) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        listed => listed,
    }
}
