//! Images out of one proxy and into another, as archives, without a network between them.

use std::collections::BTreeMap;
use std::fs;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use entrepot_testkit::image::digest_of;
use entrepot_testkit::proxy::{Finished, Signal};
use entrepot_testkit::{
    Access, Blob, Image, Index, PATIENCE, Proxy, Puller, Registry, Request, User,
};
use serde_json::{Value, json};

use crate::bad_disk::SmallDisk;
use crate::images::{pull, stop, told};
use crate::{ALPINE, BINARY, PRIVATE, in_front_of};

const NAME: &str = "docker.io/library/alpine:1";

/// A proxy that never contacts anybody.
fn air_gapped() -> Proxy {
    Proxy::builder(BINARY).config("offline = true").start()
}

/// An archive of one image, and of an index of which one platform was pulled.
struct World {
    home: tempfile::TempDir,
    image: Image,
    index: Index,
    proxy: Proxy,
    registry: Registry,
}

impl World {
    fn new() -> Self {
        let access = Access::bearer([User::new("alice").pulls(PRIVATE)]).anonymous("library/*");
        let registry = Registry::builder().access(access).start();
        let (image, index) =
            (Image::random(2, 300_000), Index::random(&["amd64", "arm64"], 1, 5_000));
        registry.push(ALPINE, "1", &image);
        registry.push_index(ALPINE, "multi", &index);
        let proxy = in_front_of(&registry);
        pull(&proxy, ALPINE, "1");
        pull(&proxy, ALPINE, "multi");
        Self { home: tempfile::tempdir().unwrap(), image, index, proxy, registry }
    }

    fn archive(&self) -> String {
        self.home.path().join("images.tar").display().to_string()
    }

    #[track_caller]
    fn export(&self, names: &[&str]) -> Value {
        told(&self.proxy, &[&["export", "-o", &self.archive()], names].concat())
    }
}

fn members(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut archive = tar::Archive::new(fs::File::open(archive).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        found.insert(entry.path().unwrap().display().to_string(), bytes);
    }
    found
}

/// An engine's pull through a proxy that contacts nobody: ping, token, HEAD, manifests, blobs.
#[track_caller]
fn assert_pulls(proxy: &Proxy, tag: &str, image: &Image) {
    let pulled = proxy.puller().pull(ALPINE, tag).unwrap();
    assert_eq!(pulled.manifests.last().unwrap().response.body, image.manifest.bytes);
    for (fetched, blob) in pulled.blobs.iter().zip(image.blobs()) {
        assert_eq!(fetched.response.body, blob.bytes);
        assert_eq!(fetched.cache_status(), "entrepot; hit");
    }
}

#[test]
fn an_image_crosses_an_air_gap() {
    let world = World::new();
    let exported = world.export(&["alpine:1", "alpine:multi"]);
    assert_eq!(exported["images"][1]["platforms"], json!(["linux/amd64"]));
    let files = members(Path::new(&world.archive()));
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    assert_eq!(index["manifests"][1]["digest"], world.index.manifest.digest);
    for key in ["org.opencontainers.image.ref.name", "io.containerd.image.name"] {
        assert_eq!(index["manifests"][0]["annotations"][key], NAME);
    }
    for (path, bytes) in files.iter().filter(|(path, _)| path.len() > 40) {
        let digest = digest_of(bytes);
        assert_eq!(*path, format!("blobs/sha256/{}", &digest[7..]));
    }

    for is_running in [true, false] {
        let mut inside = air_gapped();
        if !is_running {
            stop(&inside);
        }
        let imported = told(&inside, &["import", &world.archive()]);
        assert_eq!(imported["images"][0]["name"], NAME, "{imported}");
        assert_eq!(imported["images"][1]["platforms"], json!(["linux/amd64"]));
        assert_eq!(imported["objects"], 8, "4 + index, manifest, config, layer: {imported}");
        let again = told(&inside, &["import", &world.archive()]);
        assert_eq!((&again["objects"], &again["bytes"]), (&0.into(), &0.into()));
        if !is_running {
            inside.start_again();
        }
        assert_pulls(&inside, "1", &world.image);
        assert_pulls(&inside, "multi", &world.index.images[0]);
        let pulled = inside.puller().pull(ALPINE, "multi").unwrap();
        assert_eq!(pulled.manifests[0].response.body, world.index.manifest.bytes);
        inside.puller().architecture("arm64").pull(ALPINE, "multi").unwrap_err();
        inside.puller().pull(PRIVATE, "1").unwrap_err();
        inside.assert_store_is_sound();
    }
}

