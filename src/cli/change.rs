//! What `rm`, `pin` and `unpin` do to each image that is named.

use std::io::Write as _;

use anyhow::bail;
use clap::Command;
use entrepot_oci::ImageName;
use http::Method;
use serde_json::{Value, json};

use super::arguments::{self, Given};
use super::output::{Report, size, stdout, unless_closed};
use super::privileges::Missing;
use super::runtime;
use super::site::{Site, unbounded};
use crate::images::{Images, Removed};
use crate::words::chain;

/// What is done to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Remove,
    Pin,
    Unpin,
}

/// How the subcommand that does it is called.
pub(super) fn command(name: &'static str, about: &'static str) -> Command {
    let command = Command::new(name).about(about).arg(arguments::images());
    arguments::with_settings(command).arg(arguments::json()).arg(arguments::server())
}

impl Change {
    /// Does it to the images that are named.
    pub(super) fn run(self, given: Given<'_>) -> anyhow::Result<()> {
        let settings = given.settings(Missing::Left)?;
        runtime::block_on(async {
            let site = Site::open(&settings, given.server(), unbounded(&settings)).await?;
            let done = change_each(&site, self, given.images(), given.report()).await;
            site.close().await;
            done
        })
    }
}

/// Does it to one image after the other; those that it can't be done to are told, and keep no
/// other.
async fn change_each(
    site: &Site,
    change: Change,
    names: impl Iterator<Item = &ImageName>,
    report: Report,
) -> anyhow::Result<()> {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for name in names {
        match change_one(site, change, name).await {
            Ok(told) => {
                if report == Report::Text {
                    unless_closed(tell(change, name, &told))?;
                }
                done.push(with_name(told, name));
            }
            Err(error) => failed.push(chain(error.as_ref())),
        }
    }
    if report == Report::Json {
        let told = writeln!(stdout(), "{}", json!({ "images": done, "errors": failed }));
        unless_closed(told.map_err(Into::into))?;
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("\nentrepot: ")) }
}

async fn change_one(site: &Site, change: Change, name: &ImageName) -> anyhow::Result<Value> {
    match site {
        Site::Running(api) => {
            let image = format!("/api/v1/images/{name}");
            match change {
                Change::Remove => api.ask(Method::DELETE, &image).await,
                Change::Pin => api.ask(Method::PUT, &format!("{image}/pin")).await,
                Change::Unpin => api.ask(Method::DELETE, &format!("{image}/pin")).await,
            }
        }
        Site::Stopped(store) => {
            let images = Images::of(store);
            match change {
                Change::Remove => return Ok(json!(images.remove(name).await?)),
                Change::Pin => images.pin(name).await?,
                Change::Unpin => images.unpin(name).await?,
            }
            Ok(json!(images.find(name).await?))
        }
    }
}

fn with_name(mut told: Value, name: &ImageName) -> Value {
    if let Some(fields) = told.as_object_mut() {
        fields.insert("name".to_owned(), json!(name.to_string()));
    }
    told
}

fn tell(change: Change, name: &ImageName, told: &Value) -> anyhow::Result<()> {
    let mut output = stdout();
    match change {
        Change::Remove => {
            let Removed { objects, bytes } = serde_json::from_value(told.clone())?;
            writeln!(output, "removed {name}: {objects} objects, {}", size(bytes))?;
        }
        Change::Pin => writeln!(output, "pinned {name}")?,
        Change::Unpin => writeln!(output, "unpinned {name}")?,
    }
    Ok(())
}
