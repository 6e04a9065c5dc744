//! What a registry has shown in one of its repositories.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::disk::DiskError;
use crate::pruning::{Lifetimes, ReadTag, prune};
use crate::reservation::interrupted;
use crate::shared::Shared;
use crate::tree::Tree;
use crate::{Digest, RecordError, RecordNameError, catalogue, records};

/// The longest repository name, in bytes; the OCI distribution spec recommends the limit 255 for
/// host and name together.
const LONGEST_REPOSITORY: usize = 255;
/// The longest host name is 253 bytes; a port adds six.
const LONGEST_REGISTRY: usize = 259;
/// How long a record is waited for: what it says can be learnt again.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest tag, by the OCI distribution spec.
const LONGEST_TAG: usize = 128;

/// That a registry delivered or confirmed an object in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContentRecord {
    /// The `Content-Type` it came with, if it is worth knowing (manifests).
    pub media_type: Option<Arc<str>>,
    /// When this was recorded, to the second.
    pub recorded: SystemTime,
    /// When an operator brought the object here, to the second, if that is how it came.
    pub imported: Option<SystemTime>,
}

/// What a record beside those of objects is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact<'a> {
    /// `_access`: when something was last served here.
    Access,
    /// `_import`: that an operator has brought objects here.
    Import,
    /// `_challenge`: how the registry wants to be authenticated to.
    Challenge,
    /// `_tags/<tag>`: what a tag stands for.
    Tag(&'a str),
    /// `_listings/<hex>`: what the registry listed, by the digest of the question.
    Listing(&'a Digest),
}

/// The records of one repository of one registry, or of a registry as a whole. Cheap to clone.
///
/// Records are about knowledge, not about bytes: a record says nothing on whether the object is
/// still kept, and outlives it.
#[derive(Clone, Debug)]
pub struct Repository {
    shared: Arc<Shared>,
    dir: PathBuf,
}

impl ContentRecord {
    /// What is recorded now.
    #[must_use]
    pub fn now(media_type: Option<&str>) -> Self {
        let media_type = media_type.map(Arc::from);
        Self { media_type, recorded: SystemTime::now(), imported: None }
    }
}

#[derive(Serialize, Deserialize)]
struct StoredContent {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    recorded: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    imported: Option<u64>,
}

impl Repository {
    pub(crate) fn new(
        shared: Arc<Shared>,
        registry: &str,
        repository: &str,
    ) -> Result<Self, RecordNameError> {
        check_repository(repository)?;
        let mut records = Self::of_registry(shared, registry)?;
        records.dir.push(repository);
        Ok(records)
    }

    /// What is on record at `dir`, which is there.
    pub(crate) const fn at(shared: Arc<Shared>, dir: PathBuf) -> Self {
        Self { shared, dir }
    }

    pub(crate) fn of_registry(
        shared: Arc<Shared>,
        registry: &str,
    ) -> Result<Self, RecordNameError> {
        check_registry(registry)?;
        let dir = shared.tree.repositories().join(registry);
        Ok(Self { shared, dir })
    }

    /// What is on record about `digest` here. Damage and disk errors are logged and count as
    /// nothing on record. Cancel safe.
    pub async fn content(&self, digest: &Digest) -> Option<ContentRecord> {
        let stored = self.read::<StoredContent>(self.content_path(digest)).await?;
        let recorded = time(stored.recorded)?;
        let imported = stored.imported.and_then(time);
        Some(ContentRecord { media_type: stored.media_type.map(Arc::from), recorded, imported })
    }

    /// Puts on record that the registry delivered or confirmed `digest` here.
    ///
    /// Replaces what was there. When the future is dropped the record may or may not be written,
    /// never half.
    pub async fn record_content(
        &self,
        digest: &Digest,
        record: &ContentRecord,
    ) -> Result<(), RecordError> {
        let stored = StoredContent {
            media_type: record.media_type.as_deref().map(str::to_owned),
            recorded: seconds(record.recorded),
            imported: record.imported.map(seconds),
        };
        self.write(self.content_path(digest), stored).await
    }

    /// Takes the record of an object away; without effect where there is none.
    pub async fn forget_content(&self, digest: &Digest) -> Result<(), RecordError> {
        self.remove(self.content_path(digest)).await
    }

    /// The objects on record here, in order: names alone, a look at the directory.
    pub async fn contents(&self) -> Result<Vec<Digest>, DiskError> {
        self.listed(catalogue::contents).await
    }

    /// The tags on record here, in order: names alone, a look at the directory.
    pub async fn tags(&self) -> Result<Vec<String>, DiskError> {
        self.listed(catalogue::tags).await
    }

    /// Removes what has been on record here for so long without leading to anything that is kept.
    /// How many records that were.
    pub async fn prune(&self, lifetimes: Lifetimes, read_tag: ReadTag) -> Result<u64, DiskError> {
        let work = move |shared: &Shared, dir: &Path| prune(shared, dir, lifetimes, read_tag);
        let pruned = self.on_lane(self.dir.clone(), work);
        pruned.await.unwrap_or_else(|error| Err(interrupted(error)))
    }

    async fn listed<T: Send + 'static>(
        &self,
        list: fn(&Tree, &Path) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let listed = self.on_lane(self.dir.clone(), move |shared, dir| list(&shared.tree, dir));
        listed.await.unwrap_or_else(|error| Err(interrupted(error)))
    }

    /// What is on record about `fact`, in the caller's own words. Damage, an unknown form and disk
    /// errors are logged and count as nothing on record. Cancel safe.
    pub async fn fact<T>(&self, fact: Fact<'_>) -> Option<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.read(self.fact_path(fact).ok()?).await
    }

    /// Puts `value` on record, in place of what was there.
    ///
    /// When the future is dropped the record may or may not be written, never half.
    pub async fn record_fact<T>(&self, fact: Fact<'_>, value: T) -> Result<(), RecordError>
    where
        T: Serialize + Send + 'static,
    {
        self.write(self.fact_path(fact)?, value).await
    }

    /// Takes a record away; without effect where there is none.
    pub async fn forget_fact(&self, fact: Fact<'_>) -> Result<(), RecordError> {
        self.remove(self.fact_path(fact)?).await
    }

    async fn remove(&self, path: PathBuf) -> Result<(), RecordError> {
        let removed = self.on_lane(path, |shared, path| shared.tree.disk().remove(path));
        let removed = removed.await.unwrap_or_else(|error| Err(interrupted(error)));
        removed.map_err(RecordError::Store)
    }

    async fn read<T>(&self, path: PathBuf) -> Option<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let read = self.on_lane(path, |shared, path| records::read::<T>(&shared.tree, path));
        tokio::time::timeout(PATIENCE, read).await.ok()?.ok().flatten()
    }

    async fn write<T>(&self, path: PathBuf, record: T) -> Result<(), RecordError>
    where
        T: Serialize + Send + 'static,
    {
        let written =
            self.on_lane(path, move |shared, path| records::write(&shared.tree, path, &record));
        // A disk that hangs is left to it.
        let written = tokio::time::timeout(PATIENCE, written).await;
        written
            .unwrap_or_else(|late| Err(io::Error::new(io::ErrorKind::TimedOut, late)))
            .unwrap_or_else(|error| Err(RecordError::Store(interrupted(error))))
    }

    /// Does `work`, which blocks, where a disk that hangs on one record delays no other.
    async fn on_lane<T: Send + 'static>(
        &self,
        path: PathBuf,
        work: impl FnOnce(&Shared, &Path) -> T + Send + 'static,
    ) -> io::Result<T> {
        let (shared, lane) = (Arc::clone(&self.shared), path.clone());
        let lanes = Arc::clone(&shared.lanes);
        lanes.run(&lane, move || work(&shared, &path)).await
    }

    fn fact_path(&self, fact: Fact<'_>) -> Result<PathBuf, RecordError> {
        match fact {
            Fact::Access => Ok(self.dir.join("_access")),
            Fact::Import => Ok(self.dir.join("_import")),
            Fact::Challenge => Ok(self.dir.join("_challenge")),
            Fact::Listing(question) => Ok(self.dir.join("_listings").join(question.hex())),
            Fact::Tag(tag) if is_tag(tag) => Ok(catalogue::tag(&self.dir, tag)),
            Fact::Tag(_) => Err(RecordNameError::Tag.into()),
        }
    }

    fn content_path(&self, digest: &Digest) -> PathBuf {
        catalogue::content(&self.dir, digest)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn time(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// `host`, `host:port`, `[address]` or `[address]:port`, in lower case: safe as one path part.
fn check_registry(name: &str) -> Result<(), RecordNameError> {
    let (host, port) = split_port(name).ok_or(RecordNameError::Registry)?;
    let named = |host: &str| is_joined(host, |byte| matches!(byte, b'.' | b'-' | b'_'));
    let literal = |host: &str| {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
    };
    let lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
    let sound = name.len() <= LONGEST_REGISTRY && lower && (named(host) || literal(host));
    let port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|n| n.to_string() == port));
    if sound && port && !name.contains("..") { Ok(()) } else { Err(RecordNameError::Registry) }
}

fn split_port(name: &str) -> Option<(&str, Option<&str>)> {
    if name.starts_with('[') {
        let (host, rest) = name.split_at(name.find(']')?.checked_add(1)?);
        return if rest.is_empty() {
            Some((host, None))
        } else {
            Some((host, Some(rest.strip_prefix(':')?)))
        };
    }
    Some(name.split_once(':').map_or((name, None), |(host, port)| (host, Some(port))))
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`: safe as one path part.
fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= LONGEST_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// Components of `[a-z0-9]+([._-]+[a-z0-9]+)*` joined by `/`.
fn check_repository(name: &str) -> Result<(), RecordNameError> {
    let separator = |byte| matches!(byte, b'.' | b'_' | b'-');
    let sound = name.split('/').all(|component| is_joined(component, separator));
    if sound && name.len() <= LONGEST_REPOSITORY {
        Ok(())
    } else {
        Err(RecordNameError::Repository)
    }
}

/// Lower-case letters and digits with separators strictly between them.
fn is_joined(text: &str, separator: fn(u8) -> bool) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(plain)
        && bytes.last().copied().is_some_and(plain)
        && bytes.iter().all(|byte| plain(*byte) || separator(*byte))
}
