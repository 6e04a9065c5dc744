//! The process is killed, or the power fails, at any moment: nothing wrong is ever kept, and the
//! store always opens again.
//!
//! The victim is this test binary itself, run once more for the test called `victim`. Environment:
//! `ENTREPOT_KILL_CYCLES` (50) and `ENTREPOT_POWER_CYCLES` (5, on each file system) say how often.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "what a test does not get ends it; the victim speaks on its standard output"
)]

#[path = "../src/tests/noise.rs"]
mod noise;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use entrepot_cache::{ContentRecord, IndexState, Lookup, Options, Start, Store};
use entrepot_oci::{Algorithm, Digest, Hasher};
use tempfile::TempDir;

use noise::noise;

/// Where the victim finds its store, what it does there, and with which contents.
const DIR: &str = "ENTREPOT_CRASH_DIR";
const ROLE: &str = "ENTREPOT_CRASH_ROLE";
const SEED: &str = "ENTREPOT_CRASH_SEED";

/// How much the victim under load may keep: so little that it evicts all the time.
const MAX_SIZE: u64 = 2_000_000;

/// What can be interrupted: every call that changes a file, and those that make one.
const CALLS: [&str; 11] = [
    "write",
    "pwrite64",
    "pwritev",
    "fsync",
    "fdatasync",
    "rename",
    "openat",
    "unlink",
    "ftruncate",
    "mkdir",
    "flock",
];

fn cycles(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

// ---- the victim ----

/// Does nothing unless another test has started it.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    let role = std::env::var(ROLE).unwrap();
    // One thread for the disk: then "the n-th call" means the same in every run.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let threads = if role == "once" { 1 } else { 8 };
    let runtime = builder.enable_time().max_blocking_threads(threads).build().unwrap();
    runtime.block_on(async {
        match role.as_str() {
            "once" => once(Options::new(dir), seed).await,
            "load" => {
                let mut options = Options::new(dir);
                options.max_size = Some(MAX_SIZE);
                load(&Store::open(options).await.unwrap(), seed, true).await;
            }
            _ => load(&Store::open(Options::new(dir)).await.unwrap(), seed, false).await,
        }
    });
}

/// One of everything.
async fn once(options: Options, seed: u64) {
    let store = Store::open(options).await.unwrap();
    let (blob, manifest) = (noise(200_000, seed), noise(2_000, seed + 1));
    download(&store, &blob, 150_000).await;
    download(&store, &blob, blob.len()).await;
    let digest = Digest::of(Algorithm::Sha256, &manifest);
    store.put(&digest, manifest).await.unwrap();
    let records =
        store.repository(&"docker.io".parse().unwrap(), &"library/alpine".parse().unwrap());
    records.record_content(&digest, &ContentRecord::now(None)).await.unwrap();
    store.pin(&digest).await.unwrap();
    store.unpin(&digest).await.unwrap();
    store.remove(&digest).await.unwrap();
    store.close().await;
}

/// Downloads until it is killed, saying what is kept.
async fn load(store: &Store, seed: u64, removes: bool) {
    println!("ready");
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..6 {
        let store = store.clone();
        workers.spawn(async move {
            for round in 0.. {
                let number = seed * 1_000_000 + worker * 10_000 + round;
                let len = usize::try_from(number * 7_919 % 400_000).unwrap();
                let content = noise(len, number);
                download(&store, &content, len / 2).await;
                if download(&store, &content, len).await {
                    println!("kept {}", Digest::of(Algorithm::Sha256, &content));
                }
                if removes && round % 5 == 0 {
                    let _ = store.remove(&Digest::of(Algorithm::Sha256, &content)).await;
                }
            }
        });
    }
    workers.join_next().await;
}

