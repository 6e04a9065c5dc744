//! Verification, quarantine and removal, also under readers.

use std::fs;

use super::{blob_path, fill, kept, new_dir, noise, open, read_all, reserve, sha256};
use crate::{Pace, Presence, QuarantineError, Verdict};

#[tokio::test]
async fn a_reader_of_a_removed_object_finishes() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(400_000, 1);
    let digest = sha256(&content);
    for way in 0..3 {
        drop(fill(&store, &content).await);
        let reader = kept(&store, &digest).await;
        assert_eq!(reader.read_at(0, 1_000).await.unwrap(), content.slice(..1_000));
        match way {
            0 => store.remove(&digest).await.unwrap(),
            1 => store.quarantine(&digest).await.unwrap(),
            _ => fs::remove_file(blob_path(&dir, &digest)).unwrap(),
        }
        assert_eq!(read_all(&reader, 50_000).await.unwrap(), content);
        // What was taken away behind the store's back may be served while it is open.
        let _ = store.remove(&digest).await;
        drop(reserve(&store, &digest).await);
    }
}

#[tokio::test]
async fn a_removed_object_is_gone_for_those_who_come_after() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(1_000, 2);
    let digest = sha256(&content);
    let reader = fill(&store, &content).await;
    store.remove(&digest).await.unwrap();
    assert_eq!(store.contains(&digest), Presence::Absent);
    assert_eq!((store.totals().objects, store.totals().bytes), (0, 0));
    drop(reserve(&store, &digest).await);
    assert!(matches!(store.remove(&digest).await, Err(QuarantineError::Absent)));
    assert!(matches!(store.quarantine(&digest).await, Err(QuarantineError::Absent)));
    drop(reader);
}

#[tokio::test]
async fn gentle_verification_tells_the_same() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(3_500_000, 4);
    let digest = sha256(&content);
    fill(&store, &content).await;
    let gently = || store.verify_at(&digest, Pace::Gentle);
    assert!(matches!(gently().await, Verdict::Sound { size: 3_500_000 }));
    let mut damaged = content.to_vec();
    damaged[2_000_000] ^= 1;
    fs::write(blob_path(&dir, &digest), &damaged).unwrap();
    assert!(matches!(gently().await, Verdict::Damaged { actual } if actual == sha256(&damaged)));
    assert_eq!(store.totals().quarantined_objects, 0);
    store.quarantine(&digest).await.unwrap();
    assert_eq!(store.totals().quarantined_objects, 1);
    assert!(matches!(gently().await, Verdict::Absent));
}

#[tokio::test]
async fn what_is_kept_is_listed_in_order_and_by_pages() {
    let dir = new_dir();
    let store = open(&dir).await;
    let mut digests = Vec::new();
    for seed in 0..7 {
        let content = noise(100, seed);
        drop(fill(&store, &content).await);
        digests.push(sha256(&content));
    }
    digests.sort_unstable();
    store.pin(&digests[2]).await.unwrap();
    kept(&store, &digests[4]).await;
    let listed = store.list(Some(&digests[1]), 4);
    let names: Vec<_> = listed.iter().map(|one| one.digest).collect();
    assert_eq!(names, digests[2..6]);
    assert!(listed[0].is_pinned && !listed[1].is_pinned);
    assert_eq!((listed[2].hits, listed[2].size), (1, 100));
    assert_eq!(store.list(None, 100).len(), 7);
    assert_eq!(store.list(Some(&digests[6]), 100), []);
}

#[tokio::test]
async fn verification_tells_sound_from_damaged() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(100_000, 3);
    let digest = sha256(&content);
    assert!(matches!(store.verify_at(&digest, Pace::Full).await, Verdict::Absent));
    fill(&store, &content).await;
    assert!(matches!(store.verify_at(&digest, Pace::Full).await, Verdict::Sound { size: 100_000 }));
    for damage in [&content[..99_999], &[&content[..], b"x"].concat(), b""] {
        fs::write(blob_path(&dir, &digest), damage).unwrap();
        let verdict = store.verify_at(&digest, Pace::Full).await;
        assert!(matches!(verdict, Verdict::Damaged { actual } if actual == sha256(damage)));
    }
    store.quarantine(&digest).await.unwrap();
    assert!(!blob_path(&dir, &digest).exists());
    let aside = dir.path().join("quarantine").join(format!("sha256-{}", digest.hex()));
    assert!(aside.exists());
    drop(fill(&store, &content).await);
    assert!(matches!(store.verify_at(&digest, Pace::Full).await, Verdict::Sound { .. }));
}

#[tokio::test]
async fn the_walk_lists_what_is_kept() {
    let dir = new_dir();
    let store = open(&dir).await;
    let mut expected = Vec::new();
    for seed in 0..30 {
        let content = noise(100, seed);
        store.put(&sha256(&content), content.clone()).await.unwrap();
        expected.push(sha256(&content));
    }
    fs::write(blob_path(&dir, &expected[0]).with_file_name("stray"), b"").unwrap();
    let mut listed = store.objects().await.unwrap();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
}
