//! Bringing an image in ahead of time.
//!
//! It asks the gateway for what an engine without credentials would ask for, in the same words: all
//! that such a pull leaves behind (the tag, the objects, the rights to them) is left behind by this
//! one, and nothing here knows how.
//!
//! - `told`: what is told of it
//! - `failure`: why one fails, in words that name the cure
//! - `fetch`: one object of it

mod failure;
mod fetch;
mod told;

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;

use entrepot_oci::{Contents, Digest, ImageBlob, ImageName, Listed, Platform, Reference};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

pub(crate) use failure::{Failure, FailureKind};
pub(crate) use told::{Beginning, BlobOrigin, Done, PullLine, PullSummary, PulledBlob};

use entrepot_cache::{Presence, Store};

use super::api::lines::Lines;
use crate::gateway::Gateway;
use crate::listener::policy::Policy;
use crate::memory::Account;

/// Blobs fetched at a time: more than engines fetch, less than a registry minds.
const AT_ONCE: usize = 6;
/// Manifests of one image: an index of more is not one of an image.
const MOST_MANIFESTS: usize = 500;
/// Blobs of one image with all its platforms.
const MOST_BLOBS: usize = 20_000;

/// What is brought in.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Which image.
    pub image: ImageName,
    /// For which machines.
    pub platforms: Platforms,
}

/// Which images of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Platforms {
    /// All that there are, with what is attached to them.
    All,
    /// The best for each of these.
    These(Vec<Platform>),
}

/// One pull.
pub(super) struct Pull<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) policy: &'a Policy,
    pub(super) store: &'a Store,
    pub(super) wanted: &'a Wanted,
    pub(super) lines: &'a Lines,
    /// Who takes the memory that it needs.
    pub(super) account: &'a Account,
    /// What its manifests have cost.
    pub(super) cost: &'a ManifestCost,
}

/// What the manifests of a pull have cost.
#[derive(Debug, Default)]
pub(super) struct ManifestCost {
    /// GETs that were no hits.
    pub(super) fetches: AtomicU64,
    /// Their bytes.
    pub(super) bytes: AtomicU64,
}

/// The manifests of an image that are wanted, and the blobs that they name.
#[derive(Default)]
struct WantedObjects {
    digest: Option<Digest>,
    platforms: Vec<String>,
    manifests: Vec<Digest>,
    manifest_bytes: u64,
    blobs: Vec<ImageBlob>,
}

impl Pull<'_> {
    /// Brings the image in. Whoever drops this waits no longer: what has begun goes on to its end,
    /// and what has not is not begun.
    pub(super) async fn run(&self) -> Result<PullSummary, Failure> {
        let image = &self.wanted.image;
        if !self.policy.intercepts(&image.authority) {
            return Err(Failure::not_intercepted(image));
        }
        let found = self.manifests().await?;
        let objects = found.blobs.iter().map(PulledBlob::of).collect();
        let digest = found.digest.map(|digest| digest.to_string()).unwrap_or_default();
        let beginning = Beginning {
            image: image.to_string(),
            digest: digest.clone(),
            platforms: found.platforms.clone(),
            objects,
        };
        self.lines.say(&PullLine::Image(beginning)).await;
        let fetched: Vec<_> = stream::iter(found.blobs.clone())
            .map(|part| async move { self.blob(&part).await })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        self.check_is_here(&found).await?;
        let from_registry = || fetched.iter().filter(|one| one.from == BlobOrigin::Registry);
        Ok(PullSummary {
            image: image.to_string(),
            digest,
            platforms: found.platforms,
            objects: (found.manifests.len() + fetched.len()) as u64,
            bytes: found.manifest_bytes + fetched.iter().map(|one| one.bytes).sum::<u64>(),
            fetched_blobs: from_registry().count() as u64,
            fetched_bytes: from_registry().map(|one| one.bytes).sum(),
        })
    }

    /// Whether what has come is still there: there may be room for each object and not for all, and
    /// somebody may have removed the image meanwhile.
    async fn check_is_here(&self, found: &WantedObjects) -> Result<(), Failure> {
        let image = &self.wanted.image;
        self.store.hold_bounds().await;
        let blobs = found.blobs.iter().map(|part| part.digest);
        let mut all = found.manifests.iter().copied().chain(blobs);
        let is_here = all.all(|digest| self.store.contains(&digest) != Presence::Absent);
        if is_here { Ok(()) } else { Err(Failure::gone(image)) }
    }

    /// Fetches the image's manifests, from its tag down to those of single platforms.
    async fn manifests(&self) -> Result<WantedObjects, Failure> {
        let image = &self.wanted.image;
        let mut found = WantedObjects::default();
        let mut seen = HashSet::new();
        let mut waiting = vec![image.reference.clone()];
        while let Some(reference) = waiting.pop() {
            let (digest, bytes) = self.manifest(&reference).await?;
            if !seen.insert(digest) {
                continue;
            }
            found.digest = found.digest.or(Some(digest));
            found.manifests.push(digest);
            found.manifest_bytes += bytes.len() as u64;
            match Contents::parse(&bytes) {
                Ok(Contents::Index(listed)) => {
                    let chosen = self.chosen(&listed, &mut found.platforms)?;
                    waiting.extend(chosen.into_iter().rev().map(Reference::Digest));
                }
                Ok(Contents::Image(parts)) => {
                    let new = parts.into_iter().filter(|part| seen.insert(part.digest));
                    found.blobs.extend(new);
                }
                Err(error) => return Err(Failure::unusable(image, &error)),
            }
            if found.manifests.len() > MOST_MANIFESTS || found.blobs.len() > MOST_BLOBS {
                return Err(Failure::unusable(image, &"it names more than an image has"));
            }
        }
        Ok(found)
    }

    /// The manifests of an index that are wanted.
    fn chosen(&self, listed: &[Listed], names: &mut Vec<String>) -> Result<Vec<Digest>, Failure> {
        let of_platforms = || {
            let known = listed.iter().filter_map(|one| Some((one.platform.as_ref()?, one)));
            known.filter(|(platform, _)| platform.is_known())
        };
        let Platforms::These(wanted) = &self.wanted.platforms else {
            names.extend(of_platforms().map(|(platform, _)| platform.to_string()));
            return Ok(listed.iter().map(|one| one.digest).collect());
        };
        let mut chosen = Vec::new();
        for platform in wanted {
            let Some(one) = platform.choose(of_platforms()) else {
                let offered = of_platforms().map(|(platform, _)| platform.to_string()).collect();
                return Err(Failure::no_platform(&self.wanted.image, platform, offered));
            };
            if !chosen.contains(&one.digest) {
                chosen.push(one.digest);
                names.extend(one.platform.as_ref().map(ToString::to_string));
            }
        }
        Ok(chosen)
    }
}
