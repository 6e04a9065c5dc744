//! Leaves as the program gets them: cached, renewed by the clock, one key for all.
#![cfg(test)]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{Fixture, leaf, parsed};
use entrepot_ca::LeafError;

const DAY: Duration = Duration::from_hours(24);

#[test]
fn one_name_in_any_spelling_is_one_leaf() {
    let ca = Fixture::new().open();
    let first = leaf(&ca, "registry-1.docker.io");
    for spelling in ["registry-1.docker.io", "Registry-1.Docker.IO", "registry-1.docker.io."] {
        assert!(Arc::ptr_eq(&first, &leaf(&ca, spelling)), "{spelling}");
    }
    assert!(Arc::ptr_eq(&first, &leaf(&ca.clone(), "registry-1.docker.io")));
    assert!(!Arc::ptr_eq(&first, &leaf(&ca, "docker.io")));
}

#[test]
fn a_leaf_is_renewed_at_half_life() {
    let fixture = Fixture::new();
    let ca = fixture.open();
    let first = leaf(&ca, "ghcr.io");
    fixture.clock.advance(3 * DAY);
    assert!(Arc::ptr_eq(&first, &leaf(&ca, "ghcr.io")));
    fixture.clock.advance(DAY / 2);
    let second = leaf(&ca, "ghcr.io");
    assert_ne!(first.cert, second.cert);
    parsed(&second, |x509| {
        let begin = x509.validity().not_before.timestamp();
        assert_eq!(begin, common::unix_secs(fixture.clock.now()) - 3600);
    });
}

#[test]
fn leaves_share_a_key_that_is_not_the_authoritys_and_differ_in_serial() {
    let ca = Fixture::new().open();
    let facts = |name| {
        parsed(&leaf(&ca, name), |x509| {
            (x509.raw_serial().to_vec(), x509.public_key().raw.to_vec())
        })
    };
    let (one, other) = (facts("ghcr.io"), facts("quay.io"));
    assert_ne!(one.0, other.0);
    assert_eq!(one.1, other.1);
    let (_, pem) = x509_parser::pem::parse_x509_pem(ca.certificate_pem().as_bytes()).unwrap();
    assert_ne!(pem.parse_x509().unwrap().public_key().raw, one.1);
}

#[test]
fn an_authority_past_its_end_signs_nothing() {
    let fixture = Fixture::new();
    let ca = fixture.open();
    fixture.clock.set(ca.not_after() + Duration::from_secs(1));
    let name = common::server_name("ghcr.io");
    let error = ca.leaf(&name).unwrap_err();
    assert!(matches!(error, LeafError::OutsideValidity { .. }), "{error}");
}

#[test]
fn threads_that_ask_at_once_get_the_same_leaf() {
    let ca = Fixture::new().open();
    let leaves: Vec<_> = thread::scope(|scope| {
        let asking: Vec<_> = (0..16).map(|_| scope.spawn(|| leaf(&ca, "ghcr.io"))).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(leaves.iter().all(|leaf| Arc::ptr_eq(leaf, &leaves[0])));
}
