//! No credential, token or signed URL is ever written down.

use entrepot_testkit::canary::{CANARY, assert_no_canary};
use entrepot_testkit::{
    Access, Fault, Image, On, Proxy, Puller, Redirects, Registry, Request, User,
};

use crate::{BINARY, PRIVATE};

#[test]
fn secrets_stay_out_of_logs_and_files_at_every_level() {
    let alice = User::new("alice").pushes(PRIVATE);
    let bob = User::new("bob");
    let registry = Registry::builder()
        .access(Access::bearer([alice.clone(), bob.clone()]))
        .redirects(Redirects::Chain(2))
        .start();
    let image = Image::random(2, 10_000);
    registry.push(PRIVATE, "1", &image);
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).env("RUST_LOG", "trace").start();
    let client = proxy.client().trusting(&registry.ca().pem());
    let puller = Puller::new(client.clone());

    puller.clone().user(&alice).pull(PRIVATE, "1").unwrap();
    puller.clone().user(&alice).pull(PRIVATE, "1").unwrap();
    puller.clone().user(&bob).pull(PRIVATE, "1").unwrap_err();
    failing_requests(&registry, &puller.user(&alice), &image);
    let url = format!("https://{}/v2/{PRIVATE}/tags/list?token={CANARY}", registry.host());
    let with_secrets = Request::get(&url)
        .header("Host", registry.host())
        .header("Authorization", alice.basic())
        .header("Proxy-Authorization", alice.basic())
        .header("Cookie", format!("login={CANARY}"));
    client.send(&with_secrets).unwrap();
    let connecting = client.with_proxy_header("Proxy-Authorization", &alice.basic());
    connecting.connect(&format!("user:{CANARY}@{}:443", registry.host())).unwrap();
    connecting.connect("127.0.0.1:443").unwrap();
    connecting.get(&format!("http://user:{CANARY}@127.0.0.1/x?token={CANARY}")).unwrap();
    connecting.get(&format!("/nothing?token={CANARY}")).unwrap();
    for page in ["/metrics", "/api/v1/stats", "/api/v1/blobs", "/api/v1/config", "/api/v1/fetches"]
    {
        assert!(!proxy.operator().get(page).unwrap().text().contains(CANARY), "{page}");
    }
    assert_no_canary(&proxy);
}

/// Faults behind a redirect, whose messages could tell where it led.
fn failing_requests(registry: &Registry, alice: &Puller, image: &Image) {
    let other = Image::random(1, 10_000);
    registry.push(PRIVATE, "2", &other);
    let faults = [
        Fault::status(500),
        Fault::FlipBit(3),
        Fault::Cut(10, entrepot_testkit::Hangup::Rst),
        Fault::redirect(302, &format!("http://{CANARY}.example/?sig={CANARY}")),
        Fault::redirect(302, &format!("https://127.0.0.1/?sig={CANARY}")),
    ];
    for fault in faults {
        registry.fault_always(On::get(&other.layers[0].digest), fault);
        alice.pull(PRIVATE, "2").unwrap_err();
        registry.heal();
    }
    alice.blob(PRIVATE, &image.layers[0].digest).unwrap();
}
