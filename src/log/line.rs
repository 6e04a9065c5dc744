//! The line a request leaves in the log.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use entrepot_oci::{Digest, Reference, Registry, Route};

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// From the store.
    Hit,
    /// From the registry, and kept.
    Miss,
    /// From another client's download.
    Joined,
    /// From the bucket that the replicas share, and kept.
    Bucket,
    /// From the replica that fetches it for all, and kept.
    Peer,
    /// From the store, after the registry confirmed that a tag still means it.
    Revalidated,
    /// From the store, because the registry could not be asked.
    Stale,
    /// From the registry, and not kept.
    Relay,
    /// Bytes passed through unread.
    Tunnel,
    /// Refused by the configuration.
    Denied,
    /// Neither the registry nor the store could answer.
    Error,
}

impl Outcome {
    /// All of them, in their order.
    pub const ALL: [Self; 11] = [
        Self::Hit,
        Self::Miss,
        Self::Joined,
        Self::Bucket,
        Self::Peer,
        Self::Revalidated,
        Self::Stale,
        Self::Relay,
        Self::Tunnel,
        Self::Denied,
        Self::Error,
    ];

    /// The word in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Joined => "joined",
            Self::Bucket => "bucket",
            Self::Peer => "peer",
            Self::Revalidated => "revalidated",
            Self::Stale => "stale",
            Self::Relay => "relay",
            Self::Tunnel => "tunnel",
            Self::Denied => "denied",
            Self::Error => "error",
        }
    }

    /// Whether the body needed no transfer of its own from a registry.
    #[must_use]
    pub fn is_from_store(self) -> bool {
        match self {
            Self::Hit
            | Self::Joined
            | Self::Bucket
            | Self::Peer
            | Self::Revalidated
            | Self::Stale => true,
            Self::Miss | Self::Relay | Self::Tunnel | Self::Denied | Self::Error => false,
        }
    }

    /// The word in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Miss => "MISS",
            Self::Joined => "JOINED",
            Self::Bucket => "BUCKET",
            Self::Peer => "PEER",
            Self::Revalidated => "REVALIDATED",
            Self::Stale => "STALE",
            Self::Relay => "RELAY",
            Self::Tunnel => "TUNNEL",
            Self::Denied => "DENIED",
            Self::Error => "ERROR",
        }
    }
}

/// What an image is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentKind {
    /// A manifest or an index.
    Manifest,
    /// A configuration or a layer.
    Blob,
}

impl ContentKind {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Manifest, Self::Blob];

    /// What a request for `route` is for, if it is for content.
    #[must_use]
    pub(crate) fn of(route: &Route) -> Option<Self> {
        match route {
            Route::Manifest { .. } => Some(Self::Manifest),
            Route::Blob { .. } => Some(Self::Blob),
            Route::Ping
            | Route::Tags { .. }
            | Route::Referrers { .. }
            | Route::Upload { .. }
            | Route::Api
            | Route::Other => None,
        }
    }

    /// The word in metrics.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
        }
    }
}

/// What a request was about, without its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A registry's resource.
    Registry {
        /// The registry's identity.
        registry: Registry,
        /// The route, with repository and object.
        route: Route,
        /// The path, where the route says too little.
        path: Option<String>,
    },
    /// A host that is no registry, or a page of the proxy's own.
    Other(String),
}

impl Subject {
    /// What a request to `registry` is about.
    #[must_use]
    pub fn of(registry: Registry, route: Route, path: &str) -> Self {
        let is_named = !matches!(route, Route::Ping | Route::Api | Route::Other);
        let path = (!is_named).then(|| path.to_owned());
        Self::Registry { registry, route, path }
    }

    /// The registry's identity, if it is about one.
    #[must_use]
    pub fn registry(&self) -> Option<&str> {
        match self {
            Self::Registry { registry, .. } => Some(registry.as_str()),
            Self::Other(_) => None,
        }
    }

    /// The kind of content that is asked for, if any is.
    #[must_use]
    pub(crate) fn content(&self) -> Option<ContentKind> {
        match self {
            Self::Registry { route, .. } => ContentKind::of(route),
            Self::Other(_) => None,
        }
    }

    /// The repository's name, if it is about one.
    #[must_use]
    pub fn repository(&self) -> Option<&str> {
        match self {
            Self::Registry { route, .. } => {
                route.repository().map(entrepot_oci::RepositoryName::as_str)
            }
            Self::Other(_) => None,
        }
    }

    /// What is asked for, in words, its digest cut to what tells objects apart.
    #[must_use]
    pub fn object(&self) -> String {
        self.object_with(|digest| Short(digest).to_string())
    }

    /// What is asked for, in words, with its whole digest.
    #[must_use]
    pub fn whole_object(&self) -> String {
        self.object_with(Digest::to_string)
    }

