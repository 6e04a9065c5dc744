//! `entrepot reload`: have a running proxy read its configuration again.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use clap::Command;
use http::Method;
use serde_json::{Value, json};

use super::api::{Api, Refusal};
use super::arguments::{self, Given};
use super::output::{Report, complain, stdout, unless_closed};
use super::privileges::Missing;
use super::runtime;
use crate::admin::reload::Reloaded;
use crate::config::ConfigError;

pub(super) fn command() -> Command {
    let about = "Reload the configuration of a running proxy";
    let command = Command::new("reload").about(about).arg(arguments::json());
    arguments::with_place(command.arg(arguments::server()))
}

/// Has it read again, and says what is in force, what waits, or all that is wrong.
pub(super) fn run(given: Given<'_>) -> anyhow::Result<ExitCode> {
    let settings = match given.settings(Missing::Left) {
        Ok(settings) => settings,
        // The running proxy would find the same.
        Err(error) => {
            let Some(wrong) = error.downcast_ref::<ConfigError>() else { return Err(error) };
            let problems: Vec<_> = wrong.problems.iter().map(ToString::to_string).collect();
            refuse(&problems, given.report())?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let api = Api::new(&settings, given.server())?;
    match runtime::block_on(async { Ok(api.try_ask(Method::POST, "/api/v1/reload").await) })? {
        Ok(document) => {
            unless_closed(tell(document, given.report()))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(Refusal { problems, .. }) if !problems.is_empty() => {
            refuse(&problems, given.report())?;
            Ok(ExitCode::FAILURE)
        }
        Err(refusal) => bail!("{:#}", refusal.error),
    }
}

fn tell(document: Value, report: Report) -> anyhow::Result<()> {
    let mut output = stdout();
    if report == Report::Json {
        return Ok(writeln!(output, "{document}")?);
    }
    let Reloaded { changed, waiting_for_restart, notes } = serde_json::from_value(document)?;
    for note in notes {
        complain(&format!("note: {note}"));
    }
    let changed = match changed.join(", ") {
        none if none.is_empty() => {
            "no value that may be shown has changed (passwords and files may have)".to_owned()
        }
        some => format!("now in force: {some}"),
    };
    writeln!(output, "the configuration was read again; {changed}")?;
    if !waiting_for_restart.is_empty() {
        writeln!(output, "at the next start: {}", waiting_for_restart.join(", "))?;
    }
    Ok(())
}

fn refuse(problems: &[String], report: Report) -> anyhow::Result<()> {
    if report == Report::Json {
        let told = writeln!(stdout(), "{}", json!({ "problems": problems }));
        unless_closed(told.map_err(Into::into))?;
    }
    let lines: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    complain(&format!(
        "the new configuration is not valid, and the old one stays in force:{}",
        lines.concat()
    ));
    Ok(())
}
