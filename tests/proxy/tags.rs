//! A tag costs the registry one HEAD for all who ask, and none within its `tag-ttl`.

use entrepot_testkit::image::{INDEX, MANIFEST};
use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{Access, Fault, Gate, Image, On, Proxy, Registry, Request, Response, Role};

use crate::{ALPINE, BINARY, in_front_of};

fn registry() -> (Registry, Image) {
    let registry = Registry::open();
    let image = Image::random(1, 10_000);
    registry.push(ALPINE, "latest", &image);
    (registry, image)
}

fn with(registry: &Registry, config: &str) -> Proxy {
    Proxy::builder(BINARY).in_front_of(registry).config(config).start()
}

fn tag(registry: &Registry, method: &str) -> Request {
    let url = format!("https://{}/v2/{ALPINE}/manifests/latest", registry.host());
    Request::new(method, url).header("Accept", format!("{MANIFEST}, {INDEX}"))
}

#[track_caller]
fn send(proxy: &Proxy, request: &Request) -> Response {
    proxy.client().send(request).unwrap()
}

fn tag_requests(registry: &Registry) -> usize {
    registry.requests().to(Role::Registry).path("/manifests/latest").len()
}

#[test]
fn within_its_ttl_a_tag_costs_nothing() {
    let (registry, image) = registry();
    let mut proxy = with(&registry, "tag-ttl = \"1h\"");
    let pulled = proxy.puller().pull(ALPINE, "latest").unwrap();
    proxy.wait_until_all_kept(&pulled);
    proxy.puller().pull(ALPINE, "latest").unwrap();
    assert_eq!(tag_requests(&registry), 1, "{}", registry.requests().summary());
    for method in ["GET", "HEAD"] {
        let answer = send(&proxy, &tag(&registry, method));
        assert_eq!(answer.headers.get("docker-content-digest"), Some(&*image.manifest.digest));
        assert_eq!(answer.headers.get("content-type"), Some(&*image.manifest.media_type));
        let length = image.manifest.bytes.len().to_string();
        assert_eq!(answer.headers.get("content-length"), Some(&*length), "{method}");
        assert_eq!(answer.headers.get("cache-status"), Some("entrepot; hit"), "{method}");
    }
    proxy.restart(Signal::TERM);
    proxy.puller().pull(ALPINE, "latest").unwrap();
    assert_eq!(tag_requests(&registry), 1, "after a restart as well");
}

#[test]
fn a_tag_is_learnt_from_the_body_where_no_head_names_its_digest() {
    let (mut registry, image) = registry();
    let nameless = Response::new(200).header("Content-Type", MANIFEST);
    registry.fault_always(On::head("/manifests/latest"), Fault::Answer(nameless));
    let mut proxy = with(&registry, "");
    let pulled = proxy.puller().pull(ALPINE, "latest").unwrap();
    proxy.wait_until_all_kept(&pulled);
    let listed = crate::images::told(&proxy, &["ls", "alpine:latest"]);
    assert_eq!(listed["images"][0]["digest"], image.manifest.digest, "{listed}");
    registry.stop();
    proxy.restart(Signal::TERM);
    proxy.puller().pull(ALPINE, "latest").unwrap();
}

#[test]
fn patterns_give_tags_a_ttl_of_their_own() {
    let (registry, image) = registry();
    registry.push(ALPINE, "v1", &image);
    let table = "[[registry]]\nhost = \"docker.io\"\n\
                 tag-ttl = [{ tag = \"v*\", ttl = \"60d\" }, { tag = \"latest\", ttl = \"0s\" }]";
    let builder = Proxy::builder(BINARY).in_front_of(&registry).config("tag-ttl = \"1h\"");
    let proxy = builder.tables(table).start();
    for _ in 0..3 {
        proxy.puller().pull(ALPINE, "v1").unwrap();
        proxy.puller().pull(ALPINE, "latest").unwrap();
    }
    let asked = |tag: &str| registry.requests().method("HEAD").path(tag).len();
    assert_eq!((asked("/manifests/v1"), asked("/manifests/latest")), (1, 3));
}

#[test]
fn nodes_that_ask_together_cost_one_head_one_get_a_manifest_and_one_download_a_blob() {
    const NODES: usize = 100;
    let (registry, image) = registry();
    let proxy = in_front_of(&registry);
    let gate = Gate::new();
    registry.fault(On::head("/manifests/latest"), Fault::SlowHead(gate.clone()));
    // What the ping asks is not the matter here.
    proxy.puller().visit(ALPINE).unwrap();
    registry.forget_requests();
    std::thread::scope(|scope| {
        let nodes: Vec<_> = (0..NODES)
            .map(|_| scope.spawn(|| proxy.puller().pull(ALPINE, "latest").unwrap()))
            .collect();
        gate.wait_until_reached(1);
        gate.open();
        for node in nodes {
            assert_eq!(node.join().unwrap().blobs[1].response.body, image.layers[0].bytes);
        }
    });
    let requests = registry.requests();
    // Who comes late asks again: each HEAD is shared by those who ask while it is under way.
    assert!(requests.manifest_heads().len() <= NODES / 4, "{}", requests.summary());
    assert_eq!(requests.manifest_gets().len(), 1, "{}", requests.summary());
    assert_eq!(requests.blob_gets().len(), 2, "{}", requests.summary());
}

