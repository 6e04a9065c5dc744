//! The registry is away, and the bucket, or both.

use std::time::{SystemTime, UNIX_EPOCH};

use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{Bucket, Forwarder, Image, image, wait_until};

use crate::{ALPINE, fleet_with, metric, request, right_blob, share};

#[test]
fn a_replica_starts_and_serves_without_its_bucket() {
    let image = Image::random(2, 200_000);
    let fleet = fleet_with(&image);
    let forwarder = Forwarder::to(fleet.bucket.server());
    forwarder.refuse();
    let replica = fleet.replica_by(&forwarder, "1s").start();
    assert_eq!(replica.admin("/readyz").status, 200);
    let pulled = replica.puller().pull(ALPINE, "1").unwrap();
    replica.wait_for_log(&["warn  ", "bucket"]);
    assert!(metric(&replica, "entrepot_bucket_up") < 1.0);
    assert!(metric(&replica, "entrepot_bucket_pending_objects") >= 1.0, "they wait");

    // It comes back, and has what was pulled meanwhile.
    forwarder.heal();
    fleet.bucket.wait_until_all_shared(ALPINE, "1", &pulled);
    wait_until("it is up again", || metric(&replica, "entrepot_bucket_up") >= 1.0);
}

#[test]
fn each_replica_has_its_disk_when_registry_and_bucket_are_away() {
    let image = Image::random(2, 200_000);
    let mut fleet = fleet_with(&image);
    let forwarder = Forwarder::to(fleet.bucket.server());
    let replica = fleet.replica_by(&forwarder, "1s").start();
    let pulled = share(&fleet, &replica);
    replica.wait_until_all_kept(&pulled);
    fleet.registry.stop();
    forwarder.refuse();
    assert!(replica.puller().pull(ALPINE, "1").is_ok(), "{}", replica.log().join("\n"));
    let absent = Image::random(1, 10).layers.remove(0);
    let answer = crate::blob(&replica, &fleet, &absent.digest);
    assert!(answer.status >= 500 || answer.status == 404, "{}", answer.status);
}

fn engines_accept() -> String {
    format!("{}, {}", image::MANIFEST, image::INDEX)
}

/// Of what two replicas know of a tag the younger counts.
#[test]
fn the_younger_meaning_of_a_tag_counts_while_the_registry_is_away() {
    let old = Image::random(1, 100_000);
    let mut fleet = fleet_with(&old);
    let [first, second] = fleet.start();
    share(&fleet, &first);
    let had = second.puller().pull(ALPINE, "1").unwrap();
    second.wait_until_all_kept(&had);
    // Nobody writes while another does: of two at the same moment one may be lost.
    for replica in [&first, &second] {
        Bucket::wait_until_uploaded(replica);
    }
    // Records have whole seconds.
    let second_of = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let asked = second_of();
    wait_until("a second is over", || second_of() > asked);
    let new = Image::random(1, 100_000);
    fleet.registry.push(ALPINE, "1", &new);
    let name = fleet.bucket.names(&format!("/{ALPINE}/_tags/1")).remove(0);
    let before = fleet.bucket.read(&name);
    let pulled = first.puller().pull(ALPINE, "1").unwrap();
    fleet.bucket.wait_until_all_shared(ALPINE, "1", &pulled);
    Bucket::wait_until_uploaded(&first);
    assert_ne!(fleet.bucket.read(&name), before, "{}", first.log().join("\n"));
    fleet.registry.stop();
    let third = fleet.replica().start();
    for (which, replica) in [("second", &second), ("third", &third)] {
        let asked = request(&fleet, "GET", "manifests/1").header("Accept", engines_accept());
        // What the bucket has said is believed for a second.
        wait_until(&format!("{which} has the younger one"), || {
            let answer = replica.client().send(&asked).unwrap();
            let status: Vec<_> = answer.headers.all("cache-status").collect();
            assert!(status.join(", ").contains("stale"), "{which}: {status:?}");
            answer.headers.get("docker-content-digest") == Some(&*new.manifest.digest)
        });
    }
}

#[test]
fn what_a_killed_replica_has_uploaded_is_had_from_the_others() {
    let image = Image::random(2, 300_000);
    let mut fleet = fleet_with(&image);
    let [first, second] = fleet.start();
    share(&fleet, &first);
    first.signal(Signal::KILL);
    first.wait_exit();
    fleet.registry.stop();
    assert!(second.puller().pull(ALPINE, "1").is_ok(), "{}", second.log().join("\n"));
}

/// `offline` is about registries: the bucket of an air-gapped fleet is asked.
#[test]
fn an_offline_replica_has_the_bucket() {
    let image = Image::random(1, 300_000);
    let fleet = fleet_with(&image);
    let first = fleet.replica().start();
    share(&fleet, &first);
    fleet.bucket.wait_for_record(&format!("/{ALPINE}/_access"));
    let offline = fleet.replica().config("offline = true").start();
    fleet.registry.forget_requests();
    assert!(offline.puller().pull(ALPINE, "1").is_ok(), "{}", offline.log().join("\n"));
    right_blob(&offline, &fleet, &image.layers[0]);
    assert!(fleet.registry.requests().is_empty());
}
