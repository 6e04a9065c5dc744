//! Replicas that ask each other: what one fetches it fetches for all.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use entrepot_testkit::image::digest_of;
use entrepot_testkit::proxy::{Builder, Signal, free_place};
use entrepot_testkit::{
    Access, Blob, Client, Fault, Gate, Image, Index, On, Proxy, Puller, Registry, Request,
    Requests, Role, User, wait_until,
};
use tempfile::TempDir;

use crate::{ALPINE, BINARY, PRIVATE};

/// Replicas in front of one registry, with one CA.
struct Fleet {
    registry: Registry,
    replicas: Vec<Proxy>,
    secrets: TempDir,
}

fn names(places: impl IntoIterator<Item = SocketAddr>) -> String {
    let places: Vec<_> = places.into_iter().map(|place| place.to_string()).collect();
    format!("[peers]\nnames = {places:?}")
}

fn replica(registry: &Registry, secrets: &TempDir, place: SocketAddr) -> Builder {
    let ca = secrets.path().join("ca").display().to_string();
    let builder = Proxy::builder(BINARY).in_front_of(registry).listening_at(place);
    builder.config(&format!("ca-dir = {ca:?}"))
}

/// What a metric says of a replica.
fn metric(replica: &Proxy, name: &str) -> u64 {
    let page = replica.admin("/metrics").text();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not told")).parse().unwrap()
}

fn asked(replica: &Proxy, outcome: &str) -> u64 {
    metric(replica, &format!("entrepot_peer_requests_total{{outcome=\"{outcome}\"}}"))
}

/// The name of a replica among the others.
fn id(replica: &Proxy) -> String {
    let answer = Client::new(replica.address()).get("/healthz").unwrap();
    answer.headers.get("entrepot-id").unwrap().to_owned()
}

fn weight(id: &str, digest: &str) -> String {
    digest_of(format!("{id}{digest}").as_bytes())
}

impl Fleet {
    fn of(registry: Registry, count: usize) -> Self {
        Self::with(registry, count, |_, builder| builder)
    }

    fn with(
        registry: Registry,
        count: usize,
        described: impl Fn(usize, Builder) -> Builder,
    ) -> Self {
        let secrets = tempfile::tempdir().unwrap();
        let places: Vec<_> = std::iter::repeat_with(free_place).take(count).collect();
        let start = |(at, place): (usize, &SocketAddr)| {
            let builder = replica(&registry, &secrets, *place);
            described(at, builder.tables(&names(places.clone()))).start()
        };
        let replicas: Vec<_> = places.iter().enumerate().map(start).collect();
        let fleet = Self { registry, replicas, secrets };
        fleet.wait_until_all_know(count);
        fleet
    }

    #[track_caller]
    fn wait_until_all_know(&self, count: usize) {
        for replica in &self.replicas {
            let knows = || metric(replica, "entrepot_peers") == count as u64;
            wait_until("replicas do not find each other", knows);
        }
    }

    /// The replica that fetches this for all, and the others.
    fn owner(&self, digest: &str) -> (&Proxy, Vec<&Proxy>) {
        let by_weight = |replica: &&Proxy| weight(&id(replica), digest);
        let owner = self.replicas.iter().max_by_key(by_weight).unwrap();
        let others = self.replicas.iter().filter(|other| other.address() != owner.address());
        (owner, others.collect())
    }

    /// Lets everybody pull there, as far as each replica knows.
    fn open(&self) {
        for replica in &self.replicas {
            let tag = format!("https://{}/v2/{ALPINE}/manifests/1", self.registry.host());
            assert_eq!(replica.client().send(&Request::head(tag)).unwrap().status, 200);
        }
    }

    fn blob_gets(&self) -> Requests {
        self.registry.requests().to(Role::Registry).blob_gets()
    }
}

fn url(registry: &Registry, blob: &Blob) -> Request {
    Request::get(format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest))
}

fn path(blob: &Blob) -> Request {
    Request::get(format!("/v2/{ALPINE}/blobs/{}", blob.digest))
}

/// A registry with a layer of so many bytes.
fn with_layer(size: usize) -> (Registry, Blob) {
    let registry = Registry::open();
    let image = Image::random(1, size);
    registry.push(ALPINE, "1", &image);
    (registry, image.layers[0].clone())
}

