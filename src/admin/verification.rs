//! Hashing everything that is kept, and setting aside what is damaged.

use entrepot_cache::disk::DiskError;
use entrepot_cache::{Pace, QuarantineError, Store, Verdict};
use entrepot_oci::Digest;
use serde::{Deserialize, Serialize};

/// The store could not be verified to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerificationError {
    /// Not even the names of the objects could be read.
    #[error("the store can't be listed")]
    List(#[source] DiskError),
    /// A damaged object stays where it is.
    #[error("{0} is damaged and can't be set aside")]
    Quarantine(Digest, #[source] QuarantineError),
}

/// How far it is: objects and bytes looked at, of so many. Bytes are of sound objects; how many
/// there are is a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VerificationProgress {
    /// Objects looked at.
    pub objects: u64,
    /// Objects in all.
    pub total_objects: u64,
    /// Bytes found sound.
    pub bytes: u64,
    /// Bytes in all, about.
    pub total_bytes: u64,
}

/// What was found, in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// Objects looked at.
    pub objects: u64,
    /// Bytes of those that are sound.
    pub sound_bytes: u64,
    /// Those that were set aside.
    pub damaged: Vec<String>,
}

/// One line of what a running proxy tells of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VerificationLine {
    /// Now and then.
    Progress(VerificationProgress),
    /// An object was set aside.
    Damaged(String),
    /// The last line, if all went well.
    Summary(Findings),
    /// The last line, if not.
    Error(String),
}

/// Looks at every object, one after the other, and moves the damaged ones to `quarantine/`, from
/// where they are fetched again when they are next asked for.
///
/// `tell` hears of each. Cancel safe: what was set aside stays so.
pub(crate) async fn verify(
    store: &Store,
    pace: Pace,
    mut tell: impl FnMut(VerificationLine),
) -> Result<Findings, VerificationError> {
    let digests = store.objects().await.map_err(VerificationError::List)?;
    let total_bytes = store.totals().bytes;
    let mut progress = VerificationProgress {
        objects: 0,
        total_objects: digests.len() as u64,
        bytes: 0,
        total_bytes,
    };
    let mut damaged = Vec::new();
    for digest in digests {
        progress.objects += 1;
        match store.verify_at(&digest, pace).await {
            Verdict::Sound { size } => progress.bytes += size,
            Verdict::Absent => {}
            verdict => {
                tracing::warn!(%digest, ?verdict, "a damaged object is set aside");
                set_aside(store, &digest).await?;
                damaged.push(digest.to_string());
                tell(VerificationLine::Damaged(digest.to_string()));
            }
        }
        tell(VerificationLine::Progress(progress));
    }
    Ok(Findings { objects: progress.objects, sound_bytes: progress.bytes, damaged })
}

async fn set_aside(store: &Store, digest: &Digest) -> Result<(), VerificationError> {
    match store.quarantine(digest).await {
        // Somebody who asked for it meanwhile has found out as well.
        Ok(()) | Err(QuarantineError::Absent) => Ok(()),
        Err(error) => Err(VerificationError::Quarantine(*digest, error)),
    }
}
