//! Connections to destinations: directly, or through the proxy that is on the way.
//!
//! A proxy resolves names itself, so that the rule on addresses can't be decided here for what
//! goes through one: only an address that stands in the destination itself is judged, and names
//! that every machine has for itself. The proxy's own place is the operator's word.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_oci::{Authority, Host};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::client::Scheme;
use super::dial::TcpDialer;
use super::error::{DialError, ProxyError, ProxyFailure, TlsError};
use super::proxy::{ForwardProxy, Proxies};
use super::reach::AddressRule;
use super::tls::handshake;
use super::trust::Trust;
use super::via;

/// The bytes of a destination itself, directly or through a tunnel.
pub(crate) type Link = Either<TcpStream, TokioIo<Upgraded>>;

/// A connection to a proxy, plain or TLS; TLS is boxed, since its state is large.
pub(super) type ProxyStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Makes connections to destinations; cheap to clone.
#[derive(Clone)]
pub(crate) struct Dialer {
    inner: Arc<DialerInner>,
}

struct DialerInner {
    tcp: TcpDialer,
    proxies: Proxies,
    trust: Trust,
}

impl Dialer {
    /// A dialler by these rules; `trust` is for proxies that are spoken to by TLS.
    #[must_use]
    pub(crate) fn new(tcp: TcpDialer, proxies: Proxies, trust: Trust) -> Self {
        Self { inner: Arc::new(DialerInner { tcp, proxies, trust }) }
    }

    /// For each half of the way: names and TCP, then whatever is spoken before the first request.
    pub(super) fn timeout(&self) -> Duration {
        self.inner.tcp.timeout
    }

    /// The proxy on the way. `connect-to` names the very place, so that none is.
    pub(super) fn proxy_for(&self, scheme: Scheme, authority: &Authority) -> Option<&ForwardProxy> {
        if self.inner.tcp.replacement(authority).is_some() {
            return None;
        }
        self.inner.proxies.on_the_way_to(scheme, authority)
    }

    /// A connection to `authority` itself. `rule` is decided on the address that is dialled;
    /// through a proxy, on the address that stands in `authority`, if one does. That proxy is told
    /// what the request, on whose behalf this is, has been [through](super::via), if any.
    ///
    /// Cancel safe: dropping the future closes what was opened.
    pub(crate) async fn connect(
        &self,
        authority: &Authority,
        rule: AddressRule,
        through: &HeaderMap,
    ) -> Result<Link, DialError> {
        let Some(proxy) = self.proxy_for(Scheme::Https, authority) else {
            return self.inner.tcp.connect(authority, rule).await.map(Either::Left);
        };
        judge_unresolved(authority, rule)?;
        let stream = self.reach(proxy).await?;
        let tunnel =
            tokio::time::timeout(self.timeout(), tunnel(stream, proxy, authority, through));
        match tunnel.await {
            Ok(opened) => opened.map(|io| Either::Right(TokioIo::new(io))),
            Err(_) => Err(ProxyFailure::Silent { after: self.timeout() }),
        }
        .map_err(|failure| failed(proxy, failure))
    }

    /// Whether `connect-to` leads connections for `authority` elsewhere.
    pub(super) fn leads_elsewhere(&self, authority: &Authority) -> bool {
        self.inner.tcp.replacement(authority).is_some()
    }

    /// A connection on which requests for `authority` are sent as they are: to it, or to a proxy
    /// that takes them in absolute form.
    pub(super) async fn connect_plain(
        &self,
        authority: &Authority,
        rule: AddressRule,
    ) -> Result<Either<TcpStream, ProxyStream>, DialError> {
        let Some(proxy) = self.proxy_for(Scheme::Http, authority) else {
            return self.inner.tcp.connect(authority, rule).await.map(Either::Left);
        };
        judge_unresolved(authority, rule)?;
        self.reach(proxy).await.map(Either::Right)
    }

    async fn reach(&self, proxy: &ForwardProxy) -> Result<ProxyStream, DialError> {
        let DialerInner { tcp, trust, .. } = &*self.inner;
        let dialled = tcp.dial(proxy.authority(), AddressRule::Any).await;
        let stream =
            dialled.map_err(|error| failed(proxy, ProxyFailure::Unreachable(Box::new(error))))?;
        if proxy.scheme() == Scheme::Http {
            return Ok(Either::Left(stream));
        }
        match handshake(trust.config_for(proxy.authority()), proxy.authority(), stream, tcp.timeout)
            .await
        {
            Ok(stream) => Ok(Either::Right(Box::new(stream))),
            Err(TlsError::SomethingElse { .. }) => Err(failed(proxy, ProxyFailure::NoTls)),
            Err(error) => Err(failed(proxy, ProxyFailure::Tls(Box::new(error)))),
        }
    }
}

fn failed(proxy: &ForwardProxy, failure: ProxyFailure) -> DialError {
    DialError::Proxy(ProxyError { proxy: proxy.to_string(), failure })
}

/// The rule on addresses, as far as it can be told without looking the name up: `localhost` is
/// loopback wherever it is looked up (RFC 6761 §6.3).
fn judge_unresolved(authority: &Authority, rule: AddressRule) -> Result<(), DialError> {
    let loopback = std::net::Ipv4Addr::LOCALHOST.into();
    let address = match authority.host() {
        Host::Ip(ip) => *ip,
        Host::Name(name) if &**name == "localhost" || name.ends_with(".localhost") => loopback,
        Host::Name(_) => return Ok(()),
    };
    if rule.allows(address) {
        return Ok(());
    }
    Err(DialError::NotPublic { authority: authority.clone(), address })
}

/// CONNECT (RFC 9110 §9.3.6): "any 2xx (Successful) response indicates that the sender (and all
/// inbound proxies) will switch to tunnel mode immediately after the response header section".
async fn tunnel(
    stream: ProxyStream,
    proxy: &ForwardProxy,
    authority: &Authority,
    through: &HeaderMap,
) -> Result<Upgraded, ProxyFailure> {
    let broken = |error: hyper::Error| ProxyFailure::Broken(error.to_string());
    let request = connect_request(authority, proxy.authorization(), through)
        .map_err(|error| ProxyFailure::Broken(error.to_string()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if !status.is_success() {
            return Err(ProxyFailure::Refused { status, authority: authority.clone() });
        }
        hyper::upgrade::on(response).await.map_err(broken)
    };
    let connection = async {
        // Its failures reach the exchange, and its end is no reason to stop reading the answer.
        drop(connection.with_upgrades().await);
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        opened = exchange => opened,
        never = connection => match never {},
    }
}

fn connect_request(
    authority: &Authority,
    authorization: Option<HeaderValue>,
    through: &HeaderMap,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let target = authority.to_string();
    let uri = Uri::try_from(target.as_str())?;
    let mut request = Request::connect(uri).header(header::HOST, target).body(Empty::new())?;
    if let Some(value) = authorization {
        request.headers_mut().insert(header::PROXY_AUTHORIZATION, value);
    }
    // Proxies that lead to each other would open tunnels until they have no place left.
    request.headers_mut().extend(via::of(through));
    via::sign(request.headers_mut());
    Ok(request)
}

/// What the answer to a request in absolute form means that only a proxy gives.
pub(super) fn proxy_refusal(
    proxy: &ForwardProxy,
    authority: &Authority,
    status: StatusCode,
) -> Option<DialError> {
    (status == StatusCode::PROXY_AUTHENTICATION_REQUIRED)
        .then(|| failed(proxy, ProxyFailure::Refused { status, authority: authority.clone() }))
}
