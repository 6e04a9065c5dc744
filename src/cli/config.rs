//! `entrepot config`: what is configured, and whether it is valid.

use std::io::Write as _;

use clap::Command;
use serde_json::{Value, json};

use super::arguments::{self, Given};
use super::output::{Report, complain, stdout, unless_closed};
use super::privileges::Missing;
use crate::config::{ConfigError, Settings};
use crate::words::chain;

/// Every key, as a file to begin with.
const EXAMPLE: &str = include_str!("../../docs/entrepot.example.toml");

pub(super) fn command() -> Command {
    let show = Command::new("show")
        .about("Show the configuration as TOML, with where each value comes from");
    let check = Command::new("check").about("Validate the configuration: say all that is wrong");
    let inner = [show, check].map(|one| arguments::with_keys(one.arg(arguments::json()), &[]));
    let example = Command::new("example").about("Print a configuration file with every key");
    Command::new("config")
        .about("Show, validate, or begin a configuration")
        .subcommand_required(true)
        .subcommands(inner)
        .subcommand(example)
}

pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    match given.subcommand() {
        Some(("show", given)) => show(&given.settings(Missing::Left)?, given.report()),
        Some(("example", _)) => Ok(write!(stdout(), "{EXAMPLE}")?),
        Some((_, given)) => check(given.settings(Missing::Left), given.report()),
        None => Ok(()),
    }
}

/// Shows every key with its value and where that comes from; passwords are hidden.
fn show(settings: &Settings, report: Report) -> anyhow::Result<()> {
    note(settings);
    let mut output = stdout();
    match report {
        Report::Json => writeln!(output, "{}", settings.shown)?,
        Report::Text => write!(output, "{}", settings.text)?,
    }
    Ok(())
}

/// Says whether the configuration is valid: one that is not has never become settings. What is
/// wrong with it stays the caller's to tell; as JSON it is told here, too.
fn check(loaded: anyhow::Result<Settings>, report: Report) -> anyhow::Result<()> {
    if let Ok(settings) = &loaded {
        note(settings);
    }
    unless_closed(tell(loaded.as_ref().err(), report))?;
    loaded.map(drop)
}

/// What a start would say of it, on standard error.
fn note(settings: &Settings) {
    for note in &settings.notes {
        complain(&format!("note: {note}"));
    }
}

fn tell(error: Option<&anyhow::Error>, report: Report) -> anyhow::Result<()> {
    let mut output = stdout();
    match report {
        Report::Json => writeln!(output, "{}", verdict(error))?,
        Report::Text if error.is_none() => writeln!(output, "the configuration is valid")?,
        Report::Text => {}
    }
    Ok(())
}

fn verdict(error: Option<&anyhow::Error>) -> Value {
    let Some(error) = error else { return json!({ "is_valid": true }) };
    let problems: Vec<_> = match error.downcast_ref::<ConfigError>() {
        Some(error) => error.problems.iter().map(ToString::to_string).collect(),
        None => vec![chain(error.as_ref())],
    };
    json!({ "is_valid": false, "problems": problems })
}
