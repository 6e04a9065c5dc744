//! What is asked of the bucket: little on a miss, nothing on a hit.

use entrepot_testkit::{Bucket, Fault, Fleet, Forwarder, Gate, Image, On, Proxy};

use crate::{ALPINE, fleet_with, metric, right_blob, share};

/// A replica whose requests to the bucket are seen.
fn watched(fleet: &Fleet) -> (Forwarder, Proxy) {
    let forwarder = Forwarder::to(fleet.bucket.server());
    let replica = fleet.replica_by(&forwarder, "20s").start();
    (forwarder, replica)
}

/// Up to where the registry is asked; what is written down behind the answer is another matter.
#[test]
fn a_cold_miss_costs_at_most_one_small_get_an_object() {
    let image = Image::random(3, 50_000);
    let fleet = fleet_with(&image);
    let (forwarder, replica) = watched(&fleet);
    let objects = [("manifests", &image.manifest)];
    for (kind, object) in objects.into_iter().chain(image.blobs().map(|blob| ("blobs", blob))) {
        let gate = Gate::new();
        fleet.registry.fault(On::get(&object.digest), Fault::SlowHead(gate.clone()));
        let url = format!("https://{}/v2/{ALPINE}/{kind}/{}", fleet.registry.host(), object.digest);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| replica.client().get(&url).unwrap());
            gate.wait_until_reached(1);
            let asked = forwarder.seen("GET", object.digest.trim_start_matches("sha256:"));
            gate.open();
            assert_eq!(asking.join().unwrap().body, object.bytes);
            assert!(asked.len() <= 1, "{kind}: {asked:#?}");
        });
    }
    let bytes = forwarder.seen("GET", "/blobs/");
    assert!(bytes.is_empty(), "without a record nobody looks for bytes: {bytes:#?}");
}

#[test]
fn a_hit_from_disk_costs_nothing() {
    let image = Image::random(3, 50_000);
    let fleet = fleet_with(&image);
    let (forwarder, replica) = watched(&fleet);
    let pulled = share(&fleet, &replica);
    replica.wait_until_all_kept(&pulled);
    Bucket::wait_until_uploaded(&replica);
    forwarder.forget();
    for _ in 0..3 {
        for layer in &image.layers {
            right_blob(&replica, &fleet, layer);
        }
        assert!(replica.puller().pull(ALPINE, &image.manifest.digest).is_ok());
    }
    assert!(forwarder.summary().is_empty(), "{:#?}", forwarder.summary());
}

#[test]
fn a_manifest_from_the_bucket_costs_three_gets_at_most() {
    let image = Image::random(1, 50_000);
    let fleet = fleet_with(&image);
    let first = fleet.replica().start();
    share(&fleet, &first);
    fleet.bucket.wait_for_record(&format!("/{ALPINE}/_access"));
    let (forwarder, replica) = watched(&fleet);
    forwarder.forget();
    let url = format!(
        "https://{}/v2/{ALPINE}/manifests/{}",
        fleet.registry.host(),
        image.manifest.digest
    );
    let answer = replica.client().get(&url).unwrap();
    assert_eq!(answer.body, image.manifest.bytes);
    let hex = image.manifest.digest.trim_start_matches("sha256:");
    // Two records and the bytes, and who may pull, which is asked once for all of an image.
    assert!(forwarder.seen("GET", hex).len() <= 3, "{:#?}", forwarder.summary());
    assert!(forwarder.seen("GET", "/_access").len() <= 1, "{:#?}", forwarder.summary());
}

#[test]
fn an_object_costs_few_puts() {
    let image = Image::random(4, 50_000);
    let fleet = fleet_with(&image);
    let (forwarder, replica) = watched(&fleet);
    let pulled = share(&fleet, &replica);
    Bucket::wait_until_uploaded(&replica);
    let objects = pulled.manifests.len() + pulled.blobs.len();
    let puts = forwarder.seen("PUT", "").len() + forwarder.seen("POST", "").len();
    assert!(puts <= 5 * objects, "{:#?}", forwarder.summary());
    assert!(metric(&replica, "entrepot_bucket_sent_bytes_total") >= 200_000.0);
    // Pulling it again tells nobody anything new.
    forwarder.forget();
    for _ in 0..3 {
        replica.puller().pull(ALPINE, "1").unwrap();
    }
    Bucket::wait_until_uploaded(&replica);
    let puts = forwarder.seen("PUT", "");
    assert!(puts.is_empty(), "{:#?}", forwarder.summary());
}

/// Strangers can name what they like.
#[test]
fn names_that_strangers_invent_are_asked_once_and_leave_nothing() {
    let image = Image::random(1, 1000);
    let fleet = fleet_with(&image);
    let (forwarder, replica) = watched(&fleet);
    let absent = format!("https://{}/v2/library/nothing/manifests/1", fleet.registry.host());
    for _ in 0..10 {
        assert_eq!(replica.client().get(&absent).unwrap().status, 404);
    }
    let asked = forwarder.seen("GET", "library/nothing");
    assert!(asked.len() <= 4, "{:#?}", forwarder.summary());
    Bucket::wait_until_uploaded(&replica);
    assert!(fleet.bucket.names("library/nothing").is_empty());
}
