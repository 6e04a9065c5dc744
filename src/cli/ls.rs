//! `entrepot ls`: which images are kept.

use std::collections::HashSet;
use std::io::Write as _;
use std::time::SystemTime;

use anyhow::bail;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgGroup, Command};
use entrepot_oci::UnixSeconds;
use serde_json::json;

use super::arguments::{self, Given};
use super::listing::{self, SelectionArg};
use super::output::{ago, short, size, stdout};
use super::privileges::Missing;
use super::runtime;
use super::site::{Site, unbounded};
use super::table::{Side, aligned};
use crate::images::Image;
use crate::log::one_line;

/// How the list is told.
const FORMATS: [&str; 4] = ["table", "wide", "json", "name"];
/// By what it is sorted.
const ORDERS: [&str; 5] = ["name", "size", "used", "hits", "age"];

pub(super) fn command() -> Command {
    let names = Arg::new("name")
        .value_name("NAME")
        .num_args(0..)
        .value_parser(clap::value_parser!(SelectionArg))
        .help(
            "An image, a repository, the beginning of full names (ghcr.io/org/), or a pattern \
             ('alpine:3.*', 'ghcr.io/**') [default: all]",
        );
    let output = Arg::new("output")
        .short('o')
        .long("output")
        .value_name("FORMAT")
        .value_parser(PossibleValuesParser::new(FORMATS))
        .help("How to print them");
    let quiet = Arg::new("quiet")
        .short('q')
        .long("quiet")
        .action(ArgAction::SetTrue)
        .help("Print names alone, as -o name does");
    let sort = Arg::new("sort")
        .long("sort")
        .value_name("ORDER")
        .value_parser(PossibleValuesParser::new(ORDERS))
        .default_value("name")
        .help("By name, or the largest, last used, most served, newest first");
    let reverse = Arg::new("reverse")
        .short('r')
        .long("reverse")
        .action(ArgAction::SetTrue)
        .help("The other way round");
    let json = arguments::json().help("Print JSON, as -o json does");
    let command = Command::new("ls")
        .alias("list")
        .about("List the images that are kept")
        .args([names, output, quiet, json, sort, reverse])
        .group(ArgGroup::new("format").args(["output", "quiet", "json"]));
    arguments::with_place(command.arg(arguments::server()))
}

/// How the list is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Table,
    Wide,
    Json,
    Names,
}

impl Format {
    fn of(given: Given<'_>) -> Self {
        let output = given.matches.get_one::<String>("output").map(String::as_str);
        match output {
            Some("json") => Self::Json,
            Some("wide") => Self::Wide,
            Some("name") => Self::Names,
            _ if given.matches.get_flag("json") => Self::Json,
            _ if given.matches.get_flag("quiet") => Self::Names,
            _ => Self::Table,
        }
    }
}

/// Lists the images of the selections that are named, or all.
pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    let settings = given.settings(Missing::Left)?;
    let names: Vec<SelectionArg> =
        given.matches.get_many("name").unwrap_or_default().cloned().collect();
    let (mut images, unknown) = runtime::block_on(async {
        let site = Site::open(&settings, given.server(), unbounded(&settings)).await?;
        let found = find(&site, names).await;
        site.close().await;
        found
    })?;
    let order = given.matches.get_one::<String>("sort").map_or("name", String::as_str);
    sort(&mut images, order);
    if given.matches.get_flag("reverse") {
        images.reverse();
    }
    tell(&images, Format::of(given))?;
    if !unknown.is_empty() {
        bail!("nothing is kept of {}", unknown.join(", "));
    }
    Ok(())
}

/// The images that are meant, each once, and what there is nothing of.
async fn find(site: &Site, names: Vec<SelectionArg>) -> anyhow::Result<(Vec<Image>, Vec<String>)> {
    let (mut images, mut unknown) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    if names.is_empty() {
        images = listing::all(site, None).await?;
    }
    for name in names {
        let found = listing::all(site, Some(&name)).await?;
        if found.is_empty() {
            unknown.push(name.typed);
        }
        images.extend(found.into_iter().filter(|image| seen.insert(image.name.clone())));
    }
    Ok((images, unknown))
}

/// By name they are as they come: of several selections in their order.
fn sort(images: &mut [Image], order: &str) {
    match order {
        "size" => images.sort_by_key(|image| std::cmp::Reverse(image.bytes)),
        "used" => images.sort_by_key(|image| std::cmp::Reverse(image.last_use)),
        "hits" => images.sort_by_key(|image| std::cmp::Reverse(image.hits)),
        "age" => images.sort_by_key(|image| std::cmp::Reverse(image.first_seen)),
        _ => {}
    }
}

