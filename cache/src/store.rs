//! The store: opening it, and asking it for objects.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_oci::{Digest, Registry, RepositoryName, UnixSeconds};

use crate::bytes::kept::KeptObjects;
use crate::bytes::object::Object;
use crate::bytes::reader::Reader;
use crate::bytes::verify::{self, Pace, Verdict};
use crate::bytes::{first_use, opening};
use crate::disk::lock::Lock;
use crate::disk::open_error::OpenError;
use crate::disk::recovery::recover;
use crate::disk::threads;
use crate::disk::tree::Tree;
use crate::disk::{Disk, DiskError};
use crate::download::in_flight::{Download, InFlight, Joined, Permit};
use crate::download::origin::Origin;
use crate::download::publish::Publisher;
use crate::download::reservation::{Reservation, usable};
use crate::download::whole;
use crate::errors::{PutError, QuarantineError, RecordError};
use crate::eviction::Eviction;
use crate::eviction::pins::Pins;
use crate::eviction::stock::Stock;
use crate::eviction::withdrawal::{Reach, Withdrawn, foresee, withdraw};
use crate::index::references::Interpreter;
use crate::index::state::{IndexState, Kept, Totals};
use crate::index::{Documents, Index};
use crate::inner::{Inner, Presence};
use crate::options::Options;
use crate::records::listing::{self, RepositoryPath};
use crate::records::repository::Repository;
use crate::records::savings::{self, SavingsRecord};

/// How often it is looked whether the index has been read: only its owner's thread knows when.
const LOOK: Duration = Duration::from_millis(10);
/// Upper bound of the wait in [`Store::hold_bounds`]: the disk may hang.
const HELD: Duration = Duration::from_secs(30);

/// An open store. Cheap to clone; all clones are the same store.
///
/// Its methods must be called within a tokio runtime. None of them blocks the caller's thread.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

/// Where an object is to be had.
#[derive(Debug)]
#[must_use]
pub enum Lookup {
    /// It is kept: verified when it came, and once more in this run before its end is shown
    /// ([`Reader::verified`]).
    Kept(Reader),
    /// It is being downloaded: follow.
    InFlight(Reader),
    /// It is neither, and is the caller's to download.
    Absent(Reservation),
}

