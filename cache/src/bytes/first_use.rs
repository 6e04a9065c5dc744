//! Verifying a kept object when it is first asked for: the disk may have changed it since it came.
//!
//! It is hashed once a process, through the file that its readers share. Until that is over they
//! see all but its end, so that nobody completes a wrong one.

use std::sync::{Arc, Weak};

use tokio::sync::Semaphore;

use crate::bytes::object::Object;
use crate::bytes::verify::{self, pieces};
use crate::disk::threads;
use crate::inner::Shared;
use crate::{Digest, Hasher, QuarantineError, ReadError};

/// Up to this size an object is verified before anybody gets it: half a millisecond of hashing.
pub(crate) const SMALL: u64 = 1024 * 1024;

/// How many large objects are hashed at a time: a start under load must neither take all blocking
/// threads nor tear the disk between a hundred files.
const AT_A_TIME: usize = 4;

/// What large objects wait for.
pub(crate) fn slots() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_A_TIME))
}

/// Begins to verify `object` in the background, unless that is not needed or has begun already.
///
/// It does not keep the store open, and ends early when that is closed.
pub(crate) fn start(shared: &Arc<Shared>, object: &Arc<Object>) {
    if !object.claim() {
        return;
    }
    let check = Check { store: Arc::downgrade(shared), object: Arc::clone(object) };
    let slots = Arc::clone(&shared.checks);
    tokio::spawn(async move {
        let slot = slots.acquire_owned().await;
        let work = move || {
            check.run();
            drop(slot);
        };
        // When it panics, dropping the check has failed the readers.
        let _ = threads::run(work).await;
    });
}

/// Verifies a small object that nobody reads yet; whether it is sound. Blocks.
pub(crate) fn settle(shared: &Shared, object: &Object) -> bool {
    if !object.claim() {
        return true;
    }
    let sound = is_sound(object, || true);
    if sound {
        shared.index.proved(object.digest());
        object.verified(object.size());
    } else {
        set_aside(shared, object.digest());
    }
    sound
}

/// Moves a damaged object to quarantine. If it can't be moved it counts as absent all the same.
/// Blocks.
pub(crate) fn set_aside(shared: &Shared, digest: &Digest) {
    if let Err(QuarantineError::Store(error)) = verify::quarantine(shared, digest) {
        tracing::warn!(%digest, %error, cause = %error.io(), "damaged object can't be moved");
        shared.opened.forget(digest);
        shared.index.condemned(digest);
    }
}

/// A verification under way. Dropping it fails the readers of an object that is not verified.
struct Check {
    store: Weak<Shared>,
    object: Arc<Object>,
}

impl Check {
    /// Blocks.
    fn run(self) {
        let sound = is_sound(&self.object, || self.store.strong_count() > 0);
        let store = self.store.upgrade();
        // Who removed it or published it anew meanwhile has settled what lies under its name. (One
        // who does so just now may lose a sound file to quarantine: it is fetched again.)
        let current = store.filter(|shared| shared.opened.is_current(&self.object));
        match (sound, current) {
            (true, Some(shared)) => shared.index.proved(self.object.digest()),
            (false, Some(shared)) => set_aside(&shared, self.object.digest()),
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
