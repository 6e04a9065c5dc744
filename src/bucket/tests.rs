//! The bucket over a store in memory, and over one that fails.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_oci::{Algorithm, Digest, Registry, RepositoryName};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use serde_json::{Value, json};

use super::layout::{Entry, Prefix, Shard};
use super::listing::Item;
use super::*;
use crate::metrics::Metrics;

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

fn registry() -> Registry {
    "ghcr.io".parse().unwrap()
}

fn repository() -> RepositoryName {
    "a/b".parse().unwrap()
}

fn pieces(bytes: &[u8], length: usize) -> BoxStream<'static, io::Result<Bytes>> {
    let pieces: Vec<_> = bytes.chunks(length).map(Bytes::copy_from_slice).map(Ok).collect();
    stream::iter(pieces).boxed()
}

async fn put(bucket: &Bucket, bytes: &[u8]) -> Digest {
    let digest = digest(bytes);
    bucket.put(&digest, bytes.len() as u64, pieces(bytes, 100_003)).await.unwrap();
    digest
}

async fn read(bucket: &Bucket, digest: &Digest, offset: u64) -> Vec<u8> {
    let mut object = bucket.open(digest, offset).await.unwrap().unwrap();
    let mut all = Vec::new();
    while let Some(piece) = object.body.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    assert_eq!((object.from, object.from + all.len() as u64), (offset, object.total));
    all
}

#[tokio::test]
async fn an_object_that_one_replica_has_put_every_other_reads() {
    let store = Arc::new(InMemory::new());
    let one = Bucket::over(store.clone(), Metrics::default());
    let other = Bucket::over(store, Metrics::default());
    for length in [0, 1, 1000, 300_000] {
        let bytes = vec![7; length];
        let digest = put(&one, &bytes).await;
        assert_eq!(other.size(&digest).await.unwrap(), Some(length as u64));
        assert_eq!(read(&other, &digest, 0).await, bytes);
        if length > 2 {
            assert_eq!(read(&other, &digest, 2).await, bytes[2..]);
        }
        assert_eq!(other.whole(&digest, 300_000).await.unwrap().unwrap(), bytes);
        assert!(length < 2 || other.whole(&digest, length - 1).await.is_err());
        other.remove(&digest).await.unwrap();
        assert!(one.open(&digest, 0).await.unwrap().is_none());
        assert_eq!(one.size(&digest).await.unwrap(), None);
        one.remove(&digest).await.unwrap();
    }
    let counters = other.metrics().bucket();
    assert_eq!((counters.hits.value(), counters.misses.value()), (12, 0));
    assert_eq!(one.metrics().bucket().misses.value(), 4);
}

#[tokio::test]
async fn a_large_object_goes_in_parts_and_comes_whole() {
    let bucket = Bucket::in_memory();
    for length in [16 << 20, (16 << 20) + 1, (24 << 20) + 5] {
        let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
        let digest = put(&bucket, &bytes).await;
        assert_eq!(read(&bucket, &digest, 0).await, bytes);
    }
}

#[tokio::test]
async fn bytes_that_are_not_those_that_were_announced_are_not_put() {
    let bucket = Bucket::in_memory();
    for size in [10u64, 17 << 20] {
        let bytes = vec![0; usize::try_from(size).unwrap()];
        for announced in [size - 1, size + 1] {
            let digest = digest(&bytes);
            let sent = bucket.put(&digest, announced, pieces(&bytes, 1 << 20)).await;
            assert!(matches!(sent, Err(BucketError::Source(_))), "{size} {announced}");
            assert_eq!(bucket.size(&digest).await.unwrap(), None);
        }
        let failing =
            pieces(&bytes, 1 << 20).take(1).chain(stream::iter([Err(io::Error::other("x"))]));
        let sent = bucket.put(&digest(&bytes), size + (1 << 20), failing).await;
        assert!(matches!(sent, Err(BucketError::Source(_))));
    }
    assert!(bucket.health().is_up, "that is not the bucket's fault");
}

