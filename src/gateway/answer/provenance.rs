//! Where an answer came from, and why: one value for the log, the metrics and `Cache-Status`.

use std::fmt;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::log::Outcome;
use crate::registry::fields::{PRODUCT, append};

/// Where an answer came from.
///
/// What a digest names is never stale: while its registry is away it is served as kept. Stale is
/// what may have changed since: what a tag means, what is listed, how to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Provenance {
    /// From the store, without asking the registry; with the reason where that is not obvious.
    Kept(Option<Reason>),
    /// From the store, after the registry said that a tag still means it.
    Revalidated,
    /// From the store, though the registry might say something else: it could not be asked, or was
    /// not for this reason.
    Stale(Reason),
    /// From the registry, and on its way into the store.
    Stored,
    /// From another client's download.
    Joined,
    /// From the bucket that the replicas share, and on its way into the store, or in it by now;
    /// with the reason where the registry could not be asked.
    Bucket(Option<Reason>),
    /// From the replica that fetches it for all, and on its way into the store; with what that says
    /// of itself.
    Peer(PeerStatus),
    /// From the registry, whole and checked, past the store.
    Unkept,
    /// The registry's own answer.
    Relayed(Forward),
    /// The proxy refuses.
    Denied(Reason),
    /// Neither the registry nor the store could answer.
    Failed(Reason),
}

/// What another replica says behind its own name in `Cache-Status`, where it is a word that this
/// program has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerStatus(Option<&'static str>);

impl PeerStatus {
    /// What an answer says: its own member is the last, and has a field line of its own.
    pub(in crate::gateway) fn of(fields: &HeaderMap) -> Self {
        const KNOWN: [&str; 5] =
            ["hit", "hit; detail=stale", "fwd=miss; stored", "fwd=miss; collapsed", "fwd=miss"];
        let last = fields.get_all("cache-status").iter().next_back();
        let own = last.and_then(|line| line.to_str().ok()?.strip_prefix(PRODUCT));
        let own = own.and_then(|rest| rest.strip_prefix("; "));
        let told = own.and_then(|told| {
            // With a reason behind it, where it logs so much.
            let begins = |known: &&&str| {
                told.strip_prefix(**known)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("; detail=\""))
            };
            KNOWN.iter().find(begins).copied()
        });
        Self(told)
    }
}

/// Why a request went on to the registry whose answer is only passed on (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forward {
    /// Nothing was kept that would answer it.
    Miss,
    /// By the meaning of its method: whether the registry would serve something is its to say.
    Request,
    /// Nothing of the kind is kept.
    Bypass,
}

impl Provenance {
    /// What the log and the metrics call it.
    #[must_use]
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Kept(_) => Outcome::Hit,
            Self::Revalidated => Outcome::Revalidated,
            Self::Stale(_) => Outcome::Stale,
            Self::Stored | Self::Unkept => Outcome::Miss,
            Self::Joined => Outcome::Joined,
            Self::Bucket(_) => Outcome::Bucket,
            Self::Peer(_) => Outcome::Peer,
            Self::Relayed(_) => Outcome::Relay,
            Self::Denied(_) => Outcome::Denied,
            Self::Failed(_) => Outcome::Error,
        }
    }

    /// What `Cache-Status` says behind our name (RFC 9211); a refusal of ours tells nothing of what
    /// is kept.
    #[must_use]
    pub(crate) fn cache_status(&self) -> Option<&'static str> {
        Some(match self {
            Self::Kept(_) | Self::Revalidated => "hit",
            Self::Stale(_) => "hit; detail=stale",
            Self::Stored | Self::Bucket(_) | Self::Peer(_) => "fwd=miss; stored",
            Self::Joined => "fwd=miss; collapsed",
            Self::Unkept | Self::Failed(_) | Self::Relayed(Forward::Miss) => "fwd=miss",
            Self::Relayed(Forward::Request) => "fwd=request",
            Self::Relayed(Forward::Bypass) => "fwd=bypass",
            Self::Denied(_) => return None,
        })
    }

    /// Why, where that is not obvious.
    #[must_use]
    pub(crate) fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Stale(reason) | Self::Denied(reason) | Self::Failed(reason) => Some(reason),
            Self::Kept(reason) | Self::Bucket(reason) => reason.as_ref(),
            Self::Revalidated
            | Self::Stored
            | Self::Joined
            | Self::Peer(_)
            | Self::Unkept
            | Self::Relayed(_) => None,
        }
    }

    /// Signs an answer with `Cache-Status`; at log level `debug` the client is told the reason as
    /// well.
    pub(super) fn sign(&self, fields: &mut HeaderMap) {
        let Some(status) = self.cache_status() else { return };
        // The cache that is nearest to the origin comes first (RFC 9211 §2).
        let cache_status = HeaderName::from_static("cache-status");
        match self {
            Self::Bucket(_) => append(fields, cache_status, "entrepot-bucket; hit"),
            Self::Peer(PeerStatus(Some(status))) => {
                append(fields, cache_status, &format!("entrepot-peer; {status}"));
            }
            Self::Peer(PeerStatus(None)) => append(fields, cache_status, "entrepot-peer"),
            _ => {}
        }
        if let Ok(value) = HeaderValue::try_from(format!("{PRODUCT}; {status}")) {
            fields.append(HeaderName::from_static("cache-status"), value);
        }
        if let Some(reason) = self.reason()
            && tracing::enabled!(tracing::Level::DEBUG)
        {
            explain(fields, &reason.to_string());
        }
    }
}

