//! What one client asks brings nothing about for others: it holds nobody back, opens nothing, and
//! decides nothing of what others are told.

use std::time::Duration;

use entrepot_testkit::image::digest_of;
use entrepot_testkit::proxy::Signal;
use entrepot_testkit::registry::HUB_CDN;
use entrepot_testkit::{
    Blob, Client, Fault, Gate, Image, On, Proxy, Registry, Request, Response, image, wait_until,
};

use crate::{ALPINE, BINARY, in_front_of};

const OTHER: &str = "library/other";

fn send(proxy: &Proxy, registry: &Registry, method: &str, path: &str) -> Response {
    let url = format!("https://{}/v2/{path}", registry.host());
    proxy.client().send(&Request::new(method, url).header("Accept", image::MANIFEST)).unwrap()
}

/// A registry with this many images nobody has pulled yet, and a proxy in front of it.
fn uncached(count: usize) -> (Registry, Proxy) {
    let registry = Registry::open();
    for number in 0..count {
        registry.push(ALPINE, &number.to_string(), &Image::random(1, 1000));
    }
    let proxy = in_front_of(&registry);
    (registry, proxy)
}

/// An image that is kept, with the registry and the proxy.
fn kept() -> (Registry, Proxy, Image) {
    let registry = Registry::open();
    let image = Image::random(1, 20_000);
    registry.push(ALPINE, "1", &image);
    let proxy = in_front_of(&registry);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    (registry, proxy, image)
}

/// Changes the times in the records whose path has this in it, so that they are so much older.
fn age_records(proxy: &mut Proxy, part: &str, seconds: u64) {
    proxy.signal(Signal::TERM);
    proxy.wait_exit();
    let mut directories = vec![proxy.data_dir().join("cache/repositories")];
    let mut changed = 0;
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            if !path.to_string_lossy().contains(part) {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, older(&text, seconds)).unwrap();
            changed += 1;
        }
    }
    assert!(changed > 0, "no record of {part}");
    proxy.start_again();
}

/// Takes so much from whatever looks like a time in seconds (docs/disk-format.md).
fn older(line: &str, seconds: u64) -> String {
    let (_, json) = line.trim_end().split_once(' ').unwrap();
    let mut record: serde_json::Value = serde_json::from_str(json).unwrap();
    for field in record.as_object_mut().unwrap().values_mut() {
        if let Some(time) = field.as_u64().filter(|time| *time > 1_000_000_000) {
            *field = (time - seconds).into();
        }
    }
    let json = record.to_string();
    let length = u64::try_from(json.len()).unwrap().to_be_bytes();
    let digest = digest_of(&[&length, json.as_bytes()].concat());
    format!("{} {json}\n", &digest["sha256:".len()..][..16])
}

#[test]
fn errors_that_one_brings_about_hold_back_nobody_else() {
    for status in [500, 501, 502, 503, 504, 505, 508] {
        let (registry, proxy) = uncached(10);
        let odd = "a".repeat(200);
        registry.fault_always(On::path(format!("/manifests/{odd}")), Fault::status(status));
        registry.fault_always(On::path("library/odd"), Fault::status(status));
        for number in 0..10 {
            for path in [ALPINE, "library/odd"] {
                for _ in 0..3 {
                    send(&proxy, &registry, "GET", &format!("{path}/manifests/{odd}"));
                }
            }
            proxy.puller().pull(ALPINE, &number.to_string()).unwrap();
        }
    }
}

#[test]
fn errors_that_a_clients_own_fields_bring_about_are_its_own() {
    let (registry, proxy) = uncached(1);
    let answer = |request: &entrepot_testkit::Request| {
        let is_odd = request.headers.get("x-odd").is_some()
            || request.headers.get("accept").is_some_and(|accept| accept.contains("<script>"));
        Response::new(if is_odd { 503 } else { 404 })
    };
    registry.fault_always(On::path("/manifests/0"), Fault::answer_with(answer));
    let url = format!("https://{}/v2/{ALPINE}/manifests/0", registry.host());
    for _ in 0..5 {
        let made_up = Request::get(&url).header("Authorization", "Bearer x").header("X-Odd", "1");
        assert_eq!(proxy.client().send(&made_up).unwrap().status, 503);
        let odd = Request::get(&url).header("Accept", "<script>alert(1)</script>");
        assert_eq!(proxy.client().send(&odd).unwrap().status, 503);
    }
    registry.heal();
    proxy.puller().pull(ALPINE, "0").unwrap();
}

