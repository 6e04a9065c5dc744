//! Requests to upstreams: pooled connections, timeouts, redirects.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use entrepot_oci::host::HTTPS_PORT;
use entrepot_oci::{Authority, Registry, Route};
use futures_util::TryFutureExt as _;
use http::{HeaderMap, Method, Request, Response, Uri, header, request};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ConnectTo;
use super::body::{IdleBody, RequestBody, SendProgress, SentBody};
use super::breaker::{Admission, Breakers, Outage};
use super::certs::Certificates;
use super::connections::{
    Connections, Lane, OwnConnections, Pool, Use, offers_to_log_a_connection_in,
};
use super::dial::TcpDialer;
use super::error::{DialError, UpstreamError};
use super::fields::{beside_certificate, for_strangers};
use super::link::{Dialer, proxy_refusal};
use super::proxy::{ForwardProxy, Proxies};
use super::reach::{Exemptions, OwnListeners, PrivateNetworks};
use super::redirect::{self, Hop, MAX_HOPS, RedirectError};
use super::resolve::Resolver;
use super::setbacks::Setbacks;
use super::stream::{Reached, reached};
use super::trust::{Trust, TrustError};
use super::via;
use crate::metrics::{Behalf, HeldBack, Metrics};

/// Registries that one request may be sent on to: registry.k8s.io and lscr.io need one hop.
pub(crate) const MAX_REGISTRIES: usize = 3;
/// Interim responses (1xx) taken before an answer.
const MAX_INTERIM: usize = 16;
/// How long a host may take to answer a ping, which costs it nothing.
const EASY: Duration = Duration::from_secs(5);
/// How long at least a registry may take to answer a push, once all of it has gone.
const COMMIT: Duration = Duration::from_mins(4);

/// How upstreams are reached.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// `connect-to`.
    pub connect_to: Vec<ConnectTo>,
    /// `ca-files` and `certs-dir`.
    pub certificates: Certificates,
    /// `proxy`, `no-proxy`, and the environment's.
    pub proxies: Proxies,
    /// `ipv6`.
    pub ipv6: bool,
    /// `connect-timeout`: from the name to the end of the TLS handshake, at whichever address.
    pub connect_timeout: Duration,
    /// `header-timeout`: from the connection, or the last piece of the request, to the answer's
    /// header.
    pub header_timeout: Duration,
    /// `idle-timeout`: the longest silence within a body.
    pub idle_timeout: Duration,
    /// Who may have a private address.
    pub exemptions: Exemptions,
    /// `private-networks`.
    pub private: PrivateNetworks,
    /// Where this process listens.
    pub own: OwnListeners,
    /// `offline`: nothing is sent.
    pub offline: bool,
}

impl Options {
    fn tcp_dialer(&self) -> TcpDialer {
        TcpDialer {
            connect_to: self.connect_to.clone(),
            ipv6: self.ipv6,
            timeout: self.connect_timeout,
            resolver: Resolver::default(),
            private: self.private.clone(),
            own: self.own.clone(),
            offline: self.offline,
            setbacks: Setbacks::default(),
        }
    }
}

/// How long whom is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// For each step to a connection.
    pub connect: Duration,
    /// For an answer to begin.
    pub header: Duration,
    /// For the longest silence within a body.
    pub idle: Duration,
}

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    /// TLS.
    Https,
    /// An insecure registry, by the operator's word.
    Http,
}

impl Scheme {
    /// As it stands in a URI.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }

    /// The port that is left out of a URI.
    #[must_use]
    pub(crate) fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

/// Whom to ask for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// How.
    pub scheme: Scheme,
    /// Whom.
    pub authority: Authority,
    /// The port that is spoken to, whatever the name says.
    port: u16,
    /// For what: the path with its query, as it goes over the wire. May hold a signature.
    pub path_and_query: String,
}

impl Target {
    /// What the registry at `authority` is asked. One of plain HTTP that is named without a port is
    /// spoken to at that of plain HTTP: nobody speaks it on 443.
    #[must_use]
    pub(crate) fn of_registry(
        scheme: Scheme,
        authority: Authority,
        path_and_query: impl Into<String>,
    ) -> Self {
        let port = match (scheme, authority.port()) {
            (Scheme::Http, HTTPS_PORT) => scheme.default_port(),
            (_, port) => port,
        };
        Self { scheme, authority, port, path_and_query: path_and_query.into() }
    }