    fn object_with(&self, named: impl Fn(&Digest) -> String) -> String {
        let (route, path) = match self {
            Self::Other(what) => return what.clone(),
            Self::Registry { route, path, .. } => (route, path),
        };
        match route {
            Route::Blob { digest, .. } => format!("blob {}", named(digest)),
            Route::Manifest { reference: Reference::Digest(digest), .. } => {
                format!("manifest {}", named(digest))
            }
            Route::Manifest { reference: Reference::Tag(tag), .. } => format!("manifest {tag}"),
            Route::Referrers { subject, .. } => format!("referrers {}", named(subject)),
            Route::Tags { .. } => "tags".to_owned(),
            Route::Upload { .. } => "upload".to_owned(),
            Route::Ping | Route::Api | Route::Other => path.clone().unwrap_or_default(),
        }
    }
}

/// A digest cut to what tells objects apart in a log.
struct Short<'a>(&'a Digest);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.to_string();
        f.write_str(shortened(&whole).unwrap_or(&whole))?;
        f.write_str("\u{2026}")
    }
}

/// The beginning of a digest that tells objects apart, if this is one at its whole length.
pub(super) fn shortened(digest: &str) -> Option<&str> {
    const SHOWN: usize = 12;
    let (algorithm, hex) = digest.split_once(':')?;
    let is_whole = hex.len() >= 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    digest.get(..algorithm.len() + 1 + SHOWN).filter(|_| is_whole)
}

/// What tells a request's lines from those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(u64);

impl RequestId {
    fn random() -> Self {
        // Every state has keys of its own.
        Self(RandomState::new().build_hasher().finish())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Everything the log says of a request.
#[derive(Debug, Clone)]
pub struct RequestLine {
    /// Which request.
    pub id: RequestId,
    /// How it was answered.
    pub outcome: Outcome,
    /// The request's method.
    pub method: Method,
    /// What it was about.
    pub subject: Subject,
    /// The answer's status; none for a tunnel that was closed.
    pub status: Option<StatusCode>,
    /// Bytes of the body that the client took.
    pub body_bytes: u64,
    /// From the request's head to the end of the body.
    pub elapsed: Duration,
    /// Who asked.
    pub client: IpAddr,
    /// As which user of the proxy, where it asks for users.
    pub user: Option<Arc<str>>,
    /// By which program, as that says itself.
    pub user_agent: Option<Arc<str>>,
    /// Whether a replica has asked, on behalf of clients of its own.
    pub from_replica: bool,
    /// Why it ended early or was refused.
    pub reason: Option<String>,
}

/// Longer reasons are cut.
const LONGEST_REASON: usize = 1024;

/// The target of request lines, by which the text format knows them and `RUST_LOG` selects them.
pub(super) const TARGET: &str = "entrepot::request";

impl RequestLine {
    /// A line that has yet to learn what became of the request.
    #[must_use]
    pub fn new(outcome: Outcome, method: Method, subject: Subject, client: IpAddr) -> Self {
        Self {
            id: RequestId::random(),
            outcome,
            method,
            subject,
            status: None,
            body_bytes: 0,
            elapsed: Duration::ZERO,
            client,
            user: None,
            user_agent: None,
            from_replica: false,
            reason: None,
        }
    }

    /// The line with another outcome.
    #[must_use]
    pub fn with(self, outcome: Outcome) -> Self {
        Self { outcome, ..self }
    }

    /// The line with a reason, where there is one. Of a long one the beginning is kept: the last
    /// lines stay in memory, and a registry's own words may be in it.
    #[must_use]
    pub fn because(self, mut reason: Option<String>) -> Self {
        if let Some(reason) = &mut reason
            && reason.len() > LONGEST_REASON
        {
            reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
            reason.shrink_to_fit();
        }
        Self { reason, ..self }
    }

    /// Warns of an answer that took this long to begin.
    pub fn warn_of_wait(&self, waited: Duration) {
        let wait_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(
            id = %self.id,
            registry = self.subject.registry(),
            repository = self.subject.repository(),
            object = self.subject.whole_object(),
            wait_ms,
            "an answer was slow to begin"
        );
    }

    /// The line of a request that this user of the proxy makes.
    #[must_use]
    pub fn by(self, user: Option<Arc<str>>) -> Self {
        Self { user, ..self }
    }

    /// The line of a request that this program makes.
    #[must_use]
    pub fn from_program(self, user_agent: Option<Arc<str>>) -> Self {
        Self { user_agent, ..self }
    }

    /// The line of a request that a replica makes, or says that it does.
    #[must_use]
    pub fn from_replica(self, from_replica: bool) -> Self {
        Self { from_replica, ..self }
    }

    /// Writes the line, with every digest whole: the text format cuts them.
    pub fn emit(&self) {
        let elapsed_ms = u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            target: TARGET,
            id = %self.id,
            outcome = self.outcome.as_str(),
            method = self.method.as_str(),
            registry = self.subject.registry(),
            repository = self.subject.repository(),
            object = self.subject.whole_object(),
            status = self.status.map(|status| status.as_u16()),
            body_bytes = self.body_bytes,
            elapsed_ms,
            client = %self.client,
            user = self.user.as_deref(),
            user_agent = self.user_agent.as_deref(),
            reason = self.reason.as_deref(),
            "request"
        );
    }
}