#[test]
fn a_429_of_one_repository_holds_the_others_back_for_a_second_at_most() {
    let (registry, proxy) = uncached(1);
    let limited = Response::new(429).header("Retry-After", "300");
    registry.fault_always(On::path("library/odd"), Fault::Answer(limited));
    assert_eq!(send(&proxy, &registry, "GET", "library/odd/manifests/1").status, 429);
    let waited = (0..40).any(|_| {
        let pulled = proxy.puller().pull(ALPINE, "0");
        if pulled.is_err() {
            std::thread::sleep(Duration::from_millis(100));
        }
        pulled.is_ok()
    });
    assert!(waited, "still held back after four seconds");
    assert_eq!(send(&proxy, &registry, "GET", "library/odd/manifests/1").status, 429);
    let odd = registry.requests().path("library/odd");
    assert_eq!(odd.len(), 1, "{}", odd.summary());
}

#[test]
fn credentials_that_somebody_makes_up_hold_back_nobody() {
    let (registry, proxy) = uncached(1);
    let answer = |request: &entrepot_testkit::Request| {
        Response::new(if request.headers.get("authorization").is_some() { 429 } else { 404 })
    };
    registry.fault_always(On::path("/manifests/0"), Fault::answer_with(answer));
    let url = format!("https://{}/v2/{ALPINE}/manifests/0", registry.host());
    for made_up in ["Basic eDp5", "Basic eDp6", "Bearer x"] {
        let request = Request::get(&url).header("Authorization", made_up);
        assert_eq!(proxy.client().send(&request).unwrap().status, 429);
    }
    registry.heal();
    proxy.puller().pull(ALPINE, "0").unwrap();
}

#[test]
fn a_question_that_is_never_answered_keeps_nobody_from_asking() {
    let registry = Registry::open();
    for tag in ["1", "2", "3"] {
        registry.push(ALPINE, tag, &Image::random(1, 1000));
    }
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .upstream("header-timeout = \"300ms\"\n")
        .start();
    registry.fault_always(On::path("/tags/list"), Fault::SlowHead(Gate::new()));
    for tag in ["1", "2", "3"] {
        for number in 0..4 {
            let hard = send(&proxy, &registry, "GET", &format!("{ALPINE}/tags/list?n={number}"));
            assert_eq!(hard.status, 504);
        }
        proxy.puller().pull(ALPINE, tag).unwrap();
    }
}

#[test]
fn what_another_question_has_met_opens_no_grant_that_is_over() {
    let (registry, mut proxy, image) = kept();
    age_records(&mut proxy, "_access", 10 * 3600);
    // The repository is private now.
    let layer = format!("{ALPINE}/blobs/{}", image.layers[0].digest);
    let manifest = format!("{ALPINE}/manifests/{}", image.manifest.digest);
    registry.fault_always(On::path("/manifests/odd"), Fault::status(503));
    registry.fault_always(On::path("library/odd"), Fault::status(429));
    registry.fault_always(On::path(ALPINE), Fault::status(401));
    for _ in 0..4 {
        for odd in [format!("{ALPINE}/manifests/odd"), "library/odd/manifests/1".to_owned()] {
            send(&proxy, &registry, "GET", &odd);
            send(&proxy, &registry, "HEAD", &odd);
        }
        for path in [&layer, &manifest, &format!("{ALPINE}/manifests/1")] {
            let answer = send(&proxy, &registry, "GET", path);
            assert!(answer.status >= 400, "{path}: {}", answer.status);
        }
    }
}

#[test]
fn the_registrys_own_trouble_opens_what_was_open_and_an_odd_error_does_not() {
    for (status, is_open) in [(500, false), (508, false), (502, true), (503, true), (504, true)] {
        let (registry, mut proxy, image) = kept();
        age_records(&mut proxy, "_access", 10 * 3600);
        registry.fault_always(On::path("/v2/"), Fault::status(status));
        let layer = format!("{ALPINE}/blobs/{}", image.layers[0].digest);
        for path in [layer, format!("{ALPINE}/manifests/1")] {
            let answer = send(&proxy, &registry, "GET", &path);
            assert_eq!(answer.status == 200, is_open, "{status} {path}: {}", answer.status);
        }
    }
}

