//! Pulls go on when the registry doesn't.

use std::time::Instant;

use entrepot_testkit::proxy::Signal;
use entrepot_testkit::pull::Pulled;
use entrepot_testkit::{
    Access, Fault, Hangup, Image, Index, On, Proxy, Puller, Registry, Request, User, wait_until,
};

use crate::{ALPINE, BINARY, PRIVATE, in_front_of};

fn public() -> (Registry, Index) {
    let access = Access::bearer([User::new("alice").pulls(PRIVATE)]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    let index = Index::random(&["amd64", "arm64"], 3, 20_000);
    registry.push_index(ALPINE, "latest", &index);
    (registry, index)
}

#[track_caller]
fn pull_whole(proxy: &Proxy) -> Pulled {
    let pulled = proxy.puller().pull(ALPINE, "latest").unwrap();
    proxy.wait_until_all_kept(&pulled);
    pulled
}

#[track_caller]
fn assert_pulls_from_the_store(proxy: &Proxy) {
    let pulled = proxy.puller().pull(ALPINE, "latest").unwrap();
    for blob in &pulled.blobs {
        assert!(blob.cache_status().starts_with("entrepot; hit"), "{}", blob.cache_status());
    }
}

fn tag(registry: &Registry) -> Request {
    Request::get(format!("https://{}/v2/{ALPINE}/manifests/latest", registry.host()))
        .header("Accept", entrepot_testkit::image::INDEX)
}

#[test]
fn a_whole_pull_goes_on_without_the_registry_and_after_a_restart() {
    let (mut registry, _) = public();
    let mut proxy = in_front_of(&registry);
    pull_whole(&proxy);
    registry.stop();
    assert_pulls_from_the_store(&proxy);
    proxy.wait_for_log(&["STALE", "library/alpine manifest latest", "Connection refused"]);
    proxy.restart(Signal::TERM);
    assert_pulls_from_the_store(&proxy);
    let began = Instant::now();
    for _ in 0..20 {
        assert_pulls_from_the_store(&proxy);
    }
    let took = began.elapsed();
    assert!(took.as_secs() < 10, "twenty pulls without a registry took {took:?}");
}

#[test]
fn what_is_not_kept_is_refused_at_once_and_says_since_when() {
    let (mut registry, index) = public();
    let proxy = in_front_of(&registry);
    let blob = &index.images[1].layers[0].digest;
    pull_whole(&proxy);
    registry.stop();
    let url = format!("https://{}/v2/{ALPINE}/blobs/{blob}", registry.host());
    let first = proxy.client().send(&Request::get(&url)).unwrap();
    assert_eq!(first.status, 502, "{}", first.text());
    let second = proxy.client().send(&Request::get(&url)).unwrap();
    assert_eq!(second.status, 503, "{}", second.text());
    let message = second.json()["errors"][0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("Connection refused"), "{message}");
    assert!(!message.contains(" for 0 s"), "{message}");
    wait_until("it is told for how long", || {
        let told = proxy.client().send(&Request::get(&url)).unwrap().oci_error();
        told.contains(" (unreachable for ") || !told.contains("Connection refused")
    });
}

#[test]
fn every_kind_of_trouble_is_bridged_and_marked() {
    let troubles = [
        Fault::status(500),
        Fault::status(503),
        Fault::status(429),
        Fault::NoAnswer(Hangup::Rst),
        Fault::NoAnswer(Hangup::Fin),
    ];
    for trouble in troubles {
        let (registry, index) = public();
        let proxy = in_front_of(&registry);
        pull_whole(&proxy);
        registry.fault_always(On::path("/v2/"), trouble.clone());
        for _ in 0..5 {
            let answer = proxy.client().send(&tag(&registry)).unwrap();
            assert_eq!(answer.status, 200, "{trouble:?}: {}", answer.text());
            assert_eq!(answer.body, index.manifest.bytes, "{trouble:?}");
            let status = answer.headers.get("cache-status");
            assert_eq!(status, Some("entrepot; hit; detail=stale"), "{trouble:?}");
            assert!(answer.headers.get("age").is_some(), "{trouble:?}");
        }
        registry.heal();
    }
}

#[test]
fn a_storm_of_429_is_answered_from_the_store_and_hardly_reaches_the_registry() {
    let (registry, _) = public();
    let proxy = in_front_of(&registry);
    pull_whole(&proxy);
    registry.fault_always(On::path("/v2/"), Fault::status(429));
    registry.forget_requests();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    assert_pulls_from_the_store(&proxy);
                }
            });
        }
    });
    let allowed = 2 + usize::try_from(began.elapsed().as_secs()).unwrap();
    let requests = registry.requests();
    assert!(requests.len() <= allowed, "{} in {:?}", requests.len(), began.elapsed());
}

