//! Reading at any place, through the page cache or not; damage that is noticed on the way.

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::{blob_path, fill, kept, new_dir, noise, open, read_all, reserve, sha256};
use crate::{IndexState, Presence};

/// The usual place for temporary files and, where there is one, a file system in memory: the one
/// serves from the page cache at once, the other can't say and is asked from another thread.
fn both() -> [TempDir; 2] {
    [TempDir::new().unwrap(), new_dir()]
}

#[tokio::test]
async fn any_range_is_that_slice_of_the_truth() {
    for dir in both() {
        let store = open(&dir).await;
        let content = noise(600_000, 1);
        fill(&store, &content).await;
        let reader = kept(&store, &sha256(&content)).await;
        let edges = [0, 1, 4_095, 4_096, 32_768, 262_143, 262_144, 599_999, 600_000, 600_001];
        for offset in edges {
            for max in [0, 1, 4_096, 32_768, 32_769, 262_144, 600_000, usize::MAX] {
                let read = reader.read_at(offset as u64, max).await.unwrap();
                let truth = content.get(offset..).unwrap_or_default();
                assert!(truth.starts_with(&read));
                assert_eq!(read.is_empty(), max == 0 || truth.is_empty(), "{offset} {max}");
            }
        }
        assert!(reader.read_at(u64::MAX, usize::MAX).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn buffers_that_are_used_again_do_not_show() {
    for dir in both() {
        let store = open(&dir).await;
        let contents = [noise(300_000, 2), noise(300_000, 3)];
        let mut held = Vec::new();
        for content in &contents {
            fill(&store, content).await;
        }
        for round in 0..100 {
            let content = &contents[round % 2];
            let reader = kept(&store, &sha256(content)).await;
            let read = reader.read_at(round as u64, 200_000).await.unwrap();
            held.push((content.slice(round..round + read.len()), read));
            if round % 3 == 0 {
                held.clear();
            }
            assert!(held.iter().all(|(truth, read)| truth == read));
        }
    }
}

#[tokio::test]
async fn a_small_object_is_read_from_the_disk_once() {
    let dir = new_dir();
    let store = open(&dir).await;
    for (len, is_small) in [(3_000, true), (100_000, false)] {
        let content = noise(len, 4);
        let digest = sha256(&content);
        fill(&store, &content).await;
        let reader = kept(&store, &digest).await;
        assert_eq!(read_all(&reader, usize::MAX).await.unwrap(), content);
        fs::OpenOptions::new()
            .write(true)
            .open(blob_path(&dir, &digest))
            .unwrap()
            .set_len(0)
            .unwrap();
        let again = read_all(&kept(&store, &digest).await, usize::MAX).await;
        assert_eq!(again.is_ok_and(|again| again == content), is_small);
        let part = reader.read_at(1_000, 500).await;
        assert_eq!(part.is_ok_and(|part| part == content[1_000..1_500]), is_small);
    }
}

#[tokio::test]
async fn many_open_objects_are_closed_again() {
    let dir = new_dir();
    let store = open(&dir).await;
    for seed in 0..700 {
        let content = noise(50, seed);
        store.put(&sha256(&content), content.clone()).await.unwrap();
    }
    let within = |path: std::path::PathBuf| {
        fs::read_link(path).is_ok_and(|target| target.starts_with(dir.path().join("blobs")))
    };
    let open =
        fs::read_dir("/proc/self/fd").unwrap().filter(|fd| within(fd.as_ref().unwrap().path()));
    assert!(open.count() <= 256);
    for seed in 0..700 {
        let content = noise(50, seed);
        assert_eq!(read_all(&kept(&store, &sha256(&content)).await, 64).await.unwrap(), content);
    }
}

#[tokio::test]
async fn an_object_of_the_wrong_size_is_quarantined_not_served() {
    let dir = new_dir();
    let content = noise(10_000, 4);
    let digest = sha256(&content);
    for damaged in [&b""[..], &content[..9_999], &[&content[..], b"x"].concat()] {
        let store = open(&dir).await;
        fill(&store, &content).await;
        store.close().await;
        fs::write(blob_path(&dir, &digest), damaged).unwrap();
        let store = open(&dir).await;
        while store.index_state() == IndexState::Loading {
            tokio::task::yield_now().await;
        }
        drop(reserve(&store, &digest).await);
        assert_eq!(store.contains(&digest), Presence::Absent);
        assert!(dir.path().join("quarantine").join(format!("sha256-{}", digest.hex())).exists());
        store.close().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_walk_over_an_object_reads_the_truth(
        len in 0_usize..700_000,
        steps in prop::collection::vec((0_usize..700_000, 1_usize..300_000), 1..20),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let dir = TempDir::new().unwrap();
            let store = open(&dir).await;
            let content = noise(len, 5);
            let reader = fill(&store, &content).await;
            for (offset, max) in steps {
                let read = reader.read_at(offset as u64, max).await.unwrap();
                let truth = content.get(offset..).unwrap_or_default();
                prop_assert!(truth.starts_with(&read));
                prop_assert_eq!(read.is_empty(), truth.is_empty());
            }
            Ok(())
        })?;
    }
}
