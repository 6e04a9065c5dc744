//! The store: opening it, and asking it for objects.

use crate::bytes::{first_use, verify};
use crate::disk::threads;
use crate::eviction::withdrawal;
use crate::records::listing;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use entrepot_oci::{Registry, RepositoryName};

use crate::bytes::object::Object;
use crate::bytes::open_files::Opened;
use crate::disk::lock::Lock;
use crate::disk::recovery::recover;
use crate::disk::tree::Tree;
use crate::disk::{Disk, DiskError};
use crate::download::in_flight::{Boarding, Flights, Ticket};
use crate::download::origin::Origin;
use crate::download::publish::{publish, remove_quietly};
use crate::download::reservation::{interrupted, usable};
use crate::eviction::pins::Pins;
use crate::eviction::{Bounds, Keeper};
use crate::index::Index;
use crate::index::references::{Interpreter, References};
use crate::inner::Shared;
use crate::{
    Digest, IndexState, OpenError, Options, Pace, PutError, QuarantineError, Reach, Reader,
    Repository, RepositoryPath, Reservation, Verdict, Withdrawn,
};

/// How often it is looked whether the index has been read: only its owner's thread knows when.
const LOOK: Duration = Duration::from_millis(10);
/// How long whoever asks for the bounds to be held waits for that.
const HELD: Duration = Duration::from_secs(30);

/// An open store. Cheap to clone; all clones are the same store.
///
/// Its methods must be called within a tokio runtime. None of them blocks the caller's thread.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

/// Where an object is to be had.
#[derive(Debug)]
#[must_use]
pub enum Lookup {
    /// It is kept: verified when it came, and once more in this run before its end is shown
    /// ([`Reader::verified`]).
    Kept(Reader),
    /// Somebody is downloading it: follow.
    InFlight(Reader),
    /// Nobody has it, and it is the caller's to download.
    Absent(Reservation),
}

/// Whether an object is there, without a claim to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is kept.
    Kept,
    /// It is being downloaded.
    InFlight,
    /// Neither.
    Absent,
}

/// How much is kept. A sum of hints: exact but for what happened during a crash, and set right in
/// the background after one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Number of kept objects.
    pub objects: u64,
    /// Their sizes' sum in bytes.
    pub bytes: u64,
    /// Number of objects evicted since the store was opened.
    pub evicted_objects: u64,
    /// Their sizes' sum in bytes.
    pub evicted_bytes: u64,
    /// Number of damaged objects set aside since the store was opened.
    pub quarantined_objects: u64,
}

/// A kept object, as far as is known from memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last asked for, or came; to the second.
    pub last_use: SystemTime,
    /// How often it was asked for.
    pub hits: u64,
    /// Whether it is pinned itself.
    pub is_pinned: bool,
}

