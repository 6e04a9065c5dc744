//! What a broken download has left is continued, also after a restart.

use bytes::Bytes;

use super::{
    assert_blobs_are_right, leave_partial, new_dir, noise, open, partial_path, read_all, reserve,
    sha256,
};
use crate::{BeginError, FinishError, HOLD_BACK, Start};

#[tokio::test]
async fn a_partial_file_is_continued_after_a_restart() {
    let dir = new_dir();
    let content = noise(1_000_000, 1);
    let digest = sha256(&content);
    let store = open(&dir).await;
    leave_partial(&store, &content, 100).await;
    store.close().await;

    let store = open(&dir).await;
    let reservation = reserve(&store, &digest).await;
    let from = reservation.resume_from();
    assert_eq!(from, 999_899 / HOLD_BACK * HOLD_BACK);
    let begun = reservation.begin(Start::Resumed, Some(1_000_000)).await;
    let (mut writer, reader) = begun.unwrap();
    assert_eq!(writer.offset(), from);
    assert_eq!(reader.available(), from.min(1_000_000 - HOLD_BACK));
    let rest = content.slice(usize::try_from(from).unwrap()..);
    writer.write(rest).await.unwrap();
    assert_eq!(writer.offset(), 1_000_000);
    writer.finish().await.unwrap();
    assert_eq!(read_all(&reader, 300_000).await.unwrap(), content);
    assert_eq!(assert_blobs_are_right(dir.path()), 1);
}

#[tokio::test]
async fn the_kept_part_is_hashed_again() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(500_000, 2);
    let digest = sha256(&content);
    leave_partial(&store, &content, 1_000).await;
    let mut damaged = std::fs::read(partial_path(&dir, &digest)).unwrap();
    damaged[7] ^= 1;
    std::fs::write(partial_path(&dir, &digest), damaged).unwrap();

    let reservation = reserve(&store, &digest).await;
    let from = usize::try_from(reservation.resume_from()).unwrap();
    let (mut writer, reader) = reservation.begin(Start::Resumed, None).await.unwrap();
    writer.write(content.slice(from..)).await.unwrap();
    assert!(matches!(writer.finish().await, Err(FinishError::DigestMismatch { .. })));
    assert!(read_all(&reader, 100_000).await.is_err());
    assert_eq!(reserve(&store, &digest).await.resume_from(), 0);
}

#[tokio::test]
async fn a_whole_partial_file_still_asks_for_something() {
    let dir = new_dir();
    let store = open(&dir).await;
    for len in [65_537, 131_072, 131_073] {
        let content = noise(len, 3);
        leave_partial(&store, &content, 0).await;
        let from = reserve(&store, &sha256(&content)).await.resume_from();
        assert!(from > 0 && from < len as u64, "{from} of {len}");
    }
}

#[tokio::test]
async fn short_beginnings_are_not_kept() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(65_536, 4);
    leave_partial(&store, &content, 0).await;
    drop(reserve(&store, &sha256(&content)).await);
    assert!(!partial_path(&dir, &sha256(&content)).exists());
}

#[tokio::test]
async fn a_fresh_start_ignores_what_is_there() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(300_000, 5);
    leave_partial(&store, &content, 10).await;
    let reservation = reserve(&store, &sha256(&content)).await;
    let (mut writer, reader) = reservation.begin(Start::Fresh, None).await.unwrap();
    assert_eq!((writer.offset(), reader.available()), (0, 0));
    writer.write(content.clone()).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(read_all(&reader, 300_000).await.unwrap(), content);
}

#[tokio::test]
async fn there_must_be_something_to_resume() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(300_000, 6);
    let digest = sha256(&content);
    let begun = reserve(&store, &digest).await.begin(Start::Resumed, None).await;
    assert!(matches!(begun, Err(BeginError::NothingToResume)));

    leave_partial(&store, &content, 10).await;
    let reservation = reserve(&store, &digest).await;
    let too_small = Some(reservation.resume_from());
    let begun = reservation.begin(Start::Resumed, too_small).await;
    assert!(matches!(begun, Err(BeginError::NothingToResume)));
    assert_eq!(reserve(&store, &digest).await.resume_from(), 0, "it would be asked for again");

    leave_partial(&store, &content, 10).await;
    let reservation = reserve(&store, &digest).await;
    std::fs::write(partial_path(&dir, &digest), b"short").unwrap();
    let begun = reservation.begin(Start::Resumed, None).await;
    assert!(matches!(begun, Err(BeginError::NothingToResume)));
    assert_eq!(reserve(&store, &digest).await.resume_from(), 0);
}

#[tokio::test]
async fn a_break_upstream_goes_unnoticed_while_the_writer_lives() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(300_000, 7);
    let (mut writer, reader) =
        reserve(&store, &sha256(&content)).await.begin(Start::Fresh, None).await.unwrap();
    let follower = tokio::spawn(async move { read_all(&reader, 70_000).await });
    let mut sent = 0;
    for part in [1_usize, 99_999, 150_000, 50_000] {
        assert_eq!(writer.offset(), sent as u64);
        writer.write(content.slice(sent..sent + part)).await.unwrap();
        sent += part;
    }
    writer.write(Bytes::new()).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(follower.await.unwrap().unwrap(), content);
}
