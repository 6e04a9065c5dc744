//! Rounds of replicas over one bucket in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use entrepot_cache::Presence;
use entrepot_oci::{Algorithm, Digest};
use proptest::prelude::*;

use super::{RoundError, RoundReport};
use crate::bucket::fleet_for_tests::{Replica, Shared, registry, repository};
use crate::bucket::for_tests;
use crate::bucket::layout::{Prefix, RecordKey};
use crate::bucket::merge::SharedTag;
use crate::bucket::notes::Deed;
use crate::bucket::options::Private;
use crate::bucket::uploads::{Pinned, Upload};

const DAY: Duration = Duration::from_hours(24);

async fn go(replica: &Replica) -> RoundReport {
    replica.round.run(&mut |_| {}).await.unwrap()
}

async fn has(replica: &Replica, digest: &Digest) -> bool {
    replica.bucket.has(digest).await.unwrap()
}

fn tag() -> Upload {
    let (registry, repository) = (registry(), repository());
    Upload::Tag { registry, repository, tag: "v1".parse().unwrap() }
}

#[tokio::test]
async fn bytes_go_before_the_records_that_lead_to_them() {
    let shared = Shared::default();
    let replica = Replica::over(&shared).await;
    replica.serve().await;
    let layer = replica.keep(b"layer").await;
    let manifest = replica.keep_image("v1", &layer, &[]).await;
    replica.bring(layer).await.unwrap();
    replica.uploads.settle(&tag()).await.unwrap();
    let written: Vec<_> =
        shared.0.written().into_iter().filter(|name| !name.ends_with("VERSION")).collect();
    let blob = |digest: &Digest| format!("eu/blobs/sha256/{}/{}", &digest.hex()[..2], digest.hex());
    let of = |digest: &Digest, place: &str| {
        format!("eu/repositories/ghcr.io{place}/_contents/sha256/{}", digest.hex())
    };
    assert_eq!(
        written,
        [
            blob(&layer),
            of(&layer, ""),
            of(&layer, "/a/b"),
            "eu/repositories/ghcr.io/a/b/_access".to_owned(),
            blob(&manifest),
            of(&manifest, ""),
            of(&manifest, "/a/b"),
            "eu/repositories/ghcr.io/a/b/_tags/v1".to_owned(),
        ]
    );
    // Again: nothing is new.
    replica.bring(layer).await.unwrap();
    replica.uploads.settle(&tag()).await.unwrap();
    assert_eq!(shared.0.written().len(), written.len() + 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn wherever_it_ends_no_record_is_without_its_object(writes in 0_usize..16) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let shared = Shared::default();
            let replica = Replica::over(&shared).await;
            replica.serve().await;
            let layer = replica.keep(b"layer").await;
            let config = replica.keep(b"config").await;
            let manifest = replica.keep_image("v1", &config, &[layer]).await;
            shared.0.take_only(Some(writes));
            let _ = replica.uploads.settle(&tag()).await;
            let _ = replica.bring(layer).await;
            let _ = replica.bring(config).await;
            shared.0.take_only(None);
            let looking = Replica::over(&shared).await;
            assert!(looking.every_record_leads_on().await);
            // What a crash has cut off is found by the round.
            go(&replica).await;
            for digest in [layer, config, manifest] {
                assert!(has(&replica, &digest).await);
                let key = RecordKey::Content(registry(), Some(repository()), digest);
                assert!(replica.names(Prefix::Repositories).await.contains(&key.to_string()));
            }
            let key = RecordKey::Tag(registry(), repository(), "v1".parse().unwrap());
            let tag: SharedTag = replica.bucket.record_behind(&key).await.unwrap().unwrap();
            assert_eq!(tag.digests().next(), Some(manifest));
            assert!(replica.every_record_leads_on().await);
        });
    }
}

