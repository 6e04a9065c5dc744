//! What a pull costs the registry: the table in `docs/architecture.md`.

use std::fmt;

use entrepot_testkit::{Access, Fault, Image, Index, On, Proxy, Registry, Role, User};

use crate::{ALPINE, BINARY, PRIVATE};

/// Requests by method and kind.
#[derive(PartialEq, Eq)]
struct Cost {
    pings: usize,
    tokens: usize,
    heads: usize,
    manifests: usize,
    blobs: usize,
}

impl fmt::Debug for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pings, tokens, heads, manifests, blobs } = self;
        write!(f, "{pings} ping, {tokens} token, {heads} HEAD, ")?;
        write!(f, "{manifests} manifest, {blobs} blob")
    }
}

/// What an image of two platforms costs, of three layers each: pings, token requests, HEADs, GETs
/// of manifests, GETs of blobs.
fn cost(registry: &Registry) -> Cost {
    let requests = registry.requests();
    let to_registry = requests.to(Role::Registry);
    let pings = to_registry.filter(|request| request.target == "/v2/").len();
    let cost = Cost {
        pings,
        tokens: requests.to(Role::Auth).len(),
        heads: requests.method("HEAD").len(),
        manifests: requests.manifest_gets().len(),
        blobs: requests.blob_gets().len(),
    };
    let Cost { pings, tokens, heads, manifests, blobs } = cost;
    let all = pings + tokens + heads + manifests + blobs;
    assert_eq!(all, requests.len(), "something else was asked: {}", requests.summary());
    registry.forget_requests();
    cost
}

fn of(pings: usize, tokens: usize, heads: usize, manifests: usize, blobs: usize) -> Cost {
    Cost { pings, tokens, heads, manifests, blobs }
}

struct World {
    registry: Registry,
    proxy: Proxy,
}

fn world(config: &str) -> World {
    let access = Access::bearer([]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    registry.push_index(ALPINE, "latest", &Index::random(&["amd64", "arm64"], 3, 10_000));
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config(config).start();
    World { registry, proxy }
}

impl World {
    #[track_caller]
    fn pull(&self) {
        let pulled = self.proxy.puller().pull(ALPINE, "latest").unwrap();
        self.proxy.wait_until_all_kept(&pulled);
    }
}

#[test]
fn a_first_and_a_second_pull() {
    let world = world("");
    world.pull();
    // One HEAD of the tag; the index and a manifest; a configuration and three layers.
    assert_eq!(cost(&world.registry), of(1, 1, 1, 2, 4));
    world.pull();
    assert_eq!(cost(&world.registry), of(0, 0, 1, 0, 0));
}

#[test]
fn a_second_pull_of_a_private_image() {
    let alice = User::new("alice").pulls(PRIVATE);
    let registry = Registry::builder().access(Access::bearer([alice.clone()])).start();
    registry.push_index(PRIVATE, "1", &Index::random(&["amd64", "arm64"], 3, 10_000));
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).start();
    let pull = || {
        let pulled = proxy.puller().user(&alice).pull(PRIVATE, "1").unwrap();
        proxy.wait_until_all_kept(&pulled);
    };
    pull();
    assert_eq!(cost(&registry), of(1, 1, 1, 2, 4));
    // Her new token is her own to get; the rest is as for everybody.
    pull();
    assert_eq!(cost(&registry), of(0, 1, 1, 0, 0));
}

#[test]
fn a_second_pull_within_tag_ttl() {
    let world = world("tag-ttl = \"1h\"");
    world.pull();
    cost(&world.registry);
    world.pull();
    assert_eq!(cost(&world.registry), of(0, 0, 0, 0, 0));
}

#[test]
fn a_hundred_nodes_within_tag_ttl() {
    let world = world("tag-ttl = \"1m\"");
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| world.proxy.puller().pull(ALPINE, "latest").unwrap());
        }
    });
    let Cost { pings, tokens, heads, manifests, blobs } = cost(&world.registry);
    // Those who ask before the first ping is answered ask as well.
    assert!(pings <= 100, "{pings}");
    assert_eq!((tokens, heads, manifests, blobs), (1, 1, 2, 4));
}

#[test]
fn a_tag_that_has_moved() {
    let world = world("");
    world.pull();
    world.registry.push(ALPINE, "latest", &Image::random(1, 10_000));
    cost(&world.registry);
    world.pull();
    assert_eq!(cost(&world.registry), of(0, 0, 1, 1, 2));
}

#[test]
fn a_registry_that_answers_429() {
    let world = world("");
    world.pull();
    world.registry.fault_always(On::path("/v2/"), Fault::status(429));
    cost(&world.registry);
    world.pull();
    assert_eq!(cost(&world.registry), of(0, 0, 1, 0, 0));
    world.pull();
    assert!(cost(&world.registry).heads <= 1, "one a second");
}

#[test]
fn a_registry_that_is_down() {
    let mut world = world("");
    world.pull();
    cost(&world.registry);
    world.registry.stop();
    world.pull();
    assert_eq!(cost(&world.registry), of(0, 0, 0, 0, 0));
}
