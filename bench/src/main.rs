//! Measures entrepot beside what else serves the same bytes; README.md says how to read it.
//!
//! `arguments` says what is wanted; `blocks` does it: it has `load` ask `peers`, which stand in
//! front of `origin`, and `meter` what that costs them (`procs` asks the system). `report` prints
//! it. What it does not do: judge. There are no goals and no thresholds in here.

mod arguments;
mod blocks;
mod ceiling;
mod certificates;
mod child;
mod image;
mod load;
mod machine;
mod meter;
mod origin;
mod peers;
mod procs;
mod report;
mod serve;
mod size;
mod wire;

#[cfg(test)]
mod tests;

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use clap::Parser as _;

use arguments::{Arguments, Options, Role};
use blocks::Bench;
use ceiling::Ceiling;
use certificates::Identity;
use image::Image;
use origin::Origin;
use peers::{Kind, Peer, Registry, Surroundings};

fn main() -> ExitCode {
    let Arguments { role, options } = Arguments::parse();
    let done = match role {
        Some(Role::ServeOrigin { dir }) => serve::run(&dir, Origin::new(dir.clone())),
        Some(Role::ServeCeiling { dir }) => serve::run(&dir, Ceiling { dir: dir.clone() }),
        None => bench(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, and prints what there is even if it was interrupted.
fn bench(options: Options) -> anyhow::Result<()> {
    procs::raise_file_limit();
    let stop = Arc::new(AtomicBool::new(false));
    watch_for_signals(stop.clone())?;
    let parent = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new().prefix("entrepot-bench-").tempdir_in(parent)?;
    // Peers that are not root must get to their files; nothing in here is secret.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
    let mut bench = prepare(options, dir.path(), stop)?;
    let outcome = bench.run();
    let targets: Vec<_> = bench.peers.iter().map(|peer| peer.kind.name()).collect();
    let table = report::table(&bench.runs, &targets);
    let head = machine::describe(&bench.around.entrepot, &targets);
    let absent = bench.absent.join("\n\n");
    std::io::stdout().write_all(format!("{head}\n{absent}\n\n{table}").as_bytes())?;
    outcome
}

/// Makes the image, and starts the registry and the peers.
fn prepare(options: Options, dir: &Path, stop: Arc<AtomicBool>) -> anyhow::Result<Bench> {
    let json = options.json.as_ref().map(File::create).transpose()?;
    let entrepot = entrepot(&options)?;
    let place = dir.join("image");
    eprintln!("making the image in {}", place.display());
    let image = Image::generate(&place, options.shape())?;
    let identity = Identity::generate(&place)?;
    let dir = dir.to_owned();
    let mut around = Surroundings { dir, identity, port: 0, image: place, entrepot };
    let registry = Registry::start(&around).context("the registry")?;
    around.port = registry.port();
    let (peers, absent) = start(&options, &around)?;
    Ok(Bench { options, around, image, registry, peers, stop, json, absent, runs: Vec::new() })
}

/// Starts what there is; without entrepot there is nothing to compare, without another there is.
fn start(options: &Options, around: &Surroundings) -> anyhow::Result<(Vec<Peer>, Vec<String>)> {
    let (mut peers, mut absent) = (Vec::new(), Vec::new());
    for kind in &options.targets {
        let name = kind.name();
        match Peer::start(*kind, around) {
            Ok(Some(peer)) => peers.push(peer),
            Ok(None) => absent.push(format!("{name} is not installed")),
            Err(error) if *kind == Kind::Entrepot => return Err(error.context(name)),
            Err(error) => absent.push(format!("{name} did not start: {error:#}")),
        }
    }
    for reason in &absent {
        eprintln!("{reason}");
    }
    Ok((peers, absent))
}

/// The binary to measure; whether it is there matters only where it is wanted.
fn entrepot(options: &Options) -> anyhow::Result<PathBuf> {
    let given =
        options.entrepot.clone().or_else(|| std::env::var_os("ENTREPOT_BIN").map(Into::into));
    let path = match given {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("entrepot"),
    };
    ensure!(
        path.is_file() || !options.targets.contains(&Kind::Entrepot),
        "there is no {}: cargo build --release",
        path.display()
    );
    Ok(path)
}

/// Sets `stop` at SIGTERM and SIGINT: peers are ended by those who have started them.
fn watch_for_signals(stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let (Ok(mut term), Ok(mut interrupt)) =
                (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
            else {
                return;
            };
            loop {
                tokio::select! { _ = term.recv() => {} _ = interrupt.recv() => {} }
                stop.store(true, Ordering::Relaxed);
                eprintln!("ending behind this run, so that nothing is left behind");
            }
        });
    });
    Ok(())
}
