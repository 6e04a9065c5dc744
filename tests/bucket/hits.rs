//! What one replica has fetched is a hit on every other.

use entrepot_testkit::http::Headers;
use entrepot_testkit::pull::Pulled;
use entrepot_testkit::{Access, Fleet, Image, Index, Proxy, Registry, Request, User, wait_until};

use crate::{ALPINE, BINARY, PRIVATE, fleet_with, metric, request, right_blob, share};

#[test]
fn a_blob_fetched_by_one_replica_is_a_hit_on_every_other() {
    let image = Image::random(1, 3_000_000);
    let fleet = fleet_with(&image);
    let [first, second, third] = fleet.start();
    share(&fleet, &first);
    fleet.registry.forget_requests();

    for replica in [&second, &third] {
        let answer = right_blob(replica, &fleet, &image.layers[0]);
        let status: Vec<_> = answer.headers.all("cache-status").collect();
        assert!(status.join(", ").starts_with("entrepot-bucket; hit, entrepot"), "{status:?}");
        replica.wait_for_log(&["BUCKET", "GET", "library/alpine"]);
        replica.wait_until_kept(&image.layers[0].digest);
        wait_until("it is a hit from then on", || {
            let again = right_blob(replica, &fleet, &image.layers[0]);
            again.headers.get("cache-status") == Some("entrepot; hit")
        });
        assert!(metric(replica, "entrepot_bucket_hits_total") >= 1.0);
    }
    let requests = fleet.registry.requests();
    assert!(requests.blob_gets().is_empty(), "{}", requests.summary());
}

#[test]
fn an_image_is_fetched_once_for_all() {
    let index = Index::random(&["amd64", "arm64"], 3, 400_000);
    let registry = Registry::open();
    registry.push_index(ALPINE, "1", &index);
    let fleet = Fleet::new(BINARY, registry);
    let [first, second, third] = fleet.start();
    share(&fleet, &first);
    for replica in [&second, &third] {
        let pulled = replica.puller().pull(ALPINE, "1").unwrap();
        assert_eq!(pulled.blobs.len(), 4);
    }
    let requests = fleet.registry.requests();
    assert_eq!(requests.blob_gets().len(), 4, "{}", requests.summary());
    assert_eq!(requests.manifest_gets().len(), 2, "{}", requests.summary());
    // What tags mean each replica asks itself, which is free.
    assert!(requests.manifest_heads().len() <= 3, "{}", requests.summary());
}

/// Ping and token, tag, index, manifests and blobs, on replicas that have never seen any of them.
#[test]
fn an_image_is_pulled_from_every_replica_with_the_registry_gone() {
    let user = User::new("owner").pulls(PRIVATE);
    let access = Access::bearer([user]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    let index = Index::random(&["amd64", "arm64"], 2, 300_000);
    registry.push_index(ALPINE, "1", &index);
    let mut fleet = Fleet::new(BINARY, registry);
    let [first, second, third] = fleet.start();
    let pulled = share(&fleet, &first);
    fleet.bucket.wait_for_record(&format!("/{ALPINE}/_access"));
    fleet.registry.stop();

    for replica in [&second, &third] {
        // Twice: what has just come from there, too.
        let again = replica.puller().pull(ALPINE, "1");
        let again = again.unwrap_or_else(|e| panic!("{e}\n{}", replica.log().join("\n")));
        assert_eq!(digests(&again), digests(&pulled));
        // By digest as well, and without a token.
        let layer = &again.blobs[1].digest;
        let answer = replica.puller().blob(ALPINE, layer);
        let answer = answer.unwrap_or_else(|e| panic!("{e}\n{}", replica.log().join("\n")));
        assert_eq!(&answer.digest, layer);
    }
    let late = fleet.replica().start();
    assert!(late.puller().pull(ALPINE, "1").is_ok(), "one that starts only now");
}

fn digests(pulled: &Pulled) -> Vec<&str> {
    pulled.manifests.iter().chain(&pulled.blobs).map(|object| object.digest.as_str()).collect()
}

#[test]
fn ranges_and_heads_are_answered_from_the_bucket() {
    let image = Image::random(2, 1_000_000);
    let fleet = fleet_with(&image);
    let [first, second] = fleet.start();
    share(&fleet, &first);
    fleet.registry.forget_requests();
    let ask = |request: &Request| second.client().send(request).unwrap();

    let [one, other] = [&image.layers[0], &image.layers[1]];
    let head = ask(&request(&fleet, "HEAD", &format!("blobs/{}", one.digest)));
    assert_eq!((head.status, head.headers.get("content-length")), (200, Some("1000000")));
    for (range, expected) in [
        ("bytes=10-19", one.bytes.slice(10..20)),
        ("bytes=-7", one.bytes.slice(999_993..)),
        ("bytes=500000-", one.bytes.slice(500_000..)),
    ] {
        let asked = request(&fleet, "GET", &format!("blobs/{}", one.digest));
        let answer = ask(&asked.header("Range", range));
        assert!(matches!(answer.status, 200 | 206), "{range}: {}", answer.status);
        let bytes = if answer.status == 206 { expected } else { one.bytes.clone() };
        assert_eq!(answer.body, bytes, "{range}");
    }
    let manifest = ask(&request(&fleet, "HEAD", &format!("manifests/{}", image.manifest.digest)));
    assert_eq!(manifest.status, 200);
    right_blob(&second, &fleet, other);
    let gets = fleet.registry.requests().method("GET");
    assert!(gets.path("/blobs/").is_empty() && gets.path("/manifests/").is_empty());
}

/// What is asked for while it comes from the bucket joins that, whoever asks.
#[test]
fn many_clients_of_one_replica_are_one_download_from_the_bucket() {
    let image = Image::random(1, 5_000_000);
    let fleet = fleet_with(&image);
    let forwarder = entrepot_testkit::Forwarder::to(fleet.bucket.server());
    let first = fleet.replica().start();
    let second = fleet.replica_by(&forwarder, "20s").start();
    share(&fleet, &first);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| right_blob(&second, &fleet, &image.layers[0]));
        }
    });
    let gets = forwarder.seen("GET", "/blobs/sha256/");
    assert_eq!(gets.len(), 1, "{:#?}", forwarder.summary());
}

