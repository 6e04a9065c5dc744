//! The registry, asked directly: what a proxy's tests rest on must itself be right.

#![expect(clippy::unwrap_used, reason = "what a test does not get ends it")]

use entrepot_testkit::client::Connection;
use entrepot_testkit::pull::PullError;
use entrepot_testkit::registry::{HUB, Transport};
use entrepot_testkit::{
    Access, Blob, Fault, Gate, Hangup, Image, Index, On, Puller, Redirects, Registry, Request,
    Role, User, image,
};

const ALPINE: &str = "library/alpine";

fn blob_of(size: usize) -> (Registry, Blob, String) {
    let registry = Registry::open();
    let blob = Blob::random(size);
    registry.push_blob(ALPINE, &blob);
    let path = format!("/v2/{ALPINE}/blobs/{}", blob.digest);
    (registry, blob, path)
}

fn open(registry: &Registry) -> Connection {
    registry.direct_client().open(HUB).unwrap()
}

#[test]
fn an_index_is_pulled_for_its_platform() {
    let registry = Registry::open();
    let index = Index::random(&["amd64", "arm64"], 2, 1000);
    registry.push_index(ALPINE, "3.20", &index);
    let puller = Puller::new(registry.direct_client()).architecture("arm64");
    let image = puller.pull(ALPINE, "3.20").unwrap();
    assert_eq!(image.manifests[1].digest, index.images[1].manifest.digest);
    assert_eq!(image.blobs.len(), 3);
    let requests = registry.requests();
    assert_eq!(requests.blob_gets().len(), 3, "{}", requests.summary());
    assert_eq!(requests.manifest_heads().len(), 1);
    assert_eq!(requests.manifest_gets().len(), 2);
}

