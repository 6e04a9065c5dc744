//! Pushes pass through under the client's own credential, or are refused.

use entrepot_testkit::client::Connection;
use entrepot_testkit::registry::HUB;
use entrepot_testkit::{Blob, Image, Proxy, Registry, Request, Response, Server, TestCa, image};

use crate::{ALPINE, BINARY, in_front_of};

/// Pushes a blob as engines do: announced, sent in two parts, finished.
fn push_blob(connection: &mut Connection, blob: &Blob) {
    let start = Request::new("POST", format!("/v2/{ALPINE}/blobs/uploads/"));
    let started = connection.send(&start).unwrap();
    assert_eq!(started.status, 202);
    let location = started.headers.get("location").unwrap();
    let middle = blob.bytes.len() / 2;
    let first = Request::new("PATCH", location)
        .header("Transfer-Encoding", "chunked")
        .body(blob.bytes.slice(..middle));
    assert_eq!(connection.send(&first).unwrap().status, 202);
    let rest = Request::new("PATCH", location)
        .header("Content-Range", format!("{middle}-{}", blob.bytes.len() - 1))
        .body(blob.bytes.slice(middle..));
    assert_eq!(connection.send(&rest).unwrap().status, 202);
    let finish = Request::new("PUT", format!("{location}?digest={}", blob.digest));
    assert_eq!(connection.send(&finish).unwrap().status, 201);
}

#[test]
fn a_push_arrives_whole() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    let image = Image::random(2, 400_000);
    let mut connection = proxy.client().open(registry.host()).unwrap();
    for blob in image.blobs() {
        push_blob(&mut connection, blob);
    }
    let manifest = Request::new("PUT", format!("/v2/{ALPINE}/manifests/new"))
        .header("Content-Type", image::MANIFEST)
        .body(image.manifest.bytes.clone());
    assert_eq!(connection.send(&manifest).unwrap().status, 201);
    assert_eq!(registry.tagged(ALPINE, "new"), Some(image.manifest.digest.clone()));
    for blob in image.blobs() {
        assert_eq!(registry.blob(ALPINE, &blob.digest).as_ref(), Some(&blob.bytes));
    }
    proxy.puller().pull(ALPINE, "new").unwrap();
}

#[test]
fn a_push_carries_the_clients_credential_unchanged() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    let request = Request::new("POST", format!("/v2/{ALPINE}/blobs/uploads/"))
        .header("Host", registry.host())
        .header("Authorization", "Bearer the-clients-own");
    proxy.client().open(registry.host()).unwrap().send(&request).unwrap();
    let seen = registry.requests().method("POST");
    let authorization = seen.iter().next().unwrap().authorization();
    assert_eq!(authorization, Some("Bearer the-clients-own"));
}

#[test]
fn a_push_that_is_denied_is_told_so() {
    let registry = Registry::open();
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config("push = \"deny\"").start();
    let base = format!("https://{}/v2/{ALPINE}", registry.host());
    let writes = [
        Request::new("POST", format!("{base}/blobs/uploads/")),
        Request::new("PATCH", format!("{base}/blobs/uploads/1")).body("abc"),
        Request::new("PUT", format!("{base}/blobs/uploads/1?digest=sha256:00")).body("abc"),
        Request::new("PUT", format!("{base}/manifests/new")).body("{}"),
        Request::new("DELETE", format!("{base}/manifests/new")),
        // As spelled by somebody who would rather not be recognised.
        Request::new("POST", format!("{base}/%62lobs/uploads/")),
    ];
    for write in writes {
        let response = proxy.client().send(&write).unwrap();
        assert_eq!(response.status, 405, "{}", write.method);
        assert!(response.oci_error().starts_with("UNSUPPORTED: "), "{}", response.text());
        assert!(response.oci_error().contains("push = \"deny\""), "{}", response.text());
        let version = response.headers.get("docker-distribution-api-version");
        assert_eq!(version, Some("registry/2.0"));
    }
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}

#[test]
fn an_empty_request_of_an_upload_says_that_it_is_empty() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let request = Request::new("POST", format!("/v2/{ALPINE}/blobs/uploads/"))
        .header("Host", registry.host())
        .header("Content-Length", "0");
    connection.send(&request).unwrap();
    let seen = registry.requests().method("POST");
    assert_eq!(seen.iter().next().unwrap().headers.get("content-length"), Some("0"));
}

/// A registry that refuses an upload need not take the rest of it: it answers, and closes the
/// connection on whoever is still sending. The answer is what the client must hear, each time.
#[test]
fn an_answer_in_the_middle_of_an_upload_reaches_the_client() {
    const TIMES: usize = 30;
    let ca = TestCa::new("a registry's");
    for (status, after) in [(413, 0), (401, 1), (413, 300_000)] {
        let refusal = Response::new(status).body(r#"{"errors":[{"code":"SIZE","message":"no"}]}"#);
        let registry = Server::refusing(ca.leaf(&[HUB]), after, refusal);
        let proxy = Proxy::builder(BINARY)
            .trusting(&ca)
            .connect_to(&format!("{HUB}:443:{}", registry.address()))
            .start();
        for time in 0..TIMES {
            let size = [400_000, 8_000_000][time % 2];
            let mut upload = Request::new("PATCH", format!("/v2/{ALPINE}/blobs/uploads/1"));
            if time % 4 < 2 {
                upload = upload.header("Transfer-Encoding", "chunked");
            }
            let mut connection = proxy.client().open(HUB).unwrap();
            let answer = connection.send(&upload.body(vec![7; size])).unwrap_or_else(|error| {
                panic!("{status} after {after} bytes, time {time}: {error}\n{:?}", proxy.log())
            });
            assert_eq!(answer.status, status, "time {time}: {}", answer.text());
            assert_eq!(answer.oci_error(), "SIZE: no");
        }
    }
}
