//! Clients that ask for much and read nothing of it.

use entrepot_testkit::{Fault, Gate, Image, On, Proxy, Registry, Request};

use crate::{ALPINE, BINARY};

#[test]
fn what_somebody_asks_for_and_leaves_evicts_nothing_that_others_read() {
    const SIZE: usize = 500_000;
    let registry = Registry::open();
    let image = Image::random(1, SIZE);
    registry.push(ALPINE, "1", &image);
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config("max-size = \"2MB\"").start();
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    for number in 0..8 {
        let large = Image::random(1, SIZE);
        registry.push("library/large", &number.to_string(), &large);
        let layer = &large.layers[0];
        let gate = Gate::new();
        registry.fault(On::get(&layer.digest), Fault::Stall(100_000, gate.clone()));
        let url = format!("https://{}/v2/library/large/blobs/{}", registry.host(), layer.digest);
        let mut leaving = proxy.client().open(registry.host()).unwrap();
        leaving.start(&Request::get(&url)).unwrap();
        gate.wait_until_reached(1);
        drop(leaving);
        proxy.wait_for_log(&["GET", &layer.digest[..19]]);
        gate.open();
        // It goes on all the same: somebody may come again for it.
        proxy.wait_until_kept(&layer.digest);
    }
    assert!(proxy.keeps(&image.layers[0].digest));
    proxy.assert_store_is_sound();
}
