//! The arguments that subcommands share, and how they are read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use entrepot_oci::ImageName;

use super::api;
use super::output::Report;
use super::privileges::{self, Missing};
use crate::config::drop_in::CACHE_VOLUME;
use crate::config::keys::KEYS;
use crate::config::{Settings, Sources};

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

    /// `--json`.
    pub(super) fn report(self) -> Report {
        if self.matches.get_flag("json") { Report::Json } else { Report::Text }
    }

    /// `--server`.
    pub(super) fn server(self) -> Option<&'a str> {
        self.matches.get_one::<String>("server").map(String::as_str)
    }

    /// The images that are named.
    pub(super) fn images(self) -> impl Iterator<Item = &'a ImageName> {
        self.matches.get_many("image").unwrap_or_default()
    }
}

pub(super) fn json() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Tell it as JSON")
}

pub(super) fn server() -> Arg {
    Arg::new("server").long("server").value_name("URL").value_parser(api::server_url).help(
        "The admin listener of a running proxy, http://HOST:PORT [default: that of the configuration]",
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

/// A flag for each top-level key, and `--config`.
pub(super) fn with_settings(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help(
            "The configuration file [default: ./entrepot.toml, else /etc/entrepot/entrepot.toml]",
        );
    KEYS.iter().filter(|key| !key.name.contains('.')).fold(command.arg(config), |command, key| {
        let action = if key.is_list { ArgAction::Append } else { ArgAction::Set };
        let value_name = if key.is_list { "VALUE,…" } else { "VALUE" };
        let flag = Arg::new(key.name).long(key.name).action(action);
        command.arg(flag.value_name(value_name).help(key.help()))
    })
}
