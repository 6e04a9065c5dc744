//! Only the refusal of a pull ends a right to pull, and a refusal is the registry's own.

use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{Fault, Image, On, Proxy, Registry, Request, Response, User};

use crate::{ALPINE, BINARY, PRIVATE, in_front_of};

fn send(proxy: &Proxy, registry: &Registry, method: &str, path: &str) -> Response {
    let url = format!("https://{}/v2/{ALPINE}/{path}", registry.host());
    let accept = entrepot_testkit::image::MANIFEST;
    proxy.client().send(&Request::new(method, url).header("Accept", accept)).unwrap()
}

/// A page of bot protection.
fn barrier(status: u16) -> Fault {
    let page = Response::new(status).header("Content-Type", "text/html").body("<h1>prove it</h1>");
    Fault::Answer(page)
}

/// An image that is kept, with the registry and the proxy.
fn kept() -> (Registry, Proxy, Image) {
    let registry = Registry::open();
    let image = Image::random(2, 20_000);
    registry.push(ALPINE, "1", &image);
    let proxy = in_front_of(&registry);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    registry.forget_requests();
    (registry, proxy, image)
}

#[test]
fn what_is_no_pull_ends_no_right_to_pull() {
    for status in [401, 403] {
        let (mut registry, mut proxy, image) = kept();
        let layer = format!("blobs/{}", image.layers[0].digest);
        let referrers = format!("referrers/{}", image.manifest.digest);
        registry.fault_always(On::path("/tags/list"), Fault::status(status));
        registry.fault_always(On::path("/referrers/"), Fault::status(status));
        registry.fault_always(On::head("/blobs/"), Fault::status(status));
        for (method, path) in
            [("GET", "tags/list"), ("HEAD", "tags/list"), ("GET", &referrers), ("HEAD", &layer)]
        {
            assert_eq!(send(&proxy, &registry, method, path).status, status, "{method} {path}");
        }
        registry.forget_requests();
        let answer = send(&proxy, &registry, "GET", &layer);
        assert_eq!(answer.body, image.layers[0].bytes);
        assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
        registry.stop();
        proxy.puller().pull(ALPINE, "1").unwrap();
        proxy.restart(Signal::TERM);
        proxy.puller().pull(ALPINE, "1").unwrap();
    }
}

#[test]
fn the_refusal_of_a_pull_ends_it() {
    for path in ["manifests/", "blobs/"] {
        let (mut registry, mut proxy, image) = kept();
        let other = Image::random(1, 1000);
        registry.push(ALPINE, "2", &other);
        registry.fault_always(On::path("/manifests/"), Fault::status(403));
        registry.fault_always(On::get("/blobs/"), Fault::status(403));
        let refused = match path {
            "manifests/" => send(&proxy, &registry, "GET", "manifests/2"),
            _ => send(&proxy, &registry, "GET", &format!("blobs/{}", other.layers[0].digest)),
        };
        assert_eq!(refused.status, 403, "{path}");
        registry.stop();
        for _ in 0..2 {
            let layer = format!("blobs/{}", image.layers[0].digest);
            let answer = send(&proxy, &registry, "GET", &layer);
            assert!(answer.status >= 502, "{path}: {}", answer.status);
            proxy.restart(Signal::TERM);
        }
    }
}

#[test]
fn a_client_does_not_bring_about_that_others_are_refused() {
    let (registry, proxy, image) = kept();
    // A registry's firewall does not like something that one client sends.
    let wanted = |request: &entrepot_testkit::Request| {
        let is_odd = request.headers.get("accept") == Some("application/odd");
        Response::new(if is_odd { 403 } else { 200 })
            .header("Content-Type", "application/json")
            .body("{}")
    };
    registry.fault_always(On::path("/manifests/odd"), Fault::answer_with(wanted));
    let url = format!("https://{}/v2/{ALPINE}/manifests/odd", registry.host());
    let odd = Request::get(url).header("Accept", "application/odd");
    assert_eq!(proxy.client().send(&odd).unwrap().status, 403);
    registry.forget_requests();
    let layer = format!("blobs/{}", image.layers[0].digest);
    assert_eq!(send(&proxy, &registry, "GET", &layer).status, 200);
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}

#[test]
fn a_page_of_bot_protection_is_trouble_and_no_refusal() {
    for status in [403, 401] {
        let (registry, mut proxy, image) = kept();
        registry.fault_always(On::path("/v2/"), barrier(status));
        let layer = format!("blobs/{}", image.layers[0].digest);
        for _ in 0..4 {
            let answer = send(&proxy, &registry, "GET", "manifests/1");
            assert_eq!(answer.body, image.manifest.bytes);
            assert_eq!(answer.headers.get("cache-status"), Some("entrepot; hit; detail=stale"));
            assert_eq!(send(&proxy, &registry, "HEAD", "manifests/1").status, 200);
            assert_eq!(send(&proxy, &registry, "GET", &layer).body, image.layers[0].bytes);
            assert_eq!(send(&proxy, &registry, "HEAD", &layer).status, 200);
        }
        proxy.restart(Signal::TERM);
        proxy.puller().pull(ALPINE, "1").unwrap();
        registry.heal();
    }
}

#[test]
fn a_layer_from_elsewhere_is_confirmed_where_heads_of_blobs_are_refused() {
    for status in [401, 403, 405] {
        let (registry, proxy, image) = kept();
        let digest = &image.layers[0].digest;
        registry.push_blob("library/other", &image.layers[0]);
        registry.fault_always(On::head("/blobs/"), Fault::status(status));
        let url = format!("https://{}/v2/library/other/blobs/{digest}", registry.host());
        let answer = proxy.client().get(&url).unwrap();
        assert_eq!(answer.body, image.layers[0].bytes, "{status}");
        let gets = registry.requests().blob_gets();
        let is_part = |range: Option<&str>| range == Some("bytes=0-0");
        assert!(gets.iter().all(|get| is_part(get.headers.get("range"))), "{}", gets.summary());
    }
}

#[test]
fn a_refusal_of_everybody_is_remembered_for_a_moment() {
    let alice = User::new("alice").pulls(PRIVATE);
    let access = entrepot_testkit::Access::bearer([alice.clone()]);
    let registry = Registry::builder().access(access).start();
    registry.push(PRIVATE, "1", &Image::random(1, 1000));
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).start();
    let url = format!("https://{}/v2/{PRIVATE}/manifests/1", registry.host());
    let ask = || proxy.client().get(&url).unwrap();
    let first = ask();
    assert_eq!(first.status, 401);
    registry.forget_requests();
    for _ in 0..5 {
        let again = ask();
        assert_eq!((again.status, again.body.clone()), (401, first.body.clone()));
        assert_eq!(again.headers.get("www-authenticate"), first.headers.get("www-authenticate"));
    }
    assert!(registry.requests().len() <= 2, "{}", registry.requests().summary());
    // Somebody with a login is not everybody.
    proxy.puller().user(&alice).pull(PRIVATE, "1").unwrap();
}
