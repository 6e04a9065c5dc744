//! Who may have what: *cached bytes reach only those whom the registry would serve*.
//!
//! An object of a repository is served from the store when both hold:
//!
//! 1. *may pull*: this identity had a successful answer of the registry for the repository within
//!    its grant time;
//! 2. *belongs*: the registry delivered the object's bytes for this repository, or confirmed it
//!    there after having delivered its bytes for another of its repositories.
//!
//! A registry vouches only for bytes that it has delivered itself.
//!
//! While the registry can't be asked, an object is open, too, that an operator has brought here.

use std::sync::Arc;
use std::time::Duration;

use entrepot_cache::{ContentRecord, Fact};
use entrepot_oci::{Digest, MediaType, Registry, RepositoryName, UnixSeconds};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::bucket::merge::{SharedAccess, SharedRefusal, open_since};
use crate::memory::{Shares, table};
use crate::records::{Archive, Records};
use crate::registry::identity::{Fingerprint, Identity};
use crate::upstream::UpstreamError;

/// How long a client's own credential is believed after it was last seen to work.
const CLIENT_GRANT: Duration = Duration::from_mins(5);
/// How long the shared identity's success is believed.
const SHARED_GRANT: Duration = Duration::from_hours(1);
/// How long ago the shared identity may have been served last, for what is served while a registry
/// is away.
const UNASKED_AWAY: Duration = Duration::from_hours(30 * 24);
/// As `UNASKED_AWAY`, while a registry answers with errors: an attacker can make it do so.
const UNASKED_UNWELL: Duration = Duration::from_hours(24);
/// How old what is on record of an object grows before the registry is asked again whether it has
/// it here, and how long nobody asks after that.
const CONFIRMED: Duration = Duration::from_hours(24);
const ASKED_AGAIN: Duration = Duration::from_hours(1);

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) registry: Registry,
    pub(super) repository: RepositoryName,
}

impl Place {
    pub(super) fn new(registry: &Registry, repository: &RepositoryName) -> Self {
        Self { registry: registry.clone(), repository: repository.clone() }
    }

    /// What it has on the heap.
    pub(super) fn weight(&self) -> usize {
        self.registry.as_str().len() + self.repository.as_str().len()
    }
}

/// Whether a registry would serve somebody an object, as it is asked once for all who wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    place: Place,
    identity: Identity,
    digest: Digest,
}

/// What is remembered of who may have what.
pub(super) struct Access {
    /// When the registry was asked that let them in.
    clients: Cache<(Place, Fingerprint), Instant>,
    /// Until when, and what the shared identity was then.
    shared: Cache<Place, (Instant, String)>,
    /// When the registry last refused somebody.
    revoked: Cache<(Place, Identity), Instant>,
    contents: Cache<(Place, Digest), ContentRecord>,
    /// What was lately asked about again.
    confirming: Cache<(Place, Digest), ()>,
}

impl Access {
    /// Nothing is known yet. A grant that is dropped costs a question, a record a small read.
    pub(super) fn new(shares: Shares) -> Self {
        let bytes = shares.large_table();
        let grants = |place: &Place, (_, who): &(Instant, String)| place.weight() + who.len();
        let revoked = |key: &(Place, Identity), _: &Instant| key.0.weight();
        let contents = |key: &(Place, Digest), record: &ContentRecord| {
            key.0.weight() + record.media_type.as_ref().map_or(0, |media_type| media_type.len())
        };
        let clients = |key: &(Place, Fingerprint), _: &Instant| key.0.weight();
        Self {
            clients: table(bytes, clients).time_to_live(CLIENT_GRANT).build(),
            shared: table(bytes, grants).build(),
            revoked: table(shares.small_table(), revoked).time_to_live(UNASKED_AWAY).build(),
            contents: table(bytes, contents).build(),
            confirming: table(shares.small_table(), |key: &(Place, Digest), (): &()| {
                key.0.weight()
            })
            .time_to_live(ASKED_AGAIN)
            .build(),
        }
    }

    /// How long the grant of the shared identity, as which it is `who`, still lasts.
    fn left(&self, place: &Place, who: &str) -> Option<Duration> {
        let (until, whose) = self.shared.get(place)?;
        until.checked_duration_since(Instant::now()).filter(|_| whose == who)
    }

    /// The records of `place` are to be read anew.
    pub(super) fn forget(&self, place: &Place) {
        self.shared.invalidate(place);
        let of_place = self.contents.iter().filter(|(key, _)| key.0 == *place);
        of_place.for_each(|(key, _)| self.contents.invalidate(&*key));
    }

