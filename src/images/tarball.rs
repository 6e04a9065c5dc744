//! Tar archives, read and written as a stream (POSIX.1-2001 "pax", and what GNU tar adds).
//!
//! What is read comes from strangers: nothing is allocated by a length that it claims, nothing is
//! unpacked, and an end that comes too early is an error.

use std::io::{self, Read};

use tar::{EntryType, Header, PaxExtensions};

/// Headers and contents come in blocks.
const BLOCK: usize = 512;
/// The checksum of a header is made over it with spaces in place of the checksum.
const CHECKSUM: std::ops::Range<usize> = 148..156;
/// The longest name, or list of attributes, that may stand in front of an entry.
const LONGEST_EXTENSION: u64 = 64 * 1024;
/// Other entries, extensions among them, that an archive may have: an image has some hundreds.
const MOST_ENTRIES: u64 = 100_000;
/// How the contents of an entry are read at most at a time.
const PIECE: usize = 256 * 1024;

/// Why an archive can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TarError {
    /// Something else than an archive.
    #[error("not a tar archive{}", if *is_compressed { ": it is compressed, unpack it first" } else { "" })]
    NotTar {
        /// Whether it begins as what compresses does.
        is_compressed: bool,
    },
    /// A block that is no header where one must be.
    #[error("damaged: no tar header at byte {0}")]
    Header(u64),
    /// It ends too early.
    #[error("it ends too early, after {0} bytes")]
    Truncated(u64),
    /// More than any image has.
    #[error("too many entries, or a name that is too long")]
    TooLarge,
    /// It can't be read.
    #[error("it can't be read")]
    Read(#[from] io::Error),
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Other,
}

/// The head of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TarEntry {
    /// As it stands there: it may lead anywhere.
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) size: u64,
}

/// An archive that is being read. An entry's contents are read, or skipped, before the next one.
pub(super) struct Tarball<R> {
    source: R,
    /// How many bytes have been read.
    at: u64,
    /// How many of them follow before the next header: contents, then padding.
    left: u64,
    padding: u64,
    entries: u64,
}

/// What stood in front of an entry about it.
#[derive(Default)]
struct Extensions {
    path: Option<String>,
    size: Option<u64>,
}

impl<R: Read> Tarball<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, at: 0, left: 0, padding: 0, entries: 0 }
    }

    /// The next entry; `None` at the archive's end.
    pub(super) fn next(&mut self) -> Result<Option<TarEntry>, TarError> {
        let mut extensions = Extensions::default();
        while let Some(header) = self.header()? {
            let size = header.entry_size().map_err(|_| self.bad_header())?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(text(&self.extension(size)?)),
                EntryType::XHeader => extensions.read_pax(&self.extension(size)?),
                EntryType::GNULongLink | EntryType::XGlobalHeader => drop(self.extension(size)?),
                kind => {
                    let size = extensions.size.unwrap_or(size);
                    self.begin(size);
                    let path = extensions.path.unwrap_or_else(|| text(&header.path_bytes()));
                    return Ok(Some(TarEntry { path, kind: Kind::of(kind), size }));
                }
            }
        }
        Ok(None)
    }

    /// The next piece of the entry's contents; empty at their end.
    pub(super) fn piece(&mut self) -> Result<Vec<u8>, TarError> {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE);
        let mut piece = vec![0; len];
        self.read_exact(&mut piece)?;
        self.left -= len as u64;
        Ok(piece)
    }

    /// The whole contents of a small entry.
    pub(super) fn whole(&mut self, most: u64) -> Result<Vec<u8>, TarError> {
        if self.left > most {
            return Err(TarError::TooLarge);
        }
        let mut whole = Vec::new();
        loop {
            let piece = self.piece()?;
            if piece.is_empty() {
                return Ok(whole);
            }
            whole.extend_from_slice(&piece);
        }
    }

    /// How many bytes of the archive have been read.
    pub(super) const fn position(&self) -> u64 {
        self.at
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        self.begin(size);
        self.whole(LONGEST_EXTENSION)
    }

    /// The next header; `None` at the end: a block of zeros, or nothing more.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        while !self.piece()?.is_empty() {}
        let mut padding = vec![0; usize::try_from(self.padding).unwrap_or(0)];
        self.read_exact(&mut padding)?;
        self.entries += 1;
        if self.entries > MOST_ENTRIES {
            return Err(TarError::TooLarge);
        }
        let mut header = Header::new_old();
        if !self.fill(header.as_mut_bytes())? || header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if is_sound(&header) { Ok(Some(header)) } else { Err(self.not_a_header(&header)) }
    }

    fn not_a_header(&self, header: &Header) -> TarError {
        if self.at > BLOCK as u64 {
            return self.bad_header();
        }
        // gzip, Zstandard, xz, bzip2.
        let magics: [&[u8]; 4] = [&[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd], b"\xfd7zXZ", b"BZh"];
        let is_compressed = magics.iter().any(|magic| header.as_bytes().starts_with(magic));
        TarError::NotTar { is_compressed }
    }

    fn bad_header(&self) -> TarError {
        TarError::Header(self.at.saturating_sub(BLOCK as u64))
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        if self.fill(buffer)? { Ok(()) } else { Err(TarError::Truncated(self.at)) }
    }

    /// Whether there was as much to read as `buffer` takes; `false` if there was nothing.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool, TarError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) if self.at < BLOCK as u64 => {
                    return Err(TarError::NotTar { is_compressed: false });
                }
                Ok(0) => return Err(TarError::Truncated(self.at)),
                Ok(count) => {
                    filled += count;
                    self.at += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        Ok(true)
    }
}

