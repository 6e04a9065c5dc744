//! Bounds are held: the least recently used objects go, and nobody who reads or pins is hurt.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use entrepot_oci::Digest;
use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    ORIGIN, assert_blobs_are_right, blob_path, fill, kept, leave_partial, new_dir, noise,
    partial_path, read_all, reserve, sha256,
};
use crate::{IndexState, Lookup, Options, Presence, Start, Store};

fn bounded(dir: &Path, max_size: u64) -> Options {
    let mut options = Options::new(dir);
    options.max_size = Some(max_size);
    options
}

async fn opened(options: Options) -> Store {
    let store = Store::open(options).await.unwrap();
    while store.index_state() == IndexState::Loading {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store
}

/// Downloads `count` objects of `size` bytes one after the other; returns their digests.
async fn fill_many(store: &Store, count: u64, size: usize, seed: u64) -> Vec<Digest> {
    let mut digests = Vec::new();
    for number in 0..count {
        let content = noise(size, seed * 1_000 + number);
        drop(fill(store, &content).await);
        digests.push(sha256(&content));
    }
    digests
}

fn which(store: &Store, digests: &[Digest]) -> Vec<usize> {
    let kept = |digest| store.contains(digest) == Presence::Kept;
    digests.iter().enumerate().filter(|(_, digest)| kept(digest)).map(|(n, _)| n).collect()
}

fn bytes_on_disk(dir: &Path) -> (u64, u64) {
    let mut sum = (0, 0);
    for shard in std::fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        for blob in std::fs::read_dir(shard.unwrap().path()).unwrap() {
            sum = (sum.0 + 1, sum.1 + blob.unwrap().metadata().unwrap().len());
        }
    }
    sum
}

fn partials(dir: &Path) -> Vec<u64> {
    let files = std::fs::read_dir(dir.join("partial/sha256")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).collect()
}

#[tokio::test]
async fn what_broken_downloads_leave_is_bounded_and_the_newest_stays() {
    let dir = new_dir();
    let store = opened(bounded(dir.path(), 5_000_000)).await;
    // From here on it does not look by itself for a while.
    store.hold_bounds().await;
    let mut contents = Vec::new();
    for seed in 0..10_u32 {
        let content = noise(200_000, u64::from(seed));
        leave_partial(&store, &content, 1_000).await;
        let path = partial_path(&dir, &sha256(&content));
        let file = std::fs::File::open(path).unwrap();
        file.set_modified(SystemTime::now() - (10 - seed) * Duration::from_hours(1)).unwrap();
        contents.push(content);
    }
    // It was left first, and is being continued.
    let digest = sha256(&contents[0]);
    let (writer, _reader) =
        reserve(&store, &digest).await.begin(Start::Resumed, None).await.unwrap();
    store.hold_bounds().await;
    assert!(partials(dir.path()).iter().sum::<u64>() <= 500_000 + 200_000);
    let resumes = async |content: &Bytes| reserve(&store, &sha256(content)).await.resume_from() > 0;
    assert!(!resumes(&contents[1]).await, "the oldest");
    assert!(resumes(&contents[9]).await, "the newest");
    assert!(partial_path(&dir, &digest).exists());
    drop(writer);
}

#[tokio::test]
async fn the_least_recently_used_go_first_down_to_the_low_water() {
    let dir = new_dir();
    let store = opened(bounded(dir.path(), 10_000)).await;
    let digests = fill_many(&store, 10, 1_000, 1).await;
    store.hold_bounds().await;
    assert_eq!(which(&store, &digests).len(), 10, "the bound itself is not above it");
    for used in [0, 2] {
        drop(kept(&store, &digests[used]).await);
    }
    drop(fill(&store, &noise(1_000, 9)).await);
    store.hold_bounds().await;
    // 11,000 bytes go down to 9,500 or less: two objects.
    assert_eq!(which(&store, &digests), [0, 2, 4, 5, 6, 7, 8, 9]);
    let totals = store.totals();
    assert_eq!((totals.objects, totals.bytes), (9, 9_000));
    assert_eq!((totals.evicted_objects, totals.evicted_bytes), (2, 2_000));
    assert_eq!(bytes_on_disk(dir.path()), (9, 9_000));
    assert!(matches!(store.lookup(&digests[1], ORIGIN).await, Lookup::Absent(_)));
}

