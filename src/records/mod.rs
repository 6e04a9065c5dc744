//! What is on record of registries and their repositories: on the disk of this replica and, where
//! replicas share a bucket, in that.
//!
//! The disk is asked first. What is not on record there may be in the bucket, as another replica
//! has learnt it; it is written down here then, so that it is asked for once. What is learnt or
//! forgotten here goes to the bucket behind the answer.
//!
//! - `fleet`: what replicas share of it

mod fleet;

use std::sync::Arc;

use entrepot_cache::{ContentRecord, Fact, RecordError, Repository, Store};
use entrepot_oci::{Digest, Registry, RepositoryName, Tag, UnixSeconds};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use fleet::Fleet;

use crate::bucket::RecordKey;
use crate::bucket::merge::{SharedAccess, SharedContent, SharedRefusal, SharedTag};
use crate::bucket::uploads::Upload;

/// Everything that is on record. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Archive {
    store: Store,
    fleet: Option<Fleet>,
}

impl Archive {
    /// What is on record in `store`, and in what the replicas of a `fleet` share.
    #[must_use]
    pub(crate) fn new(store: Store, fleet: Option<Fleet>) -> Self {
        Self { store, fleet }
    }

    /// Where objects are kept, and what is on record on this replica's disk.
    #[must_use]
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// What replicas share, if they do.
    #[must_use]
    pub(crate) fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_ref()
    }

    /// The records of a repository.
    #[must_use]
    pub(crate) fn repository(&self, registry: &Registry, repository: &RepositoryName) -> Records {
        let local = self.store.repository(registry, repository);
        let shared = self.fleet.clone().map(|fleet| {
            let (registry, repository) = (registry.clone(), Some(repository.clone()));
            Arc::new(Shared { fleet, registry, repository })
        });
        Records { local, shared }
    }

    /// The records of a registry as a whole.
    #[must_use]
    pub(crate) fn registry(&self, registry: &Registry) -> Records {
        let local = self.store.registry(registry);
        let shared = self
            .fleet
            .clone()
            .map(|fleet| Arc::new(Shared { fleet, registry: registry.clone(), repository: None }));
        Records { local, shared }
    }
}

/// What is on record of one repository, or of a registry as a whole. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Records {
    local: Repository,
    shared: Option<Arc<Shared>>,
}

/// The part of it that replicas share.
struct Shared {
    fleet: Fleet,
    registry: Registry,
    /// None: the registry as a whole.
    repository: Option<RepositoryName>,
}

impl Shared {
    fn content(&self, digest: &Digest) -> RecordKey {
        RecordKey::Content(self.registry.clone(), self.repository.clone(), *digest)
    }

    /// The record of that name in the bucket, if there may be one there.
    fn key(&self, fact: Fact<'_>) -> Option<RecordKey> {
        let registry = self.registry.clone();
        Some(match (fact, self.repository.clone()) {
            (Fact::Challenge, None) => RecordKey::Challenge(registry),
            (Fact::Access, Some(repository)) => RecordKey::Access(registry, repository),
            (Fact::Import, Some(repository)) => RecordKey::Import(registry, repository),
            (Fact::Tag(tag), Some(repository)) => RecordKey::Tag(registry, repository, tag.clone()),
            _ => return None,
        })
    }

    /// What is to be uploaded where a fact has been written down here.
    fn upload(&self, fact: Fact<'_>) -> Option<Upload> {
        let registry = self.registry.clone();
        Some(match (fact, self.repository.clone()) {
            (Fact::Challenge, None) => Upload::Challenge { registry },
            (Fact::Access, Some(repository)) => Upload::Access { registry, repository },
            (Fact::Import, Some(repository)) => Upload::Import { registry, repository },
            (Fact::Tag(tag), Some(repository)) => {
                Upload::Tag { registry, repository, tag: tag.clone() }
            }
            _ => return None,
        })
    }
}

impl Records {
    /// The records on this replica's disk alone.
    #[must_use]
    pub(crate) fn local(&self) -> &Repository {
        &self.local
    }

    /// What is on record of an object here. (At a registry: that it has delivered it.)
    pub(crate) async fn content(&self, digest: &Digest) -> Option<ContentRecord> {
        match self.local.content(digest).await {
            Some(record) => Some(record),
            None => self.learnt(digest, self.shared_content(digest).await?).await,
        }
    }

    /// What other replicas have put on record of an object; of a registry as a whole also that an
    /// operator has brought it to one of its repositories, which is no word of the registry's.
    pub(crate) async fn shared_content(&self, digest: &Digest) -> Option<ContentRecord> {
        let shared = self.shared.as_ref()?;
        let there: SharedContent = shared.fleet.read(&shared.content(digest)).await?;
        let mut record = ContentRecord::now(there.media_type.as_deref());
        record.recorded = there.recorded.time()?;
        record.imported = there.imported.and_then(UnixSeconds::time);
        Some(record)
    }

