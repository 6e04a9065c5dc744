//! The disk changes what was kept: nobody completes a wrong body, and the next one fetches it anew.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use entrepot_oci::Digest;
use tempfile::TempDir;

use super::{
    ORIGIN, assert_blobs_are_right, blob_path, fill, kept, new_dir, noise, open, read_all, reserve,
    sha256,
};
use crate::disk::{Call, Disk, Fault, FaultPlan};
use crate::{
    HOLD_BACK, IndexState, Lookup, Options, Pace, Presence, ReadError, Reader, Start, Store,
    Verdict,
};

/// Larger than what a lookup waits for.
const LARGE: usize = 3 * 1024 * 1024 + 7;

async fn closed_with(dir: &TempDir, contents: &[&Bytes]) {
    let store = open(dir).await;
    for content in contents {
        drop(fill(&store, content).await);
    }
    store.close().await;
}

async fn loaded(store: Store) -> Store {
    while store.index_state() == IndexState::Loading {
        tokio::task::yield_now().await;
    }
    store
}

async fn open_with(dir: &TempDir, plan: &Arc<FaultPlan>) -> Store {
    let options = Options::new(dir.path()).with_disk(Disk::with_faults(Arc::clone(plan)));
    loaded(Store::open(options).await.unwrap()).await
}

fn flip(path: &Path, at: usize) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at as u64).unwrap();
}

fn is_quarantined(dir: &TempDir, digest: &Digest) -> bool {
    dir.path().join("quarantine").join(format!("sha256-{}", digest.hex())).exists()
}

/// Reads to the end, or as far as it goes.
async fn read_up(reader: &Reader) -> (Vec<u8>, Result<(), ReadError>) {
    let mut all = Vec::new();
    loop {
        match reader.read_at(all.len() as u64, 100_000).await {
            Ok(bytes) if bytes.is_empty() => return (all, Ok(())),
            Ok(bytes) => all.extend_from_slice(&bytes),
            Err(error) => return (all, Err(error)),
        }
    }
}

#[tokio::test]
async fn a_small_damaged_object_is_absent_at_once() {
    let (content, other) = (noise(200_000, 1), noise(200_000, 2));
    let digest = sha256(&content);
    let path = |dir: &TempDir| blob_path(dir, &digest);
    let ways: [&dyn Fn(&TempDir); 7] = [
        &|dir| flip(&path(dir), 0),
        &|dir| flip(&path(dir), 100_000),
        &|dir| flip(&path(dir), 199_999),
        &|dir| fs::write(path(dir), &content[..199_999]).unwrap(),
        &|dir| fs::write(path(dir), [&content[..], b"x"].concat()).unwrap(),
        &|dir| fs::write(path(dir), b"").unwrap(),
        &|dir| {
            let (ours, theirs) = (path(dir), blob_path(dir, &sha256(&other)));
            fs::rename(&ours, dir.path().join(".aside")).unwrap();
            fs::rename(&theirs, &ours).unwrap();
            fs::rename(dir.path().join(".aside"), theirs).unwrap();
        },
    ];
    for (number, damage) in ways.into_iter().enumerate() {
        for index in ["read", "rebuilt"] {
            let dir = new_dir();
            closed_with(&dir, &[&content, &other]).await;
            damage(&dir);
            if index == "rebuilt" {
                fs::remove_dir_all(dir.path().join("index")).unwrap();
            }
            let store = loaded(open(&dir).await).await;
            drop(reserve(&store, &digest).await);
            assert!(is_quarantined(&dir, &digest), "way {number}");
            assert_eq!(store.contains(&digest), Presence::Absent);
            assert_eq!(read_all(&fill(&store, &content).await, 65_536).await.unwrap(), content);
            if number < 6 {
                assert_eq!(store.totals().objects, 2);
                assert!(kept(&store, &sha256(&other)).await.is_verified());
            } else {
                drop(reserve(&store, &sha256(&other)).await);
            }
            assert_blobs_are_right(dir.path());
        }
    }
}

