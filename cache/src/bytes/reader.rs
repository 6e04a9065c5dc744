//! Reading an object, kept or in flight.

use std::sync::Arc;

use bytes::Bytes;
use entrepot_oci::Digest;

use super::buffers::Buffer;
use super::object::Object;
use crate::disk::{DiskFile, threads};
use crate::errors::ReadError;

/// A handle on the bytes of one object. Cheap to clone; all handles of an object share one file
/// descriptor and hold no buffers between reads, so one that is not read costs next to nothing.
///
/// The bytes stay readable when the object is removed from the store meanwhile.
#[derive(Debug)]
pub struct Reader {
    object: Arc<Object>,
    /// Whether somebody wants what it reads.
    counts: bool,
}

impl Clone for Reader {
    fn clone(&self) -> Self {
        let mut reader = Self::new(Arc::clone(&self.object));
        reader.counts = self.counts;
        reader
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.object.leave();
    }
}

impl Reader {
    pub(crate) fn new(object: Arc<Object>) -> Self {
        object.enter();
        Self { object, counts: true }
    }

    /// The same, whose reading makes nothing wanted.
    pub(crate) fn uncounted(mut self) -> Self {
        self.counts = false;
        self
    }

    /// The object's digest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        self.object.digest()
    }

    /// The object's size in bytes; `None` while it is in flight and the upstream has not said.
    ///
    /// Of a download it is what the upstream announced: proved only once the object is whole.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.object.total()
    }

    /// The registry whose bytes these are until they are published: only its clients may see them.
    /// `None`: they are verified and kept, wherever they came from.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.object.origin()
    }

    /// How many bytes from the start can be read without waiting for the upstream.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.object.visible()
    }

    /// Whether the object is whole and its digest is known to be right.
    ///
    /// A kept object is verified when it is first asked for in a process; a download at its end.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.object.is_verified()
    }

    /// Waits until the object is whole and its digest is right: for a kept object until it has been
    /// hashed, for a download until its end. At once when [`is_verified`](Self::is_verified).
    ///
    /// After an error nothing that was read from this object may be used as whole; after
    /// [`ReadError::Damaged`] look it up again. It has no timeout: a download takes as long as the
    /// upstream does. Cancel safe.
    pub async fn verified(&self) -> Result<(), ReadError> {
        self.object.whole().await
    }

    /// Up to `max` bytes at `offset`; fewer if fewer are there (256 KiB at most, or what the page
    /// cache has), but at least one, for which it waits while the object is in flight. Empty: the
    /// end of a *verified* object (or `max` is 0).
    ///
    /// The last [`HOLD_BACK`](crate::HOLD_BACK) bytes come once the digest has been verified: at
    /// the end of a download, and when a kept object has been hashed for the first time in this
    /// run. After an error nothing that was read from this object may be used as whole; after
    /// [`ReadError::Store`] it can be completed from `offset`.
    /// The disk is waited for off the async threads. Cancel safe.
    pub async fn read_at(&self, offset: u64, max: usize) -> Result<Bytes, ReadError> {
        let read = self.read_some(offset, max).await;
        if let Ok(bytes) = &read
            && self.counts
        {
            self.object.serve(bytes.len());
        }
        read
    }

    async fn read_some(&self, offset: u64, max: usize) -> Result<Bytes, ReadError> {
        if max == 0 {
            return self.object.check().map(|()| Bytes::new());
        }
        let end = self.object.visible_past(offset).await?;
        let len = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX).min(max);
        if len == 0 {
            return Ok(Bytes::new());
        }
        let object = &self.object;
        if let Some(mut bytes) = object.remembered(offset) {
            bytes.truncate(len);
            return Ok(bytes);
        }
        let read = self.read(offset, len).await;
        // The file may have changed under the read only if the object has failed by now.
        object.check()?;
        if offset == 0
            && let Ok(bytes) = &read
        {
            object.remember(bytes);
        }
        read
    }

    /// What the page cache has is copied here and now, which is far cheaper than asking another
    /// thread to; only what must come from the disk is left to one.
    async fn read(&self, offset: u64, len: usize) -> Result<Bytes, ReadError> {
        let mut buffer = self.object.buffers().take(len);
        let file = Arc::clone(self.object.file());
        if let Some(count) = peek(&file, &mut buffer, offset)? {
            return Ok(buffer.into_bytes(count));
        }
        let permits = self.object.permits();
        let permit = if let Some(permit) = permits.try_take() {
            permit
        } else {
            // Those who wait need no buffer.
            drop(buffer);
            let permit = permits.take().await;
            buffer = self.object.buffers().take(len);
            // A read that was waited for may have brought these bytes.
            if let Some(count) = peek(&file, &mut buffer, offset)? {
                return Ok(buffer.into_bytes(count));
            }
            permit.map_err(ReadError::Store)?
        };
        let read = threads::run(move || {
            let filled = file.fill_from(buffer.as_mut_slice(), offset);
            drop(permit);
            filled.map(|()| buffer.into_bytes(usize::MAX))
        });
        read.await.and_then(|read| read).map_err(ReadError::Store)
    }
}

fn peek(file: &DiskFile, buffer: &mut Buffer, offset: u64) -> Result<Option<usize>, ReadError> {
    file.read_cached_at(buffer.as_mut_slice(), offset).map_err(ReadError::Store)
}
