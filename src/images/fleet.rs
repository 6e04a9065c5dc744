//! Removing and pinning images on all replicas of a fleet: here, in the bucket, and by a note that
//! the others read.

use entrepot_cache::Store;
use entrepot_oci::{Digest, ImageName, Reference, UnixSeconds};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::changes::Gone;
use super::{Extent, ImageError, Images, Removal, Removed, Which};
use crate::bucket::layout::RecordKey;
use crate::bucket::merge::{SharedContent, SharedTag};
use crate::bucket::notes::{Deed, Note, Notes};
use crate::bucket::uploads::{Upload, Uploads};
use crate::bucket::{Bucket, BucketError};
use crate::gateway::Gateway;

/// Questions to the bucket at a time.
const AT_ONCE: usize = 8;

/// How far a change has come beyond this replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reached {
    /// Whether it is made in the bucket, and noted for the others, who read that within a minute.
    pub bucket: bool,
    /// Why not, where it is not: it is tried again while this proxy runs.
    #[serde(default)]
    pub why: Option<String>,
}

impl Reached {
    fn of(tried: Result<(), BucketError>) -> Self {
        match tried {
            Ok(()) => Self { bucket: true, why: None },
            Err(error) => Self { bucket: false, why: Some(error.to_string()) },
        }
    }

    /// Where a change has taken effect, as a person is told.
    #[must_use]
    pub(crate) fn words(&self) -> String {
        match &self.why {
            None => "here, in the bucket; other replicas within a minute".to_owned(),
            Some(why) => format!("here alone: {why}; it is tried again while the proxy runs"),
        }
    }
}

/// The images of all replicas. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FleetImages {
    bucket: Bucket,
    uploads: Uploads,
    notes: Notes,
}

/// This replica's part.
#[derive(Clone)]
struct Local {
    bucket: Bucket,
    store: Store,
    gateway: Gateway,
}

impl FleetImages {
    /// The replicas that have `bucket` in common, of which this one has `store`.
    #[must_use]
    pub(crate) fn new(bucket: Bucket, uploads: Uploads, store: Store, gateway: Gateway) -> Self {
        let local = Local { bucket: bucket.clone(), store, gateway };
        let apply = move |note: Note| {
            let local = local.clone();
            Box::pin(async move { local.heed(&note).await }) as _
        };
        let notes = Notes::new(bucket.clone(), std::sync::Arc::new(apply));
        Self { bucket, uploads, notes }
    }

    /// What the replicas tell each other.
    #[must_use]
    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// [Removes](Images::remove) an image here and in the bucket, and has it removed by the others.
    /// One that is not kept here goes from the bucket, if a tag stands for it there.
    pub(crate) async fn remove(
        &self,
        images: &Images,
        name: &ImageName,
    ) -> Result<Removed, ImageError> {
        let removed = images.remove(name).await;
        let (removed, gone) = match removed {
            Err(ImageError::Unknown(unknown)) => {
                let gone = self.known_there(name).await.ok_or(ImageError::Unknown(unknown))?;
                (Removed { objects: 0, bytes: 0, fleet: None }, gone)
            }
            other => other?,
        };
        let fleet = Some(self.spread(vec![name.to_string()], &gone).await);
        Ok(Removed { fleet, ..removed })
    }

    /// The same for all that are meant; the others remove those that were kept here.
    pub(crate) async fn remove_all(
        &self,
        images: &Images,
        which: &Which,
        extent: Extent,
    ) -> Result<Removal, ImageError> {
        let (mut removal, gone) = images.remove_all(which, extent).await?;
        if extent == Extent::Done && !removal.images.is_empty() {
            let names = removal.images.iter().map(|image| image.name.clone()).collect();
            removal.fleet = Some(self.spread(names, &gone).await);
        }
        Ok(removal)
    }

    /// What the bucket has of an image by its name: the records that lead to it.
    async fn known_there(&self, name: &ImageName) -> Option<Gone> {
        let Reference::Tag(tag) = &name.reference else { return None };
        let (registry, repository) = (&name.registry, &name.repository);
        let key = RecordKey::Tag(registry.clone(), repository.clone(), tag.clone());
        let there: SharedTag = self.bucket.record_behind(&key).await.ok().flatten()?;
        let contents = there.digests().map(|one| (registry.clone(), repository.clone(), one));
        let tags = vec![(registry.clone(), repository.clone(), tag.clone())];
        Some(Gone { tags, contents: contents.collect(), ..Gone::default() })
    }

