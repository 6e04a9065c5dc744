//! What fuzz targets feed: challenges, token servers' answers, the fields of answers.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

use super::challenge::Authentication;
use super::identity::Identifier;
use super::token_server::Realm;
use super::{answer, fields, pressure, quota, token_server};
use crate::upstream::fuzzing::target_of;

/// Where a registry's challenges lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Led {
    /// The token server's URL, with a query added.
    pub url: String,
    /// Its host.
    pub host: String,
    /// Whether the operator's credentials may go there.
    pub is_trusted: bool,
    /// The challenges as a client gets them.
    pub rewritten: Vec<HeaderValue>,
}

/// Where the challenges in `headers` lead that the registry at `url` has given, if that is anywhere
/// but to itself.
#[must_use]
pub fn challenged(url: &str, headers: &HeaderMap, own_realm: &str) -> Option<Led> {
    let registry = target_of(url)?;
    let told = Authentication::of_challenge(&registry, headers)?;
    let realm = told.realm(&registry)?;
    let mut rewritten = headers.clone();
    told.lead_to(&registry, own_realm, &mut rewritten);
    Some(Led {
        url: realm.with_query("scope=x").to_string(),
        host: realm.target.authority.host().to_string(),
        is_trusted: realm.is_trusted_by(&registry.authority),
        rewritten: rewritten.get_all(header::WWW_AUTHENTICATE).iter().cloned().collect(),
    })
}

/// Whether a realm is one that the registry at `url` may name.
#[must_use]
pub fn is_realm(url: &str, realm: &str) -> bool {
    target_of(url).is_some_and(|registry| Realm::parse(&registry, realm, None).is_ok())
}

/// The `Authorization` that a token server's answer gives, and for how long.
#[must_use]
pub fn token(bytes: &[u8]) -> Option<(HeaderValue, Duration)> {
    let token = token_server::parse(bytes)?;
    Some((token.authorization, token.lifetime))
}

/// What a registry's answer tells by its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The first byte and the length in `Content-Range`.
    pub range: (Option<u64>, Option<u64>),
    /// For how long it wants to be left alone.
    pub pause: Duration,
    /// Pulls that are left, and of how many.
    pub quota: Option<(u64, Option<u64>)>,
    /// What of its fields goes to the client.
    pub returned: HeaderMap,
    /// What of them would go to a registry, were they a client's, and what to a stranger.
    pub forwarded: HeaderMap,
    /// As [`Told::forwarded`], by a client whose credential stays behind.
    pub for_ourselves: HeaderMap,
    /// Whether they hold a credential of somebody's.
    pub is_somebody: bool,
}

/// Reads them.
#[must_use]
pub fn told(headers: &HeaderMap) -> Told {
    let quota = quota::read(headers);
    Told {
        range: (answer::first_byte(headers), answer::total(headers)),
        pause: pressure::pause(headers),
        quota: quota.map(|quota| (quota.remaining, quota.limit)),
        returned: fields::returned(headers),
        forwarded: fields::forwarded(headers),
        for_ourselves: fields::for_ourselves(headers),
        is_somebody: Identifier::new().identify(headers) != super::identity::Identity::Shared,
    }
}