#[tokio::test]
async fn rotten_bytes_are_removed_and_not_asked_for_until_they_are_put_anew() {
    let bucket = Bucket::in_memory();
    let digest = put(&bucket, b"x").await;
    bucket.rotten(&digest).await;
    bucket.put(&digest, 1, pieces(b"y", 1)).await.unwrap();
    assert_eq!(read(&bucket, &digest, 0).await, b"y");
    bucket.rotten(&digest).await;
    assert!(bucket.open(&digest, 0).await.unwrap().is_none());
    assert_eq!(bucket.size(&digest).await.unwrap(), None);
    assert!(!bucket.has(&digest).await.unwrap(), "it was removed");
    assert_eq!(bucket.metrics().bucket().damaged.value(), 2);
}

#[tokio::test]
async fn a_record_that_one_replica_has_put_every_other_reads() {
    let store = Arc::new(InMemory::new());
    let one = Bucket::over(store.clone(), Metrics::default());
    let other = Bucket::over(store, Metrics::default());
    let key = RecordKey::Content(registry(), Some(repository()), digest(b"x"));
    assert_eq!(one.record::<Value>(&key).await, None);
    assert_eq!(one.metrics().bucket().misses.value(), 1);
    one.put_record(&key, &json!({ "recorded": 1 })).await.unwrap();
    for bucket in [&one, &other] {
        assert_eq!(bucket.record::<Value>(&key).await, Some(json!({ "recorded": 1 })));
    }
    other.remove_record(&key).await.unwrap();
    other.remove_record(&key).await.unwrap();
    assert_eq!(one.record::<Value>(&key).await, None);
    let long = json!({ "x": "x".repeat(70_000) });
    assert!(matches!(one.put_record(&key, &long).await, Err(BucketError::Record(_))));
}