#[test]
fn an_imported_image_is_served_while_its_registry_is_out_of_reach_and_goes_on_when_it_is_back() {
    let world = World::new();
    world.export(&["alpine:1"]);
    let mut registry = Registry::open();
    let newer = Image::random(1, 10_000);
    registry.push(ALPINE, "2", &newer);
    let proxy = in_front_of(&registry);
    registry.stop();
    told(&proxy, &["import", &world.archive()]);
    assert_pulls(&proxy, "1", &world.image);
    // A registry with tokens, which the record of a registry without any leads to all the same.
    let back = Proxy::builder(BINARY).in_front_of(&world.registry).start();
    told(&back, &["import", &world.archive()]);
    assert_pulls(&back, "1", &world.image);
    pull(&back, ALPINE, "multi");
}

#[test]
fn an_import_opens_what_it_has_brought_and_nothing_else() {
    let alice = User::new("alice").pulls(PRIVATE);
    let access = Access::bearer([alice.clone()]);
    let mut registry = Registry::builder().access(access).start();
    let (secret, brought) = (Image::random(1, 10_000), Image::random(1, 10_000));
    registry.push(PRIVATE, "1", &secret);
    let mut proxy = in_front_of(&registry);
    let host = registry.host().to_owned();
    let client = proxy.client().trusting(&registry.ca().pem());
    let pulled = Puller::new(client).user(&alice).pull(PRIVATE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    let home = tempfile::tempdir().unwrap();
    let name = json!({ "io.containerd.image.name": format!("docker.io/{PRIVATE}:2") });
    let path = written(home.path(), &Layout::of(&brought, &name).tar()).display().to_string();
    told(&proxy, &["import", &path]);

    let status = |proxy: &Proxy, path: &str, authorization: Option<&str>| {
        let mut request = Request::get(format!("https://{host}/v2/{PRIVATE}/{path}"));
        if let Some(authorization) = authorization {
            request.headers.push("Authorization", authorization);
        }
        proxy.client().send(&request).unwrap().status
    };
    let of = |image: &Image, tag: &str| {
        let blob = format!("blobs/{}", image.layers[0].digest);
        [format!("manifests/{tag}"), format!("manifests/{}", image.manifest.digest), blob]
    };
    for path in of(&brought, "2").into_iter().chain(of(&secret, "1")) {
        assert_eq!(status(&proxy, &path, None), 401, "the registry can be asked, and is");
    }
    // It has refused everybody, which is not forgotten; what the operator says next counts more.
    registry.stop();
    for _ in 0..2 {
        proxy.restart(Signal::TERM);
        for path in of(&brought, "2") {
            assert!(status(&proxy, &path, None) >= 502);
        }
    }
    told(&proxy, &["import", &path]);
    for authorization in [None, Some("Basic Ym9iOmJvYg==")] {
        for path in of(&brought, "2") {
            assert_eq!(status(&proxy, &path, authorization), 200, "{path}");
        }
        for path in of(&secret, "1").into_iter().chain(["tags/list".to_owned()]) {
            assert!(status(&proxy, &path, authorization) >= 502, "{path}");
        }
    }
}

#[test]
fn what_is_no_file_is_written_to_and_not_replaced() {
    let world = World::new();
    let home = world.home.path();
    let [pipe, read, link, file, draft] =
        ["pipe", "read.tar", "link", "file.tar", "file.tar.partial"].map(|name| home.join(name));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reading = format!("cat {} > {}", pipe.display(), read.display());
    let mut reader = Command::new("sh").args(["-c", &reading]).spawn().unwrap();
    let export = |to: &Path| {
        let to = to.display().to_string();
        let exported = world.proxy.run(&["export", "-o", &to, "alpine:1"]);
        assert_eq!(exported.code, Some(0), "{}", exported.output);
    };
    export(&pipe);
    assert!(reader.wait().unwrap().success());
    assert!(members(&read).contains_key("index.json"));
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    fs::write(&file, "old").unwrap();
    fs::write(&draft, "somebody's").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    export(&link);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(members(&file).contains_key("index.json"));
    assert_eq!(fs::read(&draft).unwrap(), b"somebody's");
}

#[test]
fn an_object_that_the_disk_has_damaged_leaves_in_no_archive() {
    let world = World::new();
    // It was right when it came, and when it was last read.
    let layer = &world.image.layers[0].digest;
    world.proxy.damage(layer);
    let refused = world.proxy.run(&["export", "-o", &world.archive(), "alpine:1"]);
    assert_eq!(refused.code, Some(1), "{}", refused.output);
    assert_eq!(fs::read_dir(world.home.path()).unwrap().count(), 0, "no half archive");
    world.proxy.wait_for_log(&["object quarantined", layer]);
    pull(&world.proxy, ALPINE, "1");
    world.export(&["alpine:1"]);
}

#[test]
fn what_leaves_or_comes_in_archives_counts_as_no_use() {
    let world = World::new();
    world.export(&["alpine:1"]);
    let inside = air_gapped();
    for _ in 0..2 {
        told(&inside, &["import", &world.archive()]);
        told(&inside, &["export", "-o", &world.archive(), "alpine:1"]);
    }
    let listed = told(&inside, &["ls"]);
    assert_eq!(listed["images"][0]["hits"], 0, "{listed}");
}

#[test]
fn an_import_that_comes_to_nothing_leaves_nothing() {
    let image = Image::of_layers("amd64", vec![Blob::random(600_000), Blob::random(600_000)]);
    let home = tempfile::tempdir().unwrap();
    let path = written(home.path(), &Layout::named(&image).tar()).display().to_string();
    let other = format!("ghcr.io/org/app@{}", image.layers[0].digest);
    for is_running in [true, false] {
        let proxy = Proxy::builder(BINARY).config("offline = true\nmax-size = \"1MB\"").start();
        if !is_running {
            stop(&proxy);
        }
        for (arguments, words) in [
            (&["import", &path][..], "max-size"),
            (&["import", &path, "--name", "registry.corp/app:1"], "add registry.corp to intercept"),
            (&["import", &path, "--name", &other], "does not name the image in the archive"),
        ] {
            let Finished { code, output } = proxy.run(arguments);
            assert_eq!(code, Some(1), "{output}");
            assert!(output.contains(words), "{words}: {output}");
            assert_eq!(proxy.run(&["ls", "--json"]).output, r#"{"images":[]}"#);
        }
        if is_running {
            assert_eq!(proxy.admin("/api/v1/stats").json()["store"]["objects"], 0);
        }
    }
}

/// Files below `path`, and itself, that are root's.
fn of_root(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let metadata = fs::symlink_metadata(path).unwrap();
    if metadata.uid() == 0 {
        found.push(path.to_owned());
    }
    if metadata.is_dir() {
        let entries = fs::read_dir(path).unwrap();
        found.extend(entries.flat_map(|entry| of_root(&entry.unwrap().path())));
    }
    found
}

#[test]
fn what_root_does_for_a_stopped_service_leaves_nothing_of_roots() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let world = World::new();
    world.export(&["alpine:1", "alpine:multi"]);
    // Where that user can run it.
    let programs = tempfile::tempdir().unwrap();
    let program = programs.path().join("entrepot");
    fs::copy(BINARY, &program).unwrap();
    fs::set_permissions(programs.path(), Permissions::from_mode(0o755)).unwrap();
    let service = Proxy::builder(&program).config("offline = true").start();
    stop(&service);
    let home = service.config_file().parent().unwrap().to_owned();
    let mut chown = Command::new("chown");
    chown.args(["-R", "65532:65532"]).arg(&home).arg(world.home.path());
    assert!(chown.status().unwrap().success());
    // Root itself would make a file where this leads.
    let (trap, pins) = (tempfile::tempdir().unwrap(), home.join("data/cache/pins/sha256"));
    fs::remove_dir_all(&pins).unwrap();
    std::os::unix::fs::symlink(trap.path(), &pins).unwrap();
    told(&service, &["import", &world.archive()]);
    assert_eq!(service.run(&["pin", "alpine:1"]).code, Some(1));
    assert_eq!(fs::read_dir(trap.path()).unwrap().count(), 0);
    fs::remove_file(&pins).unwrap();
    told(&service, &["import", &world.archive()]);
    told(&service, &["ls"]);
    told(&service, &["pin", "alpine:1"]);
    told(&service, &["ca", "renew"]);
    fs::remove_dir_all(service.data_dir().join("cache/index")).unwrap();
    told(&service, &["rm", "alpine:multi"]);
    assert_eq!(of_root(&service.data_dir()), Vec::<PathBuf>::new());
}

#[test]
fn an_archive_goes_through_pipes_and_has_its_name_only_when_it_is_whole() {
    let world = World::new();
    let config = world.proxy.config_file().display().to_string();
    let piped = format!(
        "{BINARY} export --config {config} -o - alpine:1 | {BINARY} import --config {config} -"
    );
    let status = Command::new("sh").args(["-c", &piped]).status().unwrap();
    assert!(status.success());
    let unwritable = world.proxy.run(&["export", "-o", "/nonexistent/x.tar", "alpine:1"]);
    assert_eq!(unwritable.code, Some(1));
    assert!(unwritable.output.contains("/nonexistent/x.tar"), "{}", unwritable.output);
    let layer = &world.image.layers[0].digest;
    stop(&world.proxy);
    world.proxy.damage(layer);
    let damaged = world.proxy.run(&["export", "-o", &world.archive(), "alpine:1"]);
    assert_eq!(damaged.code, Some(1), "{}", damaged.output);
    assert!(damaged.output.contains(layer), "{}", damaged.output);
    assert_eq!(fs::read_dir(world.home.path()).unwrap().count(), 0, "no half archive");
}

#[test]
fn what_is_not_whole_is_not_exported() {
    let world = World::new();
    let half = Image::random(2, 1_000);
    world.registry.push(ALPINE, "half", &half);
    let mut visit = world.proxy.puller().visit(ALPINE).unwrap();
    let manifest = visit.manifest("GET", "half");
    assert_eq!(visit.exchange(&manifest).unwrap().status, 200);
    world.proxy.wait_until_kept(&half.manifest.digest);
    for is_running in [true, false] {
        if !is_running {
            stop(&world.proxy);
        }
        let refused = world.proxy.run(&["export", "-o", &world.archive(), "alpine:half"]);
        assert_eq!(refused.code, Some(1), "{}", refused.output);
        for words in
            ["`entrepot pull docker.io/library/alpine:half`", "3 of its objects are missing"]
        {
            assert!(refused.output.contains(words), "{}", refused.output);
        }
        let unknown = world.proxy.run(&["export", "-o", &world.archive(), "alpine:1", "alpine:2"]);
        assert_eq!(unknown.code, Some(1));
        assert!(unknown.output.contains("alpine:2 is not kept"), "{}", unknown.output);
    }
    let layer = &world.image.layers[1].digest;
    world.proxy.lose(layer);
    let gone = world.proxy.run(&["export", "-o", &world.archive(), "alpine:1"]);
    assert_eq!(gone.code, Some(1), "{}", gone.output);
    assert!(gone.output.contains(layer), "{}", gone.output);
    assert_eq!(fs::read_dir(world.home.path()).unwrap().count(), 0);
}

/// A layout that a test makes wrong.
struct Layout {
    files: Vec<(String, Vec<u8>)>,
}

impl Layout {
    fn of(image: &Image, annotations: &Value) -> Self {
        let mut descriptor = image.manifest.descriptor();
        descriptor["annotations"] = annotations.clone();
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        let mut layout = Self { files: Vec::new() };
        layout.add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        for blob in image.blobs().chain([&image.manifest]) {
            layout.blob(blob);
        }
        layout.add("index.json", index.to_string().as_bytes());
        layout
    }

    fn named(image: &Image) -> Self {
        Self::of(image, &json!({ "io.containerd.image.name": NAME }))
    }

    fn add(&mut self, path: &str, bytes: &[u8]) {
        self.files.push((path.to_owned(), bytes.to_vec()));
    }

    fn blob(&mut self, blob: &Blob) {
        self.add(&format!("blobs/sha256/{}", &blob.digest[7..]), &blob.bytes);
    }

    fn without(mut self, part: &str) -> Self {
        self.files.retain(|(path, _)| !path.contains(part));
        self
    }

    fn tar(&self) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            // As it is: a library that refuses such names is no help here.
            let name = &mut header.as_old_mut().name;
            name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, &bytes[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }
}

fn written(home: &Path, bytes: &[u8]) -> PathBuf {
    let path = home.join("bad.tar");
    fs::write(&path, bytes).unwrap();
    path
}

fn with_link(image: &Image) -> Vec<u8> {
    let layout = Layout::named(image).without("index.json");
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "index.json", "/etc/passwd").unwrap();
    let mut bytes = layout.tar();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend(builder.into_inner().unwrap());
    bytes
}

