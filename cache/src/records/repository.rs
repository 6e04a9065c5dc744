//! What a registry has shown in one of its repositories.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use entrepot_oci::{Digest, Registry, RepositoryName, Tag, UnixSeconds};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::pruning::{Lifetimes, ReadTag, prune};
use super::{files, listing};
use crate::disk::tree::Tree;
use crate::disk::{DiskError, Kind};
use crate::errors::RecordError;
use crate::inner::Inner;

/// How long a record is waited for: what it says can be learnt again.
const PATIENCE: Duration = Duration::from_secs(2);

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
    /// `_uses`: how often its tags were asked for.
    Uses,
    /// `_challenge`: how the registry wants to be authenticated to.
    Challenge,
    /// `_tags/<tag>`: what a tag stands for.
    Tag(&'a Tag),
    /// `_listings/<hex>`: what the registry listed, by the digest of the question.
    Listing(&'a Digest),
}

/// The records of one repository of one registry, or of a registry as a whole. Cheap to clone.
///
/// Records are about knowledge, not about bytes: a record says nothing on whether the object is
/// still kept, and outlives it.
#[derive(Clone, Debug)]
pub struct Repository {
    inner: Arc<Inner>,
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
    recorded: UnixSeconds,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    imported: Option<UnixSeconds>,
}

impl Repository {
    pub(crate) fn new(inner: Arc<Inner>, registry: &Registry, repository: &RepositoryName) -> Self {
        let mut records = Self::of_registry(inner, registry);
        records.dir.push(repository.as_str());
        records
    }

    /// What is on record at `dir`, which is there.
    pub(crate) const fn at(inner: Arc<Inner>, dir: PathBuf) -> Self {
        Self { inner, dir }
    }

    pub(crate) fn of_registry(inner: Arc<Inner>, registry: &Registry) -> Self {
        let dir = inner.tree().repositories().join(registry.as_str());
        Self { inner, dir }
    }

    /// What is on record about `digest` here. Damage and disk errors are logged and count as
    /// nothing on record. Cancel safe.
    pub async fn content(&self, digest: &Digest) -> Option<ContentRecord> {
        let stored = self.read::<StoredContent>(self.content_path(digest)).await?;
        let recorded = stored.recorded.time()?;
        let imported = stored.imported.and_then(UnixSeconds::time);
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
            recorded: record.recorded.into(),
            imported: record.imported.map(UnixSeconds::from),
        };
        self.write(self.content_path(digest), stored).await
    }

    /// Takes the record of an object away; without effect where there is none.
    pub async fn forget_content(&self, digest: &Digest) -> Result<(), RecordError> {
        self.remove(self.content_path(digest)).await
    }

    /// The objects on record here, in order: names alone, a look at the directory.
    pub async fn contents(&self) -> Result<Vec<Digest>, DiskError> {
        self.listed(listing::contents).await
    }

    /// The tags on record here, in order: names alone, a look at the directory.
    pub async fn tags(&self) -> Result<Vec<Tag>, DiskError> {
        self.listed(listing::tags).await
    }

    /// Removes what has been on record here for so long without leading to anything that is kept.
    /// How many records that were.
    pub async fn prune(&self, lifetimes: Lifetimes, read_tag: ReadTag) -> Result<u64, DiskError> {
        let work = move |inner: &Inner, dir: &Path| prune(inner, dir, lifetimes, read_tag);
        self.off_thread(self.dir.clone(), work).await?
    }

    async fn listed<T: Send + 'static>(
        &self,
        list: fn(&Tree, &Path) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        self.off_thread(self.dir.clone(), move |inner, dir| list(inner.tree(), dir)).await?
    }

    /// What is on record about `fact`, in the caller's own words. Damage, an unknown form and disk
    /// errors are logged and count as nothing on record. Cancel safe.
    pub async fn fact<T>(&self, fact: Fact<'_>) -> Option<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.read(self.fact_path(fact)).await
    }

    /// Puts `value` on record, in place of what was there.
    ///
    /// When the future is dropped the record may or may not be written, never half.
    pub async fn record_fact<T>(&self, fact: Fact<'_>, value: T) -> Result<(), RecordError>
    where
        T: Serialize + Send + 'static,
    {
        self.write(self.fact_path(fact), value).await
    }

    /// Takes a record away; without effect where there is none.
    pub async fn forget_fact(&self, fact: Fact<'_>) -> Result<(), RecordError> {
        self.remove(self.fact_path(fact)).await
    }

    /// Takes the records of all listings away.
    pub async fn forget_listings(&self) -> Result<(), RecordError> {
        let work = |inner: &Inner, dir: &Path| {
            for name in listing::names(inner.tree(), dir, Kind::File)? {
                inner.tree().disk().remove(&dir.join(name))?;
            }
            Ok(())
        };
        let removed = self.off_thread(self.dir.join("_listings"), work);
        removed.await.and_then(|removed| removed).map_err(RecordError::Store)
    }

    async fn remove(&self, path: PathBuf) -> Result<(), RecordError> {
        let removed = self.off_thread(path, |inner, path| inner.tree().disk().remove(path));
        removed.await.and_then(|removed| removed).map_err(RecordError::Store)
    }

    async fn read<T>(&self, path: PathBuf) -> Option<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let read = self.off_thread(path, |inner, path| files::read::<T>(inner.tree(), path));
        tokio::time::timeout(PATIENCE, read).await.ok()?.ok().flatten()
    }

    async fn write<T>(&self, path: PathBuf, record: T) -> Result<(), RecordError>
    where
        T: Serialize + Send + 'static,
    {
        let written = self.off_thread(path, move |inner, path| {
            let is_there = inner.tree().disk().file_size(path).is_ok();
            if !is_there && !inner.eviction.admits_record(inner.tree(), path) {
                return Err(RecordError::Full);
            }
            files::write(inner.tree(), path, &record)
        });
        // A disk that hangs is left to it.
        let written = tokio::time::timeout(PATIENCE, written).await;
        let too_late = |late| DiskError::cut_short(io::Error::new(io::ErrorKind::TimedOut, late));
        let written = written.unwrap_or_else(|late| Err(too_late(late)));
        written.map_err(RecordError::Store)?
    }

    /// Does `work`, which blocks, where a disk that hangs on one record delays no other.
    async fn off_thread<T: Send + 'static>(
        &self,
        path: PathBuf,
        work: impl FnOnce(&Inner, &Path) -> T + Send + 'static,
    ) -> Result<T, DiskError> {
        let (inner, name) = (Arc::clone(&self.inner), path.clone());
        let permits = Arc::clone(&inner.permits);
        permits.run(&name, move || work(&inner, &path)).await
    }

    fn fact_path(&self, fact: Fact<'_>) -> PathBuf {
        match fact {
            Fact::Access => self.dir.join("_access"),
            Fact::Import => self.dir.join("_import"),
            Fact::Uses => self.dir.join("_uses"),
            Fact::Challenge => self.dir.join("_challenge"),
            Fact::Listing(question) => self.dir.join("_listings").join(question.hex()),
            Fact::Tag(tag) => listing::tag(&self.dir, tag),
        }
    }

    fn content_path(&self, digest: &Digest) -> PathBuf {
        listing::content(&self.dir, digest)
    }
}
