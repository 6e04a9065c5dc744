//! Which images there are: what tags stand for, and manifests that no tag stands for.

use std::cmp::Ordering;
use std::collections::HashSet;

use entrepot_cache::{Presence, RepositoryPath};
use entrepot_oci::host::HTTPS_PORT;
use entrepot_oci::{
    Authority, Digest, ImageName, MediaType, Reference, Registry, RepositoryName, Tag, UnixSeconds,
};

use super::parts::{ImageParts, closure};
use super::{Image, ImageError, Images, Query, Selection};
use crate::gateway::{Standing, standings, uses};

/// Some images, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// The images.
    pub images: Vec<Image>,
    /// The last one's name, if there are more behind it.
    pub next: Option<ImageName>,
}

/// A name, and what it stands for.
#[derive(Debug, Clone)]
pub(super) struct CatalogueEntry {
    pub(super) name: ImageName,
    /// To clients that take certain media types; what was asked last first. Not empty.
    pub(super) standings: Vec<Standing>,
    /// The one of them that is told of.
    pub(super) shown: Standing,
}

impl CatalogueEntry {
    /// All that it stands for, to whichever client.
    pub(super) fn digests(&self) -> impl Iterator<Item = Digest> {
        self.standings.iter().map(|standing| standing.digest)
    }
}

impl Images {
    /// A page of images.
    pub(crate) async fn list(&self, query: &Query) -> Result<Page, ImageError> {
        self.settled().await?;
        let mut entries = self.entries(query).await?;
        let has_more = entries.len() > query.limit;
        entries.truncate(query.limit);
        let next = entries.last().filter(|_| has_more).map(|last| last.name.clone());
        let mut images = Vec::new();
        for entry in entries {
            images.push(self.described(&entry).await);
        }
        Ok(Page { images, next })
    }

    /// One image.
    pub(crate) async fn find(&self, name: &ImageName) -> Result<Image, ImageError> {
        let entry = self.entry(name).await?;
        Ok(self.described(&entry).await)
    }

    /// What `name` stands for; of a digest, whether its repository has it.
    pub(super) async fn entry(&self, name: &ImageName) -> Result<CatalogueEntry, ImageError> {
        self.settled().await?;
        let unknown = || ImageError::Unknown(name.to_string());
        let entry = match &name.reference {
            Reference::Tag(tag) => self.tagged(name, tag).await,
            Reference::Digest(digest) => self.untagged(name, digest).await,
        };
        entry.ok_or_else(unknown)
    }

    /// The first images that are asked for, and one more than fit on the page.
    async fn entries(&self, query: &Query) -> Result<Vec<CatalogueEntry>, ImageError> {
        let after = query.after.as_ref();
        let is_wanted = |(registry, repository): &RepositoryPath| {
            query.registry.as_ref().is_none_or(|wanted| wanted == registry.as_str())
                && query.selection.may_be_in(registry, repository)
                && after.is_none_or(|after| {
                    (registry, repository) >= (&after.registry, &after.repository)
                })
        };
        let mut found = Vec::new();
        for path in self.repositories().await?.into_iter().filter(is_wanted) {
            for entry in self.in_repository(path).await? {
                let is_behind = after.is_none_or(|after| order(after, &entry.name).is_lt());
                if query.selection.is(&entry.name) && is_behind {
                    found.push(entry);
                }
            }
            if found.len() > query.limit {
                break;
            }
        }
        if let (Selection::One(name), true) = (&query.selection, found.is_empty())
            && let Ok(entry) = self.entry(name).await
        {
            // A digest that a tag stands for is no image of its own, but may be asked about.
            found.push(entry);
        }
        Ok(found)
    }

    /// All images there are.
    pub(super) async fn all(&self) -> Result<Vec<CatalogueEntry>, ImageError> {
        let mut all = Vec::new();
        for path in self.repositories().await? {
            all.extend(self.in_repository(path).await?);
        }
        Ok(all)
    }

    async fn repositories(&self) -> Result<Vec<RepositoryPath>, ImageError> {
        self.store.repositories().await.map_err(ImageError::Store)
    }

