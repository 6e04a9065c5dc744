//! Requests to upstreams: pooled connections, timeouts, redirects.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, Uri, header, request};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use super::ConnectTo;
use super::body::{IdleBody, Progress, RequestBody, SentBody};
use super::connector::Connector;
use super::dial::{Dialer, Resolver};
use super::error::UpstreamError;
use super::reach::Exemptions;
use super::redirect::{self, Hop, MAX_HOPS, RedirectError};
use super::trust::{self, TrustError};
use crate::oci::Authority;

/// Idle connections kept to one host: a pull opens a handful at a time.
const MAX_IDLE_PER_HOST: usize = 32;
/// How long one is kept: registries and CDNs close theirs after 60 s or more.
const KEEP_IDLE: Duration = Duration::from_secs(50);

/// How upstreams are reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// `connect-to`.
    pub connect_to: Vec<ConnectTo>,
    /// `ca-files`.
    pub ca_files: Vec<PathBuf>,
    /// `ipv6`.
    pub ipv6: bool,
    /// `connect-timeout`: from the name to the end of the TLS handshake, each half.
    pub connect_timeout: Duration,
    /// `header-timeout`: from the end of the request to the answer's header.
    pub header_timeout: Duration,
    /// `idle-timeout`: the longest silence within a body.
    pub idle_timeout: Duration,
    /// Who may have a private address.
    pub exemptions: Exemptions,
}

impl Options {
    /// The dialler of these options, for connections that are not HTTP requests (tunnels).
    #[must_use]
    pub fn dialer(&self) -> Dialer {
        Dialer {
            connect_to: self.connect_to.clone(),
            ipv6: self.ipv6,
            timeout: self.connect_timeout,
            resolver: Resolver::System,
        }
    }
}

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// TLS.
    Https,
    /// An insecure registry, by the operator's word.
    Http,
}

impl Scheme {
    /// As it stands in a URI.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }

    /// The port that is left out of a URI.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

/// Whom to ask for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// How.
    pub scheme: Scheme,
    /// Whom.
    pub authority: Authority,
    /// For what: the path with its query, as it goes over the wire. May hold a signature.
    pub path_and_query: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.authority.to_host_field(self.scheme.default_port());
        write!(f, "{}://{host}{}", self.scheme.as_str(), self.path_and_query)
    }
}

/// The answer to a request whose redirects were followed.
pub struct Followed {
    /// The last response: the answer, or a redirect to another registry, which is the client's to
    /// follow since that registry decides by its own rules.
    pub response: Response<IdleBody>,
    /// Whether the registry sent us on to storage: its yes to this request.
    pub via_storage: bool,
}

impl Followed {
    /// Whether the registry would serve what was asked for.
    #[must_use]
    pub fn is_consent(&self) -> bool {
        self.via_storage || self.response.status().is_success()
    }
}

/// The pooled client; cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    pool: legacy::Client<Connector, SentBody>,
    header_timeout: Duration,
    idle_timeout: Duration,
}

impl Upstream {
    /// A client by these options. Reads the trust store: blocking.
    pub fn new(options: &Options) -> Result<Self, TrustError> {
        let tls = trust::client_config(&options.ca_files)?;
        Ok(Self::with_tls(options, options.dialer(), tls))
    }

