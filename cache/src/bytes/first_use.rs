//! Verifying a kept object when it is first asked for: the disk may have changed it since it came.
//!
//! It is hashed once a process, through the file that its readers share. Until that is over they
//! see all but its end, so that no client completes a wrong one.

use std::sync::{Arc, Weak};

use entrepot_oci::Hasher;

use super::kept::KeptObjects;
use super::object::Object;
use super::verify::pieces;
use crate::disk::threads;
use crate::errors::ReadError;

/// Up to this size an object is verified before anybody gets it: half a millisecond of hashing.
pub(super) const SMALL: u64 = 1024 * 1024;

/// Begins to verify `object` in the background, unless that is not needed or has begun already.
///
/// It does not keep the store open, and ends early when that is closed.
pub(crate) fn start(kept: &Arc<KeptObjects>, object: &Arc<Object>) {
    if !object.claim() {
        return;
    }
    let check = Check { kept: Arc::downgrade(kept), object: Arc::clone(object) };
    let hashing = Arc::clone(&kept.hashing);
    tokio::spawn(async move {
        let slot = hashing.acquire_owned().await;
        let work = move || {
            check.run();
            drop(slot);
        };
        // When it panics, dropping the check has failed the readers.
        let _ = threads::run(work).await;
    });
}

/// Verifies a small object that has no reader yet; whether it is sound. Blocks.
pub(super) fn settle(kept: &KeptObjects, object: &Object) -> bool {
    if !object.claim() {
        return true;
    }
    let sound = is_sound(object, || true);
    if sound {
        kept.index.proved(object.digest());
        object.verified(object.size());
    } else {
        kept.set_aside(object.digest());
    }
    sound
}

/// A verification under way. Dropping it fails the readers of an object that is not verified.
struct Check {
    kept: Weak<KeptObjects>,
    object: Arc<Object>,
}

impl Check {
    /// Blocks.
    fn run(self) {
        let sound = is_sound(&self.object, || self.kept.strong_count() > 0);
        let kept = self.kept.upgrade();
        // What lies under the name of an object that was removed or published anew meanwhile is
        // settled. (One that is published just now may be lost to quarantine: it is fetched again.)
        let current = kept.filter(|kept| kept.open_files.is_current(&self.object));
        match (sound, current) {
            (true, Some(kept)) => kept.index.proved(self.object.digest()),
            (false, Some(kept)) => kept.set_aside(self.object.digest()),
            (_, None) => {}
        }
        if sound {
            self.object.verified(self.object.size());
        }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.object.fail(ReadError::Damaged);
    }
}

/// Hashes the file of `object` as long as it is `wanted`.
fn is_sound(object: &Object, wanted: impl Fn() -> bool) -> bool {
    let mut hasher = Hasher::new(object.digest().algorithm());
    for (at, piece) in pieces(object.size()) {
        if !wanted() {
            return false;
        }
        match object.file().read_exact_at(piece, at) {
            Ok(bytes) => hasher.update(&bytes),
            Err(error) => {
                let digest = object.digest();
                tracing::warn!(%digest, %error, cause = %error.io(), "kept object can't be read");
                return false;
            }
        }
    }
    hasher.finish() == *object.digest()
}
