//! Which requests of one client for one repository are one pull.
//!
//! Engines ask in different ways: HEAD of the tag, then GETs by digest; GET of the tag; a digest
//! alone; the platform's manifest out of an index; blobs one after the other, at once, in parts, or
//! only those that they lack. A pull asks for each thing once. What is asked for again belongs to
//! another pull of the same client, unless it failed before; a tool that asks for the manifest
//! twice before it begins with the blobs has made one pull all the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use entrepot_oci::{Contents, Digest, Tag};
use http::StatusCode;
use tokio::time::Instant;

use super::event::Outcome as PullOutcome;
use super::noted::{Begun, End, Object};
use crate::log::Outcome;

/// Pulls of one client for one repository that are told apart at a time.
const MOST: usize = 64;
/// A manifest that is asked for again so soon, before anything else was, is the same pull.
const AGAIN: Duration = Duration::from_secs(2);

/// A request for content.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) begun: Arc<Begun>,
    pub(super) end: Option<End>,
}

impl Request {
    /// Whether the client has got what it asked for.
    pub(super) fn is_served(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.is_whole && is_answered(end))
    }

    /// Whether it is under way.
    fn is_open(&self) -> bool {
        self.end.is_none()
    }

    /// What the object that it was answered with is called.
    fn digest(&self) -> Option<Digest> {
        self.end.as_ref().filter(|end| is_answered(end)).and_then(|end| end.digest)
    }

    pub(super) fn is_blob(&self) -> bool {
        matches!(self.begun.object, Object::Blob(_))
    }

    /// Whether this asks for the very same as `other`.
    fn repeats(&self, other: &Self) -> bool {
        self.begun.object == other.begun.object && self.begun.is_head == other.begun.is_head
    }
}

/// Whether an answer is what was asked for, as far as it went.
fn is_answered(end: &End) -> bool {
    let is_content =
        end.status.is_some_and(|status| status.is_success() || status == StatusCode::NOT_MODIFIED);
    is_content && !matches!(end.outcome, None | Some(Outcome::Error | Outcome::Denied))
}

/// What is in documents that are known.
pub(super) type Known = HashMap<Digest, Arc<Contents>>;

/// Requests that are one pull.
#[derive(Debug, Clone, Default)]
pub(super) struct Group<'a> {
    pub(super) requests: Vec<&'a Request>,
    pub(super) tag: Option<Tag>,
    /// What its name stands for.
    pub(super) root: Option<Digest>,
    /// The manifests of an index that were asked for.
    pub(super) children: Vec<Digest>,
}

/// The pulls that `requests` are, in their order; what belongs to none is in none.
pub(super) fn groups<'a>(requests: &'a [Request], known: &Known) -> Vec<Group<'a>> {
    let mut groups = Vec::<Group<'a>>::new();
    for request in requests {
        assign(&mut groups, request, known);
    }
    fold(groups, known)
}

fn assign<'a>(groups: &mut Vec<Group<'a>>, request: &'a Request, known: &Known) {
    match &request.begun.object {
        Object::Tag(tag) => {
            let digest = request.digest();
            let is_it = |group: &Group<'_>| {
                let is_same = group.root.is_none() || digest.is_none() || group.root == digest;
                group.tag.as_ref() == Some(tag)
                    && is_same
                    && !group.has_progressed()
                    && group.lacks(request)
            };
            let it = groups.iter().position(is_it);
            let new = || Group { tag: Some(tag.clone()), ..Group::default() };
            let place = taken(groups, it, new);
            if let Some(group) = groups.get_mut(place) {
                group.root = group.root.or(digest);
                group.requests.push(request);
            }
        }
        Object::Manifest(digest) => {
            let is_root = |group: &Group<'_>| {
                group.root == Some(*digest) && !group.has_progressed() && group.lacks(request)
            };
            if let Some(group) = groups.iter_mut().find(|group| is_root(group)) {
                return group.requests.push(request);
            }
            // Few are in any index, and who asks for one again and again has many groups.
            let is_listed = known.values().any(|contents| lists_manifest(contents, digest));
            let lists = |group: &Group<'_>| is_listed && group.lists_manifest(digest, known);
            let child = groups.iter().position(|group| lists(group) && group.lacks(request));
            let child = child.or_else(|| {
                let is_unread =
                    |group: &Group<'_>| group.root != Some(*digest) && group.is_unread(known);
                groups.iter().rposition(is_unread)
            });
            if let Some(group) = child.and_then(|child| groups.get_mut(child)) {
                if !group.children.contains(digest) {
                    group.children.push(*digest);
                }
                return group.requests.push(request);
            }
            let twin = groups.iter().rev().find(|group| lists(group));
            let new = match twin {
                Some(twin) => Group {
                    tag: twin.tag.clone(),
                    root: twin.root,
                    children: vec![*digest],
                    requests: Vec::new(),
                },
                None => Group { root: Some(*digest), ..Group::default() },
            };
            let place = taken(groups, None, || new);
            if let Some(group) = groups.get_mut(place) {
                group.requests.push(request);
            }
        }
        Object::Blob(digest) => {
            let lists = |group: &Group<'_>| group.lists_blob(digest, known);
            let is_lacking =
                |group: &Group<'_>| lists(group) && (request.begun.is_part || group.lacks(request));
            let it = groups.iter().position(is_lacking);
            let it = it.or_else(|| groups.iter().rposition(lists));
            let it = it.or_else(|| groups.iter().rposition(|group| group.is_unread(known)));
            if let Some(group) = it.and_then(|it| groups.get_mut(it)) {
                group.requests.push(request);
            }
        }
    }
}

