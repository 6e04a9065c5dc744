//! The order of file calls between the last byte and the final name, and what fails on the way.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{assert_blobs_are_right, kept, new_dir, noise, read_all, reserve, sha256};
use crate::disk::{Call, Disk, Fault, FaultPlan};
use crate::{
    FinishError, Lookup, Options, Presence, PutError, ReadError, Start, Store, WriteError,
};

const EIO: Fault = Fault::Errno(5);
const ENOSPC: Fault = Fault::Errno(28);

async fn open_with(dir: &Path, plan: &Arc<FaultPlan>) -> Store {
    let disk = Disk::with_faults(Arc::clone(plan));
    Store::open(Options::new(dir).with_disk(disk)).await.unwrap()
}

/// The calls after the last write, with paths relative to the store.
fn last_calls(plan: &FaultPlan, dir: &Path) -> Vec<(Call, String)> {
    let calls = plan.calls();
    let last_write = calls.iter().rposition(|(call, _)| *call == Call::Write).unwrap();
    let relative = |path: &Path| path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
    calls[last_write + 1..].iter().map(|(call, path)| (*call, relative(path))).collect()
}

#[tokio::test]
async fn file_sync_then_rename_then_directory_sync() {
    let dir = new_dir();
    let plan = Arc::new(FaultPlan::record());
    let store = open_with(dir.path(), &plan).await;
    for first in [true, false] {
        let content = noise(100_000, 1);
        let digest = sha256(&content);
        let (mut writer, _reader) =
            reserve(&store, &digest).await.begin(Start::Fresh, None).await.unwrap();
        writer.write(content).await.unwrap();
        writer.finish().await.unwrap();
        let (hex, shard) = (digest.hex(), format!("blobs/sha256/{}", &digest.hex()[..2]));
        let partial = crate::disk::tree::partial_name(&digest, super::ORIGIN);
        let mut expected = vec![(Call::Sync, format!("partial/sha256/{partial}"))];
        if first {
            expected.push((Call::MakeDir, shard.clone()));
            expected.push((Call::SyncDir, "blobs/sha256".to_owned()));
        }
        expected.push((Call::Rename, format!("{shard}/{hex}")));
        expected.push((Call::SyncDir, shard));
        // What others have left of it.
        expected.push((Call::List, "partial/sha256".to_owned()));
        assert_eq!(last_calls(&plan, dir.path()), expected);
        store.remove(&digest).await.unwrap();
    }
}

#[tokio::test]
async fn a_put_takes_the_same_way() {
    let dir = new_dir();
    let plan = Arc::new(FaultPlan::record());
    let store = open_with(dir.path(), &plan).await;
    let content = noise(2_000, 2);
    let digest = sha256(&content);
    let reader = store.put(&digest, content.clone()).await.unwrap();
    let calls: Vec<Call> =
        last_calls(&plan, dir.path()).into_iter().map(|(call, _)| call).collect();
    let expected = [Call::Sync, Call::MakeDir, Call::SyncDir, Call::Rename, Call::SyncDir];
    assert_eq!(calls, expected);
    assert_eq!(read_all(&reader, 4_096).await.unwrap(), content);

    let before = plan.calls().len();
    store.put(&digest, content.clone()).await.unwrap();
    assert_eq!(plan.calls().len(), before, "what is kept is not written again");
    let wrong = store.put(&digest, noise(2_000, 3)).await;
    assert!(matches!(wrong, Err(PutError::DigestMismatch { .. })));
    assert_eq!(read_all(&kept(&store, &digest).await, 4_096).await.unwrap(), content);
}

#[tokio::test]
async fn readers_finish_when_publishing_fails_and_nothing_is_kept() {
    let failing = [(Call::Sync, 1), (Call::MakeDir, 0), (Call::Rename, 0), (Call::SyncDir, 0)];
    for (call, _) in failing {
        let dir = new_dir();
        Store::open(Options::new(dir.path())).await.unwrap().close().await;
        let plan = Arc::new(FaultPlan::from(1, EIO).only(call));
        let disk = Disk::with_faults(Arc::clone(&plan));
        // What a started store has behind it is not what this is about.
        let opened = Store::open(Options::new(dir.path()).with_disk(disk)).await;
        let Ok(store) = opened else { panic!("{call:?} is needed to open: {opened:?}") };
        let content = noise(200_000, 4);
        let digest = sha256(&content);
        let (mut writer, reader) =
            reserve(&store, &digest).await.begin(Start::Fresh, None).await.unwrap();
        writer.write(content.clone()).await.unwrap();
        let finished = writer.finish().await;
        assert!(matches!(finished, Err(FinishError::Store(_))), "{call:?}: {finished:?}");
        assert_eq!(read_all(&reader, 64_000).await.unwrap(), content, "{call:?}");
        assert_eq!(assert_blobs_are_right(dir.path()), 0, "{call:?}");
        assert_eq!(store.contains(&digest), Presence::Absent);
        assert_eq!(reserve(&store, &digest).await.resume_from(), 0, "the file is suspect");
        let syncs = plan.calls().iter().filter(|(call, _)| *call == Call::Sync).count();
        assert!(syncs <= 2, "a failed sync is not tried again");
    }
}