/// Downloads up to `until` bytes of `content`; whether it is kept now.
async fn download(store: &Store, content: &Bytes, until: usize) -> bool {
    let digest = Digest::of(Algorithm::Sha256, content);
    let Lookup::Absent(reservation) = store.lookup(&digest, "docker.io").await else {
        return true;
    };
    let from = usize::try_from(reservation.resume_from()).unwrap();
    let start = if from > 0 { Start::Resumed } else { Start::Fresh };
    let Ok((mut writer, _)) = reservation.begin(start, None).await else { return false };
    for part in content.slice(from..until.max(from)).chunks(40_000) {
        if writer.write(Bytes::copy_from_slice(part)).await.is_err() {
            return false;
        }
    }
    until == content.len() && writer.finish().await.is_ok()
}

// ---- its murderers ----

fn command(program: &Path, dir: &Path, role: &str, seed: u64) -> Command {
    let mut command = Command::new(program);
    let seed = seed.to_string();
    command.env(DIR, dir).env(ROLE, role).env(SEED, seed).stdout(Stdio::piped());
    command.stderr(Stdio::null());
    command
}

fn start(dir: &Path, role: &str, seed: u64) -> Running {
    let exe = std::env::current_exe().unwrap();
    let child = command(&exe, dir, role, seed).args(VICTIM).spawn().unwrap();
    Running::new(child)
}

const VICTIM: [&str; 3] = ["victim", "--exact", "--nocapture"];

/// A victim at work, and what it says. Dropping it kills it.
struct Running {
    child: Child,
    said: Option<std::thread::JoinHandle<Vec<String>>>,
}

impl Running {
    /// Returns when the victim has opened its store.
    fn new(mut child: Child) -> Self {
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.ends_with("ready"));
        assert!(ready, "the store did not open");
        let said = std::thread::spawn(move || lines.map_while(Result::ok).collect());
        Self { child, said: Some(said) }
    }

    /// Stops every thread of the victim; returns when they stand still.
    fn stop(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let options = rustix::process::WaitOptions::UNTRACED;
        rustix::process::waitpid(Some(pid), options).unwrap();
    }

    /// Kills it; returns what it said was kept.
    fn kill(mut self) -> Vec<Digest> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let said = self.said.take().unwrap().join().unwrap();
        said.iter().filter_map(|line| line.strip_prefix("kept ")?.parse().ok()).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sometime(seed: u64, between: std::ops::Range<u64>) -> Duration {
    let random = u64::from(u16::from_be_bytes([noise(2, seed)[0], noise(2, seed)[1]]));
    Duration::from_millis(between.start + random % (between.end - between.start))
}

/// Everything that must hold of a store in `dir`, whatever happened to it.
fn check(dir: &Path) {
    let (objects, bytes) = rehash(dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let since = Instant::now();
        let store = Store::open(Options::new(dir)).await.unwrap();
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        assert_eq!(fs::read_dir(dir.join("partial/tmp")).unwrap().count(), 0);
        while store.index_state() == IndexState::Loading {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let totals = store.totals();
        assert_eq!((totals.objects, totals.bytes), (objects, bytes));
        store.close().await;
    });
}

/// Re-hashes everything under a final name; the number and bytes of it.
fn rehash(dir: &Path) -> (u64, u64) {
    let mut sums = (0, 0);
    let Ok(shards) = fs::read_dir(dir.join("blobs/sha256")) else { return sums };
    for shard in shards {
        for blob in fs::read_dir(shard.unwrap().path()).unwrap() {
            let blob = blob.unwrap();
            let bytes = fs::read(blob.path()).unwrap();
            let mut hasher = Hasher::new(Algorithm::Sha256);
            hasher.update(&bytes);
            assert_eq!(hasher.finish().hex(), blob.file_name().to_str().unwrap());
            sums = (sums.0 + 1, sums.1 + bytes.len() as u64);
        }
    }
    sums
}

