//! A pull is told of as one event: who pulled what, how much of it came from the cache.

use std::thread;

use entrepot_testkit::client::Connection;
use entrepot_testkit::image::{INDEX, MANIFEST};
use entrepot_testkit::{
    Client, Fault, Gate, Image, Index, On, Proxy, Registry, Request, User, wait_until,
};
use serde_json::Value;

use crate::{ALPINE, BINARY, in_front_of};

const ENGINE: &str = "containerd/v2.1.4";

/// The events that there are, newest first.
fn pulls(proxy: &Proxy, query: &str) -> Vec<Value> {
    let answer = proxy.admin(&format!("/api/v1/pulls{query}"));
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.json()["pulls"].as_array().unwrap().clone()
}

#[track_caller]
fn wait_for_pulls(proxy: &Proxy, count: usize) -> Vec<Value> {
    wait_until("the pulls are told", || pulls(proxy, "").len() >= count);
    let told = pulls(proxy, "");
    assert_eq!(told.len(), count, "{told:#?}");
    told
}

/// A connection of an engine to the Hub.
struct Engine {
    connection: Connection,
    program: &'static str,
}

impl Engine {
    fn of(client: &Client, program: &'static str) -> Self {
        let connection = client.open("registry-1.docker.io").unwrap();
        Self { connection, program }
    }

    fn request(&self, method: &str, path: &str) -> Request {
        Request::new(method, format!("/v2/{ALPINE}/{path}"))
            .header("Accept", format!("{MANIFEST}, {INDEX}"))
            .header("User-Agent", self.program)
    }

    #[track_caller]
    fn ask(&mut self, method: &str, path: &str) -> Vec<u8> {
        let answer = self.connection.send(&self.request(method, path)).unwrap();
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        answer.body.to_vec()
    }

    /// Everything of `image`, blob after blob.
    fn pull(&mut self, reference: &str, index: Option<&Index>, image: &Image) {
        self.ask("HEAD", &format!("manifests/{reference}"));
        if let Some(index) = index {
            self.ask("GET", &format!("manifests/{}", index.manifest.digest));
        }
        self.ask("GET", &format!("manifests/{}", image.manifest.digest));
        for blob in image.blobs() {
            self.ask("GET", &format!("blobs/{}", blob.digest));
        }
    }
}

fn bytes_of(image: &Image) -> usize {
    image.manifest.bytes.len() + image.blobs().map(|blob| blob.bytes.len()).sum::<usize>()
}

#[test]
fn a_pull_is_told_with_who_made_it_and_of_what() {
    let registry = Registry::open();
    let index = Index::random(&["amd64", "arm64"], 2, 50_000);
    registry.push_index(ALPINE, "3.20", &index);
    let directory = tempfile::tempdir().unwrap();
    let (alice, users) = (User::new("alice"), directory.path().join("users"));
    let hash = bcrypt::hash(&alice.password, 4).unwrap();
    std::fs::write(&users, format!("{}:{hash}\n", alice.name)).unwrap();
    let proxy = Proxy::builder(BINARY)
        .config("log = \"json\"")
        .tables(&format!("[access]\nhtpasswd = {:?}", users.display().to_string()))
        .in_front_of(&registry)
        .start();
    let client = proxy.client().with_proxy_header("Proxy-Authorization", &alice.basic());
    let arm64 = &index.images[1];
    for _ in 0..2 {
        Engine::of(&client, ENGINE).pull("3.20", Some(&index), arm64);
        for blob in arm64.blobs() {
            proxy.wait_until_kept(&blob.digest);
        }
    }
    let told = wait_for_pulls(&proxy, 2);
    let [second, first] = &told[..] else { panic!("{told:?}") };
    let bytes = bytes_of(arm64) + index.manifest.bytes.len();
    for one in [first, second] {
        assert_eq!((&one["client"], &one["user"]), (&"127.0.0.1".into(), &"alice".into()));
        assert_eq!((&one["user_agent"], &one["ahead"]), (&ENGINE.into(), &false.into()));
        assert_eq!((&one["registry"], &one["repository"]), (&"docker.io".into(), &ALPINE.into()));
        assert_eq!((&one["reference"], &one["tag"]), (&"3.20".into(), &"3.20".into()));
        assert_eq!(one["digest"], index.manifest.digest.as_str());
        assert_eq!(one["platform"], "linux/arm64", "{one}");
        assert_eq!((&one["bytes"], &one["outcome"]), (&bytes.into(), &"complete".into()), "{one}");
    }
    assert_eq!((&first["bytes_from_cache"], &first["quota_pulls"]), (&0.into(), &2.into()));
    assert_eq!((&second["bytes_from_cache"], &second["quota_pulls"]), (&bytes.into(), &0.into()));
    assert_eq!(
        (&first["share_from_cache"], &second["share_from_cache"]),
        (&0.0.into(), &1.0.into())
    );
    for filter in ["alice", "ALPINE:3.20", "127.0.0", &index.manifest.digest[..20]] {
        assert_eq!(pulls(&proxy, &format!("?filter={filter}")).len(), 2, "{filter}");
    }
    assert!(pulls(&proxy, "?filter=bob").is_empty());
    assert_eq!(pulls(&proxy, "?limit=1"), std::slice::from_ref(second));
    assert_eq!(proxy.admin("/api/v1/pulls?limit=0").status, 400);
    let clients = proxy.admin("/api/v1/clients").json();
    let client = &clients["clients"][0];
    assert_eq!((&client["client"], &client["user"]), (&"127.0.0.1".into(), &"alice".into()));
    assert_eq!((&client["pulls"], &client["quota_pulls"]), (&2.into(), &2.into()), "{clients}");
    assert_eq!(
        (&client["bytes"], &client["bytes_from_cache"]),
        (&(2 * bytes).into(), &bytes.into())
    );

    // Each is a line of its own, with every digest whole.
    let line = proxy.wait_for_logs(&["\"message\":\"pull\""], 2);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["image"], format!("docker.io/{ALPINE}:3.20"));
    assert_eq!(line["digest"], index.manifest.digest.as_str());
    assert_eq!((&line["user"], &line["user_agent"]), (&"alice".into(), &ENGINE.into()));
    assert_eq!((&line["share_from_cache"], &line["outcome"]), (&1.0.into(), &"complete".into()));
    let layer = proxy.wait_for_log(&["\"message\":\"request\"", &arm64.layers[0].digest]);
    let layer: Value = serde_json::from_str(&layer).unwrap();
    assert_eq!(layer["object"], format!("blob {}", arm64.layers[0].digest));
    assert_eq!((&layer["user"], &layer["user_agent"]), (&"alice".into(), &ENGINE.into()));
    assert!(proxy.log().iter().all(|line| !line.contains('\u{2026}')));
}

