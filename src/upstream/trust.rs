//! Whose certificates are believed, and what is said of those that are not.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use entrepot_oci::Authority;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certs::{Certificates, ClientCertificate};
use super::pinned::Pinned;

/// No TLS settings could be made of these certificates.
#[derive(Debug, thiserror::Error)]
#[error("no usable trust store: {0}")]
pub(crate) struct TrustError(String);

/// A certificate that was refused: which one, and why, for the person who must act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedCertificate {
    /// Whom it was issued to.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// From when to when it is valid.
    pub validity: String,
    /// Why it is refused, and the cure.
    pub reason: String,
}

impl fmt::Display for RefusedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, issuer, validity, reason } = self;
        write!(f, "{reason} (subject {subject}; issuer {issuer}; valid {validity})")
    }
}

impl std::error::Error for RefusedCertificate {}

/// The crypto provider of every TLS connection, passed on explicitly: a process-wide default
/// would depend on which features other crates switch on.
#[must_use]
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS settings for every authority, made once. Verification can't be switched off.
#[derive(Clone)]
pub(crate) struct Trust {
    inner: Arc<TrustInner>,
}

struct TrustInner {
    certificates: Certificates,
    usual: Arc<ClientConfig>,
    /// By the name of their directory.
    hosts: BTreeMap<String, HostTrust>,
}

/// The settings for one host. Each has sessions of its own, so that none is resumed under another's
/// roots, or as somebody else.
struct HostTrust {
    /// Without a certificate of ours.
    plain: Arc<ClientConfig>,
    /// With one, where there is one, and what tells it from others.
    identified: Option<(Arc<ClientConfig>, String)>,
}

/// Whether the operator's certificate for a host is shown to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certificate {
    /// It is, where there is one.
    Shown,
    /// It is not.
    Withheld,
}

impl Trust {
    /// Believes the system's roots (the bundled ones where there are none) and these certificates.
    /// Reads files: blocking.
    pub(crate) fn new(certificates: Certificates) -> Result<Self, TrustError> {
        for warning in certificates.warnings() {
            tracing::warn!("{warning}");
        }
        let mut roots = system_roots();
        roots.add_parsable_certificates(certificates.roots.iter().cloned());
        let mut hosts = BTreeMap::new();
        for (name, host) in &certificates.hosts {
            let mut roots = roots.clone();
            roots.add_parsable_certificates(host.roots.iter().cloned());
            let pinned = Pinned([certificates.roots.as_slice(), &host.roots].concat());
            let plain = client_config(roots.clone(), pinned.clone(), Vec::new())?;
            let identified = match host.label() {
                Some(label) => {
                    let config = client_config(roots, pinned, host.identities.clone())?;
                    Some((config, label))
                }
                None => None,
            };
            hosts.insert(name.clone(), HostTrust { plain, identified });
        }
        let usual = client_config(roots, Pinned(certificates.roots.clone()), Vec::new())?;
        Ok(Self { inner: Arc::new(TrustInner { certificates, usual, hosts }) })
    }

    /// Believes what this authority has signed itself, and nothing else.
    pub(crate) fn only(authority: CertificateDer<'static>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        roots.add(authority).map_err(|error| TrustError(error.to_string()))?;
        let usual = client_config(roots, Pinned(Vec::new()), Vec::new())?;
        let (certificates, hosts) = Default::default();
        Ok(Self { inner: Arc::new(TrustInner { certificates, usual, hosts }) })
    }

    /// The settings for connections to `authority`.
    #[must_use]
    pub(crate) fn config_for(
        &self,
        authority: &Authority,
        certificate: Certificate,
    ) -> Arc<ClientConfig> {
        let Some(host) = self.host(authority) else { return self.inner.usual.clone() };
        let identified = host.identified.as_ref().filter(|_| certificate == Certificate::Shown);
        identified.map_or(&host.plain, |(config, _)| config).clone()
    }

    /// What tells the operator's certificate for `authority` from others, if there is one; never a
    /// secret.
    #[must_use]
    pub(crate) fn label_for(&self, authority: &Authority) -> Option<&str> {
        self.host(authority)?.identified.as_ref().map(|(_, label)| label.as_str())
    }

    fn host(&self, authority: &Authority) -> Option<&HostTrust> {
        let TrustInner { certificates, hosts, .. } = &*self.inner;
        if hosts.is_empty() {
            return None;
        }
        certificates.directory_for(authority).and_then(|name| hosts.get(name))
    }
}