#[tokio::test]
async fn what_the_queue_has_no_place_for_is_counted_and_brought_by_the_round() {
    let shared = Shared::default();
    let replica = Replica::over(&shared).await;
    let mut all = Vec::new();
    for number in 0..120_u8 {
        let digest = replica.keep(&[number; 3]).await;
        let (registry, repository) = (registry(), repository());
        replica.uploads.offer(Upload::Object { registry, repository, digest });
        all.push(digest);
    }
    let pending = replica.uploads.pending();
    assert_eq!((pending.objects, pending.bytes, pending.dropped), (100, 300, 20));
    let report = go(&replica).await;
    assert_eq!((report.uploaded_objects, report.uploaded_bytes), (120, 360));
    assert_eq!((report.objects, report.bytes), (120, 360));
    for digest in all {
        assert!(has(&replica, &digest).await);
    }
    let again = go(&replica).await;
    assert_eq!((again.uploaded_objects, again.objects, again.bytes), (0, 120, 360));
    assert_eq!(replica.bucket.metrics().bucket().objects.value(), 120);
}

#[tokio::test]
async fn what_nobody_uses_goes_and_what_one_replica_uses_stays() {
    let shared = Shared::default();
    let (one, other) = (Replica::over(&shared).await, Replica::over(&shared).await);
    let used = one.keep(b"used").await;
    let unused = one.keep(b"unused").await;
    for digest in [used, unused] {
        one.bring(digest).await.unwrap();
    }
    one.store.remove(&unused).await.unwrap();
    shared.0.grow_old(30 * DAY).await;
    let report = go(&one).await;
    assert_eq!((report.marked, report.removed_objects), (1, 0));
    shared.0.grow_old(61 * DAY).await;
    // Which has neither.
    let report = go(&other).await;
    assert_eq!((report.removed_objects, report.removed_bytes), (1, 6));
    assert!(has(&other, &used).await && !has(&other, &unused).await);
    // Its records lead nowhere, and are old.
    assert_eq!(report.removed_records, 2);
    shared.0.grow_old(30 * DAY).await;
    let report = go(&other).await;
    assert_eq!((report.removed_objects, report.objects), (1, 0));
    assert!(other.names(Prefix::Blobs(None)).await.is_empty());
    assert!(other.names(Prefix::Uses(None)).await.is_empty());
    // Whoever uses it all the same brings it back.
    let report = go(&one).await;
    assert_eq!(report.uploaded_objects, 1);
    assert!(has(&one, &used).await && one.every_record_leads_on().await);
}

#[tokio::test]
async fn what_a_used_image_needs_is_used_with_it() {
    let shared = Shared::default();
    let one = Replica::over(&shared).await;
    let layer = one.keep(b"layer").await;
    one.keep_image("v1", &layer, &[]).await;
    go(&one).await;
    // The layer is there alone: whoever pulls the image here has it already.
    one.store.remove(&layer).await.unwrap();
    shared.0.grow_old(80 * DAY).await;
    assert_eq!(go(&one).await.marked, 2);
    shared.0.grow_old(80 * DAY).await;
    let other = Replica::over(&shared).await;
    assert_eq!(go(&other).await.removed_objects, 0);
    assert!(has(&one, &layer).await);
}

#[tokio::test]
async fn without_bounds_nothing_goes_and_nothing_is_marked() {
    let shared = Shared::default();
    let mut options = for_tests::options();
    options.max_idle = None;
    let nothing = || Arc::new(|_| Box::pin(async { Ok(()) }) as _);
    let replica = Replica::with(&shared, &options, nothing()).await;
    let digest = replica.keep(b"x").await;
    go(&replica).await;
    shared.0.grow_old(4_000 * DAY).await;
    let report = go(&replica).await;
    assert_eq!((report.marked, report.removed_objects, report.objects), (0, 0, 1));
    assert!(has(&replica, &digest).await);
}

