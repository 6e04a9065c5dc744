//! What an operator is told of the credentials that are configured.

use crate::config::Settings;

/// What a registry's credentials may pull is open to everybody who reaches the proxy: on purpose,
/// but not behind an operator's back.
pub(super) fn warn_of_credentials(settings: &Settings) {
    for rule in settings.gateway.registry.rules.iter().filter(|rule| rule.credentials.is_some()) {
        tracing::warn!(
            registry = %rule.host,
            "credentials are configured: everyone who reaches this proxy may pull what they may"
        );
    }
}
