//! What a pull of an image would meet now, from what is known here: nobody is asked.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use entrepot_cache::Presence;
use entrepot_oci::{Digest, ImageName, MediaType, Reference, Tag};

use super::Gateway;
use super::access::{Place, Rights};
use super::identity::Identity;
use super::quota::Quota;
use super::tags::TagEntry;
use crate::upstream::UpstreamError;
use crate::upstream::credentials::Credentials;

/// Objects of one image that are told of.
const MOST: usize = 2000;

/// What is known of an image, and what would become of a pull by a client without a credential.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// What would happen.
    pub outcome: Expected,
    /// What the tag stands for, if it was asked for by tag and the registry has said.
    pub tag: Option<TagState>,
    /// What the proxy itself is at the registry: nobody, or where its credentials come from.
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
pub enum Expected {
    /// It comes from the store, and nobody is asked.
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
pub struct TagState {
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
pub struct ObjectState {
    /// Its name.
    pub digest: Digest,
    /// Whether it is in the store.
    pub presence: Presence,
    /// Whether the registry has shown it in this repository.
    pub belongs: bool,
}

impl Gateway {
    /// What a pull of `image` would meet now.
    ///
    /// Asks no registry, and changes nothing.
    pub async fn explain(&self, image: &ImageName) -> Explanation {
        let parts = &self.parts;
        let place =
            Place { registry: image.registry.clone(), repository: image.repository.clone() };
        let identity = self.own_identity(image);
        let who = identity.clone().unwrap_or_default();
        let rights = Rights::new(&parts.store, place, Identity::Shared, who);
        let (tag, digest) = match &image.reference {
            Reference::Tag(tag) => {
                let known = self.tag_state(image, &rights, tag).await;
                (known.clone(), known.map(|known| known.digest))
            }
            Reference::Digest(digest) => (None, Some(*digest)),
        };
        let objects = self.object_states(&rights, digest).await;
        let trouble = self.trouble(image);
        let is_here = objects.first().is_some_and(ObjectState::can_be_served);
        let may_pull = rights.may_pull(&parts.access).await;
        let is_fresh = tag.as_ref().is_none_or(|tag| tag.age < tag.ttl);
        let record = match digest.filter(|_| is_here) {
            Some(digest) => rights.content(&parts.access, &digest).await,
            None => None,
        };
        let outcome = match (&trouble, &record) {
            (_, Some(_)) if may_pull && is_fresh => Expected::Hit,
            (None, Some(_)) => Expected::Revalidated,
            (None, None) => Expected::Fetched,
            (Some(error), Some(record))
                if rights.may_have_unasked(&parts.access, record, error).await =>
            {
                Expected::Stale
            }
            (Some(_), _) => Expected::Fails,
        };
        Explanation {
            outcome,
            tag,
            identity,
            granted: rights.shared_left(&parts.access),
            served: rights.last_served(&parts.access).await,
            imported: record.and_then(|record| record.imported).map(age),
            trouble: trouble.map(|error| error.to_string()),
            quota: self.quotas().into_iter().find(|(r, _)| *r == image.registry).map(|(_, q)| q),
            objects,
        }
    }

    /// What the proxy is at the image's registry, if it is anybody there.
    fn own_identity(&self, image: &ImageName) -> Option<String> {
        let in_force = self.parts.in_force.load();
        let rule = in_force.options.rule_for(&image.authority)?;
        rule.credentials.as_ref().map(Credentials::label)
    }

    /// What the registry said last, whatever the client took that it said so to.
    async fn tag_state(&self, image: &ImageName, rights: &Rights, tag: &Tag) -> Option<TagState> {
        let tags = &self.parts.tags;
        let known = TagEntry::latest(tags, rights.records(), rights.place(), tag).await?;
        Some(TagState {
            digest: known.resolution.digest,
            age: known.age(),
            media_type: known.resolution.media_type,
            ttl: self.parts.in_force.load().options.tag_ttl(&image.authority, tag),
        })
    }

    /// The object and all that it needs, as far as the store knows.
    async fn object_states(&self, rights: &Rights, root: Option<Digest>) -> Vec<ObjectState> {
        let Gateway { parts } = self;
        let (mut states, mut seen) = (Vec::new(), HashSet::new());
        let mut waiting: Vec<_> = root.into_iter().collect();
        while let Some(digest) = waiting.pop() {
            if states.len() == MOST || !seen.insert(digest) {
                continue;
            }
            waiting.extend(parts.store.references_of(&digest).into_iter().rev());
            let presence = parts.store.contains(&digest);
            let belongs = rights.content(&parts.access, &digest).await.is_some();
            states.push(ObjectState { digest, presence, belongs });
        }
        states
    }

    /// Why the registry would not be asked now.
    fn trouble(&self, image: &ImageName) -> Option<UpstreamError> {
        let authority = &image.authority;
        let refused = self.parts.pressure.refusal(authority, &Identity::Shared);
        let limited = refused.map(|(retry_after, status)| UpstreamError::Limited {
            authority: authority.clone(),
            status,
            retry_after,
        });
        self.parts.upstream.would_refuse(authority).or(limited)
    }
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