    /// What anybody else is asked, at the very port that stands in the URL.
    #[must_use]
    pub(crate) fn as_named(
        scheme: Scheme,
        authority: Authority,
        path_and_query: impl Into<String>,
    ) -> Self {
        let port = authority.port();
        Self { scheme, authority, port, path_and_query: path_and_query.into() }
    }

    /// Something else at the same place.
    #[must_use]
    pub(crate) fn at(&self, path_and_query: impl Into<String>) -> Self {
        Self { path_and_query: path_and_query.into(), ..self.clone() }
    }

    /// Whether both are asked at one place, in one way.
    #[must_use]
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.authority == other.authority && self.port == other.port
    }

    /// The path, without the query, which may hold a signature.
    #[must_use]
    pub(crate) fn path(&self) -> &str {
        self.path_and_query.split('?').next().unwrap_or_default()
    }

    /// The port that is spoken to.
    #[must_use]
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where that port is.
    #[must_use]
    pub(crate) fn destination(&self) -> Authority {
        Authority::new(self.authority.host().clone(), self.port())
    }

    /// The ping of the same registry.
    #[must_use]
    pub(crate) fn ping(&self) -> Self {
        self.at("/v2/")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.destination().to_host_field(self.scheme.default_port());
        write!(f, "{}://{host}{}", self.scheme.as_str(), self.path_and_query)
    }
}

/// The URL that gave an answer, kept in the response's extensions: what it names is relative to
/// that.
#[derive(Debug, Clone)]
pub(crate) struct AnsweredAt(pub(crate) Target);

/// What a request is about, as far as the operator's certificates are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errand {
    /// A pull, which they are for.
    Pull,
    /// Anything else, which they are not for.
    Other,
}

impl Errand {
    /// What a request for `route` of a registry is about.
    #[must_use]
    pub(crate) fn of(method: &Method, route: &Route) -> Self {
        let is_reading = matches!(*method, Method::GET | Method::HEAD);
        match route {
            Route::Ping
            | Route::Blob { .. }
            | Route::Manifest { .. }
            | Route::Tags { .. }
            | Route::Referrers { .. }
                if is_reading =>
            {
                Self::Pull
            }
            _ => Self::Other,
        }
    }
}

/// The answer to a request whose redirects were followed.
pub(crate) struct Followed {
    /// The last response: the answer, or a redirect to another registry, which is the client's to
    /// follow since that registry decides by its own rules.
    pub response: Response<IdleBody>,
    /// Where on that other registry the redirect leads, and to what there.
    pub elsewhere: Option<(Target, Route)>,
    /// The path in storage that the registry sent us on to, if it did; without the signature, and
    /// empty where it repeats what was asked for.
    storage_path: Option<String>,
}

impl Followed {
    /// The answer to a request whose redirects are the client's.
    #[must_use]
    pub(crate) fn at_once(response: Response<IdleBody>) -> Self {
        Self { response, elsewhere: None, storage_path: None }
    }

    /// Whether the registry itself gave the answer, and not storage that it sent us on to.
    #[must_use]
    pub(crate) fn is_from_registry(&self) -> bool {
        self.storage_path.is_none()
    }

    /// Whether the registry sent us on to storage under a path with this name in it: its yes to a
    /// request for this object. (A login page has the object in its query at most.)
    #[must_use]
    pub(crate) fn names(&self, object: &str) -> bool {
        self.storage_path.as_ref().is_some_and(|path| path.contains(object))
    }
}

/// The pooled client; cheap to clone.
#[derive(Clone)]
pub(crate) struct Upstream {
    connections: Connections,
    dialer: Dialer,
    /// The client for hosts that are no registries; `None` in itself.
    strangers: Option<Arc<Upstream>>,
    /// None where somebody else knows who is there.
    breakers: Option<Breakers>,
    is_offline: bool,
    header_timeout: Duration,
    idle_timeout: Duration,
    metrics: Metrics,
}

impl Upstream {
    /// A client by these options, which counts what it does. Reads the trust store: blocking.
    pub(crate) fn new(options: &Options, metrics: Metrics) -> Result<Self, TrustError> {
        let trust = Trust::new(options.certificates.clone())?;
        let named: BTreeSet<_> = options.proxies.all().map(ToString::to_string).collect();
        for proxy in named {
            tracing::info!(proxy, "upstreams are reached through a proxy");
        }
        let strangers = Self::with(options, metrics.clone(), trust.clone(), None);
        Ok(Self::with(options, metrics, trust, Some(Arc::new(strangers))))
    }