#[test]
fn a_limit_elsewhere_closes_nothing_that_the_registry_would_open() {
    let (registry, mut proxy, image) = kept();
    age_records(&mut proxy, "_access", 10 * 3600);
    let limited = Response::new(429).header("Retry-After", "300");
    for path in ["library/odd", "library/odder"] {
        registry.fault_always(On::path(path), Fault::Answer(limited.clone()));
        for method in ["GET", "HEAD"] {
            send(&proxy, &registry, method, &format!("{path}/manifests/1"));
            send(&proxy, &registry, method, &format!("{path}/blobs/{}", image.layers[0].digest));
        }
    }
    let layer = format!("{ALPINE}/blobs/{}", image.layers[0].digest);
    for path in [format!("{ALPINE}/manifests/1"), layer] {
        assert_eq!(send(&proxy, &registry, "GET", &path).status, 200, "{path}");
    }
}

#[test]
fn nobody_learns_the_name_by_which_a_loop_is_known() {
    let (registry, proxy) = uncached(1);
    let answer = send(&proxy, &registry, "HEAD", &format!("{ALPINE}/tags/list"));
    let told: Vec<_> = answer.headers.all("via").map(str::to_owned).collect();
    assert_eq!(told, ["1.1 entrepot"]);
    let url = format!("https://{}/v2/{ALPINE}/tags/list", registry.host());
    let again = Request::head(url).header("Via", told.join(", "));
    assert_eq!(proxy.client().send(&again).unwrap().status, answer.status);
}

/// The registry says that it is a whole object, in some way that is not a plain 200.
fn worn(status: u16, headers: &[(&str, &str)]) -> Fault {
    let body = Response::new(status).body(vec![b'x'; 5000]);
    let response =
        headers.iter().fold(body, |response, (name, value)| response.header(name, *value));
    Fault::Answer(response)
}

#[test]
fn nothing_by_digest_passes_the_check_whatever_it_wears() {
    let manifest = ("Content-Type", image::MANIFEST);
    let mut worn_all = vec![
        worn(206, &[("Content-Range", "bytes 0-4999/20000"), manifest]),
        worn(206, &[("Content-Range", "bytes 0-4999/5000")]),
        worn(200, &[("Content-Encoding", "")]),
        worn(200, &[("Content-Encoding", "aws-chunked"), manifest]),
        worn(200, &[("Content-Encoding", "gzip")]),
        worn(200, &[("Content-Encoding", "identity, x"), manifest]),
        worn(200, &[("Content-Range", "bytes 0-4999/5000")]),
        worn(200, &[manifest]),
    ];
    worn_all.extend([201, 202, 203, 207, 226, 299].map(|status| worn(status, &[manifest])));
    let (registry, proxy, _) = kept();
    let unheld = Image::random(1, 5000);
    registry.push(ALPINE, "2", &unheld);
    let layer = format!("blobs/{}", unheld.layers[0].digest);
    for fault in worn_all {
        for path in [&layer, &format!("manifests/{}", unheld.manifest.digest)] {
            registry.fault_always(On::get(path.as_str()), fault.clone());
            let url = format!("https://{}/v2/{ALPINE}/{path}", registry.host());
            for range in [None, Some("bytes=0-99")] {
                let request = Request::get(&url);
                let request = match range {
                    Some(range) => request.header("Range", range),
                    None => request,
                };
                match proxy.client().send(&request) {
                    Ok(answer) => assert!(answer.status >= 500, "{fault:?}: {}", answer.status),
                    Err(broken_off) => drop(broken_off),
                }
            }
            registry.heal();
        }
    }
    let unasked = worn(206, &[("Content-Range", "bytes 0-4999/20000"), manifest]);
    registry.fault_always(On::path("manifests/3"), unasked);
    assert_eq!(send(&proxy, &registry, "GET", &format!("{ALPINE}/manifests/3")).status, 502);
    proxy.puller().pull(ALPINE, "2").unwrap();
}

