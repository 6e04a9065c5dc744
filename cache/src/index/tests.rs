//! The index before engines that fail in every way.

use std::sync::Arc;

use entrepot_oci::{Algorithm, Digest, UnixSeconds};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::engine::{Change, Engine, EngineError, Hint, Last, Loaded};
use super::state::{IndexState, Knowledge, Totals};
use super::{Documents, Index, sled_engine};
use crate::disk::Disk;
use crate::disk::tree::Tree;
use crate::index::references::{Interpreter, References};

/// What an engine does when it is asked to load, and to apply a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    Fails,
    Panics,
}

impl Mood {
    fn show(self) -> Result<(), EngineError> {
        match self {
            Self::Well => Ok(()),
            Self::Fails => Err(EngineError("in a mood".to_owned())),
            Self::Panics => panic!("in a bad mood"),
        }
    }
}

#[derive(Clone)]
struct Moody {
    load: Mood,
    apply: Mood,
    drop: Mood,
    loaded: Vec<(Digest, Hint)>,
    applied: Arc<Mutex<Vec<Change>>>,
}

impl Engine for Moody {
    fn load(&mut self, take_over: &mut dyn FnMut(Digest, Hint)) -> Result<Loaded, EngineError> {
        self.load.show()?;
        let hints = std::mem::take(&mut self.loaded);
        let count = hints.len() as u64;
        for (digest, hint) in hints {
            take_over(digest, hint);
        }
        Ok(Loaded { count, clean: true })
    }

    fn apply(&mut self, changes: &[Change], _: Last) -> Result<(), EngineError> {
        self.apply.show()?;
        self.applied.lock().extend_from_slice(changes);
        Ok(())
    }
}

struct Dropped(Moody);

impl Drop for Dropped {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.drop.show().unwrap();
        }
    }
}

impl Engine for Dropped {
    fn load(&mut self, take_over: &mut dyn FnMut(Digest, Hint)) -> Result<Loaded, EngineError> {
        self.0.load(take_over)
    }

    fn apply(&mut self, changes: &[Change], last: Last) -> Result<(), EngineError> {
        self.0.apply(changes, last)
    }
}

fn digest(number: u8) -> Digest {
    Digest::of(Algorithm::Sha256, &[number])
}

fn documents() -> Documents {
    Documents { interpreter: Interpreter::default(), room: 1_000 }
}

/// What `engine` hands over.
fn loaded(engine: &mut dyn Engine) -> (Loaded, Vec<(Digest, Hint)>) {
    let mut hints = Vec::new();
    let loaded = engine.load(&mut |digest, hint| hints.push((digest, hint))).unwrap();
    (loaded, hints)
}

const fn hint(size: u64) -> Hint {
    Hint { size, last_use: UnixSeconds(1), hits: 1, references: References::Unknown }
}

/// The tree in `dir` as it is.
fn paths(dir: &TempDir) -> Tree {
    Tree::new(dir.path().to_owned(), Disk::real())
}

fn tree(dir: &TempDir) -> Tree {
    let tree = paths(dir);
    tree.create_directories().unwrap();
    tree.disk().make_dir(&tree.index()).unwrap();
    tree
}

fn well() -> Moody {
    let loaded = vec![(digest(1), hint(10)), (digest(2), hint(20))];
    let applied = Arc::default();
    Moody { load: Mood::Well, apply: Mood::Well, drop: Mood::Well, loaded, applied }
}

fn reopened(tree: &Tree) -> Box<dyn Engine> {
    sled_engine::open(tree, sled_engine::take_clean(tree)).unwrap()
}

/// An index on `engine` in which objects have come, been used and gone.
fn busy(dir: &TempDir, engine: Moody) -> Index {
    let opener = move |_: &Tree| Ok(Box::new(Dropped(engine)) as Box<dyn Engine>);
    let index = Index::start_with(tree(dir), documents(), None, Box::new(opener));
    index.added(&paths(dir), &digest(3), 300, References::Unknown);
    index.used(&digest(3));
    index.removed(&digest(2));
    index
}

