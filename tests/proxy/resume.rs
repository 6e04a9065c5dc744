//! A download that breaks is continued where it broke.

use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{Blob, Fault, Gate, Hangup, On, Proxy, Registry, Request, Response};

use crate::{ALPINE, one_layer};

const SIZE: usize = 1_000_000;

fn world() -> (Registry, Proxy, Blob) {
    one_layer(SIZE)
}

/// Where each GET of the blob began.
fn offsets(registry: &Registry) -> Vec<usize> {
    let offset = |range: &str| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok();
    registry
        .requests()
        .blob_gets()
        .iter()
        .map(|request| request.headers.get("range").map_or(0, |range| offset(range).unwrap()))
        .collect()
}

#[test]
fn a_break_is_continued_without_the_client_noticing() {
    for hangup in [Hangup::Fin, Hangup::CloseNotify] {
        let (registry, proxy, blob) = world();
        registry.fault(On::get(&blob.digest), Fault::Cut(600_000, hangup));
        let got = proxy.puller().blob(ALPINE, &blob.digest).unwrap();
        assert_eq!(got.response.body, blob.bytes);
        let offsets = offsets(&registry);
        assert!(matches!(offsets[..], [0, again] if (1..=600_000).contains(&again)), "{offsets:?}");
        proxy.wait_until_kept(&blob.digest);
        proxy.assert_store_is_sound();
    }
}

#[test]
fn a_registry_that_is_away_for_a_moment_is_asked_again() {
    let (registry, proxy, blob) = world();
    registry.fault(On::get(&blob.digest), Fault::Cut(600_000, Hangup::Fin));
    registry.fault(On::get(&blob.digest), Fault::NoAnswer(Hangup::Fin));
    registry.fault(On::get(&blob.digest), Fault::status(503));
    registry.fault(On::get(&blob.digest), Fault::status(429));
    let got = proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    assert_eq!(got.response.body, blob.bytes);
    proxy.wait_until_kept(&blob.digest);
}

#[test]
fn a_registry_that_goes_on_refusing_is_not_asked_for_ever() {
    let (registry, proxy, blob) = world();
    registry.fault(On::get(&blob.digest), Fault::Cut(600_000, Hangup::Fin));
    registry.fault_always(On::get(&blob.digest), Fault::status(503));
    proxy.puller().blob(ALPINE, &blob.digest).unwrap_err();
    assert!(registry.requests().blob_gets().len() <= 6, "{}", registry.requests().summary());
}

#[test]
fn a_registry_that_is_wrong_about_a_part_is_no_disk_that_fails() {
    let (registry, proxy, blob) = world();
    registry.fault(On::get(&blob.digest), Fault::Cut(600_000, Hangup::Fin));
    registry.fault_always(On::get(&blob.digest), Fault::status(503));
    proxy.puller().blob(ALPINE, &blob.digest).unwrap_err();
    registry.heal();
    let odd = |request: &Request| {
        let range = request.headers.get("range").unwrap_or_default();
        let first = range.trim_start_matches("bytes=").trim_end_matches('-').to_owned();
        Response::new(206).header("Content-Range", format!("bytes {first}-{first}/1")).body("x")
    };
    registry.fault(On::get(&blob.digest), Fault::answer_with(odd));
    let got = proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    assert_eq!(got.response.body, blob.bytes);
    assert_eq!(proxy.admin("/readyz").json()["status"], "ready");
    let got = proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    assert_eq!(got.response.body, blob.bytes);
    proxy.wait_until_kept(&blob.digest);
    assert_eq!(offsets(&registry).last(), Some(&0), "from the beginning");
}

#[test]
fn a_registry_without_ranges_sends_everything_again() {
    let (registry, proxy, blob) = world();
    registry.fault(On::get(&blob.digest), Fault::Cut(600_000, Hangup::Fin));
    let bytes = blob.bytes.clone();
    let whole =
        Fault::answer_with(move |_| entrepot_testkit::http::Response::new(200).body(bytes.clone()));
    registry.fault_always(On::get(&blob.digest), whole);
    let got = proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    assert_eq!(got.response.body, blob.bytes);
    proxy.wait_until_kept(&blob.digest);
}

