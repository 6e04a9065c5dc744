//! Whatever the bucket does on a miss, the client has the right bytes; and of the requests that
//! meet it no more than the first waits for it, no longer than `bucket.timeout`.

use std::time::{Duration, Instant};

use entrepot_testkit::{Bucket, Fleet, Forwarder, Gate, Image, On, Proxy, Trouble, wait_until};

use crate::{ALPINE, blob, fleet_with, metric, right_blob, share};

/// As configured: long beside everything else here.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What the rest of a request may take, on a machine that is busy with other tests.
const QUICK: Duration = Duration::from_millis(1500);
const LAYER: usize = 300_000;

struct World {
    fleet: Fleet,
    forwarder: Forwarder,
    replica: Proxy,
    image: Image,
}

/// A bucket that has an image, and a replica that has not, with the forwarder between the two.
fn world(layers: usize) -> World {
    let image = Image::random(layers, LAYER);
    let fleet = fleet_with(&image);
    let first = fleet.replica().start();
    share(&fleet, &first);
    fleet.bucket.wait_for_record(&format!("/{ALPINE}/_access"));
    let forwarder = Forwarder::to(fleet.bucket.server());
    let replica = fleet.replica_by(&forwarder, "2s").upstream("idle-timeout = \"2s\"").start();
    wait_until("it has found its bucket", || metric(&replica, "entrepot_bucket_up") >= 1.0);
    fleet.registry.forget_requests();
    World { fleet, forwarder, replica, image }
}

impl World {
    /// Asks for each layer in turn; how long each took.
    #[track_caller]
    fn ask_for_all(&self) -> Vec<Duration> {
        let one = |layer| {
            let began = Instant::now();
            right_blob(&self.replica, &self.fleet, layer);
            began.elapsed()
        };
        self.image.layers.iter().map(one).collect()
    }

    /// Asks for each layer while something is wrong: only the first may notice, and no longer than
    /// it may.
    #[track_caller]
    fn assert_hardly_noticed(&self, what: &str) {
        let times = self.ask_for_all();
        assert!(times[0] < TIMEOUT + QUICK, "{what}: {times:?}");
        assert!(times[1..].iter().all(|time| *time < QUICK), "{what}: {times:?}");
        let gets = self.fleet.registry.requests().blob_gets().len();
        assert_eq!(gets, self.image.layers.len(), "{what}: each of the registry, once");
    }
}

#[test]
fn a_bucket_that_refuses_connections_is_hardly_noticed() {
    let world = world(5);
    world.forwarder.refuse();
    world.assert_hardly_noticed("refused");
    assert!(metric(&world.replica, "entrepot_bucket_up") < 1.0);
    world.replica.wait_for_log(&["warn  ", "bucket"]);
}

#[test]
fn a_bucket_that_is_silent_is_hardly_noticed() {
    let world = world(5);
    world.forwarder.always(On::path("/"), Trouble::Silence);
    world.assert_hardly_noticed("silent");
    // One silence may be chance; several are told of.
    wait_until("it counts as away", || {
        blob(&world.replica, &world.fleet, &Image::random(1, 10).layers[0].digest);
        metric(&world.replica, "entrepot_bucket_up") < 1.0
    });
}

/// Before anything is known of it.
#[test]
fn a_bucket_that_is_silent_from_the_start_is_hardly_noticed() {
    let image = Image::random(3, LAYER);
    let fleet = fleet_with(&image);
    let forwarder = Forwarder::to(fleet.bucket.server());
    forwarder.always(On::path("/"), Trouble::Silence);
    let replica = fleet.replica_by(&forwarder, "2s").start();
    let began = Instant::now();
    replica.puller().pull(ALPINE, "1").unwrap();
    assert!(began.elapsed() < TIMEOUT + QUICK * 2, "{:?}", began.elapsed());
    for layer in &image.layers {
        let began = Instant::now();
        right_blob(&replica, &fleet, layer);
        assert!(began.elapsed() < QUICK, "{:?}", began.elapsed());
    }
}

/// The records come, the bytes do not.
#[test]
fn a_bucket_that_is_silent_about_bytes_is_hardly_noticed() {
    let world = world(5);
    world.forwarder.always(On::path("/blobs/"), Trouble::Silence);
    world.assert_hardly_noticed("silent about bytes");
}

#[test]
fn many_who_meet_a_silent_bucket_at_once_wait_no_longer_than_one() {
    let world = world(8);
    world.forwarder.always(On::path("/"), Trouble::Silence);
    std::thread::scope(|scope| {
        for layer in world.image.layers.iter().cycle().take(24) {
            let world = &world;
            scope.spawn(move || {
                let began = Instant::now();
                right_blob(&world.replica, &world.fleet, layer);
                assert!(began.elapsed() < TIMEOUT + QUICK * 2, "{:?}", began.elapsed());
            });
        }
    });
}

#[test]
fn a_bucket_that_answers_with_errors_is_hardly_noticed() {
    for status in [400, 403, 404, 500, 501, 503] {
        for part in ["/", "/blobs/"] {
            let world = world(4);
            world.forwarder.always(On::path(part), Trouble::Status(status));
            world.assert_hardly_noticed(&format!("{status} for {part}"));
        }
    }
}

