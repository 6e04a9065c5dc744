//! What is kept, as images: for people, who know names and not digests.
//!
//! An image is a name of a repository of a registry: a tag, or the digest of a manifest that no tag
//! there stands for. It works on the store and its records alone, of a proxy that runs as of one
//! that does not; it asks no registry.
//!
//! - `catalogue`: which images there are
//! - `parts`: what an image consists of, and what of that is kept
//! - `selection`: which of them are meant
//! - `sample`: a small one that is kept
//! - `changes`: removing images, pinning them
//! - `fleet`: the same on all replicas
//! - `export`, `import`: archives of images
//! - `layout`, `tarball`: what such an archive is
//! - `fuzzing`: what fuzz targets feed of it

mod catalogue;
mod changes;
pub(crate) mod export;
mod fleet;
#[cfg(fuzzing)]
pub mod fuzzing;
pub(crate) mod import;
mod layout;
mod parts;
mod sample;
mod selection;
mod tarball;

use std::time::Duration;

use entrepot_cache::disk::DiskError;
use entrepot_cache::{RecordError, Store};
use entrepot_oci::UnixSeconds;
use serde::{Deserialize, Serialize};

pub(crate) use changes::{Extent, Removal, Removed, Which};
pub(crate) use fleet::{FleetImages, Reached};
pub(crate) use selection::{MOST, Query, Selection, SelectionError, is_explicit};

/// How long the index of a store that has just been opened is waited for. A walk through a tree of
/// a million files takes some seconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// The images of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    store: Store,
}

/// An image, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    /// Its full name: `docker.io/library/alpine:3.20`, or with `@sha256:…` where no tag stands for
    /// it.
    pub name: String,
    /// The manifest or index that the name stands for.
    pub digest: String,
    /// Its media type, where the registry said.
    pub media_type: Option<String>,
    /// How much of it is kept: manifests, configurations, layers.
    pub bytes: u64,
    /// Whether all is kept that at least one platform needs.
    pub is_complete: bool,
    /// The platforms that are kept whole.
    pub platforms: Vec<String>,
    /// When it was last asked for by this name, or came; by a digest, when its manifests or
    /// configuration were.
    pub last_use: UnixSeconds,
    /// How often it was asked for by this name and the store had it.
    pub hits: u64,
    /// Whether it is never evicted.
    pub is_pinned: bool,
    /// When the registry was last asked what the tag stands for.
    pub asked: Option<UnixSeconds>,
    /// When what the name stands for came here.
    #[serde(default)]
    pub first_seen: Option<UnixSeconds>,
}

/// Why an image is not to be had, or not to be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Nothing of it is kept.
    #[error("{0} is not kept")]
    Unknown(String),
    /// It must not go.
    #[error("{0} is pinned: unpin it first")]
    Pinned(String),
    /// It is a part of something that stays.
    #[error("{part} is what {whole} stands for, or a part of it: remove that")]
    Part {
        /// What was named.
        part: String,
        /// Whose it is.
        whole: String,
    },
    /// It is not known yet what needs what.
    #[error("the store's index is still being read: try again in a moment")]
    Loading,
    /// The directories could not be read.
    #[error("the store can't be read")]
    Store(#[source] DiskError),
    /// A record stays as it was.
    #[error("a record can't be changed")]
    Record(#[from] RecordError),
}

impl Images {
    /// The images of `store`.
    #[must_use]
    pub(crate) fn of(store: &Store) -> Self {
        Self { store: store.clone() }
    }

    /// Waits until it is known what is kept.
    async fn settled(&self) -> Result<(), ImageError> {
        if self.store.is_known_within(PATIENCE).await { Ok(()) } else { Err(ImageError::Loading) }
    }
}