#[tokio::test]
async fn it_happens_without_being_asked_for() {
    let dir = new_dir();
    let store = opened(bounded(dir.path(), 10_000)).await;
    fill_many(&store, 30, 1_000, 2).await;
    while store.totals().bytes > 10_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn the_order_of_use_outlives_a_restart() {
    let dir = new_dir();
    let store = opened(Options::new(dir.path())).await;
    let digests = fill_many(&store, 10, 1_000, 3).await;
    store.close().await;
    for (day, digest) in digests.iter().enumerate() {
        let file = std::fs::File::open(blob_path(&dir, digest)).unwrap();
        let age = Duration::from_hours(24 * (20 - day as u64));
        file.set_modified(SystemTime::now() - age).unwrap();
    }
    // Without an index, what is not known to have been used counts as used when it came.
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let store = opened(Options::new(dir.path())).await;
    drop(kept(&store, &digests[0]).await);
    store.close().await;
    let store = opened(bounded(dir.path(), 8_000)).await;
    store.hold_bounds().await;
    assert_eq!(which(&store, &digests), [0, 4, 5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn what_is_read_goes_last_and_is_read_to_its_end() {
    let dir = new_dir();
    let store = opened(bounded(dir.path(), 500_000)).await;
    let old = noise(200_000, 40);
    let reader = fill(&store, &old).await;
    assert_eq!(reader.read_at(0, 1_000).await.unwrap(), old.slice(..1_000));
    let others = fill_many(&store, 4, 100_000, 4).await;
    store.hold_bounds().await;
    assert_eq!(store.contains(&sha256(&old)), Presence::Kept, "it is being read");
    assert_eq!(which(&store, &others), [2, 3]);
    // Now nothing else is left to go.
    let large = noise(450_000, 41);
    let second = fill(&store, &large).await;
    store.hold_bounds().await;
    assert_eq!(store.contains(&sha256(&old)), Presence::Absent);
    assert_eq!(store.contains(&sha256(&large)), Presence::Kept);
    assert_eq!(read_all(&reader, 30_000).await.unwrap(), old);
    assert_eq!(read_all(&second, 30_000).await.unwrap(), large);
}

#[tokio::test]
async fn what_is_pinned_stays_also_after_a_restart() {
    let dir = new_dir();
    let store = opened(bounded(dir.path(), 5_000)).await;
    let first = fill_many(&store, 2, 1_000, 5).await;
    let absent = sha256(b"not there yet");
    for digest in [&first[0], &absent] {
        store.pin(digest).await.unwrap();
        store.pin(digest).await.unwrap();
        assert!(store.is_pinned(digest));
    }
    fill_many(&store, 10, 1_000, 6).await;
    store.hold_bounds().await;
    assert_eq!(which(&store, &first), [0]);
    store.close().await;

    let store = opened(bounded(dir.path(), 5_000)).await;
    assert!(store.is_pinned(&first[0]) && store.is_pinned(&absent));
    fill_many(&store, 10, 1_000, 7).await;
    store.hold_bounds().await;
    assert_eq!(which(&store, &first), [0]);
    store.unpin(&first[0]).await.unwrap();
    assert!(!store.is_pinned(&first[0]) && store.is_pinned(&absent));
    fill_many(&store, 10, 1_000, 8).await;
    store.hold_bounds().await;
    assert_eq!(which(&store, &first), Vec::<usize>::new());
}

#[tokio::test]
async fn an_object_larger_than_everything_passes_through() {
    let dir = new_dir();
    let store = opened(bounded(dir.path(), 100_000)).await;
    let small = fill_many(&store, 5, 10_000, 9).await;
    let large = noise(300_000, 50);
    let reader = fill(&store, &large).await;
    assert_eq!(read_all(&reader, 70_000).await.unwrap(), large);
    let put = store.put(&sha256(&large), large.clone()).await.unwrap();
    assert_eq!(read_all(&put, 70_000).await.unwrap(), large);
    store.hold_bounds().await;
    assert_eq!(store.contains(&sha256(&large)), Presence::Absent);
    assert_eq!(which(&store, &small), [0, 1, 2, 3, 4]);
    for name in ["partial/sha256", "partial/tmp"] {
        assert_eq!(std::fs::read_dir(dir.path().join(name)).unwrap().count(), 0);
    }
    store.pin(&sha256(&large)).await.unwrap();
    drop(fill(&store, &large).await);
    store.hold_bounds().await;
    assert_eq!(store.contains(&sha256(&large)), Presence::Kept, "pins go before bounds");
}

#[tokio::test]
async fn an_object_that_has_become_too_large_goes_alone() {
    let dir = new_dir();
    let store = opened(Options::new(dir.path())).await;
    let small = fill_many(&store, 5, 10_000, 10).await;
    let large = noise(300_000, 51);
    drop(fill(&store, &large).await);
    store.close().await;
    let store = opened(bounded(dir.path(), 100_000)).await;
    store.hold_bounds().await;
    assert_eq!(store.contains(&sha256(&large)), Presence::Absent);
    assert_eq!(which(&store, &small), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn what_is_idle_goes() {
    let dir = new_dir();
    let store = opened(Options::new(dir.path())).await;
    let digests = fill_many(&store, 3, 1_000, 11).await;
    let reader = kept(&store, &digests[2]).await;
    store.close().await;
    drop(reader);
    let mut options = Options::new(dir.path());
    options.max_idle = Some(Duration::from_secs(1));
    let store = opened(options).await;
    while store.totals().objects > 0 {
        drop(store.lookup(&digests[0], ORIGIN).await);
        if which(&store, &digests) == [0] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(which(&store, &digests), [0], "what is used is not idle");
}

#[tokio::test]
async fn an_index_built_anew_makes_nothing_idle() {
    let dir = new_dir();
    let store = opened(Options::new(dir.path())).await;
    let digests = fill_many(&store, 3, 1_000, 12).await;
    store.close().await;
    for digest in &digests {
        let file = std::fs::File::open(blob_path(&dir, digest)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(10_000)).unwrap();
    }
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let mut options = Options::new(dir.path());
    options.max_idle = Some(Duration::from_hours(1));
    let store = opened(options).await;
    store.hold_bounds().await;
    assert_eq!(which(&store, &digests), [0, 1, 2]);
}

/// A file system in memory of its own, of 16 MiB.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount() -> Self {
        let dir = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(dir.path());
        let mounted = mount.status().expect("mount is missing: apt-get install mount");
        assert!(mounted.success(), "mounting needs root");
        Self(dir)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn free(dir: &Path) -> u64 {
    let space = rustix::fs::statvfs(dir).unwrap();
    space.f_bavail * space.f_frsize
}

#[tokio::test]
async fn space_is_kept_free_for_others() {
    const MIB: u64 = 1024 * 1024;
    let tmpfs = Tmpfs::mount();
    let dir = tmpfs.0.path();
    let mut options = Options::new(dir);
    options.min_free = Some(6 * MIB);
    let store = opened(options).await;
    let digests = fill_many(&store, 8, 1024 * 1024, 13).await;
    store.hold_bounds().await;
    assert_eq!(which(&store, &digests).len(), 8);
    std::fs::write(dir.join(".others"), noise(3 * 1024 * 1024, 1)).unwrap();
    assert!(free(dir) < 6 * MIB);
    store.hold_bounds().await;
    assert!(free(dir) >= 6 * MIB && free(dir) < 8 * MIB, "{}", free(dir));
    let left = which(&store, &digests);
    assert!(left.len() >= 5 && left == (8 - left.len()..8).collect::<Vec<_>>(), "{left:?}");

    // What is of use to nobody yet goes before what is.
    let content = noise(2 * 1024 * 1024, 99);
    std::fs::write(partial_path(&tmpfs.0, &sha256(&content)), content).unwrap();
    store.hold_bounds().await;
    assert!(free(dir) >= 6 * MIB, "{}", free(dir));
    assert_eq!(which(&store, &digests), left);
    assert!(partials(dir).is_empty());
    drop(store);
}

/// A store whose index is as young as can be: its owner can't have begun yet.
#[tokio::test]
async fn a_young_index_is_not_believed_unless_the_disk_is_full() {
    let dir = new_dir();
    let store = opened(Options::new(dir.path())).await;
    let digests = fill_many(&store, 10, 100_000, 14).await;
    store.close().await;
    for (day, digest) in digests.iter().enumerate() {
        let file = std::fs::File::open(blob_path(&dir, digest)).unwrap();
        let age = Duration::from_hours(24 * (20 - day as u64));
        file.set_modified(SystemTime::now() - age).unwrap();
    }
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let mut options = bounded(dir.path(), 300_000);
    options.max_idle = Some(Duration::from_secs(1));
    let store = Store::open_young(options).await;
    store.hold_bounds().await;
    assert_eq!(which(&store, &digests).len(), 10);
    drop(store);

    let mut options = Options::new(dir.path());
    let space = rustix::fs::statvfs(dir.path()).unwrap();
    options.min_free = Some(space.f_blocks * space.f_frsize);
    let store = Store::open_young(options).await;
    store.pin(&digests[3]).await.unwrap();
    store.hold_bounds().await;
    assert_eq!(which(&store, &digests), [3]);
}

#[derive(Clone, Debug)]
enum Step {
    Fill(u64),
    Use(u64),
    Pin(u64),
    Unpin(u64),
    Remove(u64),
    Sweep,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let object = 0_u64..25;
    let step = prop_oneof![
        10 => object.clone().prop_map(Step::Fill),
        5 => object.clone().prop_map(Step::Use),
        1 => object.clone().prop_map(Step::Pin),
        1 => object.clone().prop_map(Step::Unpin),
        1 => object.prop_map(Step::Remove),
        2 => Just(Step::Sweep),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

fn object(number: u64) -> Bytes {
    noise(usize::try_from(number * number * 10 + 1).unwrap(), 7_000 + number)
}

const PROPERTY_MAX: u64 = 12_000;

async fn take(store: Store, step: &Step, dir: &TempDir) -> Store {
    match step {
        Step::Fill(number) | Step::Use(number) => {
            let content = object(*number);
            let read = match store.lookup(&sha256(&content), ORIGIN).await {
                Lookup::Kept(reader) => read_all(&reader, 65_536).await,
                Lookup::Absent(reservation) if matches!(step, Step::Fill(_)) => {
                    let begun = reservation.begin(Start::Fresh, None).await;
                    let (mut writer, _) = begun.unwrap();
                    writer.write(content.clone()).await.unwrap();
                    read_all(&writer.finish().await.unwrap(), 65_536).await
                }
                Lookup::Absent(_) | Lookup::InFlight(_) => return store,
            };
            assert_eq!(read.unwrap(), content);
        }
        Step::Pin(number) => store.pin(&sha256(&object(*number))).await.unwrap(),
        Step::Unpin(number) => store.unpin(&sha256(&object(*number))).await.unwrap(),
        Step::Remove(number) => drop(store.remove(&sha256(&object(*number))).await),
        Step::Sweep => store.hold_bounds().await,
        Step::Reopen => {
            store.close().await;
            return opened(bounded(dir.path(), PROPERTY_MAX)).await;
        }
    }
    store
}

/// What must hold after a sweep, whatever came before it.
async fn check_sums(store: &Store, dir: &TempDir) {
    store.hold_bounds().await;
    let totals = store.totals();
    assert_eq!(bytes_on_disk(dir.path()), (totals.objects, totals.bytes));
    let digests: HashSet<Digest> = store.objects().await.unwrap().into_iter().collect();
    let others: u64 = (0..25)
        .map(object)
        .filter(|content| digests.contains(&sha256(content)))
        .filter(|content| !store.is_pinned(&sha256(content)))
        .map(|content| content.len() as u64)
        .sum();
    assert!(totals.bytes <= PROPERTY_MAX || others == 0, "{totals:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn sums_are_exact_and_bounds_held_whatever_is_done(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        runtime.block_on(async {
            let dir = new_dir();
            let mut store = opened(bounded(dir.path(), PROPERTY_MAX)).await;
            for step in &steps {
                store = take(store, step, &dir).await;
            }
            check_sums(&store, &dir).await;
            assert_blobs_are_right(dir.path());
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eviction_under_readers_and_writers_hurts_nobody() {
    let dir = new_dir();
    let store = opened(bounded(dir.path(), 400_000)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..6_u64 {
        let store = store.clone();
        tasks.spawn(async move {
            for round in 0..80 {
                let content = noise(70_000, (worker * 7 + round * 3) % 20);
                let reader = match store.lookup(&sha256(&content), ORIGIN).await {
                    Lookup::Kept(reader) | Lookup::InFlight(reader) => reader,
                    Lookup::Absent(reservation) => {
                        let (mut writer, reader) =
                            reservation.begin(Start::Fresh, None).await.unwrap();
                        writer.write(content.clone()).await.unwrap();
                        writer.finish().await.unwrap();
                        reader
                    }
                };
                assert_eq!(read_all(&reader, 9_000).await.unwrap(), content);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    store.hold_bounds().await;
    let totals = store.totals();
    assert!(totals.evicted_objects > 0 && totals.bytes <= 400_000, "{totals:?}");
    assert_eq!(bytes_on_disk(dir.path()), (totals.objects, totals.bytes));
    assert_blobs_are_right(dir.path());
}

#[tokio::test]
async fn what_nobody_has_read_goes_before_what_somebody_wants() {
    let dir = new_dir();
    let store = opened(bounded(dir.path(), 1_000_000)).await;
    let unread = async |seed: u64| {
        let content = noise(300_000, seed);
        let reservation = reserve(&store, &sha256(&content)).await;
        let (mut writer, reader) = reservation.begin(Start::Fresh, None).await.unwrap();
        drop(reader);
        assert!(!writer.has_readers());
        writer.write(content.clone()).await.unwrap();
        writer.verify().await.unwrap().publish().await.unwrap();
        sha256(&content)
    };
    let wanted = fill_many(&store, 2, 300_000, 1).await;
    for seed in 10..20 {
        unread(seed).await;
        store.hold_bounds().await;
        assert_eq!(which(&store, &wanted), [0, 1], "{seed}");
    }
    // Asking for it is no use of it, but reading it is: then the oldest goes.
    let last = unread(30).await;
    store.hold_bounds().await;
    let asked = kept(&store, &last).await;
    asked.read_at(0, 1000).await.unwrap();
    drop(asked);
    let other = unread(31).await;
    store.hold_bounds().await;
    assert_eq!(which(&store, &[wanted[0], wanted[1], last, other]).len(), 3);
    assert_eq!(which(&store, &wanted), [0, 1]);
    let survivor = if store.contains(&other) == Presence::Kept { other } else { last };
    read_all(&kept(&store, &survivor).await, 64_000).await.unwrap();
    fill_many(&store, 1, 300_000, 2).await;
    store.hold_bounds().await;
    assert_eq!(which(&store, &[wanted[0], survivor]), [1]);
}
