//! Images as an archive: an OCI image layout in a tar.

use std::collections::HashSet;
use std::task::{Context, Poll};

use bytes::Bytes;
use entrepot_cache::ReadError;
use entrepot_oci::Hasher;
use entrepot_oci::manifest::{Descriptor, Document};
use entrepot_oci::{Digest, ImageName};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::parts::{ImageParts, ManifestPart};
use super::{ImageError, Images, layout, tarball};

/// How much of an object is read at a time.
const PIECE: usize = 256 * 1024;
/// Pieces that wait for who takes them.
const WAITING: usize = 8;

/// Why images can't be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// It is not there.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// No platform of it is there whole.
    #[error(
        "{name} is not kept whole: {missing} of its objects are missing, {first} first; bring them \
         in with `entrepot pull {name}`"
    )]
    Incomplete {
        /// The image.
        name: String,
        /// How many objects are missing, of the platform of which most is kept.
        missing: usize,
        /// One of them.
        first: Digest,
    },
    /// An object went while the archive was written.
    #[error("{0} has gone from the store meanwhile: export again")]
    Gone(Digest),
    /// An object can't be read to its end.
    #[error("{0} can't be read from the store")]
    Read(Digest, #[source] ReadError),
    /// The disk has damaged an object.
    #[error("{0} is damaged on the disk, and set aside: pull it again, and export then")]
    Damaged(Digest),
    /// Whoever made the archive has ended before it was complete.
    #[error("the archive broke off before its end; if a proxy makes it, its log says why")]
    Broken,
}

/// An image in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exported {
    /// Its name.
    pub name: String,
    /// What the name stands for.
    pub digest: String,
    /// The platforms that are in the archive.
    pub platforms: Vec<String>,
}

/// An archive that is going to be written.
#[derive(Debug)]
pub(crate) struct Archive {
    images: Images,
    /// What is in it.
    pub exported: Vec<Exported>,
    index: Vec<u8>,
    objects: Vec<(Digest, u64)>,
}

impl Images {
    /// An archive of these images, each with all its platforms that are kept whole, and of their
    /// [foreign](Descriptor::is_foreign) layers with those that are kept.
    ///
    /// What a name stands for is in it as it is, so that its digest stays: an index names platforms
    /// too that are not in it, as layouts may.
    pub(crate) async fn export(&self, names: &[ImageName]) -> Result<Archive, ExportError> {
        let (mut exported, mut manifests) = (Vec::new(), Vec::new());
        let (mut objects, mut seen) = (Vec::new(), HashSet::new());
        for name in names {
            let entry = self.entry(name).await?;
            let parts = ImageParts::of(&self.store, entry.shown.digest).await;
            if !parts.is_complete() {
                return Err(incomplete(name, &parts));
            }
            let whole = parts.manifests.iter().filter(|part| part.is_whole());
            // What an image can do without, and what is not here, stays out: its manifest says
            // where that is.
            let mut needed = Vec::new();
            for part in whole {
                let all = self.closure(part.digest).await.into_iter();
                needed.extend(all.filter(|one| !part.absent.contains(one)));
            }
            for digest in std::iter::once(parts.root).chain(needed) {
                if seen.insert(digest) {
                    let kept = self.store.find(&digest).ok_or(ExportError::Gone(digest))?;
                    objects.push((digest, kept.size));
                }
            }
            manifests.push(self.descriptor(name, &entry.shown).await?);
            exported.push(Exported {
                name: name.to_string(),
                digest: parts.root.to_string(),
                platforms: parts.platforms(),
            });
        }
        let index = serde_json::to_vec(&layout::Index::of(manifests)).unwrap_or_default();
        Ok(Archive { images: self.clone(), exported, index, objects })
    }

    async fn descriptor(
        &self,
        name: &ImageName,
        shown: &crate::gateway::Standing,
    ) -> Result<Descriptor, ExportError> {
        let digest = shown.digest;
        let bytes = self.store.peek(&digest).await.ok_or(ExportError::Gone(digest))?;
        let told = shown.media_type.as_ref().map(ToString::to_string);
        let own = || Document::parse(&bytes).and_then(|document| document.media_type);
        Ok(Descriptor {
            media_type: told.or_else(own).unwrap_or_default(),
            digest,
            size: bytes.len() as u64,
            platform: None,
            urls: Vec::new(),
            annotations: layout::annotations(name),
        })
    }
}

