//! The disk fails in the middle of a download: its clients get everything all the same.

use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::{
    ORIGIN, assert_blobs_are_right, new_dir, noise, partial_path, read_all, reserve, sha256,
};
use crate::disk::{Call, Disk, Fault, FaultPlan};
use crate::{
    FinishError, Lookup, Options, ReadError, Reader, Relay, Start, Store, WriteError, Writer,
};

const ENOSPC: i32 = 28;

/// How often opening a new store writes.
const OPENING: u64 = 2;

/// A store whose disk takes `writes` writes and no more.
async fn full_after(dir: &TempDir, writes: u64) -> Store {
    let plan =
        Arc::new(FaultPlan::from(OPENING + writes + 1, Fault::Errno(ENOSPC)).only(Call::Write));
    Store::open(Options::new(dir.path()).with_disk(Disk::with_faults(plan))).await.unwrap()
}

async fn begin(store: &Store, content: &Bytes, total: bool) -> (Writer, Reader) {
    let total = total.then_some(content.len() as u64);
    reserve(store, &sha256(content)).await.begin(Start::Fresh, total).await.unwrap()
}

/// Writes until the disk has failed; returns how many bytes were taken.
async fn write_until_failure(writer: &mut Writer, content: &Bytes) -> WriteError {
    loop {
        let from = usize::try_from(writer.offset()).unwrap();
        let chunk = content.slice(from..content.len().min(from + 30_000));
        assert!(!chunk.is_empty(), "the disk did not fail");
        if let Err(error) = writer.write(chunk).await {
            return error;
        }
        tokio::task::yield_now().await;
    }
}

/// What a client has got when the store has failed it, and where.
async fn read_to_failure(reader: &Reader) -> (Vec<u8>, ReadError) {
    let mut all = Vec::new();
    loop {
        match reader.read_at(all.len() as u64, 50_000).await {
            Ok(bytes) => all.extend_from_slice(&bytes),
            Err(error) => return (all, error),
        }
    }
}

fn relayed(mut got: Vec<u8>, mut relay: Relay, content: &Bytes) {
    assert_eq!(got.len() as u64, relay.from);
    for bytes in &relay.unseen {
        got.extend_from_slice(bytes);
    }
    assert_eq!(got.len() as u64, relay.offset);
    let rest = content.slice(got.len()..);
    relay.hasher.update(&rest);
    got.extend_from_slice(&rest);
    assert!(got == content[..]);
    assert_eq!(relay.hasher.finish(), sha256(content));
}

#[tokio::test]
async fn a_download_goes_on_without_the_store() {
    for (writes, total) in [(0, true), (0, false), (1, true), (3, true), (3, false)] {
        let dir = new_dir();
        let store = full_after(&dir, writes).await;
        let content = noise(12_000_000, 1);
        let (mut writer, reader) = begin(&store, &content, total).await;
        let client = tokio::spawn(async move { read_to_failure(&reader).await });
        let error = write_until_failure(&mut writer, &content).await;
        assert!(error.is_no_space(), "{error}");
        let offset = writer.offset();
        let relay = writer.into_relay().unwrap();
        assert_eq!(relay.offset, offset);
        let (got, error) = client.await.unwrap();
        assert!(error.is_no_space(), "{error}");
        relayed(got, relay, &content);
        // Nothing is left, and the next one is free to try.
        assert_eq!(reserve(&store, &sha256(&content)).await.resume_from(), 0);
        assert!(!partial_path(&dir, &sha256(&content)).exists());
    }
}

#[tokio::test]
async fn who_comes_late_gets_what_is_there() {
    let dir = new_dir();
    let store = full_after(&dir, 3).await;
    let content = noise(12_000_000, 2);
    let (mut writer, _reader) = begin(&store, &content, true).await;
    write_until_failure(&mut writer, &content).await;
    let Lookup::InFlight(late) = store.lookup(&sha256(&content), ORIGIN).await else {
        panic!("not in flight")
    };
    let relay = writer.into_relay().unwrap();
    let (got, error) = read_to_failure(&late).await;
    assert!(matches!(error, ReadError::Store(_)) && late.available() == relay.from);
    relayed(got, relay, &content);
}

#[tokio::test]
async fn readers_finish_from_memory_when_everything_has_come() {
    for (size, writes) in [(1_000, 0), (100_000, 0), (1_500_000, 1)] {
        let dir = new_dir();
        let store = full_after(&dir, writes).await;
        let content = noise(size, 3);
        let (mut writer, reader) = begin(&store, &content, false).await;
        let client = tokio::spawn(async move { read_all(&reader, 70_000).await });
        // The queue takes all of it before anything is known of the disk.
        let first = if writes == 0 { 0 } else { size / 2 };
        for part in [content.slice(..first), content.slice(first..)] {
            writer.write(part).await.unwrap();
        }
        let finished = writer.finish().await;
        assert!(matches!(&finished, Err(error) if error.is_no_space()), "{finished:?}");
        assert!(client.await.unwrap().unwrap() == content);
        assert_eq!(reserve(&store, &sha256(&content)).await.resume_from(), 0);
        assert_eq!(assert_blobs_are_right(dir.path()), 0);
        assert!(!partial_path(&dir, &sha256(&content)).exists());
    }
}

#[tokio::test]
async fn wrong_bytes_in_memory_are_wrong_bytes() {
    let dir = new_dir();
    let store = full_after(&dir, 0).await;
    let content = noise(100_000, 4);
    let (mut writer, reader) = begin(&store, &content, false).await;
    writer.write(noise(100_000, 5)).await.unwrap();
    assert!(matches!(writer.finish().await, Err(FinishError::DigestMismatch { .. })));
    assert!(matches!(reader.read_at(0, 1).await, Err(ReadError::DigestMismatch { .. })));

    let (mut writer, reader) = begin(&store, &content, true).await;
    writer.write(content.slice(..99_999)).await.unwrap();
    assert!(matches!(writer.finish().await, Err(FinishError::Truncated { .. })));
    assert!(reader.read_at(99_999, 1).await.is_err());
}

#[tokio::test]
async fn a_failed_write_is_not_finished_as_if_it_were_whole() {
    let dir = new_dir();
    let store = full_after(&dir, 1).await;
    let content = noise(12_000_000, 6);
    let (mut writer, reader) = begin(&store, &content, false).await;
    write_until_failure(&mut writer, &content).await;
    assert!(matches!(writer.finish().await, Err(FinishError::Store(_))));
    assert!(matches!(read_to_failure(&reader).await.1, ReadError::Store(_)));
}

#[tokio::test]
async fn a_dropped_writer_fails_its_readers_where_the_disk_did() {
    let dir = new_dir();
    let store = full_after(&dir, 1).await;
    let content = noise(12_000_000, 7);
    let (mut writer, reader) = begin(&store, &content, true).await;
    write_until_failure(&mut writer, &content).await;
    drop(writer);
    let (got, error) = read_to_failure(&reader).await;
    assert!(matches!(error, ReadError::Store(_)));
    assert!(got[..] == content[..got.len()] && got.len() as u64 == reader.available());
}

#[tokio::test]
async fn there_is_nothing_to_relay_from_a_sound_disk() {
    let dir = new_dir();
    let store = full_after(&dir, 1_000).await;
    let content = noise(300_000, 8);
    let (mut writer, reader) = begin(&store, &content, true).await;
    writer.write(content.slice(..200_000)).await.unwrap();
    assert!(writer.into_relay().is_none());
    assert!(matches!(read_to_failure(&reader).await.1, ReadError::Broken));
}
