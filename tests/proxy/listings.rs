//! Tags and referrers are listed as the registry lists them, and while it can't.

use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{Access, Fault, Image, On, Proxy, Registry, Request, Response, User};

use crate::{ALPINE, PRIVATE, in_front_of};

fn world() -> (Registry, Proxy, Image) {
    let access = Access::bearer([User::new("alice").pulls(PRIVATE)]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    let image = Image::random(1, 1000);
    for tag in ["1", "2", "3"] {
        registry.push(ALPINE, tag, &image);
    }
    registry.push(PRIVATE, "1", &image);
    registry.push_manifest(ALPINE, &image.referrer("application/x"));
    let proxy = in_front_of(&registry);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    (registry, proxy, image)
}

#[track_caller]
fn get(registry: &Registry, proxy: &Proxy, path: &str) -> Response {
    let url = format!("https://{}/v2/{path}", registry.host());
    proxy.client().send(&Request::get(url)).unwrap()
}

#[test]
fn a_listing_is_asked_for_once_and_is_the_registrys() {
    let (registry, proxy, image) = world();
    let referrers = format!("{ALPINE}/referrers/{}", image.manifest.digest);
    for path in [format!("{ALPINE}/tags/list"), format!("{ALPINE}/tags/list?n=2"), referrers] {
        let first = get(&registry, &proxy, &path);
        let second = get(&registry, &proxy, &path);
        assert_eq!((first.status, &first.body), (200, &second.body), "{path}");
        for name in ["content-type", "link", "oci-filters-applied"] {
            assert_eq!(first.headers.get(name), second.headers.get(name), "{path} {name}");
        }
        assert_eq!(second.headers.get("cache-status"), Some("entrepot; hit"), "{path}");
        assert_eq!(registry.requests().path(&path).len(), 1, "{path}");
    }
}

#[test]
fn listings_are_served_stale_and_after_a_restart() {
    let (registry, mut proxy, image) = world();
    let referrers = format!("{ALPINE}/referrers/{}", image.manifest.digest);
    let tags = format!("{ALPINE}/tags/list");
    let before = [&tags, &referrers].map(|path| get(&registry, &proxy, path).body);
    proxy.restart(Signal::TERM);
    registry.fault_always(On::path("/v2/"), Fault::status(503));
    for (path, before) in [&tags, &referrers].into_iter().zip(before) {
        let stale = get(&registry, &proxy, path);
        assert_eq!((stale.status, &stale.body), (200, &before), "{path}");
        assert_eq!(stale.headers.get("cache-status"), Some("entrepot; hit; detail=stale"));
    }
    assert!(get(&registry, &proxy, &format!("{ALPINE}/tags/list?n=1")).status >= 429);
}

#[test]
fn a_private_listing_is_its_owners() {
    let (registry, proxy, _) = world();
    let alice = User::new("alice").pulls(PRIVATE);
    let path = format!("/v2/{PRIVATE}/tags/list");
    let mut visit = proxy.puller().user(&alice).visit(PRIVATE).unwrap();
    assert_eq!(visit.exchange(&Request::get(&path)).unwrap().status, 200);
    let nobody = get(&registry, &proxy, &format!("{PRIVATE}/tags/list"));
    assert_eq!(nobody.status, 401);
    assert_eq!(nobody.headers.get("cache-status"), None);
}
