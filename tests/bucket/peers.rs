//! Replicas that fetch for each other, with a bucket behind them.

use entrepot_testkit::image::digest_of;
use entrepot_testkit::proxy::free_place;
use entrepot_testkit::{Image, wait_until};

use crate::{ALPINE, blob, fleet_with, metric, share};

#[test]
fn an_object_comes_from_the_registry_once_and_goes_into_the_bucket() {
    let image = Image::random(4, 300_000);
    let fleet = fleet_with(&image);
    let places = [(); 3].map(|()| free_place());
    let names = places.map(|place| place.to_string());
    let table = format!("[peers]\nnames = {names:?}");
    let [first, second, third] =
        places.map(|place| fleet.replica().listening_at(place).tables(&table).start());
    for replica in [&first, &second, &third] {
        wait_until("replicas do not find each other", || {
            metric(replica, "entrepot_peers").total_cmp(&3.0).is_eq()
        });
    }
    share(&fleet, &first);
    // Some of it was fetched by others, and whoever has it from the registry has brought it there.
    for layer in &image.layers {
        for replica in [&second, &third] {
            let answer = blob(replica, &fleet, &layer.digest);
            assert_eq!(digest_of(&answer.body), layer.digest);
        }
    }
    second.puller().pull(ALPINE, "1").unwrap();
    let requests = fleet.registry.requests();
    assert_eq!(requests.blob_gets().len(), 5, "{}", requests.summary());
    assert_eq!(requests.manifest_gets().len(), 1, "{}", requests.summary());
}