#[test]
fn a_cold_crowd_behind_five_replicas_costs_one_download() {
    const CLIENTS: usize = 20;
    let (registry, blob) = with_layer(2_000_000);
    let fleet = Fleet::of(registry, 5);
    fleet.registry.fault(On::get(&blob.digest), Fault::Rate(1_000_000));
    let firsts = Mutex::new(Vec::new());
    let together = Barrier::new(5 * CLIENTS);
    thread::scope(|scope| {
        for replica in &fleet.replicas {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let client = replica.client();
                    together.wait();
                    let began = Instant::now();
                    let mut connection = client.open(fleet.registry.host()).unwrap();
                    let mut download = connection.start(&path(&blob)).unwrap();
                    assert_eq!(download.head().status, 200);
                    let mut bytes = download.read_exactly(1).unwrap();
                    firsts.lock().unwrap().push(began.elapsed());
                    bytes.extend(download.finish().unwrap());
                    assert_eq!(digest_of(&bytes), blob.digest);
                });
            }
        }
    });
    let gets = fleet.blob_gets();
    assert_eq!(gets.len(), 1, "{}", gets.summary());
    let mut firsts = firsts.into_inner().unwrap();
    firsts.sort();
    println!(
        "first bytes: half within {:?}, all within {:?}",
        firsts[firsts.len() / 2],
        firsts[99]
    );
    let (owner, others) = fleet.owner(&blob.digest);
    for other in others {
        other.wait_until_kept(&blob.digest);
        assert_eq!(asked(other, "served"), 1);
        other.wait_for_log(&["PEER", "GET"]);
        assert_eq!(metric(other, "entrepot_peer_bytes_total{direction=\"received\"}"), 2_000_000);
        let fetched = "entrepot_fetched_bytes_total{registry=\"docker.io\"}";
        assert_eq!(metric(other, fetched), 0, "no registry has sent anything");
    }
    wait_until("not all that went out is counted", || {
        metric(owner, "entrepot_peer_bytes_total{direction=\"sent\"}") == 8_000_000
    });
    // What went to replicas is served once, by them.
    let served = |replica| metric(replica, "entrepot_served_bytes_total{registry=\"docker.io\"}");
    wait_until("not all that was served is counted", || served(owner) == 40_000_000);
    assert_eq!(asked(owner, "served"), 0);
}

#[test]
fn each_cache_on_the_way_is_named() {
    let (registry, blob) = with_layer(100_000);
    let fleet = Fleet::of(registry, 2);
    let (owner, others) = fleet.owner(&blob.digest);
    let told = |replica: &Proxy| {
        let answer = replica.client().send(&url(&fleet.registry, &blob)).unwrap();
        assert_eq!(answer.body, blob.bytes);
        let told: Vec<_> = answer.headers.all("cache-status").map(str::to_owned).collect();
        told.join(", ")
    };
    let peer = "entrepot-peer; fwd=miss; stored, entrepot; fwd=miss; stored";
    assert_eq!(told(others[0]), peer);
    for replica in [owner, others[0]] {
        replica.wait_until_kept(&blob.digest);
        assert_eq!(told(replica), "entrepot; hit");
    }
    let gets = fleet.blob_gets();
    let [get] = gets.iter().collect::<Vec<_>>()[..] else { panic!("{}", gets.summary()) };
    assert_eq!(get.headers.all("via").count(), 2, "it has been through two");
    assert!(get.headers.get("entrepot-hop").is_none(), "that is said between replicas alone");
}

#[test]
fn a_new_tag_costs_the_quota_of_one_replica() {
    let registry = Registry::open();
    let index = Index::random(&["amd64", "arm64"], 2, 30_000);
    registry.push_index(ALPINE, "1", &index);
    let fleet = Fleet::of(registry, 4);
    for replica in &fleet.replicas {
        let pulled = replica.puller().pull(ALPINE, "1").unwrap();
        assert_eq!(pulled.manifests.len(), 2);
    }
    let requests = fleet.registry.requests();
    assert_eq!(requests.manifest_gets().len(), 2, "{}", requests.summary());
    assert_eq!(fleet.blob_gets().len(), 3, "{}", requests.summary());
    // One pull at each: what a replica asks for is none.
    for replica in &fleet.replicas {
        wait_until("the pull is not told", || {
            metric(replica, "entrepot_pulls_total{registry=\"docker.io\"}") == 1
        });
    }
}

