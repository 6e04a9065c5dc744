//! Adopting what has come: an image whose objects are all here is put on record, one after the
//! other.

use std::collections::HashSet;

use entrepot_cache::{Presence, Reach};
use entrepot_oci::manifest::{Descriptor, Document};
use entrepot_oci::{Digest, ImageName, MediaType, Reference};

use super::super::{Image, ImageError, Images, Selection, layout};
use super::error::ImportError;
use super::intake::ArchiveContents;
use super::line::{ImportLine, Imported};
use crate::gateway::Gateway;
use crate::gateway::vouching::{self, Vouched};
use crate::listener::Policy;
use crate::records::Archive;

/// How deep indexes may lie in indexes.
const DEEPEST: usize = 4;

/// How the images of an archive become those of a store.
pub(crate) struct Adoption<'a> {
    /// What an archive's only image is called, whatever the archive says.
    pub name: Option<&'a ImageName>,
    /// Which of its images are meant; none named: all of them.
    pub meant: &'a [Selection],
    /// Whose clients would pull them.
    pub policy: &'a Policy,
    /// Who puts them on record.
    pub records: Records<'a>,
}

/// Who puts on record what has come.
pub(crate) enum Records<'a> {
    /// A proxy that runs.
    Running(&'a Gateway),
    /// Nobody else: it does not run.
    Stopped,
}

impl Images {
    /// Puts the images of an archive on record, each when it is known to be whole; then each can be
    /// pulled. Where that fails, what has come for it goes again.
    ///
    /// Cancel safe: an image is on record, or nothing leads to it.
    pub(crate) async fn adopt(
        &self,
        contents: &ArchiveContents,
        adoption: &Adoption<'_>,
        mut tell: impl FnMut(ImportLine),
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
        contents: &ArchiveContents,
        adoption: &Adoption<'_>,
        adopted: &mut HashSet<Digest>,
        tell: &mut impl FnMut(ImportLine),
    ) -> Result<(), ImportError> {
        self.settled().await?;
        // There may be room for each object and not for all.
        self.store.hold_bounds().await;
        // All of them are looked at before the first is told of.
        let mut whole = Vec::new();
        let Named { meant, left_out } = named(contents, adoption)?;
        for (name, image) in meant {
            whole.push((self.examine(contents, &name, image).await?, name));
        }
        for (found, name) in whole {
            self.record(&name, &found, &adoption.records).await?;
            adopted.insert(found.digest);
            let Image { name, digest, platforms, .. } = self.find(&name).await?;
            tell(ImportLine::Image(Imported { name, digest, platforms }));
        }
        for name in left_out {
            tell(ImportLine::LeftOut(name));
        }
        // What no image needs has come for nothing.
        let strays = self.store.withdraw(contents.new.clone(), adopted.clone(), Reach::Alone).await;
        let strays = strays.map_err(ImageError::Store)?;
        let objects = (contents.new.len() as u64).saturating_sub(strays.objects);
        tell(ImportLine::Summary {
            objects,
            bytes: contents.new_bytes.saturating_sub(strays.bytes),
        });
        Ok(())
    }

    async fn record(
        &self,
        name: &ImageName,
        found: &WholeImage,
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
            Records::Stopped => {
                vouching::vouch(&Archive::new(self.store.clone(), None), &vouched).await
            }
        };
        recorded.map_err(|error| ImportError::Record(name.to_string(), error))
    }

    /// What an image of the archive consists of: all that it names, but for platforms of an index
    /// that are left out whole.
    async fn examine(
        &self,
        contents: &ArchiveContents,
        name: &ImageName,
        image: &Descriptor,
    ) -> Result<WholeImage, ImportError> {
        let mut found = WholeImage::new(name, image)?;
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
            let needed = needed.filter(|one| is_there(one) || !one.is_foreign());
            rest.extend(listed.chain(needed).map(|one| (one.clone(), depth + 1)));
            if document.config.is_none() && !document.manifests().iter().any(|one| is_there(&one)) {
                let first = document.descriptors().next().map_or(one.digest, |one| one.digest);
                return Err(ImportError::Missing { name: name.to_string(), digest: first });
            }
        }
        Ok(found)
    }
}

/// The images of an archive.
struct Named<'a> {
    /// Those that are meant, under the names that they are going to have.
    meant: Vec<(ImageName, &'a Descriptor)>,
    /// The names of the others.
    left_out: Vec<String>,
}

/// The archive's images, as they are called and meant. It may have others than it was got for, and
/// whoever has it must not be given a name by it that nobody has meant.
fn named<'a>(
    contents: &'a ArchiveContents,
    adoption: &Adoption<'_>,
) -> Result<Named<'a>, ImportError> {
    if adoption.name.is_some() && contents.images.len() != 1 {
        return Err(ImportError::ManyImages(contents.images.len()));
    }
    let mut named = Named { meant: Vec::new(), left_out: Vec::new() };
    for image in &contents.images {
        let own = adoption.name.cloned().or_else(|| layout::name(image));
        let is_meant = |name: &ImageName| adoption.meant.iter().any(|meant| meant.is(name));
        if !adoption.meant.is_empty() && !own.as_ref().is_some_and(is_meant) {
            named.left_out.push(own.map_or_else(|| image.digest.to_string(), |o| o.to_string()));
            continue;
        }
        let name = own.ok_or(ImportError::NoName(image.digest))?;
        if matches!(name.reference, Reference::Digest(digest) if digest != image.digest) {
            return Err(ImportError::OtherImage(name.to_string(), image.digest));
        }
        if !adoption.policy.intercepts(&name.authority) {
            return Err(ImportError::NotIntercepted(name.to_string(), name.registry));
        }
        named.meant.push((name, image));
    }
    let is_there = |meant: &&Selection| named.meant.iter().any(|(name, _)| meant.is(name));
    if let Some(missing) = adoption.meant.iter().find(|meant| !is_there(meant)) {
        return Err(ImportError::NotInArchive(missing.to_string()));
    }
    Ok(named)
}

/// An image that is here whole.
struct WholeImage {
    digest: Digest,
    media_type: MediaType,
    size: u64,
    contents: Vec<(Digest, Option<MediaType>)>,
}

impl WholeImage {
    fn new(name: &ImageName, image: &Descriptor) -> Result<Self, ImportError> {
        let no_manifest = || ImportError::NoManifest(name.to_string(), image.digest);
        let media_type = MediaType::of_manifest(&image.media_type).ok_or_else(no_manifest)?;
        Ok(Self { digest: image.digest, media_type, size: image.size, contents: Vec::new() })
    }
}

impl ArchiveContents {
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
