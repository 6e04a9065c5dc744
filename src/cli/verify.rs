//! `entrepot verify`: hash everything that is kept, and set aside what is damaged.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use entrepot_cache::{Digest, Store, Verdict};
use serde_json::json;

use super::Report;
use crate::config::Settings;

/// How often the progress line changes.
const TICK: Duration = Duration::from_millis(200);

/// Verifies the store of a proxy that does not run: the store has one owner.
///
/// Fails when anything was damaged, after all of it has been moved to `quarantine/`; it is fetched
/// again when it is next asked for.
pub(super) fn run(settings: &Settings, report: Report) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // Nothing may be evicted while it is looked at.
        let options = entrepot_cache::Options::new(&settings.store.dir);
        let store = Store::open(options).await.with_context(|| {
            format!("cache-dir {}: verify needs the proxy stopped", settings.store.dir.display())
        })?;
        let found = verify(&store).await;
        store.close().await;
        found?.tell(report)
    })
}

/// What verification has found so far.
#[derive(Debug, Default)]
struct Findings {
    objects: u64,
    bytes: u64,
    damaged: Vec<Digest>,
}

async fn verify(store: &Store) -> anyhow::Result<Findings> {
    let digests = store.objects().await.context("the store can't be listed")?;
    let total = digests.len();
    let mut findings = Findings::default();
    let mut progress = Progress::new(total);
    for digest in digests {
        match store.verify_object(&digest).await {
            Verdict::Sound { size } => findings.bytes += size,
            Verdict::Absent => continue,
            damaged => {
                tracing::warn!(%digest, ?damaged, "a damaged object is set aside");
                store.quarantine(&digest).await.with_context(|| digest.to_string())?;
                findings.damaged.push(digest);
            }
        }
        findings.objects += 1;
        progress.show(&findings);
    }
    progress.clear();
    Ok(findings)
}

impl Findings {
    fn tell(&self, report: Report) -> anyhow::Result<()> {
        let Self { objects, bytes, damaged } = self;
        let mut output = io::stdout().lock();
        match report {
            Report::Json => {
                let damaged: Vec<_> = damaged.iter().map(ToString::to_string).collect();
                let told = json!({ "objects": objects, "sound_bytes": bytes, "damaged": damaged });
                writeln!(output, "{told}")?;
            }
            Report::Text => {
                for digest in damaged {
                    writeln!(output, "damaged: {digest}")?;
                }
                writeln!(
                    output,
                    "{objects} objects, {bytes} sound bytes, {} damaged",
                    damaged.len()
                )?;
            }
        }
        match damaged.len() {
            0 => Ok(()),
            count => bail!("{count} damaged objects were moved to quarantine"),
        }
    }
}

/// A line on a terminal that tells how far it is; nothing elsewhere.
struct Progress {
    total: usize,
    shown: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self { total, shown: None, is_terminal: io::stderr().is_terminal() }
    }

    fn show(&mut self, findings: &Findings) {
        if !self.is_terminal || self.shown.is_some_and(|shown| shown.elapsed() < TICK) {
            return;
        }
        self.shown = Some(Instant::now());
        let (done, total) = (findings.objects, self.total as u64);
        let filled = usize::try_from(done * 30 / total.max(1)).unwrap_or(30).min(30);
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(30 - filled));
        let megabytes = findings.bytes / 1_000_000;
        write(&format!("\r[{bar}] {done}/{total} objects, {megabytes} MB"));
    }

    fn clear(&self) {
        if self.shown.is_some() {
            write("\r\u{1b}[K");
        }
    }
}

fn write(text: &str) {
    let mut terminal = io::stderr().lock();
    if terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush()).is_err() {
        tracing::debug!("the terminal is gone");
    }
}
