//! A pull that is over.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use entrepot_oci::{Digest, Registry, RepositoryName, Tag};

/// What those are told is the client of a pull ahead of time.
const OPERATOR: &str = "operator";
/// The target of these lines.
const TARGET: &str = "entrepot::pull";

/// Who has pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Puller {
    /// A client at this address.
    Client(IpAddr),
    /// The operator, ahead of time.
    Operator,
}

impl Puller {
    /// In words.
    #[must_use]
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Client(address) => address.to_string(),
            Self::Operator => OPERATOR.to_owned(),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All that the image's manifest names was served.
    Complete,
    /// Some of it was served, and no more was asked for: the engine has the rest.
    Partial,
    /// Manifests alone were asked for: the engine has all the rest.
    ManifestOnly,
    /// It was only asked what a name stands for (HEAD): the engine has that, or somebody looks
    /// whether there is something new.
    Checked,
    /// The client left in the middle of something, and did not come back for it.
    Abandoned,
    /// Something of it could not be served.
    Failed,
}

impl Outcome {
    /// The word for it.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::ManifestOnly => "manifest-only",
            Self::Checked => "checked",
            Self::Abandoned => "abandoned",
            Self::Failed => "failed",
        }
    }

    /// Whether an image was pulled.
    #[must_use]
    pub(crate) fn is_pull(self) -> bool {
        match self {
            Self::Complete | Self::Partial | Self::ManifestOnly => true,
            Self::Checked | Self::Abandoned | Self::Failed => false,
        }
    }
}

/// A pull that is over.
#[derive(Debug, Clone)]
pub(crate) struct PullEvent {
    /// How many were over before it.
    pub number: u64,
    /// When it was over.
    pub at: SystemTime,
    /// Who has pulled.
    pub puller: Puller,
    /// As which user of the proxy.
    pub user: Option<Arc<str>>,
    /// By which program, as it says itself.
    pub user_agent: Option<Arc<str>>,
    /// From which registry.
    pub registry: Registry,
    /// What of it.
    pub repository: RepositoryName,
    /// By which tag, if by one.
    pub tag: Option<Tag>,
    /// The manifest or index that was meant; unknown where nothing was told of it.
    pub digest: Option<Digest>,
    /// For which machine, where that is known.
    pub platform: Option<String>,
    /// Bytes that went to the client.
    pub bytes: u64,
    /// Those of them that needed no transfer of their own.
    pub bytes_from_cache: u64,
    /// Whether nothing at all needed one, where there were no bytes.
    pub is_all_from_cache: bool,
    /// From the first request to the end of the last answer.
    pub duration: Duration,
    /// What came of it.
    pub outcome: Outcome,
    /// What it cost of the registry's quota.
    pub quota_pulls: u64,
    /// Why it failed.
    pub reason: Option<String>,
}

impl PullEvent {
    /// `docker.io/library/alpine:3.20`, or with a digest.
    #[must_use]
    pub(crate) fn image(&self) -> String {
        let Self { registry, repository, .. } = self;
        match (&self.tag, &self.digest) {
            (Some(tag), _) => format!("{registry}/{repository}:{tag}"),
            (None, Some(digest)) => format!("{registry}/{repository}@{digest}"),
            (None, None) => format!("{registry}/{repository}"),
        }
    }

    /// The tag, or else the digest, by which it was asked for.
    #[must_use]
    pub(crate) fn reference(&self) -> Option<String> {
        let tag = self.tag.as_ref().map(ToString::to_string);
        tag.or_else(|| self.digest.map(|digest| digest.to_string()))
    }

    /// Which part of the bytes needed no transfer of its own, to three digits.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share is told to three digits")]
    pub(crate) fn share_from_cache(&self) -> f64 {
        if self.bytes == 0 {
            return if self.is_all_from_cache { 1.0 } else { 0.0 };
        }
        let share = self.bytes_from_cache as f64 / self.bytes as f64;
        (share * 1000.0).round() / 1000.0
    }

    /// Its duration in milliseconds.
    #[must_use]
    pub(crate) fn duration_ms(&self) -> u64 {
        u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX)
    }

    /// Writes its line.
    pub(super) fn emit(&self) {
        tracing::info!(
            target: TARGET,
            client = self.puller.name(),
            user = self.user.as_deref(),
            user_agent = self.user_agent.as_deref(),
            image = self.image(),
            registry = self.registry.as_str(),
            repository = self.repository.as_str(),
            tag = self.tag.as_ref().map(ToString::to_string),
            digest = self.digest.map(|digest| digest.to_string()),
            platform = self.platform.as_deref(),
            bytes = self.bytes,
            bytes_from_cache = self.bytes_from_cache,
            share_from_cache = self.share_from_cache(),
            duration_ms = self.duration_ms(),
            outcome = self.outcome.label(),
            quota_pulls = self.quota_pulls,
            reason = self.reason.as_deref(),
            "pull"
        );
    }
}
