//! What operators read and change of the records: what tags stand for, and images that they bring.
//!
//! Objects that an operator brings are open to whoever may use the proxy, while their registry can't
//! say otherwise; nothing else of their repository is.

use std::time::SystemTime;

use entrepot_cache::{ContentRecord, Fact, RecordError, Repository, Store};
use entrepot_oci::{Digest, ImageName, MediaType, Reference, Registry, RepositoryName, Tag};

use super::access::{Import, Place};
use super::challenges::Authentication;
use super::{Gateway, tags};

/// What a tag stands for, to clients that take certain media types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which manifest or index.
    pub digest: Digest,
    /// Its media type, where the registry said.
    pub media_type: Option<MediaType>,
    /// When the registry was last asked.
    pub asked: SystemTime,
}

/// What is on record of a tag, what was asked last first.
pub async fn standings(records: &Repository, tag: &Tag) -> Vec<Standing> {
    let mut standings = tags::on_record(records, tag).await;
    standings.sort_by_key(|standing| std::cmp::Reverse(standing.asked));
    standings
}

/// An image whose objects are kept, and that an operator vouches for.
#[derive(Debug)]
pub struct Vouched<'a> {
    /// The name under which it is to be pulled.
    pub name: &'a ImageName,
    /// What the name stands for.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// Its size in bytes.
    pub size: u64,
    /// All that it consists of, manifests with their media types.
    pub contents: &'a [(Digest, Option<MediaType>)],
}

/// Puts on record that an image belongs where its name says, and that an operator has brought it.
///
/// The tag comes last: before it is written nothing leads to the image by that name. For a proxy that
/// runs there is [`Gateway::vouch`].
pub async fn vouch(store: &Store, image: &Vouched<'_>) -> Result<(), RecordError> {
    let ImageName { registry, repository, reference, .. } = image.name;
    let records = store.repository(registry, repository);
    for (digest, media_type) in image.contents {
        let mut record = ContentRecord::now(media_type.as_ref().map(MediaType::as_str));
        record.imported = Some(record.recorded);
        records.record_content(digest, &record).await?;
    }
    // Without one a client's first request asks the registry, which may be out of reach for good.
    let of_registry = store.registry(registry);
    if of_registry.fact::<Authentication>(Fact::Challenge).await.is_none() {
        of_registry.record_fact(Fact::Challenge, Authentication::None).await?;
    }
    records.record_fact(Fact::Import, Import::default()).await?;
    match reference {
        Reference::Tag(tag) => tags::set(&records, tag, image).await,
        Reference::Digest(_) => Ok(()),
    }
}

impl Gateway {
    /// [`vouch`] while clients are served: what was known of the repository before counts no more.
    pub async fn vouch(&self, image: &Vouched<'_>) -> Result<(), RecordError> {
        vouch(&self.parts.store, image).await?;
        let place = place(&image.name.registry, &image.name.repository);
        self.parts.access.pardon(&place);
        self.parts.answers.invalidate_all();
        self.forget_records(&image.name.registry, &image.name.repository);
        Ok(())
    }

    /// The records of a repository have been changed from outside: they are read anew.
    pub fn forget_records(&self, registry: &Registry, repository: &RepositoryName) {
        let place = place(registry, repository);
        self.parts.access.forget(&place);
        self.parts.tags.forget(&place);
    }
}

fn place(registry: &Registry, repository: &RepositoryName) -> Place {
    Place { registry: registry.clone(), repository: repository.clone() }
}
