//! The command line: one file a subcommand.

mod ca;
mod check;
mod privileges;
mod serve;
mod verify;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::drop_in::CACHE_VOLUME;
use crate::config::keys::KEYS;
use crate::config::{Settings, Sources};

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
/// Exit codes: 0 success, 1 failure (with a message on standard error), 2 wrong usage.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Vec<(String, String)>,
) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let settings = |given: &ArgMatches, environment| {
        let settings = settings(given, environment)?;
        privileges::give_up(&settings, &arguments);
        anyhow::Ok(settings)
    };
    let matches = match command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let outcome = match matches.subcommand() {
        Some(("serve", given)) => settings(given, environment).and_then(serve::run),
        Some(("check", given)) => {
            let depth =
                if given.get_flag("alive") { check::Depth::Alive } else { check::Depth::Full };
            settings(given, environment).and_then(|settings| check::run(&settings, depth))
        }
        Some(("verify", given)) => settings(given, environment)
            .and_then(|settings| verify::run(&settings, Report::of(given))),
        Some(("ca", given)) => match given.subcommand() {
            Some((_, given)) => settings(given, environment)
                .and_then(|settings| ca::show(&settings, Report::of(given))),
            None => Ok(()),
        },
        // clap requires a subcommand and knows no other.
        _ => Ok(()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("entrepot: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Help goes to standard output and is a success; anything else is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    if error.print().is_err() || error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

fn command() -> Command {
    Command::new("entrepot")
        .about("A caching HTTPS forward proxy for container-registry traffic")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(Command::new("serve").about("Run the proxy")))
        .subcommand(
            with_settings(Command::new("check").about("Say what is wrong, in words")).arg(
                Arg::new("alive")
                    .long("alive")
                    .action(ArgAction::SetTrue)
                    .help("Only ask the running proxy whether it is alive"),
            ),
        )
        .subcommand(
            with_settings(
                Command::new("verify")
                    .about("Hash everything that is kept; set aside what is damaged"),
            )
            .arg(json()),
        )
        .subcommand(
            Command::new("ca")
                .about("The certificate that clients trust")
                .subcommand_required(true)
                .subcommand(
                    with_settings(
                        Command::new("show").about("Show it, its fingerprint and its end"),
                    )
                    .arg(json()),
                ),
        )
}

fn json() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Tell it as JSON")
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
    Ok(Settings::load(&Sources { file, environment, flags, mirror_cache })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
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