/// Whether a document is an index that lists this manifest.
fn lists_manifest(contents: &Contents, digest: &Digest) -> bool {
    match contents {
        Contents::Index(listed) => listed.iter().any(|one| one.digest == *digest),
        Contents::Image(_) => false,
    }
}

/// The place of the group at `it`, or of a new one; of the last one, where there are too many.
fn taken<'a>(
    groups: &mut Vec<Group<'a>>,
    it: Option<usize>,
    new: impl FnOnce() -> Group<'a>,
) -> usize {
    it.unwrap_or_else(|| {
        if groups.len() < MOST {
            groups.push(new());
        }
        groups.len() - 1
    })
}

/// Puts together what was asked for twice before anything else was.
fn fold<'a>(groups: Vec<Group<'a>>, known: &Known) -> Vec<Group<'a>> {
    let mut folded = Vec::<Group<'a>>::new();
    let (with_blobs, without): (Vec<_>, Vec<_>) =
        groups.into_iter().partition(|group| group.first_blob().is_some());
    folded.extend(with_blobs);
    for group in without {
        let whole = folded.iter_mut().find(|other| other.has_absorbed(&group, known));
        match whole {
            Some(whole) => whole.absorb(group),
            None => folded.push(group),
        }
    }
    folded.sort_by_key(|group| group.requests.first().map(|first| first.begun.number));
    folded
}

impl<'a> Group<'a> {
    /// Whether more was asked for than what the name stands for.
    fn has_progressed(&self) -> bool {
        !self.children.is_empty() || self.first_blob().is_some()
    }

    fn first_blob(&self) -> Option<Instant> {
        self.requests.iter().filter(|one| one.is_blob()).map(|one| one.begun.at).min()
    }

    /// Whether the same was not asked for yet, or failed.
    fn lacks(&self, request: &Request) -> bool {
        !self.requests.iter().any(|one| one.repeats(request) && (one.is_open() || one.is_served()))
    }

    fn lists_manifest(&self, digest: &Digest, known: &Known) -> bool {
        let root = self.root.and_then(|root| known.get(&root));
        root.is_some_and(|contents| lists_manifest(contents, digest))
    }

    /// The manifests of single images that it is about.
    fn leaves(&self) -> impl Iterator<Item = &Digest> {
        self.children.iter().chain(self.root.as_ref())
    }

    fn lists_blob(&self, digest: &Digest, known: &Known) -> bool {
        self.leaves().filter_map(|leaf| known.get(leaf)).any(|contents| match &**contents {
            Contents::Image(blobs) => blobs.iter().any(|blob| blob.digest == *digest),
            Contents::Index(_) => false,
        })
    }

    /// Whether a manifest of it was asked for whose contents are not known: what comes then is
    /// likely of it.
    fn is_unread(&self, known: &Known) -> bool {
        self.requests.iter().any(|request| {
            let is_known = || request.digest().is_some_and(|digest| known.contains_key(&digest));
            let may_be_known = request.is_open() || (!request.begun.is_head && request.is_served());
            !request.is_blob() && may_be_known && !is_known()
        })
    }