fn client_config(
    roots: RootCertStore,
    pinned: Pinned,
    identities: Vec<ClientCertificate>,
) -> Result<Arc<ClientConfig>, TrustError> {
    let provider = provider();
    let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| TrustError(error.to_string()))?;
    // TLS 1.2 and 1.3: rustls knows nothing older.
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TrustError(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Explaining { webpki, pinned }))
        .with_client_cert_resolver(Arc::new(Identities(identities)));
    // One stream of an HTTP/2 connection at a time would be slower, and many share one window.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a system root certificate can't be read");
    }
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::info!("no system root certificates found: using the bundled ones");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// Client certificates, of which the first is shown that the server can accept: one of an issuer
/// that it names (or names none), with a key of a kind that it knows. Engines choose likewise.
struct Identities(Vec<ClientCertificate>);

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

impl ResolvesClientCert for Identities {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fits = |identity: &&ClientCertificate| {
            let is_known = |issuer: &Vec<u8>| issuers.contains(&issuer.as_slice());
            (issuers.is_empty() || identity.issuers.iter().any(is_known))
                && identity.key.key.choose_scheme(schemes).is_some()
        };
        self.0.iter().find(fits).map(|identity| identity.key.clone())
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// The usual verification, with a refusal that says which certificate it is about.
#[derive(Debug)]
struct Explaining {
    webpki: Arc<WebPkiServerVerifier>,
    pinned: Pinned,
}

impl ServerCertVerifier for Explaining {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        let verified = match &verified {
            Err(rustls::Error::InvalidCertificate(cause)) => {
                match self.pinned.verdict(cause, end_entity, server_name, now) {
                    Some(verdict) => verdict.map(|()| ServerCertVerified::assertion()),
                    None => verified,
                }
            }
            _ => verified,
        };
        verified.map_err(|error| explained(error, end_entity, server_name))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

fn explained(
    error: rustls::Error,
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
) -> rustls::Error {
    let rustls::Error::InvalidCertificate(cause) = error else {
        return error;
    };
    let (subject, issuer, validity) = described(certificate);
    let reason = reason(&cause, name);
    let refused = RefusedCertificate { subject, issuer, validity, reason };
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
}

fn described(certificate: &CertificateDer<'_>) -> (String, String, String) {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok((_, parsed)) => (
            quoted(&parsed.subject().to_string()),
            quoted(&parsed.issuer().to_string()),
            format!("{} to {}", parsed.validity().not_before, parsed.validity().not_after),
        ),
        Err(_) => ("unreadable".to_owned(), "unreadable".to_owned(), "unknown".to_owned()),
    }
}

/// The upstream chose these names; they must not break a log line.
fn quoted(name: &str) -> String {
    const LONGEST: usize = 200;
    let shown: String = name.chars().take(LONGEST).collect();
    format!("{shown:?}")
}

fn reason(cause: &CertificateError, name: &ServerName<'_>) -> String {
    match cause {
        CertificateError::UnknownIssuer => {
            "its issuer is not trusted here: add the issuer's certificate to ca-files, or to the host's directory in certs-dir"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired: the registry must renew it, or this machine's clock is wrong"
                .to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: check this machine's clock".to_owned()
        }
        CertificateError::NotValidForName => wrong_name(name, &[]),
        CertificateError::NotValidForNameContext { presented, .. } => wrong_name(name, presented),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for servers: the registry needs one with the extended key usage serverAuth"
                .to_owned()
        }
        // webpki's words for what it found out about a chain, and has no name here for.
        CertificateError::Other(cause) => match cause.to_string().as_str() {
            "CaUsedAsEndEntity" => {
                "it is a CA's: the registry needs one of its own, signed by that CA".to_owned()
            }
            "EndEntityUsedAsCa" => {
                "it was issued by a certificate that is no CA's: the registry needs another issuer"
                    .to_owned()
            }
            "NameConstraintViolation" => {
                "its issuer may not vouch for its names: the registry needs another issuer".to_owned()
            }
            other => format!("{other}: the registry needs another one"),
        },
        other => format!("{other}: the registry needs another one"),
    }
}

/// RFC 9110 §4.3.4: a common name does not count, whatever it says.
fn wrong_name(name: &ServerName<'_>, presented: &[String]) -> String {
    const MOST: usize = 5;
    let names: Vec<_> = presented.iter().take(MOST).map(|name| quoted(bare(name))).collect();
    let names = if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") };
    format!(
        "it is not for {0} but for {names}: the registry needs one with {0} as a subject alternative name",
        name.to_str()
    )
}

/// `other.example` of webpki's `DnsName("other.example")`.
fn bare(presented: &str) -> &str {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(presented).trim_matches('"')
}

/// The refusal in a failed handshake's error, if it was about the certificate.
#[must_use]
pub(crate) fn refused_certificate(error: &rustls::Error) -> Option<RefusedCertificate> {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) = error
    else {
        return None;
    };
    cause.downcast_ref::<RefusedCertificate>().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_upstream_stay_on_one_line() {
        assert_eq!(quoted("a\nb\u{1b}[31m"), r#""a\nb\u{1b}[31m""#);
    }
}
