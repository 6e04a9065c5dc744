//! Records of what a repository contains.

use std::fs;
use std::time::SystemTime;

use super::{new_dir, open, sha256};
use crate::{ContentRecord, Fact, Options, Repository, Store};

const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn alpine(store: &Store) -> Repository {
    super::records_of(store, "docker.io", "library/alpine")
}

#[tokio::test]
async fn what_is_recorded_is_found_here_and_nowhere_else() {
    let dir = new_dir();
    let store = open(&dir).await;
    let digest = sha256(b"manifest");
    assert_eq!(alpine(&store).content(&digest).await, None);
    alpine(&store).record_content(&digest, &ContentRecord::now(Some(MEDIA_TYPE))).await.unwrap();
    store.close().await;

    let store = open(&dir).await;
    let record = alpine(&store).content(&digest).await.unwrap();
    assert_eq!(record.media_type.as_deref(), Some(MEDIA_TYPE));
    assert!(SystemTime::now().duration_since(record.recorded).unwrap().as_secs() < 60);
    let others = [("ghcr.io", "library/alpine"), ("docker.io", "library/alpin")];
    for (registry, repository) in others {
        let other = super::records_of(&store, registry, repository);
        assert_eq!(other.content(&digest).await, None);
    }
    assert_eq!(alpine(&store).content(&sha256(b"another")).await, None);

    assert_eq!(record.imported, None);

    let now = ContentRecord::now(None);
    let imported = ContentRecord { imported: Some(now.recorded), ..now };
    alpine(&store).record_content(&digest, &imported).await.unwrap();
    let record = alpine(&store).content(&digest).await.unwrap();
    assert_eq!(record.media_type, None);
    assert_eq!(record.imported, Some(record.recorded));
}

#[tokio::test]
async fn facts_are_the_callers_own_words() {
    let dir = new_dir();
    let store = open(&dir).await;
    let (alpine, registry) = (alpine(&store), store.registry(&"docker.io".parse().unwrap()));
    let tags = ["3.20", "_A.b-c"].map(|tag| tag.parse().unwrap());
    let facts = [Fact::Access, Fact::Challenge].into_iter();
    for fact in facts.chain(tags.iter().map(Fact::Tag)) {
        assert_eq!(alpine.fact::<Vec<u64>>(fact).await, None);
        alpine.record_fact(fact, vec![1u64, 2]).await.unwrap();
        assert_eq!(alpine.fact::<Vec<u64>>(fact).await, Some(vec![1, 2]));
        assert_eq!(registry.fact::<Vec<u64>>(fact).await, None);
        assert_eq!(alpine.fact::<String>(fact).await, None, "another form");
        alpine.forget_fact(fact).await.unwrap();
        alpine.forget_fact(fact).await.unwrap();
    }
    registry.record_content(&sha256(b"x"), &ContentRecord::now(None)).await.unwrap();
    assert_eq!(alpine.content(&sha256(b"x")).await, None);
    assert!(registry.content(&sha256(b"x")).await.is_some());
}

#[tokio::test]
async fn repositories_within_repositories_do_not_mix() {
    let dir = new_dir();
    let store = open(&dir).await;
    for name in ["a", "a/b", "a/b/c"] {
        let repository = super::records_of(&store, "localhost:5000", name);
        let record = ContentRecord::now(Some(name));
        repository.record_content(&sha256(name.as_bytes()), &record).await.unwrap();
    }
    for name in ["a", "a/b", "a/b/c"] {
        let repository = super::records_of(&store, "localhost:5000", name);
        let record = repository.content(&sha256(name.as_bytes())).await.unwrap();
        assert_eq!(record.media_type.as_deref(), Some(name));
    }
}

#[tokio::test]
async fn every_damage_makes_a_record_absent_and_is_cleared_away() {
    let dir = new_dir();
    let store = open(&dir).await;
    let digest = sha256(b"manifest");
    let path = dir
        .path()
        .join("repositories/docker.io/library/alpine/_contents/sha256")
        .join(digest.hex());
    alpine(&store).record_content(&digest, &ContentRecord::now(Some(MEDIA_TYPE))).await.unwrap();
    let sound = fs::read(&path).unwrap();
    assert_eq!(sound.iter().position(|byte| *byte == b'\n'), Some(sound.len() - 1));
    let truncated = (0..sound.len()).map(|len| sound[..len].to_vec());
    let flipped = (0..sound.len()).map(|at| {
        let mut damaged = sound.clone();
        damaged[at] ^= 1;
        damaged
    });
    let appended = [[&sound[..], b"x"].concat(), sound.repeat(2), vec![b' '; 1 << 20]];
    for damaged in truncated.chain(flipped).chain(appended) {
        fs::write(&path, &damaged).unwrap();
        let found = alpine(&store).content(&digest).await;
        assert_eq!(found, None, "{:?}", String::from_utf8_lossy(&damaged));
        assert!(!path.exists());
    }
    fs::write(&path, &sound).unwrap();
    assert!(alpine(&store).content(&digest).await.is_some());
}

/// Files and directories below `dir`.
fn inodes(dir: &std::path::Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.map(|path| 1 + if path.is_dir() { inodes(&path) } else { 0 }).sum()
}

#[tokio::test]
async fn a_registry_that_says_yes_to_everything_has_its_share_of_records() {
    const SHARE: u64 = 1024;
    let dir = new_dir();
    let mut options = Options::new(dir.path());
    options.max_size = Some(2_000_000);
    let store = Store::open(options).await.unwrap();
    assert!(store.is_known_within(std::time::Duration::from_secs(30)).await);
    let digest = sha256(b"small");
    let record = async |registry: &str, repository: &str| {
        let records = super::records_of(&store, registry, repository);
        records.record_content(&digest, &ContentRecord::now(None)).await
    };
    record("docker.io", "library/alpine").await.unwrap();
    let of_evil = dir.path().join("repositories/evil.example");
    let mut refused = 0;
    for number in 0..600 {
        let made_up = format!("r{number}/x/y/z");
        if record("evil.example", &made_up).await.is_err() {
            refused += 1;
            store.hold_bounds().await;
            assert!(inodes(&of_evil) <= SHARE, "{number}");
            record("evil.example", &made_up).await.unwrap();
        }
        assert!(inodes(&of_evil) <= SHARE + SHARE / 10 + 8, "{number}");
    }
    assert!(refused > 0);
    // The newest are there, and nobody else has lost anything.
    let newest = super::records_of(&store, "evil.example", "r599/x/y/z");
    assert!(newest.content(&digest).await.is_some());
    assert!(alpine(&store).content(&digest).await.is_some());
    // What records take is not to be had for objects.
    store.hold_bounds().await;
    for seed in 0..10 {
        drop(super::fill(&store, &super::noise(190_000, seed)).await);
    }
    store.hold_bounds().await;
    assert!(store.totals().bytes <= 1_500_000, "{:?}", store.totals());
}
