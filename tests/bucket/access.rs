//! The bucket opens nothing that the registry would not: its bytes go to whom the records allow
//! them, and those only the fleet can write.

use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{
    Access, Bucket, Fault, Fleet, Image, On, Proxy, Registry, Request, Response, User, image,
};

use crate::{ALPINE, BINARY, PRIVATE, blob, fleet_with, share};

fn send(proxy: &Proxy, fleet: &Fleet, method: &str, path: &str) -> Response {
    let url = format!("https://{}/v2/{path}", fleet.registry.host());
    proxy.client().send(&Request::new(method, url).header("Accept", image::MANIFEST)).unwrap()
}

#[test]
fn without_a_record_the_buckets_bytes_are_nobodys() {
    let image = Image::random(1, 300_000);
    let fleet = fleet_with(&image);
    let replica = fleet.replica().start();
    let secret = Image::random(1, 300_000);
    for object in secret.blobs().chain(image.blobs()).chain([&secret.manifest]) {
        fleet.bucket.write(&Bucket::blob(&object.digest), object.bytes.clone());
    }
    // What the registry does not have at all.
    for object in secret.blobs() {
        assert_eq!(blob(&replica, &fleet, &object.digest).status, 404);
    }
    let manifest =
        send(&replica, &fleet, "GET", &format!("{ALPINE}/manifests/{}", secret.manifest.digest));
    assert_eq!(manifest.status, 404);
    // What it has it is asked for.
    let layer = &image.layers[0];
    assert_eq!(blob(&replica, &fleet, &layer.digest).body, layer.bytes);
    assert_eq!(fleet.registry.requests().blob_gets().path(&layer.digest).len(), 1);
}

