//! `entrepot serve`: run the proxy.

use std::time::Duration;

use anyhow::bail;
use clap::Command;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::api::reachable;
use super::arguments::{self, Given};
use super::credentials::warn_of_credentials;
use super::privileges::Missing;
use super::reload::Reload;
use super::runtime;
use crate::app::{App, RunningApp};
use crate::config::{Settings, Sources};
use crate::log::{Volume, bytes};

/// How long requests under way may take to end once the shutdown has begun.
const DRAIN: Duration = Duration::from_secs(30);
/// How long the index is waited for, to say how much is kept: nobody is served meanwhile.
const READING: Duration = Duration::from_millis(200);

pub(super) fn command() -> Command {
    arguments::with_all_keys(Command::new("serve").about("Run the proxy"))
}

/// Runs the proxy until SIGTERM or SIGINT, and drains it; a second signal ends it at once. On
/// SIGHUP the configuration is read again.
pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    let settings = given.settings(Missing::Made)?;
    let volume = crate::log::start(settings.log.clone());
    let file = given.sources().file();
    let file = file.map_or_else(|| "none".to_owned(), |file| file.display().to_string());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), file, "entrepot starts");
    for note in &settings.notes {
        tracing::warn!("{note}");
    }
    protect_memory();
    raise_file_limit();
    let runtime = runtime::start()?;
    let outcome = runtime.block_on(serve(settings, given.sources(), volume));
    // What still runs after the drain has had its time.
    runtime.shutdown_background();
    outcome
}

async fn serve(settings: Settings, sources: Sources, volume: Volume) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let app = App::build(&settings).await?;
    announce(&settings, &app).await;
    warn_of_credentials(&settings);
    let reload = Reload { sources, volume, started: settings.shown };
    let mut running = app.run();
    loop {
        tokio::select! {
            () = signals.next() => break,
            // What has come of it is in the log.
            _ = hangup.recv() => drop(reload.run(&running).await),
            asked = running.next_request() => match asked {
                // Who has left need not be told.
                Ok(answer) => drop(answer.send(reload.run(&running).await)),
                // It only ends with the shutdown; a proxy that takes nobody must not look alive.
                Err(ended) => bail!("the listener has ended: {ended:?}"),
            },
        }
    }
    drain(&mut running, &mut signals).await;
    running.close().await;
    Ok(())
}

/// Lets the requests under way end, until the time for that is over or a second signal comes.
async fn drain(running: &mut RunningApp, signals: &mut Signals) {
    tracing::info!("draining: no new clients; requests under way have {} s", DRAIN.as_secs());
    tokio::select! {
        drained = tokio::time::timeout(DRAIN, running.drain()) => if drained.is_ok() {
            tracing::info!("drained");
        } else {
            tracing::warn!("some requests did not end in time and were broken off");
        },
        () = signals.next() => tracing::warn!("second signal: ending at once"),
    }
}

/// What an operator needs at first: where it listens, where its state is seen, what is kept, the
/// CA, the line to run on a client, and what that script has to be.
async fn announce(settings: &Settings, app: &App) {
    for address in app.addresses() {
        tracing::info!(%address, "listening");
    }
    let socket = app.admin_socket().map(|path| path.display().to_string());
    match app.admin_address() {
        Ok(at) => {
            let status_page = format!("http://{}/", reachable(at));
            tracing::info!(status_page, socket, "admin listener");
        }
        Err(error) => tracing::warn!(%error, "nobody knows where the admin listener is"),
    }
    let directory = settings.store.dir.display().to_string();
    if let Some(kept) = app.kept(READING).await {
        let (objects, size) = (kept.objects, bytes(kept.bytes));
        let at_most = settings.store.max_size.map(bytes);
        tracing::info!(directory, objects, size, at_most, "kept");
    } else {
        tracing::info!(directory, "what is kept is still being counted");
    }
    let facts = app.facts();
    tracing::info!(
        directory = %settings.ca_dir.display(),
        sha256 = facts.ca_fingerprint,
        "CA certificate"
    );
    tracing::info!("to set a client up, run there: {}", facts.set_up);
    if let Some(scripts) = app.script_hashes(settings) {
        tracing::info!("SHA-256 of the scripts at {}: {scripts}", facts.proxy_url);
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// One that ends the proxy.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The CA's key is in memory: no core dump, no other process of this user may read it.
fn protect_memory() {
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "memory dumps could not be switched off");
    }
}

/// A client costs up to three open files; the usual soft limit of 1024 is for programs that use
/// select(2).
fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
}
