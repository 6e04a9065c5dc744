//! `entrepot ls`: which images are kept.

use std::collections::HashSet;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use anyhow::bail;
use clap::{Arg, Command};
use entrepot_oci::ImageName;
use http::Method;
use serde::Deserialize;
use serde_json::json;
use url::form_urlencoded;

use super::api::Api;
use super::arguments::{self, Given};
use super::output::{Report, short, size, stdout};
use super::privileges::Missing;
use super::runtime;
use super::site::{Site, unbounded};
use crate::images::{Image, Images, MOST, Query, Selection};
use crate::log::one_line;

pub(super) fn command() -> Command {
    let names = Arg::new("name")
        .value_name("NAME")
        .num_args(0..)
        .value_parser(clap::value_parser!(SelectionArg))
        .help("An image, a repository, or the beginning of full names (ghcr.io/org/)");
    arguments::with_settings(Command::new("ls").about("Say which images are kept").arg(names))
        .arg(arguments::json())
        .arg(arguments::server())
}

/// Lists the images of the selections that are named, or all.
pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    let settings = given.settings(Missing::Left)?;
    let names = given.matches.get_many("name").unwrap_or_default().cloned().collect();
    runtime::block_on(async {
        let site = Site::open(&settings, given.server(), unbounded(&settings)).await?;
        let listed = list(&site, names, given.report()).await;
        site.close().await;
        listed
    })
}

/// A selection, and how it was typed.
#[derive(Clone)]
struct SelectionArg(String, Selection);

impl std::str::FromStr for SelectionArg {
    type Err = entrepot_oci::ImageNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned(), text.parse()?))
    }
}

async fn list(site: &Site, names: Vec<SelectionArg>, report: Report) -> anyhow::Result<()> {
    let (mut images, mut unknown) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    if names.is_empty() {
        images = all(site, None).await?;
    }
    for name in names {
        let found = all(site, Some(&name)).await?;
        if found.is_empty() {
            unknown.push(name.0);
        }
        images.extend(found.into_iter().filter(|image| seen.insert(image.name.clone())));
    }
    let mut output = stdout();
    match report {
        Report::Json => writeln!(output, "{}", json!({ "images": images }))?,
        Report::Text => write!(output, "{}", table(&images, SystemTime::now()))?,
    }
    if !unknown.is_empty() {
        bail!("nothing is kept of {}", unknown.join(", "));
    }
    Ok(())
}

/// All images of a selection, page by page.
async fn all(site: &Site, name: Option<&SelectionArg>) -> anyhow::Result<Vec<Image>> {
    let selection = name.map_or(Selection::All, |name| name.1.clone());
    let mut query = Query { selection, limit: MOST, ..Query::default() };
    let mut images = Vec::new();
    loop {
        let (page, next) = match site {
            Site::Stopped(store) => {
                let page = Images::of(store).list(&query).await?;
                (page.images, page.next)
            }
            Site::Running(api) => page_of(api, &query, name).await?,
        };
        images.extend(page);
        match next {
            Some(next) => query.after = Some(next),
            None => return Ok(images),
        }
    }
}

async fn page_of(
    api: &Api,
    query: &Query,
    name: Option<&SelectionArg>,
) -> anyhow::Result<(Vec<Image>, Option<ImageName>)> {
    let mut fields = form_urlencoded::Serializer::new(String::new());
    fields.append_pair("limit", &query.limit.to_string());
    if let Some(name) = name {
        fields.append_pair("name", &name.0);
    }
    if let Some(after) = &query.after {
        fields.append_pair("after", &after.to_string());
    }
    let page = api.ask(Method::GET, &format!("/api/v1/images?{}", fields.finish())).await?;
    let ListedPage { images, next } = serde_json::from_value(page)?;
    Ok((images, next.as_deref().map(str::parse).transpose()?))
}

/// A page, as a running proxy tells it.
#[derive(Deserialize)]
struct ListedPage {
    images: Vec<Image>,
    next: Option<String>,
}

/// As `docker images` lists them; no cell has a space in it.
fn table(images: &[Image], now: SystemTime) -> String {
    let head = ["IMAGE", "DIGEST", "SIZE", "LAST USED", "HITS", "PINNED", "PLATFORMS"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(images.iter().map(|image| row(image, now)));
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<_> = (0..head.len()).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn row(image: &Image, now: SystemTime) -> [String; 7] {
    let used = image.last_use.time().unwrap_or(now);
    let platforms = match (image.is_complete, image.platforms.is_empty()) {
        (false, _) => "(incomplete)".to_owned(),
        (true, true) => "-".to_owned(),
        (true, false) => one_line(&image.platforms.join(",")).into_owned(),
    };
    [
        image.name.clone(),
        short(&image.digest),
        size(image.bytes),
        age(now.duration_since(used).unwrap_or_default()),
        image.hits.to_string(),
        if image.is_pinned { "yes" } else { "-" }.to_owned(),
        platforms,
    ]
}

/// `5m`: how long ago, in the largest unit that fits.
fn age(age: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let secs = age.as_secs();
    let unit = UNITS.iter().find(|(unit, _)| secs >= *unit);
    unit.map_or_else(|| "now".to_owned(), |(unit, name)| format!("{}{name}", secs / unit))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use entrepot_oci::UnixSeconds;

    use super::*;

    #[test]
    fn images_are_listed_as_a_table() {
        let digest = |n: char| format!("sha256:{}", n.to_string().repeat(64));
        let alpine = Image {
            name: "docker.io/library/alpine:3.20".to_owned(),
            digest: digest('a'),
            media_type: None,
            bytes: 3_623_844,
            is_complete: true,
            platforms: vec!["linux/amd64".to_owned(), "linux/arm64".to_owned()],
            last_use: UnixSeconds(1_000_000),
            hits: 12,
            is_pinned: true,
            asked: Some(UnixSeconds(1)),
        };
        let app = Image {
            name: format!("ghcr.io/org/app@{}", digest('b')),
            digest: digest('b'),
            bytes: 999,
            is_complete: false,
            last_use: UnixSeconds(913_000),
            hits: 0,
            is_pinned: false,
            ..alpine.clone()
        };
        let now = UNIX_EPOCH + Duration::from_secs(1_000_300);
        insta::assert_snapshot!(table(&[alpine, app], now), @r"
        IMAGE                                                                                    DIGEST        SIZE   LAST USED  HITS  PINNED  PLATFORMS
        docker.io/library/alpine:3.20                                                            aaaaaaaaaaaa  3.6MB  5m         12    yes     linux/amd64,linux/arm64
        ghcr.io/org/app@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb  bbbbbbbbbbbb  999B   1d         0     -       (incomplete)
        ");
        let none = table(&[], now);
        assert_eq!(none, "IMAGE  DIGEST  SIZE  LAST USED  HITS  PINNED  PLATFORMS\n");
    }
}
