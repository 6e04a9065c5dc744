//! Several replicas of the proxy: whole processes with directories of their own, which share a CA,
//! the key that the bucket's records are signed with, a configuration, a registry and a bucket.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::bucket::forwarder::Forwarder;
use crate::bucket::{Bucket, copy_directory};
use crate::proxy::{Builder, Proxy};
use crate::registry::Registry;

/// What the replicas of a fleet share. It describes them; tests start and stop them.
#[derive(Debug)]
pub struct Fleet {
    binary: PathBuf,
    /// The registry in front of which they all are.
    pub registry: Registry,
    /// The bucket that they share.
    pub bucket: Bucket,
    secrets: TempDir,
}

impl Fleet {
    /// A fleet without replicas yet.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>, registry: Registry) -> Self {
        let (binary, bucket) = (binary.into(), Bucket::new());
        Self { binary, registry, bucket, secrets: tempfile::tempdir().unwrap() }
    }

    /// The directory that has the CA and the key, from which every replica has them.
    #[must_use]
    pub fn ca_dir(&self) -> PathBuf {
        self.secrets.path().join("ca")
    }

    /// One more replica, to be described further.
    pub fn replica(&self) -> Builder {
        self.bucket.behind(self.without_bucket())
    }

    /// One more replica, which reaches the bucket by way of `forwarder` and gives it `timeout` to
    /// begin with an answer.
    pub fn replica_by(&self, forwarder: &Forwarder, timeout: &str) -> Builder {
        self.replica_with(forwarder.address(), &format!("timeout = {timeout:?}"))
    }

    /// One more replica, which reaches the bucket at `endpoint`, with more lines in `[bucket]`.
    pub fn replica_with(&self, endpoint: SocketAddr, lines: &str) -> Builder {
        self.bucket.behind_at(self.without_bucket(), endpoint, lines)
    }

    /// One more that has all in common with the others but the bucket.
    pub fn without_bucket(&self) -> Builder {
        with_ca(Proxy::builder(&self.binary).in_front_of(&self.registry), &self.ca_dir())
    }

    /// A copy of the directory with the CA and the key, as a replica on another machine has it.
    #[must_use]
    pub fn copied_ca_dir(&self, name: &str) -> PathBuf {
        let copy = self.secrets.path().join(name);
        copy_directory(&self.ca_dir(), &copy);
        copy
    }

    /// So many replicas, all alike. The first makes the CA.
    #[track_caller]
    #[must_use]
    pub fn start<const COUNT: usize>(&self) -> [Proxy; COUNT] {
        [(); COUNT].map(|()| self.replica().start())
    }

    /// Another authority in place of the fleet's, at the end of its configuration's top.
    pub fn with_ca(builder: Builder, ca_dir: &Path) -> Builder {
        with_ca(builder, ca_dir)
    }

    /// A file that a replica can be configured with, beside the secrets.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.secrets.path().join(name)
    }
}

fn with_ca(builder: Builder, ca_dir: &Path) -> Builder {
    builder.config(&format!("ca-dir = {:?}", ca_dir.display().to_string()))
}