#[test]
fn what_a_registry_withdraws_is_not_served_for_ever() {
    for status in [404, 410, 412, 451] {
        let (registry, mut proxy, image) = kept();
        age_records(&mut proxy, "_contents", 25 * 3600);
        let layer = format!("{ALPINE}/blobs/{}", image.layers[0].digest);
        let manifest = format!("{ALPINE}/manifests/{}", image.manifest.digest);
        let config = format!("{ALPINE}/blobs/{}", image.config.digest);
        registry.fault_always(On::path(&layer), Fault::status(status));
        registry.fault_always(On::path(&manifest), Fault::status(status));
        registry.forget_requests();
        for path in [&layer, &manifest, &config] {
            assert_eq!(send(&proxy, &registry, "GET", path).status, 200, "{path} is served");
            registry.wait_for(|requests| !requests.method("HEAD").path(path).is_empty());
        }
        for path in [&layer, &manifest] {
            wait_until(path, || send(&proxy, &registry, "GET", path).status == status);
        }
        registry.forget_requests();
        assert_eq!(send(&proxy, &registry, "GET", &config).status, 200);
        assert!(registry.requests().is_empty(), "confirmed for a day");
    }
}

#[test]
fn a_withdrawn_image_is_not_served_by_its_tag_as_long_as_the_tag_is_fresh() {
    let registry = Registry::open();
    let image = Image::random(1, 1000);
    registry.push(ALPINE, "1", &image);
    let mut proxy =
        Proxy::builder(BINARY).in_front_of(&registry).config("tag-ttl = \"60d\"\n").start();
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    let tag = format!("{ALPINE}/manifests/1");
    send(&proxy, &registry, "GET", &tag);
    age_records(&mut proxy, "_contents", 25 * 3600);
    for path in [&tag, &format!("{ALPINE}/manifests/{}", image.manifest.digest)] {
        registry.fault_always(On::path(path), Fault::status(404));
    }
    wait_until("it is gone", || send(&proxy, &registry, "GET", &tag).status == 404);
}

#[test]
fn while_a_registry_is_away_nothing_counts_as_withdrawn() {
    let (mut registry, mut proxy, image) = kept();
    age_records(&mut proxy, "_contents", 25 * 3600);
    registry.stop();
    let layer = format!("{ALPINE}/blobs/{}", image.layers[0].digest);
    for _ in 0..3 {
        assert_eq!(send(&proxy, &registry, "GET", &layer).status, 200);
    }
}

#[test]
fn what_a_manifest_is_called_elsewhere_is_not_what_it_is_here() {
    let registry = Registry::open();
    let image = Image::random(1, 1000);
    registry.push(ALPINE, "1", &image);
    let called_index = Blob::new(image::INDEX, image.manifest.bytes.clone());
    registry.push_manifest(OTHER, &called_index);
    let proxy = in_front_of(&registry);
    let digest = &image.manifest.digest;
    let called = |repository: &str, reference: &str| {
        let url = format!("https://{}/v2/{repository}/manifests/{reference}", registry.host());
        let answer = proxy.client().get(&url).unwrap();
        assert_eq!(answer.body, image.manifest.bytes);
        answer.headers.get("content-type").map(str::to_owned)
    };
    assert_eq!(called(OTHER, digest).as_deref(), Some(image::INDEX));
    for reference in [digest.as_str(), "1", digest, "1"] {
        assert_eq!(called(ALPINE, reference).as_deref(), Some(image::MANIFEST), "{reference}");
    }
    assert_eq!(called(OTHER, digest).as_deref(), Some(image::INDEX));
}

