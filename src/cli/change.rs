//! What `rm`, `pin` and `unpin` do to the images that are meant: those that are named, and those
//! that patterns and beginnings of names fit.

use std::io::Write as _;
use std::time::Duration;

use anyhow::bail;
use clap::{Arg, ArgAction, Command};
use entrepot_oci::{ImageName, ImagePattern, UnixSeconds};
use http::Method;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::arguments::{self, Given};
use super::listing::{self, SelectionArg};
use super::output::{Report, complain, size, stdout, unless_closed};
use super::privileges::Missing;
use super::runtime;
use super::site::{Site, unbounded};
use crate::config::units;
use crate::images::{
    Extent, Images, Reached, Removal, Removed, Selection, SelectionError, Which, is_explicit,
};
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
    let names = Arg::new("image")
        .value_name("IMAGE")
        .num_args(0..)
        .value_parser(clap::value_parser!(Meant))
        .help(
            "alpine:3.20, ghcr.io/org/app@sha256:…; several by a pattern ('ghcr.io/org/*', \
             'alpine:3.*') or the beginning of full names (ghcr.io/org/)",
        );
    let dry_run = Arg::new("dry-run")
        .long("dry-run")
        .short('n')
        .action(ArgAction::SetTrue)
        .help("Only say what would be done");
    Command::new(name).about(about).args([names, dry_run, arguments::json()])
}

/// With what is behind those arguments.
pub(super) fn finished(command: Command) -> Command {
    arguments::with_place(command.arg(arguments::server()))
}

/// `--unused`.
pub(super) fn unused() -> Arg {
    Arg::new("unused")
        .long("unused")
        .value_name("AGE")
        .value_parser(age)
        .help("Those alone that nobody has used for so long (30d, 2w); without IMAGE, of all")
}

fn age(text: &str) -> Result<Duration, String> {
    units::duration(text).ok_or_else(|| format!("expected {}", units::DURATIONS))
}

/// What somebody means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Meant {
    /// One image, as engines read its name.
    One(ImageName),
    /// Those that fit.
    Several(String),
}

impl std::str::FromStr for Meant {
    type Err = SelectionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if ImagePattern::is_one(text) || text.ends_with('/') {
            text.parse::<Selection>()?;
            return Ok(Self::Several(text.to_owned()));
        }
        Ok(Self::One(text.parse()?))
    }
}

impl Meant {
    /// As a selection is typed.
    fn typed(&self) -> String {
        match self {
            Self::One(name) => name.to_string(),
            Self::Several(text) => text.clone(),
        }
    }
}

/// What is asked for.
struct Asked {
    meant: Vec<Meant>,
    unused: Option<Duration>,
    extent: Extent,
    report: Report,
}

impl Asked {
    fn of(given: Given<'_>) -> Self {
        let unused = given.matches.try_get_one::<Duration>("unused").ok().flatten().copied();
        let is_dry_run = given.matches.get_flag("dry-run");
        Self {
            meant: given.matches.get_many("image").unwrap_or_default().cloned().collect(),
            unused,
            extent: if is_dry_run { Extent::DryRun } else { Extent::Done },
            report: given.report(),
        }
    }
}

impl Change {
    /// Does it to the images that are meant.
    pub(super) fn run(self, given: Given<'_>) -> anyhow::Result<()> {
        let settings = given.settings(Missing::Left)?;
        let asked = Asked::of(given);
        runtime::block_on(async {
            let site = Site::open(&settings, given.server(), unbounded(&settings)).await?;
            let done = self.run_at(&site, &asked).await;
            if matches!(site, Site::Stopped(_))
                && settings.bucket.is_some()
                && asked.extent == Extent::Done
            {
                complain("no proxy runs here: the bucket and other replicas stay as they are");
            }
            site.close().await;
            done
        })
    }

    async fn run_at(self, site: &Site, asked: &Asked) -> anyhow::Result<()> {
        let is_of_several = asked.meant.iter().any(|one| matches!(one, Meant::Several(_)));
        let is_dry_run = asked.extent == Extent::DryRun;
        if self == Self::Remove && (is_of_several || is_dry_run || asked.unused.is_some()) {
            return remove_all(site, asked).await;
        }
        let (names, unknown) = self.names(site, &asked.meant).await?;
        if is_dry_run {
            foretell(self, &names, &unknown, asked.report)
        } else {
            change_each(site, self, &names, unknown, asked.report).await
        }
    }

