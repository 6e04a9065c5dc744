//! The index may be gone or damaged in any way: the store opens and serves everything.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{fill, kept, new_dir, noise, open, read_all, sha256};
use crate::{IndexState, Presence, Store, Totals};

const OBJECTS: u64 = 20;

fn content(number: u64) -> Bytes {
    noise(usize::try_from(number * 37).unwrap(), number)
}

const fn all() -> Totals {
    let bytes = 37 * (OBJECTS - 1) * OBJECTS / 2;
    Totals { objects: OBJECTS, bytes, evicted_objects: 0, evicted_bytes: 0, quarantined_objects: 0 }
}

/// A closed store with some objects.
async fn prepare(dir: &tempfile::TempDir) {
    let store = open(dir).await;
    for number in 0..OBJECTS {
        fill(&store, &content(number)).await;
    }
    assert_eq!(store.totals(), all());
    close(store).await;
}

/// What the index says once its owner has done everything.
async fn close(store: Store) -> (Totals, IndexState) {
    let after = store.clone();
    store.close().await;
    (after.totals(), after.index_state())
}

async fn assert_serves(dir: &tempfile::TempDir) -> (Totals, IndexState) {
    let store = open(dir).await;
    for number in 0..OBJECTS {
        let content = content(number);
        assert_eq!(store.contains(&sha256(&content)), Presence::Kept);
        assert_eq!(read_all(&kept(&store, &sha256(&content)).await, 100).await.unwrap(), content);
    }
    assert_eq!(store.contains(&sha256(b"other")), Presence::Absent);
    close(store).await
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[tokio::test]
async fn it_is_read_again_after_a_restart() {
    let dir = new_dir();
    prepare(&dir).await;
    assert!(dir.path().join("index/clean").exists());
    // Were the tree walked now, this object would be missing.
    let absent = super::blob_path(&dir, &sha256(&content(5)));
    fs::rename(&absent, dir.path().join("elsewhere")).unwrap();
    let (totals, state) = close(open(&dir).await).await;
    assert_eq!((totals, state), (all(), IndexState::Ready));
}

#[tokio::test]
async fn what_comes_after_a_start_is_known_even_if_the_index_was_never_opened() {
    let dir = new_dir();
    for round in 1..=30 {
        let store = open(&dir).await;
        // Were it there, a process that is killed now would leave an index that claims to be whole.
        assert!(!dir.path().join("index/clean").exists(), "round {round}");
        fill(&store, &content(round)).await;
        close(store).await;
        assert!(dir.path().join("index/clean").exists());
    }
}

#[tokio::test]
async fn what_comes_after_the_last_batch_is_known_all_the_same() {
    let dir = new_dir();
    prepare(&dir).await;
    let store = open(&dir).await;
    let late = store.clone();
    store.close().await;
    let content = noise(1_000, 98);
    drop(fill(&late, &content).await);
    assert!(!dir.path().join("index/clean").exists());
    drop(late);
    let (totals, _) = close(open(&dir).await).await;
    assert_eq!((totals.objects, totals.bytes), (OBJECTS + 1, all().bytes + 1_000));
}

#[tokio::test]
async fn an_object_that_only_the_index_knows_is_absent() {
    let dir = new_dir();
    prepare(&dir).await;
    let lost = sha256(&content(5));
    fs::remove_file(super::blob_path(&dir, &lost)).unwrap();
    let store = open(&dir).await;
    drop(super::reserve(&store, &lost).await);
    close(store).await;
    // What the walk does not find is forgotten, and only forgotten.
    fs::remove_file(super::blob_path(&dir, &sha256(&content(6)))).unwrap();
    fs::remove_file(dir.path().join("index/clean")).unwrap();
    assert_eq!(close(open(&dir).await).await.0.objects, OBJECTS - 2);
    assert_eq!(super::assert_blobs_are_right(dir.path()) as u64, OBJECTS - 2);
}

#[tokio::test]
async fn a_store_that_was_not_closed_is_walked() {
    let dir = new_dir();
    prepare(&dir).await;
    fs::remove_file(dir.path().join("index/clean")).unwrap();
    let more = noise(1_000, 99);
    let path = super::blob_path(&dir, &sha256(&more));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, &more).unwrap();
    let (totals, _) = close(open(&dir).await).await;
    assert_eq!((totals.objects, totals.bytes), (OBJECTS + 1, all().bytes + 1_000));
}

#[tokio::test]
async fn it_may_be_deleted() {
    let dir = new_dir();
    prepare(&dir).await;
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    assert_eq!(assert_serves(&dir).await, (all(), IndexState::Ready));
    assert_eq!(assert_serves(&dir).await, (all(), IndexState::Ready));
}

#[tokio::test]
async fn an_opener_that_died_of_it_is_not_followed() {
    let dir = new_dir();
    prepare(&dir).await;
    fs::write(dir.path().join("index/opening"), b"").unwrap();
    assert_eq!(assert_serves(&dir).await, (all(), IndexState::Ready));
    assert!(dir.path().join("index.aside").exists());
}

#[tokio::test]
async fn a_file_in_its_place_is_moved_aside() {
    let dir = new_dir();
    prepare(&dir).await;
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    fs::write(dir.path().join("index"), b"not a directory").unwrap();
    assert_eq!(assert_serves(&dir).await, (all(), IndexState::InMemory));
    assert_eq!(assert_serves(&dir).await, (all(), IndexState::Ready));
}

#[tokio::test]
async fn two_hundred_kinds_of_damage() {
    let dir = new_dir();
    prepare(&dir).await;
    let sound = dir.path().join("sound");
    copy(&dir.path().join("index"), &sound);
    let mut in_memory = 0;
    for kind in 0..200 {
        fs::remove_dir_all(dir.path().join("index")).unwrap_or_default();
        copy(&sound, &dir.path().join("index"));
        damage(&dir.path().join("index"), kind);
        let (totals, state) = assert_serves(&dir).await;
        assert_eq!(totals, all(), "kind {kind}");
        in_memory += u32::from(state == IndexState::InMemory);
        // Whatever the damage did, the next start is in order again.
        if state == IndexState::InMemory {
            assert_eq!(assert_serves(&dir).await, (all(), IndexState::Ready), "kind {kind}");
        }
    }
    assert!(in_memory > 0, "no damage was bad enough to try the fence");
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}

/// Truncates, scribbles over, empties or removes one of the files, in the `kind`-th way.
fn damage(index: &Path, kind: u64) {
    let files = files(index);
    let file = &files[usize::try_from(kind).unwrap() % files.len()];
    let mut bytes = fs::read(file).unwrap();
    // Most of the file is padding: aim at its beginning.
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let random = noise(64, kind);
    let at = usize::from(u16::from_be_bytes([random[0], random[1]])) % used;
    match kind / 8 % 5 {
        0 => bytes.truncate(at),
        1 => bytes.clear(),
        2 => bytes.iter_mut().skip(at).zip(&random).for_each(|(byte, noise)| *byte ^= noise),
        3 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 0x10),
        _ => bytes.iter_mut().take(used).zip(noise(used, kind)).for_each(|(byte, n)| *byte = n),
    }
    if kind % 40 == 39 { fs::remove_file(file).unwrap() } else { fs::write(file, bytes).unwrap() }
}
