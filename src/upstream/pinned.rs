//! Servers that show the very certificate that the operator has given as a root for them.
//!
//! `openssl req -x509` makes a certificate that is self-signed and marked as a CA's, and the usual
//! instructions for a private registry have it used for both. webpki refuses a CA's certificate as
//! a server's. Where it is, byte for byte, a root that the operator has given, its issuer needs no
//! further proof; its time, its names and its purpose are checked as ever, and the handshake's
//! signature proves that the server has its key.

use rustls::CertificateError;
use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;

/// Roots that the operator has given, not the system's.
#[derive(Debug, Default, Clone)]
pub(super) struct Pinned(pub(super) Vec<CertificateDer<'static>>);

impl Pinned {
    /// The verdict on a certificate that webpki refuses for `cause`; none if that stands.
    pub(super) fn verdict(
        &self,
        cause: &CertificateError,
        shown: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Option<Result<(), rustls::Error>> {
        let is_ca = matches!(cause, CertificateError::Other(other)
            if other.to_string() == "CaUsedAsEndEntity");
        (is_ca && self.0.iter().any(|root| root == shown)).then(|| check(shown, name, now))
    }
}

fn check(
    shown: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(shown).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < parsed.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > parsed.validity().not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    if !is_for_servers(&parsed) {
        return Err(CertificateError::InvalidPurpose.into());
    }
    verify_server_name(&ParsedCertificate::try_from(shown)?, name)
}

/// RFC 5280 §4.2.1.12: without the extension, for anything.
fn is_for_servers(parsed: &X509Certificate<'_>) -> bool {
    match parsed.extended_key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => usage.value.server_auth || usage.value.any,
        Err(_) => false,
    }
}
