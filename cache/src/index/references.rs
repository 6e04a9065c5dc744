//! Which other objects a kept document needs, as the store's user reads it.
//!
//! A hint like the rest of the index: it decides what is evicted together, never what is served.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use entrepot_oci::{Algorithm, Digest};

use crate::disk::{DiskError, DiskFile};

/// Larger ones are no documents: registries take manifests of up to 4 MiB, some of 8.
pub(crate) const LARGEST: u64 = 8 * 1024 * 1024;
/// A document that needs more is not an image; it counts as one that needs nothing.
const MOST: usize = 4096;
/// What a document needs is remembered up to here, twice what engines can run; beyond, its file is
/// read when that is asked: strangers choose what documents name.
const MOST_REMEMBERED: usize = 256;
/// Where the first byte that is not white space must be.
const BEGINNING: u64 = 64;

/// What an object needs, as far as that is in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum References {
    /// Its file has not been looked at.
    #[default]
    Unknown,
    /// More than is remembered: its file says it.
    InFile,
    /// All that may be remembered is taken: its file says it, and the next start looks again.
    NoRoom,
    Known(Packed),
}

impl References {
    /// What is remembered of what is needed.
    pub(crate) fn remembered(&self) -> impl Iterator<Item = Digest> {
        let packed = match self {
            Self::Known(packed) => packed.0.as_ref(),
            Self::Unknown | Self::InFile | Self::NoRoom => &[],
        };
        Unpacked(packed)
    }

    /// Whether the object is known to need others.
    pub(crate) fn are_of_document(&self) -> bool {
        match self {
            Self::Known(packed) => !packed.0.is_empty(),
            Self::InFile | Self::NoRoom => true,
            Self::Unknown => false,
        }
    }

    /// Whether nothing more could be learnt from the object's file.
    pub(crate) fn is_remembered(&self) -> bool {
        matches!(self, Self::Unknown | Self::Known(_))
    }

    /// How many bytes of memory they take beside themselves.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Known(packed) if !packed.0.is_empty() => packed.0.len() + Packed::OVERHEAD,
            Self::Known(_) | Self::Unknown | Self::InFile | Self::NoRoom => 0,
        }
    }
}

/// Digests without the room that the longest of them would take: the key of each in the index,
/// one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packed(Arc<[u8]>);

impl Packed {
    /// What the allocator and the counters of a shared slice take, about.
    const OVERHEAD: usize = 32;

    /// The digests packed in `bytes`, if that is what they are.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut unpacked = Unpacked(bytes);
        unpacked.by_ref().for_each(drop);
        unpacked.0.is_empty().then(|| Self(bytes.into()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromIterator<Digest> for Packed {
    fn from_iter<T: IntoIterator<Item = Digest>>(digests: T) -> Self {
        let mut bytes = Vec::new();
        for digest in digests {
            bytes.push(tag(digest.algorithm()));
            bytes.extend_from_slice(digest.as_bytes());
        }
        Self(bytes.into())
    }
}

/// What is still packed.
struct Unpacked<'a>(&'a [u8]);

impl Iterator for Unpacked<'_> {
    type Item = Digest;

    fn next(&mut self) -> Option<Digest> {
        let (first, rest) = self.0.split_first()?;
        let algorithm = algorithm(*first)?;
        let (hash, rest) = rest.split_at_checked(algorithm.hex_len() / 2)?;
        self.0 = rest;
        Digest::from_bytes(algorithm, hash)
    }
}

/// The byte in front of a digest's own that says its algorithm.
pub(super) const fn tag(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    }
}