#[test]
fn a_registry_that_sends_something_else_after_a_break_completes_nothing() {
    let cases: [fn(&Blob) -> Vec<u8>; 2] =
        [|blob| blob.bytes.iter().rev().copied().collect(), |blob| blob.bytes[..SIZE - 1].to_vec()];
    for other in cases {
        let (registry, proxy, blob) = world();
        registry.fault(On::get(&blob.digest), Fault::Cut(600_000, Hangup::Fin));
        let bytes = other(&blob);
        let whole = Fault::answer_with(move |_| Response::new(200).body(bytes.clone()));
        registry.fault_always(On::get(&blob.digest), whole);
        proxy.puller().blob(ALPINE, &blob.digest).unwrap_err();
        registry.heal();
        let got = proxy.puller().blob(ALPINE, &blob.digest).unwrap();
        assert_eq!(got.response.body, blob.bytes);
        proxy.wait_until_kept(&blob.digest);
        proxy.assert_store_is_sound();
    }
}

#[test]
fn a_partial_file_survives_a_kill_and_is_continued() {
    let (registry, mut proxy, blob) = world();
    let gate = Gate::new();
    registry.fault(On::get(&blob.digest), Fault::Stall(800_000, gate.clone()));
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let mut download = connection.start(&Request::get(&url)).unwrap();
    // What a client has seen is on disk.
    let seen = download.read_exactly(500_000).unwrap();
    assert_eq!(seen, blob.bytes[..500_000]);
    proxy.restart(Signal::KILL);
    gate.open();
    registry.heal();
    registry.forget_requests();
    let got = proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    assert_eq!(got.response.body, blob.bytes);
    let offsets = offsets(&registry);
    assert!(matches!(offsets[..], [offset] if offset >= 400_000), "{offsets:?}");
    proxy.wait_until_kept(&blob.digest);
    proxy.assert_store_is_sound();
}

#[test]
fn a_download_outlives_the_client_that_caused_it() {
    let (registry, proxy, blob) = world();
    let gate = Gate::new();
    registry.fault(On::get(&blob.digest), Fault::Stall(500_000, gate.clone()));
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
    let mut connection = proxy.client().open(registry.host()).unwrap();
    connection.start(&Request::get(&url)).unwrap().read_exactly(1000).unwrap();
    drop(connection);
    proxy.wait_for_log(&["the client left"]);
    gate.open();
    proxy.wait_until_kept(&blob.digest);
    assert_eq!(registry.requests().blob_gets().len(), 1);
}

#[test]
fn the_end_of_a_blob_that_is_not_here_does_not_wait_for_its_beginning() {
    let (registry, proxy, blob) = world();
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
    let response = proxy.client().send(&Request::get(&url).header("Range", "bytes=-100")).unwrap();
    assert_eq!(response.status, 206);
    assert_eq!(response.body, blob.bytes.slice(SIZE - 100..));
}

#[test]
fn a_download_for_which_there_is_no_room_comes_whole_from_the_registry() {
    const ROOM: usize = 256;
    let (registry, mut proxy, blob) = world();
    let gate = Gate::new();
    registry.fault(On::get(&blob.digest), Fault::Stall(800_000, gate.clone()));
    let url =
        |blob: &Blob| format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
    let mut connection = proxy.client().open(registry.host()).unwrap();
    connection.start(&Request::get(url(&blob))).unwrap().read_exactly(500_000).unwrap();
    proxy.restart(Signal::KILL);
    gate.open();

    // Others take all the room, and a part of the blob lies here from before.
    let gate = Gate::new();
    let others: Vec<_> = (0..ROOM).map(|_| Blob::random(200_000)).collect();
    for other in &others {
        registry.push_blob(ALPINE, other);
        registry.fault(On::get(&other.digest), Fault::Stall(100_000, gate.clone()));
    }
    std::thread::scope(|scope| {
        for other in &others {
            scope.spawn(|| proxy.puller().blob(ALPINE, &other.digest).unwrap());
        }
        gate.wait_until_reached(ROOM);
        let got = proxy.client().send(&Request::get(url(&blob))).unwrap();
        gate.open();
        assert_eq!((got.status, &got.body), (200, &blob.bytes));
    });
}

/// Engines that fetch a layer in several ranges at once take a part of each and close: an everyday
/// thing, of which the log says nothing but the request's line.
#[test]
fn a_client_that_takes_a_part_of_a_range_is_no_news() {
    let (registry, proxy, blob) = world();
    let gate = Gate::new();
    registry.fault(On::get(&blob.digest), Fault::Stall(500_000, gate.clone()));
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
    for range in ["bytes=0-", "bytes=1000-900000"] {
        let mut connection = proxy.client().open(registry.host()).unwrap();
        let request = Request::get(&url).header("Range", range);
        let mut download = connection.start(&request).unwrap();
        assert_eq!(download.head().status, 206);
        download.read_exactly(1000).unwrap();
    }
    gate.open();
    proxy.wait_until_kept(&blob.digest);
    proxy.wait_for_logs(&["GET", &blob.digest[..19]], 2);
    assert!(!proxy.log_contains("the client left"), "{:?}", proxy.log());
}
