//! Removing images, pinning them.

use std::collections::HashSet;

use entrepot_cache::{Fact, Reach};
use entrepot_oci::{Digest, ImageName, Reference};
use serde::{Deserialize, Serialize};

use super::catalogue::CatalogueEntry;
use super::{ImageError, Images};

/// What went with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removed {
    /// How many objects nothing else needed.
    pub objects: u64,
    /// Their sizes' sum.
    pub bytes: u64,
}

impl Images {
    /// Removes an image: its tag's record, and what no other image, pin or document needs. Who
    /// reads any of it reads on. When it is next pulled it is a miss.
    ///
    /// A proxy that runs has to forget the repository's records thereafter
    /// ([`Gateway::forget_records`](crate::gateway::Gateway::forget_records)).
    pub(crate) async fn remove(&self, name: &ImageName) -> Result<Removed, ImageError> {
        let entry = self.entry(name).await?;
        if entry.digests().any(|digest| self.store.is_pinned(&digest)) {
            return Err(ImageError::Pinned(name.to_string()));
        }
        let others: Vec<CatalogueEntry> =
            self.all().await?.into_iter().filter(|other| other.name != *name).collect();
        if let Reference::Digest(digest) = &name.reference {
            self.check_is_no_part(name, digest, &others).await?;
        }
        let records = self.store.repository(&name.registry, &name.repository);
        // First: what is not here any more must not be led to.
        if let Reference::Tag(tag) = &name.reference {
            records.forget_fact(Fact::Tag(tag)).await?;
        }
        let roots: HashSet<Digest> = entry.digests().collect();
        let own: Vec<Digest> = self.closures(roots.iter().copied()).await;
        let beside = others.iter().filter(|other| is_beside(other, name));
        let pinned = own.iter().copied().filter(|digest| self.store.is_pinned(digest));
        let staying = beside.flat_map(CatalogueEntry::digests).chain(pinned);
        let beside: HashSet<Digest> = self.closures(staying).await.into_iter().collect();
        let needed = others.iter().flat_map(CatalogueEntry::digests).collect();
        let withdrawn = self.store.withdraw(roots, needed, Reach::All).await;
        let withdrawn = withdrawn.map_err(ImageError::Store)?;
        for digest in own.into_iter().filter(|digest| !beside.contains(digest)) {
            records.forget_content(&digest).await?;
        }
        Ok(Removed { objects: withdrawn.objects, bytes: withdrawn.bytes })
    }

    /// Keeps an image from being evicted; durable once this returns. A tag that moves on leaves the
    /// pin with what it stood for.
    pub(crate) async fn pin(&self, name: &ImageName) -> Result<(), ImageError> {
        let entry = self.entry(name).await?;
        self.store.pin(&entry.shown.digest).await.map_err(ImageError::Store)
    }

    /// Takes the pin away; without effect where there is none.
    pub(crate) async fn unpin(&self, name: &ImageName) -> Result<(), ImageError> {
        let entry = self.entry(name).await?;
        for digest in entry.digests() {
            if self.store.is_pinned(&digest) {
                self.store.unpin(&digest).await.map_err(ImageError::Store)?;
            }
        }
        Ok(())
    }

    /// Whatever any of `roots` is or needs.
    async fn closures(&self, roots: impl Iterator<Item = Digest>) -> Vec<Digest> {
        let mut all = Vec::new();
        for root in roots {
            all.extend(self.closure(root).await);
        }
        all
    }

    /// Removing what another name stands for, or needs, would change nothing.
    async fn check_is_no_part(
        &self,
        part: &ImageName,
        digest: &Digest,
        others: &[CatalogueEntry],
    ) -> Result<(), ImageError> {
        for whole in others.iter().filter(|other| is_beside(other, part)) {
            if self.closures(whole.digests()).await.contains(digest) {
                let (part, whole) = (part.to_string(), whole.name.to_string());
                return Err(ImageError::Part { part, whole });
            }
        }
        Ok(())
    }
}

/// Whether it is in the same repository.
fn is_beside(other: &CatalogueEntry, name: &ImageName) -> bool {
    other.name.registry == name.registry && other.name.repository == name.repository
}
