//! `entrepot pull`: bring images into the cache of a running proxy ahead of time.
//!
//! The proxy does it (`POST /api/v1/pull`); here it is only watched.

mod show;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Arg, ArgAction, Command};
use entrepot_oci::{ImageName, Platform};
use http::Method;
use url::form_urlencoded;

use self::show::Show;
use super::api::{Api, JsonLines};
use super::arguments::{self, Given};
use super::output::complain;
use super::privileges::Missing;
use super::runtime;
use crate::admin::pull::{Failure, FailureKind, Platforms, PullLine, Wanted};
use crate::words::chain;

pub(super) fn command() -> Command {
    let image = Arg::new("image")
        .value_name("IMAGE")
        .required(true)
        .num_args(1..)
        .value_parser(clap::value_parser!(ImageName))
        .help("As you give it to an engine: alpine, ghcr.io/org/app:1.2, …@sha256:…");
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
    let about = "Bring images into the cache of a running proxy";
    arguments::with_settings(Command::new("pull").about(about)).args([
        image,
        platform,
        all,
        arguments::json(),
        arguments::server(),
    ])
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

/// Brings the images in, one after the other; all are tried. The exit code is that of the first
/// failure. Ends as soon as somebody interrupts it.
pub(super) fn run(given: Given<'_>) -> anyhow::Result<ExitCode> {
    let settings = given.settings(Missing::Left)?;
    let api = Api::new(&settings, given.server())?;
    let (wanted, mut show) = (wanted(given), Show::new(given.report()));
    let Some(code) = runtime::until_interrupted(pull_all(&api, &wanted, &mut show))? else {
        show.clear();
        bail!("interrupted: what has come stays, and the next pull goes on from there");
    };
    Ok(code)
}

async fn pull_all(api: &Api, all: &[Wanted], show: &mut Show) -> anyhow::Result<ExitCode> {
    let mut code = None;
    for wanted in all {
        if let Err(miss) = pull(api, wanted, show).await? {
            show.end();
            complain(&miss.why);
            code = code.or(Some(miss.code));
        }
    }
    Ok(code.map_or(ExitCode::SUCCESS, ExitCode::from))
}

fn wanted(given: Given<'_>) -> Vec<Wanted> {
    let platforms = match given.matches.get_many::<Platform>("platform") {
        _ if given.matches.get_flag("all-platforms") => Platforms::All,
        Some(platforms) => Platforms::These(platforms.cloned().collect()),
        None => Platforms::These(vec![Platform::here()]),
    };
    given
        .images()
        .map(|image| Wanted { image: image.clone(), platforms: platforms.clone() })
        .collect()
}

/// Has the proxy bring one image in. An error is one of telling it, which no other image mends.
async fn pull(api: &Api, wanted: &Wanted, show: &mut Show) -> anyhow::Result<Result<(), Miss>> {
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
        show.hear(&told)?;
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