    /// Whether `other`, which has no blobs, is of this pull.
    fn has_absorbed(&self, other: &Self, known: &Known) -> bool {
        let is_same = self.root.is_some() && self.root == other.root;
        // One by digest, without a tag, may be of any.
        let is_named = other.tag.is_none() || self.tag == other.tag;
        let is_child = other.tag.is_none()
            && other.root.is_some_and(|digest| self.lists_manifest(&digest, known));
        if !((is_same && is_named) || is_child) {
            return false;
        }
        let begins = || other.requests.iter().map(|one| one.begun.at);
        if let Some(first) = self.first_blob() {
            return begins().all(|at| at <= first);
        }
        let follows = begins()
            .min()
            .zip(self.last())
            .is_some_and(|(began, ended)| began >= ended && began.duration_since(ended) < AGAIN);
        follows && !self.is_open()
    }

    fn absorb(&mut self, other: Group<'a>) {
        self.tag = self.tag.take().or(other.tag);
        for child in other.children {
            if !self.children.contains(&child) {
                self.children.push(child);
            }
        }
        self.requests.extend(other.requests);
    }

    /// Whether something of it is under way.
    pub(super) fn is_open(&self) -> bool {
        self.requests.iter().any(|request| request.is_open())
    }

    /// When the last of it happened.
    pub(super) fn last(&self) -> Option<Instant> {
        let at = |request: &&Request| request.end.as_ref().map_or(request.begun.at, |end| end.at);
        self.requests.iter().map(at).max()
    }

    /// Whether all that its manifests name was served; not for those whose contents nobody knows.
    pub(super) fn is_complete(&self, known: &Known) -> bool {
        let root = self.root.and_then(|root| known.get(&root)).map(|contents| &**contents);
        let leaves = match root {
            Some(Contents::Image(_)) => self.root.as_slice(),
            Some(Contents::Index(_)) => self.children.as_slice(),
            None => return false,
        };
        !leaves.is_empty()
            && leaves.iter().all(|leaf| match known.get(leaf).map(|contents| &**contents) {
                Some(Contents::Image(blobs)) => {
                    blobs.iter().all(|blob| self.has(&blob.digest, blob.size))
                }
                Some(Contents::Index(_)) | None => false,
            })
    }

    /// Whether the client has got all of a blob.
    fn has(&self, digest: &Digest, size: u64) -> bool {
        let object = Object::Blob(*digest);
        let of_it = || {
            let gets = self.requests.iter().filter(|request| !request.begun.is_head);
            gets.filter(|request| request.begun.object == object)
        };
        let is_whole = |request: &Request| {
            let status = request.end.as_ref().and_then(|end| end.status);
            request.is_served() && status != Some(StatusCode::PARTIAL_CONTENT)
        };
        let parts = || {
            let ends = of_it().filter_map(|request| request.end.as_ref());
            ends.filter(|end| is_answered(end)).map(|end| end.bytes).sum::<u64>()
        };
        of_it().any(|request| is_whole(request)) || (of_it().next().is_some() && parts() >= size)
    }

    /// What came of it.
    pub(super) fn outcome(&self, known: &Known) -> PullOutcome {
        if self.is_complete(known) {
            return PullOutcome::Complete;
        }
        if let Some(failed) = self.unserved() {
            let has_left = failed
                .end
                .as_ref()
                .is_none_or(|end| end.outcome.is_none() || (is_answered(end) && !end.is_whole));
            return if has_left { PullOutcome::Abandoned } else { PullOutcome::Failed };
        }
        if self.first_blob().is_some() {
            return PullOutcome::Partial;
        }
        if self.requests.iter().all(|request| request.begun.is_head) {
            return PullOutcome::Checked;
        }
        PullOutcome::ManifestOnly
    }

    /// The last request for something that the client has not got in the end.
    pub(super) fn unserved(&self) -> Option<&'a Request> {
        // One of a part that the client has not taken whole says nothing: it takes the rest by
        // another.
        let is_part = |request: &Request| {
            let end = request.end.as_ref();
            end.is_some_and(|end| {
                end.status == Some(StatusCode::PARTIAL_CONTENT) && is_answered(end)
            })
        };
        self.requests.iter().rev().copied().find(|request| {
            let is_got = |other: &Request| {
                let is_enough = request.begun.is_head || !other.begun.is_head;
                let is_same = other.begun.object == request.begun.object;
                is_same && is_enough && (other.is_served() || is_part(other))
            };
            !self.requests.iter().any(|other| is_got(other))
        })
    }
}
