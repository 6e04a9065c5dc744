//! What is kept, as people see it: listed, removed, pinned, of a proxy that runs and of one that
//! does not.

use entrepot_testkit::image::INDEX;
use entrepot_testkit::proxy::{Finished, Signal};
use entrepot_testkit::pull::Pulled;
use entrepot_testkit::{Blob, Image, Index, Proxy, Registry, Request, Response};
use serde_json::Value;

use crate::{ALPINE, BINARY, in_front_of};

const OTHER: &str = "library/busybox";

/// What a subcommand told as JSON.
#[track_caller]
pub(crate) fn told(proxy: &Proxy, arguments: &[&str]) -> Value {
    let Finished { code, output } = proxy.run(&[arguments, &["--json"]].concat());
    assert_eq!(code, Some(0), "{output}");
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"))
}

fn names(listed: &Value) -> Vec<&str> {
    let images = listed["images"].as_array().unwrap();
    images.iter().map(|image| image["name"].as_str().unwrap()).collect()
}

#[track_caller]
pub(crate) fn pull(proxy: &Proxy, repository: &str, tag: &str) -> Pulled {
    let pulled = proxy.puller().pull(repository, tag).unwrap();
    proxy.wait_until_all_kept(&pulled);
    pulled
}

#[track_caller]
pub(crate) fn stop(proxy: &Proxy) {
    proxy.signal(Signal::TERM);
    proxy.wait_exit();
}

fn api(proxy: &Proxy, method: &str, path: &str) -> Response {
    proxy.operator().send(&Request::new(method, path)).unwrap()
}

/// Two images that share a layer, an index of two platforms of which one was pulled, and a manifest
/// without a tag.
fn several() -> (Registry, Proxy, [Image; 2], Index) {
    let registry = Registry::open();
    let shared = Blob::random(50_000);
    let image = || Image::of_layers("amd64", vec![shared.clone(), Blob::random(10_000)]);
    let images = [image(), image()];
    let index = Index::random(&["amd64", "arm64"], 1, 5_000);
    registry.push(ALPINE, "1", &images[0]);
    registry.push(OTHER, "1", &images[1]);
    registry.push_index(ALPINE, "multi", &index);
    let lone = Image::random(1, 1_000);
    registry.push(ALPINE, "x", &lone);
    let proxy = in_front_of(&registry);
    for (repository, tag) in [(ALPINE, "1"), (OTHER, "1"), (ALPINE, "multi")] {
        pull(&proxy, repository, tag);
    }
    let url = format!("https://{}/v2/{ALPINE}/manifests/{}", registry.host(), lone.manifest.digest);
    assert_eq!(proxy.client().get(&url).unwrap().status, 200);
    proxy.wait_until_kept(&lone.manifest.digest);
    (registry, proxy, images, index)
}

