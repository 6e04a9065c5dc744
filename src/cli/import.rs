//! `entrepot import`: the images of an OCI image layout in a tar, without any network.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Arg, Command};
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
use super::output::{Report, platforms, size};
use super::privileges::Missing;
use super::progress::ProgressLine;
use super::runtime;
use super::site::Site;
use crate::config::Settings;
use crate::images::Images;
use crate::images::import::{Adoption, ImportLine, Imported, Records};

/// Standard input in place of a file.
const STANDARD: &str = "-";
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
        .help("What the archive's only image is called, where the archive does not say");
    let command = Command::new("import")
        .about("Take in the images of an OCI image layout archive, without any network")
        .arg(file)
        .arg(name);
    arguments::with_settings(command).arg(arguments::json()).arg(arguments::server())
}

/// Takes an archive in.
pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    let settings = given.settings(Missing::Made)?;
    let file = given.matches.get_one::<PathBuf>("file").cloned().unwrap_or_default();
    let name = given.matches.get_one::<ImageName>("name");
    let source = source(&file)?;
    let brought = runtime::until_interrupted(async {
        match Site::open_or_create(&settings, given.server(), settings.store.clone()).await? {
            Site::Stopped(store) => import_stopped(store, source, name, &settings).await,
            Site::Running(api) => import_running(&api, source, name).await,
        }
    })?;
    tell(&brought.context(runtime::INTERRUPTED)?, given.report())
}

fn source(file: &Path) -> anyhow::Result<Box<dyn Read + Send>> {
    if file == Path::new(STANDARD) {
        return Ok(Box::new(io::stdin()));
    }
    Ok(Box::new(File::open(file).with_context(|| file.display().to_string())?))
}

fn tell((images, objects, bytes): &Brought, report: Report) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    match report {
        Report::Json => {
            let told = json!({ "images": images, "objects": objects, "bytes": bytes });
            writeln!(output, "{told}")?;
        }
        Report::Text => {
            for image in images {
                writeln!(output, "imported {}{}", image.name, platforms(&image.platforms))?;
            }
            writeln!(output, "{objects} new objects, {}", size(*bytes))?;
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
            let adoption = Adoption { name, policy, records: Records::Stopped };
            images.adopt(&contents, &adoption, |one| told.push(one)).await
        }
        Err(error) => Err(error),
    };
    store.close().await;
    adopted?;
    Ok(brought(told))
}

fn brought(told: Vec<ImportLine>) -> Brought {
    let (mut images, mut sums) = (Vec::new(), (0, 0));
    for one in told {
        match one {
            ImportLine::Image(image) => images.push(image),
            ImportLine::Summary { objects, bytes } => sums = (objects, bytes),
            ImportLine::Read(_) | ImportLine::Error(_) => {}
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
    let mut lines = JsonLines::new(response);
    let (mut bar, mut told) = (ProgressLine::new(), Vec::new());
    loop {
        match lines.next().await?.ok_or_else(|| api.broken())? {
            ImportLine::Read(bytes) => bar.read(bytes),
            ImportLine::Error(reason) => {
                bar.clear();
                bail!("{reason}");
            }
            image @ ImportLine::Image(_) => told.push(image),
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
