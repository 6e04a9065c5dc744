//! Tests of the store as a whole, one file a behaviour, and what they share.

mod bad_disk;
mod bounds;
mod catalogue;
mod collapsed;
mod faults;
mod hanging;
mod hold_back;
mod images;
mod index;
mod noise;
mod opening;
mod origin;
mod pruning;
mod publishing;
mod reading;
mod records;
mod removal;
mod resume;
mod rot;
mod savings;

use std::path::Path;

use bytes::Bytes;
use entrepot_oci::{Algorithm, Digest, Hasher};
use tempfile::TempDir;

use crate::{Lookup, Options, ReadError, Reader, Repository, Reservation, Start, Store};
use noise::noise;

/// The registry that tests download from when it does not matter.
const ORIGIN: &str = "docker.io";

/// A new directory, in memory where the machine has that: these tests sync a lot.
fn new_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

async fn open(dir: &TempDir) -> Store {
    Store::open(Options::new(dir.path())).await.unwrap()
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// The records of a repository.
fn records_of(store: &Store, registry: &str, repository: &str) -> Repository {
    store.repository(&registry.parse().unwrap(), &repository.parse().unwrap())
}

async fn reserve(store: &Store, digest: &Digest) -> Reservation {
    match store.lookup(digest, ORIGIN).await {
        Lookup::Absent(reservation) => reservation,
        other => panic!("not absent: {other:?}"),
    }
}

async fn kept(store: &Store, digest: &Digest) -> Reader {
    match store.lookup(digest, ORIGIN).await {
        Lookup::Kept(reader) => reader,
        other => panic!("not kept: {other:?}"),
    }
}

async fn read_all(reader: &Reader, piece: usize) -> Result<Bytes, ReadError> {
    let mut all = Vec::new();
    loop {
        let bytes = reader.read_at(all.len() as u64, piece).await?;
        if bytes.is_empty() {
            return Ok(all.into());
        }
        all.extend_from_slice(&bytes);
    }
}

/// Downloads `content` under its own digest.
async fn fill(store: &Store, content: &Bytes) -> Reader {
    let reservation = reserve(store, &sha256(content)).await;
    let (mut writer, _) = reservation.begin(Start::Fresh, None).await.unwrap();
    writer.write(content.clone()).await.unwrap();
    writer.finish().await.unwrap()
}

/// Leaves a partial file with all of `content` but its last `missing` bytes.
async fn leave_partial(store: &Store, content: &Bytes, missing: usize) {
    let digest = sha256(content);
    let (mut writer, reader) =
        reserve(store, &digest).await.begin(Start::Fresh, None).await.unwrap();
    writer.write(content.slice(..content.len() - missing)).await.unwrap();
    drop(writer);
    assert!(matches!(reader.read_at(u64::MAX - 1, 1).await, Err(ReadError::Broken)));
}

/// Re-hashes everything under a final name, without the store's help; returns how many there are.
fn assert_blobs_are_right(dir: &Path) -> usize {
    let mut seen = 0;
    for algorithm in Algorithm::ALL {
        let Ok(shards) = std::fs::read_dir(dir.join("blobs").join(algorithm.as_str())) else {
            continue;
        };
        for shard in shards {
            for blob in std::fs::read_dir(shard.unwrap().path()).unwrap() {
                let blob = blob.unwrap();
                let mut hasher = Hasher::new(algorithm);
                hasher.update(&std::fs::read(blob.path()).unwrap());
                assert_eq!(hasher.finish().hex(), blob.file_name().to_str().unwrap());
                seen += 1;
            }
        }
    }
    seen
}

fn blob_path(dir: &TempDir, digest: &Digest) -> std::path::PathBuf {
    let hex = digest.hex();
    dir.path().join("blobs").join(digest.algorithm().as_str()).join(&hex[..2]).join(hex)
}

fn partial_path(dir: &TempDir, digest: &Digest) -> std::path::PathBuf {
    let name = crate::disk::tree::partial_name(digest, ORIGIN);
    dir.path().join("partial").join(digest.algorithm().as_str()).join(name)
}