    /// The registry has the object at `place` no more.
    pub(super) async fn disown(&self, records: &Records, place: &Place, digest: &Digest) {
        self.contents.invalidate(&(place.clone(), *digest));
        if let Err(error) = records.forget_content(digest).await {
            tracing::warn!(%digest, %error, "a record could not be removed");
        }
    }

    /// That the registry refused people at `place` counts no more.
    pub(super) fn pardon(&self, place: &Place) {
        let of_place = self.revoked.iter().filter(|(key, _)| key.0 == *place);
        of_place.for_each(|(key, _)| self.revoked.invalidate(&*key));
    }
}

/// That an operator has brought objects here; the registry's refusal takes it away.
#[derive(Serialize, Deserialize)]
pub(super) struct Import {
    /// When that was. (Older records do not say.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<UnixSeconds>,
}

impl Import {
    /// Something is brought now.
    pub(super) fn now() -> Self {
        Self { at: Some(UnixSeconds::now()) }
    }
}

/// One repository's part of it, for one identity.
pub(super) struct Rights {
    access: Arc<Access>,
    place: Place,
    identity: Identity,
    /// What the shared identity is at this registry.
    who: String,
    /// The repository's records.
    records: Records,
    /// The registry's.
    of_registry: Records,
}

impl Rights {
    /// The rights of `identity` in `place`.
    pub(super) fn new(
        archive: &Archive,
        access: Arc<Access>,
        place: Place,
        identity: Identity,
        who: String,
    ) -> Self {
        let records = archive.repository(&place.registry, &place.repository);
        let of_registry = archive.registry(&place.registry);
        Self { access, place, identity, who, records, of_registry }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The repository's records.
    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    /// *may pull*, while the registry can't be asked: what the shared identity could pull when it
    /// last could ask stays open, until the registry says otherwise, to whichever replica. To
    /// clients with a login too, which can't be asked about, unless the registry has refused that
    /// login.
    pub(super) async fn may_pull_unasked(&self, error: &UpstreamError) -> bool {
        let Some(most) = unasked(error) else { return false };
        let refusal = self.records.refusal().await;
        if self.may_pull().await && self.is_after(refusal) {
            return true;
        }
        // What others have met, or one odd question, opens nothing that is closed.
        let tells_of_here = !error.is_of_others() && !error.is_of_question();
        tells_of_here
            && !self.is_refused()
            && self.last_served_anywhere(refusal).await.is_some_and(|age| age < most)
    }

    /// Whether the grant that this identity has is later than a refusal that another replica has
    /// met. A client's own has nothing to do with it.
    fn is_after(&self, refusal: Option<SharedRefusal>) -> bool {
        let (Identity::Shared, Some(refusal)) = (&self.identity, refusal) else { return true };
        let age = self.shared_left().map(|left| SHARED_GRANT.saturating_sub(left));
        age.is_some_and(|age| refusal.is_over_by(UnixSeconds::ago(age)))
    }

    /// Whether the registry has to be asked here although it has refused questions about other
    /// repositories: its own answer might open what was open before.
    pub(super) async fn is_to_be_asked(&self) -> bool {
        if self.may_pull().await {
            return false;
        }
        let refusal = self.records.refusal().await;
        self.last_served_anywhere(refusal).await.is_some_and(|age| age < UNASKED_UNWELL)
    }

    /// As `may_pull_unasked`, for one object on record here: what an operator has brought is open
    /// to everybody for as long.
    pub(super) async fn may_have_unasked(
        &self,
        record: &ContentRecord,
        error: &UpstreamError,
    ) -> bool {
        // A clock that has been set back since makes nothing old.
        let age = record.imported.map(|at| at.elapsed().unwrap_or_default());
        let is_open = age.zip(unasked(error)).is_some_and(|(age, most)| age < most);
        (is_open && self.is_import_open().await) || self.may_pull_unasked(error).await
    }

    /// Whether the registry has refused neither this identity nor the shared one since the import.
    async fn is_import_open(&self) -> bool {
        let is_open = self.has_import(self.records.refusal().await).await;
        // Looked at last: a refusal may have come while the record was read.
        is_open && !self.is_refused()
    }

    /// Whether an operator has brought something here since that refusal.
    async fn has_import(&self, refusal: Option<SharedRefusal>) -> bool {
        let import = match self.records.fact(Fact::Import).await {
            Some(import) => Some(import),
            None => self.records.shared_fact::<Import>(Fact::Import).await,
        };
        import.is_some_and(|import| {
            refusal.is_none_or(|refusal| import.at.is_some_and(|at| refusal.is_over_by(at)))
        })
    }

    /// Whether the registry has refused this identity here since it last served it.
    fn is_refused(&self) -> bool {
        self.access.revoked.contains_key(&self.subject())
    }

    /// Whether a refusal would take anything from this identity.
    pub(super) async fn has_any(&self) -> bool {
        if self.may_pull().await || self.last_served().await.is_some() {
            return true;
        }
        let refusal = self.records.refusal().await;
        self.last_served_anywhere(refusal).await.is_some() || self.has_import(refusal).await
    }

    /// How long the shared identity's grant still lasts.
    pub(super) fn shared_left(&self) -> Option<Duration> {
        self.access.left(&self.place, &self.who)
    }

    /// How long ago the shared identity was last served here, as it is now configured.
    pub(super) async fn last_served(&self) -> Option<Duration> {
        let grant: SharedAccess = self.records.fact(Fact::Access).await?;
        // Looked at last: a refusal may have come while the record was read.
        (grant.who == self.who && !self.is_revoked()).then(|| grant.served.age()).flatten()
    }

    /// As `last_served`, by whichever replica, unless one has met a refusal since.
    async fn last_served_anywhere(&self, refusal: Option<SharedRefusal>) -> Option<Duration> {
        let there = self.records.shared_access().await;
        let here = self
            .last_served()
            .await
            .map(|age| SharedAccess { served: UnixSeconds::ago(age), who: self.who.clone() });
        let all = here.into_iter().chain(there.filter(|_| !self.is_revoked()));
        open_since(all, refusal, &self.who, UnixSeconds::now())
    }

    /// Whether the registry has refused the shared identity here since it last served it.
    fn is_revoked(&self) -> bool {
        self.access.revoked.contains_key(&(self.place.clone(), Identity::Shared))
    }

    fn subject(&self) -> (Place, Identity) {
        (self.place.clone(), self.identity.clone())
    }

    /// Whether the registry would serve this identity that object here, as a question.
    pub(super) fn question(&self, digest: &Digest) -> Question {
        Question { place: self.place.clone(), identity: self.identity.clone(), digest: *digest }
    }

    /// *may pull*.
    pub(super) async fn may_pull(&self) -> bool {
        match self.identity {
            Identity::Client(fingerprint) => {
                let asked = self.access.clients.get(&(self.place.clone(), fingerprint));
                asked.is_some_and(|asked| asked.elapsed() < CLIENT_GRANT)
            }
            Identity::Shared => {
                self.access.left(&self.place, &self.who).is_some() || self.was_served_lately().await
            }
        }
    }

    async fn was_served_lately(&self) -> bool {
        let age = self.last_served().await;
        let Some(left) = age.and_then(|age| SHARED_GRANT.checked_sub(age)) else { return false };
        self.open_for(left);
        true
    }

    /// The shared identity has a grant for so long.
    fn open_for(&self, time: Duration) {
        self.access.shared.insert(self.place.clone(), (Instant::now() + time, self.who.clone()));
    }

    /// The registry has served this identity here, which asked at `asked`: the grant is as old as
    /// the question, however long its answer took, and what the registry has said since counts
    /// more.
    pub(super) async fn grant(&self, asked: Instant) {
        if self.access.revoked.get(&self.subject()).is_some_and(|revoked| revoked >= asked) {
            return;
        }
        self.access.revoked.invalidate(&self.subject());
        match self.identity {
            Identity::Client(fingerprint) => {
                let key = (self.place.clone(), fingerprint);
                if self.access.clients.get(&key).is_none_or(|before| before < asked) {
                    self.access.clients.insert(key, asked);
                }
            }
            Identity::Shared => self.grant_to_all(asked).await,
        }
    }

    async fn grant_to_all(&self, asked: Instant) {
        let age = asked.elapsed();
        let left = SHARED_GRANT.saturating_sub(age);
        // What would last no longer than what there is, or hardly, is not worth a record.
        let had = self.access.left(&self.place, &self.who);
        if left.is_zero() || had.is_some_and(|had| had + SHARED_GRANT / 10 > left) {
            return;
        }
        self.open_for(left);
        let served = SharedAccess { served: UnixSeconds::ago(age), who: self.who.clone() };
        if let Err(error) = self.records.record_fact(Fact::Access, served).await {
            tracing::warn!(%error, "a record could not be written");
        }
    }

    /// The registry has just refused this identity here.
    pub(super) async fn revoke(&self) {
        self.access.revoked.insert(self.subject(), Instant::now());
        match self.identity {
            Identity::Client(fingerprint) => {
                self.access.clients.invalidate(&(self.place.clone(), fingerprint));
            }
            Identity::Shared => {
                self.access.shared.invalidate(&self.place);
                // Here alone: in the bucket a refusal is a record of its own, which no late word of
                // another replica can undo.
                for fact in [Fact::Access, Fact::Import] {
                    if let Err(error) = self.records.local().forget_fact(fact).await {
                        tracing::warn!(%error, "a record could not be removed");
                    }
                }
                self.records.refused().await;
            }
        }
    }

    /// *belongs*: what is on record of the object here.
    pub(super) async fn content(&self, digest: &Digest) -> Option<ContentRecord> {
        let key = (self.place.clone(), *digest);
        if let Some(record) = self.access.contents.get(&key) {
            return Some(record);
        }
        let record = self.records.content(digest).await?;
        self.access.contents.insert(key, record.clone());
        Some(record)
    }

    /// What is on record of the object at this registry, in whichever repository.
    pub(super) async fn delivered(&self, digest: &Digest) -> Option<ContentRecord> {
        self.of_registry.content(digest).await
    }

    /// What is on record of the object here, without a question to the bucket.
    async fn content_here(&self, digest: &Digest) -> Option<ContentRecord> {
        match self.access.contents.get(&(self.place.clone(), *digest)) {
            Some(record) => Some(record),
            None => self.records.local().content(digest).await,
        }
    }

    /// What is on record of an object that is not kept here.
    ///
    /// Of one that no replica has met the bucket is asked once: who delivers it for a repository
    /// puts that on the registry's record too.
    pub(super) async fn shared(&self, digest: &Digest) -> SharedContent {
        if let Some(record) = self.content_here(digest).await {
            return SharedContent::Here(record);
        }
        let mut is_delivered = self.of_registry.local().content(digest).await.is_some();
        if !is_delivered {
            let Some(known) = self.of_registry.shared_content(digest).await else {
                return SharedContent::Unknown;
            };
            is_delivered = known.imported.is_none();
        }
        match self.content(digest).await {
            Some(record) => SharedContent::Here(record),
            None if is_delivered => SharedContent::Elsewhere,
            None => SharedContent::Unknown,
        }
    }

    /// The registry has delivered the object here, all of it and right.
    pub(super) async fn deliver(&self, digest: &Digest, media_type: Option<&MediaType>) {
        // What it is called, if it was delivered as a manifest before, stays.
        let is_known = |record: &ContentRecord| {
            media_type.is_none()
                || record.media_type.as_deref() == media_type.map(MediaType::as_str)
        };
        // Here first: who finds it delivered, and not here, asks the registry about it. What is on
        // record, rather than remembered: records go when their objects have been gone for long.
        if !self.records.local().content(digest).await.as_ref().is_some_and(is_known) {
            self.belongs(digest, media_type).await;
        }
        if !self.of_registry.local().content(digest).await.as_ref().is_some_and(is_known) {
            let record = ContentRecord::now(media_type.map(MediaType::as_str));
            write(&self.of_registry, digest, &record).await;
        }
    }

    /// Whether the registry is due to be asked again whether the object is still here: it may have
    /// been deleted, or withdrawn. Told to one who then has to ask. What an operator has brought is
    /// his to take away.
    pub(super) fn is_to_be_confirmed(&self, digest: &Digest, record: &ContentRecord) -> bool {
        if record.imported.is_some() || !is_old(record) {
            return false;
        }
        let key = (self.place.clone(), *digest);
        let is_due = !self.access.confirming.contains_key(&key);
        if is_due {
            self.access.confirming.insert(key, ());
        }
        is_due
    }

    /// The registry has said once more that it has the object here, and what it calls it.
    pub(super) async fn confirm(&self, digest: &Digest, media_type: Option<&MediaType>) {
        let known = self.content(digest).await;
        let is_known = known.as_ref().is_some_and(|record| {
            !is_old(record)
                && media_type.is_none_or(|told| record.media_type.as_deref() == Some(told.as_str()))
        });
        if !is_known {
            let before =
                known.and_then(|record| MediaType::of_manifest(record.media_type.as_deref()?));
            self.belongs(digest, media_type.or(before.as_ref())).await;
            self.records.share(digest);
        }
    }

    /// The registry has the object here no more.
    pub(super) async fn disown(&self, digest: &Digest) {
        self.access.disown(&self.records, &self.place, digest).await;
    }

    /// The registry has confirmed the object here, whose bytes it has delivered elsewhere.
    pub(super) async fn belongs(&self, digest: &Digest, media_type: Option<&MediaType>) {
        let mut record = ContentRecord::now(media_type.map(MediaType::as_str));
        // That an operator brought it stays true.
        record.imported = self.content_here(digest).await.and_then(|before| before.imported);
        self.access.contents.insert((self.place.clone(), *digest), record.clone());
        write(&self.records, digest, &record).await;
    }
}

/// What replicas know of an object that is not kept by this one.
pub(super) enum SharedContent {
    /// It belongs here.
    Here(ContentRecord),
    /// The registry has delivered it for another of its repositories.
    Elsewhere,
    /// Nobody has met it.
    Unknown,
}

fn is_old(record: &ContentRecord) -> bool {
    // A clock that has been set back since makes nothing old.
    record.recorded.elapsed().is_ok_and(|age| age >= CONFIRMED)
}

/// For how long what was right before stays so while the registry can't be asked; not at all if it
/// has answered.
fn unasked(error: &UpstreamError) -> Option<Duration> {
    if !error.is_trouble() {
        None
    } else if error.is_offline() {
        Some(Duration::MAX)
    } else if error.is_away() || error.is_of_credentials() {
        Some(UNASKED_AWAY)
    } else {
        Some(UNASKED_UNWELL)
    }
}

async fn write(records: &Records, digest: &Digest, record: &ContentRecord) {
    if let Err(error) = records.record_content(digest, record).await {
        tracing::warn!(%digest, %error, "a record could not be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::identity::Identifier;
    use entrepot_cache::Store;
    use entrepot_oci::Algorithm;
    use http::{HeaderMap, HeaderValue, header};

    struct World {
        store: Store,
        access: Arc<Access>,
        _dir: tempfile::TempDir,
    }

    impl World {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let options = entrepot_cache::Options::new(dir.path());
            let store = Store::open(options).await.unwrap();
            Self { store, access: Arc::new(Access::new(Shares::new(Some(0)))), _dir: dir }
        }

        fn rights(&self, identity: Identity) -> Rights {
            let registry = Registry::at(&"ghcr.io:443".parse().unwrap());
            let place = Place::new(&registry, &"a/b".parse().unwrap());
            let archive = Archive::new(self.store.clone(), None);
            Rights::new(&archive, self.access.clone(), place, identity, String::new())
        }
    }

    fn client() -> Identity {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        Identifier::new().identify(&headers)
    }

    async fn advance(time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    #[tokio::test]
    async fn a_grant_is_as_old_as_its_question() {
        let world = World::new().await;
        let left = Duration::from_secs(10);
        let (theirs, everybodys) = (world.rights(client()), world.rights(Identity::Shared));
        let asked = Instant::now();
        advance(CLIENT_GRANT.checked_sub(left).unwrap()).await;
        // A download that took as long ends now.
        theirs.grant(asked).await;
        assert!(theirs.may_pull().await);
        advance(left).await;
        assert!(!theirs.may_pull().await);
        theirs.grant(asked).await;
        assert!(!theirs.may_pull().await, "what is over is over");

        let asked = Instant::now();
        let lasting = SHARED_GRANT.checked_sub(left).unwrap();
        advance(lasting).await;
        everybodys.grant(asked).await;
        assert!(everybodys.shared_left().is_some_and(|rest| rest <= left));
        assert!(everybodys.last_served().await.is_some_and(|age| age >= lasting));
    }

    #[tokio::test]
    async fn a_refusal_counts_more_than_what_was_asked_before_it() {
        let world = World::new().await;
        for identity in [client(), Identity::Shared] {
            let rights = world.rights(identity);
            let asked = Instant::now();
            rights.revoke().await;
            rights.grant(asked).await;
            assert!(!rights.may_pull().await);
            rights.grant(Instant::now() + Duration::from_millis(1)).await;
            assert!(rights.may_pull().await, "asked again, and let in");
        }
    }

    #[tokio::test]
    async fn what_is_on_record_for_a_day_is_confirmed_once() {
        let world = World::new().await;
        let rights = world.rights(Identity::Shared);
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let aged = |age: Duration| {
            let mut record = ContentRecord::now(None);
            record.recorded -= age;
            record
        };
        assert!(!rights.is_to_be_confirmed(&digest, &aged(CONFIRMED / 2)));
        let mut brought = aged(CONFIRMED * 2);
        brought.imported = Some(brought.recorded);
        assert!(!rights.is_to_be_confirmed(&digest, &brought), "an operator's");
        assert!(rights.is_to_be_confirmed(&digest, &aged(CONFIRMED * 2)));
        assert!(!rights.is_to_be_confirmed(&digest, &aged(CONFIRMED * 2)), "it is being asked");
    }
}
