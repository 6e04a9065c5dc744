//! The root that we make: its profile, and its two files' text.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use crate::constraints::Constraints;
use crate::error::AuthorityError;
use crate::mint::random_serial;
use crate::options::Options;
use crate::validity::Validity;

/// Long enough that nobody meets the renewal by surprise in a machine's life; the certificate names
/// its date.
const LIFETIME: Duration = Duration::days(3650);

/// How far a client's clock may lag behind ours when the CA is new. Leaves start an hour back,
/// never before their CA.
const CLOCK_LAG: Duration = Duration::DAY;

/// The upper bound of a common name is 64 characters (RFC 5280, appendix A.1, `ub-common-name`);
/// `entrepot CA `, a space and a date take 23 of them.
const HOST_NAME_CHARACTERS: usize = 64 - 23;

/// A new root as text: what `ca.crt` and `ca.key` will hold.
pub(crate) struct Root {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

/// Makes a key and signs it by itself. Slow only in that it asks for randomness.
pub(crate) fn generate(options: &Options) -> Result<Root, AuthorityError> {
    let key = KeyPair::generate().map_err(AuthorityError::Generate)?;
    let params = profile(options, options.clock.now())?;
    let certificate = params.self_signed(&key).map_err(AuthorityError::Generate)?;
    Ok(Root { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

fn profile(options: &Options, now: OffsetDateTime) -> Result<CertificateParams, AuthorityError> {
    let validity = Validity::starting(now.saturating_sub(CLOCK_LAG), LIFETIME);
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.serial_number = Some(random_serial().map_err(AuthorityError::Trial)?);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name(&options.host_name, now));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = options.constraints.as_ref().map(Constraints::to_extension);
    Ok(params)
}

/// `entrepot CA proxy1 2026-11-21`: tells two roots apart in a list of trusted ones.
fn common_name(host_name: &str, now: OffsetDateTime) -> String {
    let host: String = host_name.chars().map(plain).take(HOST_NAME_CHARACTERS).collect();
    format!("entrepot CA {host} {}", now.date())
}

fn plain(character: char) -> char {
    match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => character,
        _ => '-',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_name_fits_and_is_plain() {
        let day = OffsetDateTime::from_unix_timestamp(1_795_219_200).unwrap();
        assert_eq!(common_name("proxy1", day), "entrepot CA proxy1 2026-11-21");
        assert_eq!(common_name("a\nb/c", day), "entrepot CA a-b-c 2026-11-21");
        assert_eq!(common_name(&"x".repeat(200), day).len(), 64);
    }
}