#[tokio::test]
async fn above_its_size_the_bucket_loses_what_was_used_least_lately() {
    let shared = Shared::default();
    let mut options = for_tests::options();
    options.max_size = Some(100);
    let nothing = || Arc::new(|_| Box::pin(async { Ok(()) }) as _);
    let one = Replica::over(&shared).await;
    let mut all = Vec::new();
    for number in 0..6_u8 {
        let digest = one.keep(&[number; 20]).await;
        one.bring(digest).await.unwrap();
        all.push(digest);
        shared.0.grow_old(DAY).await;
    }
    let other = Replica::with(&shared, &options, nothing()).await;
    other.store.pin(&all[0]).await.unwrap();
    let report = go(&other).await;
    // 120 bytes, down to 95 at most; the oldest is pinned.
    assert_eq!((report.removed_objects, report.objects, report.bytes), (2, 4, 80));
    let mut left = Vec::new();
    for digest in &all {
        left.push(has(&other, digest).await);
    }
    assert_eq!(left, [true, false, false, true, true, true]);
    assert_eq!(go(&other).await.removed_objects, 0);
}

#[tokio::test]
async fn more_than_can_be_remembered_is_looked_at_shard_by_shard() {
    let shared = Shared::default();
    let mut options = for_tests::options();
    options.max_size = Some(400);
    let nothing = || Arc::new(|_| Box::pin(async { Ok(()) }) as _);
    let one = Replica::over(&shared).await;
    let keeping = Replica::with(&shared, &options, nothing()).await;
    for number in 0..30_u8 {
        let digest = one.keep(&[number; 20]).await;
        one.bring(digest).await.unwrap();
        if number % 10 == 9 {
            shared.0.grow_old(40 * DAY).await;
        }
    }
    let long = Digest::of(Algorithm::Sha512, b"long");
    one.store.put(&long, bytes::Bytes::from_static(b"long")).await.unwrap();
    one.bring(long).await.unwrap();
    one.store.remove(&long).await.unwrap();
    let Replica { bucket, store, uploads, notes, .. } = &keeping;
    let round =
        super::Round::with_room(bucket.clone(), store.clone(), uploads.clone(), notes.clone(), 3);
    let mut steps = Vec::new();
    let report = round.run(&mut |progress| steps.push(progress)).await.unwrap();
    // Ten are 120 days old; of the other twenty and the long one too many for 400 bytes.
    assert_eq!((report.removed_objects, report.objects, report.bytes), (12, 19, 364));
    assert!(has(&one, &long).await);
    let looked = steps.iter().filter(|step| step.step == super::Step::Looking);
    assert_eq!(looked.count(), 512);
    let again = round.run(&mut |_| {}).await.unwrap();
    assert_eq!((again.removed_objects, again.objects, again.bytes), (0, 19, 364));
}

#[tokio::test]
async fn two_rounds_at_once_are_harmless() {
    let shared = Shared::default();
    let (one, other) = (Replica::over(&shared).await, Replica::over(&shared).await);
    for number in 0..40_u8 {
        let replica = if number % 2 == 0 { &one } else { &other };
        let digest = replica.keep(&[number; 4]).await;
        replica.bring(digest).await.unwrap();
    }
    let gone = one.keep(b"gone").await;
    one.bring(gone).await.unwrap();
    one.store.remove(&gone).await.unwrap();
    shared.0.grow_old(91 * DAY).await;
    let (a, b) = tokio::join!(go(&one), go(&other));
    // Each used what it keeps; what neither has told the other in time may have come back.
    assert!(a.removed_objects + b.removed_objects >= 1);
    assert!(!has(&one, &gone).await);
    tokio::join!(go(&one), go(&other));
    let report = go(&one).await;
    assert_eq!((report.objects, report.removed_objects), (40, 0));
    assert!(one.every_record_leads_on().await);
    let mut telling = |_| {};
    let (a, b) =
        tokio::join!(one.round.run(&mut telling), async { one.round.run(&mut |_| {}).await });
    assert!(a.is_ok() && matches!(b, Err(RoundError::UnderWay)), "one at a time in one process");
}

