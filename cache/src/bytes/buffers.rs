//! Buffers for reading: large ones are used again, so that their memory is touched first only once.
//!
//! A fresh 256 KiB buffer costs more in page faults than the read that fills it.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// The most one read returns, and the size of a buffer that is used again.
pub(crate) const LARGEST: usize = 256 * 1024;
/// Up to here the allocator does as well.
const SMALL: usize = 32 * 1024;
/// What readers begin with.
const MIDDLE: usize = 64 * 1024;
/// How many idle buffers of each size are kept: 10 MiB at most.
const KEPT: usize = 32;

/// Where buffers that are not small rest between reads.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    middle: Mutex<Vec<Vec<u8>>>,
    large: Mutex<Vec<Vec<u8>>>,
}

/// A buffer of known length whose content is yet to be overwritten.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    home: Arc<Buffers>,
}

impl Buffers {
    /// A buffer of `len` bytes, at most [`LARGEST`].
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let len = len.min(LARGEST);
        let home = Arc::clone(self);
        if len <= SMALL {
            return Buffer { bytes: vec![0; len], len, home };
        }
        let size = if len <= MIDDLE { MIDDLE } else { LARGEST };
        let rested = self.resting(size).and_then(|idle| idle.lock().pop());
        Buffer { bytes: rested.unwrap_or_else(|| vec![0; size]), len, home }
    }

    /// Where buffers of this size rest, if they do.
    const fn resting(&self, size: usize) -> Option<&Mutex<Vec<Vec<u8>>>> {
        match size {
            MIDDLE => Some(&self.middle),
            LARGEST => Some(&self.large),
            _ => None,
        }
    }
}

impl Buffer {
    /// What is to be filled.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }

    /// The first `filled` bytes; the buffer goes home with the last of their handles.
    pub(crate) fn into_bytes(mut self, filled: usize) -> Bytes {
        self.len = self.len.min(filled);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(idle) = self.home.resting(self.bytes.len()) {
            let mut idle = idle.lock();
            if idle.len() < KEPT {
                idle.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Buffers, KEPT, LARGEST};

    #[test]
    fn large_buffers_come_back_and_small_ones_do_not() {
        let buffers = Arc::new(Buffers::default());
        let mut large = buffers.take(usize::MAX);
        assert_eq!(large.as_mut_slice().len(), LARGEST);
        large.as_mut_slice().fill(7);
        let bytes = large.into_bytes(100_000);
        let part = bytes.slice(99_999..);
        drop(bytes);
        assert_eq!((&part[..], buffers.large.lock().len()), (&[7_u8][..], 0));
        drop(part);
        drop(buffers.take(1_000));
        assert_eq!(buffers.large.lock().len(), 1);
        drop(buffers.take(40_000));
        assert_eq!((buffers.large.lock().len(), buffers.middle.lock().len()), (1, 1));
        assert_eq!(buffers.take(40_000).as_mut_slice().len(), 40_000);
    }

    #[test]
    fn only_so_many_rest() {
        let buffers = Arc::new(Buffers::default());
        let taken: Vec<_> = (0..KEPT * 2).map(|_| buffers.take(LARGEST)).collect();
        drop(taken);
        assert_eq!(buffers.large.lock().len(), KEPT);
    }
}
