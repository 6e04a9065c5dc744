//! What a pull of an image would meet now, from what is known here, without a question to a
//! registry.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use entrepot_cache::{Presence, Store};
use entrepot_oci::{Digest, ImageName, MediaType, Reference, Route, Tag};

use super::access::{Place, Rights};
use super::exchange::Common;
use super::manifests::tags::{TagEntry, Tags};
use crate::registry::Quota;
use crate::registry::identity::Identity;

/// Objects of one image that are told of.
const MOST: usize = 2000;

/// What is known of an image, and what would become of a pull by a client without a credential.
#[derive(Debug, Clone)]
pub(crate) struct Explanation {
    /// What would happen.
    pub outcome: Expected,
    /// What the tag stands for, if it was asked for by tag and the registry has said.
    pub tag: Option<TagState>,
    /// Where the proxy's own credentials for the registry come from, if it has any.
    pub identity: Option<String>,
    /// How long the proxy may still serve the repository without asking.
    pub granted: Option<Duration>,
    /// How long ago the registry last served the proxy there.
    pub served: Option<Duration>,
    /// How long ago an operator brought what is asked for first, if that is how it came.
    pub imported: Option<Duration>,
    /// Why the registry would not be asked now.
    pub trouble: Option<String>,
    /// What the registry has said of its quota.
    pub quota: Option<Quota>,
    /// What belongs to the image, as far as is known.
    pub objects: Vec<ObjectState>,
}

/// What would happen to the manifest that is asked for first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// It comes from the store, without a question to the registry.
    Hit,
    /// The registry is asked whether it is still right, and it then comes from the store.
    Revalidated,
    /// It is fetched.
    Fetched,
    /// It comes from the store because the registry would not be asked.
    Stale,
    /// It is not to be had.
    Fails,
}

/// What a tag stands for.
#[derive(Debug, Clone)]
pub(crate) struct TagState {
    /// The digest.
    pub digest: Digest,
    /// Of what type, if the registry said.
    pub media_type: Option<MediaType>,
    /// How long ago the registry said so.
    pub age: Duration,
    /// How long that is believed.
    pub ttl: Duration,
}

/// One object of an image.
#[derive(Debug, Clone)]
pub(crate) struct ObjectState {
    /// Its name.
    pub digest: Digest,
    /// Whether it is in the store.
    pub presence: Presence,
    /// Whether the registry has shown it in this repository.
    pub belongs: bool,
}

/// What a pull of `image` would meet now.
///
/// Asks no registry, and changes nothing.
pub(super) async fn explain(common: &Common, tags: &Tags, image: &ImageName) -> Explanation {
    let Common { store, archive, registries, access, .. } = common;
    let place = Place::new(&image.registry, &image.repository);
    let identity = registries.own_label(&image.authority);
    let who = identity.clone().unwrap_or_default();
    let rights = Rights::new(archive, access.clone(), place, Identity::Shared, who);
    let (tag, digest) = match &image.reference {
        Reference::Tag(tag) => {
            let known = tag_state(common, tags, image, &rights, tag).await;
            (known.clone(), known.map(|known| known.digest))
        }
        Reference::Digest(digest) => (None, Some(*digest)),
    };
    let objects = object_states(store, &rights, digest).await;
    let (repository, reference) = (image.repository.clone(), image.reference.clone());
    let route = Route::Manifest { repository, reference };
    let trouble = registries.trouble(&image.authority, &route);
    let is_here = objects.first().is_some_and(ObjectState::can_be_served);
    let may_pull = rights.may_pull().await;
    let is_fresh = tag.as_ref().is_none_or(|tag| tag.age < tag.ttl);
    let record = match digest.filter(|_| is_here) {
        Some(digest) => rights.records().local().content(&digest).await,
        None => None,
    };
    let outcome = match (&trouble, &record) {
        (_, Some(_)) if may_pull && is_fresh => Expected::Hit,
        (None, Some(_)) => Expected::Revalidated,
        (None, None) => Expected::Fetched,
        (Some(error), Some(record)) if rights.may_have_unasked(record, error).await => {
            Expected::Stale
        }
        (Some(_), _) => Expected::Fails,
    };
    let quotas = registries.quotas().into_iter();
    Explanation {
        outcome,
        tag,
        identity,
        granted: rights.shared_left(),
        served: rights.last_served().await,
        imported: record.and_then(|record| record.imported).map(age),
        trouble: trouble.map(|error| error.to_string()),
        quota: quotas.into_iter().find(|(r, _)| *r == image.registry).map(|(_, quota)| quota),
        objects,
    }
}

/// What the registry said last, whatever the client took that it said so to.
async fn tag_state(
    common: &Common,
    tags: &Tags,
    image: &ImageName,
    rights: &Rights,
    tag: &Tag,
) -> Option<TagState> {
    let known = TagEntry::latest(tags, rights.records(), rights.place(), tag).await?;
    Some(TagState {
        digest: known.resolution.digest,
        age: known.age(),
        media_type: known.resolution.media_type,
        ttl: common.options.load().tag_ttl(&image.authority, tag),
    })
}

/// The object and all that it needs, as far as the store knows.
async fn object_states(store: &Store, rights: &Rights, root: Option<Digest>) -> Vec<ObjectState> {
    let (mut states, mut seen) = (Vec::new(), HashSet::new());
    let mut waiting: Vec<_> = root.into_iter().collect();
    while let Some(digest) = waiting.pop() {
        if states.len() == MOST || !seen.insert(digest) {
            continue;
        }
        waiting.extend(store.references_of(&digest).await.into_iter().rev());
        let presence = store.contains(&digest);
        let belongs = rights.records().local().content(&digest).await.is_some();
        states.push(ObjectState { digest, presence, belongs });
    }
    states
}

/// A clock that has been set back since makes nothing old.
fn age(since: SystemTime) -> Duration {
    since.elapsed().unwrap_or_default()
}

impl ObjectState {
    fn can_be_served(&self) -> bool {
        self.presence == Presence::Kept && self.belongs
    }
}