#[tokio::test]
async fn a_pin_keeps_what_its_document_needs_though_no_disk_has_it() {
    let shared = Shared::default();
    let one = Replica::over(&shared).await;
    let layer = one.keep(b"layer").await;
    let config = one.keep(b"config").await;
    let manifest = one.keep_image("v1", &config, &[layer]).await;
    let stray = one.keep(b"stray").await;
    go(&one).await;
    one.store.pin(&manifest).await.unwrap();
    one.uploads.settle(&Upload::Pin { digest: manifest }).await.unwrap();
    shared.0.grow_old(365 * DAY).await;
    let other = Replica::over(&shared).await;
    let report = go(&other).await;
    assert_eq!((report.removed_objects, report.pins), (1, 1));
    for digest in [manifest, config, layer] {
        assert!(has(&other, &digest).await);
    }
    assert!(!has(&other, &stray).await);
    assert!(other.store.is_pinned(&manifest), "each replica has the pins of all");
    // Unpinned by one: noted first, then taken away.
    one.store.unpin(&manifest).await.unwrap();
    one.notes.tell(Deed::Unpinned(manifest.to_string())).await.unwrap();
    one.uploads.settle(&Upload::Pin { digest: manifest }).await.unwrap();
    assert!(one.names(Prefix::Pins).await.is_empty());
}

#[tokio::test]
async fn a_pin_that_nobody_with_the_key_has_written_pins_nothing() {
    use object_store::ObjectStoreExt as _;
    let shared = Shared::default();
    let one = Replica::over(&shared).await;
    let digest = one.keep(b"x").await;
    go(&one).await;
    let path = object_store::path::Path::from(format!("eu/{}", RecordKey::Pin(digest)));
    shared.put(&path, "{}".into()).await.unwrap();
    let other = Replica::over(&shared).await;
    shared.0.grow_old(91 * DAY).await;
    let report = go(&other).await;
    assert_eq!((report.pins, report.removed_objects), (0, 1));
    assert!(!other.store.is_pinned(&digest));
}

#[tokio::test]
async fn a_pin_of_one_replica_that_the_others_have_unpinned_stays_unpinned() {
    let shared = Shared::default();
    let one = Replica::over(&shared).await;
    let digest = one.keep(b"x").await;
    let key = RecordKey::Pin(digest);
    one.bucket.put_record(&key, &Pinned {}).await.unwrap();
    let unpinning = Arc::new(std::sync::OnceLock::<entrepot_cache::Store>::new());
    let store = unpinning.clone();
    let apply = Arc::new(move |note: crate::bucket::notes::Note| {
        let store = store.clone();
        Box::pin(async move {
            if let (Some(store), Deed::Unpinned(digest)) = (store.get(), note.done) {
                store.unpin(&digest.parse().unwrap()).await.unwrap();
            }
            Ok(())
        }) as _
    });
    let other = Replica::with(&shared, &for_tests::options(), apply).await;
    unpinning.set(other.store.clone()).unwrap();
    go(&other).await;
    assert!(other.store.is_pinned(&digest));
    one.notes.tell(Deed::Unpinned(digest.to_string())).await.unwrap();
    // The pin in the bucket outlives the note for a moment.
    go(&other).await;
    assert!(!other.store.is_pinned(&digest));
    one.bucket.remove_record(&key).await.unwrap();
    go(&other).await;
    assert!(other.names(Prefix::Pins).await.is_empty());
}

#[tokio::test]
async fn notes_are_applied_once_each_and_not_by_who_wrote_them() {
    let shared = Shared::default();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let apply = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(()) }) as _
    });
    let one = Replica::over(&shared).await;
    let other = Replica::with(&shared, &for_tests::options(), apply).await;
    for number in 0..5 {
        one.notes.tell(Deed::Removed(vec![format!("ghcr.io/a/b:{number}")])).await.unwrap();
    }
    other.notes.tell(Deed::Removed(vec!["ghcr.io/a/b:x".to_owned()])).await.unwrap();
    for _ in 0..3 {
        other.notes.catch_up().await.unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 5);
    }
    let many = (0..250).map(|number| format!("ghcr.io/a/b:{number}")).collect();
    one.notes.tell(Deed::Removed(many)).await.unwrap();
    other.notes.catch_up().await.unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 8, "in parts");
    shared.0.grow_old(31 * DAY).await;
    assert_eq!(go(&one).await.removed_records, 9);
    assert!(one.names(Prefix::Notes).await.is_empty());
}

