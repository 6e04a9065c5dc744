//! The bytes that readers share: one open file, and how far it may be read.
//!
//! Invariant: bytes below `visible` never change. Readers look at the phase again after every read:
//! what belongs to an object that has failed by then is not to be used.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use entrepot_oci::Digest;
use tokio::sync::watch;

use super::buffers::Buffers;
use crate::disk::DiskFile;
use crate::disk::threads::{self, Permits};
use crate::errors::ReadError;

/// How many bytes at the end of an unfinished object no reader sees before the digest is verified.
pub const HOLD_BACK: u64 = 64 * 1024;

/// Files larger than this are closed off the async threads.
const LARGE: u64 = 16 * 1024 * 1024;

/// Up to this size an object is kept in memory once it has been read.
const SMALL: usize = 32 * 1024;

/// An object, kept or in flight, as its readers see it.
#[derive(Debug)]
pub(crate) struct Object {
    digest: Digest,
    file: Arc<DiskFile>,
    buffers: Arc<Buffers>,
    /// The registry that it is downloaded from in this run.
    origin: Option<Arc<str>>,
    /// All of a small object, once it has been read: of manifests and configurations, which are
    /// asked for most.
    all: OnceLock<Bytes>,
    /// For reads from the disk: those without one wait without a thread.
    permits: Permits,
    /// Whether its verification has been undertaken.
    claimed: AtomicBool,
    /// Whether it has its final name.
    published: AtomicBool,
    /// How many handles readers have.
    readers: AtomicUsize,
    /// How many bytes they have got, all in all.
    served: AtomicU64,
    /// Whom to tell when it has been read, of one that nobody had.
    unread: OnceLock<WhenRead>,
    progress: watch::Sender<Progress>,
}

/// What is done when an object has been read.
struct WhenRead(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for WhenRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WhenRead")
    }
}

#[derive(Debug)]
struct Progress {
    visible: u64,
    total: Option<u64>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// On its way, or kept and not verified in this run.
    Unverified,
    Verified,
    Failed(ReadError),
}

impl Object {
    /// A finished object of `size` bytes.
    pub(crate) fn kept(
        digest: Digest,
        file: Arc<DiskFile>,
        buffers: &Arc<Buffers>,
        size: u64,
    ) -> Self {
        let progress = Progress { visible: size, total: Some(size), phase: Phase::Verified };
        Self::new(digest, file, buffers, None, progress)
    }

    /// A kept object of `size` bytes that is to be [claimed](Self::claim) and verified: until then
    /// its end is held back as if it were on its way.
    pub(crate) fn unverified(
        digest: Digest,
        file: Arc<DiskFile>,
        buffers: &Arc<Buffers>,
        size: u64,
    ) -> Self {
        let (visible, total) = (visible(size, Some(size)), Some(size));
        let progress = Progress { visible, total, phase: Phase::Unverified };
        let mut object = Self::new(digest, file, buffers, None, progress);
        object.claimed = AtomicBool::new(false);
        object
    }

    /// A download of `total` bytes (if that is known) of which `written` are in `file`.
    pub(crate) fn filling(
        digest: Digest,
        file: Arc<DiskFile>,
        buffers: &Arc<Buffers>,
        origin: Arc<str>,
        written: u64,
        total: Option<u64>,
    ) -> Self {
        let progress =
            Progress { visible: visible(written, total), total, phase: Phase::Unverified };
        Self::new(digest, file, buffers, Some(origin), progress)
    }

    fn new(
        digest: Digest,
        file: Arc<DiskFile>,
        buffers: &Arc<Buffers>,
        origin: Option<Arc<str>>,
        progress: Progress,
    ) -> Self {
        let (buffers, progress) = (Arc::clone(buffers), watch::Sender::new(progress));
        let (all, claimed) = (OnceLock::new(), AtomicBool::new(true));
        let permits = Permits::default();
        let published = AtomicBool::new(origin.is_none());
        Self {
            digest,
            file,
            buffers,
            origin,
            all,
            permits,
            claimed,
            published,
            readers: AtomicUsize::new(0),
            served: AtomicU64::new(0),
            unread: OnceLock::new(),
            progress,
        }
    }

    /// One reader more.
    pub(super) fn enter(&self) {
        self.readers.fetch_add(1, Ordering::Relaxed);
    }

