//! Why a body broke off.

use std::time::Duration;

use bytes::Bytes;
use entrepot_cache::ReadError;
use entrepot_oci::Digest;
use http_body::Frame;

use crate::upstream::body::BodyError;

/// How long a disk may take to deliver bytes that it has: one that hangs for longer is gone past.
pub(super) const STALL: Duration = Duration::from_secs(5);

/// A response body broke off: the connection is closed so that no client takes it for whole.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// The upstream's transfer broke.
    #[error(transparent)]
    Upstream(#[from] BodyError),
    /// The store could not deliver.
    #[error(transparent)]
    Store(#[from] ReadError),
    /// The store could not deliver, and the registry did not go on in its place.
    #[error(transparent)]
    Rescue(#[from] RescueError),
    /// The registry delivered other bytes than were asked for.
    #[error("the registry delivered other bytes than {0}")]
    Digest(Digest),
}

/// Why the registry did not go on in place of the store.
#[derive(Debug, thiserror::Error)]
pub enum RescueError {
    /// The registry could not be asked, or what it sent broke off.
    #[error("the store failed, and so did the registry: {0}")]
    Registry(String),
    /// The registry sends something else now.
    #[error("the store failed, and the registry sends other bytes than before")]
    Changed,
    /// The disk hangs, and no registry can be asked.
    #[error("the disk did not deliver within {} s", STALL.as_secs())]
    Stalled,
}

/// What a body's poll yields.
pub(super) type FrameResult = Option<Result<Frame<Bytes>, ResponseError>>;