#[test]
fn how_one_client_spells_what_it_takes_decides_nothing_for_others() {
    let registry = Registry::open();
    let (old, new) = (Image::random(1, 1000), Image::random(1, 1000));
    registry.push(ALPINE, "1", &old);
    registry.push(ALPINE, "2", &new);
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config("tag-ttl = \"1h\"\n").start();
    let plain = format!("{}, {}", image::INDEX, image::MANIFEST);
    let as_others = {
        let (plain, old, new) = (plain.clone(), old.manifest.digest.clone(), new.manifest.digest);
        move |request: &entrepot_testkit::Request| {
            // A registry that reads every letter.
            let is_plain = request.headers.all("accept").eq([plain.as_str()]);
            Response::new(200)
                .header("Content-Type", image::MANIFEST)
                .header("Docker-Content-Digest", if is_plain { &old } else { &new })
        }
    };
    registry.fault_always(On::head("/manifests/1"), Fault::answer_with(as_others));
    let told = |accepted: &[&str]| {
        let url = format!("https://{}/v2/{ALPINE}/manifests/1", registry.host());
        let request = accepted.iter().fold(Request::head(url), |r, a| r.header("Accept", *a));
        let answer = proxy.client().send(&request).unwrap();
        answer.headers.get("docker-content-digest").map(str::to_owned)
    };
    let expected = Some(old.manifest.digest.as_str());
    let otherwise =
        [format!("{plain}, x/\u{ff}"), plain.replace('/', " /"), format!("{plain};q=0.5")];
    for odd in &otherwise {
        assert_ne!(told(&[odd]).as_deref(), expected, "{odd}");
        assert_eq!(told(&[&plain]).as_deref(), expected, "after {odd}");
    }
    told(&[&plain, "x/\u{ff}"]);
    assert_eq!(told(&[&plain]).as_deref(), expected);
    // The same in other letters, or in another order, as dockerd takes another for every request,
    // is told, and asked, in the same way.
    registry.forget_requests();
    let reversed = format!("{}, {}", image::MANIFEST, image::INDEX);
    let twice = format!("{plain}, {plain}");
    let alike = [plain.to_ascii_uppercase(), plain.replace(", ", ","), reversed, twice];
    for alike in &alike {
        assert_eq!(told(&[alike]).as_deref(), expected, "{alike}");
    }
    assert_eq!(told(&[image::MANIFEST, image::INDEX]).as_deref(), expected);
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}

#[test]
fn what_a_client_says_beside_its_credential_decides_nothing_for_others() {
    let registry = Registry::open();
    let (old, new) = (Image::random(1, 1000), Image::random(1, 1000));
    registry.push(ALPINE, "1", &old);
    registry.push(ALPINE, "2", &new);
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config("tag-ttl = \"1h\"\n").start();
    let (one, other) = (old.manifest.digest.clone(), new.manifest.digest.clone());
    let heeding = move |request: &entrepot_testkit::Request| {
        let digest = if request.headers.get("x-version").is_some() { &other } else { &one };
        Response::new(200)
            .header("Content-Type", image::MANIFEST)
            .header("Docker-Content-Digest", digest)
    };
    registry.fault_always(On::head("/manifests/1"), Fault::answer_with(heeding));
    let told = |version: Option<&str>| {
        let url = format!("https://{}/v2/{ALPINE}/manifests/1", registry.host());
        let request = Request::head(url).header("Authorization", "Bearer x");
        let request = version.into_iter().fold(request, |r, v| r.header("X-Version", v));
        let answer = proxy.client().send(&request).unwrap();
        answer.headers.get("docker-content-digest").map(str::to_owned)
    };
    for _ in 0..2 {
        assert_eq!(told(Some("2")), Some(new.manifest.digest.clone()));
        assert_eq!(told(None), Some(old.manifest.digest.clone()));
    }
}

#[test]
fn how_an_answer_looks_does_not_tell_whether_others_have_the_object() {
    let registry = Registry::open();
    let evil = Registry::builder()
        .hosts("ghcr.io", "auth.evil.example", "cdn.evil.example")
        .ca_of(&registry)
        .start();
    let (kept, unkept) = (Image::random(1, 20_000), Image::random(1, 20_000));
    registry.push(ALPINE, "1", &kept);
    for image in [&kept, &unkept] {
        evil.push_blob("x/y", &image.layers[0]);
    }
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).in_front_of(&evil).start();
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    evil.fault_always(On::path("/blobs/"), Fault::Header("Server", "evil".to_owned()));
    // How it wants to be authenticated to is known from now on.
    proxy.client().get("https://ghcr.io/v2/x/y/tags/list").unwrap();
    let look = |image: &Image| {
        evil.forget_requests();
        let url = format!("https://ghcr.io/v2/x/y/blobs/{}", image.layers[0].digest);
        let request = Request::get(url).header("If-None-Match", "\"x\"").header("X-Odd", "1");
        let answer = proxy.client().send(&request).unwrap();
        assert_eq!(answer.body, image.layers[0].bytes);
        let requests = evil.requests();
        let seen: Vec<_> = requests
            .iter()
            .map(|one| {
                let mut names: Vec<_> =
                    one.headers.iter().map(|(name, _)| name.to_owned()).collect();
                names.sort();
                (one.method.clone(), names)
            })
            .collect();
        let mut told: Vec<_> = answer
            .headers
            .iter()
            .filter(|(name, _)| !matches!(name.to_ascii_lowercase().as_str(), "date" | "etag"))
            .filter(|(name, _)| !name.eq_ignore_ascii_case("docker-content-digest"))
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        told.sort();
        (told, seen)
    };
    assert_eq!(look(&kept), look(&unkept));
}

