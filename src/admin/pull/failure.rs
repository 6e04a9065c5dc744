//! Why a pull fails, in words that name the image and the cure.

use std::fmt::Display;

use entrepot_cache::ReadError;
use entrepot_oci::{ImageName, Platform};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gateway::ResponseError;

/// A pull that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// What is wrong.
    pub kind: FailureKind,
    /// The same, with the image's name and what can be done.
    pub message: String,
}

/// What is wrong with a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailureKind {
    /// The registry has no such image.
    NotFound,
    /// The image is not there for the platform.
    NoPlatform,
    /// The registry refuses it to this proxy.
    Refused,
    /// The proxy is not there for the registry.
    NotIntercepted,
    /// The registry can't be reached, or is unwell.
    Unreachable,
    /// The registry has had enough of this proxy.
    Quota,
    /// It came, and the store could not keep it.
    NotKept,
    /// What came is no image.
    Unusable,
}

impl FailureKind {
    /// The status that a client would be told: by it what was asked wrong is known from what a
    /// registry lets one wait for.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::NotFound | Self::NoPlatform => StatusCode::NOT_FOUND,
            Self::Refused | Self::NotIntercepted => StatusCode::FORBIDDEN,
            Self::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Quota => StatusCode::TOO_MANY_REQUESTS,
            Self::NotKept => StatusCode::INSUFFICIENT_STORAGE,
            Self::Unusable => StatusCode::BAD_GATEWAY,
        }
    }
}

impl Failure {
    pub(super) fn not_intercepted(image: &ImageName) -> Self {
        let message = format!(
            "{image}: {} is not a registry that this proxy keeps images of: add it to \
             intercept-also",
            image.registry
        );
        Self { kind: FailureKind::NotIntercepted, message }
    }

    pub(super) fn no_platform(
        image: &ImageName,
        platform: &Platform,
        mut offered: Vec<String>,
    ) -> Self {
        offered.dedup();
        let offered = offered.join(", ");
        let message =
            format!("{image} is not there for {platform}; choose with --platform from: {offered}");
        Self { kind: FailureKind::NoPlatform, message }
    }

    pub(super) fn unusable(image: &ImageName, why: &dyn Display) -> Self {
        Self { kind: FailureKind::Unusable, message: format!("{image} can't be pulled: {why}") }
    }

    pub(super) fn not_kept(image: &ImageName) -> Self {
        let message = format!(
            "{image} came, but the store could not keep it: is max-size too small for it? Else look \
             for a full disk (min-free) or an error of the disk in the proxy's log"
        );
        Self { kind: FailureKind::NotKept, message }
    }

    pub(super) fn gone(image: &ImageName) -> Self {
        let message = format!(
            "{image} came, and not all of it is here any more: is max-size too small for it, or has \
             somebody removed it meanwhile?"
        );
        Self { kind: FailureKind::NotKept, message }
    }

    /// A blob that did not come to its end.
    pub(super) fn broken(image: &ImageName, error: &ResponseError) -> Self {
        match error {
            ResponseError::Digest(_)
            | ResponseError::Store(ReadError::DigestMismatch { .. } | ReadError::Damaged) => {
                Self::unusable(image, error)
            }
            ResponseError::Store(ReadError::Store(_)) => Self::not_kept(image),
            error => {
                let message = format!(
                    "{image}: {error}; what has come is kept, and the next pull goes on from there"
                );
                Self { kind: FailureKind::Unreachable, message }
            }
        }
    }

    /// An answer that is not what was asked for; `told` is what the registry says, or the proxy.
    pub(super) fn answered(image: &ImageName, status: StatusCode, told: Option<&str>) -> Self {
        let (registry, repository) = (&image.registry, &image.repository);
        let told = told.map(|told| format!(" ({told})")).unwrap_or_default();
        let (kind, what) = match status {
            StatusCode::NOT_FOUND => (
                FailureKind::NotFound,
                format!("{registry} has no such image{told}: check its name and tag"),
            ),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (
                FailureKind::Refused,
                format!(
                    "{registry} refuses it{told}: there is no {repository}, or it is private and \
                     this proxy needs credentials for it in a [[registry]] entry"
                ),
            ),
            StatusCode::TOO_MANY_REQUESTS => (
                FailureKind::Quota,
                format!(
                    "{registry} takes no more pulls for now{told}: wait, or give this proxy \
                     credentials with a larger quota in a [[registry]] entry"
                ),
            ),
            status if status.is_server_error() => (
                FailureKind::Unreachable,
                format!("{registry} can't be asked{told}: `entrepot check` says more"),
            ),
            status => (FailureKind::Unusable, format!("{registry} answered {status}{told}")),
        };
        Self { kind, message: format!("{image}: {what}") }
    }
}

/// The message in an error document (OCI distribution specification, "Error Codes").
pub(super) fn message(document: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(document).ok()?;
    let told = document.pointer("/errors/0/message")?.as_str()?;
    // Whatever a registry says ends up on a terminal.
    let told: String = told.chars().filter(|c| !c.is_control()).take(300).collect();
    Some(told).filter(|told| !told.is_empty())
}
