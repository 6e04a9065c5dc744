//! How engines ask, and which pulls these are.

use std::collections::BTreeSet;
use std::net::IpAddr;

use entrepot_oci::{Algorithm, Contents, Digest, ImageBlob, Listed, Registry, Route};
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::event::Outcome as PullOutcome;
use super::grouping::{Group, Known, Request, groups};
use super::noted::{Asker, Asking, Begun, End, Noted, Notes};
use super::*;
use crate::log::{Outcome, RequestLine, Subject};

fn digest(name: &str) -> Digest {
    Digest::of(Algorithm::Sha256, name.as_bytes())
}

fn image(blobs: &[&str]) -> Arc<Contents> {
    let blobs = blobs.iter().enumerate().map(|(place, name)| ImageBlob {
        digest: digest(name),
        size: 10,
        is_config: place == 0,
    });
    Arc::new(Contents::Image(blobs.collect()))
}

/// An index of two images with a layer in common, and another image of the same repository.
fn known() -> Known {
    let listed = |name: &str, platform: &str| Listed {
        digest: digest(name),
        platform: Some(platform.parse().unwrap()),
    };
    let index = vec![listed("amd64", "linux/amd64"), listed("arm64", "linux/arm64")];
    Known::from([
        (digest("index"), Arc::new(Contents::Index(index))),
        (digest("amd64"), image(&["config", "shared", "layer"])),
        (digest("arm64"), image(&["arm64-config", "shared"])),
        (digest("other"), image(&["other-config", "shared"])),
    ])
}

/// Requests of one client for one repository, one after the other.
struct Asked {
    notes: Arc<Notes>,
    at: Instant,
    requests: Vec<Request>,
}

impl Asked {
    fn new() -> Self {
        Self { notes: Arc::default(), at: Instant::now(), requests: Vec::new() }
    }

    /// `GET tag 3` or `HEAD tag 3`, `GET manifest index`, `GET blob layer`, `PART blob layer`:
    /// begun, and not ended yet.
    fn begin(&mut self, what: &str) -> usize {
        let [method, kind, name] = what.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let path = match kind {
            "tag" => format!("/v2/a/manifests/{name}"),
            "manifest" => format!("/v2/a/manifests/{}", digest(name)),
            _ => format!("/v2/a/blobs/{}", digest(name)),
        };
        let asker =
            Asker { client: [10, 0, 0, 7].into(), user: None, user_agent: None, is_replica: false };
        let registry = Registry::at(&"docker.io:443".parse().unwrap());
        let head = if method == "HEAD" { Method::HEAD } else { Method::GET };
        let route = Route::parse(&path, None);
        let is_part = method == "PART";
        let asking = Asking::begin(&self.notes, &asker, registry, &route, &head, is_part).unwrap();
        drop(asking);
        let noted = self.notes.take();
        let [Noted::Begun(noted), Noted::Ended(..)] = &noted[..] else { panic!("{noted:?}") };
        self.at += Duration::from_millis(10);
        let begun = Begun {
            number: noted.number,
            asker: noted.asker.clone(),
            registry: noted.registry.clone(),
            repository: noted.repository.clone(),
            object: noted.object.clone(),
            is_head: noted.is_head,
            is_part: noted.is_part,
            at: self.at,
        };
        self.requests.push(Request { begun: Arc::new(begun), end: None });
        self.requests.len() - 1
    }

    fn end(&mut self, place: usize, means: Option<&str>, outcome: Option<Outcome>, status: u16) {
        self.at += Duration::from_millis(10);
        let request = &mut self.requests[place];
        let named = match &request.begun.object {
            noted::Object::Tag(_) => means.map(digest),
            noted::Object::Manifest(digest) | noted::Object::Blob(digest) => Some(*digest),
        };
        request.end = Some(End {
            at: self.at,
            when: std::time::SystemTime::now(),
            outcome,
            status: StatusCode::from_u16(status).ok(),
            bytes: if request.begun.is_head { 0 } else { 10 },
            is_whole: outcome.is_some(),
            digest: named,
            reason: None,
        });
    }

    /// Begun, and answered as it should be; a tag means `index`.
    fn ask(&mut self, what: &str) -> &mut Self {
        let place = self.begin(what);
        let status = if what.starts_with("PART") { 206 } else { 200 };
        self.end(place, Some("index"), Some(Outcome::Hit), status);
        self
    }

    fn groups(&self) -> Vec<Group<'_>> {
        groups(&self.requests, &known())
    }

    /// Each pull, as what came of it and how many requests it was.
    #[track_caller]
    fn assert_are(&self, expected: &[(PullOutcome, usize)]) {
        let told: Vec<_> = self
            .groups()
            .iter()
            .map(|group| (group.outcome(&known()), group.requests.len()))
            .collect();
        assert_eq!(told, expected);
    }
}

