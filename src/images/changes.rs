//! Removing images, pinning them.

use std::collections::{HashMap, HashSet};

use entrepot_cache::{Fact, Reach};
use entrepot_oci::{Digest, ImageName, Reference, Registry, RepositoryName, Tag, UnixSeconds};
use serde::{Deserialize, Serialize};

use super::catalogue::CatalogueEntry;
use super::{Image, ImageError, Images, Reached, Selection};

/// What went with an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removed {
    /// How many objects nothing else needed.
    pub objects: u64,
    /// Their sizes' sum.
    pub bytes: u64,
    /// Where else it went, if there is anywhere else.
    #[serde(default)]
    pub fleet: Option<Reached>,
}

/// What exactly went with images: records, objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    /// What tags stood for.
    pub tags: Vec<(Registry, RepositoryName, Tag)>,
    /// That objects belonged there.
    pub contents: Vec<(Registry, RepositoryName, Digest)>,
    /// The objects that nothing else needed.
    pub objects: Vec<Digest>,
    /// Their sizes' sum.
    pub bytes: u64,
}

impl Gone {
    fn summed(&self) -> Removed {
        Removed { objects: self.objects.len() as u64, bytes: self.bytes, fleet: None }
    }
}

/// Which images are to be removed at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Which {
    /// Those of any of these.
    pub selections: Vec<Selection>,
    /// Of these, those that nobody has used since.
    pub unused_since: Option<UnixSeconds>,
}

/// How far a removal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// To its end.
    Done,
    /// It is only said what it would be.
    DryRun,
}

/// Images that were removed at once, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removal {
    /// Which, as they were before.
    pub images: Vec<Image>,
    /// Those that were meant and stay, since they are pinned.
    pub pinned: Vec<String>,
    /// The selections that no image is of.
    pub unmatched: Vec<String>,
    /// How many objects nothing else needed.
    pub objects: u64,
    /// Their sizes' sum.
    pub bytes: u64,
    /// Whether nothing has been done.
    pub is_dry_run: bool,
    /// Where else they went, if there is anywhere else.
    #[serde(default)]
    pub fleet: Option<Reached>,
}

impl Images {
    /// Removes all that are meant but what is pinned, as [`remove`](Self::remove) does one.
    pub(crate) async fn remove_all(
        &self,
        which: &Which,
        extent: Extent,
    ) -> Result<(Removal, Gone), ImageError> {
        self.settled().await?;
        let (meant, others): (Vec<_>, Vec<_>) =
            self.all().await?.into_iter().partition(|entry| which.means(&entry.name));
        let is_of_none = |selection: &&Selection| {
            **selection != Selection::All && !meant.iter().any(|one| selection.is(&one.name))
        };
        let unmatched = which.selections.iter().filter(is_of_none);
        let mut removal = Removal {
            images: Vec::new(),
            pinned: Vec::new(),
            unmatched: unmatched.map(ToString::to_string).collect(),
            objects: 0,
            bytes: 0,
            is_dry_run: extent == Extent::DryRun,
            fleet: None,
        };
        let (mut going, mut staying) = (Vec::new(), others);
        for entry in meant {
            let image = self.described(&entry).await;
            if which.unused_since.is_some_and(|since| image.last_use > since) {
                staying.push(entry);
            } else if entry.digests().any(|digest| self.store.is_pinned(&digest)) {
                removal.pinned.push(image.name);
                staying.push(entry);
            } else {
                removal.images.push(image);
                going.push(entry);
            }
        }
        let gone = match extent {
            Extent::Done => self.take(&going, &staying).await?,
            Extent::DryRun => {
                let (roots, needed) = (digests(&going), digests(&staying));
                let foreseen = self.store.foresee_withdrawal(roots, needed).await;
                let foreseen = foreseen.map_err(ImageError::Store)?;
                Gone { objects: foreseen.digests, bytes: foreseen.bytes, ..Gone::default() }
            }
        };
        let Removed { objects, bytes, .. } = gone.summed();
        Ok((Removal { objects, bytes, ..removal }, gone))
    }

    /// Removes an image: its tag's record, and what no other image, pin or document needs. Who
    /// reads any of it reads on. When it is next pulled it is a miss.
    ///
    /// A proxy that runs has to forget the repository's records thereafter
    /// ([`Gateway::forget_records`](crate::gateway::Gateway::forget_records)).
    pub(crate) async fn remove(&self, name: &ImageName) -> Result<(Removed, Gone), ImageError> {
        let entry = self.entry(name).await?;
        let gone = self.remove_entry(name, entry).await?;
        Ok((gone.summed(), gone))
    }

