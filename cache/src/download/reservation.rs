//! The right to download a digest, before the first byte.

use std::path::PathBuf;
use std::sync::Arc;

use entrepot_oci::{Digest, Hasher};

use super::disk_end::DiskEnd;
use super::in_flight::Permit;
use super::publish::Publisher;
use super::queue::Queue;
use super::writer::Writer;
use crate::bytes::object::{HOLD_BACK, Object};
use crate::bytes::reader::Reader;
use crate::bytes::verify::hash_file;
use crate::disk::tree::Tree;
use crate::disk::{DiskError, DiskFile, threads};
use crate::errors::BeginError;

/// Where a download begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At byte 0; the partial file of the same digest and origin is thrown away.
    Fresh,
    /// At byte [`Reservation::resume_from`], behind what a former download has left.
    Resumed,
}

/// The exclusive right to download one digest from one registry.
///
/// While it exists, [`Store::lookup`](crate::Store::lookup) of the same two waits. Dropping it
/// lets the next waiter lead. Ask the upstream for the object, then [`begin`](Self::begin): the
/// status and size of the upstream's answer decide how.
#[derive(Debug)]
#[must_use = "dropping a reservation gives the digest free"]
pub struct Reservation {
    publisher: Arc<Publisher>,
    permit: Permit,
    resume_from: u64,
}

impl Reservation {
    pub(crate) const fn new(publisher: Arc<Publisher>, permit: Permit, resume_from: u64) -> Self {
        Self { publisher, permit, resume_from }
    }

    /// The digest that is reserved.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        self.permit.digest()
    }

    /// The registry that it is going to be downloaded from, as given to the lookup.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.permit.origin().as_str()
    }

    /// How many bytes of a partial file from the same origin can be kept: ask the upstream for
    /// `bytes=<resume_from>-`. 0: there is none, ask for everything.
    ///
    /// It is always less than what the partial file has, so that a satisfiable range is asked for.
    #[must_use]
    pub const fn resume_from(&self) -> u64 {
        self.resume_from
    }

    /// Takes away the partial file, whose continuation is not to be had.
    ///
    /// Cancel safe.
    pub async fn discard_partial(&mut self) {
        self.resume_from = 0;
        let (path, publisher) = (self.path(), Arc::clone(&self.publisher));
        let removed = threads::run(move || publisher.kept.tree.disk().remove_quietly(&path)).await;
        if let Err(error) = removed {
            tracing::debug!(%error, "a partial file was not removed");
        }
    }

    /// Begins the download of an object of `total` bytes, if that is known.
    ///
    /// With [`Start::Resumed`] the kept bytes are read and hashed first (off the async threads,
    /// about half a second a gigabyte), and writing goes on at [`resume_from`](Self::resume_from).
    /// `total` is always the size of the whole object, not of the range.
    ///
    /// On an error, and when this future is dropped, the reservation is given up.
    pub async fn begin(
        self,
        start: Start,
        total: Option<u64>,
    ) -> Result<(Writer, Reader), BeginError> {
        let digest = *self.digest();
        let queued = Arc::clone(&self.publisher.queued);
        let opened = threads::run(move || self.open(start, total)).await;
        let (disk_end, object) = opened.map_err(BeginError::Store)??;
        let offset = disk_end.position();
        let (queue, reader) = (Queue::new(disk_end, queued), Reader::new(Arc::clone(&object)));
        Ok((Writer::new(digest, offset, total, queue, object), reader))
    }

    fn open(self, start: Start, total: Option<u64>) -> Result<(DiskEnd, Arc<Object>), BeginError> {
        let digest = *self.digest();
        let (file, hasher, written) = match start {
            Start::Fresh => self.create().map_err(BeginError::Store)?,
            Start::Resumed => self.reopen(total)?,
        };
        let (file, buffers) = (Arc::new(file), &self.publisher.kept.buffers);
        let origin = self.permit.origin().name();
        let object = Object::filling(digest, file, buffers, origin, written, total);
        let object = Arc::new(object);
        self.permit.lead_to(&object);
        let (publisher, permit) = (self.publisher, self.permit);
        let disk_end = DiskEnd::new(publisher, permit, Arc::clone(&object), hasher, written, total);
        Ok((disk_end, object))
    }

    /// A new file under a fresh inode: readers of an earlier download keep theirs.
    fn create(&self) -> Result<(DiskFile, Hasher, u64), DiskError> {
        let path = self.path();
        let disk = self.tree().disk();
        disk.remove(&path)?;
        let file = disk.create_new(&path)?;
        Ok((file, Hasher::new(self.digest().algorithm()), 0))
    }

    fn tree(&self) -> &Tree {
        &self.publisher.kept.tree
    }

    fn path(&self) -> PathBuf {
        self.tree().partial(self.digest(), self.origin())
    }

    fn reopen(&self, total: Option<u64>) -> Result<(DiskFile, Hasher, u64), BeginError> {
        let (written, path) = (self.resume_from, self.path());
        if total.is_some_and(|total| total <= written) {
            // What is there, or what the upstream says, is wrong: the next download begins afresh.
            self.tree().disk().remove_quietly(&path);
            return Err(BeginError::NothingToResume);
        }
        if written == 0 {
            return Err(BeginError::NothingToResume);
        }
        let reopened = self.tree().disk().open_to_write(&path).and_then(|file| {
            let hasher = hash_file(&file, self.digest().algorithm(), written)?;
            file.truncate(written)?;
            Ok((file, hasher, written))
        });
        reopened.map_err(|error| {
            tracing::warn!(%error, cause = %error.io(), "partial file can't be continued");
            self.tree().disk().remove_quietly(&path);
            BeginError::NothingToResume
        })
    }
}

/// How much of a partial file of `len` bytes is used: whole hold-backs, and never all of it.
pub(crate) const fn usable(len: u64) -> u64 {
    let len = len.saturating_sub(1);
    len - len % HOLD_BACK
}
