//! Redirects are followed here, without a credential and not just anywhere.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use entrepot_testkit::canary::{CANARY, assert_no_canary, contains_canary};
use entrepot_testkit::registry::HUB;
use entrepot_testkit::{
    Access, Blob, Fault, Image, On, Proxy, Puller, Redirects, Registry, Request, Response, Role,
    Server, TestCa, User,
};

use crate::{ALPINE, BINARY, PRIVATE, in_front_of};

fn redirecting(redirects: Redirects) -> (Registry, Image) {
    let registry = Registry::builder().redirects(redirects).start();
    let image = Image::random(2, 50_000);
    registry.push(ALPINE, "1", &image);
    (registry, image)
}

#[test]
fn no_credential_reaches_the_cdn() {
    let alice = User::new("alice").pulls(PRIVATE);
    let registry = Registry::builder()
        .access(Access::bearer([alice.clone()]))
        .redirects(Redirects::Cdn)
        .start();
    registry.push(PRIVATE, "1", &Image::random(2, 50_000));
    let proxy = in_front_of(&registry);
    let client = proxy.client().trusting(&registry.ca().pem());
    Puller::new(client).user(&alice).pull(PRIVATE, "1").unwrap();
    let at_cdn = registry.requests().to(Role::Cdn);
    assert_eq!(at_cdn.len(), 3, "{}", at_cdn.summary());
    assert!(at_cdn.with_authorization().is_empty());
    let secret = |name: &str| matches!(name.to_lowercase().as_str(), "cookie" | "authorization");
    assert!(at_cdn.iter().all(|request| request.headers.iter().all(|(name, _)| !secret(name))));
}

#[test]
fn a_redirected_blob_is_kept_under_its_digest() {
    let (registry, image) = redirecting(Redirects::Cdn);
    let proxy = in_front_of(&registry);
    proxy.puller().pull(ALPINE, "1").unwrap();
    // What was signed then is worthless by now: nothing may depend on it.
    registry.expire_signatures();
    registry.forget_requests();
    proxy.puller().pull(ALPINE, "1").unwrap();
    assert!(registry.requests().to(Role::Cdn).is_empty());
    image.blobs().for_each(|blob| proxy.wait_until_kept(&blob.digest));
}

#[test]
fn five_redirects_are_followed_and_no_more() {
    let (registry, image) = redirecting(Redirects::None);
    let proxy = in_front_of(&registry);
    let blob = |index: usize| proxy.puller().blob(ALPINE, &image.layers[index].digest);
    // A chain of so many at the CDN has one more before it, which leads there.
    registry.set_redirects(Redirects::Chain(4));
    blob(0).unwrap();
    for endless in [Redirects::Chain(5), Redirects::Loop] {
        registry.set_redirects(endless.clone());
        registry.forget_requests();
        let error = blob(1).unwrap_err();
        assert_eq!(error.status(), Some(502), "{endless:?}: {error}");
        assert!(error.to_string().contains("more than 5 redirects"), "{error}");
        let gets = registry.requests().method("GET").path("sha256");
        assert!(gets.len() <= 6, "{endless:?}: {}", gets.summary());
    }
}

const STORAGE: &str = "storage.example";

/// A registry that redirects, storage that it redirects to, and what the storage was asked.
struct World {
    registry: Registry,
    storage: Server,
    content: Arc<Mutex<Bytes>>,
    asked: Arc<Mutex<Vec<Request>>>,
    proxy: Proxy,
}

fn world() -> World {
    let registry = Registry::open();
    let (content, asked) = (Arc::<Mutex<Bytes>>::default(), Arc::<Mutex<Vec<Request>>>::default());
    let storage = Server::https(registry.ca().leaf(&[STORAGE, HUB, "localhost", "127.0.0.1"]), {
        let (content, asked) = (Arc::clone(&content), Arc::clone(&asked));
        move |request: &Request| {
            asked.lock().unwrap().push(request.clone());
            if request.target == "/back" {
                return Response::new(307).header("Location", format!("https://{HUB}/elsewhere"));
            }
            Response::new(200).body(content.lock().unwrap().clone())
        }
    });
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .connect_to(&format!("{STORAGE}:443:{}", storage.address()))
        .connect_to(&format!("{HUB}:444:{}", storage.address()))
        .env("RUST_LOG", "trace")
        .start();
    World { registry, storage, content, asked, proxy }
}

