//! Forms that are odd and legal, and fields that clients come for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use entrepot_testkit::image::{INDEX, MANIFEST, digest_of};
use entrepot_testkit::{Fault, Image, On, Proxy, Registry, Request, Response};

use crate::{ALPINE, in_front_of, one_layer};

const QUOTA: [(&str, &str); 3] = [
    ("ratelimit-limit", "100;w=21600"),
    ("ratelimit-remaining", "76;w=21600"),
    ("docker-ratelimit-source", "192.0.2.1"),
];

fn send(proxy: &Proxy, registry: &Registry, method: &str, path: &str) -> Response {
    let url = format!("https://{}/v2/{ALPINE}/{path}", registry.host());
    proxy.client().send(&Request::new(method, url).header("Accept", MANIFEST)).unwrap()
}

/// Says on every manifest how many pulls are left.
fn count_pulls(registry: &Registry) {
    let fields = QUOTA.map(|(name, value)| Fault::Header(name, value.to_owned()));
    registry.faults(On::path("/manifests/"), fields.to_vec(), 100);
}

#[test]
fn who_asks_for_a_manifest_is_told_of_the_quota() {
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    count_pulls(&registry);
    let proxy = in_front_of(&registry);
    // Described, fetched, and from the store.
    for (method, count) in [("HEAD", 1), ("GET", 2), ("HEAD", 1)] {
        for _ in 0..count {
            let answer = send(&proxy, &registry, method, "manifests/1");
            for (name, value) in QUOTA {
                assert_eq!(answer.headers.get(name), Some(value), "{method} {name}");
            }
        }
    }
    // What the registry was not asked for it has said nothing about.
    let digest = registry.tagged(ALPINE, "1").unwrap();
    let kept = send(&proxy, &registry, "GET", &format!("manifests/{digest}"));
    assert_eq!(kept.headers.get("ratelimit-remaining"), None);
}

#[test]
fn a_signed_manifest_has_its_payloads_digest() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    let payload = "{\n   \"schemaVersion\": 1\n}";
    let length = payload.len() - 2;
    let tail = URL_SAFE_NO_PAD.encode("\n}");
    let protected = format!(r#"{{"formatLength":{length},"formatTail":"{tail}"}}"#);
    let protected = URL_SAFE_NO_PAD.encode(protected);
    let head = &payload[..length];
    let signed = format!("{head},\n   \"signatures\": [{{\"protected\": \"{protected}\"}}]\n}}");
    let digest = digest_of(payload.as_bytes());
    let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let answer = |body: &str| {
        Fault::Answer(
            Response::new(200)
                .header("Content-Type", kind)
                .header("Docker-Content-Digest", &digest)
                .body(body.to_owned()),
        )
    };
    registry.fault_always(On::path("/manifests/"), answer(&signed));
    for path in ["manifests/old".to_owned(), format!("manifests/{digest}")] {
        for _ in 0..2 {
            let got = send(&proxy, &registry, "GET", &path);
            assert_eq!((got.status, got.text()), (200, signed.clone()), "{path}");
        }
    }
    registry.heal();
    registry.fault_always(On::path("/manifests/"), answer(&signed.replace('1', "2")));
    assert_eq!(send(&proxy, &registry, "GET", &format!("manifests/{digest}")).status, 502);
}

#[test]
fn a_listing_without_a_length_is_kept() {
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let proxy = in_front_of(&registry);
    let stranger = send(&proxy, &registry, "GET", "tags/list");
    let status = stranger.headers.get("cache-status");
    assert_eq!(status, Some("entrepot; fwd=miss"), "nobody would be served by it");
    proxy.puller().pull(ALPINE, "1").unwrap();
    registry.fault_always(On::path("/tags/list"), Fault::Chunked);
    let first = send(&proxy, &registry, "GET", "tags/list");
    registry.forget_requests();
    let second = send(&proxy, &registry, "GET", "tags/list");
    assert_eq!((second.status, &second.body), (200, &first.body));
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
    assert!(first.headers.get("cache-status").unwrap().contains("stored"));
}

