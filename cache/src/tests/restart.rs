//! The upstream begins again at byte 0: what readers have seen stays true.

use bytes::Bytes;
use proptest::prelude::*;

use super::{assert_blobs_are_right, kept, new_dir, noise, open, read_all, reserve, sha256};
use crate::{Digest, Lookup, ReadError, Reader, Start, Store, Writer};

/// A download of `digest` whose first bytes are `first`, and a reader that has seen `seen` of them.
async fn begun(
    store: &Store,
    digest: &Digest,
    first: &Bytes,
    seen: usize,
    total: Option<u64>,
) -> (Writer, Reader) {
    let (mut writer, reader) =
        reserve(store, digest).await.begin(Start::Fresh, total).await.unwrap();
    writer.write(first.clone()).await.unwrap();
    let mut at = 0;
    while at < seen {
        at += reader.read_at(at as u64, seen - at).await.unwrap().len();
    }
    (writer, reader)
}

async fn send(writer: &mut Writer, content: &Bytes) {
    for part in content.chunks(30_000) {
        writer.write(Bytes::copy_from_slice(part)).await.unwrap();
    }
}

#[tokio::test]
async fn equal_bytes_again_disturb_nobody() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(500_000, 1);
    let digest = sha256(&content);
    let (mut writer, reader) =
        begun(&store, &digest, &content.slice(..300_000), 200_000, None).await;
    writer.restart(Some(500_000));
    assert_eq!(writer.offset(), 0);
    send(&mut writer, &content).await;
    assert_eq!(writer.offset(), 500_000);
    writer.finish().await.unwrap();
    assert_eq!(read_all(&reader, 64_000).await.unwrap(), content);
    assert_eq!(assert_blobs_are_right(dir.path()), 1);
}

#[tokio::test]
async fn bytes_that_differ_where_readers_were_fail_them_and_serve_new_ones() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(500_000, 2);
    let digest = sha256(&content);
    let mut wrong = content.slice(..300_000).to_vec();
    wrong[123_456] ^= 1;
    let (mut writer, early) = begun(&store, &digest, &wrong.into(), 200_000, None).await;
    writer.restart(None);
    send(&mut writer, &content).await;
    let late = late_reader(&store, &digest).await;
    assert!(matches!(early.read_at(200_000, 1).await, Err(ReadError::Changed)));
    assert!(matches!(early.read_at(0, 1).await, Err(ReadError::Changed)));
    writer.finish().await.unwrap();
    assert_eq!(read_all(&late, 64_000).await.unwrap(), content);
    assert_eq!(read_all(&kept(&store, &digest).await, 64_000).await.unwrap(), content);
    assert!(matches!(read_all(&early, 64_000).await, Err(ReadError::Changed)));
}

/// A reader that came after the bytes changed: it sees past where the old ones ended.
async fn late_reader(store: &Store, digest: &Digest) -> Reader {
    loop {
        let Lookup::InFlight(reader) = store.lookup(digest, super::ORIGIN).await else {
            panic!("not in flight")
        };
        if reader.read_at(400_000, 1).await.is_ok() {
            return reader;
        }
    }
}

#[tokio::test]
async fn bytes_that_differ_where_nobody_was_disturb_nobody() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(500_000, 3);
    let digest = sha256(&content);
    let mut wrong = content.slice(..300_000).to_vec();
    wrong[250_000] ^= 1;
    let (mut writer, reader) = begun(&store, &digest, &wrong.into(), 200_000, None).await;
    writer.restart(None);
    send(&mut writer, &content).await;
    writer.finish().await.unwrap();
    assert_eq!(read_all(&reader, 64_000).await.unwrap(), content);
}

/// The moment of change itself: a read gives the bytes that were promised, or the reason why not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reads_that_race_with_a_change_are_never_of_the_new_bytes() {
    let dir = new_dir();
    let store = open(&dir).await;
    for round in 0..60 {
        let content = noise(400_000, 100 + round);
        let digest = sha256(&content);
        let old = Bytes::from([&content[..100_000], &noise(300_000, 200)[..]].concat());
        let (mut writer, reader) = begun(&store, &digest, &old, 300_000, None).await;
        let mut racers = tokio::task::JoinSet::new();
        for at in [150_000, 200_000, 250_000, 299_000] {
            let (reader, old) = (reader.clone(), old.clone());
            racers.spawn(async move {
                loop {
                    match reader.read_at(at as u64, 1_000).await {
                        Ok(read) => assert!(read == old[at..at + 1_000], "other bytes at {at}"),
                        Err(error) => {
                            break assert!(matches!(error, ReadError::Changed), "{error}");
                        }
                    }
                }
            });
        }
        writer.restart(None);
        send(&mut writer, &content).await;
        writer.finish().await.unwrap();
        while let Some(raced) = racers.join_next().await {
            raced.unwrap();
        }
        store.remove(&digest).await.unwrap();
    }
}

