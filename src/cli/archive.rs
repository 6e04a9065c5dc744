//! `entrepot export`, `import`: images as OCI image layouts in a tar, for sites without a network.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Arg, ArgMatches, Command};
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

use super::Report;
use super::api::{Api, Lines, RequestBody};
use super::images::{image_names, size};
use super::site::{Site, unbounded};
use crate::config::Settings;
use crate::images::export::{self, Coming, ExportError, Exported};
use crate::images::import::{Adoption, Imported, Records, Told};
use crate::images::{Image, Images};

/// Standard output, or standard input.
const STANDARD: &str = "-";
/// Drafts of one archive that may lie about: what has been killed leaves one.
const DRAFTS: u32 = 100;
/// How much of a file is read and sent at a time.
const PIECE: usize = 256 * 1024;
/// Pieces that wait between who makes them and who takes them.
const PIECES: usize = 8;
/// How long what was interrupted may take to clean up.
const LINGER: Duration = Duration::from_secs(1);
/// How often a terminal's progress line changes.
const TICK: Duration = Duration::from_millis(200);

pub(super) fn commands() -> [Command; 2] {
    let output = Arg::new("output")
        .short('o')
        .long("output")
        .value_name("FILE")
        .required(true)
        .value_parser(clap::value_parser!(PathBuf))
        .help("Where the archive goes; - is standard output");
    let file = Arg::new("file")
        .value_name("FILE")
        .required(true)
        .value_parser(clap::value_parser!(PathBuf))
        .help("The archive; - is standard input");
    let name = Arg::new("name")
        .long("name")
        .value_name("IMAGE")
        .value_parser(clap::value_parser!(ImageName))
        .help("What the archive's only image is called, where the archive does not say");
    [
        Command::new("export")
            .about("Write images to an OCI image layout archive")
            .arg(output)
            .arg(image_names()),
        Command::new("import")
            .about("Take in the images of an OCI image layout archive, without any network")
            .arg(file)
            .arg(name),
    ]
}

/// Writes an archive.
pub(super) fn export(given: &ArgMatches, settings: &Settings) -> anyhow::Result<()> {
    let names: Vec<ImageName> = given.get_many("image").unwrap_or_default().cloned().collect();
    let output = given.get_one::<PathBuf>("output").cloned().unwrap_or_default();
    let server = given.get_one::<String>("server").map(String::as_str);
    let report = Report::of(given);
    let exported = run(async {
        let site = Site::open(settings, server, unbounded(settings)).await?;
        match &site {
            Site::Stopped(store) => {
                let archive = Images::of(store).export(&names).await?;
                let exported = archive.exported.clone();
                let (to, pieces) = export::channel();
                tokio::spawn(archive.send(to));
                let bytes = write(&output, pieces).await?;
                Ok((exported, bytes))
            }
            Site::Running(api) => export_running(api, &names, &output).await,
        }
    })?;
    tell_exported(&output, &exported, report)
}

async fn export_running(
    api: &Api,
    names: &[ImageName],
    output: &Path,
) -> anyhow::Result<(Vec<Exported>, u64)> {
    let mut exported = Vec::new();
    let mut query = form_urlencoded::Serializer::new(String::new());
    for name in names {
        let image = api.ask(Method::GET, &format!("/api/v1/images/{name}")).await?;
        let Image { name, digest, platforms, .. } = serde_json::from_value(image)?;
        query.append_pair("image", &name);
        exported.push(Exported { name, digest, platforms });
    }
    let path = format!("/api/v1/export?{}", query.finish());
    let mut body = api.send(Method::GET, &path).await?.into_body();
    let (to, pieces) = export::channel();
    tokio::spawn(async move {
        while let Some(frame) = body.frame().await {
            let piece = frame.map(|frame| Some(frame.into_data().unwrap_or_default()));
            if to.send(piece.map_err(|_| ExportError::Broken)).await.is_err() {
                return;
            }
        }
        // Who does not take the end has gone before it.
        let _ = to.send(Ok(None)).await;
    });
    let bytes = write(output, pieces).await?;
    Ok((exported, bytes))
}

