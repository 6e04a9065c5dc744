//! `entrepot export`: images as an OCI image layout in a tar, for sites without a network.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Arg, Command};
use entrepot_oci::ImageName;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;
use url::form_urlencoded;

use super::api::Api;
use super::arguments::{self, Given};
use super::output::{Report, platforms, size, stdout};
use super::privileges::Missing;
use super::runtime;
use super::site::{Site, unbounded};
use crate::images::export::{self, Coming, ExportError, Exported};
use crate::images::{Image, Images};
use crate::log::Safe;

/// Standard output in place of a file.
const STANDARD: &str = "-";
/// Drafts of one archive that may lie about: what has been killed leaves one.
const DRAFTS: u32 = 100;

pub(super) fn command() -> Command {
    let output = Arg::new("output")
        .short('o')
        .long("output")
        .value_name("FILE")
        .required(true)
        .value_parser(clap::value_parser!(PathBuf))
        .help("Where the archive goes; - is standard output");
    let command = Command::new("export")
        .about("Write images to an archive (OCI image layout), for air-gapped sites")
        .arg(output)
        .arg(arguments::images());
    arguments::with_place(command.arg(arguments::json()).arg(arguments::server()))
}

/// Writes an archive of the images that are named.
pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    let settings = given.settings(Missing::Left)?;
    let names: Vec<ImageName> = given.images().cloned().collect();
    let output = given.matches.get_one::<PathBuf>("output").cloned().unwrap_or_default();
    let exported = runtime::until_interrupted(async {
        match Site::open(&settings, given.server(), unbounded(&settings)).await? {
            Site::Stopped(store) => {
                let archive = Images::of(&store).export(&names).await?;
                let exported = archive.exported.clone();
                let (to, pieces) = export::channel();
                #[expect(
                    clippy::disallowed_methods,
                    reason = "it ends with the channel that it feeds"
                )]
                tokio::spawn(archive.send(to));
                let bytes = write(&output, pieces).await?;
                Ok((exported, bytes))
            }
            Site::Running(api) => export_running(&api, &names, &output).await,
        }
    })?;
    tell(&output, &exported.context(runtime::INTERRUPTED)?, given.report())
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
    #[expect(clippy::disallowed_methods, reason = "it ends with the channel that it feeds")]
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

fn tell(
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
        Safe(io::stderr().lock()).write_all(told.as_bytes())?;
    } else {
        stdout().write_all(told.as_bytes())?;
    }
    Ok(())
}
