//! What fuzz targets feed: an archive that is imported, and the index in it.

use std::io::Read;

use entrepot_oci::{Digest, ImageName};

use super::import::checked;
use super::layout;
use super::tarball::{self, Kind, Tarball};

/// An entry of an archive, as an import sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// Where it says that it lies.
    pub path: String,
    /// Whether it is a file.
    pub is_file: bool,
    /// The size in its header.
    pub size: u64,
    /// The object that it is taken for.
    pub digest: Option<Digest>,
    /// Its contents.
    pub contents: Vec<u8>,
}

/// The entries of an archive, up to the first that is wrong.
pub fn entries(source: impl Read) -> (Vec<ArchiveEntry>, Result<u64, String>) {
    let mut tarball = Tarball::new(source);
    let mut found = Vec::new();
    let outcome = loop {
        match next(&mut tarball) {
            Ok(Some(entry)) => found.push(entry),
            Ok(None) => break Ok(tarball.position()),
            Err(error) => break Err(error),
        }
    };
    (found, outcome)
}

fn next<R: Read>(tarball: &mut Tarball<R>) -> Result<Option<ArchiveEntry>, String> {
    let Some(entry) = tarball.next().map_err(|error| error.to_string())? else { return Ok(None) };
    let path = checked(&entry).map_err(|error| error.to_string())?;
    let digest = layout::blob_at(&path).filter(|_| entry.kind == Kind::File);
    let mut contents = Vec::new();
    loop {
        let piece = tarball.piece().map_err(|error| error.to_string())?;
        if piece.is_empty() {
            break;
        }
        contents.extend(piece);
    }
    let (is_file, size) = (entry.kind == Kind::File, entry.size);
    Ok(Some(ArchiveEntry { path, is_file, size, digest, contents }))
}

/// A file as an export writes it.
#[must_use]
pub fn file(path: &str, contents: &[u8]) -> Vec<u8> {
    let size = contents.len() as u64;
    [tarball::file_head(path, size), contents.to_vec(), tarball::padding(size)].concat()
}

/// Where an export puts an object.
#[must_use]
pub fn path_of(digest: &Digest) -> String {
    layout::blob_path(digest)
}

/// The images that an `index.json` lists, with the names that they are taken for.
#[must_use]
pub fn images(index: &[u8]) -> Option<Vec<(Digest, Option<ImageName>)>> {
    let index: layout::Index = serde_json::from_slice(index).ok()?;
    let named = index.manifests.iter().map(|image| (image.digest, layout::name(image)));
    Some(named.collect())
}

/// Whether a file that marks a layout is of a version that is taken.
#[must_use]
pub fn is_layout(mark: &[u8]) -> bool {
    layout::check_version(mark).is_ok()
}
