//! What can go wrong on the way to an upstream and back.
//!
//! Every message names the cause in words that fit a person's log and an engine's error output;
//! none contains a path's query, a header or a credential.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::connector::ConnectFailed;
use super::redirect::RedirectError;
use super::trust::RefusedCertificate;
use crate::oci::Authority;

/// No TCP connection came about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name does not resolve.
    #[error("{host} does not resolve ({source}): check the name and this machine's DNS")]
    Resolve {
        /// What was looked up.
        host: String,
        /// The resolver's own words.
        source: io::Error,
    },
    /// The name resolves to nothing that may be used.
    #[error("{host} has no usable address (is ipv6 = false set?)")]
    NoAddress {
        /// What was looked up.
        host: String,
    },
    /// The name leads to an address that only named destinations may have.
    #[error(
        "{authority} leads to {address}, which is not a public address: name it in connect-to or a [[registry]] entry, or set tunnel = \"any\""
    )]
    NotPublic {
        /// What was asked for.
        authority: Authority,
        /// Where that leads.
        address: IpAddr,
    },
    /// The name leads back to this proxy.
    #[error("{authority} leads to {address}, where this proxy itself listens")]
    Own {
        /// What was asked for.
        authority: Authority,
        /// Where that leads.
        address: SocketAddr,
    },
    /// Every address failed; this is the last failure.
    #[error("no connection to {authority} (tried {address}): {source}")]
    Connect {
        /// What was asked for.
        authority: Authority,
        /// The address tried last.
        address: SocketAddr,
        /// The system's own words.
        source: io::Error,
    },
    /// Nobody answered in time.
    #[error("no connection to {authority} within {} s: a firewall, or a host that is down", after.as_secs())]
    Timeout {
        /// What was asked for.
        authority: Authority,
        /// `connect-timeout`.
        after: Duration,
    },
}

/// No TLS connection came about.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The other side does not speak TLS.
    #[error(
        "{authority} speaks plain HTTP, not TLS: set scheme = \"http\" in a [[registry]] entry for it"
    )]
    PlainHttp {
        /// Who was asked.
        authority: Authority,
    },
    /// The certificate is not believed.
    #[error("the certificate of {authority} is refused: {refused}")]
    Certificate {
        /// Who was asked.
        authority: Authority,
        /// Which certificate, and why.
        refused: Box<RefusedCertificate>,
    },
    /// Anything else in the handshake.
    #[error("no TLS connection to {authority}: {source}")]
    Handshake {
        /// Who was asked.
        authority: Authority,
        /// rustls' own words.
        source: io::Error,
    },
    /// The handshake took too long.
    #[error("{authority} did not finish the TLS handshake within {} s", after.as_secs())]
    Timeout {
        /// Who was asked.
        authority: Authority,
        /// `connect-timeout`.
        after: Duration,
    },
}

/// An upstream request failed.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No TCP connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No TLS connection.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Connected, but no answer in time.
    #[error("{authority} accepted the request but sent no answer within {} s", after.as_secs())]
    HeaderTimeout {
        /// Who was asked.
        authority: Authority,
        /// `header-timeout`.
        after: Duration,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("the exchange with {authority} failed: {reason}")]
    Exchange {
        /// Who was asked.
        authority: Authority,
        /// hyper's words.
        reason: String,
    },
    /// A redirect that is not followed.
    #[error("{authority} redirects where this proxy does not follow: {source}")]
    Redirect {
        /// Who redirected.
        authority: Authority,
        /// Why not.
        source: RedirectError,
    },
}

impl UpstreamError {
    /// Whether the upstream was silent rather than wrong: a 504 rather than a 502.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::HeaderTimeout { .. }
                | Self::Dial(DialError::Timeout { .. })
                | Self::Tls(TlsError::Timeout { .. })
        )
    }

    /// Whether the proxy's own rules forbade the connection.
    #[must_use]
    pub fn is_refused_here(&self) -> bool {
        matches!(self, Self::Dial(DialError::NotPublic { .. } | DialError::Own { .. }))
    }

    /// Reads a failure of the pooled client, whose causes are buried in a chain of sources.
    pub(super) fn from_client(
        authority: &Authority,
        error: &hyper_util::client::legacy::Error,
    ) -> Self {
        match connector_error(error) {
            Ok(known) => known,
            Err(reason) => Self::Exchange { authority: authority.clone(), reason },
        }
    }
}

/// The connector's own error if there is one in the chain, else the chain in words.
fn connector_error(error: &(dyn std::error::Error + 'static)) -> Result<UpstreamError, String> {
    let mut words = Vec::new();
    let mut current: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = current {
        let known = cause.downcast_ref::<ConnectFailed>().and_then(ConnectFailed::take);
        if let Some(known) = known {
            return Ok(known);
        }
        words.push(cause.to_string());
        current = cause.source();
    }
    Err(words.join(": "))
}