#[tokio::test]
async fn a_record_that_is_forged_or_moved_counts_as_none() {
    let store = Arc::new(InMemory::new());
    let bucket = Bucket::over(store.clone(), Metrics::default());
    let (mine, yours) =
        (RecordKey::Access(registry(), repository()), RecordKey::Challenge(registry()));
    bucket.put_record(&mine, &json!(1)).await.unwrap();
    let path = |key: &RecordKey| Path::from(format!("eu/{key}"));
    store.copy(&path(&mine), &path(&yours)).await.unwrap();
    assert_eq!(bucket.record::<Value>(&yours).await, None);
    assert_eq!(bucket.metrics().bucket().forged.value(), 1);
    assert_eq!(bucket.record::<Value>(&yours).await, None, "known for a while");
    assert_eq!(bucket.metrics().bucket().forged.value(), 1);
    assert_eq!(bucket.record_behind::<Value>(&yours).await.unwrap(), None);
    assert_eq!(bucket.record::<Value>(&mine).await, Some(json!(1)));
    for line in [Bytes::new(), Bytes::from(vec![b'0'; 200_000]), Bytes::from_static(b"{}\n")] {
        store.put(&path(&mine), line.into()).await.unwrap();
        assert_eq!(bucket.record_behind::<Value>(&mine).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_genuine_record_that_makes_no_sense_is_none_and_not_forged() {
    let bucket = Bucket::in_memory();
    let key = RecordKey::Challenge(registry());
    bucket.put_record(&key, &"text").await.unwrap();
    assert_eq!(bucket.record::<u64>(&key).await, None);
    assert_eq!(bucket.metrics().bucket().forged.value(), 0);
}

#[tokio::test]
async fn questions_beyond_the_bound_are_not_asked() {
    let bucket = Bucket::in_memory();
    let key = RecordKey::Challenge(registry());
    bucket.put_record(&key, &1).await.unwrap();
    let all = bucket.inner.questions.acquire_many(64).await.unwrap();
    assert_eq!(bucket.record::<u64>(&key).await, None);
    assert_eq!(bucket.metrics().bucket().unasked.value(), 1);
    drop(all);
    assert_eq!(bucket.record::<u64>(&key).await, Some(1));
}

#[tokio::test]
async fn a_list_has_all_names_in_order_from_where_it_is_to_begin() {
    let bucket = Bucket::in_memory();
    let mut digests = Vec::new();
    for number in 0..20u8 {
        digests.push(put(&bucket, &[number]).await);
        bucket.mark(&digests[usize::from(number)]).await.unwrap();
    }
    let key = RecordKey::Tag(registry(), repository(), "v1".parse().unwrap());
    bucket.put_record(&key, &1).await.unwrap();
    let names = async |prefix: Prefix, after: Option<&str>| {
        let items: Vec<_> = bucket.list(&prefix, after).try_collect().await.unwrap();
        items.into_iter().map(|item: Item| item.name).collect::<Vec<_>>()
    };
    let mut expected: Vec<_> =
        digests.iter().map(|digest| Entry::Blob(*digest).to_string()).collect();
    expected.sort();
    assert_eq!(names(Prefix::Blobs(None), None).await, expected);
    assert_eq!(names(Prefix::Blobs(None), Some(&expected[4])).await, expected[5..]);
    let of_shard = names(Prefix::Blobs(Some(Shard::of(&digests[0]))), None).await;
    assert!(of_shard.contains(&Entry::Blob(digests[0]).to_string()));
    assert_eq!(names(Prefix::Uses(None), None).await.len(), 20);
    assert_eq!(names(Prefix::Repositories, None).await, [key.to_string()]);
    assert!(names(Prefix::Pins, None).await.is_empty());
}

#[tokio::test]
async fn the_first_replica_says_whose_bucket_it_is_and_another_key_makes_it_useless() {
    let store = Arc::new(InMemory::new());
    let one = Bucket::over(store.clone(), Metrics::default());
    let digest = put(&one, b"x").await;
    let version = store.get(&Path::from("eu/VERSION")).await.unwrap().bytes().await.unwrap();
    assert!(version.starts_with(b"entrepot bucket 1\nkey "));
    let options = for_tests::options();
    let stranger = Bucket::with(store.clone(), Metrics::default(), &[8; 32], &options);
    let error = stranger.open(&digest, 0).await.err().unwrap();
    assert!(matches!(error, BucketError::Unusable(_)), "{error}");
    let put = stranger.put_record(&RecordKey::Challenge(registry()), &1).await;
    assert!(matches!(put, Err(BucketError::Unusable(_))));
    let listed: Result<Vec<_>, _> = stranger.list(&Prefix::Pins, None).try_collect().await;
    assert!(matches!(listed, Err(BucketError::Unusable(_))));
    let health = stranger.health();
    assert!(health.is_up && !health.is_usable, "{health:?}");
    let again = store.get(&Path::from("eu/VERSION")).await.unwrap().bytes().await.unwrap();
    assert_eq!(again, version);
}

#[tokio::test]
async fn a_newer_kind_of_bucket_is_left_as_it_is() {
    let store = Arc::new(InMemory::new());
    store.put(&Path::from("eu/VERSION"), "entrepot bucket 2\n".into()).await.unwrap();
    let bucket = Bucket::over(store.clone(), Metrics::default());
    assert_eq!(bucket.record::<u64>(&RecordKey::Challenge(registry())).await, None);
    let health = bucket.health();
    assert!(!health.is_usable && health.why.unwrap().contains("entrepot bucket 2"));
    assert_eq!(store.list(None).count().await, 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_sees_the_bucket_become_another() {
    let store = Arc::new(InMemory::new());
    let bucket = Bucket::over(store.clone(), Metrics::default());
    let shutdown = tokio_util::sync::CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(bucket.clone().watch(shutdown.clone()));
    let path = Path::from("eu/VERSION");
    let soon = || tokio::time::sleep(Duration::from_secs(61));
    soon().await;
    assert!(bucket.health().is_usable);
    store.put(&path, "entrepot bucket 2\n".into()).await.unwrap();
    soon().await;
    assert!(!bucket.health().is_usable);
    store.delete(&path).await.unwrap();
    soon().await;
    assert!(bucket.health().is_usable);
    assert!(store.head(&path).await.is_ok());
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
}
