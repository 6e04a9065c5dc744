//! Records of what a repository contains.

use std::fs;
use std::time::SystemTime;

use proptest::prelude::*;

use super::{new_dir, open, sha256};
use crate::{ContentRecord, Fact, RecordNameError, Repository, Store};

const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn alpine(store: &Store) -> Repository {
    store.repository("registry-1.docker.io", "library/alpine").unwrap()
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
    let others = [("ghcr.io", "library/alpine"), ("registry-1.docker.io", "library/alpin")];
    for (registry, repository) in others {
        let other = store.repository(registry, repository).unwrap();
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
    let (alpine, registry) = (alpine(&store), store.registry("registry-1.docker.io").unwrap());
    for fact in [Fact::Access, Fact::Challenge, Fact::Tag("3.20"), Fact::Tag("_A.b-c")] {
        assert_eq!(alpine.fact::<Vec<u64>>(fact).await, None);
        alpine.record_fact(fact, vec![1u64, 2]).await.unwrap();
        assert_eq!(alpine.fact::<Vec<u64>>(fact).await, Some(vec![1, 2]));
        assert_eq!(registry.fact::<Vec<u64>>(fact).await, None);
        assert_eq!(alpine.fact::<String>(fact).await, None, "another form");
        alpine.forget_fact(fact).await.unwrap();
        alpine.forget_fact(fact).await.unwrap();
    }
    for bad in ["", ".", "..", "-a", "a/b", "a b", &"a".repeat(129), "a\0"] {
        assert!(alpine.record_fact(Fact::Tag(bad), 1u64).await.is_err(), "{bad:?}");
        assert_eq!(alpine.fact::<u64>(Fact::Tag(bad)).await, None);
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
        let repository = store.repository("localhost:5000", name).unwrap();
        let record = ContentRecord::now(Some(name));
        repository.record_content(&sha256(name.as_bytes()), &record).await.unwrap();
    }
    for name in ["a", "a/b", "a/b/c"] {
        let repository = store.repository("localhost:5000", name).unwrap();
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
        .join("repositories/registry-1.docker.io/library/alpine/_contents/sha256")
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

#[tokio::test]
async fn names_are_checked() {
    let dir = new_dir();
    let store = open(&dir).await;
    let hosts = [
        "docker.io",
        "localhost",
        "localhost:5000",
        "10.0.0.1:80",
        "[::1]:5000",
        "[fe80::1]",
        "my_registry:5000",
        "xn--bcher-kva.example",
        "a:65535",
    ];
    for host in hosts {
        assert!(store.repository(host, "a").is_ok(), "{host}");
    }
    let not_hosts = [
        "", ".", "..", "a..b", "-a", "a-", "_a", "A.io", "a/b", "a:", "a:0x", "a:65536", "a:+1",
        "a:080", "a:1:2", "[", "[]", "[::1", "[::1]x", "[::1]:", "[::A]", "[..]", "a b", "a\0",
        "é.fr", "a\n", "::1",
    ];
    for host in not_hosts {
        assert_eq!(refused(&store, host, "a"), Some(RecordNameError::Registry), "{host:?}");
    }
    assert_eq!(refused(&store, &"a".repeat(300), "a"), Some(RecordNameError::Registry));

    for name in ["a", "0", "library/alpine", "a.b_c-d/e__f/g--h", "a/b/c/d/e"] {
        assert!(store.repository("docker.io", name).is_ok(), "{name}");
    }
    let not_repositories = [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        ".",
        "..",
        "a/..",
        "../a",
        "a/../b",
        "_contents",
        "a/_tags",
        "-a",
        "a-",
        "a.",
        "A",
        "a b",
        "a\\b",
        "a\0",
        "%2e%2e",
        "a:b",
        "a@b",
        "é",
    ];
    for name in not_repositories {
        let refusal = refused(&store, "docker.io", name);
        assert_eq!(refusal, Some(RecordNameError::Repository), "{name:?}");
    }
    let long = "a".repeat(256);
    assert_eq!(refused(&store, "docker.io", &long), Some(RecordNameError::Repository));
}

fn refused(store: &Store, registry: &str, repository: &str) -> Option<RecordNameError> {
    store.repository(registry, repository).err()
}

proptest! {
    /// Whatever is let through stays inside `repositories/`, as parts that are no records' names.
    #[test]
    fn names_are_plain_path_parts(registry in "[a-z.:/_\\[\\]0-9-]{1,12}", name in "[a-z./_-]{1,12}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = new_dir();
        let store = runtime.block_on(open(&dir));
        if store.repository(&registry, &name).is_ok() {
            prop_assert!(!registry.contains('/') && !registry.starts_with('.'));
            for part in name.split('/') {
                prop_assert!(!part.is_empty() && !part.starts_with(['.', '_', '-']));
            }
        }
    }
}
