//! Records of what has long been gone.
//!
//! A record outlives its object, but not for ever: a fleet's builds leave tags and layers behind
//! every day. What is removed can be learnt again, so nothing here has to be exact: a record that
//! is written meanwhile may go, and costs a question to a registry.

use std::path::Path;
use std::time::Duration;

use entrepot_oci::{Algorithm, Digest, UnixSeconds};
use serde_json::Value;

use super::{files, listing};
use crate::disk::{DiskError, Kind};
use crate::inner::{Inner, Presence};

/// How long records stay that lead to nothing.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// What is on record of an object or tag, after it was last written, if the object, or whatever
    /// the tag stands for, is not kept.
    pub of_gone: Duration,
    /// What else is on record of a repository, or registry, of which nothing is.
    pub of_rest: Duration,
}

/// Which objects a record of a tag leads to, as the store's user reads it.
pub type ReadTag = fn(Value) -> Vec<Digest>;

/// Removes what has outlived its time in the records at `dir`, and directories that are empty then.
/// How many records that were. Blocks.
pub(crate) fn prune(
    inner: &Inner,
    dir: &Path,
    lifetimes: Lifetimes,
    read_tag: ReadTag,
) -> Result<u64, DiskError> {
    let mut pruning = Pruning { inner, pruned: 0 };
    let has_objects = pruning.objects(dir, lifetimes.of_gone)?;
    let has_tags = pruning.tags(dir, lifetimes.of_gone, read_tag)?;
    // A registry's own records are about its repositories.
    let has_more =
        has_objects || has_tags || !listing::subdirectories(inner.tree(), dir)?.is_empty();
    if !has_more {
        for listing in listing::names(inner.tree(), &dir.join("_listings"), Kind::File)? {
            pruning.remove_old(&dir.join("_listings").join(listing), lifetimes.of_rest)?;
        }
        for rest in ["_access", "_import", "_uses", "_challenge"] {
            pruning.remove_old(&dir.join(rest), lifetimes.of_rest)?;
        }
    }
    let contents = dir.join("_contents");
    let algorithms = Algorithm::ALL.map(|algorithm| contents.join(algorithm.as_str()));
    let parts = [contents, dir.join("_tags"), dir.join("_listings"), dir.to_owned()];
    for dir in algorithms.iter().chain(&parts) {
        inner.tree().disk().remove_empty_dir(dir)?;
    }
    Ok(pruning.pruned)
}

struct Pruning<'a> {
    inner: &'a Inner,
    pruned: u64,
}

impl Pruning<'_> {
    /// Whether objects are on record after it.
    fn objects(&mut self, dir: &Path, lifetime: Duration) -> Result<bool, DiskError> {
        let mut has_some = false;
        for digest in listing::contents(self.inner.tree(), dir)? {
            let path = listing::content(dir, &digest);
            let is_pruned = self.is_gone(&digest) && self.remove_old(&path, lifetime)?;
            has_some |= !is_pruned;
        }
        Ok(has_some)
    }

    /// Whether tags are on record after it.
    fn tags(&mut self, dir: &Path, lifetime: Duration, read: ReadTag) -> Result<bool, DiskError> {
        let mut has_some = false;
        for tag in listing::tags(self.inner.tree(), dir)? {
            let path = listing::tag(dir, &tag);
            let is_pruned = self.is_old(&path, lifetime)?
                && self.leads_nowhere(&path, read)
                && self.remove_old(&path, lifetime)?;
            has_some |= !is_pruned;
        }
        Ok(has_some)
    }

    fn leads_nowhere(&self, tag: &Path, read: ReadTag) -> bool {
        let record: Option<Value> = files::read(self.inner.tree(), tag);
        record.map(read).unwrap_or_default().iter().all(|digest| self.is_gone(digest))
    }

    fn is_gone(&self, digest: &Digest) -> bool {
        self.inner.presence(digest) == Presence::Absent
    }

    /// Whether it was last written so long ago; not if it is not there.
    fn is_old(&self, path: &Path, lifetime: Duration) -> Result<bool, DiskError> {
        match self.inner.tree().disk().file_size_and_time(path) {
            Ok((_, written)) => {
                let age = UnixSeconds::now().0.saturating_sub(written.0);
                Ok(age >= lifetime.as_secs())
            }
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether it was old, and is not there any more.
    fn remove_old(&mut self, path: &Path, lifetime: Duration) -> Result<bool, DiskError> {
        let is_old = self.is_old(path, lifetime)?;
        if is_old {
            self.inner.tree().disk().remove(path)?;
            self.pruned = self.pruned.saturating_add(1);
        }
        Ok(is_old)
    }
}