impl World {
    /// Asks for a new blob, with a secret in every field that may hold one, while the registry
    /// redirects with `redirect`.
    fn get(&self, redirect: Fault) -> (Blob, io::Result<Response>) {
        let blob = Image::random(1, 20_000).layers[0].clone();
        self.registry.heal();
        self.registry.forget_requests();
        self.asked.lock().unwrap().clear();
        *self.content.lock().unwrap() = blob.bytes.clone();
        let elsewhere = Fault::Answer(Response::new(200).body(blob.bytes.clone()));
        self.registry.fault_always(On::path("/elsewhere"), elsewhere);
        let path = format!("/v2/{ALPINE}/blobs/{}", blob.digest);
        self.registry.fault_always(On::get(&path), redirect);
        let request = Request::get(format!("https://{HUB}{path}"))
            .header("Authorization", format!("Bearer {CANARY}"))
            .header("Cookie", format!("session={CANARY}"))
            .header("X-Registry-Auth", CANARY)
            .header("Proxy-Authorization", format!("Basic {CANARY}"))
            .header("Referer", format!("https://{HUB}/?{CANARY}"));
        (blob, self.proxy.client().send(&request))
    }

    /// Every field with a secret in it of the requests that fit.
    fn secrets(&self, target: &str) -> Vec<String> {
        let requests = self.registry.requests().path(target);
        let fields = requests.iter().flat_map(|request| request.headers.iter());
        let secret = fields.filter(|(_, value)| contains_canary(value.as_bytes()));
        secret.map(|(name, _)| name.to_lowercase()).collect()
    }
}

#[test]
fn what_leads_to_storage_is_followed_with_nothing_secret() {
    let world = world();
    let followed = [
        (301, "https://storage.example/x"),
        (302, "https://storage.example/x"),
        (303, "https://storage.example/x"),
        (307, "https://storage.example/x"),
        (308, "https://storage.example/x"),
        (307, "https://storage.example:443/x"),
        (307, "HTTPS://STORAGE.example/x"),
        (307, "//storage.example/x"),
        (307, "https://storage.example/x#fragment"),
        (307, "https://storage.example/v2x/blobs/x"),
        (307, "https://registry-1.docker.io:444/x"),
        (307, "https://storage.example/back"),
    ];
    for (status, location) in followed {
        let (blob, response) = world.get(Fault::redirect(status, location));
        let response = response.unwrap();
        assert_eq!(response.status, 200, "{status} {location}: {}", response.text());
        assert_eq!(response.body, blob.bytes, "{status} {location}");
        let asked = world.asked.lock().unwrap().clone();
        assert_eq!(asked.len(), 1, "{status} {location}");
        assert!(!asked[0].target.contains('#'), "{}", asked[0].target);
        for (name, value) in asked[0].headers.iter() {
            assert!(!contains_canary(value.as_bytes()), "{location}: {name} went to storage");
        }
        let at_origin = world.secrets("/blobs/");
        for name in ["authorization", "cookie", "x-registry-auth", "referer"] {
            assert!(at_origin.iter().any(|came| came == name), "{location}: no {name} at all");
        }
        assert!(!at_origin.iter().any(|name| name == "proxy-authorization"), "{location}");
        assert_eq!(world.secrets("/elsewhere"), [""; 0], "{location}: what was left stays away");
    }
    assert_no_canary(&world.proxy);
}

#[test]
fn what_stays_on_the_host_keeps_its_credentials() {
    let world = world();
    let same =
        ["/elsewhere?x=1", "https://registry-1.docker.io/elsewhere", "../../../../elsewhere"];
    for location in same {
        let (blob, response) = world.get(Fault::redirect(307, location));
        assert_eq!(response.unwrap().body, blob.bytes, "{location}");
        assert!(world.secrets("/elsewhere").contains(&"authorization".to_owned()), "{location}");
        assert!(world.asked.lock().unwrap().is_empty());
    }
}

