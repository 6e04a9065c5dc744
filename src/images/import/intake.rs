//! Reading an archive: its objects into the store, each hashed and kept under its digest, where
//! nothing leads to them yet.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use bytes::Bytes;
use entrepot_cache::{Lookup, Reservation, Start, Store};
use entrepot_oci::manifest::Descriptor;
use entrepot_oci::{Digest, Hasher};
use tokio::runtime::Handle;

use super::super::layout;
use super::super::tarball::{Kind, TarEntry, Tarball};
use super::error::{ImportError, begin_failed, finish_failed, write_failed};

/// Where objects of archives come from: no registry has this name, so nobody reads them before they
/// are verified.
const ORIGIN: &str = "(import)";
/// The largest `index.json` taken: as large as a manifest.
const LARGEST_INDEX: u64 = 8 * 1024 * 1024;
/// How often an object is looked up that turns out to be damaged.
const LOOKS: usize = 2;

/// What has been read from an archive; all of it is kept.
#[derive(Debug, Default)]
pub(crate) struct ArchiveContents {
    pub(super) images: Vec<Descriptor>,
    pub(super) sizes: HashMap<Digest, u64>,
    /// Those that were not kept before.
    pub(super) new: HashSet<Digest>,
    pub(super) new_bytes: u64,
}

/// Reading an archive.
pub(super) struct Intake<'a, T> {
    pub(super) store: &'a Store,
    pub(super) runtime: &'a Handle,
    pub(super) contents: &'a mut ArchiveContents,
    pub(super) tell: T,
}

impl<T: FnMut(u64)> Intake<'_, T> {
    /// Reads it to its end.
    pub(super) fn read(&mut self, source: impl Read) -> Result<(), ImportError> {
        let mut tarball = Tarball::new(source);
        let (mut mark, mut index) = (None, None);
        while let Some(entry) = tarball.next()? {
            let path = checked(&entry)?;
            match (entry.kind, layout::blob_at(&path)) {
                (Kind::File, Some(digest)) => self.object(&digest, entry.size, &mut tarball)?,
                (Kind::File, None) if path == layout::MARK => {
                    mark = Some(tarball.whole(LARGEST_INDEX)?);
                }
                (Kind::File, None) if path == layout::INDEX => {
                    index = Some(tarball.whole(LARGEST_INDEX)?);
                }
                // What else is in it (`manifest.json` of Docker's own format) is passed over.
                _ => {}
            }
            (self.tell)(tarball.position());
        }
        self.contents.images = images(mark, index)?;
        Ok(())
    }

    /// Takes one object in, or finds that it is kept already.
    fn object<R: Read>(
        &mut self,
        digest: &Digest,
        size: u64,
        tarball: &mut Tarball<R>,
    ) -> Result<(), ImportError> {
        let runtime = self.runtime;
        match runtime.block_on(self.lookup(digest))? {
            None => self.compare(digest, tarball)?,
            Some(reservation) => {
                let begun = runtime.block_on(reservation.begin(Start::Fresh, Some(size)));
                let (mut writer, _reader) = begun.map_err(|error| begin_failed(*digest, error))?;
                loop {
                    let piece = tarball.piece()?;
                    if piece.is_empty() {
                        break;
                    }
                    let written = runtime.block_on(writer.write(Bytes::from(piece)));
                    written.map_err(|error| write_failed(*digest, error))?;
                    (self.tell)(tarball.position());
                }
                let finished = runtime.block_on(writer.finish());
                finished.map_err(|error| finish_failed(*digest, error))?;
                self.contents.new.insert(*digest);
                self.contents.new_bytes += size;
            }
        }
        self.contents.sizes.insert(*digest, size);
        Ok(())
    }

    /// The right to take an object in; `None` if it is kept and sound.
    async fn lookup(&self, digest: &Digest) -> Result<Option<Reservation>, ImportError> {
        let mut failed = None;
        for _ in 0..LOOKS {
            // That an archive has it as well is no use of it.
            if let Some(kept) = self.store.look_at(digest).await
                && kept.verified().await.is_ok()
            {
                return Ok(None);
            }
            match self.store.lookup(digest, ORIGIN).await {
                Lookup::Absent(reservation) => return Ok(Some(reservation)),
                Lookup::InFlight(_) => return Err(ImportError::Busy(*digest)),
                // A damaged one is set aside when it is found to be: then it is absent.
                Lookup::Kept(reader) => match reader.verified().await {
                    Ok(()) => return Ok(None),
                    Err(error) => failed = Some(error),
                },
            }
        }
        let cause = failed.map_or_else(|| "it can't be read".into(), Into::into);
        Err(ImportError::Store(*digest, cause))
    }

    /// What is kept already must be what the archive has.
    fn compare<R: Read>(
        &mut self,
        digest: &Digest,
        tarball: &mut Tarball<R>,
    ) -> Result<(), ImportError> {
        let mut hasher = Hasher::new(digest.algorithm());
        loop {
            let piece = tarball.piece()?;
            if piece.is_empty() {
                break;
            }
            hasher.update(&piece);
            (self.tell)(tarball.position());
        }
        let actual = hasher.finish();
        if actual == *digest {
            return Ok(());
        }
        Err(ImportError::Digest { expected: *digest, actual: Box::new(actual) })
    }
}

