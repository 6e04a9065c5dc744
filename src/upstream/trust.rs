//! Whose certificates are believed, and what is said of those that are not.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// The trust store could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file of `ca-files` can't be read or holds no certificate.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// rustls refuses the result.
    #[error("no usable trust store: {0}")]
    Unusable(String),
}

/// A certificate that was refused: which one, and why, for the person who must act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedCertificate {
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
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Client settings that believe the system's roots (the bundled ones where there are none) and the
/// certificates in `ca_files`. Verification can't be switched off. Reads files: blocking.
pub fn client_config(ca_files: &[PathBuf]) -> Result<Arc<ClientConfig>, TrustError> {
    let mut roots = system_roots();
    for path in ca_files {
        add_file(&mut roots, path)?;
    }
    let provider = provider();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| TrustError::Unusable(error.to_string()))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TrustError::Unusable(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Explaining(verifier)))
        .with_no_client_auth();
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

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TrustError> {
    let wrong = |reason: String| TrustError::File { path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(format!("not readable as PEM certificates: {error}")))?;
    if certificates.is_empty() {
        return Err(wrong("holds no certificate".to_owned()));
    }
    for certificate in certificates {
        roots.add(certificate).map_err(|error| wrong(format!("not a CA certificate: {error}")))?;
    }
    Ok(())
}

/// The usual verification, with a refusal that says which certificate it is about.
#[derive(Debug)]
struct Explaining(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Explaining {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| explained(error, end_entity, server_name))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
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
            "its issuer is not trusted here: add the issuer's certificate to ca-files".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired: the registry must renew it, or this machine's clock is wrong"
                .to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: check this machine's clock".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("it is not for {}", name.to_str())
        }
        other => other.to_string(),
    }
}

/// The refusal in a failed handshake's error, if it was about the certificate.
#[must_use]
pub fn refused_certificate(error: &rustls::Error) -> Option<RefusedCertificate> {
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
    fn a_file_without_certificates_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "nothing\n").unwrap();
        let error = client_config(std::slice::from_ref(&empty)).unwrap_err().to_string();
        assert!(error.contains("empty.pem") && error.contains("no certificate"), "{error}");
        let missing = directory.path().join("missing.pem");
        let error = client_config(std::slice::from_ref(&missing)).unwrap_err().to_string();
        assert!(error.contains("missing.pem"), "{error}");
    }

    #[test]
    fn names_from_upstream_stay_on_one_line() {
        assert_eq!(quoted("a\nb\u{1b}[31m"), r#""a\nb\u{1b}[31m""#);
    }
}
