//! What an operator is told of the credentials that are configured.

use crate::config::Settings;
use crate::upstream::Scheme;

/// What a registry's credentials may pull, a password as well as a certificate, is open to
/// everybody who reaches the proxy: on purpose, but not behind an operator's back.
pub(super) fn warn_of_credentials(settings: &Settings) {
    let rules = settings.gateway.registry.rules.iter().filter(|rule| rule.credentials.is_some());
    let hosts = rules.clone().map(|rule| rule.host.to_string());
    let identified = settings.upstream.certificates.identified().map(str::to_owned);
    for registry in hosts.chain(identified) {
        tracing::warn!(
            registry,
            "credentials are configured: everyone who reaches this proxy may pull what they may"
        );
    }
    for rule in rules.filter(|rule| rule.scheme == Scheme::Http) {
        tracing::warn!(
            registry = %rule.host,
            "these credentials go over plain HTTP (scheme = \"http\"): whoever is on the way can read them"
        );
    }
}
