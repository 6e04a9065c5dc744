//! Connections to destinations: directly, or through the proxy that is on the way.
//!
//! A proxy resolves names itself, so that the rule on addresses can't be decided here for what
//! goes through one: only an address that stands in the destination itself is judged, and names
//! that every machine has for itself. The proxy's own place is the operator's word.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_oci::{Authority, Host};
use futures_util::TryFutureExt as _;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::client::Scheme;
use super::dial::{Deadline, NoConnection, TcpDialer, Unopened, of_dialling, refused};
use super::error::{DialError, ProxyError, ProxyFailure, TlsError, UpstreamError};
use super::proxy::{ForwardProxy, Proxies};
use super::reach::{AddressRule, OwnListeners, PrivateNetworks, is_loopback_name};
use super::resolve::Resolver;
use super::setbacks::Setbacks;
use super::tls::handshake;
use super::trust::{Certificate, Trust};
use super::via;
use crate::words::of_exchange;

/// The bytes of a destination itself, directly or through a tunnel.
pub(crate) type Link = Either<TcpStream, TokioIo<Upgraded>>;

/// A connection to a proxy, plain or TLS; TLS is boxed, since its state is large.
pub(crate) type ProxyStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

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

    /// A dialler that goes straight to wherever it is told, but not to where this process itself
    /// listens.
    #[must_use]
    pub(crate) fn straight(timeout: Duration, own: OwnListeners, trust: Trust) -> Self {
        let tcp = TcpDialer {
            connect_to: Vec::new(),
            ipv6: true,
            timeout,
            resolver: Resolver::default(),
            private: PrivateNetworks::default(),
            own,
            offline: false,
            setbacks: Setbacks::default(),
        };
        Self::new(tcp, Proxies::default(), trust)
    }

    /// One by the same rules for what is no registry, and is asked offline as well. It shares no
    /// lookup of a name with others, nor what is known of addresses.
    #[must_use]
    pub(crate) fn for_services(&self) -> Self {
        let DialerInner { tcp, proxies, trust } = &*self.inner;
        let tcp = TcpDialer {
            offline: false,
            resolver: tcp.resolver.anew(),
            setbacks: Setbacks::default(),
            ..tcp.clone()
        };
        Self::new(tcp, proxies.clone(), trust.clone())
    }

    /// A connection to `authority` itself, whatever else is configured for the way there.
    pub(super) async fn connect_straight(
        &self,
        authority: &Authority,
    ) -> Result<TcpStream, DialError> {
        let opening = |stream, _| std::future::ready(Ok(stream));
        let opened = self.inner.tcp.open_at(authority, authority, AddressRule::Any, opening).await;
        opened.map_err(of_dialling)
    }

    /// For each step of the way.
    fn timeout(&self) -> Duration {
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
        self.judge_unresolved(authority, rule)?;
        let stream = self.reach(proxy).await?;
        let tunnel =
            tokio::time::timeout(self.timeout(), tunnel(stream, proxy, authority, through));
        match tunnel.await {
            Ok(opened) => opened.map(|io| Either::Right(TokioIo::new(io))),
            Err(_) => Err(ProxyFailure::Silent { after: self.timeout() }),
        }
        .map_err(|failure| failed(proxy, failure))
    }

    /// What tells the operator's certificate for `authority` from others, if there is one.
    pub(super) fn certificate_label(&self, authority: &Authority) -> Option<&str> {
        self.inner.trust.label_for(authority)
    }

    /// Whether `connect-to` leads connections for `authority` elsewhere.
    pub(super) fn leads_elsewhere(&self, authority: &Authority) -> bool {
        self.inner.tcp.replacement(authority).is_some()
    }

    /// A TLS connection to `authority` itself, for a request of our own.
    pub(super) async fn connect_tls(
        &self,
        authority: &Authority,
        rule: AddressRule,
        certificate: Certificate,
    ) -> Result<TlsStream<Link>, UpstreamError> {
        let config = self.inner.trust.config_for(authority, certificate);
        if self.proxy_for(Scheme::Https, authority).is_some() {
            let link = self.connect(authority, rule, &HeaderMap::new()).await?;
            let deadline = Deadline::after(self.timeout());
            return Ok(handshake(config, authority, link, deadline).await?);
        }
        let opening = |stream, deadline| {
            handshake(config.clone(), authority, Either::Left(stream), deadline).map_err(unopened)
        };
        self.inner.tcp.open(authority, rule, opening).await.map_err(|failed| match failed {
            NoConnection::Dial(error) => error.into(),
            NoConnection::Opening(error) => error.into(),
        })
    }

    /// Notes that at this address of a destination nothing was to be had.
    pub(crate) fn set_back(&self, address: SocketAddr) {
        self.inner.tcp.setbacks.note(address);
    }

    /// A connection on which requests for `authority` are sent as they are: to it, or to a proxy
    /// that takes them in absolute form.
    pub(crate) async fn connect_plain(
        &self,
        authority: &Authority,
        rule: AddressRule,
    ) -> Result<Either<TcpStream, ProxyStream>, DialError> {
        let Some(proxy) = self.proxy_for(Scheme::Http, authority) else {
            return self.inner.tcp.connect(authority, rule).await.map(Either::Left);
        };
        self.judge_unresolved(authority, rule)?;
        self.reach(proxy).await.map(Either::Right)
    }

    /// The rule on addresses, as far as it can be told without looking the name up.
    fn judge_unresolved(&self, authority: &Authority, rule: AddressRule) -> Result<(), DialError> {
        let address = match authority.host() {
            Host::Ip(ip) => *ip,
            host if is_loopback_name(host) => std::net::Ipv4Addr::LOCALHOST.into(),
            Host::Name(_) => return Ok(()),
        };
        if self.inner.tcp.private.allow(rule, address) {
            return Ok(());
        }
        Err(refused(authority, rule))
    }

    async fn reach(&self, proxy: &ForwardProxy) -> Result<ProxyStream, DialError> {
        let DialerInner { tcp, trust, .. } = &*self.inner;
        // One for a proxy is the operator's word to that proxy, whatever goes through it.
        let config = trust.config_for(proxy.authority(), Certificate::Shown);
        let opening = |stream, deadline| {
            let config = config.clone();
            async move {
                if proxy.scheme() == Scheme::Http {
                    return Ok(Either::Left(stream));
                }
                let opened = handshake(config, proxy.authority(), stream, deadline).await;
                opened.map(|stream| Either::Right(Box::new(stream))).map_err(unopened)
            }
        };
        let place = proxy.authority();
        let opened = tcp.open_at(place, place, AddressRule::Any, opening).await;
        opened.map_err(|failure| {
            let failure = match failure {
                NoConnection::Dial(error) => ProxyFailure::Unreachable(Box::new(error)),
                NoConnection::Opening(TlsError::SomethingElse { .. }) => ProxyFailure::NoTls,
                NoConnection::Opening(error) => ProxyFailure::Tls(Box::new(error)),
            };
            failed(proxy, failure)
        })
    }
}