    /// One reader less.
    pub(super) fn leave(&self) {
        self.readers.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn has_readers(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > 0
    }

    /// A reader has got so many bytes.
    pub(super) fn serve(&self, count: usize) {
        self.served.fetch_add(count as u64, Ordering::Relaxed);
        if let Some(WhenRead(tell)) = self.unread.get()
            && self.is_read()
        {
            tell();
        }
    }

    /// Whether readers have got as many bytes as it has: but for the end, behind which somebody may
    /// have left who has waited for it.
    pub(crate) fn is_read(&self) -> bool {
        self.served.load(Ordering::Relaxed) >= self.size().saturating_sub(HOLD_BACK)
    }

    /// Nobody has read this kept object since it came: `tell` is called when somebody has, perhaps
    /// more than once.
    pub(super) fn is_unread(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.unread.set(WhenRead(Box::new(tell)));
        // Somebody may just have come to its end.
        self.serve(0);
    }

    pub(crate) const fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(crate) const fn file(&self) -> &Arc<DiskFile> {
        &self.file
    }

    pub(crate) const fn buffers(&self) -> &Arc<Buffers> {
        &self.buffers
    }

    pub(crate) const fn permits(&self) -> &Permits {
        &self.permits
    }

    /// Whose bytes these are until they are published; `None` from then on.
    pub(crate) fn origin(&self) -> Option<&str> {
        let published = self.published.load(Ordering::Acquire);
        self.origin.as_ref().filter(|_| !published).map(AsRef::as_ref)
    }

    /// It has its final name.
    pub(crate) fn published(&self) {
        self.published.store(true, Ordering::Release);
    }

    pub(crate) fn total(&self) -> Option<u64> {
        self.progress.borrow().total
    }

    pub(crate) fn visible(&self) -> u64 {
        self.progress.borrow().visible
    }

    /// The size of a kept object.
    pub(crate) fn size(&self) -> u64 {
        let progress = self.progress.borrow();
        progress.total.unwrap_or(progress.visible)
    }

    /// Whether verifying this kept object is the caller's from now on; never twice.
    pub(crate) fn claim(&self) -> bool {
        !self.claimed.load(Ordering::Relaxed) && !self.claimed.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_verified(&self) -> bool {
        matches!(self.progress.borrow().phase, Phase::Verified)
    }

    /// Waits until the object is verified, or known never to be.
    pub(crate) async fn whole(&self) -> Result<(), ReadError> {
        if let Some(answer) = self.progress.borrow().verdict() {
            return answer;
        }
        let mut progress = self.progress.subscribe();
        match progress.wait_for(|progress| progress.verdict().is_some()).await {
            Ok(progress) => progress.verdict().unwrap_or(Err(ReadError::Broken)),
            Err(_closed) => Err(ReadError::Broken),
        }
    }

    /// An error once what was read must not be used: a disk that fails changes nothing of that.
    pub(crate) fn check(&self) -> Result<(), ReadError> {
        match &self.progress.borrow().phase {
            Phase::Failed(ReadError::Store(_)) | Phase::Unverified | Phase::Verified => Ok(()),
            Phase::Failed(error) => Err(error.clone()),
        }
    }

    /// Waits until a byte past `offset` is visible or the object is whole; returns how many bytes
    /// are visible.
    pub(crate) async fn visible_past(&self, offset: u64) -> Result<u64, ReadError> {
        if let Some(answer) = self.progress.borrow().answer(offset) {
            return answer;
        }
        let mut progress = self.progress.subscribe();
        let reached = progress.wait_for(|progress| progress.answer(offset).is_some()).await;
        match reached {
            Ok(progress) => progress.answer(offset).unwrap_or(Err(ReadError::Broken)),
            Err(_closed) => Err(ReadError::Broken),
        }
    }

    /// `written` bytes are in the file.
    pub(crate) fn advance(&self, written: u64) {
        self.progress.send_if_modified(|progress| {
            let now = visible(written, progress.total).max(progress.visible);
            std::mem::replace(&mut progress.visible, now) != now
        });
    }

    /// The digest of the whole object, `size` bytes, is right.
    pub(crate) fn verified(&self, size: u64) {
        self.progress.send_modify(|progress| {
            if matches!(progress.phase, Phase::Unverified) {
                *progress = Progress { visible: size, total: Some(size), phase: Phase::Verified };
            }
        });
    }

    /// `bytes` were read from the beginning. Of a small object that is verified and whole they stay
    /// in memory for as long as it stays open, which bounds them: see
    /// [`open_files`](super::open_files).
    pub(crate) fn remember(&self, bytes: &Bytes) {
        let is_all = self.total() == Some(bytes.len() as u64);
        if bytes.len() <= SMALL && is_all && self.is_verified() {
            let _ = self.all.set(bytes.clone());
        }
    }

    /// What is remembered of the object from `offset` on.
    pub(crate) fn remembered(&self, offset: u64) -> Option<Bytes> {
        let all = self.all.get()?;
        let offset = usize::try_from(offset).ok().filter(|offset| *offset < all.len())?;
        Some(all.slice(offset..))
    }

    /// The download, or the verification, is over without success. A verified object stays as it
    /// is.
    pub(crate) fn fail(&self, error: ReadError) {
        self.progress.send_modify(|progress| {
            if matches!(progress.phase, Phase::Unverified) {
                progress.phase = Phase::Failed(error);
            }
        });
    }
}

impl Drop for Object {
    /// The last handle of a file that was removed gives its space back, which takes the time of
    /// many disk accesses when it is large: not on an async thread.
    fn drop(&mut self) {
        if self.size() > LARGE {
            let file = Arc::clone(&self.file);
            threads::detach(move || drop(file));
        }
    }
}

impl Progress {
    fn answer(&self, offset: u64) -> Option<Result<u64, ReadError>> {
        match &self.phase {
            Phase::Failed(ReadError::Store(_)) if self.visible > offset => Some(Ok(self.visible)),
            Phase::Failed(error) => Some(Err(error.clone())),
            Phase::Verified => Some(Ok(self.visible)),
            Phase::Unverified => (self.visible > offset).then_some(Ok(self.visible)),
        }
    }

    fn verdict(&self) -> Option<Result<(), ReadError>> {
        match &self.phase {
            Phase::Unverified => None,
            Phase::Verified => Some(Ok(())),
            Phase::Failed(error) => Some(Err(error.clone())),
        }
    }
}

/// How many of `written` bytes may be seen before the digest is verified: with a known size all
/// but the object's last [`HOLD_BACK`] bytes, else all but the last so many written.
fn visible(written: u64, total: Option<u64>) -> u64 {
    match total {
        Some(total) => written.min(total.saturating_sub(HOLD_BACK)),
        None => written.saturating_sub(HOLD_BACK),
    }
}
