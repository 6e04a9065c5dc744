//! Why an answer is what it is, in one list.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

/// Why an answer came from the store, or did not, where the outcome alone does not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
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
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FreshTag => f.write_str("within tag-ttl"),
            Self::Unreachable(error) => f.write_str(error),
            Self::RegistryError(status) => write!(f, "the registry answered {status}"),
            Self::QuotaFloor(left) => {
                write!(f, "{left} pulls are left of the registry's quota (quota-floor)")
            }
            Self::Deleted => f.write_str("the registry has deleted the tag (keep-deleted)"),
            Self::TokenServer(error) => write!(f, "a token of our own: {error}"),
        }
    }
}

/// A wait in words that fit `Retry-After`: whole seconds, at least one.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}
