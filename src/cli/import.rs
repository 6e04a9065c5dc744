//! `entrepot import`: the images of an OCI image layout in a tar, without any network.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Arg, ArgAction, Command};
use entrepot_cache::Store;
use entrepot_oci::ImageName;
use futures_util::stream;
use http::Method;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use url::form_urlencoded;

use super::api::{Api, JsonLines, Upload};
use super::arguments::{self, Given};
use super::output::{Report, platforms, short, size, stdout};
use super::privileges::Missing;
use super::progress::ProgressLine;
use super::runtime;
use super::site::Site;
use crate::config::Settings;
use crate::images::import::{Adoption, ImportLine, Imported, Records, announced};
use crate::images::{Images, Selection};
use crate::log::Safe;

/// Standard input in place of a file.
const STANDARD: &str = "-";
/// What is read of an answer to a question.
const LONGEST_ANSWER: u64 = 100;
/// The longest list of names that is sent to a proxy with an archive.
const MOST_NAMES: usize = 4096;
/// How much of a file is read and sent at a time.
const PIECE: usize = 256 * 1024;
/// Pieces that wait between who makes them and who takes them.
const PIECES: usize = 8;

pub(super) fn command() -> Command {
    let file = Arg::new("file")
        .value_name("FILE")
        .required(true)
        .value_parser(clap::value_parser!(PathBuf))
        .help("The archive; - is standard input");
    let name = Arg::new("name")
        .long("name")
        .value_name("IMAGE")
        .value_parser(clap::value_parser!(ImageName))
        .conflicts_with("image")
        .help("What the archive's only image is called, where the archive does not say");
    let images = Arg::new("image")
        .value_name("NAME")
        .num_args(0..)
        .value_parser(clap::value_parser!(Selection))
        .help(
            "Which of its images are meant: an image, a repository, the beginning of full names \
             (ghcr.io/org/), or a pattern [default: all; on a terminal, all that you agree to]",
        );
    let yes = Arg::new("yes")
        .long("yes")
        .short('y')
        .action(ArgAction::SetTrue)
        .help("All of its images are meant: do not ask");
    let command = Command::new("import")
        .about("Load the images of an archive (OCI image layout, docker save)")
        .arg(file)
        .arg(images)
        .arg(name)
        .arg(yes);
    arguments::with_place(command.arg(arguments::json()).arg(arguments::server()))
}

/// Takes an archive in.
pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    let settings = given.settings(Missing::Made)?;
    let file = given.matches.get_one::<PathBuf>("file").cloned().unwrap_or_default();
    let name = given.matches.get_one::<ImageName>("name");
    let named: Vec<Selection> =
        given.matches.get_many("image").unwrap_or_default().cloned().collect();
    let is_said = name.is_some() || !named.is_empty() || given.matches.get_flag("yes");
    let source = source(&file)?;
    let brought = runtime::until_interrupted(async {
        let site = Site::open_or_create(&settings, given.server(), settings.store.clone()).await?;
        // Not before: this may have become another user's process to get there.
        let meant = if is_said { Ok(named) } else { agreed(file).await };
        match (site, meant) {
            (site, Err(refused)) => {
                site.close().await;
                Err(refused)
            }
            (Site::Stopped(store), Ok(meant)) => {
                import_stopped(store, source, (name, &meant), &settings).await
            }
            (Site::Running(api), Ok(meant)) => import_running(&api, source, name, &meant).await,
        }
    })?;
    tell(&brought.context(runtime::INTERRUPTED)?, given.report())
}

/// Those of an archive's images that a person agrees to; where nobody can be asked all are meant,
/// and named when they have come.
async fn agreed(file: PathBuf) -> anyhow::Result<Vec<Selection>> {
    let is_asked = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !is_asked || file == Path::new(STANDARD) || !file.is_file() {
        return Ok(Vec::new());
    }
    // Whoever interrupts it is heard meanwhile.
    tokio::task::spawn_blocking(move || ask(&file)).await?
}

fn ask(file: &Path) -> anyhow::Result<Vec<Selection>> {
    let shown = announced(BufReader::new(File::open(file)?))?;
    if shown.is_empty() {
        // Without a name nothing is imported, which is told in its own words.
        return Ok(Vec::new());
    }
    let mut terminal = Safe(io::stderr());
    for (name, digest) in &shown {
        writeln!(terminal, "{name} {}", short(&digest.to_string()))?;
    }
    write!(terminal, "Is this what clients are to get under {}? [y/N] ", these(shown.len()))?;
    terminal.flush()?;
    let mut answer = String::new();
    io::stdin().lock().take(LONGEST_ANSWER).read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was imported; name the images that you mean, or say --yes");
    }
    let names: Vec<_> = shown.into_iter().map(|(name, _)| name).collect();
    // The file may be another by the time it is read again; but so many names fit into no request.
    let fits = names.iter().map(|name| name.to_string().len() + 16).sum::<usize>() < MOST_NAMES;
    Ok(if fits { names.into_iter().map(Selection::One).collect() } else { Vec::new() })
}

