//! One `[[registry]]` entry.

use std::path::PathBuf;

use entrepot_oci::host::{HTTP_PORT, HTTPS_PORT};
use entrepot_oci::{Host, HostPattern};

use super::error::Position;
use super::reader::RegistryReader;
use super::value::FromValue;
use crate::gateway::TagTtl;
use crate::registry::RegistryRule;
use crate::registry::credentials::{CredentialSource, Credentials};
use crate::secret::Secret;
use crate::upstream::Scheme;
use crate::upstream::proxy::ProxyChoice;

/// The keys that give credentials.
const CREDENTIALS: [&str; 4] = ["username", "password", "password-file", "credential-helper"];
/// Says that a password is for each host that a pattern fits.
const EVERY_HOST: &str = "password-for-every-host";

impl FromValue for Secret {
    const EXPECTED: &'static str = "a text";
    const IS_SECRET: bool = true;

    fn from_text(text: &str) -> Option<Self> {
        Some(Self::new(text))
    }
}

/// A name that goes before the colon of Basic authentication (RFC 7617 §2).
struct UserName(String);

impl FromValue for UserName {
    const EXPECTED: &'static str = "a user name without a colon";

    fn from_text(text: &str) -> Option<Self> {
        (!text.is_empty() && !text.contains(':')).then(|| Self(text.to_owned()))
    }
}

/// The `NAME` of `docker-credential-NAME`: it becomes a part of a program's name.
struct HelperName(String);

impl FromValue for HelperName {
    const EXPECTED: &'static str = "the NAME of a docker-credential-NAME program";

    fn from_text(text: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        (!text.is_empty() && text.chars().all(plain)).then(|| Self(text.to_owned()))
    }
}

/// What an entry says.
pub(super) struct RegistryEntry {
    pub(super) rule: RegistryRule,
    pub(super) tag_ttl: TagTtl,
    pub(super) proxy: Option<ProxyChoice>,
    pub(super) proxy_place: Option<Position>,
    /// Where its host was given.
    pub(super) place: Option<Position>,
}

impl RegistryEntry {
    /// The registry as it is dialled, if it is one of plain HTTP that is named without a port.
    pub(super) fn at_plain_port(&self) -> Option<HostPattern> {
        let RegistryRule { host, scheme, .. } = &self.rule;
        let is_plain = *scheme == Scheme::Http && host.at_port(HTTPS_PORT) == *host;
        is_plain.then(|| host.at_port(HTTP_PORT))
    }
}

/// Reads an entry.
pub(super) fn entry(entry: &mut RegistryReader<'_>) -> Option<RegistryEntry> {
    let scheme = entry.get("scheme").unwrap_or(Scheme::Https);
    let source = credentials(entry);
    let credentials =
        source.clone().map(Credentials::new).map(|credentials| match entry.get("token-server") {
            Some(host) => credentials.for_token_server(host),
            None => credentials,
        });
    let proxy: Option<ProxyChoice> = entry.get("proxy");
    let tag_ttl = entry.get("tag-ttl").unwrap_or_default();
    let is_for_every_host = entry.get(EVERY_HOST).unwrap_or_default();
    let host: HostPattern = entry.get("host")?;
    if let Some(source) = &source {
        check_reach(entry, source, &host, is_for_every_host);
    }
    Some(RegistryEntry {
        proxy: proxy.map(|choice| choice.named_by(format!("proxy of [[registry]] {host}"))),
        proxy_place: entry.place("proxy"),
        place: entry.place("host"),
        rule: RegistryRule { host, scheme, credentials },
        tag_ttl,
    })
}

/// Credentials serve the registry that they are for. Of a pattern's hosts anybody may run one: a
/// helper is asked for each by its name, and a password is for all of them only by a second word.
fn check_reach(
    entry: &mut RegistryReader<'_>,
    source: &CredentialSource,
    host: &HostPattern,
    is_for_every_host: bool,
) {
    let place = CREDENTIALS.iter().find_map(|key| entry.place(key));
    if is_anybodys(host) {
        let problem = format!(
            "credentials for {host}: any registry whatever would be shown them; expected the host that they are for"
        );
        entry.problem(place, problem);
    } else if !host.is_exact() && !is_for_every_host && !source.is_by_server() {
        let problem = format!(
            "a password for {host}: every host that this fits would be shown it; expected the one host that it is for, a credential-helper, or {EVERY_HOST} = true in a [[registry]] entry"
        );
        entry.problem(place, problem);
    }
}

/// Whether a pattern ends in nothing that somebody in particular has: `*`, `harbor.*`, `*.com`.
fn is_anybodys(host: &HostPattern) -> bool {
    if host.is_exact() {
        return false;
    }
    let Some(Host::Name(end)) = host.constraint() else { return true };
    psl::suffix(end.as_bytes()).is_some_and(|suffix| {
        suffix.typ() == Some(psl::Type::Icann) && suffix.as_bytes() == end.as_bytes()
    })
}

/// A user name with one password, or a helper.
fn credentials(entry: &mut RegistryReader<'_>) -> Option<CredentialSource> {
    let username: Option<UserName> = entry.get("username");
    let password: Option<Secret> = entry.get("password");
    let path: Option<PathBuf> = entry.get("password-file");
    let helper: Option<HelperName> = entry.get("credential-helper");
    match (username, password, path, helper) {
        (None, None, None, None) => None,
        (None, None, None, Some(HelperName(name))) => Some(CredentialSource::Helper(name)),
        (Some(UserName(username)), Some(password), None, None) => {
            Some(CredentialSource::Password { username, password })
        }
        (Some(UserName(username)), None, Some(path), None) => {
            let path = entry.beside("password-file", path);
            Some(CredentialSource::File { username, path })
        }
        _ => {
            let place = CREDENTIALS.iter().find_map(|key| entry.place(key));
            entry.problem(
                place,
                "credentials are username with password, username with password-file, or credential-helper alone",
            );
            None
        }
    }
}
