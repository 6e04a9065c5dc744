//! Replicas that have one bucket in common, whose objects grow old and whose writes fail.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_cache::{ContentRecord, Fact, Store};
use entrepot_oci::{Algorithm, Digest, Registry, RepositoryName, Tag, UnixSeconds};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use serde_json::json;

use super::layout::{Entry, Prefix, RecordKey};
use super::merge::{SharedAccess, SharedTag, SharedVariant};
use super::notes::{Apply, Notes};
use super::options::Options;
use super::round::Round;
use super::uploads::{Upload, Uploads};
use super::{Bucket, for_tests};
use crate::metrics::Metrics;

/// A bucket in memory that can be made old, and made to fail.
#[derive(Debug, Default)]
pub(crate) struct Aging {
    inner: InMemory,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How much older something is than it was written.
    older: HashMap<Path, Duration>,
    /// What was written, in order.
    written: Vec<String>,
    /// Writes that are still taken.
    left: Option<usize>,
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

impl Aging {
    /// All that is there becomes older by this.
    pub(crate) async fn grow_old(&self, by: Duration) {
        let all: Vec<ObjectMeta> = self.inner.list(None).try_collect().await.unwrap();
        let mut state = self.state.lock();
        for meta in all {
            *state.older.entry(meta.location).or_default() += by;
        }
    }

    /// So many writes are taken yet, and then none.
    pub(crate) fn take_only(&self, writes: Option<usize>) {
        self.state.lock().left = writes;
    }

    /// What was written, in order.
    pub(crate) fn written(&self) -> Vec<String> {
        self.state.lock().written.clone()
    }

    fn write(&self, location: &Path) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(left) = &mut state.left {
            if *left == 0 {
                let source = "the test wants it".into();
                return Err(object_store::Error::Generic { store: "aging", source });
            }
            *left -= 1;
        }
        state.older.remove(location);
        state.written.push(location.to_string());
        Ok(())
    }

    fn aged(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let older = self.state.lock().older.get(&meta.location).copied();
        meta.last_modified -= older.unwrap_or_default();
        meta
    }
}

impl fmt::Display for Aging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("aging")
    }
}

/// The store, shared: lists are of their own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(pub(crate) Arc<Aging>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ObjectStore for Shared {
    fn put_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Boxed<'c, PutResult>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            self.0.write(location)?;
            self.0.inner.put_opts(location, payload, opts).await
        })
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        opts: PutMultipartOptions,
    ) -> Boxed<'c, Box<dyn MultipartUpload>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            self.0.write(location)?;
            self.0.inner.put_multipart_opts(location, opts).await
        })
    }

    fn get_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        options: GetOptions,
    ) -> Boxed<'c, GetResult>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.0.inner.get_opts(location, options)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let aging = self.0.clone();
        self.0.inner.list(prefix).map_ok(move |meta| aging.aged(meta)).boxed()
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Path>) -> Boxed<'c, ListResult>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.0.inner.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'd, 'c>(
        &'a self,
        from: &'b Path,
        to: &'d Path,
        options: CopyOptions,
    ) -> Boxed<'c, ()>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
        Self: 'c,
    {
        self.0.inner.copy_opts(from, to, options)
    }
}

/// A replica: a store of its own, and a bucket.
pub(crate) struct Replica {
    pub(crate) store: Store,
    pub(crate) bucket: Bucket,
    pub(crate) uploads: Uploads,
    pub(crate) notes: Notes,
    pub(crate) round: Round,
    _dir: tempfile::TempDir,
}

/// The registry of everything here.
pub(crate) fn registry() -> Registry {
    "ghcr.io".parse().unwrap()
}

/// The repository.
pub(crate) fn repository() -> RepositoryName {
    "a/b".parse().unwrap()
}

impl Replica {
    /// One over this bucket, with these options.
    pub(crate) async fn with(shared: &Shared, options: &Options, apply: Apply) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = entrepot_cache::Options::new(dir.path());
        kept.references = Some(entrepot_oci::manifest::references);
        let store = Store::open(kept).await.unwrap();
        let metrics = Metrics::default();
        let bucket = Bucket::with(Arc::new(shared.clone()), metrics, &[7; 32], options);
        let uploads = Uploads::with_room(bucket.clone(), store.clone(), 100);
        let notes = Notes::new(bucket.clone(), apply);
        let round = Round::new(bucket.clone(), store.clone(), uploads.clone(), notes.clone());
        Self { store, bucket, uploads, notes, round, _dir: dir }
    }

    /// One with the usual options, which does nothing that others note.
    pub(crate) async fn over(shared: &Shared) -> Self {
        Self::with(shared, &for_tests::options(), Arc::new(|_| Box::pin(async { Ok(()) }))).await
    }

    /// Keeps these bytes, as if the registry had delivered them.
    pub(crate) async fn keep(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        self.store.put(&digest, Bytes::copy_from_slice(bytes)).await.unwrap();
        let record = ContentRecord::now(None);
        for records in
            [self.store.repository(&registry(), &repository()), self.store.registry(&registry())]
        {
            records.record_content(&digest, &record).await.unwrap();
        }
        digest
    }

    /// Keeps a manifest that needs these, and has a tag stand for it.
    pub(crate) async fn keep_image(&self, tag: &str, config: &Digest, layers: &[Digest]) -> Digest {
        let of =
            |digest: &Digest| json!({ "mediaType": "x", "digest": digest.to_string(), "size": 1 });
        let layers: Vec<_> = layers.iter().map(of).collect();
        let manifest = json!({ "schemaVersion": 2, "config": of(config), "layers": layers });
        let digest = self.keep(manifest.to_string().as_bytes()).await;
        let records = self.store.repository(&registry(), &repository());
        let variant = SharedVariant {
            asked: UnixSeconds::now(),
            digest: digest.to_string(),
            accept: String::new(),
            media_type: None,
            size: None,
        };
        let tag: Tag = tag.parse().unwrap();
        let record = SharedTag { variants: vec![variant] };
        records.record_fact(Fact::Tag(&tag), record).await.unwrap();
        digest
    }

    /// The shared identity has just been served.
    pub(crate) async fn serve(&self) {
        let access = SharedAccess { served: UnixSeconds::now(), who: String::new() };
        let records = self.store.repository(&registry(), &repository());
        records.record_fact(Fact::Access, access).await.unwrap();
    }

    /// Brings an object now.
    pub(crate) async fn bring(&self, digest: Digest) -> Result<(), super::BucketError> {
        let (registry, repository) = (registry(), repository());
        self.uploads.settle(&Upload::Object { registry, repository, digest }).await
    }

    /// All that is in the bucket.
    pub(crate) async fn names(&self, prefix: Prefix) -> Vec<String> {
        let items: Vec<_> = self.bucket.list(&prefix, None).try_collect().await.unwrap();
        items.into_iter().map(|item: super::listing::Item| item.name).collect()
    }

    /// Whether each record in the bucket that leads to an object leads to one that is there.
    pub(crate) async fn every_record_leads_on(&self) -> bool {
        for name in self.names(Prefix::Repositories).await {
            let Ok(Entry::Record(key)) = name.parse::<Entry>() else { return false };
            let digests = match &key {
                RecordKey::Content(_, _, digest) => vec![*digest],
                RecordKey::Tag(..) => {
                    let tag = self.bucket.record_behind::<SharedTag>(&key).await.unwrap();
                    tag.unwrap().digests().collect()
                }
                _ => Vec::new(),
            };
            for digest in digests {
                if !self.bucket.has(&digest).await.unwrap() {
                    return false;
                }
            }
        }
        true
    }
}
