//! Images from an archive: an OCI image layout in a tar, as `export`, podman, skopeo and `BuildKit`
//! write it.
//!
//! First the objects come in, each hashed and kept under its digest, where nothing leads to them yet.
//! Only when all of an archive is here is it looked at what its images need; an image whose objects
//! have all come is put on record, one after the other. What breaks off leaves objects that the next
//! try finds, and nothing else.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use bytes::Bytes;
use entrepot_cache::{
    BeginError, FinishError, Lookup, Presence, Reach, RecordError, Start, Store, WriteError,
};
use entrepot_oci::Hasher;
use entrepot_oci::manifest::{Descriptor, Document};
use entrepot_oci::{Digest, ImageName, MediaType, Reference, Registry};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::tarball::{Entry, Kind, TarError, Tarball};
use super::{Image, ImageError, Images, layout};
use crate::gateway::Gateway;
use crate::gateway::vouching::{self, Vouched};
use crate::listener::Policy;

/// Where objects of archives come from: no registry has this name, so nobody reads them before they
/// are verified.
const ORIGIN: &str = "(import)";
/// The largest `index.json` taken: as large as a manifest.
const LARGEST_INDEX: u64 = 8 * 1024 * 1024;
/// How often an object is looked up that turns out to be damaged.
const LOOKS: usize = 2;
/// How deep indexes may lie in indexes.
const DEEPEST: usize = 4;

/// Why an archive is not imported, or not all of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It is no archive, or a broken one.
    #[error("the archive can't be read")]
    Tar(#[from] TarError),
    /// It is an archive of something else.
    #[error("the archive is no OCI image layout: it has no {0}")]
    NoLayout(&'static str),
    /// `index.json` can't be understood.
    #[error("index.json in the archive can't be read")]
    Index(#[source] serde_json::Error),
    /// A name that leads out of the archive, or something else than a file where one must be.
    #[error("the archive has an entry that no layout has: {0:?}")]
    Path(String),
    /// An object is not what its name says.
    #[error("{expected} in the archive has other bytes: their digest is {actual}")]
    Digest {
        /// Its name.
        expected: Digest,
        /// What it is.
        actual: Box<Digest>,
    },
    /// An object that an image needs is not there.
    #[error("{name}: {digest} is missing in the archive")]
    Missing {
        /// The image.
        name: String,
        /// What is missing.
        digest: Digest,
    },
    /// What an image's name stands for is no image.
    #[error("{0}: {1} in the archive is no manifest or index")]
    NoManifest(String, Digest),
    /// Nobody knows what an image is called.
    #[error("{0} in the archive has no full name: give it one with --name IMAGE")]
    NoName(Digest),
    /// An image is given the name of another.
    #[error("{0} does not name the image in the archive, which is {1}")]
    OtherImage(String, Digest),
    /// Nobody who pulls it would come by.
    #[error("{0} is of no registry that this proxy keeps images of: add {1} to intercept-also")]
    NotIntercepted(String, Registry),
    /// A layout of another kind.
    #[error("the archive is an image layout of version {0:?}, which is not known here")]
    Version(String),
    /// An object has another length than its manifest says.
    #[error("{name}: {digest} has {actual} bytes in the archive, and {expected} by its manifest")]
    Size {
        /// The image.
        name: String,
        /// Which object.
        digest: Digest,
        /// By the manifest.
        expected: u64,
        /// In the archive.
        actual: u64,
    },
    /// A name is given to several images.
    #[error("--name is for one image: the archive has {0}")]
    ManyImages(usize),
    /// A client is downloading an object just now.
    #[error("{0} is being downloaded just now: import again")]
    Busy(Digest),
    /// An object has come, and is not there any more.
    #[error(
        "{0} could not be kept: is max-size too small for the image, or the disk (min-free)? \
             If it was removed meanwhile, import again"
    )]
    NotKept(Digest),
    /// There is no room.
    #[error("the disk of the store is full")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store failed.
    #[error("the store could not keep {0}")]
    Store(Digest, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store's state can't be told.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The objects are there, and it could not be put on record to what they belong.
    #[error("{0} could not be put on record")]
    Record(String, #[source] RecordError),
}

impl ImportError {
    /// Whether the same archive may be taken in the next time.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Tar(_) | Self::Busy(_) | Self::Image(ImageError::Loading))
    }

    /// Whether the store has failed, rather than the archive.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::NotKept(_) | Self::Full(_) | Self::Store(..) | Self::Image(_) | Self::Record(..)
        )
    }
}