    fn with(
        options: &Options,
        metrics: Metrics,
        trust: Trust,
        strangers: Option<Arc<Self>>,
    ) -> Self {
        let dialer = Dialer::new(options.tcp_dialer(), options.proxies.clone(), trust);
        let connections = Connections::new(&dialer, &options.exemptions);
        let Options { header_timeout, idle_timeout, .. } = *options;
        let breakers = Some(Breakers::default());
        let is_offline = options.offline;
        Self {
            connections,
            dialer,
            strangers,
            breakers,
            is_offline,
            header_timeout,
            idle_timeout,
            metrics,
        }
    }

    /// A client that reaches every host through `proxy` and nothing else, and believes `trust`
    /// alone of what answers there. Whether the proxy is there is somebody else's to know.
    pub(crate) fn through(
        proxy: ForwardProxy,
        trust: Trust,
        timeouts: Timeouts,
        metrics: Metrics,
    ) -> Self {
        let proxies = Proxies { https: Some(proxy), ..Proxies::default() };
        let options = Options {
            connect_to: Vec::new(),
            certificates: Certificates::default(),
            proxies,
            ipv6: true,
            connect_timeout: timeouts.connect,
            header_timeout: timeouts.header,
            idle_timeout: timeouts.idle,
            exemptions: Exemptions { everything: true, ..Exemptions::default() },
            private: PrivateNetworks::default(),
            own: OwnListeners::default(),
            offline: false,
        };
        Self { breakers: None, ..Self::with(&options, metrics, trust, None) }
    }

    /// Who asks hosts that clients name, and that are no registries: they share no connection, no
    /// lookup of a name and no breaker with the registries, and so can't take their turns.
    #[must_use]
    pub(crate) fn for_strangers(&self) -> &Self {
        self.strangers.as_deref().unwrap_or(self)
    }

    /// Who makes its connections, for what is no HTTP request (tunnels).
    #[must_use]
    pub(crate) fn dialer(&self) -> Dialer {
        self.dialer.clone()
    }

    /// Where is counted what it does.
    #[must_use]
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What tells the operator's certificate for the registry at `authority` from others, if there
    /// is one; never a secret.
    #[must_use]
    pub(crate) fn certificate_label(&self, authority: &Authority) -> Option<&str> {
        self.dialer.certificate_label(authority)
    }

    /// On behalf of whoever is asked at `target`, as itself: a token server, a host of no
    /// registry's.
    pub(crate) fn behalf_of(&self, target: &Target) -> Behalf {
        self.metrics.asking_others(Registry::at(&target.authority).as_str())
    }

    /// Sends one request to one host and waits for the answer's header. A body, and a login of a
    /// connection, goes by `own` connections of its client's, or by one that is used once.
    ///
    /// Cancel safe: dropping the future closes the connection or gives it back.
    pub(crate) async fn send(
        &self,
        Sending { behalf, errand, own }: Sending<'_>,
        method: Method,
        target: &Target,
        mut headers: HeaderMap,
        body: RequestBody,
    ) -> Result<Response<IdleBody>, UpstreamError> {
        let progress = SendProgress::new();
        let lane = self.connections.lane(errand, target, &headers, !body.is_end_stream());
        if lane == Lane::Identified {
            headers = beside_certificate(&headers);
        }
        let body = SentBody { body, progress: progress.clone() };
        let proxy = self.connections.connector().proxy_that_reads(target);
        via::sign(&mut headers, target.authority.host());
        // Whatever stood there was for us.
        headers.remove(header::PROXY_AUTHORIZATION);
        if let Some(value) = proxy.and_then(ForwardProxy::authorization) {
            headers.insert(header::PROXY_AUTHORIZATION, value);
        }
        // What a client sends may take as long as the client likes: it tells nothing of the host.
        let is_clients = matches!(body.body, RequestBody::Client(_));
        let request = request(method.clone(), target, headers, body)?;
        let admission = if is_clients { None } else { self.admitted(behalf, target)? };
        // A registry may have gigabytes to put in place before it says that a push has come.
        let is_reading = matches!(method, Method::GET | Method::HEAD);
        let least = if is_clients && !is_reading { COMMIT } else { Duration::ZERO };
        let most = self.header_timeout.max(least);
        let pool = self.connections.of(lane, target, own);
        let by = (&pool, lane);
        let answered = self.answered(by, &target.authority, request, &progress, most).await;
        let has_certificate = self.certificate_label(&target.authority).is_some();
        let is_withheld = has_certificate && lane != Lane::Identified;
        let answered = answered.map_err(|error| if is_withheld { error.withheld() } else { error });
        let status = answered.as_ref().ok().map(Response::status);
        behalf.asked(&method, status);
        let is_silent = answered.as_ref().is_err_and(UpstreamError::is_silence);
        let response = match admission {
            Some(admission)
                if is_silent && admission.is_in_doubt() && self.says_anything(by, target).await =>
            {
                admission.end(Ok(()))?;
                answered?
            }
            Some(admission) => admission.end(answered)?,
            None => answered?,
        };
        check_coding(&target.authority, response.headers())?;
        let refusal = |proxy| proxy_refusal(proxy, &target.authority, response.status());
        if let Some(refused) = proxy.and_then(refusal) {
            return Err(refused.into());
        }
        let mut response = response;
        response.extensions_mut().insert(AnsweredAt(target.clone()));
        Ok(response.map(|body| IdleBody::new(body, self.idle_timeout, behalf.clone())))
    }

