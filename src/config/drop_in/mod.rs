//! The environment of docker-registry-proxy 0.7.0, so that its `docker run` line works with the
//! image's name changed.
//!
//! A layer between `ENTREPOT_*` and the file; what that tool did unless told otherwise (no pushes)
//! is weaker than the file. Most of its variables have names that anything may have, so they only
//! count where something says that this run is in its place: its cache volume, or a variable that
//! nothing else has. `docs/migrate.md` is the table.
//!
//! - `units`: nginx's sizes and times
//! - `registries`: `REGISTRIES` and `AUTH_REGISTRIES`
//! - `tags`: `ENABLE_MANIFEST_CACHE` and its three tiers

mod registries;
mod tags;
#[cfg(test)]
mod tests;
pub(super) mod units;

use std::path::Path;
use std::time::Duration;

use super::error::{Position, Problem};
use super::source::{ConfigEntry, RegistryEntries, Sources, Value};
use crate::config::units::{exact_duration, exact_size};

/// Where that tool kept its cache.
pub(crate) const CACHE_VOLUME: &str = "/docker_mirror_cache";
/// Where it kept its CA.
const CA_VOLUME: &str = "/ca";
/// Its cache volume holds nginx's files, which are none of ours.
const OWN_DIRECTORY: &str = "entrepot";

/// Variables that nothing else has: one of them says what is meant.
const SIGNS: [&str; 14] = [
    "AUTH_REGISTRIES",
    "AUTH_REGISTRIES_DELIMITER",
    "AUTH_REGISTRY_DELIMITER",
    "ENABLE_MANIFEST_CACHE",
    "MANIFEST_CACHE_PRIMARY_REGEX",
    "MANIFEST_CACHE_PRIMARY_TIME",
    "MANIFEST_CACHE_SECONDARY_REGEX",
    "MANIFEST_CACHE_SECONDARY_TIME",
    "MANIFEST_CACHE_DEFAULT_TIME",
    "PROXY_CONNECT_READ_TIMEOUT",
    "PROXY_CONNECT_CONNECT_TIMEOUT",
    "PROXY_CONNECT_SEND_TIMEOUT",
    "DEBUG_HUB",
    "DEBUG_NGINX",
];

/// Variables whose loss would be felt: without a sign they are mentioned.
const FELT: [&str; 4] = ["REGISTRIES", "CACHE_MAX_SIZE", "CACHE_INACTIVE", "ALLOW_PUSH"];

/// Variables that have no counterpart, and why.
const WITHOUT_COUNTERPART: [(&str, &str); 9] = [
    ("CA_SRL_FILE", "serial numbers are random"),
    ("SEND_TIMEOUT", TOWARDS_CLIENTS),
    ("CLIENT_BODY_TIMEOUT", TOWARDS_CLIENTS),
    ("CLIENT_HEADER_TIMEOUT", TOWARDS_CLIENTS),
    ("KEEPALIVE_TIMEOUT", TOWARDS_CLIENTS),
    ("PROXY_SEND_TIMEOUT", "upstream.header-timeout bounds each silence while a body is sent"),
    ("PROXY_CONNECT_READ_TIMEOUT", OF_TUNNELS),
    ("PROXY_CONNECT_SEND_TIMEOUT", OF_TUNNELS),
    ("PROXY_REQUEST_BUFFERING", "a push is passed on as it comes, never buffered"),
];
const TOWARDS_CLIENTS: &str =
    "a request's head has 30 s and a connection 5 minutes of silence, whatever is configured";
const OF_TUNNELS: &str = "a tunnel has 5 minutes of silence, whatever is configured";