fn tell(images: &[Image], format: Format) -> anyhow::Result<()> {
    let mut output = stdout();
    match format {
        Format::Json => writeln!(output, "{}", json!({ "images": images }))?,
        Format::Names => {
            for image in images {
                writeln!(output, "{}", image.name)?;
            }
        }
        Format::Table | Format::Wide => {
            write!(output, "{}", table(images, format, SystemTime::now()))?;
            writeln!(output, "{}", total(images))?;
        }
    }
    Ok(())
}

/// As `docker images` lists them; no cell has a space in it.
fn table(images: &[Image], format: Format, now: SystemTime) -> String {
    let head = ["IMAGE", "DIGEST", "SIZE", "LAST USED", "HITS", "PINNED", "PLATFORMS"];
    let wide = ["FIRST SEEN", "CHECKED"];
    let is_wide = format == Format::Wide;
    let cells = |head: &[&str]| head.iter().map(|&title| title.to_owned()).collect::<Vec<_>>();
    let mut rows = vec![[cells(&head), if is_wide { cells(&wide) } else { Vec::new() }].concat()];
    rows.extend(images.iter().map(|image| row(image, is_wide, now)));
    aligned(&rows, &[Side::Left; 9])
}

fn row(image: &Image, is_wide: bool, now: SystemTime) -> Vec<String> {
    let platforms = match (image.is_complete, image.platforms.is_empty()) {
        (false, _) => "(incomplete)".to_owned(),
        (true, true) => "-".to_owned(),
        (true, false) => one_line(&image.platforms.join(",")).into_owned(),
    };
    let digest = if is_wide { image.digest.clone() } else { short(&image.digest) };
    let since = |at: Option<UnixSeconds>| {
        at.and_then(UnixSeconds::time).map_or_else(|| "-".to_owned(), |at| ago(at, now))
    };
    let mut row = vec![
        image.name.clone(),
        digest,
        size(image.bytes),
        since(Some(image.last_use)),
        image.hits.to_string(),
        if image.is_pinned { "yes" } else { "-" }.to_owned(),
        platforms,
    ];
    if is_wide {
        row.extend([since(image.first_seen), since(image.asked)]);
    }
    row
}

/// `3 images, 200.1MB`.
fn total(images: &[Image]) -> String {
    let bytes: u64 = images.iter().map(|image| image.bytes).sum();
    let plural = if images.len() == 1 { "" } else { "s" };
    format!("{} image{plural}, {}", images.len(), size(bytes))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn images() -> Vec<Image> {
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
            asked: Some(UnixSeconds(999_900)),
            first_seen: Some(UnixSeconds(10_000)),
        };
        let app = Image {
            name: format!("ghcr.io/org/app@{}", digest('b')),
            digest: digest('b'),
            bytes: 999,
            is_complete: false,
            last_use: UnixSeconds(913_000),
            hits: 0,
            is_pinned: false,
            asked: None,
            first_seen: Some(UnixSeconds(900_000)),
            ..alpine.clone()
        };
        vec![alpine, app]
    }

    #[test]
    fn images_are_listed_as_a_table() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_300);
        insta::assert_snapshot!(table(&images(), Format::Table, now), @r"
        IMAGE                                                                                    DIGEST        SIZE   LAST USED  HITS  PINNED  PLATFORMS
        docker.io/library/alpine:3.20                                                            aaaaaaaaaaaa  3.6MB  5m         12    yes     linux/amd64,linux/arm64
        ghcr.io/org/app@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb  bbbbbbbbbbbb  999B   1d         0     -       (incomplete)
        ");
        let none = table(&[], Format::Table, now);
        assert_eq!(none, "IMAGE  DIGEST  SIZE  LAST USED  HITS  PINNED  PLATFORMS\n");
        let wide = table(&images(), Format::Wide, now);
        let row: Vec<_> = wide.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[1], images()[0].digest);
        assert_eq!((row.len(), row[7], row[8]), (9, "11d", "6m"));
        assert!(wide.lines().nth(2).unwrap().ends_with("1d          -"), "{wide}");
    }

    #[test]
    fn they_are_sorted_and_summed_up() {
        for (order, first) in
            [("name", "docker"), ("size", "docker"), ("used", "docker"), ("age", "ghcr")]
        {
            let mut sorted = images();
            sort(&mut sorted, order);
            assert!(sorted[0].name.starts_with(first), "{order}");
        }
        assert_eq!(total(&images()), "2 images, 3.6MB");
        assert_eq!(total(&images()[..1]), "1 image, 3.6MB");
    }
}