fn damaged(image: &Image) -> Vec<u8> {
    let mut layout = Layout::named(image);
    let layer = layout.files.iter_mut().find(|(_, bytes)| bytes.len() > 100_000).unwrap();
    layer.1[50_000] ^= 1;
    layout.tar()
}

fn huge() -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("index.json").unwrap();
    header.set_size(1 << 60);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn a_bad_archive_is_refused_in_words_and_leaves_nothing_to_be_seen() {
    let image = Image::random(2, 300_000);
    let whole = Layout::named(&image).tar();
    let layer = image.layers[0].digest[7..].to_owned();
    let escaping = {
        let mut layout = Layout::named(&image);
        layout.add("../../evil", b"x");
        layout.tar()
    };
    let mut no_platform = Layout::named(&image);
    let index = Index::random(&["arm64"], 1, 10);
    no_platform.blob(&index.manifest);
    let mut of_index = index.manifest.descriptor();
    of_index["annotations"] = json!({ "io.containerd.image.name": NAME });
    no_platform = no_platform.without("index.json");
    no_platform.add(
        "index.json",
        json!({ "schemaVersion": 2, "manifests": [of_index] }).to_string().as_bytes(),
    );
    let unnamed = Layout::of(&image, &json!({ "org.opencontainers.image.ref.name": "3.20" })).tar();
    let cases: [(&str, Vec<u8>, &str); 13] = [
        ("text", vec![b'x'; 5_000], "not a tar archive"),
        ("empty", Vec::new(), "no oci-layout"),
        ("gzip", [&[0x1f, 0x8b][..], &[7; 2_000]].concat(), "it is compressed, unpack it first"),
        ("no mark", Layout::named(&image).without("oci-layout").tar(), "no oci-layout"),
        ("no index", Layout::named(&image).without("index.json").tar(), "no index.json"),
        (
            "no layer",
            Layout::named(&image).without(&layer).tar(),
            &format!("sha256:{layer} is missing"),
        ),
        ("no platform", no_platform.tar(), "is missing in the archive"),
        ("cut", whole[..whole.len() / 2].to_vec(), "it ends too early"),
        ("damaged", damaged(&image), "has other bytes"),
        ("outside", escaping, "../../evil"),
        ("link", with_link(&image), "index.json"),
        ("huge", huge(), "too many entries, or a name that is too long"),
        ("no name", unnamed, "--name IMAGE"),
    ];
    let home = tempfile::tempdir().unwrap();
    let (running, stopped) = (air_gapped(), air_gapped());
    stop(&stopped);
    for (what, bytes, words) in cases {
        let path = written(home.path(), &bytes).display().to_string();
        for proxy in [&running, &stopped] {
            let Finished { code, output } = proxy.run(&["import", &path]);
            assert_eq!(code, Some(1), "{what}: {output}");
            assert!(output.contains(words), "{what}: {output}");
            let listed = proxy.run(&["ls", "--json"]);
            assert_eq!(listed.output, r#"{"images":[]}"#, "{what}");
        }
        running.puller().pull(ALPINE, "1").unwrap_err();
    }
    // What has come of them is used, and nothing of it is in the way.
    let path = written(home.path(), &whole).display().to_string();
    for proxy in [&running, &stopped] {
        assert_eq!(told(proxy, &["import", &path])["images"][0]["name"], NAME);
    }
    assert_pulls(&running, "1", &image);
    running.assert_store_is_sound();
    assert_eq!(running.run(&["import", "/nonexistent.tar"]).code, Some(1));
}

#[test]
fn an_archive_of_one_image_can_be_given_a_name() {
    let image = Image::random(1, 10_000);
    let home = tempfile::tempdir().unwrap();
    let annotations = json!({ "org.opencontainers.image.ref.name": "latest" });
    let mut layout = Layout::of(&image, &annotations);
    layout.blob(&Blob::random(40_000));
    layout.add("manifest.json", b"[]");
    let path = written(home.path(), &layout.tar()).display().to_string();
    let proxy = air_gapped();
    let imported = told(&proxy, &["import", &path, "--name", "ghcr.io/org/app:7"]);
    assert_eq!(imported["images"][0]["name"], "ghcr.io/org/app:7");
    assert_eq!(imported["objects"], 3, "what no image needs does not stay: {imported}");
    assert_eq!(proxy.admin("/api/v1/stats").json()["store"]["objects"], 3);
    let puller = proxy.puller().from("ghcr.io");
    assert_eq!(puller.pull("org/app", "7").unwrap().blobs.len(), 2);
    assert_eq!(proxy.run(&["import", &path, "--name", "Ghcr"]).code, Some(2));
}

#[test]
fn a_full_disk_ends_an_import_and_leaves_the_room_to_others() {
    let image = Image::of_layers("amd64", vec![Blob::random(1_500_000), Blob::random(3_000_000)]);
    let home = tempfile::tempdir().unwrap();
    let path = written(home.path(), &Layout::named(&image).tar()).display().to_string();
    for is_running in [true, false] {
        let disk = SmallDisk::new("size=4000000");
        let cache = disk.path().join("cache");
        let config = format!("offline = true\ncache-dir = {cache:?}\nmin-free = \"0B\"");
        let proxy = Proxy::builder(BINARY).config(&config).start();
        if !is_running {
            stop(&proxy);
        }
        let Finished { code, output } = proxy.run(&["import", &path]);
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains("the disk of the store is full"), "{output}");
        assert_eq!(proxy.run(&["ls", "--json"]).output, r#"{"images":[]}"#);
        let layer = &image.layers[0].digest[7..];
        assert!(!cache.join("blobs/sha256").join(&layer[..2]).join(layer).exists());
        disk.remount("size=20000000");
        assert_eq!(told(&proxy, &["import", &path])["objects"], 4);
    }
}

#[test]
fn an_import_is_guarded_and_one_at_a_time() {
    let image = Image::random(1, 10_000);
    let archive = Layout::named(&image).tar();
    let proxy = air_gapped();
    let request = |media_type: &str| {
        Request::new("POST", "/api/v1/import")
            .header("Content-Type", media_type)
            .header("Content-Length", archive.len().to_string())
    };
    let send = |request: Request| proxy.operator().send(&request).unwrap();
    let foreign = request("application/x-tar").header("Origin", "http://evil.example");
    assert_eq!(send(foreign.body(archive.clone())).status, 403);
    let form = request("application/x-www-form-urlencoded").body(archive.clone());
    assert_eq!(send(form).status, 415);
    let tar = || request("application/x-tar").body(archive.clone());
    let mut slow = proxy.operator().plain().unwrap();
    let wire = tar().header("Host", "localhost").to_wire();
    slow.write(&wire[..wire.len() - 8_000]).unwrap();
    assert_eq!(slow.read_line().unwrap().trim_end(), "HTTP/1.1 200 OK");
    assert_eq!(send(tar()).status, 409);
    drop(slow);
    let deadline = Instant::now() + PATIENCE;
    let whole = loop {
        match send(tar()) {
            // Only asking again tells when the other has been seen to leave.
            busy if busy.status == 409 => assert!(Instant::now() < deadline, "{}", busy.text()),
            answer => break answer,
        }
    };
    assert!(whole.text().contains(r#"{"summary":{"#), "{}", whole.text());
    assert_pulls(&proxy, "1", &image);
}

#[test]
fn an_import_that_is_interrupted_is_taken_up_again() {
    let image = Image::random(2, 300_000);
    let archive = Layout::named(&image).tar();
    let home = tempfile::tempdir().unwrap();
    let path = written(home.path(), &archive).display().to_string();
    for is_running in [true, false] {
        let proxy = air_gapped();
        if !is_running {
            stop(&proxy);
        }
        let mut import = Command::new(BINARY)
            .args(["import", "-", "--config"])
            .arg(proxy.config_file())
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Past the first layer, into the second.
        let mut stdin = import.stdin.take().unwrap();
        stdin.write_all(&archive[..450_000]).unwrap();
        proxy.wait_until_finished(&image.layers[0].digest);
        let pid = rustix::process::Pid::from_child(&import);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let output = import.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(words.contains("interrupted: nothing half-done is visible"), "{words}");
        drop(stdin);
        assert_eq!(proxy.run(&["ls", "--json"]).output, r#"{"images":[]}"#);
        let deadline = Instant::now() + PATIENCE;
        let imported = loop {
            // A proxy that runs learns from the connection that its client has gone.
            let again = proxy.run(&["import", &path, "--json"]);
            if again.code == Some(0) {
                break serde_json::from_str::<Value>(&again.output).unwrap();
            }
            assert!(Instant::now() < deadline, "{}", again.output);
        };
        assert_eq!(imported["objects"], 2, "the second layer and the manifest: {imported}");
    }
}

/// A layer that its manifest says to get elsewhere is no part of an image unless it is kept,
/// whoever asks: pull, list, pin, explanation, verification, export, import.
#[test]
fn a_foreign_layer_belongs_to_an_image_where_it_is_kept() {
    let layer = Blob::random(20_000);
    let url = "https://elsewhere.example/layer";
    for is_kept in [false, true] {
        let registry = Registry::open();
        let image = Image::random(2, 30_000).with_foreign_layer(&layer, url);
        registry.push(ALPINE, "1", &image);
        let proxy = in_front_of(&registry);
        assert_eq!(proxy.run(&["pull", "alpine:1"]).code, Some(0));
        if is_kept {
            registry.push_blob(ALPINE, &layer);
            proxy.puller().blob(ALPINE, &layer.digest).unwrap();
            proxy.wait_until_kept(&layer.digest);
        }
        assert_has_foreign_layer(&proxy, &image, &layer, is_kept);

        let home = tempfile::tempdir().unwrap();
        let archive = home.path().join("images.tar");
        let path = archive.to_str().unwrap();
        told(&proxy, &["export", "-o", path, "alpine:1"]);
        let files = members(&archive);
        let member = |digest: &str| format!("blobs/sha256/{}", &digest[7..]);
        assert_eq!(files.contains_key(&member(&layer.digest)), is_kept);
        let manifest = &files[&member(&image.manifest.digest)];
        assert!(String::from_utf8_lossy(manifest).contains(url), "it says where the layer is");

        let inside = air_gapped();
        told(&inside, &["import", path]);
        assert_has_foreign_layer(&inside, &image, &layer, is_kept);
        for blob in image.blobs().chain(is_kept.then_some(&layer)) {
            let fetched = inside.puller().blob(ALPINE, &blob.digest).unwrap();
            assert_eq!(fetched.response.body, blob.bytes);
        }
    }
}

#[track_caller]
fn assert_has_foreign_layer(proxy: &Proxy, image: &Image, layer: &Blob, is_kept: bool) {
    let listed = told(proxy, &["ls", "alpine:1"]);
    let one = &listed["images"][0];
    assert_eq!(one["is_complete"], true, "{listed}");
    assert_eq!(one["platforms"], json!(["linux/amd64"]));
    let own: usize = image.blobs().map(|blob| blob.bytes.len()).sum();
    let foreign = if is_kept { layer.bytes.len() } else { 0 };
    assert_eq!(one["bytes"], json!(image.manifest.bytes.len() + own + foreign));
    assert_eq!(told(proxy, &["pin", "alpine:1"])["images"][0]["is_complete"], true);
    let explained = proxy.admin("/api/v1/explain?image=alpine:1").json();
    let objects = explained["objects"].as_array().unwrap();
    assert_eq!(objects.len(), 4 + usize::from(is_kept), "{explained:#}");
    assert!(objects.iter().all(|one| one["state"] == "kept"), "{explained:#}");
    assert_eq!(proxy.run(&["verify"]).code, Some(0));
}

/// What an archive was not got for is given no name by it, and leaves nothing behind.
#[test]
fn only_the_images_that_are_meant_are_taken_in() {
    let world = World::new();
    world.export(&["alpine:1", "alpine:multi"]);
    for is_running in [true, false] {
        let mut inside = air_gapped();
        if !is_running {
            stop(&inside);
        }
        let missing = inside.run(&["import", &world.archive(), "alpine:1", "ghcr.io/org/"]);
        assert_eq!(missing.code, Some(1), "{}", missing.output);
        assert!(missing.output.contains("has no image ghcr.io/org/"), "{}", missing.output);
        assert_eq!(told(&inside, &["ls"])["images"], json!([]));
        let imported = told(&inside, &["import", &world.archive(), "alpine:1"]);
        assert_eq!(imported["images"][0]["name"], NAME, "{imported}");
        assert_eq!(imported["images"].as_array().unwrap().len(), 1, "{imported}");
        assert_eq!(imported["left_out"], json!(["docker.io/library/alpine:multi"]));
        assert_eq!(imported["objects"], 4, "{imported}");
        if !is_running {
            inside.start_again();
        }
        assert_pulls(&inside, "1", &world.image);
        inside.puller().pull(ALPINE, "multi").unwrap_err();
        assert!(!inside.keeps(&world.index.manifest.digest));
        assert_eq!(inside.admin("/api/v1/stats").json()["store"]["objects"], 4);
    }
    let both = air_gapped().run(&["import", &world.archive(), "alpine:1", "--name", "alpine:2"]);
    assert_eq!(both.code, Some(2), "{}", both.output);
}

#[test]
fn the_api_takes_in_what_is_named_alike() {
    let world = World::new();
    world.export(&["alpine:1", "alpine:multi"]);
    let archive = fs::read(world.archive()).unwrap();
    let inside = air_gapped();
    let import = |query: &str| {
        let request = Request::new("POST", format!("/api/v1/import?{query}"))
            .header("Content-Type", "application/x-tar")
            .header("Content-Length", archive.len().to_string());
        inside.operator().send(&request.body(archive.clone())).unwrap()
    };
    for wrong in ["image=A", "image=alpine&name=alpine:1", "name=alpine:1&image=alpine", "x=1"] {
        assert_eq!(import(wrong).status, 400, "{wrong}");
    }
    let answer = import("image=alpine:multi").text();
    assert!(answer.contains("{\"left_out\":\"docker.io/library/alpine:1\"}"), "{answer}");
    assert!(answer.contains("\"name\":\"docker.io/library/alpine:multi\""), "{answer}");
    assert_pulls(&inside, "multi", &world.index.images[0]);
    inside.puller().pull(ALPINE, "1").unwrap_err();
}

/// Runs a subcommand at a terminal, where somebody types `answer`; its exit code, and what stood on
/// the terminal.
fn at_a_terminal(proxy: &Proxy, arguments: &[&str], answer: &str) -> (Option<i32>, String) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use std::io::Read as _;

    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let path = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
    let terminal = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut person = fs::File::from(person);
    person.write_all(answer.as_bytes()).unwrap();
    let mut child = Command::new(BINARY)
        .args(arguments)
        .args(["--config", &proxy.config_file().display().to_string()])
        .stdin(terminal.try_clone().unwrap())
        .stderr(terminal)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let code = child.wait().unwrap().code();
    let mut seen = Vec::new();
    // That the other end is closed is an error here.
    drop(person.read_to_end(&mut seen));
    (code, String::from_utf8_lossy(&seen).into_owned())
}

#[test]
fn at_a_terminal_a_person_is_asked_what_an_archive_is_to_bring() {
    let world = World::new();
    world.export(&["alpine:1", "alpine:multi"]);
    let archive = world.archive();
    let inside = air_gapped();
    let images = || told(&inside, &["ls"])["images"].as_array().unwrap().len();
    for no in ["n\n", "\n", "maybe\n"] {
        let (code, seen) = at_a_terminal(&inside, &["import", &archive], no);
        assert_eq!(code, Some(1), "{seen}");
        for part in [NAME, "docker.io/library/alpine:multi", "[y/N]", "nothing was imported"] {
            assert!(seen.contains(part), "no {part:?} in {seen}");
        }
        assert_eq!(images(), 0);
    }
    let (code, seen) = at_a_terminal(&inside, &["import", &archive, "alpine:1"], "");
    assert_eq!((code, images()), (Some(0), 1), "what is named is not asked about: {seen}");
    assert!(!seen.contains("[y/N]"), "{seen}");
    let (code, seen) = at_a_terminal(&inside, &["import", &archive], "y\n");
    assert_eq!((code, images()), (Some(0), 2), "{seen}");
    let stopped = air_gapped();
    stop(&stopped);
    let (code, seen) = at_a_terminal(&stopped, &["import", &archive], "n\n");
    assert_eq!(code, Some(1), "{seen}");
    let (code, seen) = at_a_terminal(&stopped, &["import", &archive, "--yes"], "");
    assert_eq!(code, Some(0), "{seen}");
    assert!(!seen.contains("[y/N]"), "{seen}");
}
