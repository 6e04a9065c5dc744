//! `entrepot verify`: hash everything that is kept, and set aside what is damaged.
//!
//! A running proxy does it itself, gently; the store of a stopped one is opened here.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use clap::Command;
use entrepot_cache::Pace;
use http::Method;

use super::api::{Api, JsonLines};
use super::arguments::{self, Given};
use super::output::{Report, stdout, unless_closed};
use super::privileges::Missing;
use super::progress::{ProgressLine, bar_line};
use super::runtime;
use super::site::Site;
use crate::admin::verification::{Findings, VerificationLine, VerificationProgress, verify};
use crate::config::Settings;

pub(super) fn command() -> Command {
    let about = "Check the store for damage: hash everything, set aside what is wrong";
    let command = Command::new("verify").about(about).arg(arguments::json());
    arguments::with_place(command.arg(arguments::server()))
}

/// Verifies the store. 0: it is sound; 1: damage was found and set aside, to be fetched again when
/// it is next asked for. Whatever keeps it from being verified is an error.
pub(super) fn run(given: Given<'_>) -> anyhow::Result<ExitCode> {
    let settings = given.settings(Missing::Left)?;
    let findings = runtime::block_on(find(&settings, given.server()))?;
    unless_closed(tell(&findings, given.report()))?;
    Ok(if findings.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn find(settings: &Settings, server: Option<&str>) -> anyhow::Result<Findings> {
    // Nothing may be evicted while it is looked at.
    let options = entrepot_cache::Options::new(&settings.store.dir);
    match Site::open(settings, server, options).await? {
        Site::Stopped(store) => {
            let mut bar = ProgressLine::new();
            let found = verify(&store, Pace::Full, |told| show(&mut bar, &told)).await;
            bar.clear();
            store.close().await;
            Ok(found?)
        }
        Site::Running(api) => of_running(&api).await,
    }
}

/// What a running proxy finds.
async fn of_running(api: &Api) -> anyhow::Result<Findings> {
    let response = api.send(Method::POST, "/api/v1/verify").await?;
    let mut bar = ProgressLine::new();
    let found = hear(api, JsonLines::new(response), &mut bar).await;
    bar.clear();
    found
}

async fn hear(
    api: &Api,
    mut lines: JsonLines<VerificationLine>,
    bar: &mut ProgressLine,
) -> anyhow::Result<Findings> {
    loop {
        match lines.next().await?.ok_or_else(|| api.broken())? {
            VerificationLine::Summary(findings) => return Ok(findings),
            VerificationLine::Error(reason) => bail!("the proxy could not: {reason}"),
            told => show(bar, &told),
        }
    }
}

fn tell(findings: &Findings, report: Report) -> anyhow::Result<()> {
    let Findings { objects, sound_bytes, damaged } = findings;
    let mut output = stdout();
    match report {
        Report::Json => writeln!(output, "{}", serde_json::to_string(findings)?)?,
        Report::Text => {
            for digest in damaged {
                writeln!(output, "damaged: {digest}")?;
            }
            let count = damaged.len();
            writeln!(output, "{objects} objects, {sound_bytes} sound bytes, {count} damaged")?;
        }
    }
    if !damaged.is_empty() {
        eprintln!("entrepot: {} damaged objects were moved to quarantine", damaged.len());
    }
    Ok(())
}

fn show(bar: &mut ProgressLine, told: &VerificationLine) {
    if let VerificationLine::Progress(progress) = told {
        bar.show(|| drawn(progress), Some(|| counted(progress)));
    }
}

fn counted(progress: &VerificationProgress) -> String {
    let VerificationProgress { objects, total_objects, bytes, total_bytes } = progress;
    let (bytes, total) = (bytes / 1_000_000, total_bytes / 1_000_000);
    format!("{objects}/{total_objects} objects, {bytes}/{total} MB")
}

fn drawn(progress: &VerificationProgress) -> String {
    bar_line(progress.objects, progress.total_objects, &counted(progress))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_as_objects_are_done() {
        let at = |objects| VerificationProgress {
            objects,
            total_objects: 10,
            bytes: objects * 5_000_000,
            total_bytes: 50_000_000,
        };
        assert_eq!(drawn(&at(0)), "\r[..............................] 0/10 objects, 0/50 MB");
        assert_eq!(drawn(&at(5)), "\r[###############...............] 5/10 objects, 25/50 MB");
        assert_eq!(drawn(&at(20)), "\r[##############################] 20/10 objects, 100/50 MB");
    }
}