    /// Whether the host that is asked at `target` answers the easiest question that there is.
    async fn says_anything(&self, by: (&Pool, Lane), target: &Target) -> bool {
        let ping = target.ping();
        let mut headers = HeaderMap::new();
        via::sign(&mut headers, ping.authority.host());
        let proxy = self.connections.connector().proxy_that_reads(&ping);
        if let Some(value) = proxy.and_then(ForwardProxy::authorization) {
            headers.insert(header::PROXY_AUTHORIZATION, value);
        }
        let progress = SendProgress::new();
        let body = SentBody { body: RequestBody::Empty, progress: progress.clone() };
        let Ok(request) = request(Method::GET, &ping, headers, body) else { return false };
        let most = EASY.min(self.header_timeout);
        self.answered(by, &ping.authority, request, &progress, most).await.is_ok()
    }

    fn admitted(
        &self,
        behalf: &Behalf,
        target: &Target,
    ) -> Result<Option<Admission>, UpstreamError> {
        let breakers = self.breakers.as_ref();
        let admitted = breakers.map(|breakers| breakers.admit(&target.authority)).transpose();
        admitted.inspect_err(|_| behalf.held_back(HeldBack::Unreachable))
    }

    /// Why a request to `authority` would fail before it is sent, if it would.
    #[must_use]
    pub(crate) fn would_refuse(&self, authority: &Authority) -> Option<UpstreamError> {
        if self.is_offline {
            let authority = authority.clone();
            return Some(DialError::Offline { authority }.into());
        }
        // The right to ask is given back at once.
        self.breakers.as_ref()?.admit(authority).err()
    }

    /// What can't be reached now.
    #[must_use]
    pub(crate) fn outages(&self) -> Vec<Outage> {
        self.breakers.as_ref().map(Breakers::outages).unwrap_or_default()
    }

    /// Waits for the header, `most` at a time. The clock starts when there is a connection (making
    /// one has limits of its own), and anew with every piece of the request that is sent.
    async fn answered(
        &self,
        by: (&Pool, Lane),
        authority: &Authority,
        mut request: Request<SentBody>,
        progress: &SendProgress,
        most: Duration,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let interim = bound_interim(&mut request);
        let answer = tokio::select! {
            answer = self.answered_at_all(by, authority, request, progress, most) => answer,
            () = interim.cancelled() => Err(too_many_interim(authority)),
        };
        if interim.is_cancelled() { Err(too_many_interim(authority)) } else { answer }
    }

