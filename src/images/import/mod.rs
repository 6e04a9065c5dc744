//! Images from an archive: an OCI image layout in a tar, as `export`, podman, skopeo and `BuildKit`
//! write it.
//!
//! First the objects come in. Only when all of an archive is here is it looked at what its images
//! need; what breaks off leaves objects that the next try finds, and nothing else.
//!
//! - `intake`: the objects of an archive, into the store
//! - `adoption`: its images, on record
//! - `line`: what is told of it
//! - `error`: why not

mod adoption;
mod error;
mod intake;
mod line;

use std::collections::HashSet;
use std::io::Read;

use entrepot_cache::Reach;
use entrepot_oci::{Digest, ImageName};
use tokio::runtime::Handle;

pub(crate) use adoption::{Adoption, Records};
pub(crate) use error::ImportError;
pub(crate) use intake::ArchiveContents;
#[cfg(fuzzing)]
pub(super) use intake::checked;
pub(crate) use line::{ImportLine, Imported};

use self::intake::Intake;
use super::{Images, layout};

/// The names of the images that an archive says it has, and what they stand for there; what has no
/// full name is not among them. Nothing of it is kept, or checked. Blocks.
pub(crate) fn announced(source: impl Read) -> Result<Vec<(ImageName, Digest)>, ImportError> {
    let images = intake::announced(source)?;
    Ok(images.iter().filter_map(|image| Some((layout::name(image)?, image.digest))).collect())
}

impl Images {
    /// Reads an archive to its end into the store. Blocks; `runtime` is the store's.
    ///
    /// `tell` hears now and then how many bytes have been read.
    pub(crate) fn read_archive(
        &self,
        runtime: &Handle,
        source: impl Read,
        tell: impl FnMut(u64),
    ) -> Result<ArchiveContents, ImportError> {
        let mut contents = ArchiveContents::default();
        let mut intake = Intake { store: &self.store, runtime, contents: &mut contents, tell };
        let read = intake.read(source);
        if let Err(error) = read {
            runtime.block_on(self.take_back(&error, contents.new, HashSet::new()));
            return Err(error);
        }
        Ok(contents)
    }

    /// Takes out what an import has brought that failed so, but for what belongs to images that it
    /// has put on record: nobody can use it, and others need the room.
    async fn take_back(&self, error: &ImportError, new: HashSet<Digest>, adopted: HashSet<Digest>) {
        // Then it is of use for the next try.
        if error.is_passing() {
            return;
        }
        if let Err(error) = self.store.withdraw(new, adopted, Reach::Alone).await {
            tracing::warn!(%error, "what a failed import has brought stays");
        }
    }
}
