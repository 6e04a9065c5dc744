//! Which other objects a kept document needs, as the store's user reads it.
//!
//! A hint like the rest of the index: it decides what is evicted together, never what is served.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use entrepot_oci::Digest;

use crate::disk::{DiskError, DiskFile};

/// Larger ones are no documents: registries take manifests of up to 4 MiB, some of 8.
pub(crate) const LARGEST: u64 = 8 * 1024 * 1024;
/// A document that needs more is not an image; it counts as one that needs nothing.
const MOST: usize = 4096;
/// Where the first byte that is not white space must be.
const BEGINNING: u64 = 64;

/// What an object needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum References {
    /// Its file has not been looked at.
    #[default]
    Unknown,
    Known(Arc<[Digest]>),
}

impl References {
    fn none() -> Self {
        Self::Known(Arc::default())
    }

    /// What is known to be needed.
    pub(crate) fn as_slice(&self) -> &[Digest] {
        match self {
            Self::Unknown => &[],
            Self::Known(needed) => needed,
        }
    }
}

/// Which other objects the document that consists of these bytes needs.
pub type ReadReferences = fn(&[u8]) -> Vec<Digest>;

/// How the store's user reads documents, if at all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Interpreter(Option<ReadReferences>);

impl Interpreter {
    pub(crate) const fn new(read: Option<ReadReferences>) -> Self {
        Self(read)
    }

    /// Whether anything can be learnt at all.
    pub(crate) const fn is_there(self) -> bool {
        self.0.is_some()
    }

    /// What the object called `digest`, which consists of `bytes`, needs.
    pub(crate) fn read(self, digest: &Digest, bytes: &[u8]) -> References {
        let Some(read) = self.0 else { return References::Unknown };
        if bytes.len() as u64 > LARGEST || !begins_document(bytes) {
            return References::none();
        }
        // It is fed with what registries send; it must not take a thread of the store with it.
        let Ok(mut needed) = catch_unwind(AssertUnwindSafe(|| read(bytes))) else {
            tracing::error!(%digest, "reading a document's references panicked");
            return References::none();
        };
        needed.sort_unstable();
        needed.dedup();
        needed.retain(|one| one != digest);
        if needed.len() > MOST { References::none() } else { References::Known(needed.into()) }
    }

    /// What the object called `digest`, which consists of the `size` bytes of `file`, needs.
    /// Blocks.
    pub(crate) fn read_file(
        self,
        digest: &Digest,
        file: &DiskFile,
        size: u64,
    ) -> Result<References, DiskError> {
        if !self.is_there() {
            return Ok(References::Unknown);
        }
        let len = |len: u64| usize::try_from(len).unwrap_or(usize::MAX);
        let beginning = len(BEGINNING.min(size));
        if size > LARGEST || !begins_document(&file.read_exact_at(beginning, 0)?) {
            return Ok(References::none());
        }
        Ok(self.read(digest, &file.read_exact_at(len(size), 0)?))
    }
}

/// Whether JSON that begins so is an object (RFC 8259, section 2: white space may come before it).
fn begins_document(bytes: &[u8]) -> bool {
    let mut first = bytes.iter().filter(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    first.next() == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use super::{Interpreter, LARGEST, MOST, References};
    use entrepot_oci::{Algorithm, Digest};

    fn digest(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_be_bytes())
    }

    fn needs(read: fn(&[u8]) -> Vec<Digest>, bytes: &[u8]) -> References {
        Interpreter::new(Some(read)).read(&digest(0), bytes)
    }

    #[test]
    fn only_documents_are_read() {
        let read = |_: &[u8]| vec![digest(2), digest(0), digest(1), digest(2)];
        let mut both = vec![digest(1), digest(2)];
        both.sort_unstable();
        for document in [&b"{"[..], b" \t\r\n{}", b"{\"a\":1}"] {
            assert_eq!(needs(read, document).as_slice(), both);
        }
        let large = vec![b'{'; usize::try_from(LARGEST).unwrap() + 1];
        for other in [&b""[..], b"[{", b" \n", b"\x1f\x8b{", &large] {
            assert_eq!(needs(read, other), References::none());
        }
        assert_eq!(Interpreter::default().read(&digest(0), b"{"), References::Unknown);
    }

    #[test]
    fn a_reader_of_documents_is_not_trusted() {
        assert_eq!(needs(|_| panic!("bad document"), b"{"), References::none());
        assert_eq!(needs(|_| (1..MOST + 2).map(digest).collect(), b"{"), References::none());
        assert_eq!(needs(|_| (1..=MOST).map(digest).collect(), b"{").as_slice().len(), MOST);
    }
}