#[test]
fn those_who_watch_are_told_of_a_pull() {
    let registry = Registry::open();
    let image = Image::random(1, 10_000);
    registry.push(ALPINE, "1", &image);
    let proxy = in_front_of(&registry);
    let mut connection = Client::new(proxy.admin_address()).plain().unwrap();
    let events = connection.start(&Request::get("/api/v1/events")).unwrap();
    assert_eq!(events.head().status, 200);
    drop(events);
    Engine::of(&proxy.client(), ENGINE).pull("1", None, &image);
    let mut named = String::new();
    let (mut has_savings, mut pull) = (false, None);
    while pull.is_none() {
        let line = connection.read_line().unwrap();
        if let Some(name) = line.trim_end().strip_prefix("event: ") {
            name.clone_into(&mut named);
        } else if let Some(text) = line.trim_end().strip_prefix("data: ") {
            let document: Value = serde_json::from_str(text).unwrap();
            has_savings |= named == "savings" && document["total"]["served_bytes"].is_u64();
            pull = (named == "pulls").then(|| document["pulls"][0].clone());
        }
    }
    let pull = pull.unwrap();
    assert_eq!((&pull["tag"], &pull["platform"]), (&"1".into(), &"linux/amd64".into()), "{pull}");
    assert_eq!(pull["digest"], image.manifest.digest.as_str());
    assert!(has_savings);
    assert!(!proxy.log().iter().any(|line| line.contains("pull ")), "a line a request, in text");
}

#[test]
fn what_the_engine_has_already_is_a_pull_too() {
    let registry = Registry::open();
    let image = Image::random(1, 10_000);
    registry.push(ALPINE, "1", &image);
    let proxy = in_front_of(&registry);
    let manifest = format!("manifests/{}", image.manifest.digest);
    let mut by_digest = Engine::of(&proxy.client(), "podman/5.6");
    by_digest.ask("GET", &manifest);
    let told = wait_for_pulls(&proxy, 1);
    assert_eq!((&told[0]["outcome"], &told[0]["tag"]), (&"manifest-only".into(), &Value::Null));
    assert_eq!(told[0]["reference"], image.manifest.digest.as_str());
    Engine::of(&proxy.client(), ENGINE).ask("HEAD", "manifests/1");
    let told = wait_for_pulls(&proxy, 2);
    assert_eq!((&told[0]["outcome"], &told[0]["bytes"]), (&"checked".into(), &0.into()));
    assert_eq!(told[0]["digest"], image.manifest.digest.as_str());
    let savings = proxy.admin("/api/v1/savings").json();
    assert_eq!(savings["total"]["pulls"], 1, "to look whether there is something new is none");
}

