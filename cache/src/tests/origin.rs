//! What one registry has sent is never continued by another, nor taken for another's.

use std::fs;
use std::time::{Duration, SystemTime};

use entrepot_oci::Digest;

use super::{ORIGIN, kept, leave_partial, new_dir, noise, open, partial_path, reserve, sha256};
use crate::{BeginError, Lookup, Reservation, Start, Store};

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
async fn a_fresh_download_removes_what_others_have_left() {
    let dir = new_dir();
    let content = noise(300_000, 2);
    let (digest, bystander) = (sha256(&content), noise(300_000, 3));
    let store = open(&dir).await;
    leave_partial(&store, &content, 10).await;
    leave_partial(&store, &bystander, 10).await;
    let foreign = reserve_from(&store, &digest, OTHER).await;
    let (mut writer, reader) = foreign.begin(Start::Fresh, None).await.unwrap();
    assert!(!partial_path(&dir, &digest).exists());
    assert_eq!(reader.available(), 0);
    writer.write(content.slice(..200_000)).await.unwrap();
    drop(writer);
    assert_eq!(reserve(&store, &digest).await.resume_from(), 0);
    assert_eq!(reserve_from(&store, &digest, OTHER).await.resume_from(), 196_608);
    assert_eq!(reserve(&store, &sha256(&bystander)).await.resume_from(), 262_144);
}

#[tokio::test]
async fn a_download_says_whose_it_is_until_it_is_published() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(300_000, 4);
    let digest = sha256(&content);
    let reservation = reserve(&store, &digest).await;
    let (mut writer, reader) = reservation.begin(Start::Fresh, None).await.unwrap();
    let Lookup::InFlight(joined) = store.lookup(&digest, OTHER).await else { panic!("not joined") };
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
