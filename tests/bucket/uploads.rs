//! What a replica has fetched comes to the bucket, whatever happens meanwhile.

use std::time::Duration;

use entrepot_testkit::proxy::Signal;
use entrepot_testkit::pull::Pulled;
use entrepot_testkit::{
    Bucket, Fleet, Forwarder, Gate, Image, On, Proxy, Registry, Trouble, wait_until,
};

use crate::{ALPINE, BINARY, blob, fleet_with, metric, right_blob, share};

/// So much that it goes up in parts of 8 MiB.
const LARGE: usize = 20 << 20;

fn watched(fleet: &Fleet) -> (Forwarder, Proxy) {
    let forwarder = Forwarder::to(fleet.bucket.server());
    let replica = fleet.replica_by(&forwarder, "5s").start();
    (forwarder, replica)
}

#[test]
fn a_large_object_goes_up_in_parts_and_is_whole() {
    let image = Image::random(1, LARGE);
    let fleet = fleet_with(&image);
    let (forwarder, replica) = watched(&fleet);
    share(&fleet, &replica);
    let name = Bucket::blob(&image.layers[0].digest);
    assert_eq!(fleet.bucket.read(&name), Some(image.layers[0].bytes.clone()));
    assert_eq!(forwarder.seen("PUT", "partNumber=").len(), 3, "{:#?}", forwarder.summary());
    assert!(fleet.bucket.unfinished_uploads().is_empty());
    // A server that ignores conditions says yes to them: none is ever set.
    let second = fleet.replica().start();
    right_blob(&second, &fleet, &image.layers[0]);
}

