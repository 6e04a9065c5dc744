//! What one registry has delivered is nothing that another can give away.

use entrepot_testkit::http::Response;
use entrepot_testkit::{Blob, Fault, Gate, Hangup, Image, On, Proxy, Registry, Request};

use crate::{ALPINE, BINARY};

const SIZE: usize = 400_000;
const EVIL: &str = "ghcr.io";

struct World {
    hub: Registry,
    evil: Registry,
    proxy: Proxy,
    layer: Blob,
}

/// The Hub with an image, and another registry that claims to have whatever it is asked for.
fn world() -> World {
    let hub = Registry::open();
    let image = Image::random(1, SIZE);
    hub.push(ALPINE, "1", &image);
    let evil = Registry::builder()
        .hosts(EVIL, "auth.evil.example", "cdn.evil.example")
        .ca_of(&hub)
        .start();
    evil.push("x/y", "1", &Image::random(1, 1000));
    let proxy = Proxy::builder(BINARY).in_front_of(&hub).in_front_of(&evil).start();
    let layer = image.layers[0].clone();
    claim(&evil, &layer);
    World { hub, evil, proxy, layer }
}

/// HEAD says yes, a range begins where it is asked to, and the bytes are anything.
fn claim(evil: &Registry, layer: &Blob) {
    let answer = Fault::answer_with(move |request| {
        let offset = request
            .headers
            .get("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let (status, left) = match offset {
            Some(offset) => (206, SIZE.saturating_sub(offset)),
            None => (200, SIZE),
        };
        let response = Response::new(status).body(vec![0; left]);
        match offset {
            Some(offset) => {
                response.header("Content-Range", format!("bytes {offset}-{}/{SIZE}", SIZE - 1))
            }
            None => response,
        }
    });
    evil.fault_always(On::path(&layer.digest), answer);
}

impl World {
    /// The other registry's client ends with nothing, and with none of the Hub's bytes.
    #[track_caller]
    fn assert_nothing_is_given_away(&self) {
        let url = format!("https://{EVIL}/v2/x/y/blobs/{}", self.layer.digest);
        let request = entrepot_testkit::Request::get(url);
        let mut connection = self.proxy.client().open(EVIL).unwrap();
        let mut download = connection.start(&request).unwrap();
        if let Ok(first) = download.read_exactly(1000) {
            assert_ne!(first, self.layer.bytes[..1000], "the Hub's bytes");
        }
        assert!(download.finish().is_err(), "a complete body of another registry's");
        assert!(!self.evil.requests().blob_gets().is_empty(), "the registry was not even asked");
    }
}

#[test]
fn a_kept_object_is_not_served_on_another_registrys_word() {
    let world = world();
    let pulled = world.proxy.puller().pull(ALPINE, "1").unwrap();
    world.proxy.wait_until_all_kept(&pulled);
    world.assert_nothing_is_given_away();
    world.proxy.assert_store_is_sound();
}

#[test]
fn bytes_that_another_registry_is_sending_are_not_shown_as_ours() {
    let world = world();
    // The Hub has delivered it once, and it was evicted since.
    let pulled = world.proxy.puller().blob(ALPINE, &world.layer.digest).unwrap();
    assert_eq!(pulled.response.body, world.layer.bytes);
    world.proxy.wait_until_kept(&world.layer.digest);
    world.proxy.lose(&world.layer.digest);
    let gate = Gate::new();
    world.evil.heal();
    let zeros = Response::new(200).body(vec![0; SIZE]);
    let trickling = vec![Fault::Answer(zeros), Fault::Stall(SIZE / 2, gate.clone())];
    world.evil.faults(On::get(&world.layer.digest), trickling, 10);
    std::thread::scope(|scope| {
        let trickle =
            scope.spawn(|| world.proxy.puller().from(EVIL).blob("x/y", &world.layer.digest));
        gate.wait_until_reached(1);
        let url = format!("https://{}/v2/{ALPINE}/blobs/{}", world.hub.host(), world.layer.digest);
        let part = Request::get(url).header("Range", "bytes=0-999");
        let answer = world.proxy.client().send(&part).unwrap();
        let whole = world.proxy.puller().blob(ALPINE, &world.layer.digest).unwrap();
        gate.open();
        assert_eq!(answer.body, world.layer.bytes.slice(..1000));
        assert_eq!(whole.response.body, world.layer.bytes);
        trickle.join().unwrap().unwrap_err();
    });
}

#[test]
fn a_registry_that_trickles_an_object_keeps_no_other_from_having_it_kept() {
    let world = world();
    let gate = Gate::new();
    world.evil.heal();
    let zeros = Response::new(200).body(vec![0; SIZE]);
    let trickling = vec![Fault::Answer(zeros), Fault::Stall(SIZE / 2, gate.clone())];
    world.evil.faults(On::get(&world.layer.digest), trickling, 10);
    std::thread::scope(|scope| {
        let trickle =
            scope.spawn(|| world.proxy.puller().from(EVIL).blob("x/y", &world.layer.digest));
        gate.wait_until_reached(1);
        let pull = || world.proxy.puller().blob(ALPINE, &world.layer.digest).unwrap();
        let first = pull();
        assert_eq!(first.cache_status(), "entrepot; fwd=miss; stored");
        assert_eq!(first.response.body, world.layer.bytes);
        world.proxy.wait_until_kept(&world.layer.digest);
        assert_eq!(pull().cache_status(), "entrepot; hit");
        gate.open();
        trickle.join().unwrap().unwrap_err();
    });
    assert_eq!(world.hub.requests().blob_gets().len(), 1);
    world.proxy.assert_store_is_sound();
}

#[test]
fn a_download_under_way_is_not_joined_by_another_registry() {
    let world = world();
    let gate = Gate::new();
    world.hub.fault(On::get(&world.layer.digest), Fault::Stall(SIZE / 2, gate.clone()));
    std::thread::scope(|scope| {
        let pulling = scope.spawn(|| world.proxy.puller().pull(ALPINE, "1"));
        gate.wait_until_reached(1);
        world.assert_nothing_is_given_away();
        gate.open();
        pulling.join().unwrap().unwrap();
    });
}

#[test]
fn a_partial_file_is_not_continued_by_another_registry() {
    let world = world();
    world.hub.fault(On::get(&world.layer.digest), Fault::Cut(SIZE / 2, Hangup::Fin));
    world.hub.fault_always(On::get(&world.layer.digest), Fault::status(500));
    world.proxy.puller().blob(ALPINE, &world.layer.digest).unwrap_err();
    world.proxy.wait_for_log(&["a download failed"]);
    world.assert_nothing_is_given_away();
    let asked = world.evil.requests().blob_gets();
    assert!(asked.iter().all(|request| request.headers.get("range").is_none()));
}