/// Why an answer came from the store, or did not, where the outcome alone does not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The tag was asked about within its `tag-ttl`.
    FreshTag,
    /// The registry could not be reached; this is what was last heard of it.
    Unreachable(String),
    /// The registry answered with an error of its own.
    RegistryError(StatusCode),
    /// Few pulls are left of the registry's quota: they are not spent on a tag that is held.
    QuotaFloor(u64),
    /// The registry has deleted the tag, and `keep-deleted` is set.
    Deleted,
    /// The token server could not be asked: the client has what everybody has.
    TokenServer(String),
    /// It is refused, or has failed, for this.
    Because(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FreshTag => f.write_str("within tag-ttl"),
            Self::Unreachable(error) | Self::Because(error) => f.write_str(error),
            Self::RegistryError(status) => write!(f, "the registry answered {status}"),
            Self::QuotaFloor(left) => {
                write!(f, "{left} pulls are left of the registry's quota (quota-floor)")
            }
            Self::Deleted => f.write_str("the registry has deleted the tag (keep-deleted)"),
            Self::TokenServer(error) => write!(f, "a token of our own: {error}"),
        }
    }
}

/// Adds a reason to our own `Cache-Status`, as its `detail` (RFC 9211 §2.8): a string, in which '"'
/// and '\\' are escaped (RFC 8941 §3.3.3).
fn explain(fields: &mut HeaderMap, reason: &str) {
    const LONGEST: usize = 500;
    let name = HeaderName::from_static("cache-status");
    let mut values = fields.get_all(&name).iter();
    // With others' words before ours it is not clear whose detail would be read.
    let (Some(only), None) = (values.next(), values.next()) else { return };
    let Ok(status) = only.to_str() else { return };
    let (status, known) = match status.split_once("; detail=") {
        Some((status, known)) => (status, format!("{known}: ")),
        None => (status, String::new()),
    };
    let words = reason.chars().filter(|c| (' '..='~').contains(c)).take(LONGEST);
    let words = words.collect::<String>().replace('\\', r"\\").replace('"', "\\\"");
    if let Ok(value) = HeaderValue::try_from(format!("{status}; detail=\"{known}{words}\"")) {
        fields.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::fields::map;

    #[test]
    fn a_reason_is_a_quoted_detail() {
        let explained = |status: &'static str, reason: &str| {
            let mut fields = map(&[("cache-status", status)]);
            explain(&mut fields, reason);
            fields["cache-status"].to_str().unwrap().to_owned()
        };
        let fresh = explained("entrepot; hit", "within tag-ttl");
        assert_eq!(fresh, r#"entrepot; hit; detail="within tag-ttl""#);
        let stale = explained("entrepot; hit; detail=stale", "a \"b\"\\ \u{e9}\r\n");
        assert_eq!(stale, r#"entrepot; hit; detail="stale: a \"b\"\\ ""#);
        let mut foreign = map(&[("cache-status", "cdn; hit"), ("cache-status", "entrepot; hit")]);
        explain(&mut foreign, "x");
        assert_eq!(foreign.get_all("cache-status").iter().count(), 2);
    }

    #[test]
    fn a_refusal_of_ours_is_not_signed() {
        let mut fields = HeaderMap::new();
        Provenance::Denied(Reason::Because("push".to_owned())).sign(&mut fields);
        assert!(fields.is_empty());
        Provenance::Stored.sign(&mut fields);
        assert_eq!(fields["cache-status"], "entrepot; fwd=miss; stored");
    }

    #[test]
    fn the_cache_nearest_to_the_origin_is_named_first() {
        let mut fields = HeaderMap::new();
        Provenance::Bucket(None).sign(&mut fields);
        let values: Vec<_> = fields.get_all("cache-status").iter().collect();
        assert_eq!(values, ["entrepot-bucket; hit", "entrepot; fwd=miss; stored"]);
    }

    #[test]
    fn a_replica_is_named_with_what_it_says_of_itself() {
        let named = |lines: &[&'static str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("cache-status", *line)).collect();
            let mut fields = HeaderMap::new();
            Provenance::Peer(PeerStatus::of(&map(&lines))).sign(&mut fields);
            let values: Vec<_> = fields.get_all("cache-status").iter().collect();
            assert_eq!(values.len(), 2);
            assert_eq!(values[1], "entrepot; fwd=miss; stored");
            values[0].to_str().unwrap().to_owned()
        };
        for (lines, expected) in [
            (&["entrepot; hit"][..], "entrepot-peer; hit"),
            (&["cdn; hit", "entrepot; fwd=miss; stored"], "entrepot-peer; fwd=miss; stored"),
            (&["entrepot; fwd=miss; collapsed"], "entrepot-peer; fwd=miss; collapsed"),
            (&["entrepot; hit; detail=\"within tag-ttl\""], "entrepot-peer; hit"),
            (&["entrepot; something new"], "entrepot-peer"),
            (&["cdn; hit"], "entrepot-peer"),
            (&[], "entrepot-peer"),
        ] {
            assert_eq!(named(lines), expected, "{lines:?}");
        }
    }
}