impl Store {
    /// Opens the store in `options.dir`, creating it when the directory is missing or empty.
    ///
    /// Takes the store's lock (waiting up to 0.6 s for a predecessor that is just ending) and
    /// cleans up what a crash left in `partial/`. A directory that is not a store, or one in an
    /// unknown format, is refused and nothing in it is touched. The index is read in the
    /// background: opening takes no longer for a large store.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        Self::open_with(options, Index::start).await
    }

    async fn open_with(options: Options, start: StartIndex) -> Result<Self, OpenError> {
        let opened = threads::run(move || open(options, start)).await;
        let inner = opened.map_err(|error| OpenError::Interrupted(io::Error::other(error)))??;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A store whose index is never read to its end.
    #[cfg(test)]
    pub(crate) async fn open_young(options: Options) -> Self {
        Self::open_with(options, Index::start_young).await.unwrap()
    }

    /// Ends eviction, writes the index's last batch and waits for its owner.
    ///
    /// Call it last: the lock is given back when the last clone, reservation and writer are gone
    /// too. A store that is merely dropped loses nothing but hints.
    pub async fn close(self) {
        let _ = threads::run(move || {
            self.inner.eviction.close();
            self.inner.kept.index.close();
        })
        .await;
    }

    /// The object if it is kept or in flight, else the exclusive right to download it from the
    /// registry called `origin` (`docker.io`, `registry.corp:5000`).
    ///
    /// A download that broke off is continued only for the origin that began it, and one in flight
    /// is followed only for its origin: another registry's is another download, and the first that
    /// comes right is published. Show its bytes only to clients of [`Reader::origin`].
    ///
    /// A kept object that this process has neither published nor verified is verified now: a small
    /// one (1 MiB at most) before this returns, a large one in the background, while its end is
    /// held back. A damaged one moves to `quarantine/` and is absent from then on; those who read
    /// it already get [`ReadError::Damaged`](crate::ReadError::Damaged).
    ///
    /// Waits while another caller's reservation for the same origin has not begun; of many who ask
    /// one origin for the same cold digest exactly one leads. A disk error counts as absent (it is
    /// logged; the download's beginning will meet it again). Cancel safe: a reservation that was
    /// about to be returned is given up.
    pub async fn lookup(&self, digest: &Digest, origin: &str) -> Lookup {
        let found = self.look_up(digest, origin).await;
        if matches!(found, Lookup::Kept(_)) {
            self.inner.kept.index.used(digest);
        }
        found
    }

    async fn look_up(&self, digest: &Digest, origin: &str) -> Lookup {
        if let Some(object) = self.inner.kept.open_files.find(digest) {
            return self.kept(object);
        }
        let origin = Origin::new(origin);
        loop {
            match self.inner.in_flight.join(digest, &origin) {
                Joined::Follow(object) => return Lookup::InFlight(Reader::new(object)),
                Joined::Wait(freed) => freed.await,
                Joined::Lead(permit) => return self.lead(permit).await,
            }
        }
    }

    async fn lead(&self, permit: Permit) -> Lookup {
        let (kept, digest) = (Arc::clone(&self.inner.kept), *permit.digest());
        let origin = permit.origin().clone();
        let looked = threads::run(move || look_on_disk(&kept, &digest, &origin)).await;
        match looked.unwrap_or(OnDisk::Partial(0)) {
            OnDisk::Whole(object) => self.kept(object),
            OnDisk::Partial(resume_from) => {
                // A second tier would be asked here, and here alone, with the reservation in hand.
                let publisher = Arc::clone(&self.inner.publisher);
                Lookup::Absent(Reservation::new(publisher, permit, resume_from))
            }
        }
    }

    fn kept(&self, object: Arc<Object>) -> Lookup {
        first_use::start(&self.inner.kept, &object);
        if self.inner.kept.index.is_cold(object.digest()) {
            self.inner.kept.watch(&object);
        }
        Lookup::Kept(Reader::new(object))
    }

    /// The object if it is kept, verified as by [`lookup`](Self::lookup); it counts as no use, nor
    /// does reading it to its end.
    pub async fn look_at(&self, digest: &Digest) -> Option<Reader> {
        match self.look_up(digest, "").await {
            Lookup::Kept(reader) => Some(reader.uncounted()),
            Lookup::InFlight(_) | Lookup::Absent(_) => None,
        }
    }

    /// Whether an object is kept or in flight, from memory: a hint, without reserving anything.
    ///
    /// While the index is still being read (see [`index_state`](Self::index_state)) an object that
    /// is not known yet costs one look at the directory.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> Presence {
        self.inner.presence(digest)
    }

    /// Waits until `digest` is kept, or neither reserved nor in flight: what its downloads have
    /// brought is kept by then, or is not going to be. It has no timeout. Cancel safe.
    pub async fn free(&self, digest: &Digest) {
        loop {
            let change = self.inner.in_flight.change(digest);
            // Looked at behind that: what is published meanwhile is told.
            match change {
                Some(change) if self.inner.presence(digest) != Presence::Kept => change.await,
                _ => return,
            }
        }
    }

    /// Keeps a small whole object (a manifest): verified, synced, published.
    /// One that is larger than `max_size` is given back and not kept.
    ///
    /// What is kept already is not written again. Does not touch a download of the same digest.
    /// When the future is dropped the object may or may not be kept, never half.
    pub async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<Reader, PutError> {
        let work =
            move |inner: &Inner, digest: &Digest| whole::put(&inner.publisher, digest, bytes);
        self.off_thread(digest, work).await.map_err(PutError::Store)?.map(Reader::new)
    }

    /// The records of `repository` (`library/alpine`) at `registry`. Nothing is created yet.
    #[must_use]
    pub fn repository(&self, registry: &Registry, repository: &RepositoryName) -> Repository {
        Repository::new(Arc::clone(&self.inner), registry, repository)
    }

    /// The records of `registry` as a whole.
    #[must_use]
    pub fn registry(&self, registry: &Registry) -> Repository {
        Repository::of_registry(Arc::clone(&self.inner), registry)
    }

    /// Moves an object to `quarantine/`; who is reading it goes on.
    pub async fn quarantine(&self, digest: &Digest) -> Result<(), QuarantineError> {
        self.take_away(digest, KeptObjects::quarantine).await
    }

    /// Removes an object; who is reading it goes on.
    pub async fn remove(&self, digest: &Digest) -> Result<(), QuarantineError> {
        self.take_away(digest, KeptObjects::remove).await
    }

    async fn take_away(
        &self,
        digest: &Digest,
        work: fn(&KeptObjects, &Digest) -> Result<(), QuarantineError>,
    ) -> Result<(), QuarantineError> {
        let work = move |inner: &Inner, digest: &Digest| work(&inner.kept, digest);
        self.off_thread(digest, work).await.map_err(QuarantineError::Store)?
    }

    /// Does blocking `work` on one object.
    async fn off_thread<T: Send + 'static>(
        &self,
        digest: &Digest,
        work: impl FnOnce(&Inner, &Digest) -> T + Send + 'static,
    ) -> Result<T, DiskError> {
        let (inner, digest) = (Arc::clone(&self.inner), *digest);
        let (permits, name) = (Arc::clone(&inner.permits), inner.tree().blob(&digest));
        permits.run(&name, move || work(&inner, &digest)).await
    }

    /// Takes `documents` out, with all that only they need; who is reading any of it goes on.
    ///
    /// What is pinned or `exempt` stays, with what it needs; so does what another kept document
    /// needs, and what is asked for just now. While the index is being read it is not known what
    /// needs what: wait for [`is_known_within`](Self::is_known_within) before.
    pub async fn withdraw(
        &self,
        documents: HashSet<Digest>,
        exempt: HashSet<Digest>,
        reach: Reach,
    ) -> Result<Withdrawn, DiskError> {
        let stock = Arc::clone(self.inner.eviction.stock());
        threads::run(move || withdraw(&stock, documents, exempt, reach)).await?
    }

    /// What [`withdraw`](Self::withdraw) would take out with [`Reach::All`]; changes nothing.
    pub async fn foresee_withdrawal(
        &self,
        documents: HashSet<Digest>,
        exempt: HashSet<Digest>,
    ) -> Result<Withdrawn, DiskError> {
        let stock = Arc::clone(self.inner.eviction.stock());
        threads::run(move || foresee(&stock, documents, exempt)).await
    }

    /// When a kept object came, to the second: its file is written once.
    pub async fn arrival(&self, digest: &Digest) -> Option<UnixSeconds> {
        let work = |inner: &Inner, digest: &Digest| {
            let tree = inner.tree();
            tree.disk().file_size_and_time(&tree.blob(digest)).ok()
        };
        let (_, arrived) = self.off_thread(digest, work).await.ok().flatten()?;
        Some(arrived)
    }

    /// Hashes a kept object from the disk at that pace; at its fullest about 2 GB/s of one core.
    /// Changes nothing.
    pub async fn verify_at(&self, digest: &Digest, pace: Pace) -> Verdict {
        let work = move |inner: &Inner, digest: &Digest| verify::verify(&inner.kept, digest, pace);
        self.off_thread(digest, work).await.unwrap_or_else(Verdict::Unreadable)
    }

    /// Every object in the tree, in no order: a walk, not a look at the index.
    pub async fn objects(&self) -> Result<Vec<Digest>, DiskError> {
        let inner = Arc::clone(&self.inner);
        let walked = threads::run(move || {
            let mut digests = Vec::new();
            inner.tree().walk(|digest| digests.push(digest)).map(|()| digests)
        });
        walked.await?
    }

    /// The bytes of a small kept object (8 MiB at most), if they are right. It counts as no use.
    pub async fn peek(&self, digest: &Digest) -> Option<Bytes> {
        let work = |inner: &Inner, digest: &Digest| verify::peek(&inner.kept, digest);
        self.off_thread(digest, work).await.ok().flatten()
    }

    /// What the store's user has counted, as it was written last.
    pub async fn savings(&self) -> Result<SavingsRecord, DiskError> {
        let inner = Arc::clone(&self.inner);
        threads::run(move || savings::read(&inner)).await?
    }

    /// Keeps what the store's user has counted, in place of what was kept before; durable once this
    /// returns. When the future is dropped it may or may not be, never half.
    pub async fn keep_savings(&self, record: &impl serde::Serialize) -> Result<(), RecordError> {
        savings::write(&self.inner, record).await
    }

    /// Wherever there may be records: those of every repository before its registry's. A walk
    /// through the directories.
    pub async fn all_records(&self) -> Result<Vec<Repository>, DiskError> {
        let inner = Arc::clone(&self.inner);
        let dirs = threads::run(move || listing::directories(inner.tree())).await??;
        Ok(dirs.into_iter().map(|dir| Repository::at(Arc::clone(&self.inner), dir)).collect())
    }

    /// Every repository that has records, in order: names alone, a walk through the directories.
    pub async fn repositories(&self) -> Result<Vec<RepositoryPath>, DiskError> {
        let inner = Arc::clone(&self.inner);
        threads::run(move || listing::repositories(inner.tree())).await?
    }

    /// Keeps `digest` and all that it needs from being evicted, whether it is kept already or not;
    /// durable once this returns. It can still be removed or quarantined.
    ///
    /// To have an object for good, pin it and then look it up.
    pub async fn pin(&self, digest: &Digest) -> Result<(), DiskError> {
        self.change_pins(digest, Pins::pin).await
    }

    /// Takes a pin away; without effect when there is none.
    pub async fn unpin(&self, digest: &Digest) -> Result<(), DiskError> {
        self.change_pins(digest, Pins::unpin).await
    }

    /// All that is pinned itself, in no order; from memory.
    #[must_use]
    pub fn pins(&self) -> Vec<Digest> {
        self.inner.eviction.pins().all().into_iter().collect()
    }

    /// Changes of pins wait for each other: all of them take the permits of one name.
    async fn change_pins(
        &self,
        digest: &Digest,
        change: fn(&Pins, &Tree, &Digest) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let (inner, digest) = (Arc::clone(&self.inner), *digest);
        let permits = Arc::clone(&inner.permits);
        let name = inner.tree().pins(digest.algorithm());
        permits.run(&name, move || change(inner.eviction.pins(), inner.tree(), &digest)).await?
    }

    /// What `digest` needs, if it is a kept document: see [`Options::references`]. From memory
    /// where it is remembered, else from its file. Only a hint: empty also while the index is being
    /// read.
    pub async fn references_of(&self, digest: &Digest) -> Vec<Digest> {
        let references = self.inner.kept.index.references(digest);
        if references.is_remembered() {
            return references.remembered().collect();
        }
        let work = |inner: &Inner, digest: &Digest| inner.eviction.stock().read(digest);
        self.off_thread(digest, work).await.ok().flatten().unwrap_or_default()
    }

    #[cfg(test)]
    pub(crate) fn remembered_reference_bytes(&self) -> u64 {
        self.inner.kept.index.reference_bytes()
    }

    /// Whether `digest` is a kept document that needs other objects. From memory, and only a hint.
    #[must_use]
    pub fn is_document(&self, digest: &Digest) -> bool {
        self.inner.kept.index.references(digest).are_of_document()
    }

    /// Whether `digest` itself is pinned, from memory.
    #[must_use]
    pub fn is_pinned(&self, digest: &Digest) -> bool {
        self.inner.eviction.pins().has(digest)
    }

    /// Evicts what the bounds of [`Options`] demand, now; returns when that is done.
    ///
    /// It happens by itself in the background: this is for callers that want to see the result.
    /// While the index is being read only `min_free` is held. A disk that hangs is waited for 30 s.
    pub async fn hold_bounds(&self) {
        if tokio::time::timeout(HELD, self.inner.eviction.ask()).await.is_err() {
            tracing::warn!("evicting takes too long; it goes on in the background");
        }
    }

    /// What is kept, in the order of the digests' text: at most `limit` of them behind `after`.
    /// From memory, and complete as far as the index is.
    #[must_use]
    pub fn list(&self, after: Option<&Digest>, limit: usize) -> Vec<Kept> {
        let mut kept = self.inner.kept.index.kept(after, limit);
        for one in &mut kept {
            one.is_pinned = self.inner.eviction.pins().has(&one.digest);
        }
        kept
    }

    /// What is known of one kept object: from memory, as far as the index has been read.
    #[must_use]
    pub fn find(&self, digest: &Digest) -> Option<Kept> {
        let kept = self.inner.kept.index.find(digest)?;
        Some(Kept { is_pinned: self.inner.eviction.pins().has(digest), ..kept })
    }

    /// Waits until it is known what is kept, and what needs what: whether that is so in time.
    pub async fn is_known_within(&self, patience: Duration) -> bool {
        let known = async {
            while !self.inner.kept.index.is_complete() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(patience, known).await.is_ok()
    }

    /// The downloads that are under way now, in no order.
    #[must_use]
    pub fn downloads(&self) -> Vec<Download> {
        self.inner.in_flight.downloads()
    }

    /// How much is kept, from memory.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.inner.kept.index.totals()
    }

    /// How the index is.
    #[must_use]
    pub fn index_state(&self) -> IndexState {
        self.inner.kept.index.state()
    }
}