/// An image that has been imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Its name.
    pub name: String,
    /// What the name stands for.
    pub digest: String,
    /// The platforms that have come.
    pub platforms: Vec<String>,
}

/// One line of what is told of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Now and then: how many bytes of the archive have been read.
    Read(u64),
    /// An image can be pulled.
    Image(Imported),
    /// The last line, if all went well: how many objects are new, and their bytes.
    Summary {
        /// How many there are.
        objects: u64,
        /// Their sizes' sum.
        bytes: u64,
    },
    /// The last line, if not.
    Error(String),
}

/// How the images of an archive become those of a store.
pub struct Adoption<'a> {
    /// What an archive's only image is called, whatever the archive says.
    pub name: Option<&'a ImageName>,
    /// Whose clients would pull them.
    pub policy: &'a Policy,
    /// Who puts them on record.
    pub records: Records<'a>,
}

/// Who puts on record what has come.
pub enum Records<'a> {
    /// A proxy that runs.
    Running(&'a Gateway),
    /// Nobody else: it does not run.
    Stopped,
}

/// What has been read from an archive; all of it is kept.
#[derive(Debug, Default)]
pub struct Contents {
    images: Vec<Descriptor>,
    sizes: HashMap<Digest, u64>,
    /// What was not kept before.
    new: HashSet<Digest>,
    new_bytes: u64,
}

impl Images {
    /// Reads an archive to its end into the store. Blocks; `runtime` is the store's.
    ///
    /// `tell` hears now and then how many bytes have been read.
    pub fn read_archive(
        &self,
        runtime: &Handle,
        source: impl Read,
        tell: impl FnMut(u64),
    ) -> Result<Contents, ImportError> {
        let mut contents = Contents::default();
        let mut intake = Intake { store: &self.store, runtime, contents: &mut contents, tell };
        let read = intake.read(source);
        if let Err(error) = read {
            runtime.block_on(self.take_back(&error, contents.new, HashSet::new()));
            return Err(error);
        }
        Ok(contents)
    }

    /// Takes out what an import has brought that failed so, but for what belongs to images that it has
    /// put on record: nobody can use it, and others need the room.
    async fn take_back(&self, error: &ImportError, new: HashSet<Digest>, adopted: HashSet<Digest>) {
        // Then it is of use for the next try.
        if error.is_passing() {
            return;
        }
        if let Err(error) = self.store.withdraw(new, adopted, Reach::Alone).await {
            tracing::warn!(%error, "what a failed import has brought stays");
        }
    }

    /// Puts the images of an archive on record, each when it is known to be whole; then each can be
    /// pulled. Where that fails, what has come for it goes again.
    ///
    /// Cancel safe: an image is on record, or nothing leads to it.
    pub async fn adopt(
        &self,
        contents: &Contents,
        adoption: &Adoption<'_>,
        mut tell: impl FnMut(Told),
    ) -> Result<(), ImportError> {
        let mut adopted = HashSet::new();
        let outcome = self.adopt_all(contents, adoption, &mut adopted, &mut tell).await;
        if let Err(error) = &outcome {
            self.take_back(error, contents.new.clone(), adopted).await;
        }
        outcome
    }

