//! TCP or TLS towards one authority, for the pooled client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use entrepot_oci::{Authority, Host};
use http::{HeaderMap, Uri};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::either::Either;

use super::client::{Scheme, Target};
use super::error::{TlsError, UpstreamError, is_hangup};
use super::link::Dialer;
use super::proxy::ForwardProxy;
use super::reach::{AddressRule, Exemptions};
use super::stream::UpstreamStream;
use super::trust::Certificate;

/// How long a server that did not take a TLS hello may take to answer plain HTTP.
const PLAIN_PROBE: Duration = Duration::from_secs(2);

/// Makes the connections of the pooled client; cheap to clone.
#[derive(Clone)]
pub(super) struct Connector {
    inner: Arc<ConnectorInner>,
}

struct ConnectorInner {
    dialer: Dialer,
    exemptions: Exemptions,
    certificate: Certificate,
}

impl Connector {
    pub(super) fn new(dialer: Dialer, exemptions: Exemptions, certificate: Certificate) -> Self {
        Self { inner: Arc::new(ConnectorInner { dialer, exemptions, certificate }) }
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
    /// What is dialled for plain HTTP to `authority`: `connect-to` may name it as the rest of the
    /// configuration does.
    fn plain_place(&self, authority: &Authority) -> Authority {
        let known = self.exemptions.known_as(authority);
        let known = known.filter(|known| self.dialer.leads_elsewhere(known));
        let named = if self.dialer.leads_elsewhere(authority) { None } else { known };
        named.unwrap_or_else(|| authority.clone())
    }

    async fn connect(&self, uri: Uri) -> Result<UpstreamStream, UpstreamError> {
        let secure = uri.scheme() != Some(&http::uri::Scheme::HTTP);
        let authority = authority_of(&uri, secure)?;
        let rule = self.exemptions.rule_for(&authority);
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
pub(super) struct ConnectFailed(Mutex<Option<UpstreamError>>);

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