/// The images that an archive says it has, read to its end; nothing of it is kept. Blocks.
pub(super) fn announced(source: impl Read) -> Result<Vec<Descriptor>, ImportError> {
    let mut tarball = Tarball::new(source);
    let (mut mark, mut index) = (None, None);
    while let Some(entry) = tarball.next()? {
        let path = checked(&entry)?;
        if entry.kind == Kind::File && path == layout::MARK {
            mark = Some(tarball.whole(LARGEST_INDEX)?);
        } else if entry.kind == Kind::File && path == layout::INDEX {
            index = Some(tarball.whole(LARGEST_INDEX)?);
        }
    }
    images(mark, index)
}

/// The images of a layout by its two files, of which a later one counts.
fn images(mark: Option<Vec<u8>>, index: Option<Vec<u8>>) -> Result<Vec<Descriptor>, ImportError> {
    let mark = mark.ok_or(ImportError::NoLayout(layout::MARK))?;
    layout::check_version(&mark).map_err(ImportError::Version)?;
    let index = index.ok_or(ImportError::NoLayout(layout::INDEX))?;
    let index: layout::Index = serde_json::from_slice(&index).map_err(ImportError::Index)?;
    if index.manifests.is_empty() {
        return Err(ImportError::NoLayout("image"));
    }
    Ok(index.manifests)
}

/// Where an entry lies, as far as it may be there. Nothing is ever written to such a place; what
/// tries to get out of it is not what it says it is.
pub(in crate::images) fn checked(entry: &TarEntry) -> Result<String, ImportError> {
    let wrong = || ImportError::Path(entry.path.clone());
    if entry.path.starts_with('/') || entry.path.split('/').any(|part| part == "..") {
        return Err(wrong());
    }
    let parts = entry.path.split('/').filter(|part| !matches!(*part, "" | "."));
    let path = parts.collect::<Vec<_>>().join("/");
    let is_ours = [layout::MARK, layout::INDEX].contains(&path.as_str()) || is_in_blobs(&path);
    let is_fit = match entry.kind {
        Kind::File => !is_in_blobs(&path) || layout::blob_at(&path).is_some(),
        Kind::Directory => true,
        Kind::Other => false,
    };
    if is_fit || !is_ours { Ok(path) } else { Err(wrong()) }
}

fn is_in_blobs(path: &str) -> bool {
    path.split('/').next() == Some(layout::BLOBS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_of_the_archive_is_refused() {
        let hex = "a".repeat(64);
        let blob = format!("blobs/sha256/{hex}");
        let check =
            |path: &str, kind| checked(&TarEntry { path: path.to_owned(), kind, size: 0 }).ok();
        for (path, expected) in [
            (blob.as_str(), blob.as_str()),
            (&format!("./{blob}"), &blob),
            ("./index.json", "index.json"),
            ("manifest.json", "manifest.json"),
            ("blobsy/x", "blobsy/x"),
        ] {
            assert_eq!(check(path, Kind::File).as_deref(), Some(expected));
        }
        for path in
            ["../index.json", "/index.json", "a/../../x", "blobs/sha256/..", "blobs/x", "blobs"]
        {
            assert_eq!(check(path, Kind::File), None, "{path}");
        }
        assert_eq!(check("blobs/sha256", Kind::Directory).as_deref(), Some("blobs/sha256"));
        for link in [blob.as_str(), "blobs", "index.json", "oci-layout"] {
            assert_eq!(check(link, Kind::Other), None, "{link}");
        }
        assert!(check("latest", Kind::Other).is_some(), "what nobody looks at");
    }
}