#[test]
fn retry_after_is_passed_on_and_kept_to() {
    let (registry, index) = public();
    let proxy = in_front_of(&registry);
    let answer = entrepot_testkit::Response::new(429).header("Retry-After", "120");
    registry.fault_always(On::path("/blobs/"), Fault::Answer(answer));
    let digest = &index.images[0].layers[0].digest;
    let url = format!("https://{}/v2/{ALPINE}/blobs/{digest}", registry.host());
    assert_eq!(proxy.client().send(&Request::get(&url)).unwrap().status, 429);
    registry.forget_requests();
    let held_back = proxy.client().send(&Request::get(&url)).unwrap();
    assert_eq!(held_back.status, 429);
    let wait: u64 = held_back.headers.get("retry-after").unwrap().parse().unwrap();
    assert!((60..=120).contains(&wait), "{wait}");
    assert!(held_back.text().contains("TOOMANYREQUESTS"));
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}

#[test]
fn trouble_opens_nothing_to_those_who_were_never_let_in() {
    let alice = User::new("alice").pulls(PRIVATE);
    let access = Access::bearer([alice.clone()]).anonymous("library/*");
    let mut registry = Registry::builder().access(access).start();
    let image = Image::random(1, 20_000);
    registry.push(PRIVATE, "1", &image);
    let proxy = in_front_of(&registry);
    let owner = Puller::new(proxy.client()).user(&alice);
    let pulled = owner.pull(PRIVATE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    registry.stop();
    proxy.puller().pull(PRIVATE, "1").unwrap_err();
    for path in [
        format!("/v2/{PRIVATE}/blobs/{}", image.layers[0].digest),
        format!("/v2/{PRIVATE}/manifests/{}", image.manifest.digest),
        format!("/v2/{PRIVATE}/manifests/1"),
    ] {
        for authorization in [None, Some("Bearer made-up")] {
            let mut request = Request::get(format!("https://{}{path}", registry.host()));
            if let Some(authorization) = authorization {
                request = request.header("Authorization", authorization);
            }
            let answer = proxy.client().send(&request).unwrap();
            assert!(answer.status >= 500, "{path} {authorization:?}: {}", answer.status);
            assert!(!answer.text().contains("hit"), "{path}");
        }
    }
}

#[test]
fn a_registry_that_is_back_is_found_again() {
    let (registry, _) = public();
    let proxy = in_front_of(&registry);
    pull_whole(&proxy);
    registry.fault_always(On::path("/v2/"), Fault::status(429));
    proxy.client().send(&tag(&registry)).unwrap();
    registry.heal();
    let newer = Index::random(&["amd64"], 1, 1000);
    registry.push_index(ALPINE, "latest", &newer);
    let deadline = Instant::now() + entrepot_testkit::PATIENCE;
    while proxy.client().send(&tag(&registry)).unwrap().body != newer.manifest.bytes {
        assert!(Instant::now() < deadline, "the registry is not asked any more");
        // Only asking again tells.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn offline_on_purpose_never_contacts_anybody() {
    let (registry, _) = public();
    let builder = Proxy::builder(BINARY).in_front_of(&registry);
    let proxy = builder.clone().start();
    pull_whole(&proxy);
    let cache = proxy.data_dir();
    proxy.signal(Signal::TERM);
    proxy.wait_exit();
    registry.forget_requests();
    let config = format!("offline = true\ncache-dir = \"{}\"", cache.join("cache").display());
    let offline = builder.config(&config).start();
    assert_pulls_from_the_store(&offline);
    let url = format!("https://{}/v2/{ALPINE}/manifests/other", registry.host());
    let absent = offline.client().send(&Request::get(url)).unwrap();
    assert_eq!(absent.status, 503);
    assert!(absent.text().contains("offline = true"), "{}", absent.text());
    let (tunnel, _) = offline.client().connect("example.com:443").unwrap();
    assert_eq!(tunnel.status, 503);
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}