#[tokio::test]
async fn a_large_damaged_object_is_never_completed() {
    let content = noise(LARGE, 3);
    let digest = sha256(&content);
    for at in [0, LARGE / 2, LARGE - 1] {
        let dir = new_dir();
        closed_with(&dir, &[&content]).await;
        flip(&blob_path(&dir, &digest), at);
        // The last piece: everything before it is hashed already.
        let plan = FaultPlan::at(4, Fault::Hang).only(Call::Read).about(blob_path(&dir, &digest));
        let plan = Arc::new(plan);
        let store = open_with(&dir, &plan).await;
        let readers = [kept(&store, &digest).await, kept(&store, &digest).await];
        for reader in &readers {
            assert!(!reader.is_verified());
            assert_eq!(reader.size(), Some(LARGE as u64));
            assert_eq!(reader.available(), LARGE as u64 - HOLD_BACK);
        }
        let mut waiting = tokio::task::JoinSet::new();
        for reader in readers.clone() {
            waiting.spawn(async move { reader.read_at(reader.available(), 1).await });
        }
        let [verified, early] = readers;
        let verified = tokio::spawn(async move { verified.verified().await });
        while plan.hanging() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(waiting.try_join_next().is_none() && !verified.is_finished());
        plan.release();
        while let Some(read) = waiting.join_next().await {
            assert!(matches!(read.unwrap(), Err(ReadError::Damaged)));
        }
        assert!(matches!(verified.await.unwrap(), Err(ReadError::Damaged)));
        assert!(matches!(early.read_at(0, 1).await, Err(ReadError::Damaged)));
        drop(reserve(&store, &digest).await);
        assert!(is_quarantined(&dir, &digest));
        assert_eq!(store.totals().objects, 0);
        let again = fill(&store, &content).await;
        assert_eq!(read_all(&again, 262_144).await.unwrap(), content);
    }
}

#[tokio::test]
async fn a_large_sound_object_is_shown_whole_once_it_is_verified() {
    let dir = new_dir();
    let content = noise(LARGE, 4);
    let digest = sha256(&content);
    closed_with(&dir, &[&content]).await;
    let plan = FaultPlan::at(1, Fault::Hang).only(Call::Read).about(blob_path(&dir, &digest));
    let plan = Arc::new(plan);
    let store = open_with(&dir, &plan).await;
    let reader = kept(&store, &digest).await;
    assert_eq!((reader.is_verified(), reader.origin()), (false, None));
    // Eviction and the like go on by the whole size.
    assert_eq!(store.totals().bytes, LARGE as u64);
    plan.release();
    reader.verified().await.unwrap();
    assert_eq!((reader.is_verified(), reader.available()), (true, LARGE as u64));
    assert_eq!(read_all(&reader, 262_144).await.unwrap(), content);
}

/// How often the file of `digest` was read, waiting for the disk.
fn reads(plan: &FaultPlan, dir: &TempDir, digest: &Digest) -> usize {
    let path = blob_path(dir, digest);
    plan.calls().iter().filter(|(call, about)| *call == Call::Read && *about == path).count()
}

#[tokio::test]
async fn an_object_is_hashed_once_a_process() {
    let dir = new_dir();
    let (small, large) = (noise(9_000, 5), noise(LARGE, 6));
    closed_with(&dir, &[&small, &large]).await;
    let plan = Arc::new(FaultPlan::record());
    let store = open_with(&dir, &plan).await;
    for round in 0..5 {
        for (content, pieces) in [(&small, 1), (&large, 4)] {
            let digest = sha256(content);
            let readers = [kept(&store, &digest).await, kept(&store, &digest).await];
            for reader in readers {
                reader.verified().await.unwrap();
            }
            assert_eq!(reads(&plan, &dir, &digest), pieces, "round {round}");
        }
        // So many that the two are closed, and opened again the next time.
        for seed in 0..600 {
            let content = noise(10, 1_000 + seed);
            store.put(&sha256(&content), content).await.unwrap();
        }
    }
    // Nor is what this process has published itself.
    let own = noise(LARGE, 7);
    let reader = fill(&store, &own).await;
    assert!(reader.is_verified() && kept(&store, &sha256(&own)).await.is_verified());
    assert_eq!(reads(&plan, &dir, &sha256(&own)), 0);
}