    /// The images of one repository: tags, then digests.
    pub(super) async fn in_repository(
        &self,
        path: RepositoryPath,
    ) -> Result<Vec<CatalogueEntry>, ImageError> {
        let records = self.store.repository(&path.0, &path.1);
        let Some(repository) = NamedRepository::of(path) else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        for tag in records.tags().await.map_err(ImageError::Store)? {
            let name = repository.with(Reference::Tag(tag.clone()));
            entries.extend(self.tagged(&name, &tag).await);
        }
        let mut covered: HashSet<Digest> = HashSet::new();
        for root in entries.iter().flat_map(CatalogueEntry::digests) {
            covered.extend(self.closure(root).await);
        }
        let contents = records.contents().await.map_err(ImageError::Store)?;
        let documents: Vec<_> =
            contents.into_iter().filter(|digest| self.is_document(digest)).collect();
        // What another document here needs is a part of that.
        for digest in &documents {
            covered.extend(self.store.references_of(digest).await);
        }
        for digest in documents.into_iter().filter(|digest| !covered.contains(digest)) {
            let name = repository.with(Reference::Digest(digest));
            entries.extend(self.untagged(&name, &digest).await);
        }
        Ok(entries)
    }

    /// What a tag stands for, if something of that is kept.
    async fn tagged(&self, name: &ImageName, tag: &Tag) -> Option<CatalogueEntry> {
        let records = self.store.repository(&name.registry, &name.repository);
        let standings = standings(&records, tag).await;
        let mut kept = standings.iter().filter(|standing| self.is_kept(&standing.digest));
        let shown = kept.next()?.clone();
        Some(CatalogueEntry { name: name.clone(), standings, shown })
    }

    /// A manifest that is kept and belongs to the repository.
    async fn untagged(&self, name: &ImageName, digest: &Digest) -> Option<CatalogueEntry> {
        let records = self.store.repository(&name.registry, &name.repository);
        let record = records.content(digest).await?;
        let media_type = MediaType::of_manifest(&record.media_type?)?;
        if !self.is_kept(digest) {
            return None;
        }
        let media_type = Some(media_type);
        let shown = Standing { digest: *digest, media_type, asked: record.recorded };
        Some(CatalogueEntry { name: name.clone(), standings: vec![shown.clone()], shown })
    }

    fn is_kept(&self, digest: &Digest) -> bool {
        self.store.contains(digest) == Presence::Kept
    }

    fn is_document(&self, digest: &Digest) -> bool {
        self.is_kept(digest) && self.store.is_document(digest)
    }

    pub(super) async fn closure(&self, root: Digest) -> Vec<Digest> {
        closure(&self.store, root).await
    }

    pub(super) async fn described(&self, entry: &CatalogueEntry) -> Image {
        let Standing { digest, media_type, asked } = &entry.shown;
        let parts = ImageParts::of(&self.store, *digest).await;
        let is_tag = matches!(entry.name.reference, Reference::Tag(_));
        // Other tags may stand for the same object: each is counted for itself.
        let (last_use, hits) = match &entry.name.reference {
            Reference::Digest(_) => (parts.last_use(&self.store), parts.hits()),
            Reference::Tag(tag) => {
                let records = self.store.repository(&entry.name.registry, &entry.name.repository);
                let used = uses(&records).await.remove(tag.as_str());
                used.map_or((UnixSeconds::from(*asked), 0), |used| (used.last, used.hits))
            }
        };
        Image {
            name: entry.name.to_string(),
            digest: digest.to_string(),
            media_type: media_type.as_ref().map(ToString::to_string),
            bytes: parts.bytes(),
            is_complete: parts.is_complete(),
            platforms: parts.platforms(),
            last_use,
            hits,
            is_pinned: self.store.is_pinned(digest),
            asked: is_tag.then(|| (*asked).into()),
            first_seen: self.store.arrival(digest).await,
        }
    }
}

/// A repository, by its names in the store.
struct NamedRepository {
    authority: Authority,
    registry: Registry,
    repository: RepositoryName,
}

impl NamedRepository {
    fn of((registry, repository): RepositoryPath) -> Option<Self> {
        let asked = Authority::parse(registry.as_str(), HTTPS_PORT).ok()?;
        Some(Self { authority: registry.authority(&asked), registry, repository })
    }

    fn with(&self, reference: Reference) -> ImageName {
        let Self { authority, registry, repository } = self;
        ImageName {
            authority: authority.clone(),
            registry: registry.clone(),
            repository: repository.clone(),
            reference,
        }
    }
}

/// By registry, repository, tag; then digests.
fn order(one: &ImageName, other: &ImageName) -> Ordering {
    let place = |name: &ImageName| (name.registry.clone(), name.repository.clone());
    let reference = |name: &ImageName| match &name.reference {
        Reference::Tag(tag) => (Some(tag.clone()), None),
        Reference::Digest(digest) => (None, Some(*digest)),
    };
    place(one).cmp(&place(other)).then_with(|| match (reference(one), reference(other)) {
        ((Some(_), _), (None, _)) => Ordering::Less,
        ((None, _), (Some(_), _)) => Ordering::Greater,
        (one, other) => one.cmp(&other),
    })
}
