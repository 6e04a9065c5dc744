//! What is told of a pull while it goes on, one JSON object a line.

use entrepot_oci::ImageBlob;
use serde::{Deserialize, Serialize};

use super::Failure;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PullLine {
    /// The manifests are here: what belongs to the image is known.
    Image(Beginning),
    /// A blob is coming.
    Progress(BlobProgress),
    /// A blob is here.
    Done(Done),
    /// The last line, if all went well.
    Summary(PullSummary),
    /// The last line, if not.
    Error(Failure),
}

/// What belongs to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beginning {
    /// Its full name.
    pub image: String,
    /// What its name stands for.
    pub digest: String,
    /// For which machines; none where there is no index that says so.
    pub platforms: Vec<String>,
    /// Its blobs.
    pub objects: Vec<PulledBlob>,
}

/// A blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PulledBlob {
    /// Its name.
    pub digest: String,
    /// Its size, as the manifest has it.
    pub total_bytes: u64,
    /// Whether it is the configuration, rather than a layer.
    pub is_config: bool,
}

impl PulledBlob {
    pub(super) fn of(part: &ImageBlob) -> Self {
        let ImageBlob { digest, size, is_config } = part;
        Self { digest: digest.to_string(), total_bytes: *size, is_config: *is_config }
    }
}

/// How much of a blob has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlobProgress {
    /// Which.
    pub digest: String,
    /// So much.
    pub bytes: u64,
}

/// A blob that is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Which.
    pub digest: String,
    /// All of it.
    pub bytes: u64,
    /// Where it came from.
    pub from: BlobOrigin,
}

/// Where a blob came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BlobOrigin {
    /// It was kept already.
    Store,
    /// From the registry, just now.
    Registry,
}

/// What was brought in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PullSummary {
    /// The image's full name.
    pub image: String,
    /// What its name stands for.
    pub digest: String,
    /// For which machines; none where there is no index that says so.
    pub platforms: Vec<String>,
    /// Its manifests and blobs.
    pub objects: u64,
    /// All their bytes.
    pub bytes: u64,
    /// Blobs that were not kept before.
    pub fetched_blobs: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
}
