//! `entrepot pull`: bring images into the cache of a running proxy ahead of time.
//!
//! The proxy does it (`POST /api/v1/pull`); here it is only watched.
//!
//! - `names`: which images are meant
//! - `show`: how it is told
//! - `total`: how far all of them are

mod names;
mod show;
mod total;

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Arg, ArgAction, ArgGroup, Command};
use entrepot_oci::Platform;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use url::form_urlencoded;

use self::names::NotAList;
use self::show::{Show, Tale};
use super::api::{Api, JsonLines};
use super::arguments::{self, Given};
use super::output::complain;
use super::privileges::Missing;
use super::runtime;
use crate::admin::pull::{Failure, FailureKind, Platforms, PullLine, Wanted};
use crate::words::chain;

/// The exit code of what is no list of images.
const WRONG_USAGE: u8 = 2;
/// How many images come side by side, unless another number is asked for. Each has six transfers
/// of its own.
const USUAL_JOBS: &str = "3";
/// A proxy takes no more pulls at a time.
const MOST_JOBS: i64 = 32;

pub(super) fn command() -> Command {
    let image = Arg::new("image").value_name("IMAGE").num_args(0..).help(
        "As you give it to an engine: alpine, ghcr.io/org/app:1.2, …@sha256:…; - reads names from \
         standard input, one a line",
    );
    let file = Arg::new("file")
        .short('f')
        .long("file")
        .value_name("FILE")
        .action(ArgAction::Append)
        .value_parser(clap::value_parser!(PathBuf))
        .help("Read names from this file, one a line; # begins a comment, - is standard input");
    let platform = Arg::new("platform")
        .long("platform")
        .value_name("OS/ARCH[/VARIANT],…")
        .action(ArgAction::Append)
        .value_delimiter(',')
        .value_parser(clap::value_parser!(Platform))
        .help("For these machines [default: those like this one]");
    let all = Arg::new("all-platforms")
        .long("all-platforms")
        .action(ArgAction::SetTrue)
        .conflicts_with("platform")
        .help("For all machines that there are");
    let jobs = Arg::new("jobs")
        .short('j')
        .long("jobs")
        .value_name("NUMBER")
        .value_parser(clap::value_parser!(u8).range(1..=MOST_JOBS))
        .default_value(USUAL_JOBS)
        .help("How many images come side by side");
    let command = Command::new("pull")
        .about("Pull images into the cache ahead of time (prefetch, warm up)")
        .args([image, file, platform, all, jobs, arguments::json()])
        .group(ArgGroup::new("which").args(["image", "file"]).multiple(true).required(true));
    arguments::with_place(command.arg(arguments::server()))
}

/// Why an image is not here.
struct Miss {
    code: u8,
    why: String,
}

impl Miss {
    fn told(failure: Failure) -> Self {
        Self { code: exit_code(failure.kind), why: failure.message }
    }

    /// The proxy could not be asked, or did not tell the end.
    fn untold(wanted: &Wanted, error: &anyhow::Error) -> Self {
        Self { code: 1, why: format!("{} was not pulled: {}", wanted.image, chain(error.as_ref())) }
    }
}

/// Brings the images in, some side by side; all are tried. The exit code is that of the first
/// failure, in the order in which they are named. Ends as soon as somebody interrupts it.
pub(super) fn run(given: Given<'_>) -> anyhow::Result<ExitCode> {
    // First: this may become another user's process, which reads standard input then.
    let settings = given.settings(Missing::Left)?;
    let wanted = match wanted(given) {
        Ok(wanted) => wanted,
        Err(error) if error.is::<NotAList>() => {
            complain(&format!("{error:#}"));
            return Ok(ExitCode::from(WRONG_USAGE));
        }
        Err(error) => return Err(error),
    };
    let api = Api::new(&settings, given.server())?;
    let jobs = given.matches.get_one::<u8>("jobs").copied().unwrap_or(1);
    let show = RefCell::new(Show::new(given, wanted.len()));
    let pulling = pull_all(&api, &wanted, usize::from(jobs), &show);
    let Some(code) = runtime::until_interrupted(pulling)? else {
        show.borrow_mut().clear();
        bail!("interrupted: what has come stays, and the next pull goes on from there");
    };
    Ok(code)
}

async fn pull_all(
    api: &Api,
    all: &[Wanted],
    jobs: usize,
    show: &RefCell<Show>,
) -> anyhow::Result<ExitCode> {
    let pulls = all.iter().map(async |wanted| {
        let mut tale = show.borrow().begin(wanted);
        let pulled = pull(api, wanted, show, &mut tale).await?;
        if let Err(miss) = &pulled {
            show.borrow_mut().failed(&tale, &miss.why);
        }
        anyhow::Ok(pulled.err().map(|miss| miss.code))
    });
    let codes: Vec<Option<u8>> = stream::iter(pulls).buffered(jobs).try_collect().await?;
    show.borrow_mut().conclude()?;
    Ok(codes.into_iter().flatten().next().map_or(ExitCode::SUCCESS, ExitCode::from))
}

fn wanted(given: Given<'_>) -> anyhow::Result<Vec<Wanted>> {
    let platforms = match given.matches.get_many::<Platform>("platform") {
        _ if given.matches.get_flag("all-platforms") => Platforms::All,
        Some(platforms) => Platforms::These(platforms.cloned().collect()),
        None => Platforms::These(vec![Platform::here()]),
    };
    let arguments = given.matches.get_many::<String>("image").unwrap_or_default();
    let files = given.matches.get_many::<PathBuf>("file").unwrap_or_default();
    let images = names::read(arguments.map(String::as_str), files.map(PathBuf::as_path))?;
    let wanted = images.into_iter().map(|image| Wanted { image, platforms: platforms.clone() });
    Ok(wanted.collect())
}

/// Has the proxy bring one image in. An error is one of telling it, which no other image mends.
async fn pull(
    api: &Api,
    wanted: &Wanted,
    show: &RefCell<Show>,
    tale: &mut Tale,
) -> anyhow::Result<Result<(), Miss>> {
    let mut lines = match api.send(Method::POST, &path(wanted)).await {
        Ok(response) => JsonLines::new(response),
        Err(error) => return Ok(Err(Miss::untold(wanted, &error))),
    };
    loop {
        let line = lines.next().await.and_then(|line| line.ok_or_else(|| api.broken()));
        let told = match line.context("what has come is kept") {
            Ok(told) => told,
            Err(error) => return Ok(Err(Miss::untold(wanted, &error))),
        };
        show.borrow_mut().hear(tale, &told)?;
        match told {
            PullLine::Summary(_) => return Ok(Ok(())),
            PullLine::Error(failure) => return Ok(Err(Miss::told(failure))),
            PullLine::Image(_) | PullLine::Progress(_) | PullLine::Done(_) => {}
        }
    }
}

fn path(wanted: &Wanted) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("image", &wanted.image.to_string());
    match &wanted.platforms {
        Platforms::All => {
            query.append_pair("platform", "all");
        }
        Platforms::These(platforms) => {
            query.extend_pairs(platforms.iter().map(|one| ("platform", one.to_string())));
        }
    }
    format!("/api/v1/pull?{}", query.finish())
}

fn exit_code(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::NotFound | FailureKind::NoPlatform => 3,
        FailureKind::Refused => 4,
        FailureKind::Unreachable => 5,
        FailureKind::Quota => 6,
        FailureKind::NotIntercepted | FailureKind::NotKept | FailureKind::Unusable => 1,
    }
}