fn incomplete(name: &ImageName, parts: &ImageParts) -> ExportError {
    // The platform of which most is there is the one that somebody has pulled.
    let images = parts.manifests.iter().filter(|part| part.is_image());
    let is_away = |part: &ManifestPart| part.first_missing == Some(part.digest);
    let most = images.min_by_key(|part| (is_away(part), part.missing));
    let missing = most.map_or(1, |part| part.missing.max(1));
    let first = most.and_then(|part| part.first_missing).unwrap_or(parts.root);
    ExportError::Incomplete { name: name.to_string(), missing, first }
}

/// Pieces of an archive, on their way to whoever wants it: `None` is its end.
pub(crate) type Pieces = mpsc::Sender<Result<Option<Bytes>, ExportError>>;

/// An archive that comes, piece by piece. One that is cut short does not look like a whole one.
#[derive(Debug)]
pub struct Coming {
    pieces: mpsc::Receiver<Result<Option<Bytes>, ExportError>>,
    is_over: bool,
}

/// The two ends of an archive's way.
#[must_use]
pub(crate) fn channel() -> (Pieces, Coming) {
    let (to, pieces) = mpsc::channel(WAITING);
    (to, Coming { pieces, is_over: false })
}

impl Coming {
    /// The next piece; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ExportError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(cx).map(|received| self.received(received))
    }

    /// The same, for who may wait.
    pub fn blocking_next(&mut self) -> Option<Result<Bytes, ExportError>> {
        if self.is_over {
            return None;
        }
        let received = self.pieces.blocking_recv();
        self.received(received)
    }

    fn received(
        &mut self,
        received: Option<Result<Option<Bytes>, ExportError>>,
    ) -> Option<Result<Bytes, ExportError>> {
        let piece = received.unwrap_or(Err(ExportError::Broken));
        self.is_over = !matches!(piece, Ok(Some(_)));
        piece.transpose()
    }
}

impl Archive {
    /// Sends it, piece by piece; the last one is an error if it could not be completed. Ends early
    /// when nobody takes them any more.
    pub(crate) async fn send(self, to: Pieces) {
        match self.send_all(&to).await {
            Err(Stop::Deserted) => {}
            // Whoever does not take it has heard enough.
            Ok(()) => drop(to.send(Ok(None)).await),
            Err(Stop::Failed(error)) => drop(to.send(Err(error)).await),
        }
    }

    async fn send_all(&self, to: &Pieces) -> Result<(), Stop> {
        let mut algorithms: Vec<_> = self.objects.iter().map(|(one, _)| one.algorithm()).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        piece(to, file(layout::MARK, layout::MARK_TEXT.as_bytes())).await?;
        piece(to, file(layout::INDEX, &self.index)).await?;
        piece(to, tarball::directory(&format!("{}/", layout::BLOBS))).await?;
        for algorithm in algorithms {
            piece(to, tarball::directory(&format!("{}/{algorithm}/", layout::BLOBS))).await?;
        }
        for (digest, size) in &self.objects {
            piece(to, tarball::file_head(&layout::blob_path(digest), *size)).await?;
            self.send_object(digest, *size, to).await?;
            piece(to, tarball::padding(*size)).await?;
        }
        piece(to, tarball::end()).await
    }

    async fn send_object(&self, digest: &Digest, size: u64, to: &Pieces) -> Result<(), Stop> {
        let gone = || Stop::Failed(ExportError::Gone(*digest));
        let reader = self.images.store.look_at(digest).await.ok_or_else(gone)?;
        if reader.size() != Some(size) {
            return Err(gone());
        }
        // That it was sound when it came, or was last asked for, is not enough for what leaves.
        let mut hasher = Hasher::new(digest.algorithm());
        let mut offset = 0;
        while offset < size {
            let read = reader.read_at(offset, PIECE).await;
            let bytes = read.map_err(|error| Stop::Failed(ExportError::Read(*digest, error)))?;
            if bytes.is_empty() {
                return Err(gone());
            }
            offset += bytes.len() as u64;
            hasher.update(&bytes);
            piece(to, bytes).await?;
        }
        if hasher.finish() == *digest {
            return Ok(());
        }
        if let Err(error) = self.images.store.quarantine(digest).await {
            tracing::warn!(%digest, %error, "a damaged object stays");
        }
        Err(Stop::Failed(ExportError::Damaged(*digest)))
    }
}

/// Why an archive is not sent to its end.
enum Stop {
    Deserted,
    Failed(ExportError),
}

async fn piece(to: &Pieces, bytes: impl Into<Bytes>) -> Result<(), Stop> {
    to.send(Ok(Some(bytes.into()))).await.map_err(|_| Stop::Deserted)
}

fn file(path: &str, contents: &[u8]) -> Vec<u8> {
    let size = contents.len() as u64;
    [&tarball::file_head(path, size), contents, &tarball::padding(size)].concat()
}