#[track_caller]
fn assert_lists_several(proxy: &Proxy, images: &[Image; 2], index: &Index) {
    let listed = told(proxy, &["ls"]);
    let named = names(&listed);
    let tagged = ["library/alpine:1", "library/alpine:multi", "library/busybox:1"];
    let tagged = tagged.map(|name| format!("docker.io/{name}"));
    assert_eq!((named[0], named[1], named[3]), (&*tagged[0], &*tagged[1], &*tagged[2]));
    assert!(named[2].starts_with("docker.io/library/alpine@sha256:"), "{named:?}");
    assert_eq!(named.len(), 4, "{named:?}");
    let [first, multi, lone, _] = [0, 1, 2, 3].map(|at| &listed["images"][at]);
    assert_eq!(first["digest"], images[0].manifest.digest);
    let size: usize = images[0].blobs().map(|blob| blob.bytes.len()).sum();
    assert_eq!(first["bytes"], size + images[0].manifest.bytes.len());
    assert_eq!(first["platforms"], serde_json::json!(["linux/amd64"]));
    assert_eq!((&first["is_complete"], &first["is_pinned"]), (&true.into(), &false.into()));
    assert!(first["asked"].as_u64().unwrap() > 1_600_000_000, "{first}");
    assert_eq!(
        (&multi["digest"], &multi["media_type"]),
        (&index.manifest.digest.clone().into(), &INDEX.into())
    );
    assert_eq!(multi["platforms"], serde_json::json!(["linux/amd64"]), "arm64 was not pulled");
    assert_eq!((&lone["is_complete"], &lone["asked"]), (&false.into(), &Value::Null));

    for (name, count) in [
        ("alpine", 3),
        ("alpine:1", 1),
        ("docker.io/library/", 4),
        ("busybox", 1),
        ("*:1", 2),
        ("docker.io/library/*", 4),
        ("alpine@*", 1),
        ("**", 4),
        ("docker.io/*/busy???", 1),
    ] {
        assert_eq!(names(&told(proxy, &["ls", name])).len(), count, "{name}");
    }
    let table = proxy.run(&["ls", "busybox"]);
    let lines: Vec<_> = table.output.lines().collect();
    let row: Vec<_> = lines[1].split_whitespace().collect();
    assert!(lines[0].starts_with("IMAGE ") && lines.len() == 3, "{}", table.output);
    assert_eq!((row[0], row[1]), (&*tagged[2], &images[1].manifest.digest[7..19]));
    assert_eq!(row.len(), 7, "{row:?}");
    assert!(lines[2].starts_with("1 image, "), "{}", table.output);
    let unknown = proxy.run(&["ls", "alpine", "nothing"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.output.contains("nothing is kept of nothing"), "{}", unknown.output);
    assert!(unknown.output.contains(&tagged[0]), "{}", unknown.output);
}

#[test]
fn images_are_listed_of_a_proxy_that_runs_and_of_one_that_does_not() {
    let (_registry, proxy, images, index) = several();
    assert_lists_several(&proxy, &images, &index);
    let server = format!("http://{}", proxy.admin_address());
    assert_eq!(names(&told(&proxy, &["ls", "--server", &server])).len(), 4);
    stop(&proxy);
    assert_lists_several(&proxy, &images, &index);
}

#[test]
fn pages_and_parts_of_the_list_are_asked_for() {
    let (_registry, proxy, ..) = several();
    let mut seen = Vec::new();
    let mut query = "limit=1".to_owned();
    loop {
        let page = proxy.admin(&format!("/api/v1/images?{query}")).json();
        seen.extend(names(&page).into_iter().map(str::to_owned));
        let Some(next) = page["next"].as_str() else { break };
        query = format!("limit=1&after={next}");
    }
    assert_eq!(seen, names(&proxy.admin("/api/v1/images").json()));
    assert_eq!(seen.len(), 4);
    let count = |query| names(&proxy.admin(&format!("/api/v1/images?{query}")).json()).len();
    assert_eq!((count("registry=docker.io"), count("registry=ghcr.io")), (4, 0));
    assert_eq!(count("name=busybox"), 1);
    assert_eq!(proxy.admin("/api/v1/images?limit=0").status, 400);
    let path = "/api/v1/images/docker.io/library/alpine:1";
    assert_eq!(proxy.admin(path).json()["name"], "docker.io/library/alpine:1");
    assert_eq!(proxy.admin("/api/v1/images/docker.io%2Flibrary%2Falpine%3A1").status, 200);
    for (path, status) in [("alpine", 400), ("Alpine:1", 400), ("alpine:2", 404)] {
        let answer = proxy.admin(&format!("/api/v1/images/{path}"));
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    assert_eq!(api(&proxy, "POST", path).headers.get("allow"), Some("GET, DELETE"));
    assert_eq!(
        api(&proxy, "GET", &format!("{path}/pin")).headers.get("allow"),
        Some("PUT, DELETE")
    );
}

#[test]
fn a_removed_image_is_a_miss_and_no_other_is_hurt() {
    for is_running in [true, false] {
        let (registry, mut proxy, images, index) = several();
        if !is_running {
            stop(&proxy);
        }
        let removed = told(&proxy, &["rm", "alpine:1"]);
        assert_eq!(removed["images"][0]["objects"], 3, "manifest, config, own layer: {removed}");
        assert!(!proxy.keeps(&images[0].layers[1].digest));
        assert!(proxy.keeps(&images[0].layers[0].digest), "the other image needs it");
        let again = proxy.run(&["rm", "alpine:1"]);
        assert_eq!(again.code, Some(1));
        assert!(
            again.output.contains("docker.io/library/alpine:1 is not kept"),
            "{}",
            again.output
        );
        if !is_running {
            proxy.start_again();
        }
        registry.forget_requests();
        pull(&proxy, OTHER, "1");
        assert!(registry.requests().blob_gets().is_empty(), "the other image is whole");
        let missed = pull(&proxy, ALPINE, "1");
        assert_eq!(missed.manifests[0].response.body, images[0].manifest.bytes);
        assert_eq!(registry.requests().blob_gets().path(&images[0].layers[1].digest).len(), 1);
        pull(&proxy, ALPINE, "multi");
        assert_eq!(
            registry.requests().blob_gets().path(&index.images[0].layers[0].digest).len(),
            0
        );
        proxy.assert_store_is_sound();
    }
}

#[test]
fn an_image_that_is_removed_while_it_is_read_is_read_to_its_end() {
    let registry = Registry::open();
    let image = Image::random(1, 20_000_000);
    registry.push(ALPINE, "1", &image);
    let proxy = in_front_of(&registry);
    pull(&proxy, ALPINE, "1");
    let layer = &image.layers[0];
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), layer.digest);
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let mut download = connection.start(&Request::get(url)).unwrap();
    let mut read = download.read_exactly(100_000).unwrap();
    told(&proxy, &["rm", "alpine:1"]);
    assert!(!proxy.keeps(&layer.digest));
    read.extend(download.finish().unwrap());
    assert_eq!(read, layer.bytes);
}

