//! `entrepot verify`: hash everything that is kept, and set aside what is damaged.
//!
//! A running proxy does it itself, gently; the store of a stopped one is opened here.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use entrepot_cache::Pace;
use http::Method;

use super::api::{Api, Lines};
use super::site::Site;
use super::{Report, unless_closed};
use crate::admin::verification::{Findings, Progress, Told, verify};
use crate::config::Settings;

/// How often a terminal's progress line changes.
const TICK: Duration = Duration::from_millis(200);
/// How often progress is told where there is no terminal.
const LINE: Duration = Duration::from_secs(10);

/// Verifies the store. 0: it is sound; 1: damage was found and set aside, to be fetched again when it
/// is next asked for. Whatever keeps it from being verified is an error.
pub(super) fn run(
    settings: &Settings,
    server: Option<&str>,
    report: Report,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let findings = runtime.block_on(find(settings, server))?;
    unless_closed(tell(&findings, report))?;
    Ok(if findings.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn find(settings: &Settings, server: Option<&str>) -> anyhow::Result<Findings> {
    // Nothing may be evicted while it is looked at.
    let options = entrepot_cache::Options::new(&settings.store.dir);
    match Site::open(settings, server, options).await? {
        Site::Stopped(store) => {
            let mut bar = Bar::new();
            let found = verify(&store, Pace::Full, |told| bar.hear(&told)).await;
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
    let mut bar = Bar::new();
    let found = hear(api, Lines::new(response), &mut bar).await;
    bar.clear();
    found
}

async fn hear(api: &Api, mut lines: Lines<Told>, bar: &mut Bar) -> anyhow::Result<Findings> {
    loop {
        match lines.next().await?.ok_or_else(|| api.broken())? {
            Told::Summary(findings) => return Ok(findings),
            Told::Error(reason) => bail!("the proxy could not: {reason}"),
            told => bar.hear(&told),
        }
    }
}

fn tell(findings: &Findings, report: Report) -> anyhow::Result<()> {
    let Findings { objects, sound_bytes, damaged } = findings;
    let mut output = io::stdout().lock();
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

/// A line on a terminal that tells how far it is; elsewhere a line now and then.
struct Bar {
    shown: Instant,
    is_terminal: bool,
    is_drawn: bool,
}

impl Bar {
    fn new() -> Self {
        Self { shown: Instant::now(), is_terminal: io::stderr().is_terminal(), is_drawn: false }
    }

    fn hear(&mut self, told: &Told) {
        let patience = if self.is_terminal { TICK } else { LINE };
        if let Told::Progress(progress) = told
            && self.shown.elapsed() >= patience
        {
            self.shown = Instant::now();
            write(&if self.is_terminal { drawn(progress) } else { counted(progress) + "\n" });
            self.is_drawn = self.is_terminal;
        }
    }

    fn clear(&self) {
        if self.is_drawn {
            write("\r\u{1b}[K");
        }
    }
}

fn counted(progress: &Progress) -> String {
    let Progress { objects, total_objects, bytes, total_bytes } = progress;
    let (bytes, total) = (bytes / 1_000_000, total_bytes / 1_000_000);
    format!("{objects}/{total_objects} objects, {bytes}/{total} MB")
}

fn drawn(progress: &Progress) -> String {
    const WIDTH: u64 = 30;
    let filled = progress.objects * WIDTH / progress.total_objects.max(1);
    let filled = usize::try_from(filled.min(WIDTH)).unwrap_or_default();
    let bar = format!("{:.<30}", "#".repeat(filled));
    format!("\r[{bar}] {}", counted(progress))
}

fn write(text: &str) {
    let mut terminal = io::stderr().lock();
    if terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush()).is_err() {
        tracing::debug!("the terminal is gone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_as_objects_are_done() {
        let at = |objects| Progress {
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
