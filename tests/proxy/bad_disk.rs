//! A disk that fails stops no pull, and is used again when it is well.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use entrepot_testkit::image::MANIFEST;
use entrepot_testkit::{Blob, Image, Proxy, Registry, Request};

use crate::{ALPINE, BINARY, one_layer};

const SIZE: usize = 4_000_000;

/// A file system with limits that goes away with the test.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub(crate) fn new(options: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(directory.path());
        assert!(mount.status().unwrap().success(), "this test mounts file systems: run it as root");
        Self(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{options}")]).arg(self.path());
        assert!(mount.status().unwrap().success());
    }

    /// A proxy whose store lies here.
    fn proxy(&self, registry: &Registry) -> Proxy {
        let cache = self.path().join("cache");
        let config = format!("cache-dir = \"{}\"\nmin-free = \"0B\"", cache.display());
        Proxy::builder(BINARY).in_front_of(registry).config(&config).start()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(self.path()).status().ok();
    }
}

fn blob(registry: &Registry) -> Blob {
    let blob = Blob::random(SIZE);
    registry.push_blob(ALPINE, &blob);
    blob
}

/// Several clients at once and one after another get the blob, whole, and the log tells it once.
#[track_caller]
fn assert_served(proxy: &Proxy, blob: &Blob) {
    let pull = || proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4).map(|_| scope.spawn(pull)).collect();
        for got in pulls {
            assert_eq!(got.join().unwrap().response.body, blob.bytes);
        }
    });
    assert_eq!(pull().response.body, blob.bytes);
}

#[track_caller]
fn assert_told_once(proxy: &Proxy) {
    proxy.wait_for_log(&["the store can't take downloads"]);
    let lines = proxy.log().iter().filter(|line| line.contains("can't take downloads")).count();
    assert_eq!(lines, 1, "one line for one trouble");
}

#[test]
fn a_full_disk_stops_no_pull_and_is_used_again_when_there_is_room() {
    let disk = SmallDisk::new("size=2000000");
    let registry = Registry::open();
    let proxy = disk.proxy(&registry);
    let blob = blob(&registry);
    assert_served(&proxy, &blob);
    assert_told_once(&proxy);
    proxy.wait_for_log(&["the store can't take downloads", "No space left on device"]);
    assert!(!proxy.keeps(&blob.digest));

    disk.remount("size=20000000");
    let deadline = Instant::now() + Duration::from_mins(1);
    let kept = disk.path().join("cache/blobs/sha256").join(&blob.digest[7..9]);
    while !kept.join(&blob.digest[7..]).exists() {
        assert!(Instant::now() < deadline, "the store is not used again");
        // Only a request makes the proxy try again, and not before its pause is over.
        std::thread::sleep(Duration::from_millis(500));
        proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    }
}

#[test]
fn a_disk_without_inodes_stops_no_pull() {
    let disk = SmallDisk::new("nr_inodes=60");
    let registry = Registry::open();
    let proxy = disk.proxy(&registry);
    // The store's own directories have taken some of them.
    let mut number = 0;
    while std::fs::write(disk.path().join(number.to_string()), "").is_ok() {
        number += 1;
    }
    let blob = blob(&registry);
    assert_served(&proxy, &blob);
    assert_told_once(&proxy);
}

/// Makes system calls of a running proxy fail until it is dropped.
pub(crate) struct FailingCalls(Child);

impl FailingCalls {
    /// Needs strace (`apt install strace`).
    pub(crate) fn new(proxy: &Proxy, inject: &[&str]) -> Self {
        Self::about(proxy, None, inject)
    }

    /// Those about one file alone.
    fn about(proxy: &Proxy, file: Option<&Path>, inject: &[&str]) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-p", &proxy.pid().to_string()]);
        if let Some(file) = file {
            strace.arg("-P").arg(file);
        }
        for inject in inject {
            strace.args(["-e", &format!("inject={inject}")]);
        }
        let mut child = strace.stderr(Stdio::piped()).spawn().unwrap();
        // It says when it has every thread.
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = lines.next().unwrap().unwrap();
        assert!(said.contains("attached"), "{said}");
        std::thread::spawn(move || lines.count());
        Self(child)
    }
}

