//! What is on record of images that have long been gone is forgotten.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use entrepot_testkit::{Image, Registry};

use crate::images::stop;
use crate::{ALPINE, in_front_of};

/// All files below `dir` were last written a while ago; how many they are.
fn age(dir: &Path, by: Duration) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += age(&path, by);
        } else {
            let file = fs::File::open(&path).unwrap();
            file.set_modified(SystemTime::now() - by).unwrap();
            files += 1;
        }
    }
    files
}

#[test]
fn records_go_a_week_after_their_objects_and_come_again_with_them() {
    let registry = Registry::open();
    let [lost, kept] = [Image::random(2, 10_000), Image::random(1, 10_000)];
    registry.push(ALPINE, "lost", &lost);
    registry.push(ALPINE, "kept", &kept);
    let mut proxy = in_front_of(&registry);
    let pull = |proxy: &entrepot_testkit::Proxy, tag: &str| {
        let pulled = proxy.puller().pull(ALPINE, tag).unwrap();
        proxy.wait_until_all_kept(&pulled);
    };
    pull(&proxy, "lost");
    pull(&proxy, "kept");
    stop(&proxy);
    for blob in lost.blobs().chain([&lost.manifest]) {
        proxy.lose(&blob.digest);
    }
    // It would not know that they have gone.
    fs::remove_dir_all(proxy.data_dir().join("cache/index")).unwrap();
    let records = proxy.data_dir().join("cache/repositories");
    let all = age(&records, Duration::from_hours(8 * 24));
    proxy.start_again();
    // Four objects, on record in the repository and for the registry, and a tag.
    let told = proxy.wait_for_log(&["records of what has long been gone are forgotten"]);
    assert!(told.contains("records=9"), "{told}");
    assert_eq!(age(&records, Duration::ZERO), all - 9);

    pull(&proxy, "lost");
    stop(&proxy);
    proxy.start_again();
    registry.forget_requests();
    for tag in ["lost", "kept"] {
        proxy.puller().pull(ALPINE, tag).unwrap();
    }
    let requests = registry.requests();
    assert_eq!(
        requests.blob_gets().len() + requests.manifest_gets().len(),
        0,
        "{}",
        requests.summary()
    );
}
