//! Redirects are followed here, without a credential and not just anywhere.

use entrepot_testkit::{
    Access, Image, Proxy, Puller, Redirects, Registry, Response, Role, Server, TestCa, User,
};

use crate::{ALPINE, BINARY, PRIVATE, in_front_of};

fn redirecting(redirects: Redirects) -> (Registry, Image) {
    let registry = Registry::builder().redirects(redirects).start();
    let image = Image::random(2, 50_000);
    registry.push(ALPINE, "1", &image);
    (registry, image)
}

#[test]
fn no_credential_reaches_the_cdn() {
    let alice = User::new("alice").pulls(PRIVATE);
    let registry = Registry::builder()
        .access(Access::bearer([alice.clone()]))
        .redirects(Redirects::Cdn)
        .start();
    registry.push(PRIVATE, "1", &Image::random(2, 50_000));
    let proxy = in_front_of(&registry);
    let client = proxy.client().trusting(&registry.ca().pem());
    Puller::new(client).user(&alice).pull(PRIVATE, "1").unwrap();
    let at_cdn = registry.requests().to(Role::Cdn);
    assert_eq!(at_cdn.len(), 3, "{}", at_cdn.summary());
    assert!(at_cdn.with_authorization().is_empty());
    let secret = |name: &str| matches!(name.to_lowercase().as_str(), "cookie" | "authorization");
    assert!(at_cdn.iter().all(|request| request.headers.iter().all(|(name, _)| !secret(name))));
}

#[test]
fn a_redirected_blob_is_kept_under_its_digest() {
    let (registry, image) = redirecting(Redirects::Cdn);
    let proxy = in_front_of(&registry);
    proxy.puller().pull(ALPINE, "1").unwrap();
    // What was signed then is worthless by now: nothing may depend on it.
    registry.expire_signatures();
    registry.forget_requests();
    proxy.puller().pull(ALPINE, "1").unwrap();
    assert!(registry.requests().to(Role::Cdn).is_empty());
    image.blobs().for_each(|blob| proxy.wait_until_kept(&blob.digest));
}

#[test]
fn several_redirects_are_followed() {
    let (registry, _) = redirecting(Redirects::Chain(3));
    in_front_of(&registry).puller().pull(ALPINE, "1").unwrap();
}

#[test]
fn a_redirect_is_not_followed_everywhere() {
    let refused = [
        Redirects::Loop,
        Redirects::Chain(20),
        Redirects::To("http://production.cloudflare.docker.com/blobs/x".to_owned()),
        Redirects::To("https://user@production.cloudflare.docker.com/x".to_owned()),
        Redirects::To("https://127.0.0.1/x".to_owned()),
        Redirects::To("https://169.254.169.254/latest/meta-data/".to_owned()),
        Redirects::To("https://[::1]/x".to_owned()),
        Redirects::To("file:///etc/passwd".to_owned()),
        Redirects::To("https://".to_owned()),
    ];
    let (registry, image) = redirecting(Redirects::None);
    let proxy = in_front_of(&registry);
    for redirects in refused {
        registry.set_redirects(redirects.clone());
        let error = proxy.puller().blob(ALPINE, &image.layers[0].digest).unwrap_err();
        let status = error.status();
        assert!(matches!(status, Some(403 | 502)), "{redirects:?}: {error}");
    }
    assert!(!proxy.keeps(&image.layers[0].digest));
}

#[test]
fn a_redirect_into_the_private_network_opens_no_connection() {
    let ca = TestCa::new("somebody inside");
    let inside = Server::https(ca.leaf(&["127.0.0.1"]), |_| Response::new(200));
    let (registry, image) = redirecting(Redirects::To(format!("https://{}/x", inside.address())));
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).trusting(&ca).start();
    assert!(proxy.puller().blob(ALPINE, &image.layers[0].digest).is_err());
    assert_eq!(inside.connections(), 0);
}
