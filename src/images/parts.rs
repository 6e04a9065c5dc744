//! What an image consists of, and what of that is kept.

use std::collections::HashSet;

use entrepot_cache::{Kept, Presence, Store};
use entrepot_oci::manifest::{Document, platform_of_config};
use entrepot_oci::{Digest, Platform, UnixSeconds};

use super::Images;

/// What is known of an image's parts. From the index but for the documents themselves, which are
/// read without counting as used.
pub(super) struct ImageParts {
    /// The manifest or index that its name stands for.
    pub(super) root: Digest,
    /// The root, if it is a manifest, or the manifests that it names.
    pub(super) manifests: Vec<ManifestPart>,
    /// All that is kept of it.
    pub(super) kept: Vec<Kept>,
}

/// A manifest with all that it needs.
pub(super) struct ManifestPart {
    pub(super) digest: Digest,
    pub(super) platform: Option<Platform>,
    /// The layers that it can do without, and that are not kept.
    pub(super) absent: HashSet<Digest>,
    /// How many other objects of it are not kept, and the first of them: itself, if it is not.
    pub(super) missing: usize,
    pub(super) first_missing: Option<Digest>,
}

impl ManifestPart {
    pub(super) fn is_whole(&self) -> bool {
        self.missing == 0
    }

    /// Whether it is an image, and not something that accompanies one.
    pub(super) fn is_image(&self) -> bool {
        self.platform.as_ref().is_none_or(Platform::is_known)
    }
}

impl ImageParts {
    pub(super) async fn of(store: &Store, root: Digest) -> Self {
        let document = store.peek(&root).await.and_then(|bytes| Document::parse(&bytes));
        let listed = document.as_ref().map(Document::manifests);
        let mut manifests = Vec::new();
        match (&document, listed) {
            (_, Some(listed @ [_, ..])) => {
                let mut seen = HashSet::new();
                for one in listed.iter().filter(|one| seen.insert(one.digest)) {
                    manifests.push(part(store, one.digest, one.platform.clone()).await);
                }
            }
            (Some(Document { config: Some(config), .. }), _) => {
                let config = store.peek(&config.digest).await;
                let platform = config.and_then(|bytes| platform_of_config(&bytes));
                manifests.push(part(store, root, platform).await);
            }
            _ => manifests.push(part(store, root, None).await),
        }
        let kept = closure(store, root).await;
        let kept = kept.iter().filter_map(|digest| store.find(digest)).collect();
        Self { root, manifests, kept }
    }

    /// Whether all is kept that at least one platform needs.
    pub(super) fn is_complete(&self) -> bool {
        let is_kept = self.kept.iter().any(|kept| kept.digest == self.root);
        is_kept && self.manifests.iter().any(|part| part.is_image() && part.is_whole())
    }

    /// The platforms that are kept whole.
    pub(super) fn platforms(&self) -> Vec<String> {
        let whole = self.manifests.iter().filter(|part| part.is_image() && part.is_whole());
        whole.filter_map(|part| part.platform.as_ref()).map(ToString::to_string).collect()
    }

    /// When something was last asked for that says which image was: layers may be others' too.
    pub(super) fn last_use(&self, store: &Store) -> UnixSeconds {
        let tells = |kept: &&Kept| kept.digest == self.root || store.is_document(&kept.digest);
        let uses = self.kept.iter().filter(tells).map(|kept| UnixSeconds::from(kept.last_use));
        uses.max().unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.kept.iter().map(|kept| kept.size).sum()
    }

    pub(super) fn hits(&self) -> u64 {
        let root = self.kept.iter().find(|kept| kept.digest == self.root);
        root.map_or(0, |kept| kept.hits)
    }
}

async fn part(store: &Store, digest: Digest, platform: Option<Platform>) -> ManifestPart {
    let all = closure(store, digest).await;
    let missing = all.iter().filter(|one| store.contains(one) != Presence::Kept);
    let missing: Vec<Digest> = missing.copied().collect();
    let mut absent = HashSet::new();
    if !missing.is_empty() {
        let foreign = foreign_in(store, &all).await;
        absent.extend(missing.iter().copied().filter(|one| foreign.contains(one)));
    }
    let mut missing = missing.into_iter().filter(|one| !absent.contains(one));
    let first_missing = missing.next();
    let missing = usize::from(first_missing.is_some()) + missing.count();
    ManifestPart { digest, platform, absent, missing, first_missing }
}

/// The layers that none of these documents needs, as the documents have it.
async fn foreign_in(store: &Store, all: &[Digest]) -> HashSet<Digest> {
    let (mut foreign, mut needed) = (HashSet::new(), HashSet::new());
    for digest in all {
        let references = store.references_of(digest).await;
        if references.is_empty() {
            continue;
        }
        let document = store.peek(digest).await.and_then(|bytes| Document::parse(&bytes));
        let own: HashSet<_> = document.iter().flat_map(Document::foreign_layers).collect();
        needed.extend(references.into_iter().filter(|one| !own.contains(one)));
        foreign.extend(own);
    }
    foreign.retain(|one| !needed.contains(one));
    foreign
}

impl Images {
    /// Which of these objects are [foreign](entrepot_oci::manifest::Descriptor::is_foreign) layers,
    /// as the documents among them have it.
    pub(crate) async fn foreign_among(&self, all: &[Digest]) -> HashSet<Digest> {
        foreign_in(&self.store, all).await
    }
}

/// A digest and all that it needs as far as that is known, documents before what they need.
pub(super) async fn closure(store: &Store, root: Digest) -> Vec<Digest> {
    let (mut found, mut seen) = (vec![root], HashSet::from([root]));
    let mut next = 0;
    while let Some(digest) = found.get(next).copied() {
        next += 1;
        let needed = store.references_of(&digest).await;
        found.extend(needed.into_iter().filter(|one| seen.insert(*one)));
    }
    found
}