#[test]
fn what_is_pinned_stays_until_it_is_unpinned() {
    let registry = Registry::open();
    let (pinned, newer) = (Image::random(1, 600_000), Image::random(1, 600_000));
    registry.push(ALPINE, "1", &pinned);
    registry.push(ALPINE, "2", &newer);
    let builder = Proxy::builder(BINARY).in_front_of(&registry);
    let mut proxy = builder.config("max-size = \"1MB\"").start();
    pull(&proxy, ALPINE, "1");
    assert_eq!(told(&proxy, &["pin", "alpine:1"])["images"][0]["is_pinned"], true);
    let refused = proxy.run(&["rm", "alpine:1"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.output.contains("is pinned: unpin it first"), "{}", refused.output);
    // There is no room for a second one, and the first may not go.
    proxy.puller().pull(ALPINE, "2").unwrap();
    proxy.wait_for_log(&["objects evicted"]);
    proxy.restart(Signal::TERM);
    let listed = told(&proxy, &["ls", "alpine:1"]);
    assert_eq!(
        (&listed["images"][0]["is_pinned"], &listed["images"][0]["is_complete"]),
        (&true.into(), &true.into())
    );
    stop(&proxy);
    assert_eq!(told(&proxy, &["unpin", "alpine:1"])["images"][0]["is_pinned"], false);
    assert_eq!(proxy.run(&["rm", "alpine:1"]).code, Some(0));
    assert_eq!(proxy.run(&["pin", "alpine:1"]).code, Some(1), "what is not kept");
}

#[test]
fn a_part_that_is_pinned_stays_an_image_when_the_whole_is_removed() {
    let (_registry, proxy, _images, index) = several();
    let part = format!("alpine@{}", index.images[0].manifest.digest);
    told(&proxy, &["pin", &part]);
    told(&proxy, &["rm", "alpine:multi"]);
    let listed = told(&proxy, &["ls", &part]);
    assert_eq!(listed["images"][0]["is_pinned"], true, "{listed}");
    assert_eq!(listed["images"][0]["platforms"], serde_json::json!(["linux/amd64"]));
    told(&proxy, &["unpin", &part]);
    told(&proxy, &["rm", &part]);
    assert_eq!(proxy.run(&["ls", &part]).code, Some(1));
}

#[test]
fn a_pull_ahead_of_what_does_not_fit_is_none() {
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(3, 400_000));
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config("max-size = \"1MB\"").start();
    let Finished { code, output } = proxy.run(&["pull", "alpine:1"]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("max-size too small for it"), "{output}");
    let errors = proxy.admin("/api/v1/errors").json();
    assert_eq!(errors["errors"][0]["repository"], ALPINE, "{errors}");
    assert!(errors["errors"][0]["reason"].as_str().unwrap().contains("max-size"), "{errors}");
}

#[test]
fn a_digest_that_a_tag_stands_for_goes_with_the_tag() {
    let (_registry, proxy, images, index) = several();
    for (digest, whole) in [
        (&images[0].manifest.digest, "alpine:1"),
        (&index.images[0].manifest.digest, "alpine:multi"),
    ] {
        let refused = proxy.run(&["rm", &format!("alpine@{digest}")]);
        assert_eq!(refused.code, Some(1));
        assert!(
            refused.output.contains(&format!("what docker.io/library/{whole} stands for")),
            "{}",
            refused.output
        );
    }
    let listed = told(&proxy, &["ls"]);
    let lone = names(&listed)[2];
    assert_eq!(told(&proxy, &["rm", lone])["images"][0]["objects"], 1);
    assert_eq!(names(&told(&proxy, &["ls"])).len(), 3);
}

