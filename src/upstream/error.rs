//! What can go wrong on the way to an upstream and back.
//!
//! Every message names the cause in words that fit a person's log and an engine's error output;
//! none contains a path's query, a header or a credential.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use entrepot_oci::Authority;
use http::StatusCode;
use time::OffsetDateTime;

use super::connector::ConnectFailed;
use super::reach::is_public;
use super::redirect::RedirectError;
use super::tls::told;
use super::trust::RefusedCertificate;
use crate::words::{of_exchange, of_io, utc};

/// No TCP connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// `offline = true`.
    #[error("{authority} is not contacted: this proxy works offline (offline = true)")]
    Offline {
        /// What was asked for.
        authority: Authority,
    },
    /// The name does not resolve.
    #[error("{host} does not resolve ({}): check the name and this machine's DNS", of_io(source))]
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
    /// Where this is only named destinations may be. The address itself is the log's.
    #[error(
        "{authority} has an address which is not a public address: name it in connect-to or a [[registry]] entry, or set tunnel = \"any\""
    )]
    NotPublic {
        /// What was asked for.
        authority: Authority,
    },
    /// The cloud's metadata, for somebody who has no business there.
    #[error(
        "{authority} is the cloud's metadata service, or leads there: it is asked for credentials alone, where credentials say so"
    )]
    Metadata {
        /// What was asked for.
        authority: Authority,
    },
    /// Nothing is known of a name that somebody else has chosen, or what is known is nobody's
    /// business: one answer for both, so that nobody asks here what names the network has.
    #[error(
        "{authority} does not resolve here, or has an address which is not a public address (the proxy's log says which): check the name; what is private has to be named in connect-to or a [[registry]] entry"
    )]
    NotFound {
        /// What was asked for.
        authority: Authority,
    },
    /// The name leads back to this proxy.
    #[error("{authority} leads to where this proxy itself listens")]
    Own {
        /// What was asked for.
        authority: Authority,
    },
    /// Every address failed; this is the last failure.
    #[error("no connection to {authority}{}: {}", tried(*address), of_io(source))]
    Connect {
        /// What was asked for.
        authority: Authority,
        /// The address tried last.
        address: SocketAddr,
        /// The system's own words.
        source: io::Error,
    },
    /// No address answered in time.
    #[error("no connection to {authority} within {} s: a firewall, or a host that is down", after.as_secs())]
    Timeout {
        /// What was asked for.
        authority: Authority,
        /// `connect-timeout`.
        after: Duration,
    },
    /// The proxy on the way did not let us through.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
}

/// Which address was tried, for people; a private one is nobody's business but the operator's.
fn tried(address: SocketAddr) -> String {
    if is_public(address.ip()) { format!(" (tried {address})") } else { String::new() }
}

/// A forward proxy between us and the destinations did not let us through.
#[derive(Debug, thiserror::Error)]
#[error("the proxy {proxy} {failure}")]
pub(crate) struct ProxyError {
    /// Its host and port, and the setting that names it.
    pub proxy: String,
    /// What it did, or failed to do.
    pub failure: ProxyFailure,
}

/// What a forward proxy did, or failed to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyFailure {
    /// No TCP connection to it.
    #[error("can't be reached: {0}")]
    Unreachable(Box<DialError>),
    /// It does not speak TLS.
    #[error("does not speak TLS: its URL must begin with http://")]
    NoTls,
    /// No TLS connection to it.
    #[error("can't be spoken to: {0}")]
    Tls(Box<TlsError>),
    /// It took the question and did not answer.
    #[error("did not open a tunnel within {} s", after.as_secs())]
    Silent {
        /// `connect-timeout`.
        after: Duration,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("broke off: {0}")]
    Broken(String),
    /// It answered, but not with a tunnel.
    #[error("answered {} for {authority}: {}", status.as_u16(), cure(*status))]
    Refused {
        /// Its answer.
        status: StatusCode,
        /// What was asked for.
        authority: Authority,
    },
}

fn cure(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            "its URL needs a user name and password that it accepts (http://USER:PASSWORD@HOST:PORT)"
        }
        StatusCode::FORBIDDEN => {
            "it does not allow this destination: ask who runs it, or go past it (upstream.no-proxy, or proxy = \"direct\" in a [[registry]] entry)"
        }
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            "it can't reach the destination itself"
        }
        _ => "no tunnel",
    }
}

