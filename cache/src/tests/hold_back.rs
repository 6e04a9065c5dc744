//! Nobody gets a complete wrong object: the end is held back until the digest is right.

use std::num::NonZeroUsize;

use bytes::Bytes;
use proptest::prelude::*;

use super::{new_dir, noise, open, partial_path, read_all, reserve, sha256};
use crate::{FinishError, HOLD_BACK, ReadError, Reader, Start};

/// Resolves only if `reader` has something at `offset` without waiting.
async fn is_pending(reader: &Reader, offset: u64) -> bool {
    tokio::select! {
        biased;
        _ = reader.read_at(offset, 1) => false,
        () = tokio::task::yield_now() => true,
    }
}

#[tokio::test]
async fn the_end_is_seen_only_when_finished() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(300_000, 1);
    for total in [Some(content.len() as u64), None] {
        let digest = sha256(&content);
        let (mut writer, reader) =
            reserve(&store, &digest).await.begin(Start::Fresh, total).await.unwrap();
        assert_eq!(reader.size(), total);
        writer.write(content.clone()).await.unwrap();
        let visible = content.len() as u64 - HOLD_BACK;
        assert_eq!(reader.read_at(visible - 1, 10).await.unwrap().len(), 1);
        assert_eq!(reader.available(), visible);
        assert!(is_pending(&reader, visible).await);
        assert_eq!(writer.finish().await.unwrap().size(), Some(content.len() as u64));
        assert_eq!(read_all(&reader, 100_000).await.unwrap(), content);
        store.remove(&digest).await.unwrap();
    }
}

#[tokio::test]
async fn small_and_empty_objects_are_seen_only_when_finished() {
    let dir = new_dir();
    let store = open(&dir).await;
    for len in [0, 1, 4_096, 65_536] {
        let content = noise(len, 2);
        let (mut writer, reader) =
            reserve(&store, &sha256(&content)).await.begin(Start::Fresh, None).await.unwrap();
        writer.write(content.clone()).await.unwrap();
        assert!(is_pending(&reader, 0).await, "{len}");
        writer.finish().await.unwrap();
        assert_eq!(read_all(&reader, 1_000).await.unwrap(), content);
    }
}

#[tokio::test]
async fn wrong_bytes_complete_for_nobody_and_leave_nothing() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(200_000, 3);
    let digest = sha256(&content);
    let mut wrong = content.to_vec();
    wrong[150_000] ^= 1;
    let (mut writer, reader) =
        reserve(&store, &digest).await.begin(Start::Fresh, None).await.unwrap();
    let reading = tokio::spawn(async move { read_all(&reader, 5_000).await });
    writer.write(Bytes::from(wrong)).await.unwrap();
    let Err(FinishError::DigestMismatch { expected, actual }) = writer.finish().await else {
        panic!("finished")
    };
    assert_eq!(expected, digest);
    assert_ne!(*actual, digest);
    let followed = reading.await.unwrap();
    assert!(matches!(followed, Err(ReadError::DigestMismatch { .. })), "{followed:?}");
    assert!(!partial_path(&dir, &digest).exists());
    assert_eq!(reserve(&store, &digest).await.resume_from(), 0);
}

#[tokio::test]
async fn fewer_or_more_bytes_than_announced_complete_for_nobody() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(200_000, 4);
    let digest = sha256(&content);
    let (mut writer, reader) =
        reserve(&store, &digest).await.begin(Start::Fresh, Some(200_001)).await.unwrap();
    writer.write(content.clone()).await.unwrap();
    let finished = writer.finish().await;
    let Err(FinishError::Truncated { expected: 200_001, received: 200_000 }) = finished else {
        panic!("{finished:?}")
    };
    assert!(matches!(read_all(&reader, 1_000).await, Err(ReadError::Broken)));

    let (mut writer, reader) =
        reserve(&store, &digest).await.begin(Start::Fresh, Some(199_999)).await.unwrap();
    let _ = writer.write(content.clone()).await;
    assert!(matches!(writer.finish().await, Err(FinishError::TooLong { total: 199_999 })));
    assert!(matches!(read_all(&reader, 1_000).await, Err(ReadError::Broken)));
    assert!(!partial_path(&dir, &digest).exists());
}

#[tokio::test]
async fn a_dropped_writer_is_never_a_clean_end() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(100_000, 5);
    let (mut writer, reader) =
        reserve(&store, &sha256(&content)).await.begin(Start::Fresh, None).await.unwrap();
    writer.write(content).await.unwrap();
    drop(writer);
    assert!(matches!(read_all(&reader, 1_000).await, Err(ReadError::Broken)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any content in any pieces, announced or not, right or wrong.
    #[test]
    fn readers_see_a_true_prefix_then_all_or_an_error(
        len in 0_usize..400_000,
        chunk in 1_usize..100_000,
        piece in 1_usize..200_000,
        announced: bool,
        wrong_at: Option<NonZeroUsize>,
    ) {
        let content = noise(len, 6);
        let mut sent = content.to_vec();
        let wrong = wrong_at.filter(|_| len > 0).map(|at| at.get() % len);
        if let Some(at) = wrong {
            sent[at] ^= 0x20;
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let dir = new_dir();
            let store = open(&dir).await;
            let total = announced.then_some(len as u64);
            let (mut writer, reader) =
                reserve(&store, &sha256(&content)).await.begin(Start::Fresh, total).await.unwrap();
            let reading = tokio::spawn({
                let reader = reader.clone();
                async move { read_all(&reader, piece).await }
            });
            for part in Bytes::from(sent).chunks(chunk) {
                writer.write(Bytes::copy_from_slice(part)).await.unwrap();
                prop_assert!(reader.available() <= (len as u64).saturating_sub(HOLD_BACK));
            }
            let finished = writer.finish().await;
            let followed = reading.await.unwrap();
            prop_assert_eq!(finished.is_ok(), wrong.is_none());
            match wrong {
                None => prop_assert_eq!(followed.unwrap(), content),
                Some(_) => prop_assert!(followed.is_err()),
            }
            Ok(())
        })?;
    }
}