#[tokio::test]
async fn a_note_that_can_not_be_written_is_written_later() {
    let shared = Shared::default();
    let one = Replica::over(&shared).await;
    one.notes.tell(Deed::Removed(vec!["ghcr.io/a/b:0".to_owned()])).await.unwrap();
    shared.0.take_only(Some(0));
    one.notes.tell(Deed::Removed(vec!["ghcr.io/a/b:1".to_owned()])).await.unwrap_err();
    shared.0.take_only(None);
    one.notes.tell(Deed::Removed(vec!["ghcr.io/a/b:2".to_owned()])).await.unwrap();
    assert_eq!(one.names(Prefix::Notes).await.len(), 3);
}

#[tokio::test]
async fn what_a_clients_credential_has_fetched_stays_here_if_so_configured() {
    let shared = Shared::default();
    let mut options = for_tests::options();
    options.private = Private::KeepLocal;
    let nothing = Arc::new(|_| Box::pin(async { Ok(()) }) as _);
    let one = Replica::with(&shared, &options, nothing).await;
    let digest = one.keep(b"private").await;
    one.keep_image("v1", &digest, &[]).await;
    one.bring(digest).await.unwrap();
    one.uploads.settle(&tag()).await.unwrap();
    assert_eq!(go(&one).await.objects, 0);
    assert!(one.names(Prefix::Repositories).await.is_empty());
    one.serve().await;
    let report = go(&one).await;
    assert_eq!((report.objects, report.uploaded_objects), (2, 2));
}

#[tokio::test]
async fn what_was_forgotten_here_is_forgotten_there_unless_it_has_come_back() {
    let shared = Shared::default();
    let one = Replica::over(&shared).await;
    let digest = one.keep(b"x").await;
    one.keep_image("v1", &digest, &[]).await;
    go(&one).await;
    let tag_key = RecordKey::Tag(registry(), repository(), "v1".parse().unwrap());
    let content = RecordKey::Content(registry(), Some(repository()), digest);
    for key in [&tag_key, &content] {
        one.uploads.settle(&Upload::Forgotten(key.clone())).await.unwrap();
    }
    let names = one.names(Prefix::Repositories).await;
    assert!(names.contains(&tag_key.to_string()) && names.contains(&content.to_string()));
    let records = one.store.repository(&registry(), &repository());
    records.forget_content(&digest).await.unwrap();
    records.forget_fact(entrepot_cache::Fact::Tag(&"v1".parse().unwrap())).await.unwrap();
    for key in [&tag_key, &content] {
        one.uploads.settle(&Upload::Forgotten(key.clone())).await.unwrap();
    }
    let names = one.names(Prefix::Repositories).await;
    assert!(!names.contains(&tag_key.to_string()) && !names.contains(&content.to_string()));
}

#[tokio::test]
async fn an_upload_makes_nothing_wanted_and_counts_as_no_use() {
    let shared = Shared::default();
    let one = Replica::over(&shared).await;
    let digest = one.keep(b"x").await;
    let before = one.store.find(&digest).unwrap();
    one.bring(digest).await.unwrap();
    assert_eq!(one.store.find(&digest).unwrap().hits, before.hits);
    assert_eq!(one.store.contains(&digest), Presence::Kept);
}

#[tokio::test]
async fn a_bucket_that_fails_ends_the_round_and_what_is_missing_comes_later() {
    let shared = Shared::default();
    let one = Replica::over(&shared).await;
    let digest = one.keep(b"x").await;
    // Its kind is written first.
    assert_eq!(go(&one).await.objects, 1);
    one.bucket.remove(&digest).await.unwrap();
    shared.0.take_only(Some(0));
    let report = go(&one).await;
    assert_eq!((report.failed, report.uploaded_objects), (1, 0));
    assert_eq!(one.uploads.pending().objects, 1, "it is tried again");
    shared.0.take_only(None);
    assert_eq!(go(&one).await.uploaded_objects, 1);
    assert_eq!(digest, Digest::of(Algorithm::Sha256, b"x"));
}