impl DialError {
    /// Whether somebody was silent rather than wrong.
    #[must_use]
    pub(crate) fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Proxy(ProxyError { failure, .. }) => match failure {
                ProxyFailure::Silent { .. } => true,
                ProxyFailure::Unreachable(error) => error.is_timeout(),
                ProxyFailure::Tls(error) => matches!(**error, TlsError::Timeout { .. }),
                ProxyFailure::NoTls | ProxyFailure::Broken(_) | ProxyFailure::Refused { .. } => {
                    false
                }
            },
            Self::Resolve { .. }
            | Self::NoAddress { .. }
            | Self::NotPublic { .. }
            | Self::Metadata { .. }
            | Self::NotFound { .. }
            | Self::Own { .. }
            | Self::Offline { .. }
            | Self::Connect { .. } => false,
        }
    }
}

/// No TLS connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The other side speaks HTTP without TLS.
    #[error(
        "{authority} speaks plain HTTP, not TLS: set scheme = \"http\" in a [[registry]] entry for it"
    )]
    PlainHttp {
        /// Who was asked.
        authority: Authority,
    },
    /// The other side speaks neither TLS nor HTTP.
    #[error("{authority} speaks something else than TLS: check the port")]
    SomethingElse {
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
    /// The other side does not accept our certificate, or wants one.
    #[error(
        "{authority} wants a client certificate that it accepts ({alert}): put NAME.cert and NAME.key into its directory in certs-dir"
    )]
    ClientCertificate {
        /// Who was asked.
        authority: Authority,
        /// What it said.
        alert: String,
    },
    /// The other side wants our certificate, which is not for this request.
    #[error(
        "{authority} wants a client certificate, and the one in certs-dir serves pulls alone: whatever else there is to do at this registry has to go around this proxy (NO_PROXY)"
    )]
    CertificateWithheld {
        /// Who was asked.
        authority: Authority,
    },
    /// No version or cipher suite that both sides know.
    #[error(
        "{authority} and this proxy have no safe way of speaking TLS in common ({reason}): it must offer TLS 1.2 or newer"
    )]
    NothingInCommon {
        /// Who was asked.
        authority: Authority,
        /// What it said.
        reason: String,
    },
    /// Anything else in the handshake.
    #[error("no TLS connection to {authority}: {}{}", of_io(source), handshake_cure(source))]
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

impl TlsError {
    /// Whether another address of the same host may fare better: what was said there was no answer.
    /// A certificate that is not believed is one, and so is the wish for another of ours; to go on
    /// looking for an address where all is well would hide them.
    #[must_use]
    pub(super) fn is_of_address(&self) -> bool {
        match self {
            Self::SomethingElse { .. } | Self::Handshake { .. } | Self::Timeout { .. } => true,
            Self::PlainHttp { .. }
            | Self::Certificate { .. }
            | Self::ClientCertificate { .. }
            | Self::CertificateWithheld { .. }
            | Self::NothingInCommon { .. } => false,
        }
    }
}

/// Whether the other side closed the connection rather than to say anything.
pub(super) fn is_hangup(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn handshake_cure(error: &io::Error) -> &'static str {
    if is_hangup(error) { "; check that this is its TLS port, and what stands between" } else { "" }
}

/// For how long something has been so, behind what it is; nothing where that has only just begun.
fn so_long(what: &str, lasting: Duration) -> String {
    const NEWS: Duration = Duration::from_secs(2);
    const HOUR: Duration = Duration::from_hours(1);
    const DAY: Duration = Duration::from_hours(24);
    let secs = lasting.as_secs();
    match lasting {
        lasting if lasting < NEWS => return String::new(),
        _ if secs < 120 => return format!(" ({what} for {secs} s)"),
        lasting if lasting < HOUR => return format!(" ({what} for {} min)", secs / 60),
        _ => {}
    }
    let began = OffsetDateTime::now_utc() - lasting;
    format!(" ({what} since {})", utc(began, lasting >= DAY))
}

