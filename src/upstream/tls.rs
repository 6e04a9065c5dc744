//! A TLS handshake towards one authority, and why it failed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::TlsError;
use super::trust::refused_certificate;
use crate::oci::{Authority, Host};

/// Makes `stream` a TLS connection to `authority`, within the time that is given.
pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<rustls::ClientConfig>,
    authority: &Authority,
    stream: S,
    after: Duration,
) -> Result<TlsStream<S>, TlsError> {
    let name = server_name(authority.host()).ok_or_else(|| TlsError::Handshake {
        authority: authority.clone(),
        source: io::Error::new(io::ErrorKind::InvalidInput, "not a name TLS can carry"),
    })?;
    let connecting = TlsConnector::from(config).connect(name, stream);
    match tokio::time::timeout(after, connecting).await {
        Ok(connected) => connected.map_err(|source| tls_error(authority, source)),
        Err(_) => Err(TlsError::Timeout { authority: authority.clone(), after }),
    }
}

fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Ip(ip) => Some(ServerName::from(*ip)),
        Host::Name(name) => ServerName::try_from(name.clone()).ok(),
    }
}

/// Tells a plain-HTTP answer and a refused certificate from other failures.
fn tls_error(authority: &Authority, source: io::Error) -> TlsError {
    let authority = authority.clone();
    let cause = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            TlsError::PlainHttp { authority }
        }
        Some(error) => match refused_certificate(error) {
            Some(refused) => TlsError::Certificate { authority, refused: Box::new(refused) },
            None => TlsError::Handshake { authority, source },
        },
        None => TlsError::Handshake { authority, source },
    }
}
