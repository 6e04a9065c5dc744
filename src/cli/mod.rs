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
//! - `output`, `table`, `progress`: how a result is told, and how far it is
//! - `listing`: which images are kept of those that somebody names
//! - `change`: what `rm`, `pin` and `unpin` do to an image
//! - `reload`, `credentials`: how `serve` reads its configuration again, and what it warns of
//!   (`reread` is the subcommand that asks for it)
//! - `help`: what help texts and manual pages say beside the arguments
//! - `complete`: what a shell may complete a command line to
//! - `documents`: `completions` and `man`, which are made from the command line's description

mod api;
mod arguments;
mod bucket;
mod ca;
mod change;
mod check;
mod complete;
mod config;
mod credentials;
mod documents;
mod explain;
mod export;
mod help;
mod import;
mod listing;
mod ls;
mod output;
mod pin;
mod privileges;
mod progress;
mod pull;
mod reload;
mod reread;
mod rm;
mod runtime;
mod serve;
mod site;
mod status;
mod table;
mod unpin;
mod verify;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Command;

use self::arguments::Given;
use self::output::{complain, unless_closed};
use crate::words::chain;

/// The exit code of a check that could not be made.
const CANNOT: u8 = 2;

/// The widest help text: longer lines are hard to read.
const WIDEST: usize = 100;

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
        "status" => concluded(status::run(given), CANNOT),
        "explain" => concluded(explain::run(given), CANNOT),
        "reload" => concluded(reread::run(given), 1),
        "version" => ended(version::run(given)),
        "ls" => ended(ls::run(given)),
        "rm" => ended(rm::run(given)),
        "pin" => ended(pin::run(given)),
        "unpin" => ended(unpin::run(given)),
        "export" => ended(export::run(given)),
        "import" => ended(import::run(given)),
        "config" => ended(config::run(given)),
        "bucket" => ended(bucket::run(given)),
        "ca" => ended(ca::run(given)),
        "completions" => ended(documents::completions(command(), given)),
        "man" => ended(documents::manual(command())),
        complete::NAME => ended(complete::run(&command(), given)),
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
    let command = Command::new("entrepot")
        .about("A caching HTTPS forward proxy for container-registry traffic")
        .version(env!("CARGO_PKG_VERSION"))
        .max_term_width(WIDEST)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve::command())
        .subcommand(status::command())
        .subcommand(explain::command())
        .subcommand(reread::command())
        .subcommand(check::command())
        .subcommand(pull::command())
        .subcommand(ls::command())
        .subcommand(rm::command())
        .subcommand(pin::command())
        .subcommand(unpin::command())
        .subcommand(verify::command())
        .subcommand(export::command())
        .subcommand(import::command())
        .subcommand(bucket::command())
        .subcommand(ca::command())
        .subcommand(config::command())
        .subcommand(version::command())
        .subcommands(documents::commands())
        .subcommand(complete::command());
    help::with_examples(command)
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
            let inner = command.get_subcommands().filter(|sub| !sub.is_hide_set());
            let inner = inner.flat_map(|sub| names(sub, &format!("{own} ")));
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

    /// The help of a subcommand, by its words.
    fn help_of(path: &[&str], is_long: bool) -> String {
        let mut command = command().term_width(90);
        command.build();
        let mut of = &mut command;
        for word in path {
            of = of.find_subcommand_mut(word).unwrap();
        }
        let help = if is_long { of.render_long_help() } else { of.render_help() };
        help.to_string()
    }

    #[test]
    fn help_texts_read_well() {
        insta::assert_snapshot!("help", help_of(&[], true));
        for path in [
            &["serve"][..],
            &["status"],
            &["explain"],
            &["reload"],
            &["check"],
            &["pull"],
            &["ls"],
            &["rm"],
            &["pin"],
            &["verify"],
            &["export"],
            &["import"],
            &["bucket"],
            &["bucket", "sync"],
            &["ca", "renew"],
            &["config", "show"],
            &["version"],
        ] {
            let name = path.join("_");
            insta::assert_snapshot!(format!("help_{name}"), help_of(path, true));
            insta::assert_snapshot!(format!("help_{name}_short"), help_of(path, false));
        }
    }

    #[test]
    fn what_matters_comes_first_and_keys_of_serve_are_taken_unseen() {
        for name in ["pull", "ls", "rm", "status", "explain", "verify", "export", "import"] {
            let short = help_of(&[name], false);
            assert!(
                !short.contains("--ca-constrain") && !short.contains("--quota-floor"),
                "{short}"
            );
            assert!(short.contains("--config") && short.contains("--server"), "{short}");
            assert!(short.contains("Examples:"), "{short}");
            let own = short.find("--json").unwrap();
            assert!(own < short.find("--config").unwrap(), "{short}");
        }
        for line in [
            "entrepot ls --push deny --quota-floor 3",
            "entrepot config check --tunnel any",
            "entrepot ca show --listen 127.0.0.1:1",
            "entrepot pull alpine --max-size 10G",
        ] {
            let parsed = command().try_get_matches_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
    }

    #[test]
    fn what_is_mistyped_is_answered_with_what_is_meant() {
        for (typed, meant) in [("statsu", "status"), ("versoin", "version"), ("relaod", "reload")] {
            let error = command().try_get_matches_from(["entrepot", typed]).unwrap_err();
            assert!(error.to_string().contains(&format!("'{meant}'")), "{error}");
        }
        for (alias, name) in [("stats", "status"), ("list", "ls")] {
            let matches = command().try_get_matches_from(["entrepot", alias]).unwrap();
            assert_eq!(matches.subcommand_name(), Some(name));
        }
    }
}
