//! Who can write to the bucket can take things away, and bring back what once was so; he can't make
//! a replica serve something else.

use entrepot_testkit::{Bucket, Fault, Fleet, Image, On, Proxy};

use crate::{ALPINE, blob, fleet_with, metric, request, right_blob, share};

/// What is made of an object's bytes.
type Change = fn(Vec<u8>) -> Vec<u8>;

const OTHER: &str = "library/other";

/// A fleet whose bucket has an image, and a replica that has seen nothing of it.
fn shared(image: &Image) -> (Fleet, Proxy) {
    let fleet = fleet_with(image);
    let [first, second] = fleet.start();
    share(&fleet, &first);
    fleet.bucket.wait_for_record(&format!("/{ALPINE}/_access"));
    fleet.registry.forget_requests();
    (fleet, second)
}

/// The names of an object's records, of its repository and of its registry.
fn records(fleet: &Fleet, digest: &str) -> Vec<String> {
    let hex = digest.trim_start_matches("sha256:");
    let names = fleet.bucket.names(&format!("_contents/sha256/{hex}"));
    assert_eq!(names.len(), 2, "{names:#?}");
    names
}

fn is_marked_forged(replica: &Proxy) -> bool {
    metric(replica, "entrepot_bucket_forged_total") >= 1.0
        && replica.log().iter().any(|line| line.starts_with("error ") && line.contains("bucket"))
}

#[test]
fn a_forged_record_counts_as_none() {
    let forge: [Change; 6] = [
        // Another code, another record, none, more, nothing, and what is no record at all.
        |mut line| {
            line[0] = if line[0] == b'0' { b'1' } else { b'0' };
            line
        },
        |line| String::from_utf8(line).unwrap().replacen(":1", ":2", 1).into_bytes(),
        |line| line[65..].to_vec(),
        |line| [line.clone(), line].concat(),
        |_| Vec::new(),
        |_| vec![0xff; 100_000],
    ];
    for (number, forge) in forge.into_iter().enumerate() {
        let image = Image::random(1, 100_000);
        let (fleet, replica) = shared(&image);
        let layer = &image.layers[0];
        for name in records(&fleet, &layer.digest) {
            let line = fleet.bucket.read(&name).unwrap().to_vec();
            let forged = forge(line.clone());
            if forged != line {
                fleet.bucket.write(&name, forged);
            }
        }
        right_blob(&replica, &fleet, layer);
        let requests = fleet.registry.requests();
        assert_eq!(requests.blob_gets().len(), 1, "{number}: {}", requests.summary());
        assert!(is_marked_forged(&replica), "{number}: {}", replica.log().join("\n"));
    }
}

#[test]
fn a_record_moved_to_another_repository_counts_as_none() {
    let image = Image::random(1, 100_000);
    let (fleet, replica) = shared(&image);
    fleet.registry.push(OTHER, "1", &Image::random(1, 1000));
    for name in fleet.bucket.names(&format!("/{ALPINE}/")) {
        let record = fleet.bucket.read(&name).unwrap();
        fleet.bucket.write(&name.replace(ALPINE, OTHER), record);
    }
    let layer = &image.layers[0].digest;
    let url = format!("https://{}/v2/{OTHER}/blobs/{layer}", fleet.registry.host());
    assert_eq!(replica.client().get(&url).unwrap().status, 404, "the registry's own answer");
    assert!(is_marked_forged(&replica), "{}", replica.log().join("\n"));
}

/// A tag's record under the name of another tag would be another image.
#[test]
fn a_record_moved_to_another_tag_counts_as_none() {
    let image = Image::random(1, 100_000);
    let (mut fleet, replica) = shared(&image);
    let tags = fleet.bucket.names(&format!("/{ALPINE}/_tags/1"));
    let [name] = tags.as_slice() else { panic!("{tags:?}") };
    let record = fleet.bucket.read(name).unwrap();
    fleet.bucket.write(&format!("{}2", name.trim_end_matches('1')), record);
    fleet.registry.stop();
    assert!(replica.puller().pull(ALPINE, "1").is_ok());
    let other = replica.client().send(&request(&fleet, "GET", "manifests/2")).unwrap();
    assert!(other.status >= 400, "{}", other.text());
}

