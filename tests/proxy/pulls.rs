//! Images come through whole, the second time without the registry's bytes.

use entrepot_testkit::pull::Pulled;
use entrepot_testkit::{Fault, Gate, Image, Index, On, Registry, Request};

use crate::bad_disk::FailingCalls;
use crate::{ALPINE, in_front_of, one_layer};

fn cache_statuses(pulled: &Pulled) -> Vec<&str> {
    pulled.blobs.iter().map(entrepot_testkit::pull::Fetched::cache_status).collect()
}

#[test]
fn the_second_pull_costs_one_head() {
    let registry = Registry::open();
    let image = Image::random(3, 200_000);
    registry.push(ALPINE, "3.20", &image);
    let proxy = in_front_of(&registry);

    let first = proxy.puller().pull(ALPINE, "3.20").unwrap();
    for status in cache_statuses(&first) {
        assert_eq!(status, "entrepot; fwd=miss; stored");
    }
    let requests = registry.requests();
    assert_eq!(requests.blob_gets().len(), 4, "{}", requests.summary());
    assert_eq!(requests.manifest_gets().len(), 1, "{}", requests.summary());
    registry.forget_requests();

    proxy.wait_until_all_kept(&first);
    let second = proxy.puller().pull(ALPINE, "3.20").unwrap();
    for fetched in &second.blobs {
        assert_eq!(fetched.cache_status(), "entrepot; hit");
        assert!(fetched.response.headers.get("age").is_some(), "a hit has an age");
    }
    let requests = registry.requests();
    assert_eq!(requests.blob_gets().len(), 0, "{}", requests.summary());
    // What the tag means now is all there is to ask.
    assert_eq!(requests.manifest_heads().len(), 1, "{}", requests.summary());
    assert_eq!(requests.len(), 1, "{}", requests.summary());
}

#[test]
fn the_log_tells_a_miss_from_a_hit() {
    let registry = Registry::open();
    registry.push(ALPINE, "3.20", &Image::random(1, 1000));
    let proxy = in_front_of(&registry);
    let pulled = proxy.puller().pull(ALPINE, "3.20").unwrap();
    let digest = &pulled.blobs[1].digest[..15];
    proxy.wait_for_log(&["MISS", "GET docker.io library/alpine blob", digest]);
    proxy.wait_until_all_kept(&pulled);
    proxy.puller().pull(ALPINE, "3.20").unwrap();
    proxy.wait_for_log(&["HIT ", "GET docker.io library/alpine blob", digest]);
}

#[test]
fn every_architecture_of_an_index_comes_through() {
    let registry = Registry::open();
    let index = Index::random(&["amd64", "arm64"], 2, 10_000);
    registry.push_index(ALPINE, "latest", &index);
    let proxy = in_front_of(&registry);
    for (architecture, image) in ["amd64", "arm64"].iter().zip(&index.images) {
        let pulled = proxy.puller().architecture(architecture).pull(ALPINE, "latest").unwrap();
        assert_eq!(pulled.manifests[0].digest, index.manifest.digest);
        assert_eq!(pulled.manifests[1].digest, image.manifest.digest);
        proxy.wait_until_all_kept(&pulled);
    }
    let again = proxy.puller().architecture("arm64").pull(ALPINE, "latest").unwrap();
    assert_eq!(cache_statuses(&again), ["entrepot; hit"; 3]);
}

#[test]
fn a_tag_that_moved_is_seen_at_once() {
    let registry = Registry::open();
    registry.push(ALPINE, "latest", &Image::random(1, 1000));
    let proxy = in_front_of(&registry);
    proxy.puller().pull(ALPINE, "latest").unwrap();
    let newer = Image::random(1, 1000);
    registry.push(ALPINE, "latest", &newer);
    let pulled = proxy.puller().pull(ALPINE, "latest").unwrap();
    assert_eq!(pulled.manifests[0].digest, newer.manifest.digest);
}

#[test]
fn a_tag_that_is_gone_is_not_found() {
    let registry = Registry::open();
    registry.push(ALPINE, "old", &Image::random(1, 1000));
    let proxy = in_front_of(&registry);
    proxy.puller().pull(ALPINE, "old").unwrap();
    registry.untag(ALPINE, "old");
    assert_eq!(proxy.puller().pull(ALPINE, "old").unwrap_err().status(), Some(404));
}

#[test]
fn clients_that_ask_together_share_one_download() {
    const CLIENTS: usize = 20;
    let registry = Registry::open();
    let image = Image::random(1, 500_000);
    registry.push(ALPINE, "3.20", &image);
    let proxy = in_front_of(&registry);
    std::thread::scope(|scope| {
        let pulls: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| proxy.puller().pull(ALPINE, "3.20"))).collect();
        for pull in pulls {
            pull.join().unwrap().unwrap();
        }
    });
    let requests = registry.requests();
    assert_eq!(requests.blob_gets().len(), 2, "{}", requests.summary());
}