impl Extensions {
    fn read_pax(&mut self, bytes: &[u8]) {
        for extension in PaxExtensions::new(bytes).filter_map(Result::ok) {
            match extension.key() {
                Ok("path") => self.path = Some(text(extension.value_bytes())),
                Ok("size") => {
                    self.size = extension.value().ok().and_then(|size| size.parse().ok());
                }
                _ => {}
            }
        }
    }
}

impl Kind {
    fn of(kind: EntryType) -> Self {
        match kind {
            EntryType::Regular => Self::File,
            EntryType::Directory => Self::Directory,
            _ => Self::Other,
        }
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

fn is_sound(header: &Header) -> bool {
    let sum = header.as_bytes().iter().enumerate().fold(0_u32, |sum, (at, byte)| {
        sum + if CHECKSUM.contains(&at) { u32::from(b' ') } else { u32::from(*byte) }
    });
    header.cksum().is_ok_and(|told| told == sum)
}

/// What stands in front of a file of `size` bytes.
pub(super) fn file_head(path: &str, size: u64) -> Vec<u8> {
    let mut head = Vec::new();
    let mut header = header(EntryType::Regular, size, 0o644);
    if header.set_path(path).is_err() {
        // Longer than a header's field: the name comes as an entry of its own, and ends with a
        // zero.
        let mut long = self::header(EntryType::GNULongName, path.len() as u64 + 1, 0o644);
        finish(&mut long, "././@LongLink");
        head.extend_from_slice(long.as_bytes());
        head.extend_from_slice(path.as_bytes());
        head.push(0);
        head.extend(padding(path.len() as u64 + 1));
        let beginning = path.get(..100).unwrap_or_default();
        finish(&mut header, beginning);
    }
    header.set_cksum();
    head.extend_from_slice(header.as_bytes());
    head
}

/// A directory.
pub(super) fn directory(path: &str) -> Vec<u8> {
    let mut header = header(EntryType::Directory, 0, 0o755);
    finish(&mut header, path);
    header.as_bytes().to_vec()
}

/// What fills the last block of a file of `size` bytes.
pub(super) fn padding(size: u64) -> Vec<u8> {
    vec![0; usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0)]
}

/// The end of an archive.
pub(super) fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

fn header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// With a name that fits, as the module's own do.
fn finish(header: &mut Header, path: &str) {
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.name.iter_mut().zip(path.bytes()).for_each(|(to, from)| *to = from);
    }
    header.set_cksum();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(archive: &[u8]) -> Result<Vec<(TarEntry, Vec<u8>)>, TarError> {
        let mut tarball = Tarball::new(archive);
        let mut found = Vec::new();
        while let Some(entry) = tarball.next()? {
            let contents = tarball.whole(1 << 20)?;
            found.push((entry, contents));
        }
        Ok(found)
    }

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = directory("blobs/");
        for (path, contents) in files {
            archive.extend(file_head(path, contents.len() as u64));
            archive.extend_from_slice(contents);
            archive.extend(padding(contents.len() as u64));
        }
        archive.extend(end());
        archive
    }

    #[test]
    fn what_is_written_is_read_here_and_elsewhere() {
        let long = format!("blobs/sha512/{}", "a".repeat(128));
        let files = [("index.json", &b"{}"[..]), (&long, &[7; 1000]), ("empty", b"")];
        let archive = archive(&files);
        let found = all(&archive).unwrap();
        assert_eq!(found.len(), 4);
        let mut elsewhere = tar::Archive::new(&archive[..]);
        let elsewhere = elsewhere.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).unwrap();
            (entry.path().unwrap().to_str().unwrap().to_owned(), contents)
        });
        let ours = found.into_iter().map(|(entry, contents)| (entry.path, contents));
        assert_eq!(ours.collect::<Vec<_>>(), elsewhere.collect::<Vec<_>>());
    }

    #[test]
    fn what_others_write_is_read() {
        let mut builder = tar::Builder::new(Vec::new());
        let long = format!("{}/index.json", "d/".repeat(150));
        let mut header = Header::new_gnu();
        header.set_size(3);
        builder.append_data(&mut header, &long, &b"abc"[..]).unwrap();
        builder.append_pax_extensions([("path", &b"pax.json"[..]), ("size", b"4")]).unwrap();
        let mut header = Header::new_ustar();
        header.set_size(0);
        header.set_path("short").unwrap();
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(bytes.len() - 1024);
        bytes.extend_from_slice(b"wxyz");
        bytes.extend(padding(4));
        let found = all(&bytes).unwrap();
        assert_eq!((found[0].0.path.as_str(), found[0].1.as_slice()), (long.as_str(), &b"abc"[..]));
        assert_eq!((found[1].0.path.as_str(), found[1].1.as_slice()), ("pax.json", &b"wxyz"[..]));
    }

    #[test]
    fn what_is_no_archive_is_told_apart() {
        assert!(all(b"").unwrap().is_empty());
        for (bytes, compressed) in [
            (vec![b'x'; 2000], false),
            (b"short".to_vec(), false),
            ([&[0x1f, 0x8b][..], &[9; 600]].concat(), true),
            ([&b"\xfd7zXZ"[..], &[9; 600]].concat(), true),
            ([&b"BZh"[..], &[9; 600]].concat(), true),
        ] {
            let error = all(&bytes).unwrap_err();
            assert!(
                matches!(error, TarError::NotTar { is_compressed } if is_compressed == compressed),
                "{error}"
            );
        }
        let whole = archive(&[("a", &[1; 2000]), ("b", &[2; 2000])]);
        for len in (600..whole.len() - 1024).filter(|len| len % 97 == 0) {
            let cut = all(&whole[..len]);
            let ends_between = [512, 512 + 512 + 2048].contains(&len);
            assert!(ends_between || matches!(cut, Err(TarError::Truncated(_))), "{len}");
        }
        let mut damaged = whole.clone();
        damaged[512 + 512 + 2048 + 3] ^= 1;
        assert!(matches!(all(&damaged), Err(TarError::Header(3072))), "{:?}", all(&damaged));
        let huge = file_head("a", u64::MAX / 2);
        assert!(matches!(all(&huge), Err(TarError::TooLarge)));
        let mut long = header(EntryType::GNULongName, 1 << 40, 0o644);
        finish(&mut long, "x");
        assert!(matches!(all(long.as_bytes()), Err(TarError::TooLarge)));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
            let _ = all(&bytes);
        }
    }
}