#[tokio::test]
async fn a_full_disk_is_told_from_other_ends() {
    let dir = new_dir();
    Store::open(Options::new(dir.path())).await.unwrap().close().await;
    // The first write is the lock's.
    let plan = Arc::new(FaultPlan::from(3, ENOSPC).only(Call::Write));
    let store = open_with(dir.path(), &plan).await;
    let content = noise(1_000_000, 5);
    let digest = sha256(&content);
    let (mut writer, reader) =
        reserve(&store, &digest).await.begin(Start::Fresh, None).await.unwrap();
    writer.write(content.slice(..100_000)).await.unwrap();
    assert_eq!(reader.read_at(0, 10).await.unwrap(), content.slice(..10));
    let error = loop {
        if let Err(error) = writer.write(content.slice(100_000..101_000)).await {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert!(matches!(&error, WriteError::Store(cause) if cause.is_no_space()));
    assert!(error.is_no_space());
    assert!(writer.finish().await.unwrap_err().is_no_space());
    assert_eq!(reader.read_at(0, 10).await.unwrap(), content.slice(..10));
    let read = reader.read_at(reader.available(), 10).await;
    assert!(matches!(read, Err(ReadError::Store(cause)) if cause.is_no_space()));
    assert_eq!(reserve(&store, &digest).await.resume_from(), 0, "the space is given back");
}

#[tokio::test]
async fn short_writes_are_continued() {
    for number in 1..12 {
        let dir = new_dir();
        let plan = Arc::new(FaultPlan::at(number, Fault::ShortWrite).only(Call::Write));
        let store = open_with(dir.path(), &plan).await;
        let content = noise(100_000, 6);
        let digest = sha256(&content);
        let (mut writer, reader) =
            reserve(&store, &digest).await.begin(Start::Fresh, None).await.unwrap();
        for part in content.chunks(333) {
            writer.write(Bytes::copy_from_slice(part)).await.unwrap();
        }
        writer.finish().await.unwrap();
        assert_eq!(read_all(&reader, 64_000).await.unwrap(), content);
        assert_eq!(assert_blobs_are_right(dir.path()), 1);
    }
}

#[tokio::test]
async fn a_read_that_fails_is_an_error_not_an_end() {
    let dir = new_dir();
    let plan = Arc::new(FaultPlan::from(1, EIO).only(Call::Read));
    let store = open_with(dir.path(), &plan).await;
    let content = noise(1_000, 7);
    let reader = store.put(&sha256(&content), content.clone()).await.unwrap();
    assert!(matches!(reader.read_at(0, 10).await, Err(ReadError::Store(_))));
    assert_eq!(reader.read_at(1_000, 10).await.unwrap(), Bytes::new());
}

#[tokio::test]
async fn a_file_cut_under_a_reader_is_an_error_not_an_end() {
    let dir = new_dir();
    let store = super::open(&dir).await;
    let content = noise(10_000, 8);
    let digest = sha256(&content);
    let reader = super::fill(&store, &content).await;
    let file = std::fs::File::options().write(true).open(super::blob_path(&dir, &digest)).unwrap();
    file.set_len(5_000).unwrap();
    assert!(matches!(read_all(&reader, 3_000).await, Err(ReadError::Store(_))));
}

#[tokio::test]
async fn between_verifying_and_publishing_readers_have_everything_and_nothing_is_kept() {
    let dir = new_dir();
    let store = super::open(&dir).await;
    let content = noise(200_000, 9);
    let digest = sha256(&content);
    let (mut writer, early) =
        reserve(&store, &digest).await.begin(Start::Fresh, None).await.unwrap();
    writer.write(content.clone()).await.unwrap();
    let verified = writer.verify().await.unwrap();
    let Lookup::InFlight(late) = store.lookup(&digest, super::ORIGIN).await else {
        panic!("not in flight")
    };
    for reader in [&early, &late] {
        assert_eq!(read_all(reader, 64_000).await.unwrap(), content);
    }
    assert_eq!(assert_blobs_are_right(dir.path()), 0);
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.free(&digest).await }
    });
    verified.publish().await.unwrap();
    waiting.await.unwrap();
    assert_eq!(store.contains(&digest), Presence::Kept);
    assert_eq!(assert_blobs_are_right(dir.path()), 1);
}

#[tokio::test]
async fn what_is_verified_and_not_published_is_continued_by_the_next_download() {
    let dir = new_dir();
    let store = super::open(&dir).await;
    for (size, left) in [(200_000, 196_608), (1_000, 0)] {
        let content = noise(size, 10);
        let digest = sha256(&content);
        let (mut writer, reader) =
            reserve(&store, &digest).await.begin(Start::Fresh, None).await.unwrap();
        writer.write(content.clone()).await.unwrap();
        drop(writer.verify().await.unwrap());
        assert_eq!(reserve(&store, &digest).await.resume_from(), left);
        assert_eq!(read_all(&reader, 64_000).await.unwrap(), content);
    }
}