#[test]
fn who_asks_for_a_blob_elsewhere_holds_nobody_up_for_long() {
    let (registry, proxy, blob) = one_layer(100_000);
    let gate = Gate::new();
    let elsewhere = format!("/v2/library/elsewhere/blobs/{}", blob.digest);
    registry.fault(On::get("library/elsewhere"), Fault::SlowHead(gate.clone()));
    let mut asking = proxy.client().open(registry.host()).unwrap();
    asking.write(&Request::get(elsewhere).header("Host", registry.host()).to_wire()).unwrap();
    gate.wait_until_reached(1);
    let got = proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    assert_eq!(got.response.body, blob.bytes);
    gate.open();
}

#[test]
fn who_comes_while_a_record_is_written_is_served_without_waiting_for_it() {
    let (registry, proxy, layer) = one_layer(100_000);
    let slow = FailingCalls::new(&proxy, &["fsync:delay_enter=1000000"]);
    let pull = || proxy.puller().blob(ALPINE, &layer.digest).unwrap();
    assert_eq!(pull().response.body, layer.bytes);
    assert!(!proxy.keeps(&layer.digest), "its record, and then its file, are still to be synced");
    let second = pull();
    assert_eq!(second.cache_status(), "entrepot; fwd=miss; collapsed");
    assert_eq!(second.response.body, layer.bytes);
    assert!(!proxy.keeps(&layer.digest), "nobody waits for that");
    drop(slow);
    proxy.wait_until_kept(&layer.digest);
    assert_eq!(pull().cache_status(), "entrepot; hit");
    assert_eq!(registry.requests().blob_gets().len(), 1);
}

#[test]
fn a_thousand_clients_of_a_cold_blob_cost_one_download() {
    const CLIENTS: usize = 1000;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let (registry, proxy, layer) = crate::one_layer(200_000);
    let gate = Gate::new();
    registry.fault(On::get(&layer.digest), Fault::Stall(100_000, gate.clone()));
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), layer.digest);
    let all_ask = std::sync::Barrier::new(CLIENTS + 1);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut connection = proxy.client().open(registry.host()).unwrap();
                let mut download = connection.start(&Request::get(&url)).unwrap();
                let first = download.read_exactly(1000).unwrap();
                all_ask.wait();
                assert!([first, download.finish().unwrap()].concat() == layer.bytes);
            });
        }
        // Everybody has the first bytes while the last are not here yet.
        all_ask.wait();
        gate.open();
    });
    let requests = registry.requests();
    assert_eq!(requests.path(&layer.digest).len(), 1, "{}", requests.summary());
}

#[test]
fn a_restart_keeps_what_was_pulled() {
    let registry = Registry::open();
    registry.push(ALPINE, "3.20", &Image::random(2, 1000));
    let mut proxy = in_front_of(&registry);
    proxy.puller().pull(ALPINE, "3.20").unwrap();
    proxy.restart(entrepot_testkit::proxy::Signal::TERM);
    registry.forget_requests();
    let again = proxy.puller().pull(ALPINE, "3.20").unwrap();
    assert_eq!(cache_statuses(&again), ["entrepot; hit"; 3]);
    assert!(registry.requests().blob_gets().is_empty());
}

#[test]
fn a_part_of_a_kept_blob_is_that_part() {
    let registry = Registry::open();
    let image = Image::random(1, 10_000);
    registry.push(ALPINE, "3.20", &image);
    let proxy = in_front_of(&registry);
    proxy.puller().pull(ALPINE, "3.20").unwrap();
    let layer = &image.layers[0];
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), layer.digest);
    let cases = [
        ("bytes=0-0", 206, 0..1),
        ("bytes=100-199", 206, 100..200),
        ("bytes=9990-", 206, 9990..10_000),
        ("bytes=-10", 206, 9990..10_000),
        ("bytes=0-99999", 206, 0..10_000),
    ];
    for (range, status, expected) in cases {
        let request = Request::get(&url).header("Range", range);
        let response = proxy.client().send(&request).unwrap();
        assert_eq!(response.status, status, "{range}");
        assert_eq!(response.body, layer.bytes.slice(expected), "{range}");
    }
    let beyond = Request::get(&url).header("Range", "bytes=10000-");
    assert_eq!(proxy.client().send(&beyond).unwrap().status, 416);
}

#[test]
fn a_manifest_that_is_fetched_as_a_blob_stays_a_manifest() {
    let registry = Registry::open();
    let image = Image::random(1, 1000);
    registry.push(ALPINE, "1", &image);
    registry.push_blob(ALPINE, &image.manifest);
    let proxy = in_front_of(&registry);
    proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.puller().blob(ALPINE, &image.manifest.digest).unwrap();
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    let content_type = pulled.manifests[0].response.headers.get("content-type");
    assert_eq!(content_type, Some(entrepot_testkit::image::MANIFEST));
}

#[test]
fn a_blob_that_came_first_does_not_spoil_the_manifest() {
    let registry = Registry::open();
    let image = Image::random(1, 1000);
    registry.push(ALPINE, "1", &image);
    registry.push_blob(ALPINE, &image.manifest);
    let proxy = in_front_of(&registry);
    proxy.puller().blob(ALPINE, &image.manifest.digest).unwrap();
    proxy.wait_until_kept(&image.manifest.digest);
    for _ in 0..2 {
        let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
        let content_type = pulled.manifests[0].response.headers.get("content-type");
        assert_eq!(content_type, Some(entrepot_testkit::image::MANIFEST));
    }
}