/// An upstream request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
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
    /// No answer within the time for which somebody is kept waiting who can be served without it.
    /// The question goes on.
    #[error("{authority} has not answered within {}", in_words(*after))]
    Late {
        /// Who was asked.
        authority: Authority,
        /// `stale-after`.
        after: Duration,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("the exchange with {authority} failed: {reason}")]
    Exchange {
        /// Who was asked.
        authority: Authority,
        /// How.
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
    /// The token server gave the proxy no token.
    #[error("no token for {authority}: {reason}")]
    Token {
        /// The registry.
        authority: Authority,
        /// What the token server did.
        reason: String,
    },
    /// It has failed shortly before, and is left alone for some seconds.
    #[error("{reason}{}", so_long("unreachable", *lasting))]
    Unreachable {
        /// Who was asked.
        authority: Authority,
        /// Since the first failure.
        lasting: Duration,
        /// The last failure.
        reason: Arc<UpstreamError>,
    },
    /// The registry answers with errors of its own.
    #[error("{authority} answers {status}")]
    Unwell {
        /// Who was asked.
        authority: Authority,
        /// With what.
        status: StatusCode,
    },
    /// The registry does not take the operator's credentials, and nothing without them.
    #[error("it does not take this proxy's own credentials ({label}){}: whoever runs the proxy has to renew them", so_long("refused", *since))]
    Credentials {
        /// Who was asked.
        authority: Authority,
        /// Whose credentials, never a secret.
        label: String,
        /// For how long.
        since: Duration,
    },
    /// The registry has had enough of requests for now.
    #[error("{authority} has answered {status}: it is asked again in {} s", retry_after.as_secs().saturating_add(1))]
    Limited {
        /// Who was asked.
        authority: Authority,
        /// With what it has refused.
        status: StatusCode,
        /// When it may be asked again.
        retry_after: Duration,
        /// Whether it has refused so in the very repository that is asked about.
        is_own: bool,
    },
    /// What happened to a request that several waited for.
    #[error(transparent)]
    Shared(#[from] Arc<UpstreamError>),
}

/// `2 s`, `200 ms`.
pub(crate) fn in_words(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

/// Whether an error says that a server, or what stands before it, can't answer for now. Other
/// errors are of the question: one name may be a 500 for ever (RFC 9110 §15.6).
pub(crate) fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

impl UpstreamError {
    /// Whether the upstream was silent rather than wrong: a 504 rather than a 502.
    #[must_use]
    pub(crate) fn is_timeout(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_timeout(),
            Self::Dial(error) => error.is_timeout(),
            Self::HeaderTimeout { .. }
            | Self::Late { .. }
            | Self::Tls(TlsError::Timeout { .. }) => true,
            Self::Unreachable { reason, .. } => reason.is_timeout(),
            Self::Tls(_)
            | Self::Exchange { .. }
            | Self::Redirect { .. }
            | Self::Token { .. }
            | Self::Unwell { .. }
            | Self::Credentials { .. }
            | Self::Limited { .. } => false,
        }
    }

    /// Whether the host could not be reached: the next request will hardly fare better.
    #[must_use]
    pub(crate) fn is_unreachable(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_unreachable(),
            Self::Dial(error) => !matches!(
                error,
                DialError::NotPublic { .. } | DialError::Own { .. } | DialError::Offline { .. }
            ),
            // Where a certificate was withheld a pull would be heard.
            Self::Tls(error) => !matches!(error, TlsError::CertificateWithheld { .. }),
            Self::HeaderTimeout { .. } => true,
            Self::Unreachable { .. }
            | Self::Unwell { .. }
            | Self::Credentials { .. }
            | Self::Limited { .. }
            | Self::Late { .. }
            | Self::Exchange { .. }
            | Self::Redirect { .. }
            | Self::Token { .. } => false,
        }
    }

    /// Whether the host was reached, and did not answer: that may be so of one question alone.
    #[must_use]
    pub(crate) fn is_silence(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_silence(),
            other => matches!(other, Self::HeaderTimeout { .. }),
        }
    }

    /// Whether the registry is away or unwell, so that what is kept stands in for its answer.
    #[must_use]
    pub(crate) fn is_trouble(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_trouble(),
            Self::Redirect { .. } => false,
            other => !other.is_refused_here(),
        }
    }

    /// Whether the registry is away, rather than unwell or too busy for us.
    #[must_use]
    pub(crate) fn is_away(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_away(),
            Self::Unreachable { .. } | Self::Dial(DialError::Offline { .. }) => true,
            other => other.is_unreachable(),
        }
    }

    /// Whether it tells of the state of who was asked, and is not told by an answer as well.
    #[must_use]
    pub(crate) fn tells_of_state(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.tells_of_state(),
            Self::Dial(_) | Self::Tls(_) => !self.is_refused_here() && !self.is_offline(),
            Self::HeaderTimeout { .. }
            | Self::Exchange { .. }
            | Self::Token { .. }
            | Self::Unreachable { .. } => true,
            Self::Late { .. }
            | Self::Redirect { .. }
            | Self::Unwell { .. }
            | Self::Credentials { .. }
            | Self::Limited { .. } => false,
        }
    }

    /// What went wrong in the first place, where this tells of it again.
    #[must_use]
    pub(crate) fn cause(&self) -> String {
        match self {
            Self::Shared(shared) => shared.cause(),
            Self::Unreachable { reason, .. } => reason.cause(),
            other => other.to_string(),
        }
    }

    /// Whether the registry does not take the operator's credentials.
    #[must_use]
    pub(crate) fn is_of_credentials(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_of_credentials(),
            other => matches!(other, Self::Credentials { .. }),
        }
    }

    /// Whether this proxy works offline.
    #[must_use]
    pub(crate) fn is_offline(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_offline(),
            other => matches!(other, Self::Dial(DialError::Offline { .. })),
        }
    }

    /// Whether a certificate was refused: the host's, or that of the forward proxy on the way.
    #[must_use]
    pub(crate) fn is_distrust(&self) -> bool {
        let is_of = |error: &TlsError| matches!(error, TlsError::Certificate { .. });
        match self {
            Self::Shared(shared) => shared.is_distrust(),
            Self::Tls(error) => is_of(error),
            Self::Dial(DialError::Proxy(ProxyError {
                failure: ProxyFailure::Tls(error), ..
            })) => is_of(error),
            _ => false,
        }
    }

    /// With what the registry has refused requests, where it is held back for that.
    #[must_use]
    pub(crate) fn limited_by(&self) -> Option<StatusCode> {
        match self {
            Self::Shared(shared) => shared.limited_by(),
            Self::Limited { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// How long to wait before the registry may be asked again, where it has said so.
    #[must_use]
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limited { retry_after, .. } => Some(*retry_after),
            Self::Shared(shared) => shared.retry_after(),
            _ => None,
        }
    }

    /// Whether the registry is left alone for what it has said of other repositories.
    #[must_use]
    pub(crate) fn is_of_others(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_of_others(),
            other => matches!(other, Self::Limited { is_own: false, .. }),
        }
    }

    /// Whether it is an error of the question rather than of the registry, which answers others.
    #[must_use]
    pub(crate) fn is_of_question(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_of_question(),
            Self::Unwell { status, .. } | Self::Limited { status, .. } => {
                status.is_server_error() && !is_passing(*status)
            }
            _ => false,
        }
    }

    /// Whether it is known without asking: nothing was sent.
    #[must_use]
    pub(crate) fn is_known(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_known(),
            Self::Dial(DialError::Offline { .. }) | Self::Unreachable { .. } => true,
            _ => false,
        }
    }

    /// Whether the proxy's own rules forbade the connection.
    #[must_use]
    pub(crate) fn is_refused_here(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_refused_here(),
            _ => matches!(self, Self::Dial(DialError::NotPublic { .. } | DialError::Own { .. })),
        }
    }

    /// A wish for a certificate that was withheld, in place of one for another.
    pub(super) fn withheld(self) -> Self {
        match self {
            Self::Tls(TlsError::ClientCertificate { authority, .. }) => {
                TlsError::CertificateWithheld { authority }.into()
            }
            other => other,
        }
    }

    /// Whether a name that somebody else has chosen leads nowhere that may be told.
    #[must_use]
    pub(crate) fn is_not_found(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_not_found(),
            other => matches!(other, Self::Dial(DialError::NotFound { .. })),
        }
    }

    /// Reads a failure of the pooled client, whose causes are buried in a chain of sources.
    pub(crate) fn from_client(
        authority: &Authority,
        error: &hyper_util::client::legacy::Error,
    ) -> Self {
        match connector_error(authority, error) {
            Ok(known) => known,
            Err(reason) => Self::Exchange { authority: authority.clone(), reason },
        }
    }
}