#[test]
fn another_registrys_api_is_the_clients_to_ask() {
    let world = world();
    let other = Registry::builder()
        .hosts("ghcr.io", "auth.ghcr.example", "cdn.ghcr.example")
        .ca_of(&world.registry)
        .start();
    let proxy = Proxy::builder(BINARY).in_front_of(&world.registry).in_front_of(&other).start();
    let image = Image::random(1, 1000);
    let digest = &image.layers[0].digest;
    for path in ["blobs", "manifests"] {
        let location = format!("https://ghcr.io/v2/org/app/{path}/{digest}");
        world.registry.heal();
        world.registry.fault_always(On::path(digest), Fault::redirect(307, &location));
        let request = Request::get(format!("https://{HUB}/v2/{ALPINE}/{path}/{digest}"))
            .header("Authorization", format!("Bearer {CANARY}"));
        let response = proxy.client().send(&request).unwrap();
        assert_eq!(response.status, 307, "{path}: {}", response.text());
        assert_eq!(response.headers.get("location"), Some(location.as_str()));
    }
    assert!(other.requests().is_empty(), "{}", other.requests().summary());
}

#[test]
fn a_redirect_is_not_followed_everywhere() {
    let world = world();
    let own = format!("https://{}/", world.proxy.address());
    let inside = format!("https://{}/x", world.storage.address());
    let named = format!("https://localhost:{}/x", world.storage.address().port());
    let long = format!("https://storage.example/{}", "x".repeat(20_000));
    let refused = [
        (502, "http://storage.example/x"),
        (502, "HTTP://storage.example/x"),
        (502, "ftp://storage.example/x"),
        (502, "file:///etc/passwd"),
        (502, "data:text/plain,x"),
        (502, "javascript:x"),
        (502, "https://user@storage.example/x"),
        (502, "https://user:pw@storage.example/x"),
        (502, "https://:pw@storage.example/x"),
        (502, "https://"),
        (502, "https://storage.example:0/x"),
        (502, "https://storage.example:99999/x"),
        (502, "https://sto rage.example/x"),
        (502, "https://storage.example.\u{e4}/x"),
        (502, ""),
        (502, &long),
        (502, "http://ghcr.io/v2/a/blobs/x"),
        (502, "https://user@ghcr.io/v2/a/blobs/x"),
        (403, "https://127.0.0.1/x"),
        (403, "https://2130706433/x"),
        (403, "https://0x7f.1/x"),
        (403, "https://[::1]/x"),
        (403, "https://[::ffff:127.0.0.1]/x"),
        (403, "https://169.254.169.254/latest/meta-data/"),
        (403, "https://10.0.0.1/x"),
        (403, &own),
        (403, &inside),
        (403, &named),
    ];
    for (status, location) in refused {
        let (blob, response) = world.get(Fault::redirect(302, location));
        let response = response.unwrap();
        assert_eq!(response.status, status, "{location}: {}", response.text());
        assert!(response.oci_error().contains("docker.io"), "{location}: {}", response.text());
        assert!(!world.proxy.keeps(&blob.digest), "{location}");
    }
    let (_, response) = world.get(Fault::Answer(Response::new(302)));
    assert_eq!(response.unwrap().status, 502, "no Location at all");
    assert!(world.asked.lock().unwrap().is_empty());
    assert_eq!(world.storage.connections(), 0, "{:?}", world.proxy.log());
}

#[test]
fn a_location_can_not_smuggle_a_field_or_a_request() {
    let world = world();
    for location in [
        "https://storage.example/x\rSet-Cookie: a=b",
        "https://storage.example/x\nSet-Cookie: a=b",
        "https://storage.example/x\r\n Set-Cookie: a=b",
        "https://storage.example/x\0",
    ] {
        let (blob, response) = world.get(Fault::redirect(302, location));
        let response = response.unwrap();
        assert!(response.headers.get("set-cookie").is_none(), "{location:?}");
        if response.status == 200 {
            assert_eq!(response.body, blob.bytes, "{location:?}");
        } else {
            assert_eq!(response.status, 502, "{location:?}: {}", response.text());
        }
        for request in world.asked.lock().unwrap().iter() {
            assert_eq!(request.headers.get("set-cookie"), None, "{location:?}");
        }
    }
}

#[test]
fn a_redirect_into_the_private_network_opens_no_connection() {
    let ca = TestCa::new("somebody inside");
    let inside = Server::https(ca.leaf(&["127.0.0.1"]), |_| Response::new(200));
    let (registry, image) = redirecting(Redirects::To(format!("https://{}/x", inside.address())));
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).trusting(&ca).start();
    assert!(proxy.puller().blob(ALPINE, &image.layers[0].digest).is_err());
    assert_eq!(inside.connections(), 0);
}
