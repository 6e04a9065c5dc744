//! What one registry has sent is never continued by another, nor taken for another's.

use std::fs;
use std::time::{Duration, SystemTime};

use entrepot_oci::Digest;

use super::{
    ORIGIN, blob_path, kept, leave_partial, new_dir, noise, open, partial_path, read_all, reserve,
    sha256,
};
use crate::{BeginError, FinishError, Lookup, Presence, Reservation, Start, Store};

const OTHER: &str = "attacker.example";

async fn reserve_from(store: &Store, digest: &Digest, origin: &str) -> Reservation {
    match store.lookup(digest, origin).await {
        Lookup::Absent(reservation) => reservation,
        other => panic!("not absent: {other:?}"),
    }
}

#[tokio::test]
async fn a_partial_file_is_continued_only_for_its_origin() {
    let dir = new_dir();
    let content = noise(300_000, 1);
    let digest = sha256(&content);
    let store = open(&dir).await;
    leave_partial(&store, &content, 10).await;
    store.close().await;

    let store = open(&dir).await;
    let foreign = reserve_from(&store, &digest, OTHER).await;
    assert_eq!((foreign.resume_from(), foreign.origin()), (0, OTHER));
    let begun = foreign.begin(Start::Resumed, None).await;
    assert!(matches!(begun, Err(BeginError::NothingToResume)));
    let own = reserve(&store, &digest).await;
    assert_eq!((own.resume_from(), own.origin()), (262_144, ORIGIN));
}

#[tokio::test]
async fn a_fresh_download_leaves_alone_what_others_have_begun() {
    let dir = new_dir();
    let content = noise(300_000, 2);
    let (digest, bystander) = (sha256(&content), noise(300_000, 3));
    let store = open(&dir).await;
    leave_partial(&store, &content, 10).await;
    leave_partial(&store, &bystander, 10).await;
    let foreign = reserve_from(&store, &digest, OTHER).await;
    let (mut writer, reader) = foreign.begin(Start::Fresh, None).await.unwrap();
    assert_eq!(reader.available(), 0);
    writer.write(content.slice(..200_000)).await.unwrap();
    drop(writer);
    assert_eq!(reserve(&store, &digest).await.resume_from(), 262_144);
    assert_eq!(reserve_from(&store, &digest, OTHER).await.resume_from(), 196_608);
    // Once it is kept, what others have left of it is of no use.
    let again = reserve_from(&store, &digest, OTHER).await;
    let (mut writer, _) = again.begin(Start::Fresh, None).await.unwrap();
    writer.write(content.clone()).await.unwrap();
    writer.finish().await.unwrap();
    assert!(!partial_path(&dir, &digest).exists());
    assert_eq!(reserve(&store, &sha256(&bystander)).await.resume_from(), 262_144);
}

#[tokio::test]
async fn one_registrys_download_keeps_no_other_from_its_own() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(300_000, 7);
    let digest = sha256(&content);
    let hostile = reserve_from(&store, &digest, OTHER).await;
    // Neither while it is reserved, nor while it trickles.
    let own = reserve(&store, &digest).await;
    let (mut trickle, at_others) = hostile.begin(Start::Fresh, Some(300_000)).await.unwrap();
    trickle.write(noise(100_000, 8)).await.unwrap();
    let (mut writer, _) = own.begin(Start::Fresh, None).await.unwrap();
    assert_eq!(store.downloads().len(), 2);
    let Lookup::InFlight(joined) = store.lookup(&digest, ORIGIN).await else { panic!("no join") };
    writer.write(content.clone()).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(read_all(&joined, 64_000).await.unwrap(), content);
    assert_eq!(store.contains(&digest), Presence::Kept);
    for origin in [ORIGIN, "third.example"] {
        let Lookup::Kept(_) = store.lookup(&digest, origin).await else { panic!("{origin}") };
    }
    // Nor does it keep the object from going.
    drop(joined);
    store.remove(&digest).await.unwrap();
    assert!(!blob_path(&dir, &digest).exists());
    assert_eq!(store.contains(&digest), Presence::InFlight);
    // What was wrong all along ends so.
    trickle.write(noise(200_000, 9)).await.unwrap();
    assert!(matches!(trickle.finish().await, Err(FinishError::DigestMismatch { .. })));
    assert!(at_others.read_at(290_000, 10).await.is_err());
    assert_eq!(store.contains(&digest), Presence::Absent);
}

#[tokio::test]
async fn the_same_bytes_from_two_registries_are_published_once() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(300_000, 10);
    let digest = sha256(&content);
    let mut ends = Vec::new();
    for origin in [ORIGIN, OTHER] {
        let reservation = reserve_from(&store, &digest, origin).await;
        let (mut writer, reader) = reservation.begin(Start::Fresh, None).await.unwrap();
        writer.write(content.clone()).await.unwrap();
        ends.push((writer, reader));
    }
    let inode =
        || std::os::unix::fs::MetadataExt::ino(&fs::metadata(blob_path(&dir, &digest)).unwrap());
    let mut inodes = Vec::new();
    for (writer, reader) in ends {
        writer.finish().await.unwrap();
        inodes.push(inode());
        assert_eq!(read_all(&reader, 64_000).await.unwrap(), content);
        assert_eq!(reader.origin(), None);
    }
    assert_eq!(inodes[0], inodes[1]);
    assert_eq!(store.totals().objects, 1);
    assert!(store.downloads().is_empty());
    assert_eq!(fs::read_dir(dir.path().join("partial/sha256")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_download_says_whose_it_is_until_it_is_published() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(300_000, 4);
    let digest = sha256(&content);
    let reservation = reserve(&store, &digest).await;
    let (mut writer, reader) = reservation.begin(Start::Fresh, None).await.unwrap();
    let Lookup::InFlight(joined) = store.lookup(&digest, ORIGIN).await else {
        panic!("not joined")
    };
    assert_eq!((reader.origin(), joined.origin()), (Some(ORIGIN), Some(ORIGIN)));
    writer.write(content).await.unwrap();
    let verified = writer.verify().await.unwrap();
    assert!(reader.is_verified());
    assert_eq!((reader.origin(), joined.origin()), (Some(ORIGIN), Some(ORIGIN)));
    verified.publish().await.unwrap();
    assert_eq!((reader.origin(), joined.origin()), (None, None));
    assert_eq!(kept(&store, &digest).await.origin(), None);
}

#[tokio::test]
async fn a_partial_file_is_dropped_after_a_week() {
    let dir = new_dir();
    let store = open(&dir).await;
    let (old, young) = (noise(300_000, 5), noise(300_000, 6));
    for (content, days) in [(&old, 8), (&young, 6)] {
        leave_partial(&store, content, 10).await;
        let file = fs::File::open(partial_path(&dir, &sha256(content))).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(24 * days)).unwrap();
    }
    store.close().await;
    let store = open(&dir).await;
    assert_eq!(reserve(&store, &sha256(&old)).await.resume_from(), 0);
    assert_eq!(reserve(&store, &sha256(&young)).await.resume_from(), 262_144);
    assert!(!partial_path(&dir, &sha256(&old)).exists());
}
