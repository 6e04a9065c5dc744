//! What `ca.crt` holds: the certificate that signs leaves, and the others of its chain.

use std::path::Path;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::prelude::FromDer as _;

use crate::constraints::Constraints;
use crate::error::{AuthorityError, OutsideConstraints};
use crate::fingerprint::Fingerprint;
use crate::host::Host;
use crate::strictness::deficiencies;
use crate::validity::{Moment, Validity, minute};

const PEM_LABEL: &str = "CERTIFICATE";

/// The certificates of `ca.crt` in the file's order: the first signs leaves, the others lead from
/// it to a root.
pub(crate) struct Chain {
    issuer: CaCertificate,
    others: Vec<CaCertificate>,
}

/// One certificate of the chain, read once.
pub(crate) struct CaCertificate {
    der: CertificateDer<'static>,
    subject: String,
    subject_der: Vec<u8>,
    public_key: Vec<u8>,
    issued_by: IssuedBy,
    validity: Validity,
    constraints: Option<Constraints>,
    deficiencies: Vec<&'static str>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum IssuedBy {
    Itself,
    Another,
}

impl Chain {
    /// Reads the PEM text of `path`; every certificate in it must be a CA's. Text between
    /// certificates is skipped.
    pub(crate) fn parse(path: &Path, text: &[u8]) -> Result<Self, AuthorityError> {
        let unreadable = || AuthorityError::Certificate { path: path.to_owned() };
        let blocks = pem::parse_many(text).map_err(|_| unreadable())?;
        let mut certificates = blocks
            .into_iter()
            .filter(|block| block.tag() == PEM_LABEL)
            .map(|block| CaCertificate::parse(path, block.into_contents().into()));
        let issuer = certificates.next().ok_or_else(unreadable)??;
        let others = certificates.collect::<Result<_, _>>()?;
        Ok(Self { issuer, others })
    }

    /// The certificate whose key signs leaves.
    pub(crate) fn issuer(&self) -> &CaCertificate {
        &self.issuer
    }

    /// What clients must trust: the root if the file has it, else the last certificate on the way
    /// there.
    pub(crate) fn anchor(&self) -> &CaCertificate {
        self.iter()
            .find(|certificate| certificate.issued_by == IssuedBy::Itself)
            .or(self.others.last())
            .unwrap_or(&self.issuer)
    }

    /// What a server sends after its leaf. "The certificate authority that specifies the trust
    /// anchor MAY be omitted" (RFC 8446 §4.4.2), so a root is.
    pub(crate) fn sent(&self) -> Vec<CertificateDer<'static>> {
        self.iter()
            .filter(|certificate| certificate.issued_by == IssuedBy::Another)
            .map(|certificate| certificate.der.clone())
            .collect()
    }

    /// The span in which every certificate of the chain is valid.
    pub(crate) fn validity(&self) -> Validity {
        self.iter()
            .map(|certificate| certificate.validity)
            .fold(self.issuer.validity, Validity::intersect)
    }

    /// An error unless every certificate is valid at `now`.
    pub(crate) fn check_validity(
        &self,
        path: &Path,
        now: OffsetDateTime,
    ) -> Result<(), AuthorityError> {
        self.iter().try_for_each(|certificate| certificate.check_validity(path, now))
    }

    /// An error if any certificate's name constraints forbid the host.
    pub(crate) fn check_name(&self, host: &Host) -> Result<(), OutsideConstraints> {
        self.constraints().try_for_each(|constraints| constraints.check(host))
    }

    /// The name constraints of the chain; all of them apply.
    pub(crate) fn constraints(&self) -> impl Iterator<Item = &Constraints> {
        self.iter().filter_map(|certificate| certificate.constraints.as_ref())
    }

    /// What strict clients refuse in it, each in a sentence.
    pub(crate) fn deficiencies(&self) -> impl Iterator<Item = String> {
        self.iter().flat_map(|one| {
            one.deficiencies.iter().map(|deficiency| format!("{}: {deficiency}", one.subject))
        })
    }

    fn iter(&self) -> impl Iterator<Item = &CaCertificate> {
        std::iter::once(&self.issuer).chain(&self.others)
    }
}

impl CaCertificate {
    fn parse(path: &Path, der: CertificateDer<'static>) -> Result<Self, AuthorityError> {
        let unreadable = || AuthorityError::Certificate { path: path.to_owned() };
        let (_, x509) = X509Certificate::from_der(&der).map_err(|_| unreadable())?;
        let subject = x509.subject().to_string();
        if let Some(defect) = defect(&x509).map_err(|_| unreadable())? {
            return Err(AuthorityError::NotAnAuthority { path: path.to_owned(), subject, defect });
        }
        let constraints = x509.name_constraints().map_err(|_| unreadable())?;
        let issued_by = issued_by(&x509);
        Ok(Self {
            deficiencies: deficiencies(&x509, issued_by == IssuedBy::Itself),
            subject,
            subject_der: x509.subject().as_raw().to_vec(),
            public_key: x509.public_key().subject_public_key.data.to_vec(),
            issued_by,
            validity: validity(&x509),
            constraints: constraints.map(|found| Constraints::from_extension(found.value)),
            der,
        })
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    pub(crate) fn pem(&self) -> String {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        pem::encode_config(&pem::Pem::new(PEM_LABEL, self.der.to_vec()), config)
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// The subject as people write it: `CN=…, O=…`.
    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    /// The subject as it is encoded, and as leaves must repeat it.
    pub(crate) fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    /// The contents of the subject's public key, without the algorithm.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn check_validity(&self, path: &Path, now: OffsetDateTime) -> Result<(), AuthorityError> {
        let (path, subject) = (path.to_owned(), self.subject.clone());
        let validity = self.validity.to_string();
        match self.validity.place(now) {
            Moment::Within => Ok(()),
            Moment::After => Err(AuthorityError::Expired { path, subject, validity }),
            Moment::Before => {
                let now = minute(now);
                Err(AuthorityError::NotYetValid { path, subject, validity, now })
            }
        }
    }
}

/// Why clients would not accept what the certificate signs, if so.
fn defect(x509: &X509Certificate<'_>) -> Result<Option<&'static str>, X509Error> {
    if !x509.basic_constraints()?.is_some_and(|basic| basic.value.ca) {
        return Ok(Some("its basic constraints don't make it a CA"));
    }
    if x509.key_usage()?.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Ok(Some("its key usage lacks keyCertSign"));
    }
    let usage = x509.extended_key_usage()?;
    if usage.is_some_and(|usage| !usage.value.server_auth && !usage.value.any) {
        return Ok(Some("its extended key usage lacks serverAuth"));
    }
    Ok(None)
}

fn issued_by(x509: &X509Certificate<'_>) -> IssuedBy {
    if x509.issuer().as_raw() == x509.subject().as_raw() {
        IssuedBy::Itself
    } else {
        IssuedBy::Another
    }
}

fn validity(x509: &X509Certificate<'_>) -> Validity {
    Validity {
        not_before: x509.validity().not_before.to_datetime(),
        not_after: x509.validity().not_after.to_datetime(),
    }
}