#[test]
fn a_pull_through_the_mirror_is_told_as_any_other() {
    let registry = Registry::open();
    let image = Image::random(1, 10_000);
    registry.push(ALPINE, "1", &image);
    let proxy = in_front_of(&registry);
    let mut connection = proxy.client().plain().unwrap();
    let mut ask = |path: &str| {
        let request = Request::get(format!("/v2/{ALPINE}/{path}?ns=docker.io"))
            .header("Host", proxy.address().to_string())
            .header("Accept", MANIFEST)
            .header("User-Agent", ENGINE);
        assert_eq!(connection.send(&request).unwrap().status, 200, "{path}");
    };
    ask("manifests/1");
    image.blobs().for_each(|blob| ask(&format!("blobs/{}", blob.digest)));
    let told = wait_for_pulls(&proxy, 1);
    assert_eq!((&told[0]["registry"], &told[0]["tag"]), (&"docker.io".into(), &"1".into()));
    assert_eq!((&told[0]["outcome"], &told[0]["user_agent"]), (&"complete".into(), &ENGINE.into()));
    assert_eq!(told[0]["platform"], "linux/amd64");
}

#[test]
fn a_client_that_gives_up_half_way_is_marked() {
    let registry = Registry::open();
    let image = Image::random(2, 400_000);
    registry.push(ALPINE, "1", &image);
    let proxy = in_front_of(&registry);
    let gate = Gate::new();
    registry.fault(On::get(&image.layers[0].digest), Fault::Stall(200_000, gate.clone()));
    let mut engine = Engine::of(&proxy.client(), ENGINE);
    engine.ask("HEAD", "manifests/1");
    engine.ask("GET", &format!("manifests/{}", image.manifest.digest));
    engine.ask("GET", &format!("blobs/{}", image.config.digest));
    let layer = engine.request("GET", &format!("blobs/{}", image.layers[0].digest));
    let mut download = engine.connection.start(&layer).unwrap();
    download.read_exactly(1000).unwrap();
    drop(download);
    drop(engine);
    let told = wait_for_pulls(&proxy, 1);
    assert_eq!((&told[0]["outcome"], &told[0]["tag"]), (&"abandoned".into(), &"1".into()));
    gate.open();
    let savings = proxy.admin("/api/v1/savings").json();
    assert_eq!(savings["total"]["pulls"], 0, "{savings}");
}

#[test]
fn what_the_registry_has_not_is_a_pull_that_failed() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    proxy.puller().pull(ALPINE, "nothing").unwrap_err();
    let told = wait_for_pulls(&proxy, 1);
    assert_eq!((&told[0]["outcome"], &told[0]["digest"]), (&"failed".into(), &Value::Null));
    assert_eq!((&told[0]["tag"], &told[0]["user_agent"]), (&"nothing".into(), &Value::Null));
}

#[test]
fn pulls_at_once_are_an_event_each() {
    let registry = Registry::open();
    let images: Vec<_> = (0..3).map(|_| Image::random(3, 20_000)).collect();
    for (number, image) in images.iter().enumerate() {
        registry.push(ALPINE, &number.to_string(), image);
    }
    let proxy = in_front_of(&registry);
    thread::scope(|scope| {
        for (number, image) in images.iter().enumerate() {
            let client = proxy.client();
            scope.spawn(move || {
                Engine::of(&client, ENGINE).pull(&number.to_string(), None, image);
            });
        }
    });
    let mut told = wait_for_pulls(&proxy, 3);
    told.sort_by_key(|one| one["tag"].to_string());
    for (number, (one, image)) in told.iter().zip(&images).enumerate() {
        assert_eq!(
            (&one["tag"], &one["outcome"]),
            (&number.to_string().into(), &"complete".into())
        );
        assert_eq!(one["digest"], image.manifest.digest.as_str());
        assert_eq!(one["bytes"], bytes_of(image), "{one}");
    }
}

#[test]
fn what_is_pulled_ahead_is_the_operators() {
    let registry = Registry::open();
    let index = Index::random(&["amd64", "arm64"], 2, 10_000);
    registry.push_index(ALPINE, "1", &index);
    let proxy = in_front_of(&registry);
    for _ in 0..2 {
        let pulled = proxy.run(&["pull", "--platform", "linux/arm64", "alpine:1"]);
        assert_eq!(pulled.code, Some(0), "{}", pulled.output);
    }
    let told = wait_for_pulls(&proxy, 2);
    let bytes = bytes_of(&index.images[1]) + index.manifest.bytes.len();
    for one in &told {
        assert_eq!((&one["client"], &one["ahead"]), (&"operator".into(), &true.into()), "{one}");
        assert_eq!((&one["outcome"], &one["tag"]), (&"complete".into(), &"1".into()));
        assert_eq!(one["digest"], index.manifest.digest.as_str());
        assert_eq!((&one["platform"], &one["bytes"]), (&"linux/arm64".into(), &bytes.into()));
    }
    assert_eq!((&told[1]["quota_pulls"], &told[1]["bytes_from_cache"]), (&2.into(), &0.into()));
    assert_eq!((&told[0]["quota_pulls"], &told[0]["bytes_from_cache"]), (&0.into(), &bytes.into()));
    assert_ne!(proxy.run(&["pull", "alpine:nothing"]).code, Some(0));
    let told = wait_for_pulls(&proxy, 3);
    assert_eq!((&told[0]["outcome"], &told[0]["ahead"]), (&"failed".into(), &true.into()));
    assert!(told[0]["reason"].is_string(), "{told:?}");
}