    async fn answered_at_all(
        &self,
        (pool, lane): (&Pool, Lane),
        authority: &Authority,
        mut request: Request<SentBody>,
        progress: &SendProgress,
        most: Duration,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let is_clients = matches!(request.body().body, RequestBody::Client(_));
        let mut connection = capture_connection(&mut request);
        let told = connection.clone();
        let failed = |error| {
            // What a client sends may break off for reasons of its own.
            if let Some(Reached(address)) = reached(&told).filter(|_| !is_clients) {
                self.dialer.set_back(address);
            }
            UpstreamError::from_client(authority, &error)
        };
        let exchange = pool.request(request).inspect_ok(|response| {
            // The connection of a login goes on with it.
            if lane != Lane::Own(Use::Login) && offers_to_log_a_connection_in(response.headers()) {
                set_apart(&told);
            }
        });
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            biased;
            done = &mut exchange => return done.map_err(failed),
            _ = connection.wait_for_connection_metadata() => progress.mark(),
        }
        loop {
            let deadline = progress.last() + most;
            match tokio::time::timeout_at(deadline, &mut exchange).await {
                Ok(done) => return done.map_err(failed),
                Err(_) if progress.last() + most > Instant::now() => {}
                Err(_) => {
                    let authority = authority.clone();
                    return Err(UpstreamError::HeaderTimeout { authority, after: most });
                }
            }
        }
    }

    /// Sends a GET or HEAD and follows its redirects, hop by hop, until an answer, or until storage
    /// under a path that names `object`: that need not be asked where only the registry's yes is
    /// wanted (some refuses HEAD).
    ///
    /// "Clients MUST NOT forward an Authorization header across host boundaries" (OCI distribution
    /// specification): once a redirect has left the host, no credential goes along any more.
    pub(crate) async fn walk(
        &self,
        mut sending: Sending<'_>,
        method: Method,
        mut target: Target,
        mut headers: HeaderMap,
        object: Option<&str>,
    ) -> Result<Followed, UpstreamError> {
        let mut storage_path = None;
        let asked = target.clone();
        for _ in 0..=MAX_HOPS {
            let body = RequestBody::Empty;
            let asking = self.send(sending, method.clone(), &target, headers.clone(), body);
            let response = asking.await?;
            let hop = redirect::hop(&target, response.status(), response.headers())
                .map_err(|source| redirected(&target, source))?;
            target = match hop {
                None => return Ok(Followed { response, elsewhere: None, storage_path }),
                Some(Hop::OtherRegistry(next, route)) => {
                    let elsewhere = Some((next, route));
                    return Ok(Followed { response, elsewhere, storage_path });
                }
                Some(Hop::SameHost(next)) => next,
                Some(Hop::Storage(next)) => {
                    // A login page is told where to lead back to.
                    let path =
                        if redirect::repeats(next.path(), asked.path()) { "" } else { next.path() };
                    let is_named = object.is_some_and(|object| path.contains(object));
                    storage_path = Some(path.to_owned());
                    if is_named {
                        return Ok(Followed { response, elsewhere: None, storage_path });
                    }
                    headers = for_strangers(&headers);
                    sending.errand = Errand::Other;
                    next
                }
            };
        }
        Err(redirected(&target, RedirectError::TooMany))
    }
}

/// On whose behalf a request is sent, and for what.
#[derive(Clone, Copy)]
pub(crate) struct Sending<'a> {
    /// What counts it, wherever it goes.
    pub behalf: &'a Behalf,
    /// What it is about.
    pub errand: Errand,
    /// The connections that its client has for itself, if it has any.
    pub own: Option<&'a OwnConnections>,
}

impl<'a> Sending<'a> {
    /// On this behalf, by connections that everybody uses.
    #[must_use]
    pub(crate) fn shared(behalf: &'a Behalf, errand: Errand) -> Self {
        Self { behalf, errand, own: None }
    }
}

/// Keeps a connection from being used by anybody else.
fn set_apart(connection: &CaptureConnection) {
    if let Some(connected) = connection.connection_metadata().as_ref() {
        connected.poison();
    }
}

/// Cancelled once more interim responses have come than any server has a use for.
fn bound_interim(request: &mut Request<SentBody>) -> CancellationToken {
    let (count, too_many) = (AtomicUsize::new(0), CancellationToken::new());
    let cancel = too_many.clone();
    hyper::ext::on_informational(request, move |_| {
        if count.fetch_add(1, Ordering::Relaxed) >= MAX_INTERIM {
            cancel.cancel();
        }
    });
    too_many
}

fn too_many_interim(authority: &Authority) -> UpstreamError {
    let reason = format!("more than {MAX_INTERIM} interim responses");
    UpstreamError::Exchange { authority: authority.clone(), reason }
}

/// A coding of the transfer other than `chunked` would end here without being undone: hyper takes
/// what is before it for the body.
pub(super) fn check_coding(
    authority: &Authority,
    headers: &HeaderMap,
) -> Result<(), UpstreamError> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(UpstreamError::Exchange {
            authority: authority.clone(),
            reason: "its answer has a transfer coding that is not chunked alone".to_owned(),
        }),
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
