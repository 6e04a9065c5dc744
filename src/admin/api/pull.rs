//! `POST /api/v1/pull`: bring an image in ahead of time.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use entrepot_oci::{ImageName, Platform, Reference, Route};
use http::{Method, Response, StatusCode};
use tokio::sync::Semaphore;
use url::form_urlencoded;

use super::super::AdminServices;
use super::super::body::AdminBody;
use super::super::pages::refused;
use super::super::pull::{Failure, ManifestCost, Platforms, Pull, PullLine, PullSummary, Wanted};
use super::lines;
use crate::log::{Outcome, RequestLine, Subject};
use crate::pulls::{PullEvent, PullOutcome, Puller};

/// Pulls at a time: each has a handful of transfers of its own.
const MOST: usize = 32;

/// The room for pulls; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }
}

/// Begins, and tells of it as JSON lines. It ends early when nobody listens any more, and with the
/// shutdown.
pub(super) fn start(services: &Arc<AdminServices>, query: &str) -> Response<AdminBody> {
    let wanted = match parse(query) {
        Ok(wanted) => wanted,
        Err(reason) => return refused(StatusCode::BAD_REQUEST, &reason).map(Into::into),
    };
    let Ok(place) = services.queues.pulls.0.clone().try_acquire_owned() else {
        let reason = "too many pulls are under way already: try again later";
        return refused(StatusCode::TOO_MANY_REQUESTS, reason).map(Into::into);
    };
    lines::tell(
        services,
        "nobody listens: no more of the image is brought in",
        |services, lines| {
            async move {
                let AdminServices { gateway, store, .. } = &*services;
                let policy = &services.facts.policy;
                tracing::info!(image = %wanted.image, "bringing an image in");
                let account = &services.memory.budget.account(None);
                let (wanted, lines, began) = (&wanted, &lines, Instant::now());
                let cost = &ManifestCost::default();
                let pull = Pull { gateway, policy, store, wanted, lines, account, cost };
                let ended = pull.run().await;
                let event = event(&services, wanted, &ended, cost, began.elapsed());
                services.pulls.ahead(event);
                let last = match ended {
                    Ok(summary) => {
                        let (blobs, bytes) = (summary.fetched_blobs, summary.fetched_bytes);
                        tracing::info!(image = %wanted.image, blobs, bytes, "an image was brought in");
                        PullLine::Summary(summary)
                    }
                    Err(failure) => {
                        tracing::warn!(error = failure.message, "an image could not be brought in");
                        services.metrics.answered(&Arc::new(line(wanted, &failure)));
                        PullLine::Error(failure)
                    }
                };
                // Before it is told: who reads that may begin another.
                drop(place);
                lines.say(&last).await;
            }
        },
    )
}

/// The pull as those are told who ask who pulls what.
fn event(
    services: &AdminServices,
    wanted: &Wanted,
    ended: &Result<PullSummary, Failure>,
    cost: &ManifestCost,
    duration: Duration,
) -> PullEvent {
    let ImageName { registry, repository, reference, .. } = wanted.image.clone();
    let (tag, named) = match reference {
        Reference::Tag(tag) => (Some(tag), None),
        Reference::Digest(digest) => (None, Some(digest)),
    };
    let summary = ended.as_ref().ok();
    let of_manifests = cost.bytes.load(Ordering::Relaxed);
    let bytes = summary.map_or(0, |summary| summary.bytes);
    let fetched = summary.map_or(0, |summary| summary.fetched_bytes + of_manifests);
    let counts_pulls = services.metrics.counts_pulls(registry.as_str());
    let platforms = summary.map(|summary| summary.platforms.join(", "));
    PullEvent {
        number: 0,
        at: SystemTime::now(),
        puller: Puller::Operator,
        user: None,
        user_agent: None,
        registry,
        repository,
        tag,
        digest: named.or_else(|| summary?.digest.parse().ok()),
        platform: platforms.filter(|names| !names.is_empty()),
        bytes,
        bytes_from_cache: bytes.saturating_sub(fetched),
        is_all_from_cache: summary.is_some() && fetched == 0,
        duration,
        outcome: if summary.is_some() { PullOutcome::Complete } else { PullOutcome::Failed },
        quota_pulls: if counts_pulls { cost.fetches.load(Ordering::Relaxed) } else { 0 },
        reason: ended.as_ref().err().map(|failure| failure.message.clone()),
    }
}

/// What those who watch are told of a pull that failed: as of a request of the proxy's own.
fn line(wanted: &Wanted, failure: &Failure) -> RequestLine {
    let ImageName { registry, repository, reference, .. } = &wanted.image;
    let route = Route::Manifest { repository: repository.clone(), reference: reference.clone() };
    let subject = Subject::of(registry.clone(), route, "");
    let line = RequestLine::new(Outcome::Error, Method::GET, subject, Ipv4Addr::LOCALHOST.into());
    let line = line.because(Some(failure.message.clone()));
    RequestLine { status: Some(failure.kind.status()), ..line }
}

/// `image=NAME`, and `platform=OS/ARCH[/VARIANT]` any number of times, or `platform=all`.
fn parse(query: &str) -> Result<Wanted, String> {
    let (mut image, mut platforms, mut is_all) = (None, Vec::new(), false);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "image" if image.is_none() => {
                image = Some(value.parse().map_err(|error| format!("image: {error}"))?);
            }
            "platform" if value == "all" => is_all = true,
            "platform" => {
                platforms.push(value.parse().map_err(|error| format!("platform: {error}"))?);
            }
            _ => return Err("the query may hold image=NAME once, and platform=…".to_owned()),
        }
    }
    let platforms = match platforms {
        _ if is_all => Platforms::All,
        platforms if platforms.is_empty() => Platforms::These(vec![Platform::here()]),
        platforms => Platforms::These(platforms),
    };
    Ok(Wanted { image: image.ok_or("image=NAME is missing")?, platforms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_asked_for_in_one_way() {
        let wanted =
            parse("image=alpine%3A3&platform=linux%2Farm64&platform=linux/arm/v7").unwrap();
        assert_eq!(wanted.image.to_string(), "docker.io/library/alpine:3");
        let these = ["linux/arm64", "linux/arm/v7"].map(|one| one.parse().unwrap());
        assert_eq!(wanted.platforms, Platforms::These(these.to_vec()));
        let here = Platforms::These(vec![Platform::here()]);
        assert_eq!(parse("image=alpine").unwrap().platforms, here);
        assert_eq!(parse("image=a&platform=all").unwrap().platforms, Platforms::All);
        for wrong in ["", "image=", "image=A", "image=a&image=b", "image=a&platform=x", "tag=x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