#[test]
fn killed_under_load_at_any_moment() {
    let dir = TempDir::new().unwrap();
    let mut kept = 0;
    for cycle in 0..cycles("ENTREPOT_KILL_CYCLES", 50) {
        let victim = start(dir.path(), "load", cycle);
        std::thread::sleep(sometime(cycle, 5..250));
        kept += victim.kill().len();
        check(dir.path());
    }
    assert!(kept > 0, "the load was none");
}

#[test]
fn killed_at_every_call_of_one_operation() {
    let mut killed = 0;
    for call in CALLS {
        let dir = TempDir::new().unwrap();
        for number in 1.. {
            assert!(number < 1_000, "{call} never runs through");
            if !killed_at(dir.path(), call, number) {
                break;
            }
            killed += 1;
            check(dir.path());
        }
        check(dir.path());
    }
    assert!(killed > 50, "only {killed} calls were met");
}

/// Runs one operation, killed at its `number`-th `call`; whether it got so far.
fn killed_at(dir: &Path, call: &str, number: u64) -> bool {
    let mut strace = command(&tool("strace", "strace"), dir, "once", number * 10);
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:signal=SIGKILL:when={number}")]);
    let status = strace.arg(std::env::current_exe().unwrap()).args(VICTIM).status().unwrap();
    assert!(
        status.success() || status.signal() == Some(9) || status.code() == Some(137),
        "{status}"
    );
    !status.success()
}

#[test]
fn the_power_fails_under_load_on_ext4() {
    the_power_fails_under_load(&Medium::new("mkfs.ext4", "e2fsprogs"));
}

#[test]
fn the_power_fails_under_load_on_xfs() {
    the_power_fails_under_load(&Medium::new("mkfs.xfs", "xfsprogs"));
}

fn the_power_fails_under_load(medium: &Medium) {
    let mut kept = Vec::new();
    for cycle in 0..cycles("ENTREPOT_POWER_CYCLES", 5) {
        let mounted = medium.mount();
        let dir = mounted.0.join("store");
        let victim = start(&dir, "power", cycle);
        std::thread::sleep(sometime(cycle, 50..400));
        // Standing still, it can't promise anything that the medium does not take any more.
        victim.stop();
        run(Command::new(tool("xfs_io", "xfsprogs"))
            .args(["-x", "-c", "shutdown"])
            .arg(&mounted.0));
        kept.extend(victim.kill());
        drop(mounted);

        let mounted = medium.mount();
        let dir = mounted.0.join("store");
        check(&dir);
        for digest in &kept {
            let hex = digest.hex();
            let path = dir.join("blobs/sha256").join(&hex[..2]).join(&hex);
            assert!(path.exists(), "{digest} was kept");
        }
        if medium.is_half_full(&mounted) {
            fs::remove_dir_all(&dir).unwrap();
            kept.clear();
        }
    }
}

/// A file system in a file, that can lose its power.
struct Medium(TempDir);

/// Where it is mounted; dropping it unmounts it.
struct Mounted(PathBuf);

impl Medium {
    /// Made by the program `mkfs` of a Debian package.
    fn new(mkfs: &str, package: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let image = dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(512 * 1024 * 1024).unwrap();
        run(Command::new(tool(mkfs, package)).arg("-q").arg(&image));
        fs::create_dir(dir.path().join("mnt")).unwrap();
        Self(dir)
    }

    fn mount(&self) -> Mounted {
        let at = self.0.path().join("mnt");
        let mut mount = Command::new(tool("mount", "mount"));
        run(mount.args(["-o", "loop"]).arg(self.0.path().join("image")).arg(&at));
        Mounted(at)
    }

    fn is_half_full(&self, mounted: &Mounted) -> bool {
        debug_assert!(mounted.0.starts_with(self.0.path()));
        let space = rustix::fs::statvfs(&mounted.0).unwrap();
        space.f_bavail < space.f_blocks / 2
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status} (this test needs root)");
}

/// The path of a program that tests need.
fn tool(name: &str, package: &str) -> PathBuf {
    let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing: apt-get install {package}"))
}