/// A download under way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Download {
    /// What is being downloaded.
    pub digest: Digest,
    /// The registry that it comes from.
    pub origin: String,
    /// How many bytes readers can see: nearly all that have come.
    pub available: u64,
    /// The size of the whole object in bytes, where the upstream has told it.
    pub total: Option<u64>,
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
        let shared = opened.map_err(OpenError::Interrupted)?.map(Arc::new)?;
        shared.keeper.start(&shared);
        Ok(Self { shared })
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
            self.shared.keeper.close();
            self.shared.index.close();
        })
        .await;
    }

    /// The object if it is kept or in flight, else the exclusive right to download it from the
    /// registry called `origin` (`docker.io`, `registry.corp:5000`).
    ///
    /// A download that broke off is continued only for the origin that began it. A download in
    /// flight is followed whoever it comes from: show its bytes only to clients of
    /// [`Reader::origin`].
    ///
    /// A kept object that this process has neither published nor verified is verified now: a small
    /// one (1 MiB at most) before this returns, a large one in the background, while its end is held
    /// back. A damaged one moves to `quarantine/` and is absent from then on; those who read it
    /// already get [`ReadError::Damaged`](crate::ReadError::Damaged).
    ///
    /// Waits while another caller's reservation has not begun; of many who ask for the same cold
    /// digest exactly one leads. A disk error counts as absent (it is logged; the download's
    /// beginning will meet it again). Cancel safe: a reservation that was about to be returned is
    /// given up.
    pub async fn lookup(&self, digest: &Digest, origin: &str) -> Lookup {
        let found = self.look_up(digest, origin).await;
        if matches!(found, Lookup::Kept(_)) {
            self.shared.index.used(digest);
        }
        found
    }

    async fn look_up(&self, digest: &Digest, origin: &str) -> Lookup {
        if let Some(object) = self.shared.opened.find(digest) {
            return self.kept(object);
        }
        let origin = Origin::new(origin);
        loop {
            match self.shared.flights.board(digest, &origin) {
                Boarding::Follow(object) => return Lookup::InFlight(Reader::new(object)),
                Boarding::Wait(freed) => freed.await,
                Boarding::Lead(ticket) => return self.lead(ticket).await,
            }
        }
    }

    async fn lead(&self, ticket: Ticket) -> Lookup {
        let (shared, digest) = (Arc::clone(&self.shared), *ticket.digest());
        let origin = ticket.origin().clone();
        match threads::run(move || find(&shared, &digest, &origin))
            .await
            .unwrap_or(Found::Partial(0))
        {
            Found::Kept(object) => self.kept(object),
            Found::Partial(resume_from) => {
                Lookup::Absent(Reservation::new(Arc::clone(&self.shared), ticket, resume_from))
            }
        }
    }

    fn kept(&self, object: Arc<Object>) -> Lookup {
        first_use::start(&self.shared, &object);
        Lookup::Kept(Reader::new(object))
    }

    /// The object if it is kept, verified as by [`lookup`](Self::lookup); it counts as no use.
    pub async fn look_at(&self, digest: &Digest) -> Option<Reader> {
        match self.look_up(digest, "").await {
            Lookup::Kept(reader) => Some(reader),
            Lookup::InFlight(_) | Lookup::Absent(_) => None,
        }
    }

    /// Whether an object is kept or in flight, from memory: a hint, without reserving anything.
    ///
    /// While the index is still being read (see [`index_state`](Self::index_state)) an object that
    /// is not known yet costs one look at the directory.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> Presence {
        self.shared.presence(digest)
    }

    /// Waits until `digest` is neither reserved nor in flight: what its download has brought is kept
    /// by then, or is not going to be. It has no timeout. Cancel safe.
    pub async fn free(&self, digest: &Digest) {
        self.shared.flights.free(digest).await;
    }

    /// Keeps a small whole object (a manifest): verified, synced, published.
    /// One that is larger than `max_size` is given back and not kept.
    ///
    /// What is kept already is not written again. Does not touch a download of the same digest.
    /// When the future is dropped the object may or may not be kept, never half.
    pub async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<Reader, PutError> {
        let put = self.off_thread(digest, move |shared, digest| put(shared, digest, bytes)).await;
        put.map_err(|error| PutError::Store(interrupted(error)))?.map(Reader::new)
    }

    /// The records of `repository` (`library/alpine`) at `registry`. Nothing is created yet.
    #[must_use]
    pub fn repository(&self, registry: &Registry, repository: &RepositoryName) -> Repository {
        Repository::new(Arc::clone(&self.shared), registry, repository)
    }

    /// The records of `registry` as a whole.
    #[must_use]
    pub fn registry(&self, registry: &Registry) -> Repository {
        Repository::of_registry(Arc::clone(&self.shared), registry)
    }

    /// Moves an object to `quarantine/`; who is reading it goes on.
    pub async fn quarantine(&self, digest: &Digest) -> Result<(), QuarantineError> {
        self.take_out(digest, verify::quarantine).await
    }

    /// Removes an object; who is reading it goes on.
    pub async fn remove(&self, digest: &Digest) -> Result<(), QuarantineError> {
        self.take_out(digest, verify::remove).await
    }

    async fn take_out(
        &self,
        digest: &Digest,
        work: fn(&Shared, &Digest) -> Result<(), QuarantineError>,
    ) -> Result<(), QuarantineError> {
        let taken = self.off_thread(digest, work).await;
        taken.unwrap_or_else(|error| Err(QuarantineError::Store(interrupted(error))))
    }

    /// Does blocking `work` on one object.
    async fn off_thread<T: Send + 'static>(
        &self,
        digest: &Digest,
        work: impl FnOnce(&Shared, &Digest) -> T + Send + 'static,
    ) -> std::io::Result<T> {
        let (shared, digest) = (Arc::clone(&self.shared), *digest);
        let (lanes, lane) = (Arc::clone(&shared.lanes), shared.tree.blob(&digest));
        lanes.run(&lane, move || work(&shared, &digest)).await
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
        let shared = Arc::clone(&self.shared);
        let taken =
            threads::run(move || withdrawal::withdraw(&shared, documents, exempt, reach)).await;
        taken.unwrap_or_else(|error| Err(interrupted(error)))
    }

    /// Hashes a kept object from the disk at that pace; at its fullest about 2 GB/s of one core.
    /// Changes nothing.
    pub async fn verify_at(&self, digest: &Digest, pace: Pace) -> Verdict {
        let verify = move |shared: &Shared, digest: &Digest| verify::verify(shared, digest, pace);
        let verdict = self.off_thread(digest, verify).await;
        verdict.unwrap_or_else(|error| Verdict::Unreadable(interrupted(error)))
    }

    /// Every object in the tree, in no order: a walk, not a look at the index.
    pub async fn objects(&self) -> Result<Vec<Digest>, DiskError> {
        let shared = Arc::clone(&self.shared);
        let walked = threads::run(move || {
            let mut digests = Vec::new();
            verify::walk(&shared.tree, |digest| digests.push(digest)).map(|()| digests)
        });
        walked.await.unwrap_or_else(|error| Err(interrupted(error)))
    }

    /// The bytes of a small kept object (8 MiB at most), if they are right. It counts as no use.
    pub async fn peek(&self, digest: &Digest) -> Option<Bytes> {
        self.off_thread(digest, verify::peek).await.ok().flatten()
    }

    /// Wherever there may be records: those of every repository before its registry's. A walk
    /// through the directories.
    pub async fn all_records(&self) -> Result<Vec<Repository>, DiskError> {
        let shared = Arc::clone(&self.shared);
        let listed = threads::run(move || listing::directories(&shared.tree)).await;
        let dirs = listed.unwrap_or_else(|error| Err(interrupted(error)))?;
        Ok(dirs.into_iter().map(|dir| Repository::at(Arc::clone(&self.shared), dir)).collect())
    }

    /// Every repository that has records, in order: names alone, a walk through the directories.
    pub async fn repositories(&self) -> Result<Vec<RepositoryPath>, DiskError> {
        let shared = Arc::clone(&self.shared);
        let listed = threads::run(move || listing::repositories(&shared.tree)).await;
        listed.unwrap_or_else(|error| Err(interrupted(error)))
    }

    /// Keeps `digest` and all that it needs from being evicted, whether it is kept already or not;
    /// durable once this returns. It can still be removed or quarantined.
    ///
    /// To have an object for good, pin it and then look it up.
    pub async fn pin(&self, digest: &Digest) -> Result<(), DiskError> {
        let (shared, digest) = (Arc::clone(&self.shared), *digest);
        // Changes of pins wait for each other: all of them are one lane.
        let (lanes, lane) = (Arc::clone(&shared.lanes), shared.tree.pins(digest.algorithm()));
        let pinned = lanes.run(&lane, move || shared.pins.pin(&shared.tree, &digest)).await;
        pinned.unwrap_or_else(|error| Err(interrupted(error)))
    }

    /// Takes a pin away; without effect when there is none.
    pub async fn unpin(&self, digest: &Digest) -> Result<(), DiskError> {
        let (shared, digest) = (Arc::clone(&self.shared), *digest);
        let (lanes, lane) = (Arc::clone(&shared.lanes), shared.tree.pins(digest.algorithm()));
        let unpinned = lanes.run(&lane, move || shared.pins.unpin(&shared.tree, &digest)).await;
        unpinned.unwrap_or_else(|error| Err(interrupted(error)))
    }

    /// What `digest` needs, if it is a kept document: see [`Options::references`]. From memory, and
    /// only a hint: empty also while the index is being read.
    #[must_use]
    pub fn references_of(&self, digest: &Digest) -> Vec<Digest> {
        self.shared.index.references(digest).as_slice().to_vec()
    }

    /// Whether `digest` itself is pinned, from memory.
    #[must_use]
    pub fn is_pinned(&self, digest: &Digest) -> bool {
        self.shared.pins.has(digest)
    }

    /// Evicts what the bounds of [`Options`] demand, now; returns when that is done.
    ///
    /// It happens by itself in the background: this is for whoever wants to see the result. While
    /// the index is being read only `min_free` is held. A disk that hangs is waited for 30 s.
    pub async fn hold_bounds(&self) {
        if tokio::time::timeout(HELD, self.shared.keeper.ask()).await.is_err() {
            tracing::warn!("evicting takes too long; it goes on in the background");
        }
    }

    /// What is kept, in the order of the digests' text: at most `limit` of them behind `after`. From
    /// memory, and complete as far as the index is.
    #[must_use]
    pub fn list(&self, after: Option<&Digest>, limit: usize) -> Vec<Kept> {
        let mut kept = self.shared.index.kept(after, limit);
        for one in &mut kept {
            one.is_pinned = self.shared.pins.has(&one.digest);
        }
        kept
    }

    /// What is known of one kept object: from memory, as far as the index has been read.
    #[must_use]
    pub fn find(&self, digest: &Digest) -> Option<Kept> {
        let kept = self.shared.index.find(digest)?;
        Some(Kept { is_pinned: self.shared.pins.has(digest), ..kept })
    }

    /// Waits until it is known what is kept, and what needs what: whether that is so in time.
    pub async fn is_known_within(&self, patience: Duration) -> bool {
        let known = async {
            while !self.shared.index.is_complete() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(patience, known).await.is_ok()
    }

    /// The downloads that are under way now, in no order.
    #[must_use]
    pub fn downloads(&self) -> Vec<Download> {
        self.shared.flights.downloads()
    }

    /// How much is kept, from memory.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.index.totals()
    }

    /// How the index is.
    #[must_use]
    pub fn index_state(&self) -> IndexState {
        self.shared.index.state()
    }
}

