//! `REGISTRIES` and `AUTH_REGISTRIES`: what is intercepted, and as whom.
//!
//! That tool gave a host's password to whatever request had that host in it. Here a password is a
//! registry's: one for a token server (`auth.docker.io`, a GitLab's own host) becomes that of the
//! registries that send their clients there.

use std::str::FromStr as _;

use entrepot_oci::{Host, HostPattern};

use super::Reading;
use crate::config::error::Position;
use crate::config::source::{ConfigEntry, RegistryEntries, Value};
use crate::registry::token_server::is_same_site;

const REGISTRIES: &str = "REGISTRIES";
const AUTH_REGISTRIES: &str = "AUTH_REGISTRIES";

/// The host that its users name for the Hub.
const HUB_TOKEN_SERVER: &str = "auth.docker.io";
const HUB: &str = "docker.io";
/// GitLab's own, which nobody has to list: it is intercepted anyway.
const GITLAB: (&str, &str) = ("gitlab.com", "registry.gitlab.com");
/// The value that stands in its image where nobody sets another.
const PLACEHOLDERS: [&str; 2] = ["some.authenticated.registry", "another.registry"];
/// Intercepted by that tool without being named.
const ALWAYS: [&str; 4] =
    ["docker.io", "registry-1.docker.io", "auth.docker.io", "index.docker.io"];

struct RegistryLogin<'a> {
    host: &'a str,
    username: &'a str,
    password: &'a str,
}

pub(super) fn read(reading: &mut Reading<'_>) {
    let sources = reading.sources;
    let listed = unquoted(sources.variable(REGISTRIES).unwrap_or_default());
    let listed: Vec<&str> = listed.split_whitespace().map(unquoted).collect();
    let logins = logins(reading);
    for host in listed.iter().filter(|host| !ALWAYS.contains(host)) {
        reading.layer.named.push(vec![text("host", host, REGISTRIES)]);
    }
    for login in &logins {
        let host = if login.host == HUB_TOKEN_SERVER { HUB } else { login.host };
        reading.layer.with_credentials.push(with(login, host));
    }
    let has_own = |host: &str| logins.iter().any(|login| login.host == host);
    for host in listed.iter().chain([&GITLAB.1]).filter(|host| !has_own(host)) {
        if let Some(login) = logins.iter().find(|login| may_lead_to(host, login.host)) {
            let mut entries = with(login, host);
            entries.push(text("token-server", login.host, AUTH_REGISTRIES));
            reading.layer.with_credentials.push(entries);
        }
    }
}

/// Whether a registry may send its clients to that token server: the same rule holds when it does.
fn may_lead_to(registry: &str, token_server: &str) -> bool {
    if registry == GITLAB.1 {
        return token_server == GITLAB.0;
    }
    match (Host::from_str(registry), Host::from_str(token_server)) {
        (Ok(registry), Ok(token_server)) => is_same_site(&registry, &token_server),
        _ => false,
    }
}

fn logins<'a>(reading: &mut Reading<'a>) -> Vec<RegistryLogin<'a>> {
    let sources = reading.sources;
    let all = unquoted(sources.variable(AUTH_REGISTRIES).unwrap_or_default());
    let between = sources.variable("AUTH_REGISTRIES_DELIMITER").unwrap_or(" ");
    let within = sources.variable("AUTH_REGISTRY_DELIMITER").unwrap_or(":");
    let entries: Vec<&str> = if between == " " {
        all.split_whitespace().collect()
    } else {
        all.split(between).map(str::trim).filter(|entry| !entry.is_empty()).collect()
    };
    let mut logins = Vec::new();
    for (n, entry) in entries.into_iter().enumerate() {
        match login(entry, within) {
            Some(login) if PLACEHOLDERS.contains(&login.host) => {}
            Some(login) => logins.push(login),
            None => reading.problem(
                AUTH_REGISTRIES,
                format!(
                    "entry {}: found something else (not shown: it may hold a password); \
                     expected host{within}user{within}password, the next one after {between:?}",
                    n + 1
                ),
            ),
        }
    }
    logins
}

fn login<'a>(entry: &'a str, within: &str) -> Option<RegistryLogin<'a>> {
    let (host, rest) = entry.split_once(within)?;
    let (username, password) = rest.split_once(within)?;
    let is_host = HostPattern::from_str(host).is_ok();
    let is_whole =
        is_host && !username.is_empty() && !username.contains(':') && !password.is_empty();
    is_whole.then_some(RegistryLogin { host, username, password })
}

fn with(login: &RegistryLogin<'_>, host: &str) -> RegistryEntries {
    let entries = [("host", host), ("username", login.username), ("password", login.password)];
    entries.into_iter().map(|(key, value)| text(key, value, AUTH_REGISTRIES)).collect()
}

fn text(key: &str, value: &str, variable: &str) -> ConfigEntry {
    let place = Position::Environment(variable.to_owned());
    ConfigEntry { key: key.to_owned(), value: Value::Text(value.to_owned()), place }
}

/// Compose files of the form `- NAME="value"` leave the quotes in.
fn unquoted(text: &str) -> &str {
    let text = text.trim();
    ['"', '\'']
        .iter()
        .find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
        .unwrap_or(text)
}
