//! Whole images leave together: a document and what it needs.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use entrepot_oci::Digest;
use proptest::prelude::*;
use tempfile::TempDir;

use super::{ORIGIN, assert_blobs_are_right, blob_path, fill, kept, new_dir, noise, sha256};
use crate::{IndexState, Lookup, Options, Presence, Reach, Store};

/// A document that names what it needs, in its own way.
fn document(number: usize, needs: &[Digest]) -> Bytes {
    let needs: Vec<String> = needs.iter().map(ToString::to_string).collect();
    Bytes::from(serde_json::json!({ "number": number, "needs": needs }).to_string())
}

fn needs(document: &[u8]) -> Vec<Digest> {
    let json: serde_json::Value = serde_json::from_slice(document).unwrap_or_default();
    let needs = json["needs"].as_array().cloned().unwrap_or_default();
    needs.iter().filter_map(|one| one.as_str()?.parse().ok()).collect()
}

pub(super) fn options(dir: &TempDir, max_size: Option<u64>) -> Options {
    let mut options = Options::new(dir.path());
    options.max_size = max_size;
    options.references = Some(needs);
    options
}

pub(super) async fn opened(options: Options) -> Store {
    let store = Store::open(options).await.unwrap();
    while store.index_state() == IndexState::Loading {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store
}

async fn put(store: &Store, content: &Bytes) -> Digest {
    let digest = sha256(content);
    drop(store.put(&digest, content.clone()).await.unwrap());
    digest
}

/// An image of two layers, and itself: index, manifest, layers.
pub(super) async fn image(store: &Store, number: usize, shared: &Bytes) -> [Digest; 4] {
    let own = noise(1_000, 100 + number as u64);
    let layers = [sha256(shared), sha256(&own)];
    let manifest = document(number, &layers);
    let index = document(number + 50, &[sha256(&manifest)]);
    let (index, manifest) = (put(store, &index).await, put(store, &manifest).await);
    for content in [shared, &own] {
        if let Lookup::Absent(reserved) = store.lookup(&sha256(content), ORIGIN).await {
            drop(reserved);
            drop(fill(store, content).await);
        }
    }
    let [shared, own] = layers;
    [index, manifest, shared, own]
}

pub(super) fn are(store: &Store, digests: &[Digest]) -> Vec<bool> {
    digests.iter().map(|digest| store.contains(digest) == Presence::Kept).collect()
}

fn age(dir: &TempDir, digest: &Digest, days: u64) {
    let file = fs::File::open(blob_path(dir, digest)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_hours(24 * days)).unwrap();
}

#[tokio::test]
async fn the_older_image_goes_and_leaves_what_the_newer_one_shares() {
    let dir = new_dir();
    let store = opened(options(&dir, Some(5_000))).await;
    let shared = noise(1_000, 1);
    let old = image(&store, 1, &shared).await;
    let new = image(&store, 2, &shared).await;
    drop(fill(&store, &noise(2_000, 3)).await);
    store.hold_bounds().await;
    assert_eq!(are(&store, &old), [false, false, true, false]);
    assert_eq!(are(&store, &new), [true; 4]);
    assert_eq!(store.references_of(&new[0]).await, [new[1]]);
    let mut layers = vec![new[2], new[3]];
    layers.sort_unstable();
    assert_eq!(store.references_of(&new[1]).await, layers);
    assert_eq!(store.references_of(&new[2]).await, []);
}

#[tokio::test]
async fn a_use_of_the_newer_kind_saves_the_image() {
    let dir = new_dir();
    let store = opened(options(&dir, Some(6_000))).await;
    let first = image(&store, 1, &noise(1_000, 1)).await;
    let second = image(&store, 2, &noise(1_000, 2)).await;
    // Nobody asked for its index again, nor for its layers.
    drop(kept(&store, &first[1]).await);
    drop(fill(&store, &noise(2_500, 3)).await);
    store.hold_bounds().await;
    assert_eq!(are(&store, &first), [true; 4]);
    assert_eq!(are(&store, &second), [false; 4]);
}

#[tokio::test]
async fn a_pinned_image_is_pinned_whole() {
    for case in ["asked", "reopened", "rebuilt", "young"] {
        let dir = new_dir();
        let store = opened(options(&dir, Some(5_000))).await;
        let pinned = image(&store, 1, &noise(1_000, 1)).await;
        store.pin(&pinned[0]).await.unwrap();
        let mut store = store;
        if case != "asked" {
            store.close().await;
            if case != "reopened" {
                fs::remove_dir_all(dir.path().join("index")).unwrap();
            }
            store = if case == "young" {
                let mut options = options(&dir, None);
                options.min_free = Some(u64::MAX / 2);
                Store::open_young(options).await
            } else {
                opened(options(&dir, Some(5_000))).await
            };
        }
        for seed in 0..5 {
            drop(fill(&store, &noise(1_500, 10 + seed)).await);
        }
        store.hold_bounds().await;
        assert_eq!(are(&store, &pinned), [true; 4], "{case}");
        if case == "young" {
            assert_eq!(store.objects().await.unwrap().len(), 4);
            continue;
        }
        store.unpin(&pinned[0]).await.unwrap();
        for seed in 0..5 {
            drop(fill(&store, &noise(1_500, 20 + seed)).await);
        }
        store.hold_bounds().await;
        assert_eq!(are(&store, &pinned), [false; 4], "{case}");
    }
}

#[tokio::test]
async fn what_a_pinned_image_needs_is_kept_however_large() {
    let dir = new_dir();
    let store = opened(options(&dir, Some(5_000))).await;
    let large = noise(9_000, 1);
    let manifest = document(1, &[sha256(&large)]);
    store.pin(&put(&store, &manifest).await).await.unwrap();
    drop(fill(&store, &large).await);
    store.hold_bounds().await;
    assert_eq!(are(&store, &[sha256(&manifest), sha256(&large)]), [true; 2]);
    assert!(!store.is_pinned(&sha256(&large)));
}

#[tokio::test]
async fn what_needs_what_is_known_again_after_a_restart() {
    for case in ["index", "no index", "an index of before"] {
        let dir = new_dir();
        let before = if case == "an index of before" {
            Options::new(dir.path())
        } else {
            options(&dir, None)
        };
        let store = opened(before).await;
        let image = image(&store, 1, &noise(1_000, 1)).await;
        store.close().await;
        if case == "no index" {
            fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let store = opened(options(&dir, None)).await;
        assert_eq!(store.references_of(&image[0]).await, [image[1]], "{case}");
        assert_eq!(store.references_of(&image[1]).await.len(), 2);
        store.close().await;
        // Now it is in the index, and no file is looked at.
        fs::write(blob_path(&dir, &image[1]), b"{}").unwrap();
        let store = opened(options(&dir, None)).await;
        assert_eq!(store.references_of(&image[1]).await.len(), 2);
    }
}

#[tokio::test]
async fn a_document_that_came_as_a_download_is_one_too() {
    let dir = new_dir();
    let store = opened(options(&dir, None)).await;
    let manifest = document(1, &[sha256(b"a layer")]);
    drop(fill(&store, &manifest).await);
    assert_eq!(store.references_of(&sha256(&manifest)).await, [sha256(b"a layer")]);
}

#[tokio::test]
async fn an_image_that_can_not_be_whole_goes() {
    let dir = new_dir();
    let store = opened(options(&dir, None)).await;
    let (large, small) = (noise(9_000, 1), noise(1_000, 2));
    let image = document(1, &[sha256(&large), sha256(&small)]);
    put(&store, &image).await;
    drop(fill(&store, &large).await);
    drop(fill(&store, &small).await);
    let other = noise(1_000, 3);
    drop(fill(&store, &other).await);
    store.close().await;
    let store = opened(options(&dir, Some(5_000))).await;
    store.hold_bounds().await;
    let all = [sha256(&image), sha256(&large), sha256(&small), sha256(&other)];
    assert_eq!(are(&store, &all), [false, false, false, true]);
}

#[tokio::test]
async fn an_image_is_idle_as_a_whole() {
    let dir = new_dir();
    let store = opened(options(&dir, None)).await;
    let shared = noise(1_000, 1);
    let old = image(&store, 1, &shared).await;
    let new = image(&store, 2, &shared).await;
    store.close().await;
    for digest in old.iter().chain(&new) {
        age(&dir, digest, 10);
    }
    // Twice: what an index built anew does not know it does not call idle.
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let store = opened(options(&dir, None)).await;
    drop(kept(&store, &new[0]).await);
    store.close().await;
    let mut options = options(&dir, None);
    options.max_idle = Some(Duration::from_hours(24));
    let store = opened(options).await;
    store.hold_bounds().await;
    assert_eq!(are(&store, &old), [false, false, true, false]);
    assert_eq!(are(&store, &new), [true; 4]);
}

const LAYERS: usize = 16;
const MANIFESTS: usize = 10;
const INDEXES: usize = 4;
const PROPERTY_MAX: u64 = 12_000;

/// Layers, manifests of some of these, indexes of some of those.
fn world() -> Vec<Bytes> {
    let mut world: Vec<Bytes> =
        (0..LAYERS).map(|n| noise(n * n * 12 + 1, 9_000 + n as u64)).collect();
    for (count, first, span) in [(MANIFESTS, 0, LAYERS), (INDEXES, LAYERS, MANIFESTS)] {
        for number in 0..count {
            let places = (0..3).map(|step| first + (number * 7 + step * step * 5) % span);
            let needs: BTreeSet<Digest> = places.map(|at| sha256(&world[at])).collect();
            world.push(document(number, &Vec::from_iter(needs)));
        }
    }
    world
}

#[derive(Clone, Debug)]
enum Step {
    Pull(usize),
    Use(usize),
    Pin(usize),
    Unpin(usize),
    Remove(usize),
    Reopen,
    Rebuild,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let object = 0..LAYERS + MANIFESTS + INDEXES;
    let step = prop_oneof![
        10 => object.clone().prop_map(Step::Pull),
        5 => object.clone().prop_map(Step::Use),
        1 => object.clone().prop_map(Step::Pin),
        1 => object.clone().prop_map(Step::Unpin),
        1 => object.prop_map(Step::Remove),
        1 => Just(Step::Reopen),
        1 => Just(Step::Rebuild),
    ];
    prop::collection::vec(step, 1..40)
}

/// Fetches an object and, as a client would, what it needs.
async fn pull(store: &Store, world: &[Bytes], at: usize) {
    let mut rest = vec![sha256(&world[at])];
    while let Some(digest) = rest.pop() {
        let content = world.iter().find(|content| sha256(content) == digest).unwrap();
        match store.lookup(&digest, ORIGIN).await {
            Lookup::Absent(reservation) => {
                drop(reservation);
                if needs(content).is_empty() {
                    drop(fill(store, content).await);
                } else {
                    put(store, content).await;
                }
            }
            Lookup::Kept(_) | Lookup::InFlight(_) => {}
        }
        rest.extend(needs(content));
    }
}

async fn take(store: Store, step: &Step, world: &[Bytes], dir: &TempDir) -> Store {
    match step {
        Step::Pull(at) => pull(&store, world, *at).await,
        Step::Use(at) => drop(store.lookup(&sha256(&world[*at]), ORIGIN).await),
        Step::Pin(at) => store.pin(&sha256(&world[*at])).await.unwrap(),
        Step::Unpin(at) => store.unpin(&sha256(&world[*at])).await.unwrap(),
        Step::Remove(at) => drop(store.remove(&sha256(&world[*at])).await),
        Step::Reopen | Step::Rebuild => {
            store.close().await;
            if matches!(step, Step::Rebuild) {
                fs::remove_dir_all(dir.path().join("index")).unwrap();
            }
            return opened(options(dir, Some(PROPERTY_MAX))).await;
        }
    }
    store
}

/// The documents that are kept with all that they need, and all that is kept.
fn whole(store: &Store, world: &[Bytes]) -> (HashSet<Digest>, HashSet<Digest>) {
    let kept = |digest: &Digest| store.contains(digest) == Presence::Kept;
    let all: HashSet<Digest> = world.iter().map(|one| sha256(one)).filter(kept).collect();
    let is_whole = |content: &&Bytes| {
        let needs = needs(content);
        !needs.is_empty() && all.contains(&sha256(content)) && needs.iter().all(kept)
    };
    (world.iter().filter(is_whole).map(|one| sha256(one)).collect(), all)
}

/// What is pinned, and what it needs as far as the documents for that are kept.
fn held(store: &Store, world: &[Bytes], kept: &HashSet<Digest>) -> HashSet<Digest> {
    let pinned = world.iter().map(|one| sha256(one)).filter(|one| store.is_pinned(one));
    let (mut rest, mut held): (Vec<Digest>, _) = (pinned.collect(), HashSet::new());
    while let Some(digest) = rest.pop() {
        if held.insert(digest) && kept.contains(&digest) {
            let content = world.iter().find(|content| sha256(content) == digest).unwrap();
            rest.extend(needs(content));
        }
    }
    held
}

/// What was known after a step.
#[derive(Default)]
struct Seen {
    kept: HashSet<Digest>,
    whole: HashSet<Digest>,
    held: HashSet<Digest>,
}

async fn look(store: &Store, world: &[Bytes]) -> Seen {
    store.hold_bounds().await;
    let (whole, kept) = whole(store, world);
    let sizes = world.iter().filter(|one| kept.contains(&sha256(one)));
    let bytes: u64 = sizes.map(|one| one.len() as u64).sum();
    let totals = store.totals();
    assert_eq!((totals.objects, totals.bytes), (kept.len() as u64, bytes));
    let on_disk: HashSet<Digest> = store.objects().await.unwrap().into_iter().collect();
    assert_eq!(on_disk, kept);
    let held = held(store, world, &kept);
    assert!(bytes <= PROPERTY_MAX || kept.is_subset(&held), "{bytes} bytes are kept");
    Seen { kept, whole, held }
}

fn compare(step: &Step, before: &Seen, after: &Seen) {
    let is_kept = |digest: &&Digest| after.kept.contains(*digest);
    if !matches!(step, Step::Remove(_)) {
        for document in before.whole.iter().filter(is_kept) {
            assert!(after.whole.contains(document), "{step:?} broke {document}");
        }
    }
    if !matches!(step, Step::Remove(_) | Step::Unpin(_)) {
        for pinned in before.held.intersection(&before.kept) {
            assert!(after.kept.contains(pinned), "{step:?} lost {pinned}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_left_is_whole_whatever_is_done(steps in steps()) {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_time().build().unwrap();
        runtime.block_on(async {
            let (dir, world) = (new_dir(), world());
            let mut store = opened(options(&dir, Some(PROPERTY_MAX))).await;
            let mut before = Seen::default();
            for step in &steps {
                store = take(store, step, &world, &dir).await;
                let after = look(&store, &world).await;
                compare(step, &before, &after);
                before = after;
            }
            assert_blobs_are_right(dir.path());
        });
    }
}

/// A manifest of so many layers, of which the last is `layer`.
fn of_many_layers(number: usize, count: usize, layer: &Bytes) -> Bytes {
    let absent = (1..count).map(|one| sha256(format!("{number} {one}").as_bytes()));
    document(number, &absent.chain([sha256(layer)]).collect::<Vec<_>>())
}

#[tokio::test]
async fn what_too_large_a_document_needs_is_read_from_its_file() {
    let dir = new_dir();
    let mut options = options(&dir, Some(40_000));
    let layer = noise(1_000, 1);
    let manifest = of_many_layers(1, 300, &layer);
    for _ in 0..2 {
        let store = opened(options.clone()).await;
        put(&store, &manifest).await;
        put(&store, &layer).await;
        let [digest, layer] = [sha256(&manifest), sha256(&layer)];
        assert_eq!(store.references_of(&digest).await.len(), 300);
        assert!(store.is_document(&digest));
        store.pin(&digest).await.unwrap();
        for number in 0..10 {
            put(&store, &noise(5_000, 100 + number)).await;
        }
        store.hold_bounds().await;
        assert_eq!(are(&store, &[digest, layer]), [true; 2], "a pin holds all of an image");
        store.close().await;
        // As on a machine with less memory.
        options.max_reference_bytes = 0;
    }
}

#[tokio::test]
async fn what_documents_need_takes_no_more_memory_than_it_may() {
    let dir = new_dir();
    let mut options = options(&dir, None);
    options.max_reference_bytes = 10_000;
    let layer = noise(1_000, 1);
    let manifests: Vec<Bytes> = (0..20).map(|one| of_many_layers(one, 100, &layer)).collect();
    for _ in 0..2 {
        let store = opened(options.clone()).await;
        drop(fill(&store, &layer).await);
        for manifest in &manifests {
            put(&store, manifest).await;
        }
        let remembered = store.remembered_reference_bytes();
        assert!((1..=10_000).contains(&remembered), "{remembered}");
        // All the same all of it is known.
        for manifest in &manifests {
            assert_eq!(store.references_of(&sha256(manifest)).await.len(), 100);
        }
        let (first, rest) = manifests.split_first().unwrap();
        let withdrawn = store.withdraw([sha256(first)].into(), HashSet::new(), Reach::All).await;
        assert_eq!(withdrawn.unwrap().objects, 1, "the others need the layer");
        let rest = rest.iter().map(|manifest| sha256(manifest)).collect();
        let withdrawn = store.withdraw(rest, HashSet::new(), Reach::All).await;
        assert_eq!(withdrawn.unwrap().objects, 20, "nobody needs the layer any more");
        for manifest in &manifests {
            put(&store, manifest).await;
        }
        store.close().await;
        // The next start has less.
        options.max_reference_bytes = 5_000;
    }
}

#[tokio::test]
async fn no_more_objects_are_kept_than_memory_allows() {
    let dir = new_dir();
    let mut options = options(&dir, None);
    options.max_objects = Some(100);
    let store = opened(options).await;
    for number in 0..150 {
        drop(fill(&store, &noise(10, number)).await);
    }
    store.hold_bounds().await;
    let kept = store.totals().objects;
    assert!((90..=100).contains(&kept), "{kept}");
    assert_eq!(store.contains(&sha256(&noise(10, 149))), Presence::Kept, "the last that came");
}
