//! The command line: one file a subcommand.

mod api;
mod archive;
mod ca;
mod check;
mod config;
mod credentials;
mod documents;
mod images;
mod privileges;
mod pull;
mod reload;
mod serve;
mod site;
mod verify;

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use self::privileges::Missing;
use crate::config::drop_in::CACHE_VOLUME;
use crate::config::keys::KEYS;
use crate::config::{Settings, Sources};

/// The exit code of a check that could not be made.
const CANNOT: u8 = 2;

/// How a result is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Report {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

impl Report {
    fn of(given: &ArgMatches) -> Self {
        if given.get_flag("json") { Self::Json } else { Self::Text }
    }
}

/// Runs the program with these arguments and this environment.
///
/// Exit codes: 0 success, 1 failure (with a message on standard error), 2 wrong usage. Where 1 is a
/// finding (`verify`, `check`), 2 is also a failure to find out.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Vec<(String, String)>,
) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let matches = match command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let missing = missing_directories(&matches);
    let settings = |given: &ArgMatches, environment| {
        let settings = settings(given, environment)?;
        privileges::give_up(&settings, missing, &arguments);
        anyhow::Ok(settings)
    };
    let outcome = match matches.subcommand() {
        Some(("serve", given)) => {
            let sources = sources(given, environment.clone());
            settings(given, environment).and_then(|settings| serve::run(settings, sources))
        }
        Some(("check", given)) => {
            let client = given.get_one::<String>("proxy").map(|url| check::Depth::Client(url));
            let full = client.unwrap_or(check::Depth::Full);
            let depth = if given.get_flag("alive") { check::Depth::Alive } else { full };
            let checked = settings(given, environment)
                .and_then(|settings| check::run(&settings, depth, Report::of(given)));
            return checked.unwrap_or_else(|error| failed(&error, CANNOT));
        }
        Some(("verify", given)) => {
            let server = given.get_one::<String>("server").map(String::as_str);
            let verified = settings(given, environment)
                .and_then(|settings| verify::run(&settings, server, Report::of(given)));
            return verified.unwrap_or_else(|error| failed(&error, CANNOT));
        }
        Some(("pull", given)) => {
            let pulled = settings(given, environment)
                .and_then(|settings| pull::run(&settings, given, Report::of(given)));
            return pulled.unwrap_or_else(|error| failed(&error, 1));
        }
        Some((name @ ("ls" | "rm" | "pin" | "unpin"), given)) => {
            settings(given, environment).and_then(|settings| images::run(name, given, &settings))
        }
        Some(("export", given)) => {
            settings(given, environment).and_then(|settings| archive::export(given, &settings))
        }
        Some(("import", given)) => {
            settings(given, environment).and_then(|settings| archive::import(given, &settings))
        }
        Some(("ca", given)) => match given.subcommand() {
            Some(("renew", given)) => settings(given, environment)
                .and_then(|settings| ca::renew(&settings, Report::of(given))),
            Some((_, given)) => settings(given, environment)
                .and_then(|settings| ca::show(&settings, Report::of(given))),
            None => Ok(()),
        },
        Some(("config", given)) => match given.subcommand() {
            Some(("show", given)) => settings(given, environment)
                .and_then(|settings| config::show(&settings, Report::of(given))),
            Some((_, given)) => config::check(settings(given, environment), Report::of(given)),
            None => Ok(()),
        },
        Some(("completions", given)) => match given.get_one::<clap_complete::Shell>("shell") {
            Some(shell) => documents::completions(command(), *shell),
            None => Ok(()),
        },
        Some(("man", _)) => documents::manual(command()),
        // clap requires a subcommand and knows no other.
        _ => Ok(()),
    };
    match unless_closed(outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, 1),
    }
}

/// Whoever closes our standard output (`entrepot ls | head -1`) has read what they wanted: that is no
/// failure, and nobody is there to be told more.
fn unless_closed(told: anyhow::Result<()>) -> anyhow::Result<()> {
    match told {
        Err(error) if is_closed_output(&error) => Ok(()),
        told => told,
    }
}

/// Whether standard output was closed. What is said of other pipes, and of an archive that was not
/// taken whole, has a context.
fn is_closed_output(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    error.chain().count() == 1 && cause.is_some_and(|cause| cause.kind() == ErrorKind::BrokenPipe)
}

/// What the subcommand does about `ca-dir` and `cache-dir` where they are not there.
fn missing_directories(matches: &ArgMatches) -> Missing {
    match matches.subcommand() {
        Some(("serve" | "import", _)) => Missing::Made,
        Some(("ca", given)) if given.subcommand_name() == Some("renew") => Missing::Made,
        _ => Missing::Left,
    }
}

fn failed(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("entrepot: {error:#}");
    ExitCode::from(code)
}

