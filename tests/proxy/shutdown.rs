//! A signal ends the proxy, after what is under way.

use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{Blob, Fault, Gate, On, Registry, Request};

use crate::{ALPINE, in_front_of};

const SIZE: usize = 1_000_000;

/// A registry with a blob whose delivery waits half-way.
fn stalling() -> (Registry, Blob, Gate) {
    let registry = Registry::open();
    let blob = Blob::random(SIZE);
    registry.push_blob(ALPINE, &blob);
    let gate = Gate::new();
    registry.fault(On::get(&blob.digest), Fault::Stall(SIZE / 2, gate.clone()));
    (registry, blob, gate)
}

fn blob_request(blob: &Blob) -> Request {
    Request::get(format!("/v2/{ALPINE}/blobs/{}", blob.digest))
}

#[test]
fn a_download_under_way_is_finished_and_nobody_new_is_taken() {
    let (registry, blob, gate) = stalling();
    let proxy = in_front_of(&registry);
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let mut download = connection.start(&blob_request(&blob)).unwrap();
    let first = download.read_exactly(SIZE / 4).unwrap();
    gate.wait_until_reached(1);

    proxy.signal(Signal::TERM);
    proxy.wait_until_closed();
    let readiness = proxy.admin("/readyz");
    assert_eq!((readiness.status, &readiness.json()["status"]), (503, &"draining".into()));
    assert_eq!(proxy.admin("/healthz").status, 200);
    assert_eq!(proxy.admin("/api/v1/stats").status, 404, "too late");
    gate.open();
    let rest = download.finish().unwrap();
    assert_eq!([first, rest].concat(), blob.bytes);
    assert!(proxy.wait_exit().success());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (registry, blob, gate) = stalling();
    let proxy = in_front_of(&registry);
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let mut download = connection.start(&blob_request(&blob)).unwrap();
    gate.wait_until_reached(1);

    proxy.signal(Signal::TERM);
    proxy.wait_until_closed();
    proxy.signal(Signal::TERM);
    proxy.wait_exit();
    assert!(download.finish().is_err());
}

#[test]
fn an_idle_proxy_ends_at_once_and_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let registry = Registry::open();
        let proxy = in_front_of(&registry);
        let idle = proxy.client().open(registry.host()).unwrap();
        proxy.signal(signal);
        assert!(proxy.wait_exit().success());
        drop(idle);
    }
}
