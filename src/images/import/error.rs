//! Why an archive is not imported, and whose fault it is.

use entrepot_cache::{BeginError, FinishError, RecordError, WriteError};
use entrepot_oci::{Digest, Registry};

use super::super::ImageError;
use super::super::tarball::TarError;

/// Why an archive is not imported, or not all of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ImportError {
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
    /// What was named is none of its images.
    #[error("the archive has no image {0}")]
    NotInArchive(String),
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
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Tar(_) | Self::Busy(_) | Self::Image(ImageError::Loading))
    }
}

/// A writer could not be had for an object.
pub(super) fn begin_failed(digest: Digest, error: BeginError) -> ImportError {
    if error.is_no_space() {
        ImportError::Full(Box::new(error))
    } else {
        ImportError::Store(digest, Box::new(error))
    }
}

/// Bytes of an object could not be kept.
pub(super) fn write_failed(digest: Digest, error: WriteError) -> ImportError {
    if error.is_no_space() {
        ImportError::Full(Box::new(error))
    } else {
        ImportError::Store(digest, Box::new(error))
    }
}

/// An object could not be finished.
pub(super) fn finish_failed(digest: Digest, error: FinishError) -> ImportError {
    match error {
        FinishError::DigestMismatch { expected, actual } => {
            ImportError::Digest { expected, actual }
        }
        error if error.is_no_space() => ImportError::Full(Box::new(error)),
        error => ImportError::Store(digest, Box::new(error)),
    }
}