/// The algorithm that has this tag.
pub(super) fn algorithm(tagged: u8) -> Option<Algorithm> {
    Algorithm::ALL.into_iter().find(|algorithm| tag(*algorithm) == tagged)
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

    /// What the object called `digest`, which consists of `bytes`, needs, as it is remembered.
    pub(crate) fn read(self, digest: &Digest, bytes: &[u8]) -> References {
        self.all(digest, bytes).map_or(References::Unknown, as_remembered)
    }

    /// [`read`](Self::read) for the object called `digest` that consists of the `size` bytes of
    /// `file`. Blocks.
    pub(crate) fn read_file(
        self,
        digest: &Digest,
        file: &DiskFile,
        size: u64,
    ) -> Result<References, DiskError> {
        Ok(self.all_of_file(digest, file, size)?.map_or(References::Unknown, as_remembered))
    }

    /// All that the object called `digest` needs that consists of the `size` bytes of `file`;
    /// `None` where nothing can be learnt. Blocks.
    pub(crate) fn all_of_file(
        self,
        digest: &Digest,
        file: &DiskFile,
        size: u64,
    ) -> Result<Option<Vec<Digest>>, DiskError> {
        if !self.is_there() {
            return Ok(None);
        }
        let len = |len: u64| usize::try_from(len).unwrap_or(usize::MAX);
        let beginning = len(BEGINNING.min(size));
        if size > LARGEST || !begins_document(&file.read_exact_at(beginning, 0)?) {
            return Ok(Some(Vec::new()));
        }
        Ok(self.all(digest, &file.read_exact_at(len(size), 0)?))
    }

    fn all(self, digest: &Digest, bytes: &[u8]) -> Option<Vec<Digest>> {
        let read = self.0?;
        if bytes.len() as u64 > LARGEST || !begins_document(bytes) {
            return Some(Vec::new());
        }
        // It is fed with what registries send; it must not take a thread of the store with it.
        let Ok(mut needed) = catch_unwind(AssertUnwindSafe(|| read(bytes))) else {
            tracing::error!(%digest, "reading a document's references panicked");
            return Some(Vec::new());
        };
        needed.sort_unstable();
        needed.dedup();
        needed.retain(|one| one != digest);
        if needed.len() > MOST {
            needed.clear();
        }
        Some(needed)
    }
}

fn as_remembered(needed: Vec<Digest>) -> References {
    if needed.len() > MOST_REMEMBERED {
        References::InFile
    } else {
        References::Known(needed.into_iter().collect())
    }
}

/// Whether JSON that begins so is an object (RFC 8259, section 2: white space may come before it).
fn begins_document(bytes: &[u8]) -> bool {
    let mut first = bytes.iter().filter(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    first.next() == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use super::{Interpreter, LARGEST, MOST, MOST_REMEMBERED, Packed, References};
    use entrepot_oci::{Algorithm, Digest};

    fn digest(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_be_bytes())
    }

    fn none() -> References {
        References::Known(Packed::default())
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
            assert_eq!(needs(read, document).remembered().collect::<Vec<_>>(), both);
        }
        let large = vec![b'{'; usize::try_from(LARGEST).unwrap() + 1];
        for other in [&b""[..], b"[{", b" \n", b"\x1f\x8b{", &large] {
            assert_eq!(needs(read, other), none());
        }
        assert_eq!(Interpreter::default().read(&digest(0), b"{"), References::Unknown);
    }

    #[test]
    fn a_reader_of_documents_is_not_trusted() {
        assert_eq!(needs(|_| panic!("bad document"), b"{"), none());
        assert_eq!(needs(|_| (1..MOST + 2).map(digest).collect(), b"{"), none());
    }

    #[test]
    fn what_is_remembered_of_a_document_is_bounded() {
        assert_eq!(needs(|_| (1..=MOST).map(digest).collect(), b"{"), References::InFile);
        let most = needs(|_| (1..=MOST_REMEMBERED).map(digest).collect(), b"{");
        assert_eq!(most.remembered().count(), MOST_REMEMBERED);
        assert!(most.bytes() <= MOST_REMEMBERED * 33 + Packed::OVERHEAD, "{}", most.bytes());
    }

    #[test]
    fn digests_are_packed_and_unpacked() {
        let digests = [digest(1), Digest::of(Algorithm::Sha512, b"x"), digest(2)];
        let packed: Packed = digests.into_iter().collect();
        let again = Packed::from_bytes(packed.as_bytes()).unwrap();
        let unpacked = References::Known(again).remembered().collect::<Vec<_>>();
        assert_eq!(unpacked, digests);
        for len in 1..packed.as_bytes().len() {
            let is_whole = [33, 98].contains(&len);
            assert_eq!(Packed::from_bytes(&packed.as_bytes()[..len]).is_some(), is_whole, "{len}");
        }
        assert_eq!(Packed::from_bytes(&[3; 33]), None);
    }
}
