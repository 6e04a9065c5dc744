//! What an operator does with a fleet: removing and pinning on one replica for all, seeing how the
//! bucket is, looking after it.

use entrepot_testkit::{Bucket, Forwarder, Image, Proxy, wait_until};
use serde_json::Value;

use crate::{ALPINE, blob, fleet_with, metric, share};

#[track_caller]
fn done(replica: &Proxy, arguments: &[&str]) -> String {
    let run = replica.run(arguments);
    assert_eq!(run.code, Some(0), "{arguments:?}: {}\n{}", run.output, replica.log().join("\n"));
    run.output
}

#[track_caller]
fn json(replica: &Proxy, arguments: &[&str]) -> Value {
    let output = done(replica, arguments);
    let line = output.lines().find(|line| line.starts_with('{'));
    serde_json::from_str(line.unwrap_or_else(|| panic!("no JSON in {output}"))).unwrap()
}

fn lists(replica: &Proxy, name: &str) -> bool {
    replica.run(&["ls", "-q"]).output.lines().any(|line| line.trim() == name)
}

fn is_pinned(replica: &Proxy) -> bool {
    let image = replica.admin(&format!("/api/v1/images/docker.io/{ALPINE}:1")).text();
    serde_json::from_str::<Value>(&image).unwrap()["is_pinned"] == true
}

#[test]
fn what_is_removed_on_one_replica_goes_from_the_bucket_and_from_the_others() {
    let image = Image::random(2, 200_000);
    let fleet = fleet_with(&image);
    let [first, second] = fleet.start();
    share(&fleet, &first);
    fleet.bucket.wait_for_record(&format!("/{ALPINE}/_tags/1"));
    let pulled = second.puller().pull(ALPINE, "1").unwrap();
    second.wait_until_all_kept(&pulled);
    Bucket::wait_until_uploaded(&first);
    Bucket::wait_until_uploaded(&second);
    let said = done(&first, &["rm", "alpine:1"]);
    assert!(said.contains("(here, in the bucket; other replicas within a minute)"), "{said}");
    for part in ["blobs/", &format!("{ALPINE}/_tags/"), &format!("{ALPINE}/_contents/")] {
        assert_eq!(fleet.bucket.names(part), Vec::<String>::new(), "{part}");
    }
    assert_eq!(fleet.bucket.names("notes/").len(), 1);
    assert!(lists(&second, "docker.io/library/alpine:1"));
    // Which reads the notes first; otherwise it takes up to a minute.
    done(&second, &["bucket", "sync"]);
    assert!(!lists(&second, "docker.io/library/alpine:1"), "{}", second.log().join("\n"));
    second.wait_for_log(&["as on another replica"]);
    assert_eq!(fleet.bucket.names("blobs/"), Vec::<String>::new(), "it has brought nothing back");
    let before = fleet.registry.requests().len();
    share(&fleet, &second);
    assert!(fleet.registry.requests().len() > before, "it is a miss");
    // What has come after the removal stays.
    done(&first, &["bucket", "sync"]);
    done(&second, &["bucket", "sync"]);
    assert!(lists(&second, "docker.io/library/alpine:1"));
    let layer = &image.layers[0].digest;
    assert!(fleet.bucket.has(&Bucket::blob(layer)));
    assert_eq!(blob(&first, &fleet, layer).status, 200);
}

#[test]
fn an_image_that_only_the_bucket_has_is_removed_by_its_tag() {
    let image = Image::random(1, 200_000);
    let fleet = fleet_with(&image);
    let [first, other] = fleet.start();
    share(&fleet, &first);
    fleet.bucket.wait_for_record(&format!("/{ALPINE}/_tags/1"));
    Bucket::wait_until_uploaded(&first);
    let said = done(&other, &["rm", "alpine:1"]);
    assert!(said.contains("0 objects") && said.contains("in the bucket"), "{said}");
    assert_eq!(fleet.bucket.names(&format!("{ALPINE}/_tags/")), Vec::<String>::new());
    done(&first, &["bucket", "sync"]);
    assert!(!lists(&first, "docker.io/library/alpine:1"));
    assert_eq!(fleet.bucket.names("blobs/"), Vec::<String>::new());
    assert_eq!(other.run(&["rm", "alpine:1"]).code, Some(1), "there is none any more");
}

#[test]
fn a_pin_on_one_replica_holds_on_all_until_one_takes_it_away() {
    let image = Image::random(1, 200_000);
    let fleet = fleet_with(&image);
    let [first, second] = fleet.start();
    share(&fleet, &first);
    let pulled = second.puller().pull(ALPINE, "1").unwrap();
    second.wait_until_all_kept(&pulled);
    let said = done(&first, &["pin", "alpine:1"]);
    assert!(said.contains("in the bucket"), "{said}");
    assert_eq!(fleet.bucket.names("pins/").len(), 1);
    done(&second, &["bucket", "sync"]);
    assert!(is_pinned(&second));
    // Who comes later has the pins of all.
    let third = fleet.replica().start();
    let synced = json(&third, &["bucket", "sync", "--json"]);
    assert_eq!(synced["pins"], 1, "{synced}");
    let refused = second.run(&["rm", "alpine:1"]);
    assert!(refused.code == Some(1) && refused.output.contains("pinned"), "{}", refused.output);

    done(&second, &["unpin", "alpine:1"]);
    assert_eq!(fleet.bucket.names("pins/"), Vec::<String>::new());
    for replica in [&first, &third, &second] {
        done(replica, &["bucket", "sync"]);
    }
    assert!(!is_pinned(&first));
    assert_eq!(fleet.bucket.names("pins/"), Vec::<String>::new(), "nobody brings it back");
}