    /// The images that are meant, each once, and what there is nothing of.
    async fn names(
        self,
        site: &Site,
        meant: &[Meant],
    ) -> anyhow::Result<(Vec<ImageName>, Vec<String>)> {
        let (mut names, mut unknown) = (Vec::new(), Vec::new());
        for one in meant {
            let found = match one {
                Meant::One(name) => vec![name.clone()],
                Meant::Several(text) => {
                    let images = listing::all(site, Some(&text.parse::<SelectionArg>()?)).await?;
                    if images.is_empty() {
                        unknown.push(format!("nothing is kept of {text}"));
                    }
                    // Those that are so already need not be told.
                    let wanted =
                        images.into_iter().filter(|one| one.is_pinned == (self == Self::Unpin));
                    wanted.map(|one| one.name.parse()).collect::<Result<_, _>>()?
                }
            };
            names
                .extend(found.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
        }
        Ok((names, unknown))
    }

    /// What has been done, or would be.
    fn words(self, is_done: bool) -> &'static str {
        match (self, is_done) {
            (Self::Remove, true) => "removed",
            (Self::Remove, false) => "would remove",
            (Self::Pin, true) => "pinned",
            (Self::Pin, false) => "would pin",
            (Self::Unpin, true) => "unpinned",
            (Self::Unpin, false) => "would unpin",
        }
    }
}

/// Says what would be done.
fn foretell(
    change: Change,
    names: &[ImageName],
    failed: &[String],
    report: Report,
) -> anyhow::Result<()> {
    let mut output = stdout();
    match report {
        Report::Json => {
            let images: Vec<_> =
                names.iter().map(|name| json!({ "name": name.to_string() })).collect();
            let told = json!({ "images": images, "errors": failed, "is_dry_run": true });
            writeln!(output, "{told}")?;
        }
        Report::Text => {
            for name in names {
                writeln!(output, "{} {name}", change.words(false))?;
            }
        }
    }
    drop(output);
    all_done(failed)
}

/// Does it to one image after the other; those that it can't be done to are told, and keep no
/// other.
async fn change_each(
    site: &Site,
    change: Change,
    names: &[ImageName],
    mut failed: Vec<String>,
    report: Report,
) -> anyhow::Result<()> {
    let mut done = Vec::new();
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
    all_done(&failed)
}

fn all_done(failed: &[String]) -> anyhow::Result<()> {
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
                Change::Remove => return Ok(json!(images.remove(name).await?.0)),
                Change::Pin => drop(images.pin(name).await?),
                Change::Unpin => drop(images.unpin(name).await?),
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
    let (mut output, words) = (stdout(), change.words(true));
    match change {
        Change::Remove => {
            let Removed { objects, bytes, fleet } = serde_json::from_value(told.clone())?;
            let place = reached(fleet);
            writeln!(output, "{words} {name}: {objects} objects, {}{place}", size(bytes))?;
        }
        Change::Pin | Change::Unpin => {
            let fleet = serde_json::from_value(told.get("fleet").cloned().unwrap_or_default())?;
            writeln!(output, "{words} {name}{}", reached(fleet))?;
        }
    }
    Ok(())
}

/// Where a change has taken effect, where that is not here alone.
fn reached(fleet: Option<Reached>) -> String {
    fleet.map(|reached| format!(" ({})", reached.words())).unwrap_or_default()
}

/// Removes all that are meant at once, or says what would go. Nobody is asked: there is a dry run.
async fn remove_all(site: &Site, asked: &Asked) -> anyhow::Result<()> {
    let removal = match site {
        Site::Running(api) => serde_json::from_value(api.ask(Method::DELETE, &path(asked)).await?)?,
        Site::Stopped(store) => {
            let which = which(asked, UnixSeconds::now())?;
            Images::of(store).remove_all(&which, asked.extent).await?.0
        }
    };
    let failed = failures(asked, &removal);
    unless_closed(tell_removal(&removal, &failed, asked.report))?;
    all_done(&failed)
}

fn path(asked: &Asked) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(asked.meant.iter().map(|one| ("name", one.typed())));
    if let Some(unused) = asked.unused {
        query.append_pair("unused_secs", &unused.as_secs().to_string());
    }
    if asked.extent == Extent::DryRun {
        query.append_pair("dry_run", "true");
    }
    format!("/api/v1/images?{}", query.finish())
}

fn which(asked: &Asked, now: UnixSeconds) -> Result<Which, SelectionError> {
    let selections = if asked.meant.is_empty() {
        vec![Selection::All]
    } else {
        asked.meant.iter().map(|one| one.typed().parse()).collect::<Result<_, _>>()?
    };
    let since = |unused: Duration| UnixSeconds(now.0.saturating_sub(unused.as_secs()));
    Ok(Which { selections, unused_since: asked.unused.map(since) })
}