const LIKE_CONTAINERD: [&str; 6] = [
    "HEAD tag 3",
    "GET manifest index",
    "GET manifest amd64",
    "GET blob config",
    "GET blob shared",
    "GET blob layer",
];

#[test]
fn however_engines_ask_it_is_one_pull() {
    let like_podman =
        ["GET tag 3", "GET manifest amd64", "GET blob layer", "GET blob shared", "GET blob config"];
    let by_digest = ["HEAD manifest index", "GET manifest index", "GET manifest amd64"];
    let blobs = ["GET blob config", "GET blob shared", "GET blob layer"];
    let by_digest: Vec<_> = by_digest.iter().chain(&blobs).copied().collect();
    // Looked at twice before anything is fetched.
    let like_skopeo = ["GET tag 3", "GET tag 3", "GET manifest amd64", "GET manifest amd64"];
    let like_skopeo: Vec<_> = like_skopeo.iter().chain(&blobs).copied().collect();
    let in_parts = ["HEAD tag 3", "GET manifest index", "GET manifest amd64", "GET blob config"];
    let parts = ["PART blob layer", "PART blob shared", "PART blob layer"];
    let in_parts: Vec<_> = in_parts.iter().chain(&parts).copied().collect();
    for asked in [&LIKE_CONTAINERD[..], &like_podman, &by_digest, &like_skopeo, &in_parts] {
        let mut client = Asked::new();
        for what in asked {
            client.ask(what);
        }
        client.assert_are(&[(PullOutcome::Complete, asked.len())]);
        let groups = client.groups();
        assert_eq!(groups[0].root, Some(digest("index")), "{asked:?}");
        assert_eq!(groups[0].children, [digest("amd64")]);
        let is_tagged = asked[0].contains("tag");
        assert_eq!(groups[0].tag.as_ref().map(ToString::to_string), is_tagged.then(|| "3".into()));
    }
}

#[test]
fn what_the_engine_has_is_not_asked_for() {
    let mut all = Asked::new();
    all.ask("HEAD tag 3").ask("GET manifest index").ask("GET manifest amd64");
    all.assert_are(&[(PullOutcome::ManifestOnly, 3)]);
    let mut some = Asked::new();
    some.ask("GET tag 3").ask("GET manifest amd64").ask("GET blob config");
    some.assert_are(&[(PullOutcome::Partial, 3)]);
    let mut looked = Asked::new();
    looked.ask("HEAD tag 3");
    looked.assert_are(&[(PullOutcome::Checked, 1)]);
}

#[test]
fn pulls_at_once_are_told_apart() {
    let mut two = Asked::new();
    for what in LIKE_CONTAINERD {
        two.ask(what).ask(what);
    }
    two.assert_are(&[(PullOutcome::Complete, 6), (PullOutcome::Complete, 6)]);
    // Two images of one repository, with a layer in common that both ask for.
    let mut different = Asked::new();
    different.ask("HEAD tag 3").ask("GET manifest index").ask("GET manifest other");
    different.ask("GET manifest amd64").ask("GET blob other-config").ask("GET blob config");
    different.ask("GET blob shared").ask("GET blob shared").ask("GET blob layer");
    different.assert_are(&[(PullOutcome::Complete, 6), (PullOutcome::Complete, 3)]);
    let tags: Vec<_> = different.groups().iter().map(|group| group.tag.is_some()).collect();
    assert_eq!(tags, [true, false]);
    // One after the other, the second of which needs nothing any more.
    let mut again = Asked::new();
    for what in LIKE_CONTAINERD {
        again.ask(what);
    }
    again.ask("HEAD tag 3");
    again.assert_are(&[(PullOutcome::Complete, 6), (PullOutcome::Checked, 1)]);
}