    async fn adopt_all(
        &self,
        contents: &Contents,
        adoption: &Adoption<'_>,
        adopted: &mut HashSet<Digest>,
        tell: &mut impl FnMut(Told),
    ) -> Result<(), ImportError> {
        self.settled().await?;
        // There may be room for each object and not for all.
        self.store.hold_bounds().await;
        // All of them are looked at before the first is told of.
        let mut whole = Vec::new();
        for (name, image) in named(contents, adoption)? {
            whole.push((self.examine(contents, &name, image).await?, name));
        }
        for (found, name) in whole {
            self.record(&name, &found, &adoption.records).await?;
            adopted.insert(found.digest);
            let Image { name, digest, platforms, .. } = self.find(&name).await?;
            tell(Told::Image(Imported { name, digest, platforms }));
        }
        // What no image needs has come for nothing.
        let strays =
            self.store.withdraw(contents.new.clone(), contents.roots(), Reach::Alone).await;
        let strays = strays.map_err(ImageError::Store)?;
        let objects = (contents.new.len() as u64).saturating_sub(strays.objects);
        tell(Told::Summary { objects, bytes: contents.new_bytes.saturating_sub(strays.bytes) });
        Ok(())
    }

    async fn record(
        &self,
        name: &ImageName,
        found: &Found,
        records: &Records<'_>,
    ) -> Result<(), ImportError> {
        let vouched = Vouched {
            name,
            digest: found.digest,
            media_type: found.media_type,
            size: found.size,
            contents: &found.contents,
        };
        let recorded = match records {
            Records::Running(gateway) => gateway.vouch(&vouched).await,
            Records::Stopped => vouching::vouch(&self.store, &vouched).await,
        };
        recorded.map_err(|error| ImportError::Record(name.to_string(), error))
    }

    /// What an image of the archive consists of: all that it names, but for platforms of an index
    /// that are left out whole.
    async fn examine(
        &self,
        contents: &Contents,
        name: &ImageName,
        image: &Descriptor,
    ) -> Result<Found, ImportError> {
        let mut found = Found::new(name, image)?;
        let (mut rest, mut seen) = (vec![(image.clone(), 0)], HashSet::new());
        while let Some((one, depth)) = rest.pop() {
            if !seen.insert(one.digest) {
                continue;
            }
            contents.check(name, &one)?;
            if self.store.contains(&one.digest) != Presence::Kept {
                return Err(ImportError::NotKept(one.digest));
            }
            let media_type = MediaType::of_manifest(&one.media_type);
            found.contents.push((one.digest, media_type));
            if media_type.is_none() {
                continue;
            }
            let no_manifest = || ImportError::NoManifest(name.to_string(), one.digest);
            let bytes = self.store.peek(&one.digest).await;
            let document = bytes.as_deref().and_then(Document::parse).ok_or_else(no_manifest)?;
            if depth > DEEPEST || document.descriptors().next().is_none() {
                return Err(no_manifest());
            }
            let is_there = |listed: &&Descriptor| contents.sizes.contains_key(&listed.digest);
            let listed = document.manifests().iter().filter(is_there);
            let needed = document.config.iter().chain(document.layers());
            let needed = needed.filter(|one| is_there(one) || !is_foreign(one));
            rest.extend(listed.chain(needed).map(|one| (one.clone(), depth + 1)));
            if document.config.is_none() && !document.manifests().iter().any(|one| is_there(&one)) {
                let first = document.descriptors().next().map_or(one.digest, |one| one.digest);
                return Err(ImportError::Missing { name: name.to_string(), digest: first });
            }
        }
        Ok(found)
    }
}

/// The archive's images under the names that they are going to have.
fn named<'a>(
    contents: &'a Contents,
    adoption: &Adoption<'_>,
) -> Result<Vec<(ImageName, &'a Descriptor)>, ImportError> {
    if adoption.name.is_some() && contents.images.len() != 1 {
        return Err(ImportError::ManyImages(contents.images.len()));
    }
    let mut named = Vec::new();
    for image in &contents.images {
        let own = adoption.name.cloned().or_else(|| layout::name(image));
        let name = own.ok_or(ImportError::NoName(image.digest))?;
        if matches!(name.reference, Reference::Digest(digest) if digest != image.digest) {
            return Err(ImportError::OtherImage(name.to_string(), image.digest));
        }
        if !adoption.policy.intercepts(&name.authority) {
            return Err(ImportError::NotIntercepted(name.to_string(), name.registry));
        }
        named.push((name, image));
    }
    Ok(named)
}

