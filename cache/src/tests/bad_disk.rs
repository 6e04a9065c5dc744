//! The disk fails in the middle of a download: its readers get what is there, and are told why.

use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::{assert_blobs_are_right, new_dir, noise, partial_path, reserve, sha256};
use crate::disk::{Call, Disk, Fault, FaultPlan};
use crate::{FinishError, Options, ReadError, Reader, Start, Store, WriteError, Writer};

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

/// Whether a read failed because the disk is full.
fn is_full(error: &ReadError) -> bool {
    matches!(error, ReadError::Store(cause) if cause.is_no_space())
}

/// Nothing is left of the download, and the next one is free to try.
async fn assert_given_up(dir: &TempDir, store: &Store, content: &Bytes) {
    let digest = sha256(content);
    assert_eq!(reserve(store, &digest).await.resume_from(), 0);
    assert!(!partial_path(dir, &digest).exists());
    assert_eq!(assert_blobs_are_right(dir.path()), 0);
}

#[tokio::test]
async fn readers_get_what_was_written_and_the_reason() {
    for (writes, total) in [(0, true), (0, false), (1, true), (3, true), (3, false)] {
        let dir = new_dir();
        let store = full_after(&dir, writes).await;
        let content = noise(12_000_000, 1);
        let (mut writer, reader) = begin(&store, &content, total).await;
        let late = reader.clone();
        let client = tokio::spawn(async move { read_to_failure(&reader).await });
        let error = write_until_failure(&mut writer, &content).await;
        assert!(error.is_no_space(), "{error}");
        let (got, error) = client.await.unwrap();
        assert!(is_full(&error), "{error}");
        assert_eq!(got.len() as u64, late.available());
        assert!(got[..] == content[..got.len()]);
        assert!(read_to_failure(&late).await.0 == got, "it stays readable");
        drop(writer);
        assert_given_up(&dir, &store, &content).await;
    }
}

#[tokio::test]
async fn a_download_that_could_not_be_written_to_its_end_is_not_finished() {
    for (size, writes) in [(1_000, 0), (100_000, 0), (1_500_000, 1)] {
        let dir = new_dir();
        let store = full_after(&dir, writes).await;
        let content = noise(size, 3);
        let (mut writer, reader) = begin(&store, &content, false).await;
        let client = tokio::spawn(async move { read_to_failure(&reader).await });
        // The queue takes all of it before anything is known of the disk.
        let first = if writes == 0 { 0 } else { size / 2 };
        for part in [content.slice(..first), content.slice(first..)] {
            writer.write(part).await.unwrap();
        }
        let finished = writer.finish().await;
        assert!(matches!(&finished, Err(error) if error.is_no_space()), "{finished:?}");
        assert!(is_full(&client.await.unwrap().1));
        assert_given_up(&dir, &store, &content).await;
    }
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