#[test]
fn a_name_that_is_none_is_wrong_usage() {
    let proxy = Proxy::builder(BINARY).start();
    for arguments in
        [&["rm", "Alpine"][..], &["pin", "a:b:c"], &["ls", "https://ghcr.io/a"], &["rm"]]
    {
        let wrong = proxy.run(arguments);
        assert_eq!(wrong.code, Some(2), "{arguments:?}: {}", wrong.output);
    }
    assert!(proxy.run(&["rm", "Alpine"]).output.contains("\"Alpine\" is not the name of an image"));
    let server = ["ls", "--server", "http://127.0.0.1:1"];
    assert_eq!(proxy.run(&server).code, Some(1));
}

#[test]
fn tags_of_one_digest_are_counted_each_for_itself() {
    let registry = Registry::open();
    let image = Image::random(1, 1_000);
    for (repository, tag) in [(ALPINE, "3.20"), (ALPINE, "latest"), (OTHER, "latest")] {
        registry.push(repository, tag, &image);
    }
    let mut proxy = in_front_of(&registry);
    pull(&proxy, ALPINE, "3.20");
    for (repository, tag, times) in
        [(ALPINE, "3.20", 3), (ALPINE, "latest", 2), (OTHER, "latest", 1)]
    {
        (0..times).for_each(|_| drop(pull(&proxy, repository, tag)));
    }
    let hits = |proxy: &Proxy| -> Vec<(String, u64)> {
        let listed = told(proxy, &["ls"]);
        let images = listed["images"].as_array().unwrap();
        let hits = |image: &Value| image["hits"].as_u64().unwrap();
        images.iter().map(|one| (one["name"].as_str().unwrap().to_owned(), hits(one))).collect()
    };
    let counted = hits(&proxy);
    let of = |name: &str| counted.iter().find(|(one, _)| one.ends_with(name)).unwrap().1;
    let each = [of("alpine:3.20"), of("alpine:latest"), of("busybox:latest")];
    // A puller asks by tag once or twice a pull, always as often.
    let a_pull = each[2];
    assert!((1..=2).contains(&a_pull), "{counted:?}");
    assert_eq!(each, [3 * a_pull, 2 * a_pull, a_pull], "{counted:?}");
    proxy.restart(Signal::TERM);
    assert_eq!(hits(&proxy), counted);
    stop(&proxy);
    assert_eq!(hits(&proxy), counted, "of a proxy that does not run as well");
}