#[test]
fn a_manifest_by_its_digest_is_got_once_for_all_who_wait() {
    let registry = Registry::open();
    let image = Image::random(1, 1000);
    registry.push(ALPINE, "1", &image);
    let fleet = Fleet::of(registry, 3);
    let digest = &image.manifest.digest;
    let gate = Gate::new();
    fleet.registry.fault(On::get(digest), Fault::SlowHead(gate.clone()));
    thread::scope(|scope| {
        for replica in &fleet.replicas {
            for _ in 0..5 {
                scope.spawn(|| {
                    let host = fleet.registry.host();
                    let url = format!("https://{host}/v2/{ALPINE}/manifests/{digest}");
                    let answer = replica.client().send(&Request::get(url)).unwrap();
                    assert_eq!(digest_of(&answer.body), *digest);
                });
            }
        }
        gate.wait_until_reached(1);
        gate.open();
    });
    let requests = fleet.registry.requests();
    assert_eq!(requests.manifest_gets().len(), 1, "{}", requests.summary());
}

#[test]
fn nobody_notices_that_the_owner_is_killed() {
    const SIZE: usize = 4_000_000;
    for part in [10, 50, 90] {
        let (registry, blob) = with_layer(SIZE);
        let fleet = Fleet::of(registry, 5);
        fleet.open();
        let (owner, others) = fleet.owner(&blob.digest);
        let (stall, gate) = (SIZE / 100 * part, Gate::new());
        fleet.registry.fault(On::get(&blob.digest), Fault::Stall(stall, gate.clone()));
        // Each replica holds some of what comes back until the digest is right.
        let (seen, begun) = (stall - 300_000, Barrier::new(4 * 4 + 1));
        thread::scope(|scope| {
            let finished: Vec<_> = others
                .iter()
                .flat_map(|other| [other; 4])
                .map(|other| {
                    scope.spawn(|| {
                        let client = other.client();
                        let mut connection = client.open(fleet.registry.host()).unwrap();
                        let mut download = connection.start(&path(&blob)).unwrap();
                        let mut bytes = download.read_exactly(seen).unwrap();
                        begun.wait();
                        let killed = Instant::now();
                        bytes.extend(download.read_exactly(400_000).unwrap());
                        let lost = killed.elapsed();
                        bytes.extend(download.finish().unwrap());
                        assert_eq!(digest_of(&bytes), blob.digest);
                        lost
                    })
                })
                .collect();
            begun.wait();
            owner.signal(Signal::KILL);
            let lost = finished.into_iter().map(|one| one.join().unwrap()).max();
            println!("killed at {part} %: at most {:?} without a byte", lost.unwrap());
        });
        let gets = fleet.blob_gets();
        assert!(gets.len() <= 3, "{}", gets.summary());
        for again in gets.iter().skip(1) {
            assert!(again.headers.get("range").is_some(), "{}", gets.summary());
        }
        for other in others {
            other.wait_until_kept(&blob.digest);
            other.assert_store_is_sound();
        }
    }
}

/// Stands before a replica, and says of it that it is somebody else.
struct Mask {
    address: SocketAddr,
}

impl Mask {
    /// Whoever is to be let through waits until as many have come as `together` says.
    fn before(place: SocketAddr, id: String, together: Arc<Barrier>) -> Self {
        let listener = TcpListener::bind(free_place()).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let (id, together) = (id.clone(), together.clone());
                thread::spawn(move || Self::pass(near, place, &id, &together));
            }
        });
        Self { address }
    }

    fn pass(mut near: TcpStream, place: SocketAddr, id: &str, together: &Barrier) {
        let mut first = [0; 4];
        if near.read_exact(&mut first).is_err() {
            return;
        }
        if first == *b"GET " {
            let answer =
                format!("HTTP/1.1 200 OK\r\nEntrepot-Id: {id}\r\nContent-Length: 0\r\n\r\n");
            let _ = near.write_all(answer.as_bytes());
            return;
        }
        together.wait();
        let mut far = TcpStream::connect(place).unwrap();
        far.write_all(&first).unwrap();
        let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from, &mut to));
        let _ = std::io::copy(&mut far, &mut near);
    }
}