#[test]
fn tokens_allow_what_the_access_list_says() {
    let alice = User::new("alice").pulls("team/*");
    let bob = User::new("bob");
    let access = Access::bearer([alice.clone(), bob.clone()]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    for repository in [ALPINE, "team/private"] {
        registry.push(repository, "1", &Image::random(1, 100));
    }
    let puller = Puller::new(registry.direct_client());
    assert!(puller.pull(ALPINE, "1").is_ok());
    assert!(puller.clone().user(&alice).pull("team/private", "1").is_ok());
    for refused in [puller.clone(), puller.clone().user(&bob)] {
        let error = refused.pull("team/private", "1").unwrap_err();
        assert_eq!(error.status(), Some(401), "{error}");
    }
    let mut visit = puller.user(&alice).visit("team/private").unwrap();
    registry.expire_tokens();
    let request = visit.manifest("GET", "1");
    assert_eq!(visit.exchange(&request).unwrap().status, 401);
}

#[test]
fn passwords_are_asked_for_with_every_request() {
    let alice = User::new("alice").pulls("team/private");
    let registry = Registry::builder().access(Access::basic([alice.clone()])).start();
    registry.push("team/private", "1", &Image::random(1, 100));
    registry.push("team/other", "1", &Image::random(1, 100));
    let puller = Puller::new(registry.direct_client()).user(&alice);
    assert!(puller.pull("team/private", "1").is_ok());
    assert_eq!(puller.pull("team/other", "1").unwrap_err().status(), Some(403));
    let stranger = Puller::new(registry.direct_client());
    assert_eq!(stranger.pull("team/private", "1").unwrap_err().status(), Some(401));
}

#[test]
fn a_cdn_delivers_to_a_signature_and_to_no_credential() {
    let (registry, blob, path) = blob_of(5000);
    registry.set_redirects(Redirects::Chain(2));
    let client = registry.direct_client();
    let mut location = format!("https://{HUB}{path}");
    for _ in 0..3 {
        let response = client.get(&location).unwrap();
        assert_eq!(response.status, 307);
        response.headers.get("location").unwrap().clone_into(&mut location);
    }
    assert_eq!(client.get(&location).unwrap().body, blob.bytes);
    let mistaken = Request::get(&location).header("Authorization", "Bearer x");
    assert_eq!(client.send(&mistaken).unwrap().status, 400);
    registry.expire_signatures();
    assert_eq!(client.get(&location).unwrap().status, 403);
}

#[test]
fn an_upload_is_kept_when_its_digest_fits() {
    let registry = Registry::open();
    let blob = Blob::random(10_000);
    let mut connection = open(&registry);
    let started =
        connection.send(&Request::new("POST", format!("/v2/{ALPINE}/blobs/uploads/"))).unwrap();
    let location = started.headers.get("location").unwrap().to_owned();
    let chunked = Request::new("PATCH", &location)
        .header("Transfer-Encoding", "chunked")
        .body(blob.bytes.clone());
    assert_eq!(connection.send(&chunked).unwrap().status, 202);
    let finish = Request::new("PUT", format!("{location}?digest={}", blob.digest));
    assert_eq!(connection.send(&finish).unwrap().status, 201);
    assert_eq!(registry.blob(ALPINE, &blob.digest), Some(blob.bytes));
}

#[test]
fn parts_tags_and_referrers_are_answered() {
    let registry = Registry::open();
    let image = Image::random(1, 1000);
    registry.push(ALPINE, "3.20", &image);
    registry.push_manifest(ALPINE, &image.referrer("application/x-signature"));
    let mut connection = open(&registry);
    let digest = &image.layers[0].digest;
    let path = format!("/v2/{ALPINE}/blobs/{digest}");
    let part = connection.send(&Request::get(&path).header("Range", "bytes=10-19")).unwrap();
    assert_eq!((part.status, part.headers.get("content-range")), (206, Some("bytes 10-19/1000")));
    assert_eq!(part.body, image.layers[0].bytes.slice(10..20));
    let head = connection.send(&Request::head(&path)).unwrap();
    assert_eq!(head.headers.get("content-length"), Some("1000"));
    let tags = connection.send(&Request::get(format!("/v2/{ALPINE}/tags/list"))).unwrap();
    assert_eq!(tags.json()["tags"][0], "3.20");
    let subject = format!("/v2/{ALPINE}/referrers/{}", image.manifest.digest);
    let referrers = connection.send(&Request::get(subject)).unwrap();
    assert_eq!(referrers.json()["manifests"].as_array().unwrap().len(), 1);
}

#[test]
fn no_broken_body_ends_cleanly() {
    let broken = [
        Fault::Cut(0, Hangup::Fin),
        Fault::Cut(5000, Hangup::Fin),
        Fault::Cut(99_999, Hangup::CloseNotify),
        Fault::Cut(70_000, Hangup::Rst),
        Fault::ClaimLength(100_001),
        Fault::Unterminated,
        Fault::BadChunkSize,
        Fault::NoAnswer(Hangup::Fin),
    ];
    let (registry, _, path) = blob_of(100_000);
    for fault in broken {
        registry.fault(On::get(&path), fault.clone());
        assert!(open(&registry).send(&Request::get(&path)).is_err(), "{fault:?}");
    }
}

#[test]
fn a_fault_changes_what_it_is_meant_to() {
    let (registry, blob, path) = blob_of(100_000);
    let mut connection = open(&registry);
    registry.fault(On::get(&path), Fault::FlipBit(7));
    let flipped = connection.send(&Request::get(&path)).unwrap().body;
    assert_eq!(flipped.len(), blob.bytes.len());
    assert_eq!(flipped[7], blob.bytes[7] ^ 1);
    registry.faults(On::get(&path), vec![Fault::Chunked, Fault::Interim(20)], 1);
    assert_eq!(connection.send(&Request::get(&path)).unwrap().body, blob.bytes);
    registry.fault(On::get(&path), Fault::Gzip);
    let zipped = connection.send(&Request::get(&path)).unwrap();
    assert_eq!(zipped.headers.get("content-encoding"), Some("gzip"));
    assert_ne!(image::digest_of(&zipped.body), blob.digest);
    registry.fault(On::head(&path), Fault::status(429));
    assert_eq!(connection.send(&Request::head(&path)).unwrap().status, 429);
    assert_eq!(connection.send(&Request::get(&path)).unwrap().body, blob.bytes);
}

#[test]
fn a_stalled_body_goes_on_when_the_gate_opens() {
    let (registry, blob, path) = blob_of(100_000);
    let gate = Gate::new();
    registry.fault(On::get(&path), Fault::Stall(40_000, gate.clone()));
    let mut connection = open(&registry);
    let mut download = connection.start(&Request::get(&path)).unwrap();
    let first = download.read_exactly(40_000).unwrap();
    gate.wait_until_reached(1);
    gate.open();
    assert_eq!([first, download.finish().unwrap()].concat(), blob.bytes);
}

#[test]
fn wrong_bytes_are_told_from_a_broken_connection() {
    let (registry, blob, path) = blob_of(1000);
    let puller = Puller::new(registry.direct_client());
    registry.fault(On::get(&path), Fault::FlipBit(1));
    let wrong = puller.blob(ALPINE, &blob.digest).unwrap_err();
    assert!(matches!(wrong, PullError::WrongBytes { .. }), "{wrong}");
    registry.fault(On::get(&path), Fault::Cut(1, Hangup::Rst));
    let broken = puller.blob(ALPINE, &blob.digest).unwrap_err();
    assert!(matches!(broken, PullError::Broken { .. }), "{broken}");
}

#[test]
fn a_bad_certificate_is_refused_by_a_good_client() {
    let bad = [Transport::ExpiredCertificate, Transport::WrongName, Transport::UntrustedAuthority];
    for transport in bad {
        let registry = Registry::builder().transport(transport).start();
        assert!(registry.direct_client().get(&format!("https://{HUB}/v2/")).is_err());
    }
}

#[test]
fn a_stopped_registry_takes_no_connections() {
    let mut registry = Registry::open();
    let mut connection = open(&registry);
    assert_eq!(connection.send(&Request::get("/v2/")).unwrap().status, 200);
    registry.stop();
    assert!(connection.is_closed());
    assert!(registry.direct_client().get(&format!("https://{HUB}/v2/")).is_err());
    assert_eq!(registry.server(Role::Registry).connections(), 1);
}