fn these(count: usize) -> &'static str {
    if count == 1 { "this name" } else { "these names" }
}

fn source(file: &Path) -> anyhow::Result<Box<dyn Read + Send>> {
    if file == Path::new(STANDARD) {
        return Ok(Box::new(io::stdin()));
    }
    Ok(Box::new(File::open(file).with_context(|| file.display().to_string())?))
}

fn tell(brought: &Brought, report: Report) -> anyhow::Result<()> {
    let Brought { images, left_out, objects, bytes } = brought;
    let mut output = stdout();
    match report {
        Report::Json => {
            let told = json!({
                "images": images, "left_out": left_out, "objects": objects, "bytes": bytes
            });
            writeln!(output, "{told}")?;
        }
        Report::Text => {
            for image in images {
                writeln!(output, "imported {}{}", image.name, platforms(&image.platforms))?;
            }
            for name in left_out {
                writeln!(output, "left out {name}, which was not named")?;
            }
            writeln!(output, "{objects} new objects, {}", size(*bytes))?;
        }
    }
    Ok(())
}

/// What an import has brought.
#[derive(Default)]
struct Brought {
    images: Vec<Imported>,
    /// The archive's other images.
    left_out: Vec<String>,
    /// How many objects are new.
    objects: u64,
    /// Their bytes.
    bytes: u64,
}

async fn import_stopped(
    store: Store,
    source: Box<dyn Read + Send>,
    (name, meant): (Option<&ImageName>, &[Selection]),
    settings: &Settings,
) -> anyhow::Result<Brought> {
    let (images, runtime) = (Images::of(&store), Handle::current());
    let mut bar = ProgressLine::new();
    let reading = tokio::task::spawn_blocking(move || {
        let read = images.read_archive(&runtime, source, |bytes| bar.read(bytes));
        bar.clear();
        read
    });
    let read = reading.await?;
    let mut told = Vec::new();
    let images = Images::of(&store);
    let adopted = match read {
        Ok(contents) => {
            let policy = &settings.listener.policy;
            let adoption = Adoption { name, meant, policy, records: Records::Stopped };
            images.adopt(&contents, &adoption, |one| told.push(one)).await
        }
        Err(error) => Err(error),
    };
    store.close().await;
    adopted?;
    Ok(brought(told))
}

fn brought(told: Vec<ImportLine>) -> Brought {
    let mut brought = Brought::default();
    for one in told {
        match one {
            ImportLine::Image(image) => brought.images.push(image),
            ImportLine::LeftOut(name) => brought.left_out.push(name),
            ImportLine::Summary { objects, bytes } => {
                (brought.objects, brought.bytes) = (objects, bytes);
            }
            ImportLine::Read(_) | ImportLine::Error(_) => {}
        }
    }
    brought
}

async fn import_running(
    api: &Api,
    source: Box<dyn Read + Send>,
    name: Option<&ImageName>,
    meant: &[Selection],
) -> anyhow::Result<Brought> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(name.map(|name| ("name", name.to_string())));
    query.extend_pairs(meant.iter().map(|selection| ("image", selection.to_string())));
    let path = format!("/api/v1/import?{}", query.finish());
    let (admitted, wait) = oneshot::channel();
    let body = upload(source, wait);
    let response = api.send_body(Method::POST, &path, Some("application/x-tar"), body).await?;
    // Not before: who is refused should not have to send everything for it.
    let _ = admitted.send(());
    let mut lines = JsonLines::new(response);
    let (mut bar, mut told) = (ProgressLine::new(), Vec::new());
    loop {
        match lines.next().await?.ok_or_else(|| api.broken())? {
            ImportLine::Read(bytes) => bar.read(bytes),
            ImportLine::Error(reason) => {
                bar.clear();
                bail!("{reason}");
            }
            image @ (ImportLine::Image(_) | ImportLine::LeftOut(_)) => told.push(image),
            summary @ ImportLine::Summary { .. } => {
                bar.clear();
                told.push(summary);
                return Ok(brought(told));
            }
        }
    }
}

/// The bytes of `source` as a body, once `admitted` says so.
fn upload(mut source: Box<dyn Read + Send>, admitted: oneshot::Receiver<()>) -> Upload {
    let (to, pieces) = mpsc::channel(PIECES);
    std::thread::spawn(move || {
        if admitted.blocking_recv().is_err() {
            return;
        }
        loop {
            let mut piece = vec![0; PIECE];
            let read = source.read(&mut piece).map(|len| {
                piece.truncate(len);
                Bytes::from(piece)
            });
            let is_over = read.as_ref().map_or(true, Bytes::is_empty);
            if read.is_ok() && is_over {
                return;
            }
            if to.blocking_send(read.map(Frame::data)).is_err() || is_over {
                return;
            }
        }
    });
    let pieces = stream::unfold(pieces, |mut pieces: mpsc::Receiver<_>| async move {
        Some((pieces.recv().await?, pieces))
    });
    StreamBody::new(pieces).boxed_unsync()
}