/// How the index of an opened tree is started.
type StartIndex = fn(Tree, Interpreter, Arc<Lock>) -> Index;

fn open(options: Options, start: StartIndex) -> Result<Shared, OpenError> {
    let keeper = Keeper::new(Bounds::of(&options));
    let documents = Interpreter::new(options.references);
    let tree = Tree::new(options.dir, options.disk);
    tree.claim()?;
    let lock = Arc::new(Lock::take(&tree)?);
    let prepared = tree.create_directories().and_then(|()| recover(&tree));
    let pins = prepared.and_then(|()| Pins::load(&tree));
    let pins = pins.map_err(|error| tree.failed(error))?;
    let walked = Tree::new(tree.dir().to_owned(), Disk::real());
    let index = start(walked, documents, Arc::clone(&lock));
    Ok(Shared {
        tree,
        flights: Arc::new(Flights::default()),
        opened: Opened::default(),
        lanes: Arc::default(),
        buffers: Arc::default(),
        index,
        pins,
        documents,
        keeper,
        checks: first_use::slots(),
        durable_shards: parking_lot::Mutex::default(),
        _lock: lock,
    })
}

enum Found {
    Kept(Arc<Object>),
    /// So many bytes of a partial file can be used.
    Partial(u64),
}

fn find(shared: &Shared, digest: &Digest, origin: &Origin) -> Found {
    match shared.open_kept(digest) {
        Ok(Some(object)) => return Found::Kept(object),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%error, cause = %error.io(), "kept object can't be opened");
        }
    }
    let partial = shared.tree.disk().file_size(&shared.tree.partial(digest, origin));
    Found::Partial(partial.map_or(0, usable))
}