#[test]
fn what_was_not_served_is_marked() {
    let begin = || {
        let mut client = Asked::new();
        client.ask("GET tag 3").ask("GET manifest amd64").ask("GET blob config");
        client
    };
    let mut left = begin();
    let place = left.begin("GET blob layer");
    left.end(place, None, Some(Outcome::Hit), 200);
    left.requests[place].end.as_mut().unwrap().is_whole = false;
    left.assert_are(&[(PullOutcome::Abandoned, 4)]);
    left.ask("GET blob layer").ask("GET blob shared");
    left.assert_are(&[(PullOutcome::Complete, 6)]);
    let mut waiting = begin();
    let place = waiting.begin("GET blob layer");
    assert!(waiting.groups()[0].is_open());
    waiting.end(place, None, None, 0);
    waiting.assert_are(&[(PullOutcome::Abandoned, 4)]);
    let mut failed = begin();
    let place = failed.begin("GET blob layer");
    failed.end(place, None, Some(Outcome::Error), 502);
    failed.assert_are(&[(PullOutcome::Failed, 4)]);
    // To have been told that there is something is not to have it.
    let mut looked_for = begin();
    looked_for.ask("HEAD blob layer").ask("HEAD blob shared");
    let place = looked_for.begin("GET blob layer");
    looked_for.end(place, None, Some(Outcome::Error), 502);
    looked_for.assert_are(&[(PullOutcome::Failed, 6)]);
    let mut refused = Asked::new();
    let place = refused.begin("HEAD tag 3");
    refused.end(place, None, Some(Outcome::Relay), 404);
    refused.assert_are(&[(PullOutcome::Failed, 1)]);
    // Of parts engines take less than they ask for.
    let mut parts = begin();
    let place = parts.begin("PART blob layer");
    parts.end(place, None, Some(Outcome::Hit), 206);
    parts.requests[place].end.as_mut().unwrap().is_whole = false;
    parts.ask("GET blob shared");
    parts.assert_are(&[(PullOutcome::Complete, 5)]);
}

#[test]
fn a_manifest_that_nobody_can_read_is_one_of_a_pull_all_the_same() {
    let mut client = Asked::new();
    let place = client.begin("GET tag 3");
    client.end(place, Some("not kept"), Some(Outcome::Miss), 200);
    client.ask("GET blob a").ask("GET blob b");
    client.assert_are(&[(PullOutcome::Partial, 3)]);
}

#[test]
fn a_client_that_asks_for_the_same_without_end_is_no_burden() {
    let mut client = Asked::new();
    for _ in 0..1000 {
        client.ask("GET manifest amd64");
    }
    assert!(client.groups().len() <= 64);
    let waiting: Vec<_> = (0..1000).map(|_| client.begin("GET manifest amd64")).collect();
    let began = std::time::Instant::now();
    assert!(client.groups().len() <= 64);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(waiting.len(), 1000);
}

/// A store with nothing in it, and the pulls of its clients.
async fn pulls() -> (tempfile::TempDir, Pulls) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(entrepot_cache::Options::new(dir.path())).await.unwrap();
    let shares = Shares::new(Some(0));
    (dir, Pulls::new(store, Metrics::default(), shares, Format::Text))
}

fn serve(pulls: &Pulls, client: IpAddr, path: &str) {
    let registry = Registry::at(&"docker.io:443".parse().unwrap());
    let route = Route::parse(path, None);
    let (user, user_agent) = (Some("alice".into()), Some("test/1".into()));
    let asker = Asker { client, user, user_agent, is_replica: false };
    let request = http::Request::get(path).body(()).unwrap();
    let mut asking = pulls.asks(&asker, registry.clone(), &route, &request).unwrap();
    let named = digest("image").to_string();
    asking.serves(Some(&named.parse().unwrap()));
    let subject = Subject::of(registry, route, path);
    let line = RequestLine::new(Outcome::Miss, Method::GET, subject, client);
    let line = RequestLine { status: Some(StatusCode::OK), body_bytes: 100, ..line };
    asking.ended(&line, true);
}

#[tokio::test(start_paused = true)]
async fn a_pull_is_over_when_its_client_is_silent() {
    let (_dir, pulls) = pulls().await;
    serve(&pulls, [10, 0, 0, 7].into(), "/v2/a/manifests/1");
    pulls.look(false).await;
    assert!(pulls.since(0).is_empty());
    tokio::time::sleep(Duration::from_secs(6)).await;
    pulls.look(false).await;
    let told = pulls.since(0);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].image(), "docker.io/a:1");
    assert_eq!(told[0].digest, Some(digest("image")));
    assert_eq!((told[0].bytes, told[0].bytes_from_cache, told[0].quota_pulls), (100, 0, 1));
    assert_eq!(told[0].user.as_deref(), Some("alice"));
    assert_eq!(told[0].outcome, PullOutcome::ManifestOnly);
    let clients = pulls.clients();
    assert_eq!((clients.len(), clients[0].pulls, clients[0].bytes), (1, 1, 100));
}

#[tokio::test]
async fn what_is_kept_of_pulls_is_bounded() {
    let (_dir, pulls) = pulls().await;
    for number in 0..3000_u32 {
        let client = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number));
        serve(&pulls, client, &format!("/v2/r{number}/manifests/1"));
    }
    pulls.finish().await;
    assert_eq!(pulls.since(0).len(), MOST_PULLS);
    assert_eq!(pulls.clients().len(), 1024);
    let numbers: BTreeSet<_> = pulls.since(0).iter().map(|one| one.number).collect();
    assert_eq!(numbers.len(), MOST_PULLS);
}
