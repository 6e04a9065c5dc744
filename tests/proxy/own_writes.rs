//! What a pusher asks is the registry's to answer, and who writes through the proxy reads his own
//! writes.

use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{Fault, Image, On, Proxy, Registry, Request, Response, image};

use crate::{ALPINE, BINARY, in_front_of};

fn send(proxy: &Proxy, registry: &Registry, method: &str, path: &str) -> Response {
    let url = format!("https://{}/v2/{ALPINE}/{path}", registry.host());
    proxy.client().send(&Request::new(method, url).header("Accept", image::MANIFEST)).unwrap()
}

fn put(proxy: &Proxy, registry: &Registry, reference: &str, manifest: &image::Blob) {
    let url = format!("https://{}/v2/{ALPINE}/manifests/{reference}", registry.host());
    let put = Request::new("PUT", url)
        .header("Content-Type", image::MANIFEST)
        .body(manifest.bytes.clone());
    assert_eq!(proxy.client().send(&put).unwrap().status, 201);
}

fn digest(answer: &Response) -> &str {
    answer.headers.get("docker-content-digest").unwrap_or_default()
}

/// Within `tag-ttl` for everything that is asked.
fn fresh() -> (Registry, Proxy, Image) {
    let registry = Registry::open();
    let old = Image::random(1, 10_000);
    registry.push(ALPINE, "1", &old);
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config("tag-ttl = \"1h\"").start();
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    for method in ["GET", "HEAD"] {
        assert_eq!(send(&proxy, &registry, method, "manifests/1").status, 200);
    }
    (registry, proxy, old)
}

#[test]
fn a_blob_that_the_registry_has_lost_is_pushed_again() {
    let registry = Registry::open();
    let image = Image::random(2, 20_000);
    registry.push(ALPINE, "1", &image);
    let mut proxy = in_front_of(&registry);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    let layer = format!("blobs/{}", image.layers[0].digest);
    assert_eq!(send(&proxy, &registry, "HEAD", &layer).status, 200);
    registry.remove_blob(ALPINE, &image.layers[0].digest);
    for _ in 0..2 {
        assert_eq!(send(&proxy, &registry, "HEAD", &layer).status, 404);
        // It does not belong there any more for those who pull either.
        assert_eq!(send(&proxy, &registry, "GET", &layer).status, 404);
        proxy.restart(Signal::TERM);
    }
    registry.push_blob(ALPINE, &image.layers[0]);
    assert_eq!(send(&proxy, &registry, "HEAD", &layer).status, 200);
    assert_eq!(send(&proxy, &registry, "GET", &layer).body, image.layers[0].bytes);
}

#[test]
fn the_store_speaks_for_a_blob_while_the_registry_can_not() {
    let troubles = [Fault::status(503), Fault::status(429), Fault::status(500)];
    for trouble in troubles {
        let (registry, proxy, image) = fresh();
        registry.fault_always(On::path("/v2/"), trouble);
        let layer = format!("blobs/{}", image.layers[0].digest);
        let answer = send(&proxy, &registry, "HEAD", &layer);
        assert_eq!((answer.status, digest(&answer)), (200, image.layers[0].digest.as_str()));
        let unknown = format!("blobs/{}", Image::random(1, 10).layers[0].digest);
        assert!(send(&proxy, &registry, "HEAD", &unknown).status >= 429);
    }
}

#[test]
fn a_tag_that_was_pushed_means_what_was_pushed() {
    let (mut registry, mut proxy, old) = fresh();
    let new = Image::random(1, 10_000);
    for blob in new.blobs() {
        registry.push_blob(ALPINE, blob);
    }
    // Known in another form as well.
    let url = format!("https://{}/v2/{ALPINE}/manifests/1", registry.host());
    let otherwise = Request::get(&url).header("Accept", "*/*");
    assert_eq!(digest(&proxy.client().send(&otherwise).unwrap()), old.manifest.digest);
    put(&proxy, &registry, "1", &new.manifest);
    for method in ["HEAD", "GET"] {
        let answer = send(&proxy, &registry, method, "manifests/1");
        assert_eq!(digest(&answer), new.manifest.digest, "{method}");
    }
    assert_eq!(digest(&proxy.client().send(&otherwise).unwrap()), new.manifest.digest);
    proxy.restart(Signal::TERM);
    assert_eq!(digest(&send(&proxy, &registry, "GET", "manifests/1")), new.manifest.digest);
    registry.stop();
    assert_eq!(digest(&send(&proxy, &registry, "GET", "manifests/1")), new.manifest.digest);
}

