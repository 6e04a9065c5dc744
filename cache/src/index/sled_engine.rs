//! sled behind the index's seam.
//!
//! sled 0.34 survives a killed process but not a power cut, panics on damaged pages, and can't be
//! opened on a full disk. So it is never believed: values are checksummed, and two plain files
//! beside it say what can be expected of it. `opening` exists while it is being opened (whoever
//! finds it knows that the last opener died of it), `clean` exists while it is closed and holds
//! the totals that it must show.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use entrepot_oci::Digest;

use super::codec;
use super::engine::{Change, Engine, EngineError, Hint, Last, Loaded};
use super::state::Totals;
use crate::disk::tree::Tree;
use crate::disk::{Disk, DiskError};

/// sled's own default would be 1 GiB.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(25);

struct SledEngine {
    db: sled::Db,
    dir: PathBuf,
    disk: Disk,
    expected: Option<String>,
}

/// What the last run promised of the index.
pub(super) type Promise = Result<Option<String>, DiskError>;

/// Opens the index of `tree`, creating it when it is missing.
pub(super) fn open(tree: &Tree, promise: Promise) -> Result<Box<dyn Engine>, EngineError> {
    let (dir, disk) = (tree.index(), tree.disk().clone());
    let promise = promise.map_err(|error| failed(&error))?;
    let expected = promise.filter(|_| !died_of(tree));
    prepare(tree)?;
    disk.create_new(&dir.join("opening")).map_err(|error| failed(&error))?;
    let config = sled::Config::new().path(&dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    let db = open_patiently(&config).map_err(|error| EngineError(error.to_string()))?;
    Ok(Box::new(SledEngine { db, dir, disk, expected }))
}

/// sled's background threads may hold its own lock for a moment after it was dropped. Nobody else
/// can: the store's lock is held.
fn open_patiently(config: &sled::Config) -> sled::Result<sled::Db> {
    for _ in 0..ATTEMPTS {
        match config.open() {
            Err(sled::Error::Io(error)) if error.to_string().contains("lock") => {
                std::thread::sleep(PAUSE);
            }
            opened => return opened,
        }
    }
    config.open()
}

/// Whether the last opener of the index did not live to tell.
fn died_of(tree: &Tree) -> bool {
    tree.disk().file_size(&tree.index().join("opening")).is_ok()
}

fn prepare(tree: &Tree) -> Result<(), EngineError> {
    if died_of(tree) {
        tracing::warn!("the index could not be opened last time; it is moved aside and rebuilt");
        move_aside(tree).map_err(|error| failed(&error))?;
    }
    tree.disk().make_dir(&tree.index()).map(drop).map_err(|error| failed(&error))
}

/// Moves the index out of the way; only the newest such copy is kept.
pub(super) fn move_aside(tree: &Tree) -> Result<(), DiskError> {
    tree.disk().remove_tree(&tree.index_aside())?;
    tree.disk().rename(&tree.index(), &tree.index_aside())
}

/// What `clean` says, durably removing it: from here on it would not be true.
///
/// To be called before anything can be published: an object that comes while `clean` is still there
/// would be unknown for ever if the process died now.
pub(super) fn take_clean(tree: &Tree) -> Promise {
    let (disk, path) = (tree.disk(), tree.index().join("clean"));
    let text = disk.open(&path).and_then(|file| {
        let len = usize::try_from(file.len()?.min(64)).unwrap_or(64);
        file.read_exact_at(len, 0)
    });
    if text.as_ref().is_err_and(DiskError::is_not_found) {
        return Ok(None);
    }
    disk.remove(&path)?;
    disk.sync_dir(&tree.index())?;
    Ok(text.ok().map(|text| String::from_utf8_lossy(&text).into_owned()))
}

fn clean_text(totals: Totals) -> String {
    format!("{} {}\n", totals.objects, totals.bytes)
}

impl Engine for SledEngine {
    fn load(&mut self, take_over: &mut dyn FnMut(Digest, Hint)) -> Result<Loaded, EngineError> {
        let mut totals = Totals::default();
        for pair in self.db.iter() {
            let (key, value) = pair.map_err(|error| EngineError(error.to_string()))?;
            if let Some((digest, hint)) = codec::digest(&key).zip(codec::hint(&key, &value)) {
                totals.objects = totals.objects.saturating_add(1);
                totals.bytes = totals.bytes.saturating_add(hint.size);
                take_over(digest, hint);
            }
        }
        let clean = self.expected.take().is_some_and(|text| text == clean_text(totals));
        self.disk.remove(&self.dir.join("opening")).map_err(|error| failed(&error))?;
        Ok(Loaded { count: totals.objects, clean })
    }

    fn apply(&mut self, changes: &[Change], last: Last) -> Result<(), EngineError> {
        let mut batch = sled::Batch::default();
        for (digest, hint) in changes {
            let key = codec::key(digest);
            match hint {
                Some(hint) => batch.insert(key.as_slice(), codec::value(&key, hint)),
                None => batch.remove(key.as_slice()),
            }
        }
        let applied = self.db.apply_batch(batch).and_then(|()| self.db.flush());
        applied.map_err(|error| EngineError(error.to_string()))?;
        match last {
            Last::No => Ok(()),
            Last::Yes(totals) => self.write_clean(totals).map_err(|error| failed(&error)),
        }
    }
}

impl SledEngine {
    fn write_clean(&self, totals: Totals) -> Result<(), DiskError> {
        let file = self.disk.create_new(&self.dir.join("clean"))?;
        file.write_all_at(&[Bytes::from(clean_text(totals))], 0)?;
        file.sync()
    }
}

fn failed(error: &DiskError) -> EngineError {
    EngineError(format!("{error}: {}", error.io()))
}
