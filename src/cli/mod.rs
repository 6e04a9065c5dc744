//! The command line: one file a subcommand.
//!
//! Each subcommand's file has its `command()`, which says how it is called, and its `run`. What
//! they share:
//!
//! - `arguments`: the arguments that several take, and how they are read
//! - `privileges`: from root to nobody in particular
//! - `runtime`: the runtime that work is done on
//! - `site`: a proxy that runs, or the store of one that does not
//! - `api`: the admin API of a running proxy
//! - `output`, `progress`: how a result is told, and how far it is
//! - `change`: what `rm`, `pin` and `unpin` do to an image
//! - `reload`, `credentials`: what `serve` does on SIGHUP, and what it warns of
//! - `documents`: `completions` and `man`, which are made from the command line's description

mod api;
mod arguments;
mod ca;
mod change;
mod check;
mod config;
mod credentials;
mod documents;
mod export;
mod import;
mod ls;
mod output;
mod pin;
mod privileges;
mod progress;
mod pull;
mod reload;
mod rm;
mod runtime;
mod serve;
mod site;
mod unpin;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Command;

use self::arguments::Given;
use self::output::{complain, unless_closed};
use crate::words::chain;

/// The exit code of a check that could not be made.
const CANNOT: u8 = 2;

/// Runs the program with these arguments and this environment.
///
/// Exit codes: 0 success, 1 failure (with a message on standard error), 2 wrong usage. Where 1 is a
/// finding (`verify`, `check`), 2 is also a failure to find out.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &[(String, String)],
) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let matches = match command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let given = Given { matches: &matches, command_line: &arguments, environment };
    match given.subcommand() {
        Some((name, given)) => run_subcommand(name, given),
        // clap requires one.
        None => ExitCode::SUCCESS,
    }
}

fn run_subcommand(name: &str, given: Given<'_>) -> ExitCode {
    match name {
        "serve" => ended(serve::run(given)),
        "check" => concluded(check::run(given), CANNOT),
        "verify" => concluded(verify::run(given), CANNOT),
        "pull" => concluded(pull::run(given), 1),
        "ls" => ended(ls::run(given)),
        "rm" => ended(rm::run(given)),
        "pin" => ended(pin::run(given)),
        "unpin" => ended(unpin::run(given)),
        "export" => ended(export::run(given)),
        "import" => ended(import::run(given)),
        "config" => ended(config::run(given)),
        "ca" => ended(ca::run(given)),
        "completions" => ended(documents::completions(command(), given)),
        "man" => ended(documents::manual(command())),
        // clap knows no other.
        _ => ExitCode::SUCCESS,
    }
}

/// The exit code of what succeeds or fails.
fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    concluded(unless_closed(outcome).map(|()| ExitCode::SUCCESS), 1)
}

/// The exit code that was found, or the one that means that none was.
fn concluded(outcome: anyhow::Result<ExitCode>, failure: u8) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        complain(&chain(error.as_ref()));
        ExitCode::from(failure)
    })
}

/// Help goes to standard output and is a success; anything else is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    let told = unless_closed(error.print().map_err(anyhow::Error::from));
    if told.is_err() || error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

fn command() -> Command {
    Command::new("entrepot")
        .about("A caching HTTPS forward proxy for container-registry traffic")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve::command())
        .subcommand(check::command())
        .subcommand(verify::command())
        .subcommand(pull::command())
        .subcommand(config::command())
        .subcommands(documents::commands())
        .subcommand(ca::command())
        .subcommand(ls::command())
        .subcommand(rm::command())
        .subcommand(pin::command())
        .subcommand(unpin::command())
        .subcommand(export::command())
        .subcommand(import::command())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;

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