#[test]
fn a_tag_that_has_moved_costs_one_head_and_one_get() {
    let (registry, _) = registry();
    let proxy = in_front_of(&registry);
    proxy.puller().pull(ALPINE, "latest").unwrap();
    let newer = Image::random(1, 10_000);
    registry.push(ALPINE, "latest", &newer);
    registry.forget_requests();
    let pulled = proxy.puller().pull(ALPINE, "latest").unwrap();
    assert_eq!(pulled.manifests[0].digest, newer.manifest.digest);
    let requests = registry.requests();
    assert_eq!(requests.manifest_heads().len(), 1, "{}", requests.summary());
    assert_eq!(requests.manifest_gets().len(), 1, "{}", requests.summary());
}

#[test]
fn variants_for_different_clients_do_not_mix() {
    let (registry, _) = registry();
    let proxy = with(&registry, "tag-ttl = \"1h\"");
    let url = format!("https://{}/v2/{ALPINE}/manifests/latest", registry.host());
    let accepts = ["application/vnd.oci.image.manifest.v1+json", "application/json", ""];
    for accept in accepts {
        let request = Request::head(&url).header("Accept", accept);
        send(&proxy, &request);
        send(&proxy, &request);
    }
    let accept = "Application/vnd.oci.image.manifest.v1+json ";
    send(&proxy, &Request::head(&url).header("Accept", accept));
    assert_eq!(tag_requests(&registry), accepts.len(), "{}", registry.requests().summary());
}

#[test]
fn a_deleted_tag_is_gone_unless_the_operator_says_otherwise() {
    for (config, expected) in [("", 404), ("keep-deleted = true", 200)] {
        let (registry, image) = registry();
        let proxy = with(&registry, config);
        let pulled = proxy.puller().pull(ALPINE, "latest").unwrap();
        proxy.wait_until_all_kept(&pulled);
        registry.untag(ALPINE, "latest");
        let answer = send(&proxy, &tag(&registry, "GET"));
        assert_eq!(answer.status, expected, "{config}");
        if expected == 200 {
            assert_eq!(answer.body, image.manifest.bytes);
            proxy.wait_for_log(&["STALE", "keep-deleted"]);
            continue;
        }
        // The record is dropped: a registry that fails now has nothing that stands in for it.
        registry.fault_always(On::path("/manifests/"), Fault::status(500));
        assert_eq!(send(&proxy, &tag(&registry, "GET")).status, 500);
    }
}

#[test]
fn the_last_pulls_of_a_quota_are_not_spent_on_a_tag_that_is_held() {
    let (registry, old) = registry();
    let proxy = in_front_of(&registry);
    let pulled = proxy.puller().pull(ALPINE, "latest").unwrap();
    proxy.wait_until_all_kept(&pulled);
    let newer = Image::random(1, 10_000);
    registry.push(ALPINE, "latest", &newer);
    let few = Fault::Header("RateLimit-Remaining", "5;w=21600".to_owned());
    registry.fault_always(On::path("/manifests/"), few);
    registry.forget_requests();
    let answer = send(&proxy, &tag(&registry, "GET"));
    assert_eq!(answer.body, old.manifest.bytes);
    assert_eq!(answer.headers.get("cache-status"), Some("entrepot; hit; detail=stale"));
    assert!(registry.requests().manifest_gets().is_empty());
    proxy.wait_for_log(&["STALE", "5 pulls are left"]);

    registry.heal();
    let many = Fault::Header("RateLimit-Remaining", "6;w=21600".to_owned());
    registry.fault_always(On::path("/manifests/"), many);
    assert_eq!(send(&proxy, &tag(&registry, "GET")).body, newer.manifest.bytes);
}

#[test]
fn a_clients_own_credential_is_asked_about_before_a_fresh_tag_is_its() {
    let access = Access::bearer([]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    registry.push(ALPINE, "latest", &Image::random(1, 1000));
    let proxy = with(&registry, "tag-ttl = \"1h\"");
    proxy.puller().pull(ALPINE, "latest").unwrap();
    let made_up = tag(&registry, "GET").header("Authorization", "Bearer made-up");
    assert_eq!(send(&proxy, &made_up).status, 401);
}
