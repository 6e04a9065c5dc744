//! A TLS handshake towards one authority, and why it failed.

use std::io;
use std::sync::Arc;

use entrepot_oci::{Authority, Host};
use rustls::AlertDescription;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dial::Deadline;
use super::error::TlsError;
use super::trust::refused_certificate;
use crate::words::{of_alert, of_tls};

/// Makes `stream` a TLS connection to `authority`, in time.
pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<rustls::ClientConfig>,
    authority: &Authority,
    stream: S,
    deadline: Deadline,
) -> Result<TlsStream<S>, TlsError> {
    let name = server_name(authority.host()).ok_or_else(|| TlsError::Handshake {
        authority: authority.clone(),
        source: io::Error::new(io::ErrorKind::InvalidInput, "not a name TLS can carry"),
    })?;
    let connecting = TlsConnector::from(config).connect(name, stream);
    match tokio::time::timeout_at(deadline.at, connecting).await {
        Ok(connected) => connected.map_err(|source| tls_error(authority, source)),
        Err(_) => Err(TlsError::Timeout { authority: authority.clone(), after: deadline.after }),
    }
}

fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Ip(ip) => Some(ServerName::from(*ip)),
        Host::Name(name) => ServerName::try_from(name.to_string()).ok(),
    }
}

/// Tells what is no TLS at all and a refused certificate from other failures.
fn tls_error(authority: &Authority, source: io::Error) -> TlsError {
    let authority = authority.clone();
    let cause = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            TlsError::SomethingElse { authority }
        }
        Some(error) => {
            if let Some(refused) = refused_certificate(error) {
                return TlsError::Certificate { authority, refused: Box::new(refused) };
            }
            told(&authority, error).unwrap_or(TlsError::Handshake { authority, source })
        }
        None => TlsError::Handshake { authority, source },
    }
}

/// What a server tells of why it wants no connection, where that is plain enough; with TLS 1.3 it
/// may come after the client's side of the handshake is done.
pub(super) fn told(authority: &Authority, error: &rustls::Error) -> Option<TlsError> {
    let authority = authority.clone();
    match error {
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied => {
                Some(TlsError::ClientCertificate { authority, alert: of_alert(*alert) })
            }
            AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity => {
                Some(TlsError::NothingInCommon { authority, reason: of_tls(error) })
            }
            _ => None,
        },
        rustls::Error::PeerIncompatible(_) => {
            Some(TlsError::NothingInCommon { authority, reason: of_tls(error) })
        }
        _ => None,
    }
}
