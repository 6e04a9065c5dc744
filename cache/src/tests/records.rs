//! Records of what a repository contains.

use std::fs;
use std::time::SystemTime;

use super::{new_dir, open, sha256};
use crate::{ContentRecord, Fact, Repository, Store};

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