#[test]
fn a_refusal_costs_the_same_whether_the_object_is_kept_or_not() {
    let (registry, mut proxy, image) = kept();
    age_records(&mut proxy, "_access", 10 * 3600);
    registry.fault_always(On::path(ALPINE), Fault::status(401));
    let absent = Image::random(1, 1000);
    let asked = |path: String| {
        registry.forget_requests();
        assert_eq!(send(&proxy, &registry, "GET", &path).status, 401);
        let requests = registry.requests();
        let mut asked: Vec<_> =
            requests.path(&path).iter().map(|request| request.method.clone()).collect();
        asked.sort();
        asked
    };
    // The grant ends with the first refusal, which is asked again without the client's fields.
    asked(format!("{ALPINE}/blobs/{}", absent.config.digest));
    for pair in [
        [&image.layers[0].digest, &absent.layers[0].digest].map(|d| format!("{ALPINE}/blobs/{d}")),
        [&image.manifest.digest, &absent.manifest.digest]
            .map(|d| format!("{ALPINE}/manifests/{d}")),
    ] {
        let [kept, unkept] = pair;
        assert_eq!(asked(kept), asked(unkept));
    }
}

#[test]
fn a_login_page_is_no_yes() {
    let (registry, proxy, image) = kept();
    let layer = &image.layers[0];
    let path = format!("{OTHER}/blobs/{}", layer.digest);
    let page = Response::new(200).header("Content-Type", "text/html").body("<h1>log in</h1>");
    registry.fault_always(On::path("/sso/"), Fault::Answer(page));
    let escaped = path.replace('/', "%2F").replace(':', "%3A");
    for location in [format!("/sso/https%3A/v2/{path}"), format!("/sso/{escaped}")] {
        let there = format!("https://{HUB_CDN}{location}");
        registry.fault_always(On::path(&path), Fault::redirect(302, &there));
        let answer = proxy.client().get(&format!("https://{}/v2/{path}", registry.host()));
        if let Ok(answer) = answer {
            assert_ne!(answer.body, layer.bytes, "{location}");
        }
        registry.heal();
    }
    // A page that happens to have the layer's length.
    let page = Response::new(200).header("Content-Type", "text/html").body(vec![b' '; 20_000]);
    registry.fault_always(On::path(&path), Fault::Answer(page));
    let answer = proxy.client().get(&format!("https://{}/v2/{path}", registry.host()));
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.body != layer.bytes));
}

#[test]
fn what_is_listed_to_one_client_is_not_listed_to_another() {
    let (registry, proxy, _) = kept();
    let listed = |request: &entrepot_testkit::Request| {
        let who = request.headers.get("authorization").unwrap_or("nobody");
        let form = request.headers.get("accept").unwrap_or("any");
        let body = serde_json::json!({ "name": ALPINE, "tags": [who, form] });
        Response::new(200).header("Content-Type", "application/json").body(body.to_string())
    };
    registry.fault_always(On::path("/tags/list"), Fault::answer_with(listed));
    // Each may pull.
    let ask = |client: &Client, who: Option<&str>, accept: Option<&str>| {
        let url = format!("https://{}/v2/{ALPINE}/tags/list", registry.host());
        let fields = [("Authorization", who), ("Accept", accept)];
        let request =
            fields.into_iter().fold(Request::get(url), |request, (name, value)| match value {
                Some(value) => request.header(name, value),
                None => request,
            });
        client.send(&request).unwrap().json()["tags"].clone()
    };
    let client = proxy.client();
    for who in [Some("Bearer alice"), Some("Bearer bob"), None] {
        let url = format!("https://{}/v2/{ALPINE}/manifests/1", registry.host());
        let pull =
            who.into_iter().fold(Request::head(url), |r, who| r.header("Authorization", who));
        client.send(&pull).unwrap();
        for accept in [None, Some("application/json"), Some("application/odd")] {
            let expected = [who.unwrap_or("nobody"), accept.unwrap_or("any")];
            assert_eq!(ask(&client, who, accept), serde_json::json!(expected));
            assert_eq!(ask(&client, who, accept), serde_json::json!(expected), "again");
        }
    }
}