    fn with_tls(options: &Options, dialer: Dialer, tls: Arc<rustls::ClientConfig>) -> Self {
        let connector = Connector::new(dialer, options.exemptions.clone(), tls);
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP_IDLE)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .build(connector);
        let Options { header_timeout, idle_timeout, .. } = *options;
        Self { pool, header_timeout, idle_timeout }
    }

    /// Sends one request to one host and waits for the answer's header.
    ///
    /// Cancel safe: dropping the future closes the connection or gives it back.
    pub async fn send(
        &self,
        method: Method,
        target: &Target,
        headers: HeaderMap,
        body: RequestBody,
    ) -> Result<Response<IdleBody>, UpstreamError> {
        let progress = Progress::new();
        let body = SentBody { body, progress: progress.clone() };
        let request = request(method, target, headers, body)?;
        let response = self.answered(&target.authority, request, &progress).await?;
        Ok(response.map(|body| IdleBody::new(body, self.idle_timeout)))
    }

    /// Waits for the header; the clock starts anew with every piece of the request that is sent.
    async fn answered(
        &self,
        authority: &Authority,
        request: Request<SentBody>,
        progress: &Progress,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut exchange = std::pin::pin!(self.pool.request(request));
        loop {
            let deadline = progress.last() + self.header_timeout;
            match tokio::time::timeout_at(deadline, &mut exchange).await {
                Ok(done) => return done.map_err(|e| UpstreamError::from_client(authority, &e)),
                Err(_) if progress.last() + self.header_timeout > Instant::now() => {}
                Err(_) => {
                    let after = self.header_timeout;
                    return Err(UpstreamError::HeaderTimeout {
                        authority: authority.clone(),
                        after,
                    });
                }
            }
        }
    }

    /// Sends a GET or HEAD and follows its redirects on the client's behalf.
    ///
    /// "Clients MUST NOT forward an Authorization header across host boundaries" (OCI distribution
    /// specification): once a redirect has left the host, no credential goes along any more.
    pub async fn follow(
        &self,
        method: Method,
        target: Target,
        mut headers: HeaderMap,
    ) -> Result<Followed, UpstreamError> {
        let mut target = target;
        let mut via_storage = false;
        for _ in 0..=MAX_HOPS {
            let body = RequestBody::Empty;
            let response = self.send(method.clone(), &target, headers.clone(), body).await?;
            let hop = redirect::hop(&target, response.status(), response.headers())
                .map_err(|source| redirected(&target, source))?;
            target = match hop {
                None | Some(Hop::OtherRegistry) => {
                    return Ok(Followed { response, via_storage });
                }
                Some(Hop::SameHost(next)) => next,
                Some(Hop::Storage(next)) => {
                    via_storage = true;
                    headers.remove(header::AUTHORIZATION);
                    headers.remove(header::COOKIE);
                    next
                }
            };
        }
        Err(redirected(&target, RedirectError::TooMany))
    }

    /// Sends a HEAD to learn whether the registry would serve this: by a 2xx, or by sending the
    /// client on to its storage, which need not be asked (some storage refuses HEAD).
    pub async fn inquire(
        &self,
        target: &Target,
        headers: HeaderMap,
    ) -> Result<Followed, UpstreamError> {
        let mut target = target.clone();
        for _ in 0..=MAX_HOPS {
            let body = RequestBody::Empty;
            let response = self.send(Method::HEAD, &target, headers.clone(), body).await?;
            let hop = redirect::hop(&target, response.status(), response.headers())
                .map_err(|source| redirected(&target, source))?;
            match hop {
                Some(Hop::SameHost(next)) => target = next,
                Some(Hop::Storage(_)) => {
                    return Ok(Followed { response, via_storage: true });
                }
                None | Some(Hop::OtherRegistry) => {
                    return Ok(Followed { response, via_storage: false });
                }
            }
        }
        Err(redirected(&target, RedirectError::TooMany))
    }
}

fn redirected(target: &Target, source: RedirectError) -> UpstreamError {
    UpstreamError::Redirect { authority: target.authority.clone(), source }
}

fn request(
    method: Method,
    target: &Target,
    headers: HeaderMap,
    body: SentBody,
) -> Result<Request<SentBody>, UpstreamError> {
    let broken =
        |reason: String| UpstreamError::Exchange { authority: target.authority.clone(), reason };
    let uri = Uri::try_from(target.to_string()).map_err(|error| broken(error.to_string()))?;
    let mut request: request::Builder = Request::builder().method(method).uri(uri);
    if let Some(fields) = request.headers_mut() {
        *fields = headers;
    }
    request.body(body).map_err(|error| broken(error.to_string()))
}
