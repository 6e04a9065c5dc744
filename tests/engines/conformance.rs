//! The requests of the distribution specification's conformance suite, to a real registry: what a
//! client reads of each answer is the same with the proxy as without it, by every door.
//!
//! Each client has a repository of its own, of which it begins with nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use entrepot_testkit::image::{INDEX, MANIFEST, digest_of};
use entrepot_testkit::{Client, Request, Response};
use serde_json::json;
use url::Url;

use crate::site::{HUB, Proxy, Registry, connect_to};

/// Fields that clients read, beside the status and the body.
const READ: [&str; 16] = [
    "accept-ranges",
    "allow",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "docker-content-digest",
    "docker-distribution-api-version",
    "docker-upload-uuid",
    "etag",
    "link",
    "location",
    "oci-filters-applied",
    "oci-subject",
    "range",
    "www-authenticate",
];

/// What is right to differ.
struct Right {
    /// By which doors.
    doors: Doors,
    /// A part of the names of the steps.
    step: &'static str,
    fields: &'static [&'static str],
    /// Why.
    reason: &'static str,
}

#[derive(PartialEq, Eq)]
enum Doors {
    All,
    Mirrors,
}

const RIGHT: [Right; 3] = [
    Right {
        doors: Doors::All,
        step: "",
        fields: &["accept-ranges"],
        reason: "the registry has ranges of blobs alone, the proxy of manifests too",
    },
    Right {
        doors: Doors::All,
        step: "a known manifest",
        fields: &["content-type", "docker-content-digest", "etag"],
        reason: "RFC 9110 §15.4.5: a 304 has the ETag of the 200, which the registry leaves out",
    },
    Right {
        doors: Doors::Mirrors,
        step: "a bad digest",
        fields: &["status", "body", "content-type", "content-length"],
        reason: "a mirror passes pulls on alone, and says 404 where this registry says 500",
    },
];

impl Right {
    fn is_about(&self, door: &Door, step: &str, field: &str) -> bool {
        let is_door = self.doors == Doors::All || matches!(door, Door::Mirror(..));
        assert!(!self.reason.is_empty(), "{}: no reason", self.step);
        is_door && step.contains(self.step) && self.fields.contains(&field)
    }
}