fn put(shared: &Shared, digest: &Digest, bytes: Bytes) -> Result<Arc<Object>, PutError> {
    let actual = Digest::of(digest.algorithm(), &bytes);
    if actual != *digest {
        return Err(PutError::DigestMismatch { expected: *digest, actual: Box::new(actual) });
    }
    let references = shared.documents.read(digest, &bytes);
    match shared.open_kept(digest) {
        Ok(Some(object)) if object.is_verified() => {
            shared.index.learnt(digest, references);
            Ok(object)
        }
        _ => write_whole(shared, digest, bytes, references).map_err(PutError::Store),
    }
}

fn write_whole(
    shared: &Shared,
    digest: &Digest,
    bytes: Bytes,
    references: References,
) -> Result<Arc<Object>, DiskError> {
    let draft = shared.tree.temporary();
    let size = bytes.len() as u64;
    let file = shared.tree.disk().create_new(&draft)?;
    file.write_all_at(&[bytes], 0).inspect_err(|_| remove_quietly(shared, &draft))?;
    let keeps = shared.keeps(digest, size);
    if keeps {
        publish(shared, &file, &draft, digest)?;
    } else {
        remove_quietly(shared, &draft);
    }
    let object = Arc::new(Object::kept(*digest, Arc::new(file), &shared.buffers, size));
    if keeps {
        shared.published(&object, references);
    }
    Ok(object)
}