#[test]
fn a_listing_that_is_too_long_to_keep_is_passed_on_whole() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    let tags: Vec<_> = (0..400_000).map(|n| format!("\"v1.{n:010}\"")).collect();
    let body = format!("{{\"name\":\"a\",\"tags\":[{}]}}", tags.join(","));
    let answer = Response::new(200).header("Content-Type", "application/json").body(body.clone());
    for framing in [None, Some(Fault::Chunked)] {
        registry.heal();
        registry.fault_always(On::path("/tags/list"), Fault::Answer(answer.clone()));
        if let Some(framing) = framing {
            registry.fault_always(On::path("/tags/list"), framing);
        }
        let got = send(&proxy, &registry, "GET", "tags/list");
        assert_eq!(got.body.len(), body.len());
        assert_eq!(got.headers.get("cache-status"), Some("entrepot; fwd=miss"));
    }
}

#[test]
fn a_filter_is_the_clients_to_apply_while_the_registry_is_away() {
    let registry = Registry::open();
    let image = Image::random(1, 1000);
    registry.push(ALPINE, "1", &image);
    let signature = image.referrer("application/vnd.example.signature");
    registry.push_manifest(ALPINE, &signature);
    let mut proxy = in_front_of(&registry);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    let all = format!("referrers/{}", image.manifest.digest);
    let listed = send(&proxy, &registry, "GET", &all);
    proxy.restart(entrepot_testkit::proxy::Signal::TERM);
    registry.fault_always(On::path("/v2/"), Fault::status(503));
    let filtered = format!("{all}?artifactType=application%2Fvnd.example.signature");
    let answer = send(&proxy, &registry, "GET", &filtered);
    assert_eq!((answer.status, &answer.body), (200, &listed.body));
    assert_eq!(answer.headers.get("content-type"), Some(INDEX));
    assert_eq!(answer.headers.get("oci-filters-applied"), None);
}

#[test]
fn a_blob_that_its_storage_calls_encoded_is_the_blob() {
    for coding in ["x-gzip", "gzip", "aws-chunked"] {
        let (registry, proxy, blob) = one_layer(50_000);
        let fault = Fault::Header("content-encoding", coding.to_owned());
        registry.fault_always(On::get("/blobs/"), fault);
        let path = format!("blobs/{}", blob.digest);
        let first = send(&proxy, &registry, "GET", &path);
        assert_eq!((first.status, &first.body), (200, &blob.bytes), "{coding}");
        assert_eq!(first.headers.get("content-encoding"), None, "{coding}");
        proxy.wait_until_kept(&blob.digest);
    }
}

#[test]
fn one_limit_speaks_for_what_it_is_about() {
    let registry = Registry::open();
    let image = Image::random(3, 1000);
    registry.push(ALPINE, "1", &image);
    let proxy = in_front_of(&registry);
    let answer = Response::new(429).header("Retry-After", "300").body("");
    registry.fault_always(On::get("/manifests/"), Fault::Answer(answer));
    assert_eq!(send(&proxy, &registry, "GET", "manifests/1").status, 429);
    let again = send(&proxy, &registry, "GET", "manifests/1");
    assert_eq!(again.status, 429);
    assert_eq!(registry.requests().manifest_gets().len(), 1, "it is held back");
    // Neither is counted by the Hub.
    assert_eq!(send(&proxy, &registry, "HEAD", "manifests/1").status, 200);
    for layer in &image.layers {
        let path = format!("blobs/{}", layer.digest);
        assert_eq!(send(&proxy, &registry, "GET", &path).body, layer.bytes);
    }
}

#[test]
fn errors_of_one_repository_are_not_anothers() {
    let registry = Registry::open();
    let image = Image::random(1, 1000);
    registry.push(ALPINE, "1", &image);
    registry.push("library/other", "1", &image);
    let proxy = in_front_of(&registry);
    registry.fault_always(On::path("/blobs/"), Fault::status(500));
    registry.fault_always(On::path("/library/broken/"), Fault::status(503));
    for n in 0..6 {
        let digest = digest_of(format!("{n}").as_bytes());
        assert!(send(&proxy, &registry, "GET", &format!("blobs/{digest}")).status >= 500);
        let url = format!("https://{}/v2/library/broken/manifests/{n}", registry.host());
        assert!(proxy.client().get(&url).unwrap().status >= 500);
    }
    for repository in [ALPINE, "library/other"] {
        for _ in 0..3 {
            let url = format!("https://{}/v2/{repository}/manifests/1", registry.host());
            assert_eq!(proxy.client().get(&url).unwrap().status, 200, "{repository}");
        }
    }
}