/// `s3:ListBucket` is what turns "not there" into 403: the words name it.
#[test]
fn a_refusal_is_told_in_words_once() {
    let world = world(4);
    world.forwarder.always(On::path("/"), Trouble::Status(403));
    world.ask_for_all();
    world.replica.wait_for_log(&["error ", "s3:ListBucket"]);
    let errors = world.replica.log().iter().filter(|line| line.starts_with("error ")).count();
    assert_eq!(errors, 1, "{}", world.replica.log().join("\n"));
}

#[test]
fn a_bucket_that_is_well_again_is_used_again() {
    let world = world(3);
    world.forwarder.refuse();
    right_blob(&world.replica, &world.fleet, &world.image.layers[0]);
    world.forwarder.heal();
    wait_until("it is up again", || {
        // Somebody has to ask.
        blob(&world.replica, &world.fleet, &Image::random(1, 10).layers[0].digest);
        metric(&world.replica, "entrepot_bucket_up") >= 1.0
    });
    world.fleet.registry.forget_requests();
    right_blob(&world.replica, &world.fleet, &world.image.layers[1]);
    assert!(world.fleet.registry.requests().blob_gets().is_empty());
}

/// One that breaks off goes on, from the bucket or from the registry, where it had come to.
#[test]
fn a_transfer_that_breaks_goes_on_where_it_was() {
    for (breaks, at) in [(1, 0), (1, 100_000), (2, 100_000), (1000, 1), (1000, 20_000)] {
        let world = world(1);
        let layer = &world.image.layers[0];
        world.forwarder.times(breaks, On::get("/blobs/"), Trouble::Cut(at));
        right_blob(&world.replica, &world.fleet, layer);
        let gets = world.fleet.registry.requests().blob_gets();
        let asked = world.forwarder.seen("GET", "/blobs/");
        assert!(asked.len() <= 8, "{breaks} at {at}: {:#?}", world.forwarder.summary());
        if breaks <= 2 && at > 0 {
            assert!(gets.is_empty(), "{breaks} at {at}: {}", gets.summary());
            assert!(asked.last().is_some_and(|seen| seen.range.is_some()), "{asked:?}");
        }
        if breaks == 1000 && at > 1 {
            let range = gets.iter().next().and_then(|get| get.headers.get("range"));
            let from = range.and_then(|range| range.strip_prefix("bytes="));
            let from: usize = from.unwrap_or("0").trim_end_matches('-').parse().unwrap();
            assert!(from >= 20_000, "{range:?}: what has come is not fetched again");
        }
        world.replica.wait_until_kept(&layer.digest);
        world.replica.assert_store_is_sound();
    }
}

#[test]
fn a_transfer_that_stands_still_goes_on_from_the_registry() {
    let world = world(2);
    let gate = Gate::new();
    world.forwarder.always(On::get("/blobs/"), Trouble::Stall(100_000, gate.clone()));
    let began = Instant::now();
    right_blob(&world.replica, &world.fleet, &world.image.layers[0]);
    // As long as the longest silence that is allowed within an answer, for each try.
    assert!(began.elapsed() < Duration::from_secs(2) * 3 + QUICK, "{:?}", began.elapsed());
    gate.open();
}

#[test]
fn a_slow_bucket_is_still_one() {
    let world = world(1);
    world.forwarder.always(On::get("/blobs/"), Trouble::Rate(300_000));
    right_blob(&world.replica, &world.fleet, &world.image.layers[0]);
    assert!(world.fleet.registry.requests().blob_gets().is_empty());
}

/// As a broken proxy on the way may do it.
#[test]
fn other_bytes_on_the_way_are_never_completed() {
    let world = world(1);
    let layer = &world.image.layers[0];
    world.forwarder.times(1, On::get("/blobs/"), Trouble::Flip(200_000));
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", world.fleet.registry.host(), layer.digest);
    if let Ok(answer) = world.replica.client().get(&url)
        && answer.status == 200
    {
        assert_eq!(answer.body, layer.bytes);
    }
    right_blob(&world.replica, &world.fleet, layer);
    world.replica.wait_until_kept(&layer.digest);
    world.replica.assert_store_is_sound();
    assert!(metric(&world.replica, "entrepot_bucket_damaged_total") >= 1.0);
}

/// A manifest is had whole or not at all.
#[test]
fn a_manifest_that_does_not_come_is_the_registrys() {
    for trouble in [Trouble::Cut(20), Trouble::Flip(20), Trouble::Status(500), Trouble::Silence] {
        let world = world(1);
        let hex = world.image.manifest.digest.replace("sha256:", "");
        let bytes = Bucket::blob(&world.image.manifest.digest);
        assert!(bytes.ends_with(&hex));
        world.forwarder.always(On::get(bytes), trouble.clone());
        let began = Instant::now();
        let pulled = world.replica.puller().pull(ALPINE, "1").unwrap();
        assert_eq!(pulled.manifests[0].digest, world.image.manifest.digest, "{trouble:?}");
        assert!(began.elapsed() < TIMEOUT * 2 + QUICK * 2, "{trouble:?}: {:?}", began.elapsed());
        assert_eq!(world.fleet.registry.requests().manifest_gets().len(), 1, "{trouble:?}");
    }
}

/// The connections that it keeps are dead, as after a restart of the server.
#[test]
fn connections_that_died_meanwhile_cost_nothing() {
    let world = world(3);
    right_blob(&world.replica, &world.fleet, &world.image.layers[0]);
    world.forwarder.hang_up();
    for layer in &world.image.layers[1..] {
        right_blob(&world.replica, &world.fleet, layer);
    }
    assert!(world.fleet.registry.requests().blob_gets().is_empty());
}
