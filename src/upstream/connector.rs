//! TCP or TLS towards one authority, for the pooled client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use entrepot_oci::{Authority, Host};
use http::{HeaderMap, HeaderValue, Uri};
use hyper_util::client::legacy::connect::CaptureConnection;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::either::Either;

use super::client::{Scheme, Target};
use super::error::{DialError, TlsError, UpstreamError, is_hangup};
use super::link::Dialer;
use super::proxy::ForwardProxy;
use super::reach::{AddressRule, Exemptions, is_metadata_host};
use super::stream::{Reached, UpstreamStream, reached};
use super::trust::Certificate;

/// How long a server that did not take a TLS hello may take to answer plain HTTP.
const PLAIN_PROBE: Duration = Duration::from_secs(2);

/// Makes the connections of the pooled client; cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector {
    inner: Arc<ConnectorInner>,
}

struct ConnectorInner {
    dialer: Dialer,
    reach: Reach,
    certificate: Certificate,
}

/// Whom its connections may lead to.
enum Reach {
    /// Registries and where they lead.
    Registries(Exemptions),
    /// A service that the operator has named, and whoever gives credentials for it: among those the
    /// cloud's metadata, if they come from there.
    Service { may_ask_metadata: bool },
}

impl Connector {
    pub(super) fn new(dialer: Dialer, exemptions: Exemptions, certificate: Certificate) -> Self {
        let reach = Reach::Registries(exemptions);
        Self { inner: Arc::new(ConnectorInner { dialer, reach, certificate }) }
    }

    /// Connections to a service that the operator has named, which may be anywhere.
    #[must_use]
    pub(crate) fn to_service(dialer: &Dialer, may_ask_metadata: bool) -> Self {
        let reach = Reach::Service { may_ask_metadata };
        let (dialer, certificate) = (dialer.for_services(), Certificate::Shown);
        Self { inner: Arc::new(ConnectorInner { dialer, reach, certificate }) }
    }

    /// What the proxy wants to see that reads a request of plain HTTP to `authority`, if there is
    /// one and it wants something.
    #[must_use]
    pub(crate) fn plain_authorization(&self, authority: &Authority) -> Option<HeaderValue> {
        if self.inner.is_metadata(authority) {
            return None;
        }
        self.inner.dialer.proxy_for(Scheme::Http, authority)?.authorization()
    }

    /// Notes that where this connection led to nothing was to be had.
    pub(crate) fn set_back(&self, connection: &CaptureConnection) {
        if let Some(Reached(address)) = reached(connection) {
            self.inner.dialer.set_back(address);
        }
    }

    /// Whether there is a certificate to be shown to `target`.
    pub(super) fn has_certificate_for(&self, target: &Target) -> bool {
        target.scheme == Scheme::Https
            && self.inner.dialer.certificate_label(&target.authority).is_some()
    }

    /// The proxy that sees a request to `target` as it is, rather than a tunnel.
    pub(super) fn proxy_that_reads(&self, target: &Target) -> Option<&ForwardProxy> {
        match target.scheme {
            Scheme::Https => None,
            Scheme::Http => {
                let place = self.inner.plain_place(&target.destination());
                self.inner.dialer.proxy_for(Scheme::Http, &place)
            }
        }
    }
}

impl ConnectorInner {
    /// Whether a service's credentials are asked for there.
    fn is_metadata(&self, authority: &Authority) -> bool {
        matches!(self.reach, Reach::Service { .. }) && is_metadata_host(authority.host())
    }

    /// What is dialled for plain HTTP to `authority`: `connect-to` may name it as the rest of the
    /// configuration does.
    fn plain_place(&self, authority: &Authority) -> Authority {
        let Reach::Registries(exemptions) = &self.reach else { return authority.clone() };
        let known = exemptions.known_as(authority);
        let known = known.filter(|known| self.dialer.leads_elsewhere(known));
        let named = if self.dialer.leads_elsewhere(authority) { None } else { known };
        named.unwrap_or_else(|| authority.clone())
    }

    async fn connect(&self, uri: Uri) -> Result<UpstreamStream, UpstreamError> {
        let secure = uri.scheme() != Some(&http::uri::Scheme::HTTP);
        let authority = authority_of(&uri, secure)?;
        let rule = match &self.reach {
            Reach::Registries(exemptions) => exemptions.rule_for(&authority),
            Reach::Service { may_ask_metadata } if self.is_metadata(&authority) => {
                if !may_ask_metadata {
                    return Err(DialError::Metadata { authority }.into());
                }
                // No proxy has this machine's credentials to give, nor should it see them.
                let stream = self.dialer.connect_straight(&authority).await?;
                return Ok(UpstreamStream::new(Either::Left(Either::Left(stream))));
            }
            Reach::Service { .. } => AddressRule::AnyService,
        };
        if !secure {
            let stream = self.dialer.connect_plain(&self.plain_place(&authority), rule).await?;
            return Ok(UpstreamStream::new(Either::Left(stream)));
        }
        match self.dialer.connect_tls(&authority, rule, self.certificate).await {
            Ok(tls) => Ok(UpstreamStream::new(Either::Right(Box::new(tls)))),
            Err(UpstreamError::Tls(error)) => Err(self.diagnosed(error, rule).await.into()),
            Err(error) => Err(error),
        }
    }

    /// A server of plain HTTP answers a TLS hello in its own language, or just hangs up: one plain
    /// question tells it from others.
    async fn diagnosed(&self, error: TlsError, rule: AddressRule) -> TlsError {
        let authority = match &error {
            TlsError::SomethingElse { authority } => authority,
            TlsError::Handshake { authority, source } if is_hangup(source) => authority,
            _ => return error,
        };
        let speaks_http = async {
            let mut plain = self.dialer.connect(authority, rule, &HeaderMap::new()).await.ok()?;
            plain.write_all(b"HEAD / HTTP/1.0\r\n\r\n").await.ok()?;
            let mut answer = [0; 5];
            plain.read_exact(&mut answer).await.ok()?;
            (answer == *b"HTTP/").then_some(())
        };
        if matches!(tokio::time::timeout(PLAIN_PROBE, speaks_http).await, Ok(Some(()))) {
            return TlsError::PlainHttp { authority: authority.clone() };
        }
        error
    }
}

fn authority_of(uri: &Uri, secure: bool) -> Result<Authority, UpstreamError> {
    let text = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let default_port = if secure { 443 } else { 80 };
    Authority::parse(text, default_port).map_err(|error| UpstreamError::Exchange {
        authority: Authority::new(Host::Name("invalid".into()), default_port),
        reason: error.to_string(),
    })
}

/// Carries our error through the pooled client, which only hands out references to it.
#[derive(Debug)]
pub(crate) struct ConnectFailed(Mutex<Option<UpstreamError>>);

impl ConnectFailed {
    /// The error, once.
    pub(super) fn take(&self) -> Option<UpstreamError> {
        self.0.lock().take()
    }
}

impl std::fmt::Display for ConnectFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection failed")
    }
}

impl std::error::Error for ConnectFailed {}

impl tower_service::Service<Uri> for Connector {
    type Response = UpstreamStream;
    type Error = ConnectFailed;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let inner = self.inner.clone();
        Box::pin(async move {
            inner.connect(uri).await.map_err(|error| ConnectFailed(Mutex::new(Some(error))))
        })
    }
}