/// What came from the bucket goes nowhere: who fetched it from a registry uploads it.
#[test]
fn what_came_from_the_bucket_is_not_uploaded_again() {
    let image = Image::random(1, 500_000);
    let fleet = fleet_with(&image);
    let forwarder = entrepot_testkit::Forwarder::to(fleet.bucket.server());
    let first = fleet.replica().start();
    let second = fleet.replica_by(&forwarder, "20s").start();
    share(&fleet, &first);
    let pulled = second.puller().pull(ALPINE, "1").unwrap();
    second.wait_until_all_kept(&pulled);
    entrepot_testkit::Bucket::wait_until_uploaded(&second);
    let puts = forwarder.seen("PUT", "/blobs/");
    assert!(puts.is_empty(), "{:#?}", forwarder.summary());
}

/// A restart forgets what is in memory; the disk of one that has lost its disk is the bucket.
#[test]
fn a_replica_that_has_lost_its_disk_has_the_bucket() {
    let image = Image::random(2, 400_000);
    let mut fleet = fleet_with(&image);
    let mut replica = fleet.replica().start();
    share(&fleet, &replica);
    fleet.registry.stop();
    replica.signal(entrepot_testkit::proxy::Signal::KILL);
    replica.wait_exit();
    std::fs::remove_dir_all(replica.data_dir().join("cache")).unwrap();
    replica.start_again();
    assert!(replica.puller().pull(ALPINE, "1").is_ok(), "{}", replica.log().join("\n"));
    replica.assert_store_is_sound();
}

/// Replicas on different machines have copies of the CA and the key.
#[test]
fn copies_of_the_secrets_are_as_good_as_the_same() {
    let image = Image::random(1, 400_000);
    let fleet = fleet_with(&image);
    let first = fleet.replica().start();
    share(&fleet, &first);
    let copy = fleet.copied_ca_dir("ca-of-another-machine");
    assert!(copy.join("bucket.key").exists(), "the key lies beside the CA");
    let alone = Proxy::builder(BINARY).in_front_of(&fleet.registry);
    let second = fleet.bucket.behind(Fleet::with_ca(alone, &copy)).start();
    assert_eq!(first.ca_pem(), second.ca_pem());
    fleet.registry.forget_requests();
    right_blob(&second, &fleet, &image.layers[0]);
    assert!(fleet.registry.requests().blob_gets().is_empty());
}

#[test]
fn two_replicas_that_begin_at_once_have_one_key() {
    let image = Image::random(1, 200_000);
    let fleet = fleet_with(&image);
    let replicas: Vec<Proxy> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..3).map(|_| scope.spawn(|| fleet.replica().start())).collect();
        starting.into_iter().map(|start| start.join().unwrap()).collect()
    });
    share(&fleet, &replicas[0]);
    fleet.registry.forget_requests();
    for replica in &replicas[1..] {
        right_blob(replica, &fleet, &image.layers[0]);
        assert!(metric(replica, "entrepot_bucket_forged_total") < 1.0);
    }
    assert!(fleet.registry.requests().blob_gets().is_empty());
}

/// An image that is brought in on one replica is brought in on all.
#[test]
fn an_import_opens_its_images_on_every_replica() {
    let image = Image::random(2, 300_000);
    let mut fleet = fleet_with(&image);
    let [first, second] = fleet.start();
    let pulled = first.puller().pull(ALPINE, "1").unwrap();
    first.wait_until_all_kept(&pulled);
    let archive = fleet.file("images.tar");
    let path = archive.display().to_string();
    let exported = first.run(&["export", "-o", &path, "alpine:1"]);
    assert_eq!(exported.code, Some(0), "{}", exported.output);
    drop(first);
    fleet.bucket.empty();
    fleet.registry.stop();

    let importing = fleet.replica().start();
    let imported = importing.run(&["import", "--yes", &path]);
    assert_eq!(imported.code, Some(0), "{}", imported.output);
    fleet.bucket.wait_for_record(&format!("/{ALPINE}/_import"));
    fleet.bucket.wait_for_record(&format!("/{ALPINE}/_tags/1"));
    wait_until("the layers come to the bucket", || {
        image.blobs().all(|blob| fleet.bucket.has(&entrepot_testkit::Bucket::blob(&blob.digest)))
    });
    assert!(second.puller().pull(ALPINE, "1").is_ok(), "{}", second.log().join("\n"));
}

#[test]
fn an_answer_from_the_bucket_has_the_fields_of_a_kept_one() {
    let image = Image::random(1, 300_000);
    let fleet = fleet_with(&image);
    let [first, second] = fleet.start();
    share(&fleet, &first);
    first.wait_until_kept(&image.layers[0].digest);
    let (kept, shared) = (
        right_blob(&first, &fleet, &image.layers[0]),
        right_blob(&second, &fleet, &image.layers[0]),
    );
    let names = |headers: &Headers| {
        let mut names: Vec<_> = headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(names(&shared.headers), names(&kept.headers));
    for name in ["content-type", "docker-content-digest", "etag", "content-length"] {
        assert_eq!(shared.headers.get(name), kept.headers.get(name), "{name}");
    }
}