#[test]
fn a_change_that_does_not_reach_the_bucket_says_so_and_comes_later() {
    let image = Image::random(1, 200_000);
    let fleet = fleet_with(&image);
    let forwarder = Forwarder::to(fleet.bucket.server());
    let replica = fleet.replica_by(&forwarder, "2s").start();
    share(&fleet, &replica);
    Bucket::wait_until_uploaded(&replica);
    forwarder.refuse();
    let said = done(&replica, &["rm", "alpine:1"]);
    assert!(said.contains("(here alone: ") && said.contains("it is tried again"), "{said}");
    forwarder.heal();
    wait_until("the records go", || fleet.bucket.names("_tags/").is_empty());
    Bucket::wait_until_uploaded(&replica);
    wait_until("the note comes", || {
        replica.run(&["bucket", "sync"]).code == Some(0) && !fleet.bucket.names("notes/").is_empty()
    });
}

#[test]
fn a_bucket_is_shown_wherever_one_looks_and_its_trouble_is_told() {
    let image = Image::random(2, 200_000);
    let fleet = fleet_with(&image);
    let forwarder = Forwarder::to(fleet.bucket.server());
    let replica = fleet.replica_by(&forwarder, "2s").start();
    share(&fleet, &replica);
    Bucket::wait_until_uploaded(&replica);
    let shown = done(&replica, &["bucket"]);
    assert!(shown.contains("reachable") && shown.contains("not looked at yet"), "{shown}");
    let synced = done(&replica, &["bucket", "sync"]);
    assert!(synced.contains("uploaded 0 objects"), "{synced}");
    let told = json(&replica, &["bucket", "--json"]);
    assert_eq!(told["reachable"], true);
    assert_eq!(told["pending"]["objects"], 0);
    let objects = fleet.bucket.names("blobs/").len() as u64;
    assert_eq!(told["objects"].as_u64(), Some(objects), "{told}");
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let objects = objects as f64;
    assert!((metric(&replica, "entrepot_bucket_objects") - objects).abs() < 0.5);
    assert!(metric(&replica, "entrepot_bucket_round_timestamp_seconds") > 0.0);
    let status = done(&replica, &["status"]);
    assert!(status.contains("Bucket") && status.contains("0 pending, reachable"), "{status}");

    forwarder.refuse();
    let failed = replica.run(&["bucket", "sync"]);
    assert_eq!(failed.code, Some(1), "{}", failed.output);
    assert!(failed.output.contains("the bucket"), "{}", failed.output);
    let status = replica.run(&["status"]);
    assert_eq!(status.code, Some(1), "{}", status.output);
    assert!(status.output.contains("the bucket is of no use since"), "{}", status.output);
    let ready = replica.admin("/readyz");
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("degraded"), "{}", ready.text());
    forwarder.heal();
    wait_until("the bucket is back", || replica.run(&["bucket", "sync"]).code == Some(0));
    done(&replica, &["status"]);
}

#[test]
fn above_its_size_the_bucket_is_brought_down_and_stays_there() {
    let image = Image::random(5, 200_000);
    let fleet = fleet_with(&image);
    let bounded = "max-size = \"500kB\"";
    let replica = fleet.replica_with(fleet.bucket.server(), bounded).start();
    share(&fleet, &replica);
    Bucket::wait_until_uploaded(&replica);
    let synced = json(&replica, &["bucket", "sync", "--json"]);
    assert!(synced["removed_objects"].as_u64() >= Some(3), "{synced}");
    assert!(synced["bytes"].as_u64() <= Some(475_000), "{synced}");
    let again = json(&replica, &["bucket", "sync", "--json"]);
    assert_eq!(again["removed_objects"], 0, "{again}");
    assert!(again["bytes"].as_u64() <= Some(500_000), "{again}");
    for layer in &image.layers {
        assert_eq!(blob(&replica, &fleet, &layer.digest).status, 200);
    }
}

#[test]
fn without_a_bucket_there_is_none_to_be_shown() {
    let image = Image::random(1, 1_000);
    let fleet = fleet_with(&image);
    let replica = fleet.without_bucket().start();
    for arguments in [&["bucket"][..], &["bucket", "sync"]] {
        let run = replica.run(arguments);
        assert_eq!(run.code, Some(1), "{}", run.output);
        assert!(run.output.contains("no bucket is configured"), "{}", run.output);
    }
    replica.puller().pull(ALPINE, "1").unwrap();
    let said = done(&replica, &["rm", "alpine:1"]);
    assert!(!said.contains("bucket"), "{said}");
}
