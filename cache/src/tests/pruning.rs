//! Records go once what they lead to has been gone for long.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use entrepot_oci::Digest;
use tempfile::TempDir;

use super::{new_dir, open, sha256};
use crate::{ContentRecord, Fact, Lifetimes, Repository, Store};

const DAY: Duration = Duration::from_hours(24);
const LIFETIMES: Lifetimes =
    Lifetimes { of_gone: Duration::from_hours(7 * 24), of_rest: Duration::from_hours(30 * 24) };

/// A tag's record is the list of what it leads to.
fn read_tag(record: serde_json::Value) -> Vec<Digest> {
    let names: Vec<String> = serde_json::from_value(record).unwrap_or_default();
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

async fn prune(store: &Store) -> u64 {
    let mut pruned = 0;
    for records in store.all_records().await.unwrap() {
        pruned += records.prune(LIFETIMES, read_tag).await.unwrap();
    }
    pruned
}

fn root(dir: &TempDir) -> PathBuf {
    dir.path().join("repositories")
}

/// Every record below `dir`, as seen from `root`.
fn files(root: &Path, dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(root, &path));
        } else {
            found.push(path.strip_prefix(root).unwrap().to_owned());
        }
    }
    found.sort();
    found
}

/// All records were last written `days` ago.
fn age(dir: &TempDir, days: u32) {
    for file in files(&root(dir), &root(dir)) {
        let file = std::fs::File::open(root(dir).join(file)).unwrap();
        file.set_modified(SystemTime::now() - days * DAY).unwrap();
    }
}

async fn record(records: &Repository, digests: &[Digest]) {
    for digest in digests {
        records.record_content(digest, &ContentRecord::now(None)).await.unwrap();
    }
}

async fn tag(records: &Repository, tag: &str, digests: &[Digest]) {
    let names: Vec<String> = digests.iter().map(ToString::to_string).collect();
    records.record_fact(Fact::Tag(&tag.parse().unwrap()), names).await.unwrap();
}

#[tokio::test]
async fn what_leads_to_something_stays_and_what_leads_nowhere_goes_after_its_time() {
    let dir = new_dir();
    let store = open(&dir).await;
    let [kept, gone] = [sha256(b"kept"), sha256(b"gone")];
    drop(store.put(&kept, Bytes::from_static(b"kept")).await.unwrap());
    let app = super::records_of(&store, "a.example", "team/app");
    record(&app, &[kept, gone]).await;
    tag(&app, "both", &[gone, kept]).await;
    tag(&app, "gone", &[gone]).await;
    app.record_fact(Fact::Access, 1).await.unwrap();
    let registry = store.registry(&"a.example".parse().unwrap());
    record(&registry, &[kept, gone]).await;
    registry.record_fact(Fact::Challenge, 1).await.unwrap();

    age(&dir, 6);
    assert_eq!(prune(&store).await, 0, "it may come back");
    age(&dir, 8);
    assert_eq!(prune(&store).await, 3);
    assert_eq!(app.contents().await.unwrap(), [kept]);
    assert_eq!(registry.contents().await.unwrap(), [kept]);
    assert_eq!(app.tags().await.unwrap(), ["both".parse().unwrap()]);
    age(&dir, 400);
    assert_eq!(prune(&store).await, 0);
    assert_eq!(app.fact::<u64>(Fact::Access).await, Some(1));
    assert_eq!(registry.fact::<u64>(Fact::Challenge).await, Some(1));
}

#[tokio::test]
async fn a_repository_of_which_nothing_is_left_goes_and_may_come_again() {
    let dir = new_dir();
    let store = open(&dir).await;
    let gone = sha256(b"gone");
    let (app, registry) = (
        super::records_of(&store, "a.example", "team/app"),
        store.registry(&"a.example".parse().unwrap()),
    );
    let fill = async || {
        record(&app, &[gone]).await;
        tag(&app, "1", &[gone]).await;
        for fact in [Fact::Access, Fact::Listing(&gone)] {
            app.record_fact(fact, 1).await.unwrap();
        }
        record(&registry, &[gone]).await;
        registry.record_fact(Fact::Challenge, 1).await.unwrap();
    };
    fill().await;
    // Whose registry alone was ever asked.
    let asked = super::records_of(&store, "b.example", "x");
    asked.record_fact(Fact::Access, 1).await.unwrap();
    age(&dir, 8);
    assert_eq!(prune(&store).await, 3, "objects and tag");
    let left = files(&root(&dir), &root(&dir));
    let names = left.iter().map(|path| path.to_str().unwrap());
    let listing = format!("a.example/team/app/_listings/{}", gone.hex());
    let facts = ["a.example/_challenge", "a.example/team/app/_access", &listing];
    assert_eq!(names.collect::<Vec<_>>(), [&facts[..], &["b.example/x/_access"]].concat());
    assert_eq!(app.fact::<u64>(Fact::Access).await, Some(1), "it opens what comes again");

    age(&dir, 31);
    assert_eq!(prune(&store).await, 4);
    assert_eq!(std::fs::read_dir(root(&dir)).unwrap().count(), 0, "no directory is left");
    assert_eq!(prune(&store).await, 0);
    fill().await;
    assert_eq!(app.contents().await.unwrap(), [gone]);
    assert_eq!(files(&root(&dir), &root(&dir)).len(), 6);
}

#[tokio::test]
async fn records_are_written_while_their_directories_go() {
    let dir = new_dir();
    let store = open(&dir).await;
    let app = super::records_of(&store, "a.example", "team/app");
    let none = Lifetimes { of_gone: Duration::ZERO, of_rest: Duration::ZERO };
    let pruning = async {
        for _ in 0..300 {
            for records in store.all_records().await.unwrap() {
                records.prune(none, read_tag).await.unwrap();
            }
        }
    };
    let writing = async {
        for number in 0..300_u32 {
            record(&app, &[sha256(&number.to_be_bytes())]).await;
            tag(&app, "1", &[]).await;
        }
    };
    tokio::join!(pruning, writing);
}
