//! The decisions on a registry request: what is served from the store, what is fetched and kept,
//! what is only passed on.
//!
//! The rule that holds until a client's rights are remembered: an object leaves the store only
//! where *this registry has delivered it for this repository before* and *confirms, for this very
//! request's credential, that it would serve it now* (a `HEAD`). What a registry merely says it
//! has is never served from what another registry delivered.
//!
//! - `blobs`: blobs, from the store or into it
//! - `manifests`: manifests by digest and by tag
//! - `fill`: a download on its way into the store
//! - `object`, `multipart`: an object of the store as a response, in one part or several
//! - `relay`: everything that is only passed on
//! - `trouble`: a store that can't take downloads for now
//! - `ranges`: which part of an object is asked for
//! - `headers`: which fields cross the proxy, and which are ours
//! - `body`: the bodies that clients receive
//! - `errors`: failures, in the words that engines print

mod blobs;
pub mod body;
mod errors;
mod fill;
mod headers;
mod manifests;
mod multipart;
mod object;
pub mod ranges;
mod relay;
mod trouble;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio_util::task::TaskTracker;

pub use body::ResponseBody;
pub use errors::error_response;
pub use headers::{PRODUCT, is_own_via};

use crate::log::{Outcome, Subject};
use crate::oci::{
    Authority, ErrorCode, ErrorDocument, HostPattern, Registry, RepositoryName, Route,
};
use crate::upstream::body::{IdleBody, RequestBody};
use crate::upstream::{Scheme, Target, Upstream, UpstreamError};

/// Whether pushes go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Push {
    /// Relayed, under the client's own credential.
    #[default]
    Client,
    /// Refused with 405.
    Deny,
}

/// What an operator says of one registry, or of a family of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryRule {
    /// Which registries.
    pub host: HostPattern,
    /// How they are spoken to.
    pub scheme: Scheme,
}

/// How requests are decided.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `push`.
    pub push: Push,
    /// `[[registry]]`, the first that fits wins.
    pub registries: Vec<RegistryRule>,
}

/// An answer with what the log says of it.
pub struct Served {
    /// The answer.
    pub response: Response<ResponseBody>,
    /// How it came about.
    pub outcome: Outcome,
    /// Why it is what it is, where that is not obvious.
    pub reason: Option<String>,
}

impl Served {
    fn new(outcome: Outcome, response: Response<ResponseBody>) -> Self {
        Self { response, outcome, reason: None }
    }
}

/// The gateway; cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    parts: Arc<Parts>,
}

struct Parts {
    store: entrepot_cache::Store,
    upstream: Upstream,
    options: Options,
    fills: fill::Fills,
    trouble: trouble::Trouble,
    tasks: TaskTracker,
}

/// A registry request, parsed.
struct Asked {
    method: Method,
    target: Target,
    registry: Registry,
    headers: HeaderMap,
    body: Incoming,
}

impl Asked {
    fn new(
        scheme: Scheme,
        authority: Authority,
        registry: Registry,
        request: Request<Incoming>,
    ) -> Self {
        let (head, body) = request.into_parts();
        let path_and_query =
            head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        let target = Target { scheme, authority, path_and_query };
        Self { method: head.method, target, registry, headers: head.headers, body }
    }
}

impl Gateway {
    /// A gateway that keeps in `store` what `upstream` delivers; downloads run on `tasks`, so that
    /// they outlive their first client and a shutdown can wait for them.
    #[must_use]
    pub fn new(
        store: entrepot_cache::Store,
        upstream: Upstream,
        options: Options,
        tasks: TaskTracker,
    ) -> Self {
        let (fills, trouble) = Default::default();
        Self { parts: Arc::new(Parts { store, upstream, options, fills, trouble, tasks }) }
    }

    /// How the registry at `authority` is spoken to: by TLS unless the operator says otherwise,
    /// whatever the client used.
    fn scheme_for(&self, authority: &Authority) -> Scheme {
        let rules = &self.parts.options.registries;
        let rule = rules.iter().find(|rule| rule.host.matches(authority));
        rule.map_or(Scheme::Https, |rule| rule.scheme)
    }

    /// Answers a request that a client addressed to the registry at `authority`.
    pub async fn respond(
        &self,
        authority: &Authority,
        request: Request<Incoming>,
    ) -> (Served, Subject) {
        let uri = request.uri();
        let route = Route::parse(uri.path(), uri.query());
        let registry = Registry::at(authority);
        let subject = Subject::Registry {
            registry: registry.to_string(),
            route: route.clone(),
            path: uri.path().to_owned(),
        };
        let upstream = registry.authority(authority);
        let asked = Asked::new(self.scheme_for(authority), upstream, registry, request);
        let served = self.dispatch(&route, asked).await;
        (served, subject)
    }

    /// Sends a plain-HTTP request to a host that is no registry, and its answer back, unread.
    pub async fn forward(&self, authority: Authority, request: Request<Incoming>) -> Served {
        let registry = Registry::at(&authority);
        let asked = Asked::new(Scheme::Http, authority, registry, request);
        let name = asked.registry.clone();
        relay::serve(self, asked)
            .await
            .unwrap_or_else(|error| errors::upstream_failed(&name, &error))
    }

    /// The store's records of the repository that is asked about; none where the registry's name
    /// can't be a directory's (an IPv6 address).
    fn repository(
        &self,
        asked: &Asked,
        name: &RepositoryName,
    ) -> Option<entrepot_cache::Repository> {
        self.parts.store.repository(asked.registry.as_str(), name.as_str()).ok()
    }

    async fn dispatch(&self, route: &Route, asked: Asked) -> Served {
        let registry = asked.registry.clone();
        let answer = match (route, &asked.method) {
            (Route::Blob { repository, digest }, &Method::GET | &Method::HEAD) => {
                blobs::serve(self, asked, repository, digest).await
            }
            (Route::Manifest { repository, reference }, &Method::GET | &Method::HEAD) => {
                manifests::serve(self, asked, repository, reference).await
            }
            _ if self.parts.options.push == Push::Deny && is_write(&asked) => {
                return push_denied(&registry);
            }
            _ => relay::serve(self, asked).await,
        };
        answer.unwrap_or_else(|error| errors::upstream_failed(&registry, &error))
    }

    /// Sends a request on as it came, but for the fields that end here.
    async fn send(&self, asked: Asked) -> Result<Response<IdleBody>, UpstreamError> {
        let mut headers = headers::forwarded(&asked.headers);
        let has_content = matches!(asked.method, Method::POST | Method::PUT | Method::PATCH);
        if has_content && asked.body.is_end_stream() {
            // Some registries answer 411 to an upload's empty requests without it.
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        }
        let body = RequestBody::Client(asked.body);
        self.parts.upstream.send(asked.method, &asked.target, headers, body).await
    }
}

/// Whether a request changes something at a registry; pulls use POST with token servers.
fn is_write(asked: &Asked) -> bool {
    match asked.method {
        Method::PUT | Method::PATCH | Method::DELETE => true,
        Method::POST => asked.target.path().starts_with("/v2"),
        _ => false,
    }
}

fn push_denied(registry: &Registry) -> Served {
    let message =
        format!("{registry}: this proxy does not pass pushes on (push = \"deny\" is configured)");
    let document =
        ErrorDocument::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, message);
    Served::new(Outcome::Denied, error_response(&document))
}
