//! The same registries for clients that take the proxy for a mirror: no CONNECT, no CA.

use std::fs;

use entrepot_testkit::canary::assert_no_canary;
use entrepot_testkit::image::digest_of;
use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{Access, Image, Proxy, Registry, Request, Response, User};

use crate::{ALPINE, BINARY, PRIVATE, in_front_of};

const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json";

fn get(proxy: &Proxy, target: &str) -> Response {
    proxy.client().send(&Request::get(target).header("Accept", ACCEPT)).unwrap()
}

fn cache_status(response: &Response) -> &str {
    response.headers.get("cache-status").unwrap_or_default()
}

fn registry_at(host: &str, access: Access) -> (Registry, Image) {
    let registry =
        Registry::builder().hosts(host, "auth.example", "storage.example").access(access).start();
    let image = Image::random(2, 20_000);
    for repository in [ALPINE, PRIVATE] {
        registry.push(repository, "1", &image);
    }
    (registry, image)
}

/// Pulls as an engine does from a mirror: `path` is that of a repository there.
#[track_caller]
fn pull(proxy: &Proxy, path: &str, query: &str, image: &Image) -> Vec<Response> {
    assert_eq!(get(proxy, &format!("/v2/{query}")).status, 200);
    let manifest = get(proxy, &format!("{path}/manifests/1{query}"));
    assert_eq!(manifest.status, 200, "{}", manifest.text());
    assert_eq!(digest_of(&manifest.body), image.manifest.digest);
    let mut answers = vec![manifest];
    for blob in image.blobs() {
        let answer = get(proxy, &format!("{path}/blobs/{}{query}", blob.digest));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(digest_of(&answer.body), blob.digest);
        answers.push(answer);
    }
    answers
}

#[test]
fn docker_hub_is_what_a_path_alone_means() {
    let registry = Registry::open();
    let image = Image::random(2, 20_000);
    registry.push(ALPINE, "1", &image);
    let proxy = in_front_of(&registry);
    pull(&proxy, &format!("/v2/{ALPINE}"), "", &image);
    for blob in image.blobs() {
        proxy.wait_until_kept(&blob.digest);
    }
    registry.forget_requests();
    let again = pull(&proxy, "/v2/alpine", "", &image);
    assert!(again.iter().all(|answer| cache_status(answer).ends_with("hit")), "{again:?}");
    assert!(registry.requests().blob_gets().is_empty());
    // One store: what a mirror has brought, a proxy has.
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    assert!(pulled.blobs.iter().all(|blob| blob.cache_status().ends_with("hit")));
    assert!(registry.requests().blob_gets().is_empty());
    proxy.wait_for_log(&["HIT", "docker.io", ALPINE, "blob"]);
}

#[test]
fn a_namespace_is_answered_and_goes_no_further() {
    let (registry, image) = registry_at("registry.corp", Access::bearer([]).anonymous(ALPINE));
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .config("intercept-also = [\"registry.corp\"]")
        .start();
    for answer in pull(&proxy, &format!("/v2/{ALPINE}"), "?ns=registry.corp", &image) {
        assert_eq!(answer.headers.get("oci-namespace"), Some("registry.corp"));
    }
    let requests = registry.requests();
    assert!(
        requests.iter().all(|request| !request.target.contains("ns=")),
        "{}",
        requests.summary()
    );
    let tags = get(&proxy, &format!("/v2/{ALPINE}/tags/list?n=5&ns=registry.corp"));
    assert_eq!(tags.status, 200, "{}", tags.text());
}

#[test]
fn a_path_may_name_the_registry() {
    let (registry, image) = registry_at("registry.corp", Access::bearer([]).anonymous(ALPINE));
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .config("intercept-also = [\"registry.corp\"]")
        .start();
    let answers = pull(&proxy, &format!("/v2/registry.corp/{ALPINE}"), "", &image);
    assert!(answers.iter().all(|answer| answer.headers.get("oci-namespace").is_none()));
    proxy.wait_for_log(&["MISS", "registry.corp", ALPINE, "blob"]);
}

#[test]
fn a_clients_credential_ends_at_the_mirror() {
    let alice = User::new("alice").pulls(PRIVATE);
    let (registry, _) = registry_at("registry.corp", Access::bearer([alice.clone()]));
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .config("intercept-also = [\"registry.corp\"]")
        .env("RUST_LOG", "trace")
        .start();
    let target = format!("/v2/{PRIVATE}/manifests/1?ns=registry.corp");
    for credential in [alice.basic(), format!("Bearer {}", alice.password)] {
        let request = Request::get(&target).header("Authorization", &credential);
        let answer = proxy.client().send(&request).unwrap();
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert!(answer.text().contains("HTTPS_PROXY"), "{}", answer.text());
        assert_eq!(answer.headers.get("www-authenticate"), None, "nobody is to bring another");
        for request in registry.requests().iter() {
            assert_ne!(request.authorization(), Some(credential.as_str()));
        }
    }
    assert_no_canary(&proxy);
}

#[test]
fn what_the_proxy_itself_may_pull_is_open() {
    let robot = User::new("robot").pulls(PRIVATE);
    let table = format!(
        "[[registry]]\nhost = \"registry.corp\"\nusername = \"robot\"\npassword = {:?}",
        robot.password
    );
    let (registry, image) = registry_at("registry.corp", Access::basic([robot]));
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).tables(&table).start();
    pull(&proxy, &format!("/v2/{PRIVATE}"), "?ns=registry.corp", &image);
}

