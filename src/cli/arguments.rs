//! The arguments that subcommands share, and how they are read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use entrepot_oci::ImageName;

use super::api;
use super::output::Report;
use super::privileges::{self, Missing};
use crate::config::drop_in::CACHE_VOLUME;
use crate::config::keys::{KEYS, Key};
use crate::config::{SERVER, Settings, Sources};

/// What a subcommand was given.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// Its own arguments.
    pub(super) matches: &'a ArgMatches,
    /// All that the program was started with.
    pub(super) command_line: &'a [OsString],
    /// The process's environment.
    pub(super) environment: &'a [(String, String)],
}

impl<'a> Given<'a> {
    /// The subcommand of this one, with what that was given.
    pub(super) fn subcommand(self) -> Option<(&'a str, Self)> {
        let (name, matches) = self.matches.subcommand()?;
        Some((name, Self { matches, ..self }))
    }

    /// The configuration. As root with `run-as` this does not come back, but in a process of that
    /// user ([`privileges::give_up`]).
    pub(super) fn settings(self, missing: Missing) -> anyhow::Result<Settings> {
        let settings = Settings::load(&self.sources())?;
        privileges::give_up(&settings, missing, self.command_line);
        Ok(settings)
    }

    /// Where the configuration is read from.
    pub(super) fn sources(self) -> Sources {
        let flags = KEYS
            .iter()
            .filter(|key| !key.name.contains('.'))
            .filter_map(|key| {
                let values = self.matches.get_many::<String>(key.name)?;
                Some((key.name.to_owned(), values.cloned().collect()))
            })
            .collect();
        let file = self.matches.get_one::<PathBuf>("config").cloned();
        let mirror_cache = Path::new(CACHE_VOLUME).is_dir().then(|| CACHE_VOLUME.into());
        Sources { file, environment: self.environment.to_vec(), flags, mirror_cache }
    }

    /// A variable of the environment.
    pub(super) fn variable(self, name: &str) -> Option<&'a str> {
        let found = self.environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// `--json`.
    pub(super) fn report(self) -> Report {
        if self.matches.get_flag("json") { Report::Json } else { Report::Text }
    }

    /// `--server`; else `ENTREPOT_SERVER`, unless flags say where a proxy is.
    pub(super) fn server(self) -> Option<&'a str> {
        let named = self.matches.get_one::<String>("server").map(String::as_str);
        let is_there = |flag: &str| self.matches.try_contains_id(flag).unwrap_or_default();
        let is_elsewhere = WHERE.iter().chain(&["config"]).any(|flag| is_there(flag));
        let variable = || self.variable(SERVER).filter(|url| !is_elsewhere && !url.is_empty());
        named.or_else(variable)
    }

    /// The images that are named.
    pub(super) fn images(self) -> impl Iterator<Item = &'a ImageName> {
        self.matches.get_many("image").unwrap_or_default()
    }
}

pub(super) fn json() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON")
}

pub(super) fn server() -> Arg {
    Arg::new("server")
        .long("server")
        .value_name("URL")
        .value_parser(api::server_url)
        .help_heading(PLACE)
        .help(
            "The admin listener of a running proxy, http://HOST:PORT [default: ENTREPOT_SERVER, \
             else that of the configuration]",
        )
}

/// One image or more.
pub(super) fn images() -> Arg {
    Arg::new("image")
        .value_name("IMAGE")
        .num_args(1..)
        .required(true)
        .value_parser(clap::value_parser!(ImageName))
        .help("alpine, alpine:3.20, ghcr.io/org/app@sha256:…")
}

/// Over the arguments by which a running proxy, or its store, is found.
const PLACE: &str = "Where the proxy is";
/// Over those of a subcommand that works with the configuration alone.
const CONFIGURATION: &str = "Configuration (as for serve)";
/// The keys that say where a proxy is.
const WHERE: [&str; 5] =
    ["cache-dir", "data-dir", "admin-socket", "admin-listen", "admin-token-file"];

/// The keys of `serve`, as its help groups them. Others come last.
const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Listening",
        &[
            "listen",
            "external-url",
            "mirror-names",
            "contact",
            "proxy-protocol-from",
            "admin-listen",
            "admin-token-file",
            "admin-socket",
            "admin-look-from",
        ],
    ),
    (
        "What is kept",
        &[
            "data-dir",
            "ca-dir",
            "cache-dir",
            "max-size",
            "min-free",
            "max-idle",
            "memory-budget",
            "run-as",
        ],
    ),
    (
        "Registries and tags",
        &[
            "intercept",
            "intercept-also",
            "tag-ttl",
            "stale-after",
            "keep-deleted",
            "quota-floor",
            "offline",
            "tunnel",
            "push",
            "ca-constrain",
        ],
    ),
    ("Logging", &["log", "log-level"]),
    ("More", &[]),
];

/// `--config` and a flag for each top-level key, by groups: for `serve`.
pub(super) fn with_all_keys(command: Command) -> Command {
    let is_grouped = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let mut command = command.arg(config());
    for (heading, names) in GROUPS {
        let of_group =
            |name: &str| names.contains(&name) || (names.is_empty() && !is_grouped(name));
        let keys = top_level().filter(|key| of_group(key.name));
        command = keys.fold(command, |command, key| command.arg(flag(key).help_heading(heading)));
    }
    command
}

/// `--config`, and the flags that `serve` has as well: those that say where a proxy is are told.
pub(super) fn with_place(command: Command) -> Command {
    with_some_keys(command, PLACE, &WHERE)
}

/// `--config`, and the flags that `serve` has as well, of which these are told.
pub(super) fn with_keys(command: Command, told: &[&str]) -> Command {
    with_some_keys(command, CONFIGURATION, told)
}

/// Every key is taken, since the configuration is one; those that matter are told, and in the long
/// help alone.
fn with_some_keys(command: Command, heading: &'static str, told: &[&str]) -> Command {
    let command = command.arg(config().help_heading(heading));
    top_level().fold(command, |command, key| {
        let flag = flag(key).help_heading(heading).hide_short_help(true);
        command.arg(if told.contains(&key.name) { flag } else { flag.hide(true) })
    })
}

fn top_level() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| !key.name.contains('.'))
}

fn config() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("The configuration file [default: ./entrepot.toml, else /etc/entrepot/entrepot.toml]")
}

fn flag(key: &'static Key) -> Arg {
    let action = if key.is_list { ArgAction::Append } else { ArgAction::Set };
    let value_name = if key.is_list { "VALUE,…" } else { "VALUE" };
    Arg::new(key.name).long(key.name).action(action).value_name(value_name).help(key.help())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_group_is_a_key() {
        let names = GROUPS.iter().flat_map(|(_, names)| *names).chain(&WHERE);
        for name in names {
            assert!(Key::named(name).is_some(), "{name}");
        }
    }
}
