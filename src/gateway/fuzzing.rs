//! What fuzz targets feed: ranges, addresses in answers, records.

use entrepot_oci::{Authority, Digest};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

pub use super::answer::ranges::{ByteSpan, Selected};

use super::answer::addresses;
use super::answer::provenance::Provenance;
use super::manifests::tags;
use super::way::Way;
use super::{has_dot_segment, listings};
use crate::upstream::Scheme;
use crate::upstream::fuzzing::target_of;

/// By which door a client has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// The registry's own, by interception.
    Own,
    /// The mirror's, where the registry is named by `ns`, or not.
    Namespace(String),
    /// The mirror's, where what stands before the repository, with its slash, names the registry;
    /// nothing, for the Hub.
    Path(String),
}

/// Leads what `fields` name back, as the registry at the URL `asked` answered from `base`; whether
/// both are URLs.
pub fn lead_back(
    door: &Door,
    asked: &str,
    base: &str,
    status: StatusCode,
    fields: &mut HeaderMap,
) -> bool {
    let (Some(asked), Some(base)) = (target_of(asked), target_of(base)) else { return false };
    let way = match door {
        Door::Own => Way::new(&asked.authority, asked.scheme),
        Door::Namespace(name) => Way::mirror(&asked.authority, Some(name.clone()), ""),
        Door::Path(prefix) => Way::mirror(&asked.authority, None, prefix),
    };
    addresses::lead_back(&way, &asked, &base, status, fields);
    true
}

/// A `Link` field as it is kept, of an answer from the URL `base`.
#[must_use]
pub fn absolute_links(base: &str, value: &str) -> Option<String> {
    Some(addresses::absolute_links(&target_of(base)?, value))
}

/// Whether a path is not passed on, since it may lead elsewhere.
#[must_use]
pub fn is_odd(path: &str) -> bool {
    has_dot_segment(path)
}

/// The URL of a page of our own on a registry's host.
#[must_use]
pub fn own_url(authority: &Authority, path: &str) -> String {
    Way::new(authority, Scheme::Https).url(path)
}

/// Which objects the record of a tag leads to.
#[must_use]
pub fn tag_record(record: Value) -> Vec<Digest> {
    tags::digests_of(record)
}

/// The fields that the record of a listing answers with.
#[must_use]
pub fn listing_record(record: Value) -> Option<HeaderMap> {
    let listing: listings::Listing = serde_json::from_value(record).ok()?;
    let served = listings::shown(&listing, Provenance::Kept(None));
    Some(served.response.headers().clone())
}
