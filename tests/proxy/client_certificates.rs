//! The operator's client certificates serve pulls of the registry that they are for: whoever
//! reaches the proxy may pull by them, and nothing else goes out under them.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use entrepot_testkit::proxy::Signal;
use entrepot_testkit::tls::Versions;
use entrepot_testkit::{Image, Leaf, Proxy, Registry, Request, Response, Server, TestCa};
use tempfile::TempDir;

use crate::{ALPINE, BINARY};

const HOST: &str = "r.example";
const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// A registry that takes certificates, with what it was asked; and another one beside it.
struct World {
    seen: Arc<Mutex<Vec<Request>>>,
    proxy: Proxy,
    _servers: Vec<Server>,
    _directory: TempDir,
}

fn write_certificate(directory: &Path, ca: &TestCa, mine: &Leaf) {
    let host = directory.join(HOST);
    fs::create_dir_all(&host).unwrap();
    fs::write(host.join("ca.crt"), ca.pem()).unwrap();
    fs::write(host.join("mine.cert"), mine.certificate_pem()).unwrap();
    fs::write(host.join("mine.key"), mine.key_pem()).unwrap();
}

/// Neither answers with anything that could be kept: each request gets there.
fn world(
    answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
    other: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> World {
    let (ca, clients) = (TestCa::new("upstreams"), TestCa::new("clients"));
    let seen = Arc::<Mutex<Vec<Request>>>::default();
    let noted = seen.clone();
    let registry = Server::asking(ca.leaf(&[HOST]), &clients, move |request: &Request| {
        noted.lock().unwrap().push(request.clone());
        answer(request)
    });
    let beside = Server::https(ca.leaf(&["evil.example"]), other);
    let directory = tempfile::tempdir().unwrap();
    write_certificate(directory.path(), &ca, &clients.leaf(&["robot"]));
    let proxy = Proxy::builder(BINARY)
        .trusting(&ca)
        .config(&format!("intercept = [\"{HOST}\", \"evil.example\"]"))
        .upstream(&format!("certs-dir = \"{}\"", directory.path().display()))
        .connect_to(&format!("{HOST}:443:{}", registry.address()))
        .connect_to(&format!("evil.example:443:{}", beside.address()))
        .start();
    World { seen, proxy, _servers: vec![registry, beside], _directory: directory }
}

impl World {
    /// Whether the registry was asked for this under the certificate; it must have been asked.
    #[track_caller]
    fn was_certified(&self, method: &str, target: &str) -> bool {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        let told: Vec<_> = seen.iter().map(|one| (&one.method, &one.target)).collect();
        let is_it = |one: &&Request| one.method == method && one.target == target;
        let answers: Vec<_> = seen.iter().filter(is_it).map(|one| one.is_certified).collect();
        assert!(!answers.is_empty(), "no {method} {target} in {told:?}");
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        answers[0]
    }
}

fn nothing(_: &Request) -> Response {
    Response::new(404)
}

#[test]
fn a_certificate_goes_with_pulls_alone() {
    let world = world(nothing, nothing);
    let blob = format!("/v2/app/blobs/{DIGEST}");
    let manifest = format!("/v2/app/manifests/{DIGEST}");
    let referrers = format!("/v2/app/referrers/{DIGEST}");
    let cases = [
        ("GET", "/v2/", true),
        ("GET", "/v2/app/manifests/v1", true),
        ("PUT", "/v2/app/manifests/v1", false),
        ("GET", &blob, true),
        ("POST", "/v2/app/blobs/uploads/", false),
        ("HEAD", &blob, true),
        ("PATCH", "/v2/app/blobs/uploads/1", false),
        ("GET", &manifest, true),
        ("DELETE", &manifest, false),
        ("DELETE", &blob, false),
        ("GET", "/v2/app/tags/list?n=2", true),
        ("PUT", "/v2/app/tags/list", false),
        ("GET", &referrers, true),
        ("GET", "/v2/_catalog", false),
        ("GET", "/v2/app/blobs/uploads/1", false),
        ("GET", "/v2/app/manifests/v1?x=y", false),
        ("GET", "/v2/app/manif%65sts/v1", false),
        ("GET", "/api/v2.0/users", false),
        ("HEAD", "/api/v2.0/users", false),
        ("POST", "/v2/", false),
        ("POST", "/v2/app/manifests/v1", false),
        ("OPTIONS", "/v2/app/manifests/v1", false),
        ("PROPFIND", "/v2/app/manifests/v1", false),
    ];
    for authorization in [None, Some("Basic YTpi")] {
        for door in ["https://r.example", "http://r.example:443"] {
            for (method, path, expected) in cases {
                let what = format!("{method} {door}{path}, {authorization:?}");
                let mut request = Request::new(method, format!("{door}{path}"));
                if let Some(value) = authorization {
                    request = request.header("Authorization", value);
                }
                if matches!(method, "PUT" | "PATCH") {
                    request = request.body("abc");
                }
                world.proxy.client().send(&request).unwrap();
                if path == "/v2/" && method == "GET" && authorization.is_none() {
                    // It may be known.
                    continue;
                }
                assert_eq!(world.was_certified(method, path), expected, "{what}");
            }
        }
    }
    for path in ["manifests/v1".to_owned(), format!("blobs/{DIGEST}")] {
        world.proxy.client().get(&format!("/v2/{HOST}/app/{path}")).unwrap();
        assert!(world.was_certified("GET", &format!("/v2/app/{path}")), "by the mirror: {path}");
    }
    let warned = ["warn", "everyone who reaches this proxy may pull", HOST];
    world.proxy.wait_for_log(&warned);
}

/// A method or path of another request, which some servers take from a field, does not come along.
#[test]
fn no_field_makes_something_else_of_a_pull() {
    let world = world(nothing, nothing);
    let odd = ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Original-URL", "X-Rewrite-URL"];
    let mut request = Request::get(format!("https://{HOST}/v2/app/manifests/v1"))
        .header("Authorization", "Basic YTpi")
        .header("Accept", "x/y");
    for name in odd {
        request = request.header(name, "DELETE");
    }
    world.proxy.client().send(&request).unwrap();
    let seen = world.seen.lock().unwrap();
    let asked = seen.iter().filter(|one| one.target == "/v2/app/manifests/v1");
    for one in asked {
        assert!(one.is_certified);
        assert_eq!(one.headers.get("authorization"), Some("Basic YTpi"));
        assert_eq!(one.headers.get("accept"), Some("x/y"));
        assert!(odd.iter().all(|name| one.headers.get(name).is_none()), "{:?}", one.headers);
    }
}

#[test]
fn nobody_else_leads_to_a_place_under_the_certificate() {
    let evil = |request: &Request| match request.path() {
        path if path.contains("/blobs/") => {
            Response::new(307).header("Location", format!("https://{HOST}/api/v2.0/users"))
        }
        path if path.contains("/manifests/") || path == "/v2/" => Response::new(401).header(
            "WWW-Authenticate",
            format!("Bearer realm=\"https://{HOST}/api/v2.0/token\",service=\"x\""),
        ),
        _ => Response::new(404),
    };
    let world = world(nothing, evil);
    let client = world.proxy.client();
    let get = |path: &str| client.get(&format!("https://evil.example{path}")).unwrap();
    get("/v2/app/manifests/v1");
    let seen = std::mem::take(&mut *world.seen.lock().unwrap());
    let at_realm: Vec<_> = seen.iter().filter(|one| one.path() == "/api/v2.0/token").collect();
    assert!(!at_realm.is_empty() && at_realm.iter().all(|one| !one.is_certified));
    get(&format!("/v2/app/blobs/{DIGEST}"));
    assert!(!world.was_certified("GET", "/api/v2.0/users"));
    let own = Request::get("https://evil.example/entrepot/token?service=x")
        .header("Authorization", "Basic YTpi");
    client.send(&own).unwrap();
    let seen = world.seen.lock().unwrap();
    assert!(!seen.is_empty() && seen.iter().all(|one| !one.is_certified), "a login is a client's");
}

/// What the registry itself needs for a pull: storage of its own, and tokens that are for pulls.
#[test]
fn a_pull_is_one_to_its_end() {
    let answer = |request: &Request| match request.path() {
        "/token" => Response::new(200).body(r#"{"token":"t"}"#),
        path if path.starts_with("/storage/") => Response::new(200).body("test"),
        _ if request.headers.get("authorization") != Some("Bearer t") => Response::new(401).header(
            "WWW-Authenticate",
            format!("Bearer realm=\"https://{HOST}/token\",service=\"x\""),
        ),
        path => Response::new(307).header("Location", path.replace("/v2/", "/storage/")),
    };
    let world = world(answer, nothing);
    let url = format!("https://{HOST}/v2/app/blobs/{DIGEST}");
    let response = world.proxy.client().get(&url).unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "test"));
    let seen = world.seen.lock().unwrap();
    assert!(seen.iter().any(|one| one.path() == "/token"));
    assert!(seen.iter().any(|one| one.path().starts_with("/storage/")));
    assert!(seen.iter().all(|one| one.is_certified), "{seen:?}");
}

