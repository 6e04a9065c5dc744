//! How requests are decided, as the operator wants it.

use std::time::Duration;

use entrepot_oci::{Authority, HostPattern, Tag, TagPattern};

use crate::registry;

/// Whether pushes go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Push {
    /// Relayed, under the client's own credential.
    #[default]
    Client,
    /// Refused with 405.
    Deny,
}

/// How long tags are served without asking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TagTtl {
    /// The first that fits wins.
    pub rules: Vec<(TagPattern, Duration)>,
    /// For tags that none fits; `None` leaves them to the next that has a say.
    pub default: Option<Duration>,
}

impl TagTtl {
    /// For `tag`, if this has a say.
    #[must_use]
    pub(crate) fn of(&self, tag: &Tag) -> Option<Duration> {
        let rule = self.rules.iter().find(|(pattern, _)| pattern.matches(tag));
        rule.map(|(_, ttl)| *ttl).or(self.default)
    }
}

/// How requests are decided.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// `push`.
    pub push: Push,
    /// How registries are asked.
    pub registry: registry::Options,
    /// `tag-ttl` of each `[[registry]]`; the first that fits wins.
    pub tag_ttl_at: Vec<(HostPattern, TagTtl)>,
    /// `tag-ttl`.
    pub tag_ttl: TagTtl,
    /// `stale-after`: how long a registry's word on what is kept is waited for.
    pub stale_after: Duration,
    /// `keep-deleted`.
    pub keep_deleted: bool,
    /// `quota-floor`.
    pub quota_floor: u64,
}

impl Options {
    /// How long a tag of the registry at `authority` is served without asking.
    pub(super) fn tag_ttl(&self, authority: &Authority, tag: &Tag) -> Duration {
        let there = self.tag_ttl_at.iter().find(|(host, _)| host.matches(authority));
        let there = there.and_then(|(_, ttl)| ttl.of(tag));
        there.or_else(|| self.tag_ttl.of(tag)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_has_the_say() {
        let minutes = |n| Duration::from_mins(n);
        let rules = vec![
            ("latest".parse().unwrap(), minutes(1)),
            ("v*".parse().unwrap(), minutes(2)),
            ("v1".parse().unwrap(), minutes(3)),
        ];
        let ttl = TagTtl { rules, default: None };
        let of = |tag: &str| ttl.of(&tag.parse().unwrap());
        assert_eq!(of("latest"), Some(minutes(1)));
        assert_eq!(of("v1"), Some(minutes(2)));
        assert_eq!(of("1"), None);
        let with_default = TagTtl { default: Some(minutes(9)), ..ttl };
        assert_eq!(with_default.of(&"1".parse().unwrap()), Some(minutes(9)));
    }
}