/// A layer that its manifest says to get elsewhere (image specification, "Non-Distributable
/// Layers"): tools leave it out.
fn is_foreign(layer: &Descriptor) -> bool {
    ["foreign", "nondistributable"].iter().any(|word| layer.media_type.contains(word))
}

/// An image that is here whole.
struct Found {
    digest: Digest,
    media_type: MediaType,
    size: u64,
    contents: Vec<(Digest, Option<MediaType>)>,
}

impl Found {
    fn new(name: &ImageName, image: &Descriptor) -> Result<Self, ImportError> {
        let no_manifest = || ImportError::NoManifest(name.to_string(), image.digest);
        let media_type = MediaType::of_manifest(&image.media_type).ok_or_else(no_manifest)?;
        Ok(Self { digest: image.digest, media_type, size: image.size, contents: Vec::new() })
    }
}

impl Contents {
    fn roots(&self) -> HashSet<Digest> {
        self.images.iter().map(|image| image.digest).collect()
    }

    /// Whether the archive has this, of this size.
    fn check(&self, name: &ImageName, one: &Descriptor) -> Result<(), ImportError> {
        let missing = || ImportError::Missing { name: name.to_string(), digest: one.digest };
        let actual = *self.sizes.get(&one.digest).ok_or_else(missing)?;
        if actual == one.size {
            return Ok(());
        }
        let (name, digest, expected) = (name.to_string(), one.digest, one.size);
        Err(ImportError::Size { name, digest, expected, actual })
    }
}

/// Reading an archive.
struct Intake<'a, T> {
    store: &'a Store,
    runtime: &'a Handle,
    contents: &'a mut Contents,
    tell: T,
}

impl<T: FnMut(u64)> Intake<'_, T> {
    fn read(&mut self, source: impl Read) -> Result<(), ImportError> {
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
        let mark = mark.ok_or(ImportError::NoLayout(layout::MARK))?;
        layout::check_version(&mark).map_err(ImportError::Version)?;
        let index = index.ok_or(ImportError::NoLayout(layout::INDEX))?;
        let index: layout::Index = serde_json::from_slice(&index).map_err(ImportError::Index)?;
        self.contents.images = index.manifests;
        if self.contents.images.is_empty() {
            return Err(ImportError::NoLayout("image"));
        }
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
    async fn lookup(
        &self,
        digest: &Digest,
    ) -> Result<Option<entrepot_cache::Reservation>, ImportError> {
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

/// Where an entry lies, as far as it may be there. Nothing is ever written to such a place; what
/// tries to get out of it is not what it says it is.
fn checked(entry: &Entry) -> Result<String, ImportError> {
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

fn begin_failed(digest: Digest, error: BeginError) -> ImportError {
    if error.is_no_space() {
        ImportError::Full(Box::new(error))
    } else {
        ImportError::Store(digest, Box::new(error))
    }
}

fn write_failed(digest: Digest, error: WriteError) -> ImportError {
    if error.is_no_space() {
        ImportError::Full(Box::new(error))
    } else {
        ImportError::Store(digest, Box::new(error))
    }
}

fn finish_failed(digest: Digest, error: FinishError) -> ImportError {
    match error {
        FinishError::DigestMismatch { expected, actual } => {
            ImportError::Digest { expected, actual }
        }
        error if error.is_no_space() => ImportError::Full(Box::new(error)),
        error => ImportError::Store(digest, Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_of_the_archive_is_refused() {
        let hex = "a".repeat(64);
        let blob = format!("blobs/sha256/{hex}");
        let check =
            |path: &str, kind| checked(&Entry { path: path.to_owned(), kind, size: 0 }).ok();
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
