//! Old knowledge stays until the new is here, and what only the proxy wanted is no refusal of the
//! client's.

use std::time::{Duration, Instant};

use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{
    Access, Fault, Gate, Hangup, Image, On, Proxy, Registry, Request, Response, User, image,
};

use crate::{ALPINE, BINARY, PRIVATE, in_front_of, one_layer};

fn send(proxy: &Proxy, registry: &Registry, method: &str, path: &str) -> Response {
    let url = format!("https://{}/v2/{ALPINE}/{path}", registry.host());
    proxy.client().send(&Request::new(method, url).header("Accept", image::MANIFEST)).unwrap()
}

/// An image that is kept under its tag, to who takes image manifests.
fn kept() -> (Registry, Proxy, Image) {
    let registry = Registry::open();
    let old = Image::random(1, 10_000);
    registry.push(ALPINE, "1", &old);
    let proxy = in_front_of(&registry);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    assert_eq!(send(&proxy, &registry, "GET", "manifests/1").body, old.manifest.bytes);
    (registry, proxy, old)
}

#[test]
fn a_question_what_a_tag_means_does_not_take_the_kept_image_away() {
    let (mut registry, mut proxy, old) = kept();
    registry.push(ALPINE, "1", &Image::random(1, 10_000));
    let new = registry.tagged(ALPINE, "1");
    let told = send(&proxy, &registry, "HEAD", "manifests/1");
    assert_eq!(told.headers.get("docker-content-digest"), new.as_deref());
    registry.stop();
    for _ in 0..2 {
        for method in ["HEAD", "GET"] {
            let answer = send(&proxy, &registry, method, "manifests/1");
            let digest = answer.headers.get("docker-content-digest");
            assert_eq!(digest, Some(old.manifest.digest.as_str()), "{method}");
        }
        proxy.restart(Signal::TERM);
    }
}

#[test]
fn a_moved_tag_whose_new_image_is_not_to_be_had_is_served_as_it_was() {
    let troubles =
        [Fault::status(429), Fault::status(503), Fault::status(500), Fault::NoAnswer(Hangup::Rst)];
    for trouble in troubles {
        let (registry, proxy, old) = kept();
        let new = Image::random(1, 10_000);
        registry.push(ALPINE, "1", &new);
        registry.fault_always(On::get(&new.manifest.digest), trouble.clone());
        let answer = send(&proxy, &registry, "GET", "manifests/1");
        assert_eq!((answer.status, &answer.body), (200, &old.manifest.bytes), "{trouble:?}");
        let status = answer.headers.get("cache-status");
        assert_eq!(status, Some("entrepot; hit; detail=stale"), "{trouble:?}");
        registry.heal();
    }
}

#[test]
fn a_registry_that_serves_no_manifest_by_digest_is_asked_by_the_tag() {
    let registry = Registry::open();
    let image = Image::random(1, 10_000);
    registry.push(ALPINE, "1", &image);
    registry.fault_always(On::get(&image.manifest.digest), Fault::status(404));
    let proxy = in_front_of(&registry);
    assert_eq!(send(&proxy, &registry, "GET", "manifests/1").body, image.manifest.bytes);
}

#[test]
fn a_tag_that_was_only_asked_about_is_told_of_while_the_registry_is_away() {
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let proxy = in_front_of(&registry);
    let before = send(&proxy, &registry, "HEAD", "manifests/1");
    registry.fault_always(On::path("/v2/"), Fault::status(503));
    let after = send(&proxy, &registry, "HEAD", "manifests/1");
    assert_eq!(after.status, 200);
    for field in ["docker-content-digest", "content-type", "content-length"] {
        assert_eq!(after.headers.get(field), before.headers.get(field), "{field}");
    }
    assert_eq!(after.headers.get("cache-status"), Some("entrepot; hit; detail=stale"));
    assert!(send(&proxy, &registry, "GET", "manifests/1").status >= 500);
}