/// By which door requests go.
#[derive(Debug, Clone)]
enum Door {
    /// `https://` and a host.
    Https(&'static str),
    /// `http://` and a host, in absolute form.
    Http(&'static str),
    /// The proxy itself, with this before the repository and after the path.
    Mirror(&'static str, &'static str),
}

/// A client that goes through the suite, and what it was answered.
struct Suite {
    client: Client,
    door: Door,
    repository: &'static str,
    /// The repository that blobs are mounted from.
    other: &'static str,
    answers: Vec<(String, BTreeMap<&'static str, String>)>,
}

impl Suite {
    fn new(client: Client, door: Door, repository: &'static str, other: &'static str) -> Self {
        Self { client, door, repository, other, answers: Vec::new() }
    }

    fn url(&self, path: &str) -> Result<Url> {
        let url = match &self.door {
            Door::Https(host) => format!("https://{host}/v2/{path}"),
            Door::Http(host) => format!("http://{host}/v2/{path}"),
            Door::Mirror(prefix, query) => {
                let (path, own) = path.split_once('?').unwrap_or((path, ""));
                let query = match (own, *query) {
                    ("", query) => query.to_owned(),
                    (own, "") => format!("?{own}"),
                    (own, query) => format!("{query}&{own}"),
                };
                format!("mirror://proxy/v2/{prefix}{path}{query}")
            }
        };
        Ok(url.parse()?)
    }

    /// Sends a request for a path below the repository, and remembers the answer.
    fn ask(&mut self, step: &str, path: &str, request: Request) -> Result<Response> {
        let url = self.url(&format!("{}/{path}", self.repository))?;
        self.ask_at(step, &url, request)
    }

    fn get(&mut self, step: &str, path: &str) -> Result<Response> {
        for method in ["HEAD", "GET"] {
            let answer = self.ask(&format!("{step} ({method})"), path, reading(method))?;
            if method == "GET" {
                return Ok(answer);
            }
        }
        anyhow::bail!("no method")
    }

    /// Sends a request to where an answer has led.
    fn ask_at(&mut self, step: &str, url: &Url, request: Request) -> Result<Response> {
        let target = match url.scheme() {
            "mirror" => {
                ensure!(url.host_str() == Some("proxy"), "{step}: led to {url}");
                url[url::Position::BeforePath..].to_owned()
            }
            _ => url.to_string(),
        };
        let answer = self.client.send(&Request { target, ..request }).context(step.to_owned())?;
        let read = self.read(url, &answer)?;
        self.answers.push((step.to_owned(), read));
        Ok(answer)
    }

    /// What a client reads of an answer, without what names this client alone.
    fn read(&self, url: &Url, answer: &Response) -> Result<BTreeMap<&'static str, String>> {
        let mut read = BTreeMap::from([("status", answer.status.to_string())]);
        for name in READ {
            let values: Vec<_> = answer.headers.all(name).collect();
            if values.is_empty() {
                continue;
            }
            let shown = match name {
                "location" => self.shown(&url.join(&values.join(""))?)?,
                "link" => self.link(url, &values.join(""))?,
                "docker-upload-uuid" => "some".to_owned(),
                _ => values.join(" | "),
            };
            read.insert(name, shown);
        }
        read.insert("body", self.anonymous(&in_order(&answer.text())));
        Ok(read)
    }

    fn link(&self, url: &Url, link: &str) -> Result<String> {
        let target = link.strip_prefix('<').and_then(|link| link.split_once('>'));
        let (target, rest) = target.with_context(|| format!("no link: {link}"))?;
        Ok(format!("{}{rest}", self.shown(&url.join(target)?)?))
    }

    /// The path that a registry would know of a URL, if that leads back by the door.
    fn shown(&self, url: &Url) -> Result<String> {
        let (root, query) = match &self.door {
            Door::Https(host) => (format!("https://{host}/v2/"), ""),
            Door::Http(host) => (format!("http://{host}/v2/"), ""),
            Door::Mirror(prefix, query) => (format!("mirror://proxy/v2/{prefix}"), *query),
        };
        let path = url.as_str().strip_prefix(&root);
        let path = path.with_context(|| format!("{url} is not below {root}"))?;
        let (path, given) = path.split_once('?').unwrap_or((path, ""));
        let namespace = query.trim_start_matches('?');
        ensure!(namespace.is_empty() || given.contains(namespace), "{url} has lost {namespace}");
        let is_query = |part: &&str| *part != namespace && !part.starts_with("_state=");
        let query: Vec<_> = given.split('&').filter(is_query).collect();
        let path = match path.split_once("/blobs/uploads/") {
            Some((repository, _)) => format!("{repository}/blobs/uploads/some"),
            None => path.to_owned(),
        };
        Ok(self.anonymous(&format!("{path}?{}", query.join("&"))))
    }

    /// A text without the name of the repository.
    fn anonymous(&self, text: &str) -> String {
        text.replace(self.repository, "REPOSITORY").replace(self.other, "OTHER")
    }

    fn began(&mut self, step: &str, query: &str, body: &str) -> Result<Url> {
        let started = Request::new("POST", "");
        let started = match body {
            "" => started.header("Content-Length", "0"),
            body => octets(started).body(body.to_owned()),
        };
        let path = format!("blobs/uploads/{query}");
        let url = self.url(&format!("{}/{path}", self.repository))?;
        let answer = self.ask(step, &path, started)?;
        led(&url, &answer)
    }

    fn finished(&mut self, step: &str, upload: &Url, digest: &str, body: &str) -> Result<()> {
        let mut url = upload.clone();
        url.query_pairs_mut().append_pair("digest", digest);
        self.ask_at(step, &url, octets(Request::new("PUT", "")).body(body.to_owned()))?;
        Ok(())
    }

    fn push_blob(&mut self, step: &str, bytes: &str) -> Result<serde_json::Value> {
        let upload = self.began(&format!("{step}: begin"), "", "")?;
        let digest = digest_of(bytes.as_bytes());
        self.finished(&format!("{step}: finish"), &upload, &digest, bytes)?;
        Ok(json!({"mediaType": "application/x", "digest": digest, "size": bytes.len()}))
    }

    fn push_manifest(
        &mut self,
        step: &str,
        reference: &str,
        document: &serde_json::Value,
    ) -> Result<String> {
        let body = document.to_string();
        let put = Request::new("PUT", "").header("Content-Type", MANIFEST).body(body.clone());
        self.ask(step, &format!("manifests/{reference}"), put)?;
        Ok(digest_of(body.as_bytes()))
    }
}

/// A list of tags in an order of its own: the registry's is that of a directory.
fn in_order(body: &str) -> String {
    let Ok(mut document) = serde_json::from_str::<serde_json::Value>(body) else {
        return body.to_owned();
    };
    let Some(tags) = document.get_mut("tags").and_then(serde_json::Value::as_array_mut) else {
        return body.to_owned();
    };
    tags.sort_by_key(ToString::to_string);
    document.to_string()
}

fn reading(method: &str) -> Request {
    Request::new(method, "").header("Accept", format!("{MANIFEST}, {INDEX}"))
}

fn octets(request: Request) -> Request {
    request.header("Content-Type", "application/octet-stream")
}

fn led(url: &Url, answer: &Response) -> Result<Url> {
    Ok(url.join(answer.headers.get("location").unwrap_or_default())?)
}

const NOWHERE: &str = "sha256:ababababababababababababababababababababababababababababababab00";

fn manifest(config: &serde_json::Value, layers: &[&serde_json::Value]) -> serde_json::Value {
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
}

/// Everything, in the suite's order.
fn whole(suite: &mut Suite) -> Result<()> {
    push(suite)?;
    pull(suite)?;
    discover(suite)?;
    manage(suite)
}

fn push(suite: &mut Suite) -> Result<()> {
    let streamed = "streamed".repeat(500);
    let digest = digest_of(streamed.as_bytes());
    suite.get("a blob that is not there yet", &format!("blobs/{digest}"))?;
    let upload = suite.began("streamed: begin", "", "")?;
    let patch = octets(Request::new("PATCH", "")).header("Transfer-Encoding", "chunked");
    let answer = suite.ask_at("streamed: patch", &upload, patch.body(streamed.clone()))?;
    let upload = led(&upload, &answer)?;
    suite.finished("streamed: finish", &upload, &digest, "")?;
    suite.get("streamed: read", &format!("blobs/{digest}"))?;

    let at_once = "at once";
    let digest = digest_of(at_once.as_bytes());
    let upload = suite.began("monolithic: one request", &format!("?digest={digest}"), at_once)?;
    if suite.answers.last().is_some_and(|(_, read)| read.get("status").is_some_and(|s| s == "202"))
    {
        suite.finished("monolithic: one request, finished", &upload, &digest, at_once)?;
    }
    suite.get("monolithic: read", &format!("blobs/{digest}"))?;
    suite.push_blob("monolithic: two requests", "two requests")?;
    let upload = suite.began("a wrong digest: begin", "", "")?;
    suite.finished("a wrong digest: finish", &upload, NOWHERE, "something else")?;

    let (first, second) = ("first chunk".repeat(100), "second chunk".repeat(100));
    let digest = digest_of(format!("{first}{second}").as_bytes());
    let chunk = |bytes: &str, from: usize| {
        octets(Request::new("PATCH", ""))
            .header("Content-Range", format!("{from}-{}", from + bytes.len() - 1))
            .body(bytes.to_owned())
    };
    let upload = suite.began("chunked: begin", "", "")?;
    suite.ask_at("chunked: out of order", &upload, chunk(&second, first.len()))?;
    let answer = suite.ask_at("chunked: first", &upload, chunk(&first, 0))?;
    let upload = led(&upload, &answer)?;
    suite.ask_at("chunked: first again", &upload, chunk(&first, 0))?;
    let answer = suite.ask_at("chunked: how far", &upload, Request::get(""))?;
    let upload = led(&upload, &answer)?;
    let answer = suite.ask_at("chunked: second", &upload, chunk(&second, first.len()))?;
    let upload = led(&upload, &answer)?;
    suite.finished("chunked: finish", &upload, &digest, "")?;
    suite.get("chunked: read", &format!("blobs/{digest}"))?;
    let upload = suite.began("cancelled: begin", "", "")?;
    suite.ask_at("cancelled: cancel", &upload, Request::new("DELETE", ""))?;
    suite.ask_at("cancelled: how far", &upload, Request::get(""))?;

    let mount = format!("?mount={digest}&from={}", suite.other);
    suite.began("mount of what is not there", &mount, "")?;
    let repository = suite.repository;
    suite.repository = suite.other;
    let mounted = suite.push_blob("other repository", "mounted")?;
    suite.repository = repository;
    let mounted = mounted.get("digest").and_then(serde_json::Value::as_str).unwrap_or_default();
    suite.get("mount: before", &format!("blobs/{mounted}"))?;
    suite.began("mount", &format!("?mount={mounted}&from={}", suite.other), "")?;
    suite.get("mount: read", &format!("blobs/{mounted}"))?;
    suite.began("anonymous mount", &format!("?mount={NOWHERE}"), "")?;

    let missing = json!({"mediaType": "application/x", "digest": NOWHERE, "size": 3});
    let incomplete = manifest(&missing, &[&missing]);
    suite.push_manifest("a manifest without its blobs", "incomplete", &incomplete)?;
    suite.push_manifest("no manifest", "none", &json!({}))?;
    Ok(())
}

fn pull(suite: &mut Suite) -> Result<()> {
    let config = suite.push_blob("config", "{\"architecture\":\"amd64\",\"os\":\"linux\"}")?;
    let layer = suite.push_blob("layer", &"layer".repeat(1000))?;
    let image = manifest(&config, &[&layer]);
    suite.get("a tag that is not there yet", "manifests/pulled")?;
    let digest = suite.push_manifest("manifest by tag", "pulled", &image)?;
    let by_digest = format!("manifests/{digest}");
    suite.push_manifest("manifest by digest", &digest, &image)?;
    reading_again(suite, &digest, &layer)?;
    let newer = manifest(&config, &[&layer, &layer]);
    let newer = suite.push_manifest("a newer manifest", "pulled", &newer)?;
    suite.get("the tag has moved", "manifests/pulled")?;
    suite.get("the newer by digest", &format!("manifests/{newer}"))?;
    suite.get("the older by digest", &by_digest)?;
    Ok(())
}

/// What is only read.
fn reading_again(suite: &mut Suite, digest: &str, layer: &serde_json::Value) -> Result<()> {
    let layer = layer.get("digest").and_then(serde_json::Value::as_str).unwrap_or_default();
    for time in ["once", "again"] {
        suite.get(&format!("the tag, {time}"), "manifests/pulled")?;
        suite.get(&format!("the digest, {time}"), &format!("manifests/{digest}"))?;
        suite.get(&format!("the layer, {time}"), &format!("blobs/{layer}"))?;
        let part = reading("GET").header("Range", "bytes=5-9");
        suite.ask(&format!("a part, {time}"), &format!("blobs/{layer}"), part)?;
        let known = reading("GET").header("If-None-Match", format!("\"{digest}\""));
        suite.ask(&format!("a known manifest, {time}"), &format!("manifests/{digest}"), known)?;
        suite.get(&format!("no such tag, {time}"), "manifests/nowhere")?;
        suite.get(&format!("no such digest, {time}"), &format!("manifests/{NOWHERE}"))?;
        suite.get(&format!("no such blob, {time}"), &format!("blobs/{NOWHERE}"))?;
        suite.ask(
            &format!("a bad digest, {time}"),
            "manifests/sha256:totallywrong",
            reading("GET"),
        )?;
    }
    Ok(())
}

fn discover(suite: &mut Suite) -> Result<()> {
    let config = suite.push_blob("discovery: config", "{}")?;
    let image = manifest(&config, &[]);
    for tag in ["test0", "test1", "TEST2", "z_3"] {
        suite.push_manifest(&format!("discovery: tag {tag}"), tag, &image)?;
        suite.ask(&format!("discovery: tags with {tag}"), "tags/list", reading("GET"))?;
    }
    let size = image.to_string().len();
    let digest = digest_of(image.to_string().as_bytes());
    let subject = json!({"mediaType": MANIFEST, "digest": digest, "size": size});
    let referrers = format!("referrers/{digest}");
    suite.ask("referrers: none", &referrers, reading("GET"))?;
    for kind in ["application/a", "application/b"] {
        let mut referrer = manifest(&config, &[]);
        if let Some(fields) = referrer.as_object_mut() {
            fields.insert("subject".to_owned(), subject.clone());
            fields.insert("artifactType".to_owned(), json!(kind));
        }
        let digest = digest_of(referrer.to_string().as_bytes());
        suite.push_manifest(&format!("referrers: push {kind}"), &digest, &referrer)?;
        suite.ask(&format!("referrers: with {kind}"), &referrers, reading("GET"))?;
    }
    listings(suite, &digest)
}

fn listings(suite: &mut Suite, digest: &str) -> Result<()> {
    for query in ["", "?n=0", "?n=2", "?n=3", "?n=100", "?last=test0", "?n=1&last=test0", "?n=x"] {
        suite.ask(&format!("tags{query}"), &format!("tags/list{query}"), reading("GET"))?;
    }
    let mut url = suite.url(&format!("{}/tags/list?n=1", suite.repository))?;
    for page in 1..10 {
        let answer = suite.ask_at(&format!("page {page} of the tags"), &url, reading("GET"))?;
        let Some(link) = answer.headers.get("link") else { break };
        let target = link.strip_prefix('<').and_then(|link| link.split_once('>'));
        url = url.join(target.context("no link")?.0)?;
    }
    for query in ["", "?artifactType=application/a", "?artifactType=application/none"] {
        let path = format!("referrers/{digest}{query}");
        suite.ask(&format!("referrers{query}"), &path, reading("GET"))?;
    }
    let path = format!("referrers/{NOWHERE}");
    suite.ask("referrers of nothing", &path, reading("GET"))?;
    Ok(())
}

fn manage(suite: &mut Suite) -> Result<()> {
    let config = suite.push_blob("management: config", "{\"managed\":true}")?;
    let layer = suite.push_blob("management: layer", "managed layer")?;
    let image = manifest(&config, &[&layer]);
    let digest = suite.push_manifest("management: push", "managed", &image)?;
    let by_digest = format!("manifests/{digest}");
    let layer = layer.get("digest").and_then(serde_json::Value::as_str).unwrap_or_default();
    let by_layer = format!("blobs/{layer}");
    let delete = || Request::new("DELETE", "");
    suite.get("management: the tag", "manifests/managed")?;
    suite.get("management: the layer", &by_layer)?;
    suite.ask("management: tags", "tags/list", reading("GET"))?;
    suite.ask("delete the tag", "manifests/managed", delete())?;
    suite.get("the tag after its delete", "manifests/managed")?;
    suite.ask("tags after a tag's delete", "tags/list", reading("GET"))?;
    suite.ask("delete the manifest", &by_digest, delete())?;
    suite.get("the manifest after its delete", &by_digest)?;
    suite.get("the tag after the manifest's delete", "manifests/managed")?;
    suite.ask("tags after a manifest's delete", "tags/list", reading("GET"))?;
    suite.ask("delete the manifest again", &by_digest, delete())?;
    suite.ask("delete the layer", &by_layer, delete())?;
    suite.get("the layer after its delete", &by_layer)?;
    suite.ask("delete the layer again", &by_layer, delete())?;
    suite.ask("delete what never was", &format!("blobs/{NOWHERE}"), delete())?;
    Ok(())
}

/// Fails with every difference that has no reason.
fn equal(directly: &Suite, through: &Suite) -> Result<()> {
    let mut different = Vec::new();
    for ((step, direct), (other, proxied)) in directly.answers.iter().zip(&through.answers) {
        ensure!(step == other, "the sequence goes apart at {step} and {other}");
        let fields = direct.keys().chain(proxied.keys().filter(|name| !direct.contains_key(*name)));
        for name in fields {
            let (direct, proxied) = (direct.get(name), proxied.get(name));
            let is_right = RIGHT.iter().any(|right| right.is_about(&through.door, step, name));
            if direct != proxied && !is_right {
                different.push(format!("{step}: {name}: {direct:?} directly, {proxied:?} here"));
            }
        }
    }
    let (directly, here) = (directly.answers.len(), through.answers.len());
    ensure!(directly == here, "{directly} answers directly, {here} here");
    let differences = different.len();
    ensure!(different.is_empty(), "{differences} by {:?}:\n{}", through.door, different.join("\n"));
    Ok(())
}

/// A registry, a proxy to it, and a client each.
struct World {
    // In the order in which they have to go.
    proxy: Proxy,
    registry: Registry,
    home: tempfile::TempDir,
}

impl World {
    fn start(registry: impl FnOnce(std::path::PathBuf) -> Result<Registry>) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let registry = registry(home.path().join("registry"))?;
        let proxy = Proxy::configured(&home.path().join("proxy"), &settings(&registry))?;
        Ok(Self { proxy, registry, home })
    }

    fn direct(&self) -> Result<Client> {
        let authority = fs::read_to_string(&self.registry.authority)?;
        Ok(Client::direct(vec![(HUB.to_owned(), self.registry.address)]).trusting(&authority))
    }

    fn proxied(&self) -> Result<Client> {
        let access = self.proxy.access();
        Ok(Client::new(access.mirror()).trusting(&access.authority()?))
    }
}

fn settings(registry: &Registry) -> String {
    format!(
        "[upstream]\nconnect-to = [\"{}\", \"plain.corp:80:{}\"]\nca-files = [\"{}\"]\n\
         [[registry]]\nhost = \"plain.corp\"\nscheme = \"http\"\n",
        connect_to(registry),
        registry.address,
        registry.authority.display()
    )
}

#[test]
fn a_registry_answers_through_a_tunnel_as_directly() -> Result<()> {
    let world = World::start(Registry::start)?;
    let mut directly = Suite::new(world.direct()?, Door::Https(HUB), "suite/aa", "other/aa");
    whole(&mut directly)?;
    let mut through = Suite::new(world.proxied()?, Door::Https(HUB), "suite/bb", "other/bb");
    whole(&mut through)?;
    ensure!(Path::exists(world.home.path()));
    equal(&directly, &through)
}

#[test]
fn a_registry_of_plain_http_answers_by_its_doors_as_directly() -> Result<()> {
    let world = World::start(Registry::plain)?;
    let address: &'static str = world.registry.address.to_string().leak();
    // To the registry an absolute form is as good as a path.
    let direct = Client::new(world.registry.address);
    let mut directly = Suite::new(direct, Door::Http(address), "suite/aa", "other/aa");
    whole(&mut directly)?;
    let doors = [
        (Door::Http("plain.corp"), "suite/bb", "other/bb"),
        (Door::Https("plain.corp"), "suite/cc", "other/cc"),
    ];
    for (door, repository, other) in doors {
        let mut through = Suite::new(world.proxied()?, door, repository, other);
        whole(&mut through)?;
        equal(&directly, &through)?;
    }
    Ok(())
}

#[test]
fn a_mirror_is_read_from_as_the_registry_itself() -> Result<()> {
    let world = World::start(Registry::start)?;
    let mut pusher = Suite::new(world.direct()?, Door::Https(HUB), "suite/aa", "other/aa");
    whole(&mut pusher)?;
    let layer = pusher.push_blob("layer", &"layer".repeat(1000))?;
    let image = manifest(&layer, &[&layer]);
    let digest = pusher.push_manifest("image", "pulled", &image)?;
    let read = |client, door| -> Result<Suite> {
        let mut suite = Suite::new(client, door, "suite/aa", "other/aa");
        reading_again(&mut suite, &digest, &layer)?;
        listings(&mut suite, &digest)?;
        Ok(suite)
    };
    let directly = read(world.direct()?, Door::Https(HUB))?;
    let doors = [
        Door::Mirror("", ""),
        Door::Mirror("docker.io/", ""),
        Door::Mirror("", "?ns=docker.io"),
        Door::Mirror("docker.io/", "?ns=docker.io"),
    ];
    for door in doors {
        equal(&directly, &read(world.proxied()?, door)?)?;
    }
    Ok(())
}