impl Drop for FailingCalls {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_disk_that_turns_read_only_stops_no_pull_and_no_hit() {
    let (registry, proxy, kept) = one_layer(SIZE);
    let pull = |blob: &Blob| proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    pull(&kept);
    proxy.wait_until_kept(&kept.digest);
    // A file system with files open for writing can't be remounted: what it would refuse, fails.
    let calls = ["pwrite64", "pwritev", "rename", "renameat", "renameat2", "unlink", "unlinkat"];
    let inject = calls.map(|call| format!("{call}:error=EROFS"));
    let failing = FailingCalls::new(&proxy, &inject.each_ref().map(String::as_str));
    let new = blob(&registry);
    assert_served(&proxy, &new);
    assert_told_once(&proxy);
    let hit = pull(&kept);
    assert_eq!((hit.cache_status(), &hit.response.body), ("entrepot; hit", &kept.bytes));
    drop(failing);
}

#[test]
fn a_disk_that_fails_to_read_stops_no_hit() {
    let (registry, proxy, layer) = one_layer(SIZE);
    proxy.puller().blob(ALPINE, &layer.digest).unwrap();
    proxy.wait_until_kept(&layer.digest);
    proxy.puller().blob(ALPINE, &layer.digest).unwrap();
    let failing = FailingCalls::new(&proxy, &["preadv2:error=EAGAIN", "pread64:error=EIO"]);
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), layer.digest);
    let part = Request::get(url).header("Range", "bytes=1000000-1999999");
    for _ in 0..2 {
        assert_eq!(proxy.puller().blob(ALPINE, &layer.digest).unwrap().response.body, layer.bytes);
        let part = proxy.client().send(&part).unwrap();
        assert_eq!((part.status, part.body), (206, layer.bytes.slice(1_000_000..2_000_000)));
    }
    proxy.wait_for_log(&["the store does not deliver an object"]);
    drop(failing);
    let hit = proxy.puller().blob(ALPINE, &layer.digest).unwrap();
    assert_eq!((hit.cache_status(), &hit.response.body), ("entrepot; hit", &layer.bytes));
}

#[test]
fn a_disk_that_fails_to_read_a_manifest_stops_no_hit() {
    let registry = Registry::open();
    let image = Image::random(1, 1000);
    registry.push(ALPINE, "1", &image);
    // Too large to stay in memory.
    let mut document: serde_json::Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    document["annotations"] = serde_json::json!({ "padding": "x".repeat(200_000) });
    let manifest = Blob::new(MANIFEST, document.to_string());
    registry.push_manifest(ALPINE, &manifest);
    let proxy = crate::in_front_of(&registry);
    let pull = || proxy.puller().visit(ALPINE).unwrap().fetch("manifests", &manifest.digest);
    for _ in 0..2 {
        assert_eq!(pull().unwrap().response.body, manifest.bytes);
    }
    let failing = FailingCalls::new(&proxy, &["preadv2:error=EAGAIN", "pread64:error=EIO"]);
    assert_eq!(pull().unwrap().response.body, manifest.bytes);
    proxy.wait_for_log(&["the store does not deliver an object"]);
    drop(failing);
    let hit = pull().unwrap();
    assert_eq!((hit.cache_status(), &hit.response.body), ("entrepot; hit", &manifest.bytes));
}

#[test]
fn a_disk_that_hangs_on_one_file_stops_no_hit() {
    let (registry, proxy, layer) = one_layer(SIZE);
    let other = blob(&registry);
    for blob in [&layer, &other] {
        proxy.puller().blob(ALPINE, &blob.digest).unwrap();
        proxy.wait_until_kept(&blob.digest);
        proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    }
    let path = proxy.data_dir().join("cache/blobs/sha256").join(&layer.digest[7..9]);
    let path = path.join(&layer.digest[7..]);
    let hang = ["preadv2:error=EAGAIN", "pread64:delay_enter=20000000"];
    let hang = FailingCalls::about(&proxy, Some(&path), &hang);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let began = Instant::now();
            let got = proxy.puller().blob(ALPINE, &layer.digest).unwrap();
            (got, began.elapsed())
        });
        for _ in 0..20 {
            let began = Instant::now();
            let hit = proxy.puller().blob(ALPINE, &other.digest).unwrap();
            assert_eq!(hit.cache_status(), "entrepot; hit");
            assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        }
        // From the registry, long before the disk is done.
        let (got, took) = waiting.join().unwrap();
        assert_eq!(got.response.body, layer.bytes);
        assert!(took < Duration::from_secs(15), "{took:?}");
    });
    proxy.wait_for_log(&["the store does not deliver an object"]);
    drop(hang);
}

#[test]
fn a_failed_sync_is_no_failed_pull_and_keeps_nothing() {
    let (_registry, proxy, layer) = one_layer(SIZE);
    let failing = FailingCalls::new(&proxy, &["fsync:error=EIO", "fdatasync:error=EIO"]);
    assert_served(&proxy, &layer);
    assert_told_once(&proxy);
    assert!(!proxy.keeps(&layer.digest), "what could not be synced is not published");
    drop(failing);
}