#[test]
fn only_known_registries_are_mirrored() {
    let proxy = Proxy::builder(BINARY).start();
    let paths = [
        "/v2/library/alpine/manifests/1?ns=unknown.example",
        "/v2/unknown.example/library/alpine/manifests/1",
        "/v2/127.0.0.1:3129/healthz/manifests/1",
    ];
    for path in paths {
        let answer = get(&proxy, path);
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.text().contains("intercept-also"), "{}", answer.text());
    }
    for path in ["/v2/_catalog", "/v2/x", "/v2/a/b/blobs/uploads/", "/v2/ghcr.io/"] {
        assert_eq!(get(&proxy, path).status, 404, "{path}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let push = Request::new(method, "/v2/library/alpine/blobs/uploads/").body("x");
        assert_eq!(proxy.client().send(&push).unwrap().status, 405, "{method}");
    }
}

#[test]
fn users_are_asked_for_and_are_nobody_at_the_registry() {
    let alice = User::new("alice");
    let registry = Registry::open();
    let image = Image::random(1, 10_000);
    registry.push(ALPINE, "1", &image);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("users");
    let hash = bcrypt::hash(&alice.password, 4).unwrap();
    fs::write(&file, format!("{}:{hash}\n", alice.name)).unwrap();
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .tables(&format!("[access]\nhtpasswd = {:?}", file.display().to_string()))
        .start();
    let manifest = format!("/v2/{ALPINE}/manifests/1");
    for path in ["/v2/", &manifest] {
        let answer = get(&proxy, path);
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.headers.get("www-authenticate"), Some("Basic realm=\"entrepot\""));
        let with = Request::get(path).header("Authorization", alice.basic());
        assert_eq!(proxy.client().send(&with).unwrap().status, 200, "{path}");
    }
    let requests = registry.requests();
    assert!(!requests.is_empty());
    for request in requests.iter() {
        assert_ne!(request.authorization(), Some(alice.basic().as_str()));
    }
}

/// A page of the Web whose name has been led here is, to a browser, of the same origin as the
/// mirror: without a credential it could read what the proxy's own opens.
#[test]
fn a_web_page_whose_name_is_led_here_reads_nothing() {
    let robot = User::new("robot").pulls(PRIVATE);
    let table = format!(
        "[[registry]]\nhost = \"registry.corp\"\nusername = \"robot\"\npassword = {:?}",
        robot.password
    );
    let (registry, image) = registry_at("registry.corp", Access::basic([robot]));
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .config("external-url = \"http://proxy.corp:3128\"\nmirror-names = [\"*.cache.corp\"]")
        .tables(&table)
        .start();
    let blob = format!("/v2/registry.corp/{PRIVATE}/blobs/{}", image.layers[0].digest);
    let port = proxy.address().port();
    let to = |target: &str, host: &str| Request::get(target).header("Host", host.to_owned());
    let send = |request: Request| proxy.client().send(&request).unwrap();
    let own = format!("127.0.0.1:{port}");
    for host in [&own, "localhost", "cache:3128", "proxy.corp:3128", "a.cache.corp", "[::1]:3128"] {
        assert_eq!(send(to(&blob, host)).status, 200, "{host}");
    }
    let rebound = format!("rebound.evil.example:{port}");
    let manifest = format!("/v2/{PRIVATE}/manifests/1?ns=registry.corp");
    let targets = ["/v2/", "/v2", &blob, &manifest];
    for target in targets {
        for host in [&rebound, "registry.corp", "127.0.0.1.evil.example", "a.b.cache.corp"] {
            let answer = send(to(target, host).header("Origin", format!("http://{host}")));
            assert_eq!(answer.status, 403, "{host}");
            let answer = send(to(target, host));
            assert_eq!(answer.status, 403, "{host}");
            assert!(answer.text().contains("mirror-names"), "{}", answer.text());
            assert!(answer.headers.get("cache-status").is_none());
            assert_eq!(answer.json()["errors"][0]["code"], "DENIED");
        }
        let by_page = |name, value| send(to(target, &own).header(name, value)).status;
        assert_eq!(by_page("Origin", "http://evil.example"), 403, "{target}");
        assert_eq!(by_page("Origin", "null"), 403, "{target}");
        assert_eq!(by_page("Sec-Fetch-Site", "cross-site"), 403, "{target}");
        assert_eq!(by_page("Sec-Fetch-Site", "same-origin"), 403, "{target}");
        assert_ne!(by_page("Sec-Fetch-Site", "none"), 403, "a person has typed it");
    }
    proxy.wait_for_log(&["DENIED", "GET", "rebound.evil.example"]);
    for page in ["/healthz", "/ca.crt", "/setup/containerd", "/"] {
        assert_eq!(send(to(page, &rebound)).status, 200, "{page} is everybody's");
    }
}

#[test]
fn names_of_the_mirror_change_while_it_runs() {
    let proxy = Proxy::builder(BINARY).config("mirror-names = [\"one.corp\"]").start();
    let status = |host: &str| {
        proxy.client().send(&Request::get("/v2/").header("Host", host)).unwrap().status
    };
    assert_eq!((status("one.corp"), status("two.corp")), (200, 403));
    let file = proxy.config_file();
    let text = fs::read_to_string(&file).unwrap().replace("one.corp", "two.corp");
    fs::write(&file, text).unwrap();
    proxy.signal(Signal::HUP);
    proxy.wait_for_log(&["the configuration was read again"]);
    assert_eq!((status("one.corp"), status("two.corp")), (403, 200));
}