    /// Writes down here what other replicas have put on record, so far as it is the registry's word
    /// or is said of a repository.
    async fn learnt(&self, digest: &Digest, record: ContentRecord) -> Option<ContentRecord> {
        let is_of_registry = self.shared.as_ref().is_some_and(|shared| shared.repository.is_none());
        if is_of_registry && record.imported.is_some() {
            return None;
        }
        if let Err(error) = self.local.record_content(digest, &record).await {
            tracing::debug!(%digest, %error, "a shared record could not be written down");
        }
        Some(record)
    }

    /// Puts on record that the registry delivered or confirmed an object here. Other replicas learn
    /// it with the object, or by [`share`](Self::share).
    pub(crate) async fn record_content(
        &self,
        digest: &Digest,
        record: &ContentRecord,
    ) -> Result<(), RecordError> {
        self.local.record_content(digest, record).await
    }

    /// An object is kept and on record here: other replicas are to have both.
    pub(crate) fn share(&self, digest: &Digest) {
        let Some(shared) = &self.shared else { return };
        let Some(repository) = shared.repository.clone() else { return };
        let (registry, digest) = (shared.registry.clone(), *digest);
        shared.fleet.offer(Upload::Object { registry, repository, digest });
    }

    /// Takes the record of an object away.
    pub(crate) async fn forget_content(&self, digest: &Digest) -> Result<(), RecordError> {
        self.local.forget_content(digest).await?;
        if let Some(shared) = &self.shared {
            shared.fleet.forget(shared.content(digest));
        }
        Ok(())
    }

    /// What is on record on this replica's disk.
    pub(crate) async fn fact<T>(&self, fact: Fact<'_>) -> Option<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.local.fact(fact).await
    }

    /// What other replicas have put on record.
    pub(crate) async fn shared_fact<T: DeserializeOwned>(&self, fact: Fact<'_>) -> Option<T> {
        let shared = self.shared.as_ref()?;
        shared.fleet.read(&shared.key(fact)?).await
    }

    /// Puts `value` on record, in place of what was there; other replicas are told.
    pub(crate) async fn record_fact<T>(&self, fact: Fact<'_>, value: T) -> Result<(), RecordError>
    where
        T: Serialize + Send + 'static,
    {
        self.local.record_fact(fact, value).await?;
        self.tell(fact);
        Ok(())
    }

    /// Puts `value` on record in place of all that any replica has: less is known than before.
    pub(crate) async fn replace_fact<T>(&self, fact: Fact<'_>, value: T) -> Result<(), RecordError>
    where
        T: Serialize + Send + 'static,
    {
        self.local.record_fact(fact, value).await?;
        self.forget_shared(fact);
        Ok(())
    }

    /// Other replicas are to have what is on record here.
    fn tell(&self, fact: Fact<'_>) {
        if let Some(shared) = &self.shared
            && let Some(upload) = shared.upload(fact)
        {
            shared.fleet.offer(upload);
        }
    }

    /// Takes a record away, for the other replicas too.
    pub(crate) async fn forget_fact(&self, fact: Fact<'_>) -> Result<(), RecordError> {
        self.local.forget_fact(fact).await?;
        self.forget_shared(fact);
        Ok(())
    }

    fn forget_shared(&self, fact: Fact<'_>) {
        if let Some(shared) = &self.shared
            && let Some(key) = shared.key(fact)
        {
            shared.fleet.forget(key);
        }
    }

    /// Takes the records of all listings away.
    pub(crate) async fn forget_listings(&self) -> Result<(), RecordError> {
        self.local.forget_listings().await
    }

    /// When other replicas last saw the shared identity served, and who that was.
    pub(crate) async fn shared_access(&self) -> Option<SharedAccess> {
        self.shared_fact(Fact::Access).await
    }

    /// What other replicas have heard of a tag.
    pub(crate) async fn shared_tag(&self, tag: &Tag) -> Option<SharedTag> {
        self.shared_fact(Fact::Tag(tag)).await
    }

    /// When the registry last refused the shared identity here, as far as any replica has met it.
    pub(crate) async fn refusal(&self) -> Option<SharedRefusal> {
        let shared = self.shared.as_ref()?;
        let (registry, repository) = (shared.registry.clone(), shared.repository.clone()?);
        shared.fleet.read(&RecordKey::Refused(registry, repository)).await
    }

    /// The registry has just refused the shared identity here: closed for all replicas, if anything
    /// was open to them. Strangers can have any repository refused.
    pub(crate) async fn refused(&self) {
        let Some(shared) = &self.shared else { return };
        let Some(repository) = shared.repository.clone() else { return };
        let is_open = self.shared_access().await.is_some()
            || self.shared_fact::<serde_json::Value>(Fact::Import).await.is_some();
        if is_open {
            let key = RecordKey::Refused(shared.registry.clone(), repository);
            shared.fleet.refused(key).await;
        }
    }

    /// That the registry refused the shared identity counts no more: an operator has brought
    /// something here since.
    pub(crate) async fn pardon(&self) {
        let Some(shared) = &self.shared else { return };
        let Some(repository) = shared.repository.clone() else { return };
        shared.fleet.pardon(&RecordKey::Refused(shared.registry.clone(), repository)).await;
    }
}