/// The connector's own error if there is one in the chain, else what has happened in words.
fn connector_error(
    authority: &Authority,
    error: &(dyn std::error::Error + 'static),
) -> Result<UpstreamError, String> {
    let mut current: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = current {
        let known = cause.downcast_ref::<ConnectFailed>().and_then(ConnectFailed::take);
        if let Some(known) = known {
            return Ok(known);
        }
        // An I/O error's source is that of the error within it.
        let within = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = within.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(told) = tls.and_then(|error| told(authority, error)) {
            return Ok(told.into());
        }
        current = cause.source();
    }
    Err(of_exchange(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_only_just_begun_is_not_timed() {
        let told = |secs| so_long("unreachable", Duration::from_secs(secs));
        assert_eq!(told(0) + &told(1), "");
        assert_eq!(told(5), " (unreachable for 5 s)");
        assert_eq!(told(119), " (unreachable for 119 s)");
        assert_eq!(told(300), " (unreachable for 5 min)");
        let of_today = told(2 * 3600);
        assert!(of_today.starts_with(" (unreachable since ") && of_today.ends_with(" UTC)"));
        assert_eq!(of_today.len(), " (unreachable since 02:14 UTC)".len());
        assert_eq!(told(30 * 3600).len(), " (unreachable since 2026-11-28 02:14 UTC)".len());
    }
}
