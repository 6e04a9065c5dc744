//! Whose the bucket is: its version, its key, its fleet, and what becomes of it when it is emptied.

use entrepot_testkit::{Bucket, Fleet, Image, Proxy, wait_until};

use crate::{ALPINE, BINARY, fleet_with, metric, right_blob, share};

/// A newer replica in a roll-out has made it something else.
#[test]
fn a_bucket_of_an_unknown_version_is_not_used() {
    let image = Image::random(2, 100_000);
    let fleet = fleet_with(&image);
    let first = fleet.replica().start();
    share(&fleet, &first);
    let version = fleet.bucket.read("VERSION").unwrap();
    assert!(version.starts_with(b"entrepot bucket 1"), "{version:?}");
    fleet.bucket.write("VERSION", "entrepot bucket 9\n");
    let before = fleet.bucket.objects();
    fleet.registry.forget_requests();

    let replica = fleet.replica().start();
    assert!(replica.puller().pull(ALPINE, "1").is_ok());
    assert_eq!(fleet.registry.requests().blob_gets().len(), 3, "as without a bucket");
    replica.wait_for_log(&["error ", "entrepot bucket 9"]);
    assert!(metric(&replica, "entrepot_bucket_up") < 1.0);
    assert_eq!(replica.admin("/readyz").status, 200);
    assert_eq!(fleet.bucket.objects(), before, "nothing of it is touched");
}

#[test]
fn a_wrong_key_costs_nothing_but_the_bucket() {
    let image = Image::random(4, 100_000);
    let fleet = fleet_with(&image);
    let first = fleet.replica().start();
    share(&fleet, &first);
    let replica = fleet.replica().env("AWS_SECRET_ACCESS_KEY", "wrong").start();
    assert!(replica.puller().pull(ALPINE, "1").is_ok());
    replica.wait_for_log(&["error ", "bucket"]);
    let errors = replica.log().iter().filter(|line| line.starts_with("error ")).count();
    assert_eq!(errors, 1, "one line, not one a request: {}", replica.log().join("\n"));
    assert!(metric(&replica, "entrepot_bucket_up") < 1.0);
    assert_eq!(replica.admin("/readyz").status, 200);
    let checked = replica.run(&["check"]);
    assert_ne!(checked.code, Some(0), "{}", checked.output);
    assert!(checked.output.contains("bucket"), "{}", checked.output);
}

#[test]
fn a_check_says_that_the_bucket_serves() {
    let fleet = fleet_with(&Image::random(1, 1000));
    let replica = fleet.replica().start();
    let checked = replica.run(&["check"]);
    assert!(checked.output.contains("bucket"), "{}", checked.output);
    wait_until("it leaves nothing behind", || fleet.bucket.names("check-").is_empty());
}

/// A replica with another CA and key is another fleet's: neither disturbs the other.
#[test]
fn a_replica_with_another_key_does_not_use_the_bucket() {
    let image = Image::random(1, 200_000);
    let fleet = fleet_with(&image);
    let first = fleet.replica().start();
    share(&fleet, &first);
    Bucket::wait_until_uploaded(&first);
    let before = fleet.bucket.objects();
    fleet.registry.forget_requests();
    let alone = Proxy::builder(BINARY).in_front_of(&fleet.registry);
    let stranger = fleet.bucket.behind(alone).start();
    right_blob(&stranger, &fleet, &image.layers[0]);
    assert_eq!(fleet.registry.requests().blob_gets().len(), 1);
    stranger.wait_for_log(&["error ", "bucket.key-file"]);
    assert!(metric(&stranger, "entrepot_bucket_up") < 1.0);
    assert_eq!(fleet.bucket.objects(), before);
    let checked = stranger.run(&["check"]);
    assert_ne!(checked.code, Some(0), "{}", checked.output);
    assert!(checked.output.contains("bucket.key-file"), "{}", checked.output);
}

/// Engines refuse one of the two; what is in the bucket is everybody's who has its key.
#[test]
fn a_replica_with_another_ca_and_the_same_key_is_told_of_it() {
    let image = Image::random(1, 200_000);
    let fleet = fleet_with(&image);
    let first = fleet.replica().start();
    share(&fleet, &first);
    let key = fleet.ca_dir().join("bucket.key").display().to_string();
    let alone = Proxy::builder(BINARY).in_front_of(&fleet.registry);
    let key = format!("key-file = {key:?}");
    let other = fleet.bucket.behind_at(alone, fleet.bucket.server(), &key).start();
    fleet.registry.forget_requests();
    right_blob(&other, &fleet, &image.layers[0]);
    assert!(fleet.registry.requests().blob_gets().is_empty());
    other.wait_for_log(&["warn ", "different CAs"]);
    let checked = other.run(&["check"]);
    assert!(checked.output.contains("CA"), "{}", checked.output);
}

#[test]
fn a_bucket_that_was_emptied_is_filled_again() {
    let image = Image::random(2, 200_000);
    let fleet = fleet_with(&image);
    let [first, second] = fleet.start();
    let pulled = share(&fleet, &first);
    fleet.bucket.empty();
    fleet.registry.forget_requests();
    assert!(second.puller().pull(ALPINE, "1").is_ok(), "misses, and nothing else");
    let synced = first.run(&["bucket", "sync"]);
    assert_eq!(synced.code, Some(0), "{}", synced.output);
    fleet.bucket.wait_until_all_shared(ALPINE, "1", &pulled);
    let third = fleet.replica().start();
    fleet.registry.forget_requests();
    right_blob(&third, &fleet, &image.layers[0]);
    assert!(fleet.registry.requests().blob_gets().is_empty());
}

/// Two fleets may share one bucket, each under a prefix of its own.
#[test]
fn a_fleet_sees_nothing_outside_its_prefix() {
    let image = Image::random(1, 200_000);
    let (fleet, other) = (fleet_with(&image), Fleet::new(BINARY, fleet_with(&image).registry));
    assert_ne!(fleet.bucket.prefix(), other.bucket.prefix());
    other.bucket.write("stays", "as it is");
    let replica = fleet.replica().start();
    share(&fleet, &replica);
    assert_eq!(other.bucket.names(""), ["stays"]);
    assert!(!fleet.bucket.has(&Bucket::blob(&image.layers[0].digest).replace("blobs", "stays")));
}

/// As who logs in to a machine finds them, on which the service's environment has the key.
#[test]
fn commands_need_no_key_of_the_bucket() {
    let image = Image::random(1, 1000);
    let fleet = fleet_with(&image);
    let replica = fleet.replica().start();
    let pulled = share(&fleet, &replica);
    replica.wait_until_all_kept(&pulled);
    for command in [&["ls"][..], &["config", "show"], &["ca", "show"], &["pin", "alpine:1"]] {
        let finished = replica.run_with(command, &[]);
        assert_eq!(finished.code, Some(0), "{command:?}: {}", finished.output);
    }
}