/// What was asked for by name and is not done: a pattern leaves out what is pinned.
fn failures(asked: &Asked, removal: &Removal) -> Vec<String> {
    let unmatched = removal.unmatched.iter().map(|name| {
        if is_explicit(name) {
            format!("{name} is not kept")
        } else {
            format!("nothing is kept of {name}")
        }
    });
    let is_named = |name: &&String| {
        asked.meant.iter().any(|one| matches!(one, Meant::One(one) if one.to_string() == **name))
    };
    let pinned = removal.pinned.iter().filter(is_named);
    unmatched.chain(pinned.map(|name| format!("{name} is pinned: unpin it first"))).collect()
}

fn tell_removal(removal: &Removal, failed: &[String], report: Report) -> anyhow::Result<()> {
    let mut output = stdout();
    match report {
        Report::Json => {
            let mut told = json!(removal);
            if let Some(fields) = told.as_object_mut() {
                fields.insert("errors".to_owned(), json!(failed));
            }
            writeln!(output, "{told}")?;
        }
        Report::Text => write!(output, "{}", removal_lines(removal))?,
    }
    Ok(())
}

fn removal_lines(removal: &Removal) -> String {
    let Removal { images, pinned, objects, bytes, is_dry_run, fleet, .. } = removal;
    let words = Change::Remove.words(!is_dry_run);
    let each = images.iter().map(|one| format!("{words} {}: {}\n", one.name, size(one.bytes)));
    let stay = pinned.iter().map(|name| format!("{name} is pinned and stays\n"));
    let count = match images.len() {
        1 => "1 image".to_owned(),
        several => format!("{several} images"),
    };
    let freed = if *is_dry_run { "would be free" } else { "are free" };
    let sum = if images.is_empty() {
        "nothing is to be removed\n".to_owned()
    } else {
        let place = reached(fleet.clone());
        format!("{words} {count}: {objects} objects, {} {freed}{place}\n", size(*bytes))
    };
    each.chain(stay).chain([sum]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Image;

    fn removal(is_dry_run: bool) -> Removal {
        let image = Image {
            name: "docker.io/library/alpine:3.20".to_owned(),
            digest: String::new(),
            media_type: None,
            bytes: 3_600_000,
            is_complete: true,
            platforms: Vec::new(),
            last_use: UnixSeconds(1),
            hits: 0,
            is_pinned: false,
            asked: None,
            first_seen: None,
        };
        Removal {
            images: vec![image],
            pinned: vec!["docker.io/library/busybox:1".to_owned()],
            unmatched: vec!["ghcr.io/x/".to_owned(), "ghcr.io/x/y:1".to_owned()],
            objects: 2,
            bytes: 1_200_000,
            is_dry_run,
            fleet: None,
        }
    }

    #[test]
    fn what_goes_and_what_stays_is_told() {
        insta::assert_snapshot!(removal_lines(&removal(true)), @r"
        would remove docker.io/library/alpine:3.20: 3.6MB
        docker.io/library/busybox:1 is pinned and stays
        would remove 1 image: 2 objects, 1.2MB would be free
        ");
        assert!(removal_lines(&removal(false)).ends_with("1 image: 2 objects, 1.2MB are free\n"));
        let nothing = Removal { images: Vec::new(), pinned: Vec::new(), ..removal(false) };
        assert_eq!(removal_lines(&nothing), "nothing is to be removed\n");
    }

    #[test]
    fn what_is_named_and_can_not_go_is_a_failure() {
        let asked = |names: &[&str]| Asked {
            meant: names.iter().map(|name| name.parse().unwrap()).collect(),
            unused: Some(Duration::from_mins(1)),
            extent: Extent::Done,
            report: Report::Text,
        };
        let unmatched = ["nothing is kept of ghcr.io/x/", "ghcr.io/x/y:1 is not kept"];
        assert_eq!(failures(&asked(&["busybox*"]), &removal(false)), unmatched);
        let named = failures(&asked(&["busybox:1"]), &removal(false));
        assert_eq!(named[2], "docker.io/library/busybox:1 is pinned: unpin it first");
        assert_eq!(
            path(&asked(&["alpine", "ghcr.io/org/*"])),
            "/api/v1/images?name=docker.io%2Flibrary%2Falpine%3Alatest&name=ghcr.io%2Forg%2F*\
             &unused_secs=60"
        );
        let which = which(&asked(&[]), UnixSeconds(100)).unwrap();
        let unused_since = Some(UnixSeconds(40));
        assert_eq!(which, Which { selections: vec![Selection::All], unused_since });
    }
}
