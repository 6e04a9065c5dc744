//! The N-th file call fails, for every N until nothing fails any more.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{assert_blobs_are_right, new_dir, noise, read_all, sha256};
use crate::disk::{Disk, Fault, FaultPlan};
use crate::{ContentRecord, Lookup, Options, Pace, ReadError, Start, Store, Verdict};

/// A bit of everything. Errors are expected; wrong bytes and hanging are not.
async fn everything(store: &Store) {
    let manifest = noise(3_000, 1);
    if let Ok(reader) = store.put(&sha256(&manifest), manifest.clone()).await {
        check(read_all(&reader, 1_000).await, &manifest);
    }
    let blob = noise(150_000, 2);
    download(store, &blob, blob.len()).await;
    let broken = noise(300_000, 3);
    download(store, &broken, 200_000).await;
    download(store, &broken, broken.len()).await;
    let records = super::records_of(store, "docker.io", "library/alpine");
    let record = ContentRecord::now(Some("application/json"));
    let _ = records.record_content(&sha256(&manifest), &record).await;
    let _ = records.content(&sha256(&manifest)).await;
    assert!(!matches!(store.verify_at(&sha256(&blob), Pace::Full).await, Verdict::Damaged { .. }));
    let _ = store.quarantine(&sha256(&manifest)).await;
    let _ = store.remove(&sha256(&blob)).await;
    download(store, &blob, blob.len()).await;
}

/// Downloads up to `until` bytes of `content`, as a gateway would.
async fn download(store: &Store, content: &Bytes, until: usize) {
    let reservation = match store.lookup(&sha256(content), super::ORIGIN).await {
        Lookup::Kept(reader) => return check(read_all(&reader, 50_000).await, content),
        Lookup::InFlight(_) => panic!("nobody else is here"),
        Lookup::Absent(reservation) => reservation,
    };
    let from = usize::try_from(reservation.resume_from()).unwrap();
    let (start, from) = if from > 0 { (Start::Resumed, from) } else { (Start::Fresh, 0) };
    let Ok((mut writer, reader)) = reservation.begin(start, None).await else { return };
    let follower = tokio::spawn(async move { read_all(&reader, 40_000).await });
    for part in content.slice(from..until.max(from)).chunks(25_000) {
        if writer.write(Bytes::copy_from_slice(part)).await.is_err() {
            break;
        }
    }
    if until == content.len() {
        let _ = writer.finish().await;
    } else {
        drop(writer);
    }
    check(follower.await.unwrap(), content);
}

fn check(read: Result<Bytes, ReadError>, content: &Bytes) {
    if let Ok(bytes) = read {
        assert_eq!(bytes, *content);
    }
}

async fn open_with(dir: &Path, plan: &Arc<FaultPlan>) -> Option<Store> {
    let disk = Disk::with_faults(Arc::clone(plan));
    Store::open(Options::new(dir).with_disk(disk)).await.ok()
}

/// Runs everything with every N until the plan does not fire; then a sound disk must serve.
async fn fail_every_call(plan: impl Fn(u64) -> FaultPlan) {
    for number in 1.. {
        let dir = new_dir();
        let plan = Arc::new(plan(number));
        if let Some(store) = open_with(dir.path(), &plan).await {
            everything(&store).await;
            store.close().await;
        }
        assert_blobs_are_right(dir.path());
        let store = Store::open(Options::new(dir.path())).await.unwrap();
        everything(&store).await;
        let (kept, totals) = (assert_blobs_are_right(dir.path()), store.clone());
        store.close().await;
        assert_eq!(kept, 2, "call {number}");
        assert_eq!(totals.totals().objects, 2, "call {number}");
        assert_eq!(std::fs::read_dir(dir.path().join("partial/tmp")).unwrap().count(), 0);
        if plan.fired() == 0 {
            assert!(number > 50, "the scenario makes more calls than {number}");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_output_error_at_every_call() {
    fail_every_call(|number| FaultPlan::at(number, Fault::Errno(5))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_from_every_call_on() {
    fail_every_call(|number| FaultPlan::from(number, Fault::Errno(28))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_gone_read_only_from_every_call_on() {
    fail_every_call(|number| FaultPlan::from(number, Fault::Errno(30))).await;
}