#[tokio::test]
async fn what_was_removed_is_verified_again_when_it_is_back() {
    let dir = new_dir();
    let content = noise(9_000, 8);
    let digest = sha256(&content);
    let store = open(&dir).await;
    drop(fill(&store, &content).await);
    store.remove(&digest).await.unwrap();
    fs::write(blob_path(&dir, &digest), noise(9_000, 9)).unwrap();
    drop(reserve(&store, &digest).await);
    assert!(is_quarantined(&dir, &digest));
}

#[tokio::test]
async fn asking_for_a_verdict_verifies_too() {
    let dir = new_dir();
    let content = noise(LARGE, 10);
    closed_with(&dir, &[&content]).await;
    let store = loaded(open(&dir).await).await;
    assert!(matches!(store.verify_at(&sha256(&content), Pace::Full).await, Verdict::Sound { .. }));
    assert!(kept(&store, &sha256(&content)).await.is_verified());
}

#[tokio::test]
async fn damage_that_can_not_be_moved_is_not_served_either() {
    for len in [9_000, LARGE] {
        let dir = new_dir();
        let content = noise(len, 11);
        let digest = sha256(&content);
        closed_with(&dir, &[&content]).await;
        flip(&blob_path(&dir, &digest), len - 1);
        let quarantined = dir.path().join("quarantine").join(format!("sha256-{}", digest.hex()));
        let read_only = FaultPlan::from(1, Fault::Errno(30)).only(Call::Rename).about(quarantined);
        let store = open_with(&dir, &Arc::new(read_only)).await;
        if let Lookup::Kept(reader) = store.lookup(&digest, ORIGIN).await {
            assert!(matches!(reader.verified().await, Err(ReadError::Damaged)));
        }
        assert_eq!(store.contains(&digest), Presence::Absent);
        let (mut writer, _) =
            reserve(&store, &digest).await.begin(Start::Fresh, None).await.unwrap();
        writer.write(content.clone()).await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(read_all(&kept(&store, &digest).await, 262_144).await.unwrap(), content);
        assert_eq!((assert_blobs_are_right(dir.path()), store.totals().objects), (1, 1));
    }
}

#[tokio::test]
async fn an_object_that_can_not_be_read_is_set_aside() {
    for len in [9_000, LARGE] {
        let dir = new_dir();
        let content = noise(len, 12);
        let digest = sha256(&content);
        closed_with(&dir, &[&content]).await;
        let plan = FaultPlan::from(1, Fault::Errno(5)).only(Call::Read);
        let store = open_with(&dir, &Arc::new(plan.about(blob_path(&dir, &digest)))).await;
        if let Lookup::Kept(reader) = store.lookup(&digest, ORIGIN).await {
            assert!(matches!(reader.verified().await, Err(ReadError::Damaged)));
        }
        drop(reserve(&store, &digest).await);
        assert!(is_quarantined(&dir, &digest));
    }
}