/// A registry that wants a certificate of everybody hears of nothing but pulls, and others' wishes
/// keep nobody from pulling.
#[test]
fn a_push_without_a_certificate_is_explained_and_holds_up_nobody() {
    for versions in [Versions::Tls12, Versions::Tls13] {
        let (ca, clients) = (TestCa::new("upstreams"), TestCa::new("clients"));
        let leaf = ca.leaf(&[HOST]);
        let registry =
            Server::demanding(leaf, &clients, versions, |_: &Request| Response::new(200));
        let directory = tempfile::tempdir().unwrap();
        write_certificate(directory.path(), &ca, &clients.leaf(&["robot"]));
        let proxy = Proxy::builder(BINARY)
            .config(&format!("intercept = [\"{HOST}\"]"))
            .upstream(&format!("certs-dir = \"{}\"", directory.path().display()))
            .connect_to(&format!("{HOST}:443:{}", registry.address()))
            .start();
        for (method, path) in
            [("GET", "/v2/_catalog"), ("PUT", "/v2/app/manifests/v1"), ("GET", "/v2/_catalog")]
        {
            let request = Request::new(method, format!("https://{HOST}{path}"));
            let refused = proxy.client().send(&request).unwrap();
            assert_eq!(refused.status, 502, "{versions:?} {method} {path}: {}", refused.text());
            let message = refused.oci_error();
            assert!(message.contains("serves pulls alone"), "{versions:?} {message}");
        }
        let pulled = proxy.client().get(&format!("https://{HOST}/v2/app/tags/list")).unwrap();
        assert_eq!(pulled.status, 200, "{versions:?}: {}", pulled.text());
    }
}

#[test]
fn another_certificate_has_to_earn_what_the_last_one_had() {
    let clients = TestCa::new("clients");
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 10_000));
    let directory = tempfile::tempdir().unwrap();
    let host = directory.path().join("docker.io");
    fs::create_dir_all(&host).unwrap();
    let write = |leaf: &Leaf| {
        fs::write(host.join("a.cert"), leaf.certificate_pem()).unwrap();
        fs::write(host.join("a.key"), leaf.key_pem()).unwrap();
    };
    write(&clients.leaf(&["robot"]));
    let mut proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .upstream(&format!("certs-dir = \"{}\"", directory.path().display()))
        .start();
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), pulled.blobs[0].digest);
    let asked = |proxy: &Proxy| {
        registry.forget_requests();
        assert_eq!(proxy.client().get(&url).unwrap().status, 200);
        registry.requests().path("/blobs/").len() + registry.requests().path("/manifests/").len()
    };
    proxy.restart(Signal::TERM);
    assert_eq!(asked(&proxy), 0, "the same as before");
    write(&clients.leaf(&["robot"]));
    proxy.restart(Signal::TERM);
    assert_ne!(asked(&proxy), 0, "somebody else");
}