/// Two replicas that each take the other for the owner of this layer, and a client at each at once.
fn each_the_others_owner(are_open: bool) -> [Proxy; 2] {
    let (registry, blob) = with_layer(300_000);
    let secrets = tempfile::tempdir().unwrap();
    // Heavier than any id that a replica has.
    let mut candidates = (0..).map(|n| format!("mask-{n}"));
    let heavy = candidates.find(|id| weight(id, &blob.digest).as_str() > "sha256:fff").unwrap();
    let places = [free_place(), free_place()];
    let together = Arc::new(Barrier::new(2));
    let masks = places.map(|place| Mask::before(place, heavy.clone(), together.clone()));
    let start = |at: usize, other: usize| {
        let names = names([masks[other].address]);
        replica(&registry, &secrets, places[at]).tables(&names).start()
    };
    let replicas = [start(0, 1), start(1, 0)];
    for replica in &replicas {
        wait_until("they do not know each other", || metric(replica, "entrepot_peers") == 2);
        if are_open {
            let tag = format!("https://{}/v2/{ALPINE}/manifests/1", registry.host());
            assert_eq!(replica.client().send(&Request::head(tag)).unwrap().status, 200);
        }
    }
    let began = Instant::now();
    thread::scope(|scope| {
        for replica in &replicas {
            scope.spawn(|| {
                let answer = replica.client().send(&url(&registry, &blob)).unwrap();
                assert_eq!((answer.status, digest_of(&answer.body)), (200, blob.digest.clone()));
            });
        }
    });
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let gets = registry.requests().to(Role::Registry).blob_gets();
    // One that is told early enough is there when the other asks.
    assert!((1..=2).contains(&gets.len()), "{}", gets.summary());
    replicas
}

#[test]
fn two_that_take_each_other_for_the_owner_do_not_wait_for_each_other() {
    let replicas = each_the_others_owner(true);
    let told = |outcome| replicas.iter().map(|replica| asked(replica, outcome)).sum::<u64>();
    assert!(told("busy") >= 1 && told("busy") + told("served") == 2, "{}", told("busy"));
    let words = "gets that from another";
    wait_until("it is not in the log", || replicas.iter().any(|one| one.log_contains(words)));
}

/// Whether something comes from a replica just now is nobody's business who may not have it.
#[test]
fn who_says_that_it_is_a_replica_is_told_nothing_of_what_others_get() {
    for replica in each_the_others_owner(false) {
        assert_eq!((asked(&replica, "busy"), asked(&replica, "served")), (0, 1));
        assert!(!replica.log_contains("gets that from another"));
    }
}

#[test]
fn an_owner_that_stands_still_is_not_waited_for() {
    let (registry, blob) = with_layer(1_000_000);
    let fleet = Fleet::of(registry, 3);
    let (owner, others) = fleet.owner(&blob.digest);
    owner.signal(Signal::STOP);
    let began = Instant::now();
    for other in &others {
        let answer = other.client().send(&url(&fleet.registry, &blob)).unwrap();
        assert_eq!(digest_of(&answer.body), blob.digest);
    }
    // Longer than a step to a connection may take, for each.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(fleet.blob_gets().len() <= 2);
    for other in &others {
        wait_until("it still counts", || metric(other, "entrepot_peers") == 2);
    }
    owner.signal(Signal::CONT);
    fleet.wait_until_all_know(3);
}

#[test]
fn an_owner_that_falls_silent_in_the_middle_is_left() {
    let (registry, blob) = with_layer(2_000_000);
    let fleet = Fleet::of(registry, 2);
    let (owner, others) = fleet.owner(&blob.digest);
    let gate = Gate::new();
    fleet.registry.fault(On::get(&blob.digest), Fault::Stall(1_000_000, gate.clone()));
    let client = others[0].client();
    let mut connection = client.open(fleet.registry.host()).unwrap();
    let mut download = connection.start(&path(&blob)).unwrap();
    let mut bytes = download.read_exactly(500_000).unwrap();
    owner.signal(Signal::STOP);
    bytes.extend(download.finish().unwrap());
    assert_eq!(digest_of(&bytes), blob.digest);
    let gets = fleet.blob_gets();
    assert_eq!(gets.len(), 2, "{}", gets.summary());
    owner.signal(Signal::CONT);
}