#[test]
fn a_push_whose_end_is_not_known_is_asked_about() {
    let (registry, proxy, _) = fresh();
    let new = Image::random(1, 10_000);
    registry.push(ALPINE, "1", &new);
    registry.fault(On::path("/manifests/1"), Fault::status(504));
    let url = format!("https://{}/v2/{ALPINE}/manifests/1", registry.host());
    let put = Request::new("PUT", url).header("Content-Type", image::MANIFEST).body("{}");
    assert_eq!(proxy.client().send(&put).unwrap().status, 504);
    let now = registry.tagged(ALPINE, "1").unwrap();
    assert_ne!(now, new.manifest.digest, "the registry has taken it all the same");
    assert_eq!(digest(&send(&proxy, &registry, "HEAD", "manifests/1")), now);
}

#[test]
fn listings_have_what_was_pushed() {
    let (registry, proxy, old) = fresh();
    let listing = |path: &str| send(&proxy, &registry, "GET", path).json();
    let referrers = format!("referrers/{}", old.manifest.digest);
    let tags = ["tags/list", "tags/list?n=100"];
    for path in tags {
        assert_eq!(listing(path)["tags"].as_array().unwrap().len(), 1);
    }
    assert!(listing(&referrers)["manifests"].as_array().unwrap().is_empty());
    let signature = old.referrer("application/vnd.example.signature");
    put(&proxy, &registry, &signature.digest, &signature);
    assert_eq!(listing(&referrers)["manifests"][0]["digest"], signature.digest);
    put(&proxy, &registry, "2", &Image::random(1, 1000).manifest);
    for path in tags {
        assert_eq!(listing(path)["tags"].as_array().unwrap().len(), 2, "{path}");
    }
    assert_eq!(send(&proxy, &registry, "DELETE", "manifests/2").status, 202);
    for path in tags {
        assert_eq!(listing(path)["tags"].as_array().unwrap().len(), 1, "{path}");
    }
}

#[test]
fn what_was_deleted_is_gone() {
    for by_tag in [false, true] {
        let (mut registry, mut proxy, image) = fresh();
        let by_digest = format!("manifests/{}", image.manifest.digest);
        let target = if by_tag { "manifests/1" } else { by_digest.as_str() };
        assert_eq!(send(&proxy, &registry, "DELETE", target).status, 202);
        let gone: &[&str] = if by_tag { &["manifests/1"] } else { &["manifests/1", &by_digest] };
        for path in gone {
            for method in ["HEAD", "GET"] {
                let answer = send(&proxy, &registry, method, path);
                assert_eq!(answer.status, 404, "{method} {path} after DELETE {target}");
            }
        }
        registry.stop();
        for _ in 0..2 {
            for path in gone {
                assert!(send(&proxy, &registry, "GET", path).status >= 502, "{path}");
            }
            proxy.restart(Signal::TERM);
        }
    }
}

#[test]
fn a_blob_that_was_deleted_is_gone() {
    let (registry, proxy, image) = fresh();
    let layer = format!("blobs/{}", image.layers[0].digest);
    assert_eq!(send(&proxy, &registry, "DELETE", &layer).status, 202);
    assert_eq!(send(&proxy, &registry, "GET", &layer).status, 404);
}

#[test]
fn a_refused_write_changes_nothing() {
    let (registry, proxy, image) = fresh();
    registry.fault_always(On::path("/manifests/1"), Fault::status(403));
    assert_eq!(send(&proxy, &registry, "DELETE", "manifests/1").status, 403);
    registry.forget_requests();
    assert_eq!(send(&proxy, &registry, "GET", "manifests/1").body, image.manifest.bytes);
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}