/// What that tool's environment says.
#[derive(Default)]
pub(super) struct Layer {
    /// What it did unless told otherwise: weaker than the file.
    pub(super) implied: Vec<ConfigEntry>,
    /// What its variables say: stronger than the file.
    pub(super) entries: Vec<ConfigEntry>,
    /// Registries with credentials: before the file's.
    pub(super) with_credentials: Vec<RegistryEntries>,
    /// Registries that are only named: behind the file's.
    pub(super) named: Vec<RegistryEntries>,
    /// What is wrong.
    pub(super) problems: Vec<Problem>,
    /// What the operator should know, a sentence each.
    pub(super) notes: Vec<String>,
    /// Whether more is to be logged.
    pub(super) debug: bool,
}

/// Reads that environment, if this run is in that tool's place.
pub(super) fn read(sources: &Sources) -> Layer {
    let sign = SIGNS.into_iter().find(|name| sources.variable(name).is_some());
    let volume = sources.mirror_cache.as_deref();
    let Some(sign) = sign.or(volume.and(Some(CACHE_VOLUME))) else {
        return Layer { notes: ignored(sources).collect(), ..Layer::default() };
    };
    let mut reading = Reading { sources, layer: Layer::default() };
    reading.layer.notes.push(format!(
        "taking the environment of docker-registry-proxy into account, because there is {sign} (docs/migrate.md)"
    ));
    reading.directories(volume);
    reading.bounds();
    reading.behaviour();
    reading.timeouts();
    reading.debugging();
    registries::read(&mut reading);
    tags::read(&mut reading);
    reading.without_counterpart();
    reading.layer
}

fn ignored(sources: &Sources) -> impl Iterator<Item = String> {
    FELT.into_iter().filter(|name| sources.variable(name).is_some()).map(|name| {
        format!(
            "{name} is ignored: nothing else says that this run takes the place of \
             docker-registry-proxy (no {CACHE_VOLUME}, no variable that only that has); use the \
             keys of entrepot"
        )
    })
}

struct Reading<'a> {
    sources: &'a Sources,
    layer: Layer,
}