/// How the index of an opened tree is started.
type StartIndex = fn(Tree, Documents, Arc<Lock>) -> Index;

fn open(options: Options, start: StartIndex) -> Result<Inner, OpenError> {
    let bounds = options.bounds();
    let documents = Interpreter::new(options.references);
    let (room, queued) = (options.max_reference_bytes, options.max_queued_bytes);
    let tree = Tree::new(options.dir, options.disk);
    tree.claim()?;
    let lock = Arc::new(Lock::take(&tree)?);
    let prepared = tree.create_directories().and_then(|()| recover(&tree));
    let pins = prepared.and_then(|()| Pins::load(&tree));
    let pins = pins.map_err(|error| tree.failed(error))?;
    let walked = Tree::new(tree.dir().to_owned(), Disk::real());
    let described = Documents { interpreter: documents, room };
    let index = start(walked, described, Arc::clone(&lock));
    let kept = Arc::new(KeptObjects::new(tree, index, lock));
    let in_flight = Arc::<InFlight>::default();
    let (stocked, joined) = (Arc::clone(&kept), Arc::clone(&in_flight));
    let stock = Stock { kept: stocked, in_flight: joined, pins, documents };
    let eviction = Arc::new(Eviction::start(bounds, stock));
    let publisher = Publisher::new(Arc::clone(&kept), Arc::clone(&eviction), documents, queued);
    let (permits, publisher) = (Arc::default(), Arc::new(publisher));
    Ok(Inner { kept, in_flight, permits, eviction, publisher })
}

/// What the disk has of an object that is not open.
enum OnDisk {
    Whole(Arc<Object>),
    /// So many bytes of a partial file can be used.
    Partial(u64),
}

fn look_on_disk(kept: &KeptObjects, digest: &Digest, origin: &Origin) -> OnDisk {
    match opening::open(kept, digest) {
        Ok(Some(object)) => return OnDisk::Whole(object),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%error, cause = %error.io(), "kept object can't be opened");
        }
    }
    let partial = kept.tree.disk().file_size(&kept.tree.partial(digest, origin.as_str()));
    OnDisk::Partial(partial.map_or(0, usable))
}