/// Writes an archive to standard output, or to a file that has its name only once it is whole.
async fn write(output: &Path, mut archive: Coming) -> anyhow::Result<u64> {
    let output = output.to_owned();
    let write = move || {
        let mut sink = Sink::create(&output)?;
        let mut bytes = 0;
        while let Some(piece) = archive.blocking_next() {
            let piece = piece?;
            bytes += piece.len() as u64;
            sink.write(&piece)?;
        }
        sink.finish()?;
        anyhow::Ok(bytes)
    };
    tokio::task::spawn_blocking(write).await?
}

/// Where an archive goes.
enum Sink {
    Standard(io::Stdout),
    /// What is there is no file: a device, a pipe.
    Device(File, PathBuf),
    File(Draft),
}

/// A file that is being written under another name; it goes if it is not finished.
struct Draft {
    file: File,
    path: PathBuf,
    output: PathBuf,
}

impl Sink {
    fn create(output: &Path) -> anyhow::Result<Self> {
        if output == Path::new(STANDARD) {
            if io::stdout().is_terminal() {
                bail!("an archive is nothing for a terminal: redirect standard output");
            }
            return Ok(Self::Standard(io::stdout()));
        }
        if std::fs::metadata(output).is_ok_and(|there| !there.is_file()) {
            let device = File::options().write(true).open(output);
            let device = device.with_context(|| output.display().to_string())?;
            return Ok(Self::Device(device, output.to_owned()));
        }
        // A link stays, and what it leads to is replaced.
        let output = output.canonicalize().unwrap_or_else(|_| output.to_owned());
        // Private images are nobody else's in the store, and should not become so here.
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let mut number = 0;
        loop {
            let mut path = output.clone().into_os_string();
            path.push(format!(".{number}.partial"));
            let path = PathBuf::from(path);
            match options.open(&path) {
                Ok(file) => return Ok(Self::File(Draft { file, path, output })),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < DRAFTS => {
                    number += 1;
                }
                Err(error) => return Err(error).context(path.display().to_string()),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Standard(output) => output.write_all(bytes).context("standard output"),
            Self::Device(device, path) => {
                device.write_all(bytes).with_context(|| path.display().to_string())
            }
            Self::File(Draft { file, path, .. }) => {
                file.write_all(bytes).with_context(|| path.display().to_string())
            }
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Standard(mut output) => output.flush().context("standard output"),
            Self::Device(mut device, path) => {
                device.flush().with_context(|| path.display().to_string())
            }
            Self::File(draft) => {
                draft.file.sync_all().with_context(|| draft.path.display().to_string())?;
                let renamed = std::fs::rename(&draft.path, &draft.output);
                renamed.with_context(|| draft.output.display().to_string())
            }
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Once it has been renamed it is not there.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn tell_exported(
    output: &Path,
    (exported, bytes): &(Vec<Exported>, u64),
    report: Report,
) -> anyhow::Result<()> {
    use std::fmt::Write as _;
    let mut told = String::new();
    match report {
        Report::Json => {
            writeln!(told, "{}", json!({ "images": exported, "bytes": bytes }))?;
        }
        Report::Text => {
            for image in exported {
                writeln!(told, "exported {}{}", image.name, platforms(&image.platforms))?;
            }
            writeln!(told, "{}: {}", output.display(), size(*bytes))?;
        }
    }
    // The archive itself may go to standard output.
    if output == Path::new(STANDARD) {
        eprint!("{told}");
    } else {
        io::stdout().lock().write_all(told.as_bytes())?;
    }
    Ok(())
}

fn platforms(platforms: &[String]) -> String {
    if platforms.is_empty() { String::new() } else { format!(" ({})", platforms.join(", ")) }
}

/// Takes an archive in.
pub(super) fn import(given: &ArgMatches, settings: &Settings) -> anyhow::Result<()> {
    let file = given.get_one::<PathBuf>("file").cloned().unwrap_or_default();
    let name = given.get_one::<ImageName>("name");
    let server = given.get_one::<String>("server").map(String::as_str);
    let report = Report::of(given);
    let source: Box<dyn Read + Send> = if file == Path::new(STANDARD) {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(&file).with_context(|| file.display().to_string())?)
    };
    let (images, objects, bytes) = run(async {
        match Site::open_or_create(settings, server, settings.store.clone()).await? {
            Site::Stopped(store) => import_stopped(store, source, name, settings).await,
            Site::Running(api) => import_running(&api, source, name).await,
        }
    })?;
    let mut output = io::stdout().lock();
    match report {
        Report::Json => {
            let told = json!({ "images": images, "objects": objects, "bytes": bytes });
            writeln!(output, "{told}")?;
        }
        Report::Text => {
            for image in &images {
                writeln!(output, "imported {}{}", image.name, platforms(&image.platforms))?;
            }
            writeln!(output, "{objects} new objects, {}", size(bytes))?;
        }
    }
    Ok(())
}

/// What an import has brought: images, new objects, their bytes.
type Brought = (Vec<Imported>, u64, u64);

async fn import_stopped(
    store: Store,
    source: Box<dyn Read + Send>,
    name: Option<&ImageName>,
    settings: &Settings,
) -> anyhow::Result<Brought> {
    let (images, runtime) = (Images::of(&store), Handle::current());
    let mut bar = Bar::new();
    let reading = tokio::task::spawn_blocking(move || {
        let read = images.read_archive(&runtime, source, |bytes| bar.hear(bytes));
        bar.clear();
        read
    });
    let read = reading.await?;
    let mut told = Vec::new();
    let images = Images::of(&store);
    let adopted = match read {
        Ok(contents) => {
            let policy = &settings.listener.policy;
            let adoption = Adoption { name, policy, records: Records::Stopped };
            images.adopt(&contents, &adoption, |one| told.push(one)).await
        }
        Err(error) => Err(error),
    };
    store.close().await;
    adopted?;
    Ok(brought(told))
}

fn brought(told: Vec<Told>) -> Brought {
    let (mut images, mut sums) = (Vec::new(), (0, 0));
    for one in told {
        match one {
            Told::Image(image) => images.push(image),
            Told::Summary { objects, bytes } => sums = (objects, bytes),
            Told::Read(_) | Told::Error(_) => {}
        }
    }
    (images, sums.0, sums.1)
}

async fn import_running(
    api: &Api,
    source: Box<dyn Read + Send>,
    name: Option<&ImageName>,
) -> anyhow::Result<Brought> {
    let mut path = "/api/v1/import".to_owned();
    if let Some(name) = name {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("name", &name.to_string());
        path = format!("{path}?{}", query.finish());
    }
    let (admitted, wait) = oneshot::channel();
    let body = upload(source, wait);
    let response = api.send_body(Method::POST, &path, Some("application/x-tar"), body).await?;
    // Not before: who is refused should not have to send everything for it.
    let _ = admitted.send(());
    let mut lines = Lines::new(response);
    let (mut bar, mut told) = (Bar::new(), Vec::new());
    loop {
        match lines.next().await?.ok_or_else(|| api.broken())? {
            Told::Read(bytes) => bar.hear(bytes),
            Told::Error(reason) => {
                bar.clear();
                bail!("{reason}");
            }
            image @ Told::Image(_) => told.push(image),
            summary @ Told::Summary { .. } => {
                bar.clear();
                told.push(summary);
                return Ok(brought(told));
            }
        }
    }
}

/// The bytes of `source` as a body, once `admitted` says so.
fn upload(mut source: Box<dyn Read + Send>, admitted: oneshot::Receiver<()>) -> RequestBody {
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

/// Runs `work` until it is done, or somebody interrupts it.
fn run<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = work => done,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                bail!("interrupted: nothing half-done is visible, and what has come is used when it is done again")
            }
        }
    });
    // A thread that reads or writes somewhere slow is waited for no longer.
    runtime.shutdown_timeout(LINGER);
    done
}

/// A line on a terminal that tells how much has been read.
struct Bar {
    shown: Instant,
    is_terminal: bool,
}

impl Bar {
    fn new() -> Self {
        Self { shown: Instant::now(), is_terminal: io::stderr().is_terminal() }
    }

    fn hear(&mut self, bytes: u64) {
        if self.is_terminal && self.shown.elapsed() >= TICK {
            self.shown = Instant::now();
            eprint!("\r{} read\u{1b}[K", size(bytes));
        }
    }

    fn clear(&self) {
        if self.is_terminal {
            eprint!("\r\u{1b}[K");
        }
    }
}