#[test]
fn who_may_have_a_private_image_is_the_same_on_every_replica() {
    let alice = User::new("alice").pulls(PRIVATE);
    let bob = User::new("bob").pulls("team/other");
    let access = Access::bearer([alice.clone(), bob.clone()]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    let image = Image::random(3, 50_000);
    registry.push(PRIVATE, "1", &image);
    registry.push("team/other", "1", &Image::random(1, 1000));
    let fleet = Fleet::of(registry, 3);
    let somebody =
        |replica: &Proxy| Puller::new(replica.client().trusting(&fleet.registry.ca().pem()));
    for replica in &fleet.replicas {
        for refused in [somebody(replica), somebody(replica).user(&bob)] {
            assert_eq!(refused.pull(PRIVATE, "1").unwrap_err().status(), Some(401));
        }
        let pulled = somebody(replica).user(&alice).pull(PRIVATE, "1").unwrap();
        replica.wait_until_all_kept(&pulled);
    }
    // Now that all of it is kept everywhere, too.
    let stranger = Puller::new(fleet.registry.direct_client()).user(&bob);
    let of_bob = stranger.visit("team/other").unwrap().authorization().unwrap().to_owned();
    for replica in &fleet.replicas {
        for object in image.blobs().map(|blob| format!("blobs/{}", blob.digest)) {
            let host = fleet.registry.host();
            let request = Request::get(format!("https://{host}/v2/{PRIVATE}/{object}"));
            let with_bobs = request.clone().header("Authorization", &of_bob);
            for request in [request, with_bobs] {
                assert_eq!(replica.client().send(&request).unwrap().status, 401, "{object}");
            }
        }
        somebody(replica).user(&alice).pull(PRIVATE, "1").unwrap();
    }
    let gets = fleet.registry.requests().to(Role::Registry).blob_gets();
    let served = gets.filter(|get| get.headers.get("authorization").is_some());
    // Four objects: bob's questions have been asked as well, and were refused.
    let for_alice = fleet.replicas.iter().map(|replica| asked(replica, "served")).sum::<u64>();
    assert!(for_alice >= 5, "{for_alice} came from replicas: {}", served.summary());
}

#[test]
fn who_has_another_ca_is_no_replica() {
    let (registry, blob) = with_layer(100_000);
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let places = [free_place(), free_place()];
    let start = |secrets: &TempDir, at: usize| {
        replica(&registry, secrets, places[at]).tables(&names(places)).start()
    };
    let replicas = [start(&one, 0), start(&other, 1)];
    for replica in &replicas {
        wait_until("they do not see each other", || metric(replica, "entrepot_peers") == 2);
        let answer = replica.client().send(&url(&registry, &blob)).unwrap();
        assert_eq!(digest_of(&answer.body), blob.digest);
    }
    let served = replicas.iter().map(|replica| asked(replica, "served")).sum::<u64>();
    let absent = replicas.iter().map(|replica| asked(replica, "absent")).sum::<u64>();
    assert_eq!((served, absent), (0, 1));
    assert_eq!(registry.requests().to(Role::Registry).blob_gets().len(), 2);
    let words = "a replica is of no use to this one";
    assert!(replicas.iter().any(|replica| replica.log_contains(words)));
}

#[test]
fn replicas_that_ask_for_users_have_one() {
    let (registry, blob) = with_layer(100_000);
    let directory = tempfile::tempdir().unwrap();
    let user = User::new("fleet");
    let (users, password) = (directory.path().join("users"), directory.path().join("password"));
    let hash = bcrypt::hash(&user.password, 4).unwrap();
    std::fs::write(&users, format!("fleet:{hash}")).unwrap();
    std::fs::write(&password, format!("{}\n", user.password)).unwrap();
    let described = |_, builder: Builder| {
        builder.tables(&format!(
            "username = \"fleet\"\npassword-file = {:?}\n[access]\nhtpasswd = {:?}",
            password.display().to_string(),
            users.display().to_string()
        ))
    };
    let fleet = Fleet::with(registry, 2, described);
    let (_, others) = fleet.owner(&blob.digest);
    let client = others[0].client().with_proxy_header("Proxy-Authorization", &user.basic());
    let answer = client.send(&url(&fleet.registry, &blob)).unwrap();
    assert_eq!(digest_of(&answer.body), blob.digest);
    assert_eq!(asked(others[0], "served"), 1);
    for replica in &fleet.replicas {
        assert!(!replica.log_contains(&user.password));
    }
}

#[test]
fn a_replica_that_is_not_let_in_asks_the_registry() {
    let (registry, blob) = with_layer(100_000);
    // Nobody is heard but from an address that replicas do not have.
    let described = |_, builder: Builder| builder.tables("[access]\nclients = [\"127.0.0.99\"]");
    let fleet = Fleet::with(registry, 2, described);
    let (_, others) = fleet.owner(&blob.digest);
    let ca = std::fs::read_to_string(fleet.secrets.path().join("ca/ca.crt")).unwrap();
    let client = Client::new(others[0].address()).trusting(&ca);
    let client = client.from_address("127.0.0.99".parse().unwrap());
    let answer = client.send(&url(&fleet.registry, &blob)).unwrap();
    assert_eq!(digest_of(&answer.body), blob.digest);
    assert_eq!((asked(others[0], "served"), asked(others[0], "absent")), (0, 1));
    others[0].wait_for_log(&["a replica is of no use to this one", "403"]);
}

#[test]
fn a_client_that_says_it_is_a_replica_loses_the_replicas_alone() {
    let (registry, blob) = with_layer(100_000);
    let fleet = Fleet::of(registry, 2);
    let (_, others) = fleet.owner(&blob.digest);
    let request = url(&fleet.registry, &blob).header("Entrepot-Hop", "7");
    let answer = others[0].client().send(&request).unwrap();
    assert_eq!(digest_of(&answer.body), blob.digest);
    assert_eq!(answer.headers.get("cache-status"), Some("entrepot; fwd=miss; stored"));
    assert_eq!(asked(others[0], "served"), 0);
    let gets = fleet.blob_gets();
    assert!(gets.iter().all(|get| get.headers.get("entrepot-hop").is_none()));
    // Others have what it has brought in, as ever.
    others[0].wait_until_kept(&blob.digest);
    let answer = others[0].client().send(&url(&fleet.registry, &blob)).unwrap();
    assert_eq!(answer.headers.get("cache-status"), Some("entrepot; hit"));
}

#[test]
fn one_that_is_about_to_end_is_asked_no_more_and_ends_what_it_has_begun() {
    let (registry, blob) = with_layer(2_000_000);
    let fleet = Fleet::of(registry, 3);
    let (owner, others) = fleet.owner(&blob.digest);
    let gate = Gate::new();
    fleet.registry.fault(On::get(&blob.digest), Fault::Stall(1_000_000, gate.clone()));
    let client = others[0].client();
    let mut connection = client.open(fleet.registry.host()).unwrap();
    let mut download = connection.start(&path(&blob)).unwrap();
    let mut bytes = download.read_exactly(500_000).unwrap();
    owner.signal(Signal::TERM);
    for other in &others {
        wait_until("it still counts", || metric(other, "entrepot_peers") == 2);
    }
    gate.open();
    bytes.extend(download.finish().unwrap());
    assert_eq!(digest_of(&bytes), blob.digest);
    let gets = fleet.blob_gets();
    assert_eq!(gets.len(), 1, "{}", gets.summary());
    assert!(owner.wait_exit().success());
}

#[test]
fn a_registry_that_refuses_is_asked_by_each_for_itself() {
    let (registry, _) = with_layer(1000);
    let fleet = Fleet::of(registry, 2);
    let absent = Blob::random(100);
    for replica in &fleet.replicas {
        let answer = replica.client().send(&url(&fleet.registry, &absent)).unwrap();
        assert_eq!(answer.status, 404);
        assert!(answer.headers.get("cache-status").is_none(), "a refusal tells nothing");
    }
    let refused = fleet.replicas.iter().map(|replica| asked(replica, "refused")).sum::<u64>();
    assert_eq!(refused, 1, "the owner's word is not passed on");
}

#[test]
fn what_a_replica_keeps_is_to_be_had_while_the_registry_is_away() {
    let (registry, blob) = with_layer(100_000);
    let mut fleet = Fleet::of(registry, 2);
    let pulled = fleet.owner(&blob.digest).0.puller().pull(ALPINE, "1").unwrap();
    fleet.owner(&blob.digest).0.wait_until_all_kept(&pulled);
    fleet.registry.stop();
    let (_, others) = fleet.owner(&blob.digest);
    let answer = others[0].client().send(&url(&fleet.registry, &blob)).unwrap();
    assert_eq!((answer.status, digest_of(&answer.body)), (200, blob.digest.clone()));
}

#[test]
fn a_proxy_without_peers_says_which_it_is_and_asks_nobody() {
    let (registry, blob) = with_layer(1000);
    let proxy = crate::in_front_of(&registry);
    assert!(id(&proxy).starts_with("entrepot-"));
    proxy.client().send(&url(&registry, &blob)).unwrap();
    assert_eq!((metric(&proxy, "entrepot_peers"), asked(&proxy, "served")), (0, 0));
}
