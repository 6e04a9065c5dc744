//! `entrepot check`: what is wrong, in words.
//!
//! - `machine`: directories, disk, limits, the CA
//! - `process`: the running proxy, or whether one could listen
//! - `bucket`: the fleet's bucket
//! - `reach`: registries from here, and registries through a proxy, as a client sees them

mod bucket;
mod machine;
mod process;
mod reach;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};
use serde_json::json;

use super::arguments::{self, Given};
use super::output::{Report, stdout, unless_closed};
use super::privileges::Missing;
use crate::config::Settings;
use crate::words::chain;

pub(super) fn command() -> Command {
    let alive = Arg::new("alive")
        .long("alive")
        .action(ArgAction::SetTrue)
        .help("Only ask the running proxy whether it is alive (for health checks)");
    let proxy = Arg::new("proxy")
        .long("proxy")
        .value_name("URL")
        .conflicts_with("alive")
        .help("Check from a client's side, through the proxy with this URL");
    let about = "Find out what is wrong: directories, disk, ports, DNS, TLS, registries";
    let command = Command::new("check").about(about).args([alive, proxy, arguments::json()]);
    arguments::with_keys(command, &["cache-dir", "data-dir", "admin-listen"])
}

/// How much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth<'a> {
    /// Whether the running proxy answers.
    Alive,
    /// That, and everything around it.
    Full,
    /// As a client of the proxy with this URL, whether a registry is reached through it.
    Client(&'a str),
}

/// What was looked at, and what was found.
pub(super) struct Finding {
    what: String,
    found: anyhow::Result<String>,
    /// What is well for most, and may yet be in somebody's way.
    notes: Vec<String>,
}

impl Finding {
    fn new(what: impl Into<String>, found: anyhow::Result<String>) -> Self {
        Self { what: what.into(), found, notes: Vec::new() }
    }
}

/// Checks, and says on standard output what was found. 0: all is well; 1: something is not.
pub(super) fn run(given: Given<'_>) -> anyhow::Result<ExitCode> {
    let findings = findings(&given.settings(Missing::Left)?, Depth::of(given))?;
    unless_closed(tell(&findings, given.report()))?;
    let failed = findings.iter().filter(|finding| finding.found.is_err()).count();
    if failed > 0 {
        eprintln!("entrepot: {failed} of the checks failed");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

impl<'a> Depth<'a> {
    fn of(given: Given<'a>) -> Self {
        match given.matches.get_one::<String>("proxy") {
            _ if given.matches.get_flag("alive") => Self::Alive,
            Some(url) => Self::Client(url),
            None => Self::Full,
        }
    }
}

fn findings(settings: &Settings, depth: Depth<'_>) -> anyhow::Result<Vec<Finding>> {
    Ok(match depth {
        Depth::Alive => vec![process::proxy(settings)],
        Depth::Full => {
            let mut findings = machine::check(settings);
            findings.extend(process::check(settings));
            findings.extend(reach::registries(settings)?);
            findings.extend(bucket::check(settings));
            findings
        }
        Depth::Client(url) => reach::through(settings, url)?,
    })
}

fn tell(findings: &[Finding], report: Report) -> anyhow::Result<()> {
    let mut output = stdout();
    if report == Report::Json {
        let checks = findings.iter().map(|Finding { what, found, notes }| {
            let words = found.as_ref().map_or_else(|error| chain(error.as_ref()), Clone::clone);
            json!({ "what": what, "is_ok": found.is_ok(), "words": words, "notes": notes })
        });
        writeln!(output, "{}", json!({ "checks": checks.collect::<Vec<_>>() }))?;
        return Ok(());
    }
    for Finding { what, found, notes } in findings {
        match found {
            Ok(words) => writeln!(output, "ok    {what}: {words}")?,
            Err(error) => writeln!(output, "WRONG {what}: {}", chain(error.as_ref()))?,
        }
        for note in notes {
            writeln!(output, "note  {what}: {note}")?;
        }
    }
    Ok(())
}