    /// Removes in the bucket what went here, and tells the others.
    async fn spread(&self, names: Vec<String>, gone: &Gone) -> Reached {
        // First: whoever reads the note removes the rest, should this process end here.
        let mut tried = self.notes.tell(Deed::Removed(names)).await;
        let keys = keys(gone);
        let removing = keys.map(|key| {
            let (bucket, uploads) = (self.bucket.clone(), self.uploads.clone());
            async move {
                let removed = bucket.remove_record(&key).await;
                if removed.is_err() {
                    uploads.offer(Upload::Forgotten(key));
                }
                removed
            }
        });
        let mut removing = stream::iter(removing).buffer_unordered(AT_ONCE);
        while let Some(removed) = removing.next().await {
            tried = tried.and(removed);
        }
        let removing = gone.objects.iter().copied().map(|digest| {
            let bucket = self.bucket.clone();
            async move { bucket.remove(&digest).await }
        });
        let mut removing = stream::iter(removing).buffer_unordered(AT_ONCE);
        while let Some(removed) = removing.next().await {
            tried = tried.and(removed);
        }
        Reached::of(tried)
    }

    /// An object has been pinned here: it is in the bucket, and by the others.
    pub(crate) async fn pinned(&self, digest: Digest) -> Reached {
        let there = self.settle_pin(digest).await;
        Reached::of(there.and(self.notes.tell(Deed::Pinned(digest.to_string())).await))
    }

    /// An object has been unpinned here.
    pub(crate) async fn unpinned(&self, digest: Digest) -> Reached {
        // First: who misses the pin in the bucket has heard why.
        let told = self.notes.tell(Deed::Unpinned(digest.to_string())).await;
        Reached::of(told.and(self.settle_pin(digest).await))
    }

    async fn settle_pin(&self, digest: Digest) -> Result<(), BucketError> {
        let settled = self.uploads.settle(&Upload::Pin { digest }).await;
        if settled.is_err() {
            self.uploads.offer(Upload::Pin { digest });
        }
        settled
    }
}

/// The shared records that say what these local ones said.
fn keys(gone: &Gone) -> impl Iterator<Item = RecordKey> {
    let tags = gone.tags.iter().cloned();
    let tags = tags.map(|(registry, repository, tag)| RecordKey::Tag(registry, repository, tag));
    let contents = gone.contents.iter().cloned();
    tags.chain(contents.map(|(registry, repository, digest)| {
        RecordKey::Content(registry, Some(repository), digest)
    }))
}

impl Local {
    /// Does here what another replica has done.
    async fn heed(&self, note: &Note) -> Result<(), String> {
        let changed = match &note.done {
            Deed::Pinned(digest) => match digest.parse() {
                Ok(digest) => self.store.pin(&digest).await,
                Err(_) => Ok(()),
            },
            Deed::Unpinned(digest) => match digest.parse() {
                Ok(digest) => self.store.unpin(&digest).await,
                Err(_) => Ok(()),
            },
            Deed::Removed(_) => {
                let mut done = Ok(());
                for name in note.removed() {
                    done = done.and(self.remove(&name, note.at).await);
                }
                return done;
            }
        };
        changed.map_err(|error| error.to_string())
    }

    async fn remove(&self, name: &ImageName, at: UnixSeconds) -> Result<(), String> {
        let removed = Images::of(&self.store).remove_as_of(name, at).await;
        // Whatever came of it, what is remembered may be what the other has removed.
        self.gateway.forget_records(&name.registry, &name.repository);
        let gone = match removed {
            Ok(gone) => gone,
            Err(ImageError::Unknown(_)) => return Ok(()),
            Err(error @ (ImageError::Pinned(_) | ImageError::Part { .. })) => {
                tracing::warn!(%error, "an image that another replica has removed stays here");
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        if gone != Gone::default() {
            tracing::info!(image = %name, "an image was removed, as on another replica");
        }
        self.clear(&gone, at).await.map_err(|error| error.to_string())
    }

    /// Removes in the bucket what went here, as far as nobody has put it there since.
    async fn clear(&self, gone: &Gone, at: UnixSeconds) -> Result<(), BucketError> {
        let bucket = &self.bucket;
        let mut cleared = Vec::new();
        for key in keys(gone) {
            match &key {
                RecordKey::Tag(..) => {
                    let there: SharedTag = bucket.record_behind(&key).await?.unwrap_or_default();
                    let left = there.clone().after(at);
                    if left.variants.is_empty() {
                        bucket.remove_record(&key).await?;
                    } else if left != there {
                        bucket.put_record(&key, &left).await?;
                    }
                }
                RecordKey::Content(_, _, digest) => {
                    let there: Option<SharedContent> = bucket.record_behind(&key).await?;
                    if there.is_none_or(|there| there.recorded <= at) {
                        bucket.remove_record(&key).await?;
                        cleared.push(*digest);
                    }
                }
                _ => {}
            }
        }
        for digest in gone.objects.iter().filter(|digest| cleared.contains(digest)) {
            bucket.remove(digest).await?;
        }
        Ok(())
    }
}
