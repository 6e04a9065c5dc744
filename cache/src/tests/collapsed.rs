//! At most one download of a digest, whoever asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use entrepot_oci::Digest;
use tokio::task::JoinSet;

use super::{fill, kept, new_dir, noise, open, read_all, reserve, sha256};
use crate::{Lookup, Presence, ReadError, Reader, Start, Store};

/// What one of many does that ask for the same object; a leader fails while `failures` lasts.
async fn pull(store: Store, content: Bytes, leading: Arc<Leading>) -> Bytes {
    loop {
        let reader = match store.lookup(&sha256(&content), super::ORIGIN).await {
            Lookup::Kept(reader) | Lookup::InFlight(reader) => reader,
            Lookup::Absent(reservation) => {
                let one = leading.enter();
                let begun = reservation.begin(Start::Fresh, Some(content.len() as u64)).await;
                let (mut writer, reader) = begun.unwrap();
                for part in content.chunks(50_000) {
                    writer.write(Bytes::copy_from_slice(part)).await.unwrap();
                }
                if leading.fails() {
                    // Before the writer, whose end lets the next one lead.
                    drop(one);
                    continue;
                }
                writer.finish().await.unwrap();
                reader
            }
        };
        match read_all(&reader, 64 * 1024).await {
            Ok(bytes) => return bytes,
            Err(ReadError::Broken) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[derive(Default)]
struct Leading {
    now: AtomicUsize,
    ever: AtomicUsize,
    failures: AtomicUsize,
}

struct OneLeader<'a>(&'a Leading);

impl Leading {
    fn enter(&self) -> OneLeader<'_> {
        assert_eq!(self.now.fetch_add(1, Ordering::SeqCst), 0, "two leaders at a time");
        self.ever.fetch_add(1, Ordering::SeqCst);
        OneLeader(self)
    }

    fn fails(&self) -> bool {
        self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
    }
}

impl Drop for OneLeader<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn thousand_pulls(failures: usize) {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(500_000, 1);
    let leading = Arc::new(Leading { failures: AtomicUsize::new(failures), ..Leading::default() });
    let mut pulls = JoinSet::new();
    for _ in 0..1_000 {
        pulls.spawn(pull(store.clone(), content.clone(), Arc::clone(&leading)));
    }
    while let Some(pulled) = pulls.join_next().await {
        assert_eq!(pulled.unwrap(), content);
    }
    assert_eq!(leading.ever.load(Ordering::SeqCst), 1 + failures);
    assert_eq!(store.contains(&sha256(&content)), Presence::Kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_thousand_one_downloads_and_all_read_it() {
    thousand_pulls(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn when_leaders_fail_others_lead_one_at_a_time() {
    thousand_pulls(5).await;
}

async fn waiter(store: &Store, digest: Digest) -> tokio::task::JoinHandle<Lookup> {
    let store = store.clone();
    let waiter = tokio::spawn(async move { store.lookup(&digest, super::ORIGIN).await });
    tokio::task::yield_now().await;
    assert!(!waiter.is_finished());
    waiter
}

#[tokio::test]
async fn a_dropped_reservation_makes_the_next_waiter_lead() {
    let dir = new_dir();
    let store = open(&dir).await;
    let digest = sha256(b"anything");
    let reservation = reserve(&store, &digest).await;
    assert_eq!(store.contains(&digest), Presence::Absent);
    let waiter = waiter(&store, digest).await;
    drop(reservation);
    assert!(matches!(waiter.await.unwrap(), Lookup::Absent(_)));
}

#[tokio::test]
async fn waiters_follow_when_a_reservation_begins() {
    let dir = new_dir();
    let store = open(&dir).await;
    let digest = sha256(b"anything");
    let reservation = reserve(&store, &digest).await;
    let waiter = waiter(&store, digest).await;
    let (_writer, _reader) = reservation.begin(Start::Fresh, None).await.unwrap();
    assert!(matches!(waiter.await.unwrap(), Lookup::InFlight(_)));
    assert_eq!(store.contains(&digest), Presence::InFlight);
}

#[tokio::test]
async fn a_cancelled_lookup_reserves_nothing() {
    let dir = new_dir();
    let store = open(&dir).await;
    let digest = sha256(b"anything");
    for _ in 0..100 {
        tokio::select! {
            biased;
            _ = store.lookup(&digest, super::ORIGIN) => {}
            () = tokio::task::yield_now() => {}
        }
    }
    drop(reserve(&store, &digest).await);
}

#[tokio::test]
async fn different_digests_do_not_wait_for_each_other() {
    let dir = new_dir();
    let store = open(&dir).await;
    let _one = reserve(&store, &sha256(b"one")).await;
    let _other = reserve(&store, &sha256(b"other")).await;
}

#[tokio::test]
async fn the_download_goes_on_without_its_first_reader() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(200_000, 2);
    let (mut writer, reader) =
        reserve(&store, &sha256(&content)).await.begin(Start::Fresh, None).await.unwrap();
    drop(reader);
    writer.write(content.clone()).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(read_all(&kept(&store, &sha256(&content)).await, 9_999).await.unwrap(), content);
}

#[tokio::test]
async fn many_slow_downloads_do_not_take_the_blocking_threads() {
    let dir = new_dir();
    let store = open(&dir).await;
    let mut writers = Vec::new();
    for number in 0..700_u32 {
        let digest = sha256(&number.to_be_bytes());
        let begun = reserve(&store, &digest).await.begin(Start::Fresh, None).await;
        let (mut writer, reader) = begun.unwrap();
        writer.write(Bytes::from_static(b"the first of a few bytes")).await.unwrap();
        writers.push((writer, reader));
    }
    let content = noise(100_000, 3);
    fill(&store, &content).await;
    assert_eq!(read_all(&kept(&store, &sha256(&content)).await, 9_999).await.unwrap(), content);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_share_one_file_and_keep_no_memory() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = noise(3_000_000, 4);
    let (mut writer, reader) =
        reserve(&store, &sha256(&content)).await.begin(Start::Fresh, None).await.unwrap();
    let before = open_files();
    let readers: Vec<Reader> = (0..500).map(|_| reader.clone()).collect();
    for part in content.chunks(10_000) {
        writer.write(Bytes::copy_from_slice(part)).await.unwrap();
    }
    writer.finish().await.unwrap();
    assert!(open_files() < before + 100, "a descriptor for each reader");
    for reader in readers.iter().step_by(50) {
        assert_eq!(read_all(reader, 500_000).await.unwrap(), content);
    }
}

/// Other tests of this process open files too: good for orders of magnitude.
fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