#[test]
fn a_slow_registry_is_not_waited_for_where_the_image_is_kept() {
    let registry = Registry::open();
    let image = Image::random(12, 1_000);
    registry.push(ALPINE, "1", &image);
    let config = "stale-after = \"500ms\"";
    let mut proxy = Proxy::builder(BINARY).in_front_of(&registry).config(config).start();
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    proxy.restart(Signal::TERM);
    let gate = Gate::new();
    registry.fault_always(On::path("/v2/"), Fault::SlowHead(gate.clone()));
    for _ in 0..3 {
        let began = Instant::now();
        let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
        assert_eq!(pulled.manifests[0].digest, image.manifest.digest);
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
    // Another engine takes the same and more, in another order.
    let url = format!("https://{}/v2/{ALPINE}/manifests/1", registry.host());
    let others = format!("{}, application/x, {}", image::MANIFEST, image::INDEX);
    let began = Instant::now();
    let answer = proxy.client().send(&Request::head(url).header("Accept", others)).unwrap();
    assert_eq!(answer.headers.get("cache-status"), Some("entrepot; hit; detail=stale"));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    gate.open();
    registry.heal();
}

#[test]
fn a_part_that_is_refused_leaves_the_whole_to_be_had() {
    for status in [400, 401, 403, 404, 416, 429, 503] {
        let (registry, mut proxy, blob) = one_layer(3_000_000);
        registry.fault(On::get("/blobs/"), Fault::Cut(1_500_000, Hangup::Rst));
        registry.fault_always(On::get("/blobs/"), Fault::NoAnswer(Hangup::Rst));
        let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
        assert!(proxy.client().get(&url).is_err());
        registry.heal();
        proxy.restart(Signal::TERM);
        let (bytes, digest) = (blob.bytes.clone(), blob.digest.clone());
        let no_parts = Fault::answer_with(move |request| {
            if request.headers.get("range").is_some() {
                return Response::new(status).header("Content-Type", "application/json").body("{}");
            }
            Response::new(200).header("Docker-Content-Digest", &digest).body(bytes.clone())
        });
        registry.fault_always(On::get("/blobs/"), no_parts);
        let answer = proxy.client().get(&url).unwrap();
        assert_eq!((answer.status, &answer.body), (200, &blob.bytes), "{status}");
    }
}

#[test]
fn a_transfer_that_breaks_goes_on_where_parts_are_refused() {
    for status in [400, 403, 416] {
        let (registry, proxy, blob) = one_layer(3_000_000);
        let (bytes, digest) = (blob.bytes.clone(), blob.digest.clone());
        let no_parts = Fault::answer_with(move |request| {
            if request.headers.get("range").is_some() {
                return Response::new(status).header("Content-Type", "application/json").body("{}");
            }
            Response::new(200).header("Docker-Content-Digest", &digest).body(bytes.clone())
        });
        registry.fault(On::get("/blobs/"), Fault::Cut(1_500_000, Hangup::Rst));
        registry.fault_always(On::get("/blobs/"), no_parts);
        let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
        let answer = proxy.client().get(&url).unwrap();
        assert_eq!((answer.status, &answer.body), (200, &blob.bytes), "{status}");
    }
}

#[test]
fn a_login_is_not_closed_out_by_an_outage_nor_let_in() {
    let alice = User::new("alice").pulls(PRIVATE);
    let access = Access::bearer([alice.clone()]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    registry.push(PRIVATE, "1", &Image::random(1, 1000));
    let mut proxy = in_front_of(&registry);
    for pulled in [
        proxy.puller().pull(ALPINE, "1").unwrap(),
        proxy.puller().user(&alice).pull(PRIVATE, "1").unwrap(),
    ] {
        proxy.wait_until_all_kept(&pulled);
    }
    proxy.restart(Signal::TERM);
    registry.fault_always(On::path("/v2/"), Fault::status(503));
    let get = |repository: &str, authorization: &str| {
        let url = format!("https://{}/v2/{repository}/manifests/1", registry.host());
        let request = Request::get(url).header("Authorization", authorization);
        proxy.client().send(&request).unwrap().status
    };
    // As Homebrew sends it.
    assert_eq!(get(ALPINE, "Bearer QQ=="), 200);
    assert_eq!(get(ALPINE, &alice.basic()), 200);
    assert!(get(PRIVATE, "Bearer QQ==") >= 500, "nobody else has it");
}

#[test]
fn a_login_that_was_refused_is_not_let_in_by_an_outage() {
    let access = Access::bearer([]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let proxy = in_front_of(&registry);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    let url = format!("https://{}/v2/{ALPINE}/manifests/1", registry.host());
    let wrong = Request::get(url).header("Authorization", "Bearer wrong");
    assert_eq!(proxy.client().send(&wrong).unwrap().status, 401);
    registry.fault_always(On::path("/v2/"), Fault::status(503));
    assert!(proxy.client().send(&wrong).unwrap().status >= 500);
    proxy.puller().pull(ALPINE, "1").unwrap();
}