impl Reading<'_> {
    fn variable(&self, name: &str) -> Option<&str> {
        self.sources.variable(name)
    }

    fn set(&mut self, key: &str, value: impl Into<String>, variable: &str) {
        self.layer.entries.push(entry(key, value, variable));
    }

    fn imply(&mut self, key: &str, value: impl Into<String>) {
        self.layer.implied.push(entry(key, value, "docker-registry-proxy"));
    }

    fn problem(&mut self, variable: &str, text: impl Into<String>) {
        let place = Some(Position::Environment(variable.to_owned()));
        self.layer.problems.push(Problem { place, text: text.into() });
    }

    fn note(&mut self, text: impl Into<String>) {
        self.layer.notes.push(text.into());
    }

    /// Its scripts compare with `true`, and take anything else for no.
    fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.variable(name)?;
        let flag = value == "true";
        if !flag && value != "false" {
            let note = format!("{name} is {value:?}, which counts as false, as it always did");
            self.note(note);
        }
        Some(flag)
    }

    fn directories(&mut self, volume: Option<&Path>) {
        if let Some(volume) = volume {
            let own = volume.join(OWN_DIRECTORY);
            self.imply("cache-dir", own.display().to_string());
            if holds_something_else(volume) {
                self.note(format!(
                    "{} holds files of docker-registry-proxy's cache, which are of no use any \
                     more: delete everything there but {OWN_DIRECTORY}/",
                    volume.display()
                ));
            }
            if Path::new(CA_VOLUME).is_dir() {
                self.imply("ca-dir", CA_VOLUME);
            }
        }
        self.ca_files();
    }

    fn ca_files(&mut self) {
        let pair = [("CA_CRT_FILE", "ca.crt"), ("CA_KEY_FILE", "ca.key")];
        for (variable, name) in pair {
            let Some(path) = self.variable(variable).map(Path::new) else { continue };
            let directory = path.parent().filter(|_| path.ends_with(name)).map(Path::to_owned);
            let other = self.layer.entries.iter().find(|entry| entry.key == "ca-dir");
            let is_the_same = |directory: &Path| {
                let text = Value::Text(directory.display().to_string());
                other.is_none_or(|other| other.value == text)
            };
            match directory {
                Some(directory) if is_the_same(&directory) => {
                    self.set("ca-dir", directory.display().to_string(), variable);
                }
                _ => self.problem(
                    variable,
                    format!(
                        "found {:?}; expected ca.crt and ca.key in one directory (ca-dir)",
                        path.display().to_string()
                    ),
                ),
            }
        }
    }

    fn bounds(&mut self) {
        if let Some(value) = self.variable("CACHE_MAX_SIZE") {
            match units::size(value) {
                Some(bytes) => self.set("max-size", exact_size(bytes), "CACHE_MAX_SIZE"),
                None => self.wrong("CACHE_MAX_SIZE", "a size such as 500m or 32g"),
            }
        }
        if let Some(time) = self.time("CACHE_INACTIVE") {
            self.set("max-idle", exact_duration(time), "CACHE_INACTIVE");
        }
    }

    fn behaviour(&mut self) {
        self.imply("push", "deny");
        if let Some(allowed) = self.flag("ALLOW_PUSH") {
            self.set("push", if allowed { "client" } else { "deny" }, "ALLOW_PUSH");
        }
        if self.flag("DISABLE_IPV6") == Some(true) {
            self.set("upstream.ipv6", "false", "DISABLE_IPV6");
        }
        if self.flag("VERIFY_SSL") == Some(false) {
            self.problem(
                "VERIFY_SSL",
                "verification of registries can't be switched off: name the CAs of your \
                 registries in upstream.ca-files (ENTREPOT_UPSTREAM_CA_FILES) and leave it out",
            );
        }
    }

    fn timeouts(&mut self) {
        let connect = ["PROXY_CONNECT_TIMEOUT", "PROXY_CONNECT_CONNECT_TIMEOUT"];
        let longest = connect
            .into_iter()
            .filter_map(|name| self.time(name).map(|time| (time, name)))
            .max_by_key(|(time, _)| *time);
        if let Some((time, name)) = longest {
            self.set("upstream.connect-timeout", exact_duration(time), name);
        }
        let name = "PROXY_READ_TIMEOUT";
        if let Some(time) = self.time(name) {
            self.set("upstream.header-timeout", exact_duration(time), name);
            self.set("upstream.idle-timeout", exact_duration(time), name);
        }
    }

    fn debugging(&mut self) {
        for name in ["DEBUG", "DEBUG_HUB", "DEBUG_NGINX"] {
            if self.flag(name) == Some(true) {
                self.layer.debug = true;
                if name != "DEBUG_NGINX" {
                    self.note(format!(
                        "{name}: there is no mitmweb here; more is logged instead (RUST_LOG=debug)"
                    ));
                }
            }
        }
    }

    fn without_counterpart(&mut self) {
        for (name, reason) in WITHOUT_COUNTERPART {
            if self.variable(name).is_some() {
                self.note(format!("{name} has no counterpart: {reason}"));
            }
        }
    }

    fn time(&mut self, name: &str) -> Option<Duration> {
        let time = units::time(self.variable(name)?);
        if time.is_none() {
            self.wrong(name, "a time such as 60s, 10m, 1h or 60d");
        }
        time
    }

    fn wrong(&mut self, name: &str, expected: &str) {
        let found = self.variable(name).unwrap_or_default();
        let text = format!("found {found:?}; expected {expected}");
        self.problem(name, text);
    }
}

fn entry(key: &str, value: impl Into<String>, variable: &str) -> ConfigEntry {
    ConfigEntry {
        key: key.to_owned(),
        value: Value::Text(value.into()),
        place: Position::Environment(variable.to_owned()),
    }
}

fn holds_something_else(volume: &Path) -> bool {
    let entries = std::fs::read_dir(volume).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| name != OWN_DIRECTORY && name != "lost+found")
}
