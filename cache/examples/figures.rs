//! What a store of many objects costs: `cargo run --release --package entrepot-cache --example
//! figures [OBJECTS [DIRECTORY]]` (100,000 in the usual place for temporary files) prints how long
//! a start, the rebuilding of the index, and sweeps take, and what many readers of one object get.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement that can't be made has nothing to say; what it says, it prints"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use entrepot_cache::disk::{Disk, Fault, FaultPlan};
use entrepot_cache::{IndexState, Lookup, Options, Start, Store};
use entrepot_oci::{Algorithm, Digest};

/// Layers of an image; every fourth is shared with the image before.
const LAYERS: usize = 9;
/// How many readers ask for one object at once.
const READERS: usize = 600;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let objects = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let temporary = arguments.next().map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let dir = temporary.path().join("store");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        Store::open(Options::new(&dir)).await.unwrap().close().await;
        let bytes = plant(&dir, objects);
        println!("{objects} objects, {bytes} bytes");
        fs::remove_dir_all(dir.join("index")).unwrap();
        start(&dir, "start without an index").await;
        kill(&dir);
        start(&dir, "start after a crash").await;
        start(&dir, "start with an index").await;
        sweeps(&dir, objects, bytes).await;
        readers(&dir).await;
    });
}

/// Writes images of small layers under their final names.
fn plant(dir: &Path, objects: usize) -> u64 {
    let (mut bytes, mut layers, mut planted) = (0, Vec::new(), 0);
    while planted < objects {
        let layer = Bytes::from(format!("layer {planted}"));
        layers.push(write(dir, &layer));
        (bytes, planted) = (bytes + layer.len() as u64, planted + 1);
        if layers.len() == LAYERS {
            let needs: Vec<String> = layers.iter().map(ToString::to_string).collect();
            let manifest = Bytes::from(serde_json::json!({ "needs": needs }).to_string());
            write(dir, &manifest);
            (bytes, planted) = (bytes + manifest.len() as u64, planted + 1);
            layers.drain(..LAYERS - LAYERS / 4);
        }
    }
    bytes
}

fn write(dir: &Path, content: &Bytes) -> Digest {
    let digest = Digest::of(Algorithm::Sha256, content);
    let path = path(dir, &digest);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    digest
}

fn path(dir: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    dir.join("blobs/sha256").join(&hex[..2]).join(hex)
}

fn needs(document: &[u8]) -> Vec<Digest> {
    let json: serde_json::Value = serde_json::from_slice(document).unwrap_or_default();
    let needs = json.get("needs").and_then(serde_json::Value::as_array);
    needs.into_iter().flatten().filter_map(|one| one.as_str()?.parse().ok()).collect()
}

fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    options.references = Some(needs);
    options
}

async fn opened(options: Options) -> Store {
    let store = Store::open(options).await.unwrap();
    while store.index_state() == IndexState::Loading {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store
}

async fn start(dir: &Path, what: &str) {
    let since = Instant::now();
    let store = Store::open(options(dir)).await.unwrap();
    let ready = since.elapsed();
    while store.index_state() == IndexState::Loading {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("{what}: ready {ready:.1?}, index complete {:.1?}", since.elapsed());
    store.close().await;
}

/// Leaves the index as a killed process does.
fn kill(dir: &Path) {
    fs::remove_file(dir.join("index/clean")).unwrap();
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or_default(),
        time.tv_nsec.try_into().unwrap_or_default(),
    )
}

async fn sweeps(dir: &Path, objects: usize, bytes: u64) {
    // What was never used here is all alike; used objects are told apart.
    let mut idle = options(dir);
    idle.max_idle = Some(Duration::from_hours(1));
    let store = opened(idle).await;
    sweep(&store, "sweep that finds nothing to evict").await;
    let busy = store.clone();
    let lookups = tokio::spawn(async move { slowest_lookup(&busy).await });
    for _ in 0..20 {
        store.hold_bounds().await;
    }
    println!("slowest of its lookups during 20 such sweeps: {:.1?}", lookups.await.unwrap());
    store.close().await;
    for percent in [95, 5] {
        let mut bounded = options(dir);
        bounded.max_size = Some(bytes * percent / 100);
        let store = opened(bounded).await;
        sweep(&store, &format!("sweep of {objects} objects down to {percent} %")).await;
        store.close().await;
    }
}

async fn sweep(store: &Store, what: &str) {
    let (since, before) = (Instant::now(), cpu());
    store.hold_bounds().await;
    let (took, busy) = (since.elapsed(), cpu().saturating_sub(before));
    println!("{what}: {took:.1?}, {busy:.1?} of CPU; {:?}", store.totals());
}

/// Looks one object up for a second.
async fn slowest_lookup(store: &Store) -> Duration {
    let digest = Digest::of(Algorithm::Sha256, b"layer 0");
    let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
    while begun.elapsed() < Duration::from_secs(1) {
        let since = Instant::now();
        drop(store.lookup(&digest, "docker.io").await);
        slowest = slowest.max(since.elapsed());
        tokio::task::yield_now().await;
    }
    slowest
}

/// Many readers of one object, from the page cache and, as a file system in memory has it, past it.
async fn readers(dir: &Path) {
    let content: Bytes = (0..=u8::MAX).cycle().step_by(7).take(16 * 1024 * 1024).collect();
    let digest = Digest::of(Algorithm::Sha256, &content);
    let store = Store::open(Options::new(dir)).await.unwrap();
    let Lookup::Absent(reservation) = store.lookup(&digest, "docker.io").await else { return };
    let (mut writer, _) = reservation.begin(Start::Fresh, None).await.unwrap();
    writer.write(content.clone()).await.unwrap();
    writer.finish().await.unwrap();
    crowd(&store, &digest, content.len(), "page cache").await;
    store.close().await;
    // While reads may hang there is no page cache; none does.
    let plan = Arc::new(FaultPlan::at(u64::MAX, Fault::Hang));
    let options = Options::new(dir).with_disk(Disk::with_faults(plan));
    let store = Store::open(options).await.unwrap();
    crowd(&store, &digest, content.len(), "blocking threads").await;
    store.close().await;
}

async fn crowd(store: &Store, digest: &Digest, len: usize, what: &str) {
    let since = Instant::now();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..READERS {
        let Lookup::Kept(reader) = store.lookup(digest, "docker.io").await else { return };
        readers.spawn(async move {
            let mut at = 0;
            while at < len as u64 {
                at += reader.read_at(at, 256 * 1024).await.unwrap().len() as u64;
            }
        });
    }
    while let Some(done) = readers.join_next().await {
        done.unwrap();
    }
    let (took, bytes) = (since.elapsed(), READERS * len);
    let rate = bytes as u128 / 1_000 / took.as_millis().max(1);
    println!("{READERS} readers of one object, {what}: {took:.2?}, {rate} MB/s");
}