#[tokio::test]
async fn a_verification_does_not_touch_what_was_published_meanwhile() {
    let dir = new_dir();
    let content = noise(LARGE, 13);
    let digest = sha256(&content);
    closed_with(&dir, &[&content]).await;
    flip(&blob_path(&dir, &digest), 5);
    let plan = FaultPlan::at(2, Fault::Hang).only(Call::Read).about(blob_path(&dir, &digest));
    let plan = Arc::new(plan);
    let store = open_with(&dir, &plan).await;
    let old = kept(&store, &digest).await;
    while plan.hanging() == 0 {
        tokio::task::yield_now().await;
    }
    store.remove(&digest).await.unwrap();
    let new = fill(&store, &content).await;
    plan.release();
    assert!(matches!(old.verified().await, Err(ReadError::Damaged)));
    assert!(!is_quarantined(&dir, &digest));
    assert!(kept(&store, &digest).await.is_verified());
    assert_eq!(read_all(&new, 262_144).await.unwrap(), content);
}

#[tokio::test]
async fn a_download_is_verified_at_its_end() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(300_000, 14);
    let begun = reserve(&store, &sha256(&content)).await.begin(Start::Fresh, None).await;
    let (mut writer, reader) = begun.unwrap();
    let waiting = reader.clone();
    let waiting = tokio::spawn(async move { waiting.verified().await });
    writer.write(content.clone()).await.unwrap();
    assert_eq!(reader.read_at(0, 10).await.unwrap(), content.slice(..10));
    assert!(!reader.is_verified() && !waiting.is_finished());
    writer.finish().await.unwrap();
    waiting.await.unwrap().unwrap();

    let begun = reserve(&store, &sha256(b"other")).await.begin(Start::Fresh, None).await;
    let (writer, reader) = begun.unwrap();
    drop(writer);
    assert!(matches!(reader.verified().await, Err(ReadError::Broken)));
}

/// Damages the file at `path` in the `way`-th way; `other` is some other object.
fn damage(path: &Path, other: &Path, way: u64) {
    let len = usize::try_from(fs::metadata(path).unwrap().len()).unwrap();
    let random = noise(8, way).iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let at = usize::try_from(random).unwrap() % len.max(1);
    let cut = |len: usize| {
        File::options().write(true).open(path).unwrap().set_len(len as u64).unwrap();
    };
    match way % 7 {
        0..3 if len > 0 => flip(path, at),
        3 => cut(at),
        4 => cut(len + 1 + at),
        5 => cut(0),
        _ => drop(fs::copy(other, path).unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_corruptions_and_no_wrong_body() {
    let mut sizes: Vec<usize> = (0..48_usize).map(|number| number * number * 40).collect();
    sizes.extend([LARGE, LARGE / 2]);
    let contents: Vec<Bytes> =
        sizes.into_iter().zip(500..).map(|(len, seed)| noise(len, seed)).collect();
    let dir = new_dir();
    closed_with(&dir, &contents.iter().collect::<Vec<_>>()).await;
    let paths: Vec<_> = contents.iter().map(|one| blob_path(&dir, &sha256(one))).collect();
    for round in 0..20 {
        for (number, path) in paths.iter().enumerate() {
            damage(path, &paths[(number + 7) % 50], round * 50 + number as u64);
        }
        let store = loaded(open(&dir).await).await;
        for content in &contents {
            pull(&store, content).await;
        }
        store.close().await;
        assert_eq!(assert_blobs_are_right(dir.path()), contents.len());
    }
}

/// Gets an object as a client would: a body that breaks off is asked for once more.
async fn pull(store: &Store, content: &Bytes) {
    for _ in 0..2 {
        let reader = match store.lookup(&sha256(content), ORIGIN).await {
            Lookup::Kept(reader) | Lookup::InFlight(reader) => reader,
            Lookup::Absent(reservation) => {
                let (mut writer, _) = reservation.begin(Start::Fresh, None).await.unwrap();
                writer.write(content.clone()).await.unwrap();
                writer.finish().await.unwrap()
            }
        };
        let (body, end) = read_up(&reader).await;
        if end.is_ok() {
            assert!(body == content[..], "a wrong body was completed");
            return;
        }
        assert!(body.len() as u64 + HOLD_BACK <= reader.size().unwrap());
    }
    panic!("damage did not heal");
}