/// The address at the far end, unless a proxy on the way has it.
pub(crate) fn far_address(link: &Link) -> Option<SocketAddr> {
    match link {
        Either::Left(stream) => stream.peer_addr().ok(),
        Either::Right(_) => None,
    }
}

fn unopened(error: TlsError) -> Unopened<TlsError> {
    if error.is_of_address() { Unopened::Address(error) } else { Unopened::Host(error) }
}

fn failed(proxy: &ForwardProxy, failure: ProxyFailure) -> DialError {
    DialError::Proxy(ProxyError { proxy: proxy.to_string(), failure })
}

/// CONNECT (RFC 9110 §9.3.6): "any 2xx (Successful) response indicates that the sender (and all
/// inbound proxies) will switch to tunnel mode immediately after the response header section".
async fn tunnel(
    stream: ProxyStream,
    proxy: &ForwardProxy,
    authority: &Authority,
    through: &HeaderMap,
) -> Result<Upgraded, ProxyFailure> {
    let broken = |error: hyper::Error| ProxyFailure::Broken(of_exchange(&error));
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
    via::sign(request.headers_mut(), authority.host());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::certs::Certificates;
    use entrepot_testkit::{Response, Server, TestCa};
    use std::io::Read as _;
    use std::net::TcpListener;

    /// A name with two addresses: a place where no handshake comes about, and a good server.
    fn beside(ca: &TestCa, bad: fn(TcpListener)) -> (Server, Dialer, Authority) {
        loop {
            let server = Server::https(ca.leaf(&["two.test"]), |_: &_| Response::new(200));
            let port = server.address().port();
            // Somebody else may have that port there: then another is tried.
            let Ok(listener) = TcpListener::bind(("127.0.0.2", port)) else { continue };
            std::thread::spawn(move || bad(listener));
            let addresses = ["127.0.0.2", "127.0.0.1"].map(|ip| ip.parse().unwrap()).to_vec();
            let tcp = TcpDialer {
                connect_to: Vec::new(),
                ipv6: true,
                timeout: Duration::from_secs(10),
                resolver: Resolver::Table([("two.test".to_owned(), addresses)].into()),
                private: PrivateNetworks::default(),
                own: OwnListeners::default(),
                offline: false,
                setbacks: Setbacks::default(),
            };
            let mut certificates = Certificates::default();
            certificates.add_ca_file(&ca.pem_file()).unwrap();
            let dialer = Dialer::new(tcp, Proxies::default(), Trust::new(certificates).unwrap());
            return (server, dialer, Authority::new("two.test".parse().unwrap(), port));
        }
    }

    #[tokio::test]
    async fn a_handshake_that_comes_to_nothing_is_begun_at_the_next_address() {
        let closes = |listener: TcpListener| {
            listener.incoming().for_each(drop);
        };
        let resets = |listener: TcpListener| {
            for stream in listener.incoming().flatten() {
                // What is unread makes the end a reset.
                drop((&stream).read(&mut [0; 8]));
            }
        };
        let is_silent = |listener: TcpListener| {
            let kept: Vec<_> = listener.incoming().collect();
            drop(kept);
        };
        let ca = TestCa::new("everybody's");
        for bad in [closes, resets, is_silent] {
            let (server, dialer, authority) = beside(&ca, bad);
            for _ in 0..2 {
                let connected =
                    dialer.connect_tls(&authority, AddressRule::Any, Certificate::Shown).await;
                let far = far_address(connected.unwrap().get_ref().0);
                assert_eq!(far, Some(server.address()));
            }
        }
    }
}