#[test]
fn what_is_known_now_beats_what_was_known() {
    let dir = TempDir::new().unwrap();
    let engine = well();
    let applied = Arc::clone(&engine.applied);
    let index = busy(&dir, engine);
    index.close();
    assert_eq!(index.state(), IndexState::Ready);
    assert_eq!(index.totals(), Totals { objects: 2, bytes: 310, ..Totals::default() });
    let mut sizes: Vec<_> = applied
        .lock()
        .iter()
        .map(|(_, hint)| hint.as_ref().map(|hint| (hint.size, hint.hits)))
        .collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [None, Some((300, 1))]);
}

#[test]
fn no_mood_of_an_engine_gets_past_the_fence() {
    for bad in [Mood::Fails, Mood::Panics] {
        let moods = [
            Moody { load: bad, ..well() },
            Moody { apply: bad, ..well() },
            Moody { drop: bad, ..well() },
            Moody { load: bad, apply: bad, drop: bad, ..well() },
        ];
        for engine in moods {
            let known = if engine.load == Mood::Well { 310 } else { 300 };
            let dir = TempDir::new().unwrap();
            let index = busy(&dir, engine);
            index.close();
            assert_eq!(index.state(), IndexState::InMemory);
            assert_eq!(index.totals().bytes, known);
            assert_eq!(index.knowledge(&digest(9)), Knowledge::NotKept);
            assert!(dir.path().join("index.aside").exists());
            assert!(!dir.path().join("index").exists());
        }
    }
}

#[test]
fn an_engine_that_does_not_open_is_done_without() {
    for bad in [Mood::Fails, Mood::Panics] {
        let dir = TempDir::new().unwrap();
        let opener = move |_: &Tree| bad.show().map(|()| Box::new(well()) as Box<dyn Engine>);
        let index = Index::start_with(tree(&dir), documents(), None, Box::new(opener));
        index.added(&paths(&dir), &digest(1), 5, References::Unknown);
        index.close();
        assert_eq!((index.state(), index.totals().bytes), (IndexState::InMemory, 5));
    }
}

#[test]
fn sled_gives_back_what_it_took_until_it_is_not_closed() {
    let dir = TempDir::new().unwrap();
    let tree = tree(&dir);
    let changes: Vec<Change> =
        (0..50).map(|number| (digest(number), Some(hint(u64::from(number))))).collect();
    let mut engine = reopened(&tree);
    assert!(!loaded(engine.as_mut()).0.clean);
    engine.apply(&changes, Last::No).unwrap();
    let left = Totals { objects: 49, bytes: 1_176, ..Totals::default() };
    engine.apply(&[(digest(49), None)], Last::Yes(left)).unwrap();
    drop(engine);

    let mut engine = reopened(&tree);
    let (found, hints) = loaded(engine.as_mut());
    assert!(found.clean);
    assert_eq!((found.count, hints.len()), (49, 49));
    assert!(hints.iter().all(|(digest, hint)| changes.contains(&(*digest, Some(hint.clone())))));
    drop(engine);
    assert!(!loaded(reopened(&tree).as_mut()).0.clean, "it was not closed");
}

#[test]
fn an_unread_index_is_moved_aside_by_the_next_opener() {
    let dir = TempDir::new().unwrap();
    let tree = tree(&dir);
    for _ in 0..2 {
        drop(reopened(&tree));
    }
    assert!(dir.path().join("index.aside/opening").exists());
}

#[test]
fn a_walk_that_was_cut_short_makes_no_whole_index() {
    for is_readable in [true, false] {
        let dir = TempDir::new().unwrap();
        let tree = tree(&dir);
        if !is_readable {
            let blobs = tree.blobs(Algorithm::Sha512);
            std::fs::remove_dir(&blobs).unwrap();
            std::fs::write(blobs, b"not a directory").unwrap();
        }
        let opener = |tree: &Tree| sled_engine::open(tree, Ok(None));
        let index = Index::start_with(tree, documents(), None, Box::new(opener));
        index.close();
        assert_eq!(index.state(), IndexState::Ready);
        assert_eq!(dir.path().join("index/clean").exists(), is_readable);
    }
}