/// As a bucket may that rots, or whoever can write there.
#[test]
fn rotten_bytes_are_never_completed_and_the_registry_is_asked() {
    let damage: [(&str, Change); 4] = [
        ("another bit", |mut bytes| {
            bytes[150_000] ^= 1;
            bytes
        }),
        ("cut off", |bytes| bytes[..200_000].to_vec()),
        ("longer", |bytes| [bytes.as_slice(), b"more"].concat()),
        ("nothing", |_| Vec::new()),
    ];
    for (what, damage) in damage {
        let image = Image::random(1, 400_000);
        let (fleet, replica) = shared(&image);
        let layer = &image.layers[0];
        let name = Bucket::blob(&layer.digest);
        let bytes = fleet.bucket.read(&name).unwrap().to_vec();
        fleet.bucket.write(&name, damage(bytes));

        let url = format!("https://{}/v2/{ALPINE}/blobs/{}", fleet.registry.host(), layer.digest);
        // It breaks off, or it is right; whole and wrong it must never be.
        if let Ok(answer) = replica.client().get(&url)
            && answer.status == 200
        {
            assert_eq!(answer.body, layer.bytes, "{what}");
        }
        right_blob(&replica, &fleet, layer);
        replica.wait_until_kept(&layer.digest);
        replica.assert_store_is_sound();
        let gets = fleet.registry.requests().blob_gets().len();
        assert_eq!(gets, 1, "{what}: {}", fleet.registry.requests().summary());
        assert!(metric(&replica, "entrepot_bucket_damaged_total") >= 1.0, "{what}");
        let log = replica.log();
        let hex = &layer.digest["sha256:".len()..][..12];
        assert!(
            log.iter().any(|line| line.starts_with("warn ") && line.contains(hex)),
            "{what}: {log:#?}"
        );
        // The replica that has the right bytes now puts them where the wrong ones were, or they are
        // gone: they are never had again.
        entrepot_testkit::wait_until("the wrong bytes go", || {
            fleet.bucket.read(&name).is_none_or(|bytes| bytes == layer.bytes)
        });
    }
}

#[test]
fn a_rotten_manifest_is_asked_of_the_registry() {
    let image = Image::random(1, 50_000);
    let (fleet, replica) = shared(&image);
    let other = Image::random(1, 50_000);
    let name = Bucket::blob(&image.manifest.digest);
    fleet.bucket.write(&name, other.manifest.bytes.clone());
    let pulled = replica.puller().pull(ALPINE, "1").unwrap();
    assert_eq!(pulled.manifests[0].digest, image.manifest.digest);
    assert_eq!(fleet.registry.requests().manifest_gets().len(), 1);
    assert!(metric(&replica, "entrepot_bucket_damaged_total") >= 1.0);
}

/// A blob that is gone, with its record there: a miss, for ever so many.
#[test]
fn a_record_without_its_bytes_is_a_miss() {
    let image = Image::random(2, 100_000);
    let (fleet, replica) = shared(&image);
    for object in image.blobs().chain([&image.manifest]) {
        fleet.bucket.remove(&Bucket::blob(&object.digest));
    }
    assert!(replica.puller().pull(ALPINE, "1").is_ok());
    let requests = fleet.registry.requests();
    assert_eq!(requests.blob_gets().len(), 3, "{}", requests.summary());
    assert_eq!(requests.manifest_gets().len(), 1);
    assert!(metric(&replica, "entrepot_bucket_damaged_total") < 1.0, "it is not damaged");
}

/// An old answer of the registry, brought back, opens nothing that was closed since.
#[test]
fn an_old_record_brought_back_does_not_open_what_was_closed() {
    let image = Image::random(1, 100_000);
    let (mut fleet, replica) = shared(&image);
    let names = fleet.bucket.names(&format!("/{ALPINE}/_access"));
    let old: Vec<_> = names.iter().map(|name| (name, fleet.bucket.read(name).unwrap())).collect();
    fleet.registry.fault_always(On::path(ALPINE), Fault::status(401));
    let head = replica.client().send(&request(&fleet, "HEAD", "manifests/1")).unwrap();
    assert_eq!(head.status, 401);
    fleet.bucket.wait_for_record(&format!("/{ALPINE}/_refused"));
    for (name, record) in old {
        fleet.bucket.write(name, record);
    }
    fleet.registry.stop();
    let late = fleet.replica().start();
    assert!(blob(&late, &fleet, &image.layers[0].digest).status >= 400);
}