#[tokio::test]
async fn another_size_breaks_the_promise_of_the_first() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(200_000, 4);
    let digest = sha256(&content);
    let (mut writer, reader) =
        begun(&store, &digest, &content.slice(..100_000), 0, Some(300_000)).await;
    writer.restart(Some(200_000));
    send(&mut writer, &content).await;
    let finished = writer.finish().await.unwrap();
    assert!(matches!(read_all(&reader, 64_000).await, Err(ReadError::Changed)));
    assert_eq!(read_all(&finished, 64_000).await.unwrap(), content);
}

#[tokio::test]
async fn a_size_announced_late_keeps_its_end_held_back() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(200_000, 5);
    let digest = sha256(&content);
    let longer = [&content[..], &noise(100_000, 6)[..]].concat();
    let (mut writer, early) = begun(&store, &digest, &longer.into(), 200_000, None).await;
    writer.restart(Some(200_000));
    writer.write(content.slice(..10)).await.unwrap();
    assert!(matches!(early.read_at(250_000, 1).await, Err(ReadError::Changed)));
    let Lookup::InFlight(late) = store.lookup(&digest, super::ORIGIN).await else {
        panic!("not in flight")
    };
    assert_eq!((late.size(), late.available()), (Some(200_000), 200_000 - crate::HOLD_BACK));
    send(&mut writer, &content.slice(10..)).await;
    writer.finish().await.unwrap();
    assert_eq!(read_all(&late, 64_000).await.unwrap(), content);
    assert_eq!(assert_blobs_are_right(dir.path()), 1);
}

#[tokio::test]
async fn a_second_answer_that_is_shorter_is_published_at_its_own_length() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(250_000, 7);
    let digest = sha256(&content);
    let longer = Bytes::from([&content[..], &noise(20_000, 8)[..]].concat());
    let (mut writer, reader) = begun(&store, &digest, &longer, 100_000, None).await;
    writer.restart(None);
    send(&mut writer, &content).await;
    writer.finish().await.unwrap();
    assert_eq!(read_all(&reader, 64_000).await.unwrap(), content);
    assert_eq!(assert_blobs_are_right(dir.path()), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever came before a restart, a reader's whole is the truth or an error.
    #[test]
    fn readers_are_never_mixed(
        len in 1_usize..300_000,
        first in 0_usize..300_000,
        wrong_at in 0_usize..300_000,
        chunk in 1_usize..90_000,
        piece in 1_usize..90_000,
        restarts in 1_usize..3,
    ) {
        let content = noise(len, 9);
        let mut before = content.slice(..first.min(len)).to_vec();
        if let Some(byte) = before.get_mut(wrong_at) {
            *byte ^= 0x80;
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let dir = new_dir();
            let store = open(&dir).await;
            let digest = sha256(&content);
            let (mut writer, reader) =
                reserve(&store, &digest).await.begin(Start::Fresh, None).await.unwrap();
            let follower = tokio::spawn(async move { read_all(&reader, piece).await });
            writer.write(before.into()).await.unwrap();
            for _ in 0..restarts {
                writer.restart(None);
                for part in content.chunks(chunk) {
                    writer.write(Bytes::copy_from_slice(part)).await.unwrap();
                }
            }
            let whole = read_all(&writer.finish().await.unwrap(), piece).await.unwrap();
            prop_assert_eq!(&whole, &content);
            match follower.await.unwrap() {
                Ok(bytes) => prop_assert_eq!(bytes, content),
                Err(error) => prop_assert!(matches!(error, ReadError::Changed)),
            }
            prop_assert_eq!(assert_blobs_are_right(dir.path()), 1);
            Ok(())
        })?;
    }
}