/// Help goes to standard output and is a success; anything else is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    let told = unless_closed(error.print().map_err(anyhow::Error::from));
    if told.is_err() || error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

fn command() -> Command {
    let command = Command::new("entrepot")
        .about("A caching HTTPS forward proxy for container-registry traffic")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(Command::new("serve").about("Run the proxy")))
        .subcommand(
            with_settings(Command::new("check").about("Say what is wrong, in words"))
                .arg(
                    Arg::new("alive")
                        .long("alive")
                        .action(ArgAction::SetTrue)
                        .help("Only ask the running proxy whether it is alive"),
                )
                .arg(
                    Arg::new("proxy")
                        .long("proxy")
                        .value_name("URL")
                        .conflicts_with("alive")
                        .help("Check from a client's side, through the proxy with this URL"),
                )
                .arg(json()),
        )
        .subcommand(
            with_settings(
                Command::new("verify")
                    .about("Hash everything that is kept; set aside what is damaged"),
            )
            .arg(json())
            .arg(server()),
        )
        .subcommand(
            pull::arguments(with_settings(
                Command::new("pull").about("Bring images into the cache of a running proxy"),
            ))
            .arg(json())
            .arg(server()),
        )
        .subcommand(
            Command::new("config")
                .about("What is configured")
                .subcommand_required(true)
                .subcommand(
                    with_settings(
                        Command::new("show")
                            .about("Show every key, its value and where that comes from"),
                    )
                    .arg(json()),
                )
                .subcommand(
                    with_settings(Command::new("check").about("Say all that is wrong with it"))
                        .arg(json()),
                ),
        )
        .subcommand(
            Command::new("completions").about("Print what a shell needs to complete commands").arg(
                Arg::new("shell")
                    .required(true)
                    .value_parser(clap::value_parser!(clap_complete::Shell)),
            ),
        )
        .subcommand(Command::new("man").about("Print the manual, in roff"))
        .subcommand(
            Command::new("ca")
                .about("The certificate that clients trust")
                .subcommand_required(true)
                .subcommand(
                    with_settings(
                        Command::new("show").about("Show it, its fingerprint and its end"),
                    )
                    .arg(json()),
                )
                .subcommand(
                    with_settings(
                        Command::new("renew").about("Make a new one; every client must trust it"),
                    )
                    .arg(json()),
                ),
        );
    let images = images::commands().into_iter().chain(archive::commands());
    command.subcommands(images.map(|images| with_settings(images).arg(json()).arg(server())))
}

/// As much of a digest as tells it from others, for listings.
fn short(digest: &str) -> String {
    digest.split(':').next_back().unwrap_or_default().chars().take(12).collect()
}

fn json() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Tell it as JSON")
}

fn server() -> Arg {
    Arg::new("server").long("server").value_name("URL").value_parser(api::server_url).help(
        "The admin listener of a running proxy, http://HOST:PORT [default: that of the configuration]",
    )
}

/// A flag a top-level key, and `--config`.
fn with_settings(command: Command) -> Command {
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
        command.arg(flag.value_name(value_name).help(key.help))
    })
}

fn settings(given: &ArgMatches, environment: Vec<(String, String)>) -> anyhow::Result<Settings> {
    Ok(Settings::load(&sources(given, environment))?)
}

fn sources(given: &ArgMatches, environment: Vec<(String, String)>) -> Sources {
    let flags = KEYS
        .iter()
        .filter(|key| !key.name.contains('.'))
        .filter_map(|key| {
            let values = given.get_many::<String>(key.name)?;
            Some((key.name.to_owned(), values.cloned().collect()))
        })
        .collect();
    let file = given.get_one::<PathBuf>("config").cloned();
    let mirror_cache = Path::new(CACHE_VOLUME).is_dir().then(|| CACHE_VOLUME.into());
    Sources { file, environment, flags, mirror_cache }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn the_documentation_names_every_subcommand() {
        fn names(command: &Command, before: &str) -> Vec<String> {
            let own = format!("{before}{}", command.get_name());
            let inner = command.get_subcommands().flat_map(|sub| names(sub, &format!("{own} ")));
            let inner: Vec<_> = inner.collect();
            if inner.is_empty() { vec![own] } else { inner }
        }
        let page = include_str!("../../docs/cli.md");
        for name in names(&command(), "") {
            assert!(page.contains(&format!("| `{name}")), "{name} is not in docs/cli.md");
        }
    }

    #[test]
    fn help_names_every_top_level_key() {
        let mut command = command();
        let serve = command.find_subcommand_mut("serve").unwrap();
        let help = serve.render_long_help().to_string();
        for key in KEYS.iter().filter(|key| !key.name.contains('.')) {
            assert!(help.contains(&format!("--{} ", key.name)), "{}", key.name);
        }
    }
}