/// The record of one repository, in fact: what another has is for the registry to say.
#[test]
fn what_belongs_to_one_repository_is_not_served_by_way_of_another() {
    let alice = User::new("alice").pulls(PRIVATE);
    let access = Access::bearer([alice.clone()]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    let image = Image::random(1, 300_000);
    registry.push(PRIVATE, "1", &image);
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let mut fleet = Fleet::new(BINARY, registry);
    let [first, second] = fleet.start();
    let pulled = first.puller().user(&alice).pull(PRIVATE, "1").unwrap();
    fleet.bucket.wait_until_all_shared(PRIVATE, "1", &pulled);
    second.puller().pull(ALPINE, "1").unwrap();
    for layer in image.blobs() {
        assert_eq!(blob(&second, &fleet, &layer.digest).status, 404, "it is not there");
    }
    let refused = second.puller().pull(PRIVATE, "1").unwrap_err();
    assert!(refused.status().is_some_and(|status| status >= 400), "{refused}");
    fleet.registry.forget_requests();
    let again = second.puller().user(&alice).pull(PRIVATE, "1").unwrap();
    assert_eq!(again.blobs.len(), 2);
    let requests = fleet.registry.requests();
    assert!(requests.blob_gets().is_empty(), "{}", requests.summary());

    fleet.registry.stop();
    for replica in [&first, &second] {
        let path = format!("{PRIVATE}/blobs/{}", image.layers[0].digest);
        let nobodys = send(replica, &fleet, "GET", &path);
        assert!(nobodys.status >= 400, "{}", nobodys.status);
    }
}

#[test]
fn a_refusal_met_by_one_replica_closes_the_image_on_all_while_the_registry_is_away() {
    let image = Image::random(1, 300_000);
    let mut fleet = fleet_with(&image);
    let [first, second, third] = fleet.start();
    share(&fleet, &first);
    fleet.bucket.wait_for_record(&format!("/{ALPINE}/_access"));
    // This one has opened it as well, from the bucket.
    second.puller().pull(ALPINE, "1").unwrap();

    fleet.registry.fault_always(On::path(ALPINE), Fault::status(401));
    let refused = send(&first, &fleet, "HEAD", &format!("{ALPINE}/manifests/1"));
    assert_eq!(refused.status, 401);
    fleet.bucket.wait_for_record(&format!("/{ALPINE}/_refused"));
    fleet.registry.stop();

    let late = fleet.replica().start();
    for (name, replica) in [("first", &first), ("third", &third), ("late", &late)] {
        for path in [
            format!("{ALPINE}/manifests/1"),
            format!("{ALPINE}/manifests/{}", image.manifest.digest),
            format!("{ALPINE}/blobs/{}", image.layers[0].digest),
            format!("{ALPINE}/blobs/{}", image.config.digest),
        ] {
            for method in ["GET", "HEAD"] {
                let answer = send(replica, &fleet, method, &path);
                assert!(answer.status >= 400, "{name} {method} {path}: {}", answer.status);
            }
        }
    }
}

/// A client's own refusal is nothing that others are told of.
#[test]
fn a_stranger_s_refusal_closes_nothing() {
    let alice = User::new("alice").pulls(PRIVATE);
    let access = Access::bearer([alice.clone(), User::new("bob")]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    let image = Image::random(1, 100_000);
    registry.push(ALPINE, "1", &image);
    registry.push(PRIVATE, "1", &image);
    let mut fleet = Fleet::new(BINARY, registry);
    let [first, second] = fleet.start();
    share(&fleet, &first);
    fleet.bucket.wait_for_record(&format!("/{ALPINE}/_access"));
    for _ in 0..3 {
        assert!(first.puller().user(&User::new("bob")).pull(PRIVATE, "1").is_err());
        assert!(first.puller().pull(PRIVATE, "1").is_err());
        assert!(first.puller().pull("somebody/elses", "1").is_err());
    }
    fleet.registry.stop();
    assert!(second.puller().pull(ALPINE, "1").is_ok(), "{}", second.log().join("\n"));
    let refusals = fleet.bucket.names("/_refused");
    assert!(refusals.is_empty(), "who invents names fills no bucket: {refusals:?}");
}

#[test]
fn what_a_clients_own_credential_fetched_stays_where_it_is_told_to() {
    let alice = User::new("alice").pulls(PRIVATE);
    let access = Access::bearer([alice.clone()]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    let (public, private) = (Image::random(1, 200_000), Image::random(2, 200_000));
    registry.push(ALPINE, "1", &public);
    registry.push(PRIVATE, "1", &private);
    let fleet = Fleet::new(BINARY, registry);
    let keeping = "private = \"keep-local\"";
    let replica = fleet.replica_with(fleet.bucket.server(), keeping).start();
    let pulled = replica.puller().user(&alice).pull(PRIVATE, "1").unwrap();
    replica.wait_until_all_kept(&pulled);
    share(&fleet, &replica);
    Bucket::wait_until_uploaded(&replica);
    // Nor by the round.
    let synced = replica.run(&["bucket", "sync"]);
    assert_eq!(synced.code, Some(0), "{}", synced.output);
    let names = fleet.bucket.names("");
    for object in private.blobs().chain([&private.manifest]) {
        let hex = object.digest.trim_start_matches("sha256:");
        assert!(!names.iter().any(|name| name.contains(hex)), "{names:#?}");
    }
    assert!(!names.iter().any(|name| name.contains(PRIVATE)), "{names:#?}");
}

/// A restart makes nothing of it: what is closed lies in the bucket.
#[test]
fn a_refusal_outlives_the_replica_that_met_it() {
    let image = Image::random(1, 100_000);
    let mut fleet = fleet_with(&image);
    let [mut first, second] = fleet.start();
    share(&fleet, &first);
    fleet.bucket.wait_for_record(&format!("/{ALPINE}/_access"));
    fleet.registry.fault_always(On::path(ALPINE), Fault::status(403));
    assert_eq!(send(&first, &fleet, "HEAD", &format!("{ALPINE}/manifests/1")).status, 403);
    fleet.bucket.wait_for_record(&format!("/{ALPINE}/_refused"));
    fleet.registry.stop();
    first.restart(Signal::TERM);
    for replica in [&first, &second] {
        let path = format!("{ALPINE}/blobs/{}", image.layers[0].digest);
        assert!(send(replica, &fleet, "GET", &path).status >= 400);
    }
}