#[test]
fn the_list_has_the_forms_and_orders_that_scripts_and_people_want() {
    let (_registry, proxy, images, index) = several();
    let lines = |arguments: &[&str]| {
        let Finished { code, output } = proxy.run(arguments);
        assert_eq!(code, Some(0), "{output}");
        output.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let busybox = "docker.io/library/busybox:1";
    assert_eq!(lines(&["ls", "-q", "busybox"]), [busybox]);
    assert_eq!(lines(&["ls", "-o", "name", "busybox"]), [busybox]);
    assert_eq!(
        names(&serde_json::from_str(&lines(&["ls", "-o", "json"]).concat()).unwrap()).len(),
        4
    );
    let wide = lines(&["ls", "-o", "wide", "busybox"]);
    assert!(wide[1].contains(&images[1].manifest.digest), "{wide:?}");
    let row: Vec<_> = wide[1].split_whitespace().collect();
    assert!(wide[0].ends_with("FIRST SEEN  CHECKED") && row.len() == 9, "{wide:?}");
    let by_size = lines(&["ls", "-q", "--sort", "size"]);
    assert!(by_size[3].starts_with("docker.io/library/alpine@"), "the smallest: {by_size:?}");
    let reversed = lines(&["ls", "-q", "--sort", "size", "--reverse"]);
    assert_eq!(reversed[0], by_size[3]);
    let newest = lines(&["ls", "-q", "--sort", "age"]);
    assert_eq!(newest.len(), 4);
    assert!(lines(&["ls"])[5].starts_with("4 images, "));
    assert_eq!(proxy.run(&["ls", "-o", "yaml"]).code, Some(2));
    assert_eq!(proxy.run(&["ls", "-q", "--json"]).code, Some(2), "one form at a time");
    let listed = told(&proxy, &["ls", "alpine:multi"]);
    assert_eq!(listed["images"][0]["digest"], index.manifest.digest);
    assert!(listed["images"][0]["first_seen"].as_u64().unwrap() > 1_600_000_000, "{listed}");
}

#[test]
fn several_are_removed_at_once_and_what_is_pinned_stays() {
    for is_running in [true, false] {
        let (_registry, proxy, images, index) = several();
        told(&proxy, &["pin", "busybox:1"]);
        if !is_running {
            stop(&proxy);
        }
        let foreseen = told(&proxy, &["rm", "docker.io/library/*", "--dry-run"]);
        assert_eq!(foreseen["is_dry_run"], true, "{foreseen}");
        assert_eq!(names(&foreseen).len(), 3, "{foreseen}");
        assert_eq!(foreseen["pinned"], serde_json::json!(["docker.io/library/busybox:1"]));
        assert_eq!(names(&told(&proxy, &["ls"])).len(), 4, "nothing has gone");
        let words = proxy.run(&["rm", "-n", "docker.io/library/"]);
        assert_eq!(words.code, Some(0), "{}", words.output);
        for part in ["would remove docker.io/library/alpine:1: ", "busybox:1 is pinned and stays"] {
            assert!(words.output.contains(part), "{}", words.output);
        }

        let removed = told(&proxy, &["rm", "docker.io/library/*"]);
        for key in ["objects", "bytes"] {
            assert_eq!(removed[key], foreseen[key], "{key}: as was said");
        }
        assert_eq!(names(&told(&proxy, &["ls"])), ["docker.io/library/busybox:1"]);
        assert!(proxy.keeps(&images[1].layers[0].digest), "the other image needs it");
        assert!(!proxy.keeps(&images[0].layers[1].digest));
        assert!(!proxy.keeps(&index.images[0].layers[0].digest));
        let named = proxy.run(&["rm", "busybox:1", "docker.io/library/*"]);
        assert_eq!(named.code, Some(1), "{}", named.output);
        assert!(named.output.contains("busybox:1 is pinned: unpin it first"), "{}", named.output);
        let nothing = proxy.run(&["rm", "ghcr.io/**"]);
        assert_eq!(nothing.code, Some(1), "{}", nothing.output);
        assert!(nothing.output.contains("nothing is kept of ghcr.io/**"), "{}", nothing.output);
    }
}

#[test]
fn what_nobody_has_used_for_so_long_is_removed() {
    let (_registry, proxy, ..) = several();
    let kept = told(&proxy, &["rm", "--unused", "1h"]);
    assert_eq!((names(&kept).len(), &kept["objects"]), (0, &0.into()), "{kept}");
    let foreseen = told(&proxy, &["rm", "--unused", "0s", "alpine:*", "--dry-run"]);
    assert_eq!(names(&foreseen).len(), 2, "{foreseen}");
    let removed = told(&proxy, &["rm", "--unused", "0"]);
    assert_eq!(names(&removed).len(), 4, "{removed}");
    assert!(names(&told(&proxy, &["ls"])).is_empty());
    let nothing = proxy.run(&["rm", "--unused", "0"]);
    assert_eq!(nothing.code, Some(0), "{}", nothing.output);
    assert_eq!(nothing.output, "nothing is to be removed");
    for wrong in [&["rm"][..], &["rm", "--unused", "soon"], &["rm", "--dry-run"], &["rm", "a b*"]] {
        assert_eq!(proxy.run(wrong).code, Some(2), "{wrong:?}");
    }
    let all = api(&proxy, "DELETE", "/api/v1/images");
    assert_eq!(all.status, 400, "nobody removes everything by forgetting something");
}

#[test]
fn pins_are_set_and_taken_away_by_patterns() {
    let (_registry, proxy, ..) = several();
    let pinned = || {
        let listed = told(&proxy, &["ls"]);
        let images = listed["images"].as_array().unwrap().clone();
        images.iter().filter(|image| image["is_pinned"] == true).count()
    };
    let foreseen = proxy.run(&["pin", "alpine:*", "--dry-run"]);
    assert_eq!(foreseen.code, Some(0), "{}", foreseen.output);
    assert_eq!(foreseen.output.lines().filter(|line| line.starts_with("would pin ")).count(), 2);
    assert_eq!(pinned(), 0);
    assert_eq!(names(&told(&proxy, &["pin", "alpine:*", "busybox:1"])).len(), 3);
    assert_eq!(pinned(), 3);
    assert_eq!(names(&told(&proxy, &["unpin", "**"])).len(), 3, "of those that are");
    assert_eq!(pinned(), 0);
    let nothing = proxy.run(&["pin", "ghcr.io/"]);
    assert_eq!(nothing.code, Some(1), "{}", nothing.output);
}
