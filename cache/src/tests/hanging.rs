//! A file call that does not return delays nobody but those who need it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::{
    ORIGIN, blob_path, fill, kept, new_dir, noise, partial_path, read_all, reserve, sha256,
};
use crate::disk::{Call, Disk, Fault, FaultPlan};
use crate::{ContentRecord, IndexState, Lookup, Options, Presence, Start, Store};

/// More than tokio has threads for blocking work.
const CROWD: usize = 600;
const LARGE: usize = 2 * 1024 * 1024;

/// A plan whose calls are released at the end of the test, however that comes.
struct Hang(Arc<FaultPlan>);

impl Hang {
    fn new(plan: FaultPlan) -> Self {
        Self(Arc::new(plan))
    }

    async fn open(&self, dir: &TempDir) -> Store {
        self.open_with(Options::new(dir.path())).await
    }

    async fn open_with(&self, options: Options) -> Store {
        let disk = Disk::with_faults(Arc::clone(&self.0));
        let store = Store::open(options.with_disk(disk)).await.unwrap();
        while store.index_state() == IndexState::Loading {
            tokio::task::yield_now().await;
        }
        store
    }

    async fn hangs(&self, calls: usize) {
        while self.0.hanging() < calls {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Hang {
    fn drop(&mut self) {
        self.0.release();
    }
}

fn contents() -> Vec<Bytes> {
    (0..200).map(|seed| noise(10_000, 3_000 + seed)).collect()
}

async fn prepared(dir: &TempDir, others: &[Bytes]) {
    let store = Store::open(Options::new(dir.path())).await.unwrap();
    for content in others {
        drop(fill(&store, content).await);
    }
    store.close().await;
}

/// Nearly every one of `times` must be far below what a hanging call would make of it.
fn assert_prompt(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    println!("{what}: p50 {:?}, p99 {p99:?}, most {:?}", times[times.len() / 2], times.last());
    assert!(p99 < Duration::from_secs(1), "{what}: {p99:?}");
}

/// Asks for everything, one after the other.
async fn hits(store: &Store, contents: &[Bytes]) -> Vec<Duration> {
    let mut times = Vec::new();
    for content in contents {
        let since = Instant::now();
        let hit = tokio::time::timeout(Duration::from_mins(1), hit(store, content)).await;
        hit.expect("a hit hangs with the others");
        times.push(since.elapsed());
    }
    times
}

async fn hit(store: &Store, content: &Bytes) {
    let reader = kept(store, &sha256(content)).await;
    assert_eq!(read_all(&reader, 65_536).await.unwrap(), *content);
}

fn crowd<F: Future<Output = ()> + Send + 'static>(mut one: impl FnMut() -> F) -> JoinSet<()> {
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        crowd.spawn(one());
    }
    crowd
}

/// Lets everybody go on, and nobody be left behind.
async fn dissolve(hang: Hang, mut crowd: JoinSet<()>) {
    drop(hang);
    while let Some(one) = crowd.join_next().await {
        one.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_hangs_delays_no_other_file() {
    let (dir, others, slow) = (new_dir(), contents(), noise(LARGE, 1));
    prepared(&dir, &[&others[..], std::slice::from_ref(&slow)].concat()).await;
    let plan = FaultPlan::from(1, Fault::Hang).only(Call::Read);
    let hang = Hang::new(plan.about(blob_path(&dir, &sha256(&slow))));
    let store = hang.open(&dir).await;
    let reader = kept(&store, &sha256(&slow)).await;
    let crowd = crowd(|| {
        let (reader, slow) = (reader.clone(), slow.clone());
        async move { assert_eq!(read_all(&reader, 1_000_000).await.unwrap(), slow) }
    });
    // One of them is the verification.
    hang.hangs(9).await;
    assert_prompt("hits while reads hang", hits(&store, &others).await);
    assert_eq!(hang.0.hanging(), 9);
    dissolve(hang, crowd).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_that_hangs_delays_no_other_file() {
    for call in [Call::Open, Call::Read] {
        let (dir, others, slow) = (new_dir(), contents(), noise(9_000, 2));
        prepared(&dir, &[&others[..], std::slice::from_ref(&slow)].concat()).await;
        let plan = FaultPlan::from(1, Fault::Hang).only(call);
        let hang = Hang::new(plan.about(blob_path(&dir, &sha256(&slow))));
        let store = hang.open(&dir).await;
        let crowd = crowd(|| {
            let (store, slow) = (store.clone(), slow.clone());
            async move {
                let reader = match store.lookup(&sha256(&slow), ORIGIN).await {
                    Lookup::Kept(reader) => reader,
                    other => panic!("{other:?}"),
                };
                assert_eq!(read_all(&reader, 10_000).await.unwrap(), slow);
            }
        });
        hang.hangs(1).await;
        assert_prompt("hits while a lookup hangs", hits(&store, &others).await);
        assert_eq!(hang.0.hanging(), 1);
        dissolve(hang, crowd).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_or_sync_that_hangs_delays_no_other_file() {
    for call in [Call::Write, Call::Sync, Call::Rename] {
        let (dir, others, slow) = (new_dir(), contents(), noise(LARGE, 3));
        prepared(&dir, &others).await;
        let path = match call {
            Call::Rename => blob_path(&dir, &sha256(&slow)),
            _ => partial_path(&dir, &sha256(&slow)),
        };
        let hang = Hang::new(FaultPlan::from(1, Fault::Hang).only(call).about(path));
        let store = hang.open(&dir).await;
        let begun = reserve(&store, &sha256(&slow)).await.begin(Start::Fresh, None).await;
        let (mut writer, reader) = begun.unwrap();
        let crowd = crowd(|| {
            let (reader, slow) = (reader.clone(), slow.clone());
            async move { assert_eq!(read_all(&reader, 1_000_000).await.unwrap(), slow) }
        });
        let upstream = tokio::spawn(async move {
            for part in slow.chunks(100_000) {
                writer.write(Bytes::copy_from_slice(part)).await.unwrap();
            }
            writer.finish().await.unwrap();
        });
        hang.hangs(1).await;
        assert_prompt("hits while a download hangs", hits(&store, &others).await);
        let more: Vec<Bytes> = (0..20).map(|seed| noise(10_000, 4_000 + seed)).collect();
        for content in &more {
            drop(fill(&store, content).await);
        }
        assert!(!upstream.is_finished());
        dissolve(hang, crowd).await;
        upstream.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_or_a_put_that_hangs_delays_no_other() {
    let (dir, others, slow) = (new_dir(), contents(), noise(9_000, 4));
    prepared(&dir, &others).await;
    let digest = sha256(&slow);
    let record = dir.path().join("repositories/docker.io/library/slow/_contents/sha256");
    let record = record.join(digest.hex());
    for (call, path) in [(Call::Open, record), (Call::Rename, blob_path(&dir, &digest))] {
        let hang = Hang::new(FaultPlan::from(1, Fault::Hang).only(call).about(path));
        let store = hang.open(&dir).await;
        let records = super::records_of(&store, "docker.io", "library/slow");
        let crowd = crowd(|| {
            let (store, records, slow) = (store.clone(), records.clone(), slow.clone());
            async move {
                if call == Call::Open {
                    assert_eq!(records.content(&sha256(&slow)).await, None);
                } else {
                    store.put(&sha256(&slow), slow).await.unwrap();
                }
            }
        });
        hang.hangs(8).await;
        assert_prompt("hits while small files hang", hits(&store, &others).await);
        let other = super::records_of(&store, "docker.io", "library/alpine");
        other.record_content(&digest, &ContentRecord::now(None)).await.unwrap();
        assert!(other.content(&digest).await.is_some());
        assert_eq!(hang.0.hanging(), 8);
        dissolve(hang, crowd).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_hangs_does_not_hold_up_eviction() {
    let (dir, others) = (new_dir(), contents());
    prepared(&dir, &others).await;
    let oldest = sha256(&others[0]);
    let plan = FaultPlan::from(1, Fault::Hang).only(Call::Remove);
    let hang = Hang::new(plan.about(blob_path(&dir, &oldest)));
    let mut options = Options::new(dir.path());
    options.max_size = Some(100_000);
    let store = hang.open_with(options).await;
    while store.totals().bytes > 100_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(hang.0.hanging(), 1);
    hang.0.release();
    while store.contains(&oldest) == Presence::Kept {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.totals().objects, super::assert_blobs_are_right(dir.path()) as u64);
}