/// Steps of an upload, as requests at which it is stopped.
fn steps() -> [(&'static str, On, usize); 7] {
    [
        ("before the first byte", On::method("POST", "uploads"), 0),
        ("in the first part", On::method("PUT", "partNumber=1"), 1_000_000),
        ("in the last part", On::method("PUT", "partNumber=3"), 1_000_000),
        ("before it is whole", On::method("POST", "uploadId="), 0),
        ("in a small object", On::method("PUT", "/blobs/sha256/"), 0),
        ("between bytes and record", On::method("PUT", "/_contents/sha256/"), 0),
        ("before the tag's record", On::method("PUT", "/_tags/"), 0),
    ]
}

#[test]
fn whatever_step_a_kill_meets_the_round_goes_on() {
    for (step, on, after) in steps() {
        let image = Image::random(1, LARGE);
        let fleet = fleet_with(&image);
        let (forwarder, mut replica) = watched(&fleet);
        let gate = Gate::new();
        forwarder.times(1, on, Trouble::StallRequest(after, gate.clone()));
        let pulled = replica.puller().pull(ALPINE, "1").unwrap();
        replica.wait_until_all_kept(&pulled);
        gate.wait_until_reached(1);
        replica.signal(Signal::KILL);
        replica.wait_exit();
        forwarder.hang_up();
        gate.open();
        assert_no_record_without_its_bytes(&fleet, step);

        replica.start_again();
        sync(&replica);
        fleet.bucket.wait_until_all_shared(ALPINE, "1", &pulled);
        let name = Bucket::blob(&image.layers[0].digest);
        assert_eq!(fleet.bucket.read(&name), Some(image.layers[0].bytes.clone()), "{step}");
    }
}

/// What a server has that lost nothing.
#[track_caller]
fn assert_no_record_without_its_bytes(fleet: &Fleet, step: &str) {
    let names = fleet.bucket.names("");
    for record in names.iter().filter(|name| name.contains("/_contents/")) {
        let (_, hex) = record.rsplit_once('/').unwrap();
        let blob = Bucket::blob(&format!("sha256:{hex}"));
        assert!(names.contains(&blob), "{step}: {record} without {blob}");
    }
}

#[track_caller]
fn sync(replica: &Proxy) {
    let synced = replica.run(&["bucket", "sync"]);
    assert_eq!(synced.code, Some(0), "{}\n{}", synced.output, replica.log().join("\n"));
}

#[test]
fn nothing_that_is_pending_is_forgotten() {
    let image = Image::random(3, 200_000);
    let fleet = fleet_with(&image);
    let (forwarder, mut replica) = watched(&fleet);
    forwarder.refuse();
    let pulled = replica.puller().pull(ALPINE, "1").unwrap();
    replica.wait_until_all_kept(&pulled);
    wait_until("they wait", || metric(&replica, "entrepot_bucket_pending_objects") >= 1.0);
    replica.restart(Signal::TERM);
    forwarder.heal();
    sync(&replica);
    fleet.bucket.wait_until_all_shared(ALPINE, "1", &pulled);
    Bucket::wait_until_uploaded(&replica);
}

/// Nobody has to do anything where there was no restart.
#[test]
fn an_upload_that_fails_is_tried_again() {
    for status in [403, 500, 503, 507] {
        let image = Image::random(2, 200_000);
        let fleet = fleet_with(&image);
        let (forwarder, replica) = watched(&fleet);
        forwarder.times(6, On::method("PUT", "/"), Trouble::Status(status));
        let pulled = replica.puller().pull(ALPINE, "1").unwrap();
        forwarder.wait_until_seen("PUT", "/", 1);
        // A refusal is left alone for a minute.
        if status == 403 {
            replica.wait_for_log(&["error ", "bucket"]);
            continue;
        }
        fleet.bucket.wait_until_all_shared(ALPINE, "1", &pulled);
    }
}

#[test]
fn an_upload_that_broke_is_aborted() {
    let troubles = [
        ("an error", On::method("PUT", "partNumber=2"), Trouble::Status(500)),
        ("a cut", On::method("PUT", "partNumber=2"), Trouble::CutRequest(1_000_000)),
        ("a lost answer", On::method("PUT", "partNumber=1"), Trouble::LoseAnswer),
        ("at the end", On::method("POST", "uploadId="), Trouble::Status(500)),
    ];
    for (what, on, trouble) in troubles {
        let image = Image::random(1, LARGE);
        let fleet = fleet_with(&image);
        let (forwarder, replica) = watched(&fleet);
        forwarder.always(on, trouble);
        let pulled = replica.puller().pull(ALPINE, "1").unwrap();
        forwarder.wait_until_seen("DELETE", "uploadId=", 1);
        wait_until(&format!("{what}: it is given up"), || {
            fleet.bucket.unfinished_uploads().is_empty()
        });
        forwarder.heal();
        fleet.bucket.wait_until_all_shared(ALPINE, "1", &pulled);
        wait_until(&format!("{what}: nothing is left"), || {
            fleet.bucket.unfinished_uploads().is_empty()
        });
    }
}

/// It had come there all the same: it is the same object.
#[test]
fn an_answer_that_is_lost_is_no_harm() {
    let image = Image::random(2, 200_000);
    let fleet = fleet_with(&image);
    let (forwarder, replica) = watched(&fleet);
    forwarder.times(4, On::method("PUT", "/"), Trouble::LoseAnswer);
    share(&fleet, &replica);
    let second = fleet.replica().start();
    right_blob(&second, &fleet, &image.layers[0]);
}

/// A quota that is full: pulls notice nothing, and what waits is seen to.
#[test]
fn a_full_bucket_is_seen_and_not_felt() {
    let image = Image::random(3, 200_000);
    let fleet = fleet_with(&image);
    let (forwarder, replica) = watched(&fleet);
    forwarder.always(On::method("PUT", "/"), Trouble::Status(507));
    forwarder.always(On::method("POST", "/"), Trouble::Status(507));
    let pulled = replica.puller().pull(ALPINE, "1").unwrap();
    replica.wait_until_all_kept(&pulled);
    wait_until("they wait", || metric(&replica, "entrepot_bucket_pending_objects") >= 4.0);
    wait_until("how long is told", || {
        metric(&replica, "entrepot_bucket_oldest_pending_seconds") > 0.0
    });
    assert!(metric(&replica, "entrepot_bucket_pending_bytes") >= 600_000.0);
    assert!(replica.puller().pull(ALPINE, "1").is_ok());
    assert_eq!(replica.admin("/readyz").status, 200);
}

/// The answer does not wait for its upload.
#[test]
fn a_slow_upload_holds_nobody_up() {
    let image = Image::random(1, 2_000_000);
    let fleet = fleet_with(&image);
    let (forwarder, replica) = watched(&fleet);
    let gate = Gate::new();
    forwarder.always(On::method("PUT", "/"), Trouble::StallRequest(0, gate.clone()));
    let pulled = replica.puller().pull(ALPINE, "1").unwrap();
    replica.wait_until_all_kept(&pulled);
    assert!(replica.puller().pull(ALPINE, "1").is_ok());
    assert!(fleet.bucket.names("/blobs/").is_empty());
    gate.open();
    forwarder.heal();
    forwarder.hang_up();
    fleet.bucket.wait_until_all_shared(ALPINE, "1", &pulled);
}

/// What a replica was asked to end with waits no longer than a shutdown may.
#[test]
fn a_shutdown_does_not_wait_for_a_silent_bucket() {
    let image = Image::random(1, LARGE);
    let fleet = fleet_with(&image);
    let (forwarder, replica) = watched(&fleet);
    wait_until("it has found its bucket", || metric(&replica, "entrepot_bucket_up") >= 1.0);
    forwarder.always(On::path("/"), Trouble::Silence);
    let pulled = replica.puller().pull(ALPINE, "1").unwrap();
    replica.wait_until_all_kept(&pulled);
    let began = std::time::Instant::now();
    replica.signal(Signal::TERM);
    assert!(replica.wait_exit().success());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

/// Several replicas that fetch the same upload the same.
#[test]
fn two_who_upload_the_same_disturb_nobody() {
    let image = Image::random(2, LARGE);
    let registry = Registry::open();
    registry.push(ALPINE, "1", &image);
    let fleet = Fleet::new(BINARY, registry);
    let replicas: [Proxy; 3] = fleet.start();
    let pulled: Vec<Pulled> = std::thread::scope(|scope| {
        let pulls: Vec<_> = replicas
            .iter()
            .map(|replica| scope.spawn(|| replica.puller().pull(ALPINE, "1").unwrap()))
            .collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    fleet.bucket.wait_until_all_shared(ALPINE, "1", &pulled[0]);
    replicas.iter().for_each(Bucket::wait_until_uploaded);
    for layer in &image.layers {
        assert_eq!(fleet.bucket.read(&Bucket::blob(&layer.digest)), Some(layer.bytes.clone()));
    }
    assert!(fleet.bucket.unfinished_uploads().is_empty());
}

/// An object that goes from the disk before its turn is none that waits for ever.
#[test]
fn what_is_gone_from_the_disk_is_not_waited_for() {
    let image = Image::random(1, 200_000);
    let fleet = fleet_with(&image);
    let (forwarder, replica) = watched(&fleet);
    forwarder.refuse();
    let pulled = replica.puller().pull(ALPINE, "1").unwrap();
    replica.wait_until_all_kept(&pulled);
    let removed = replica.run(&["rm", "alpine:1"]);
    assert_eq!(removed.code, Some(0), "{}", removed.output);
    forwarder.heal();
    Bucket::wait_until_uploaded(&replica);
    assert_eq!(blob(&replica, &fleet, &image.layers[0].digest).status, 200);
}
