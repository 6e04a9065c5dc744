//! What is on record and in the store, as people ask for it.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use entrepot_oci::{Digest, UnixSeconds};

use super::images::{are, image, opened, options};
use super::{kept, new_dir, noise, open, read_all, sha256};
use crate::{ContentRecord, Fact, Reach, Store};

const PATIENCE: Duration = Duration::from_secs(30);

async fn withdraw(store: &Store, document: Digest, spared: &[Digest]) -> u64 {
    assert!(store.is_known_within(PATIENCE).await);
    let spared: HashSet<Digest> = spared.iter().copied().collect();
    let foreseen = store.foresee_withdrawal([document].into(), spared.clone()).await.unwrap();
    let withdrawn = store.withdraw([document].into(), spared, Reach::All).await.unwrap();
    assert_eq!(withdrawn, foreseen);
    withdrawn.objects
}

#[tokio::test]
async fn what_is_on_record_is_listed_by_name() {
    let dir = new_dir();
    let store = open(&dir).await;
    assert!(store.repositories().await.unwrap().is_empty());
    let (one, two) = (sha256(b"1"), sha256(b"2"));
    for (registry, name) in [("b.example:5000", "x/y"), ("a.example", "x"), ("a.example", "x/y/z")]
    {
        let repository = super::records_of(&store, registry, name);
        assert!(repository.tags().await.unwrap().is_empty());
        repository.record_content(&two, &ContentRecord::now(None)).await.unwrap();
        repository.record_content(&one, &ContentRecord::now(Some("a/b"))).await.unwrap();
        for tag in ["v2", "latest"] {
            repository.record_fact(Fact::Tag(&tag.parse().unwrap()), 1).await.unwrap();
        }
        let mut digests = [one, two];
        digests.sort_unstable();
        assert_eq!(repository.contents().await.unwrap(), digests);
        assert_eq!(
            repository.tags().await.unwrap(),
            ["latest".parse().unwrap(), "v2".parse().unwrap()]
        );
        repository.forget_content(&two).await.unwrap();
        repository.forget_content(&two).await.unwrap();
        assert_eq!(repository.contents().await.unwrap(), [one]);
    }
    store
        .registry(&"c.example".parse().unwrap())
        .record_content(&one, &ContentRecord::now(None))
        .await
        .unwrap();
    let names = [("a.example", "x"), ("a.example", "x/y/z"), ("b.example:5000", "x/y")];
    let names = names.map(|(registry, name)| (registry.parse().unwrap(), name.parse().unwrap()));
    assert_eq!(store.repositories().await.unwrap(), names);
}

#[tokio::test]
async fn looking_at_an_object_is_no_use_of_it() {
    let dir = new_dir();
    let store = open(&dir).await;
    let content = Bytes::from_static(b"{}");
    let digest = sha256(&content);
    assert_eq!((store.find(&digest), store.peek(&digest).await), (None, None));
    drop(store.put(&digest, content.clone()).await.unwrap());
    assert_eq!(store.peek(&digest).await.unwrap(), content);
    let found = store.find(&digest).unwrap();
    assert_eq!((found.size, found.hits, found.is_pinned), (2, 0, false));
    let arrival = store.arrival(&digest).await.unwrap();
    assert!(arrival.0.abs_diff(UnixSeconds::now().0) < 60, "{arrival:?}");
    assert_eq!(store.arrival(&sha256(b"nothing")).await, None);
    store.pin(&digest).await.unwrap();
    assert!(store.find(&digest).unwrap().is_pinned);
    std::fs::write(super::blob_path(&dir, &digest), "[]").unwrap();
    assert_eq!(store.peek(&digest).await, None, "it is damaged");
}

#[tokio::test]
async fn an_image_goes_without_what_another_one_needs() {
    let dir = new_dir();
    let store = opened(options(&dir, None)).await;
    let shared = noise(1_000, 1);
    let (old, new) = (image(&store, 1, &shared).await, image(&store, 2, &shared).await);
    let reader = kept(&store, &old[3]).await;
    assert_eq!(withdraw(&store, old[0], &[]).await, 3);
    assert_eq!(are(&store, &old), [false, false, true, false]);
    assert_eq!(are(&store, &new), [true; 4]);
    assert_eq!(read_all(&reader, 100).await.unwrap(), noise(1_000, 101), "who reads reads on");
    assert_eq!(withdraw(&store, old[0], &[]).await, 0, "again");
    assert_eq!(withdraw(&store, new[0], &[]).await, 4);
    assert_eq!(store.totals().objects, 0);
    assert_eq!(store.totals().evicted_objects, 0, "nobody made room");
}

#[tokio::test]
async fn what_is_spared_or_pinned_stays_with_what_it_needs() {
    let dir = new_dir();
    let store = opened(options(&dir, None)).await;
    let shared = noise(1_000, 1);
    let [index, manifest, layer, own] = image(&store, 1, &shared).await;
    assert_eq!(withdraw(&store, index, &[index]).await, 0);
    store.pin(&layer).await.unwrap();
    assert_eq!(withdraw(&store, index, &[manifest]).await, 1);
    assert_eq!(are(&store, &[index, manifest, layer, own]), [false, true, true, true]);
    assert_eq!(withdraw(&store, manifest, &[]).await, 2);
    assert_eq!(are(&store, &[manifest, layer, own]), [false, true, false]);
}

#[tokio::test]
async fn what_goes_alone_leaves_what_it_needs() {
    let dir = new_dir();
    let store = opened(options(&dir, None)).await;
    let objects = image(&store, 1, &noise(1_000, 1)).await;
    assert!(store.is_known_within(PATIENCE).await);
    let [index, ..] = objects;
    let gone = store.withdraw([index].into(), HashSet::new(), Reach::Alone).await.unwrap();
    assert_eq!(gone.objects, 1);
    assert_eq!(are(&store, &objects), [false, true, true, true]);
}
