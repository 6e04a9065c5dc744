//! One leaf: its profile, and signing it.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::rand;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SerialNumber,
};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::certificate::Chain;
use crate::error::{AuthorityError, LeafError};
use crate::host::Host;
use crate::validity::{Moment, Validity};

/// Short, since a leaf can't be revoked; the key behind it lives no longer than the process.
const LIFETIME: Duration = Duration::WEEK;

/// How far a client's clock may lag behind ours.
const CLOCK_LAG: Duration = Duration::HOUR;

/// RFC 5280 §4.1.2.2 allows 20 octets; CA/Browser Forum asks for 64 random bits or more. These are
/// 126.
const SERIAL_BYTES: usize = 16;

/// A leaf and its validity.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) validity: Validity,
}

/// Signs leaves: the CA's key, and the one key that all leaves of this process share.
pub(crate) struct Minter {
    issuer: Issuer<'static, KeyPair>,
    validity: Validity,
    sent: Vec<CertificateDer<'static>>,
    leaf_key: KeyPair,
    signing_key: Arc<dyn SigningKey>,
}

impl Minter {
    /// A minter for the CA in `chain`, whose key is `key`, with a new leaf key. Signs one leaf on
    /// trial, so that a CA which can't be used is found out now.
    pub(crate) fn new(
        path: &Path,
        chain: &Chain,
        key: KeyPair,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        let unusable = || AuthorityError::UnusableSubject {
            path: path.to_owned(),
            subject: chain.issuer().subject().to_owned(),
        };
        let issuer = Issuer::from_ca_cert_der(chain.issuer().der(), key).map_err(|_| unusable())?;
        let leaf_key = KeyPair::generate().map_err(AuthorityError::Generate)?;
        let signing_key = signing_key(&leaf_key)?;
        let minter =
            Self { issuer, validity: chain.validity(), sent: chain.sent(), leaf_key, signing_key };
        let trial = minter.mint(&Host::Dns("trial.invalid".to_owned()), now);
        let trial = trial.map_err(AuthorityError::Trial)?;
        if !names_issuer(&trial, chain.issuer().subject_der()) {
            return Err(unusable());
        }
        Ok(minter)
    }

    /// The validity of the CA's chain, which no leaf's exceeds.
    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }

    /// Signs a leaf for `host`: 25 µs with an EC key, milliseconds with RSA.
    pub(crate) fn mint(&self, host: &Host, now: OffsetDateTime) -> Result<Leaf, LeafError> {
        if self.validity.place(now) != Moment::Within {
            return Err(LeafError::OutsideValidity { validity: self.validity.to_string() });
        }
        let validity = Validity::starting(now.saturating_sub(CLOCK_LAG), LIFETIME);
        let validity = validity.intersect(self.validity);
        let params = profile(host, validity)?;
        let certificate =
            params.signed_by(&self.leaf_key, &self.issuer).map_err(LeafError::Sign)?;
        let mut sent = vec![CertificateDer::from(certificate)];
        sent.extend_from_slice(&self.sent);
        let certified = Arc::new(CertifiedKey::new(sent, Arc::clone(&self.signing_key)));
        Ok(Leaf { certified, validity })
    }
}

/// The subject is empty: a name constraint on directory names can then not be violated, hosts
/// longer than a common name's 64 characters are no exception, and clients have stopped reading it.
/// "If the subject field contains an empty sequence, then the issuing CA MUST include a
/// subjectAltName extension that is marked as critical." (RFC 5280 §4.2.1.6)
fn profile(host: &Host, validity: Validity) -> Result<CertificateParams, LeafError> {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.serial_number = Some(random_serial()?);
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![host.subject_alt_name()?];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A random serial, positive and of one length: the first bit is clear and the second set. Never
/// left to rcgen, whose own is a hash of the public key: with one key for all leaves, NSS would
/// refuse the second as a forgery of the first.
pub(crate) fn random_serial() -> Result<SerialNumber, LeafError> {
    let mut bytes = [0; SERIAL_BYTES];
    rand::fill(&mut bytes).map_err(|_| LeafError::Random)?;
    let [first, ..] = &mut bytes;
    *first = *first & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn signing_key(key: &KeyPair) -> Result<Arc<dyn SigningKey>, AuthorityError> {
    let der = PrivateKeyDer::Pkcs8(key.serialized_der().into());
    any_ecdsa_type(&der).map_err(|_| AuthorityError::Generate(rcgen::Error::CouldNotParseKeyPair))
}

/// "The issuer field MUST contain a non-empty distinguished name", and one chains by comparing it
/// with the CA's subject (RFC 5280 §4.1.2.4, §6.1.3). The certificate library re-encodes names, and
/// loses an attribute that occurs twice.
fn names_issuer(leaf: &Leaf, subject_der: &[u8]) -> bool {
    leaf.certified
        .cert
        .first()
        .and_then(|der| X509Certificate::from_der(der).ok())
        .is_some_and(|(_, x509)| x509.issuer().as_raw() == subject_der)
}

/// Whether `key` is the one in the certificate.
pub(crate) fn belongs(key: &KeyPair, public_key: &[u8]) -> bool {
    key.der_bytes() == public_key
}
