//! What the operator has said of registries.

use std::time::Duration;

use entrepot_oci::host::{HTTP_PORT, HTTPS_PORT};
use entrepot_oci::{Authority, HostPattern};

use super::credentials::Credentials;
use crate::upstream::Scheme;

/// What an operator says of one registry, or of a family of them.
#[derive(Debug, Clone)]
pub(crate) struct RegistryRule {
    /// Which registries.
    pub host: HostPattern,
    /// How they are spoken to.
    pub scheme: Scheme,
    /// What the proxy itself is there, for clients that bring no credential.
    pub credentials: Option<Credentials>,
}

/// How registries are asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// `[[registry]]`, the first that fits wins.
    pub rules: Vec<RegistryRule>,
    /// A registry that takes longer to answer is slow: clients of what is kept wait no longer.
    pub slow_after: Duration,
}

impl Options {
    pub(super) fn rule_for(&self, authority: &Authority) -> Option<&RegistryRule> {
        let named = self.rules.iter().find(|rule| rule.host.matches(authority));
        // One of plain HTTP that is named without a port is found by the port that it has then.
        let known = Authority::new(authority.host().clone(), HTTPS_PORT);
        let is_meant = |rule: &&RegistryRule| {
            authority.port() == HTTP_PORT
                && rule.scheme == Scheme::Http
                && rule.host.matches(&known)
        };
        named.or_else(|| self.rules.iter().find(is_meant))
    }

    /// What the proxy itself is at the registry at `authority`, if it is anybody there.
    pub(super) fn credentials_for(&self, authority: &Authority) -> Option<&Credentials> {
        self.rule_for(authority)?.credentials.as_ref()
    }

    /// How the registry at `authority` is spoken to: by TLS unless the operator says otherwise,
    /// whatever the client used.
    pub(super) fn scheme_for(&self, authority: &Authority) -> Scheme {
        self.rule_for(authority).map_or(Scheme::Https, |rule| rule.scheme)
    }
}