    /// The same, unless the image was asked about after `at`; then nothing goes.
    pub(super) async fn remove_as_of(
        &self,
        name: &ImageName,
        at: UnixSeconds,
    ) -> Result<Gone, ImageError> {
        let entry = self.entry(name).await?;
        let is_newer = entry.standings.iter().any(|one| UnixSeconds::from(one.asked) > at);
        if is_newer { Ok(Gone::default()) } else { self.remove_entry(name, entry).await }
    }

    async fn remove_entry(
        &self,
        name: &ImageName,
        entry: CatalogueEntry,
    ) -> Result<Gone, ImageError> {
        if entry.digests().any(|digest| self.store.is_pinned(&digest)) {
            return Err(ImageError::Pinned(name.to_string()));
        }
        let others: Vec<CatalogueEntry> =
            self.all().await?.into_iter().filter(|other| other.name != *name).collect();
        if let Reference::Digest(digest) = &name.reference {
            self.check_is_no_part(name, digest, &others).await?;
        }
        self.take(&[entry], &others).await
    }

    /// Takes these out, and what none of the others needs.
    async fn take(
        &self,
        going: &[CatalogueEntry],
        staying: &[CatalogueEntry],
    ) -> Result<Gone, ImageError> {
        let mut gone = Gone::default();
        // First: what is not here any more must not be led to.
        for CatalogueEntry { name, .. } in going {
            if let Reference::Tag(tag) = &name.reference {
                let records = self.store.repository(&name.registry, &name.repository);
                records.forget_fact(Fact::Tag(tag)).await?;
                gone.tags.push((name.registry.clone(), name.repository.clone(), tag.clone()));
            }
        }
        let mut own: HashMap<(&Registry, &RepositoryName), HashSet<Digest>> = HashMap::new();
        for entry in going {
            let closure = self.closures(entry.digests()).await;
            own.entry((&entry.name.registry, &entry.name.repository)).or_default().extend(closure);
        }
        let withdrawn = self.store.withdraw(digests(going), digests(staying), Reach::All).await;
        let withdrawn = withdrawn.map_err(ImageError::Store)?;
        for ((registry, repository), own) in own {
            let is_beside = |other: &&CatalogueEntry| {
                other.name.registry == *registry && other.name.repository == *repository
            };
            let beside = staying.iter().filter(is_beside).flat_map(CatalogueEntry::digests);
            let pinned = own.iter().copied().filter(|digest| self.store.is_pinned(digest));
            let beside = self.closures(beside.chain(pinned)).await;
            let beside: HashSet<Digest> = beside.into_iter().collect();
            let records = self.store.repository(registry, repository);
            for digest in own.difference(&beside) {
                records.forget_content(digest).await?;
                gone.contents.push((registry.clone(), repository.clone(), *digest));
            }
        }
        (gone.objects, gone.bytes) = (withdrawn.digests, withdrawn.bytes);
        Ok(gone)
    }

    /// Keeps an image from being evicted; durable once this returns. A tag that moves on leaves the
    /// pin with what it stood for, which is returned.
    pub(crate) async fn pin(&self, name: &ImageName) -> Result<Digest, ImageError> {
        let digest = self.entry(name).await?.shown.digest;
        self.store.pin(&digest).await.map_err(ImageError::Store)?;
        Ok(digest)
    }

    /// Takes the pins of all that it stands for away, as far as there are any; those that went.
    pub(crate) async fn unpin(&self, name: &ImageName) -> Result<Vec<Digest>, ImageError> {
        let entry = self.entry(name).await?;
        let mut unpinned = Vec::new();
        for digest in entry.digests() {
            if self.store.is_pinned(&digest) {
                self.store.unpin(&digest).await.map_err(ImageError::Store)?;
                unpinned.push(digest);
            }
        }
        Ok(unpinned)
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

impl Which {
    fn means(&self, name: &ImageName) -> bool {
        self.selections.iter().any(|selection| selection.is(name))
    }
}

/// All that these stand for.
fn digests(entries: &[CatalogueEntry]) -> HashSet<Digest> {
    entries.iter().flat_map(CatalogueEntry::digests).collect()
}

/// Whether it is in the same repository.
fn is_beside(other: &CatalogueEntry, name: &ImageName) -> bool {
    other.name.registry == name.registry && other.name.repository == name.repository
}
