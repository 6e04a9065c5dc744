//! The profile of roots and leaves, by a parser and by OpenSSL's strict rules.
#![cfg(test)]

mod common;

use common::{Fixture, leaf, parsed, unix_secs};
use entrepot_ca::{Authority, Origin};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

fn root<T>(ca: &Authority, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    let (_, pem) = x509_parser::pem::parse_x509_pem(ca.certificate_pem().as_bytes()).unwrap();
    look(&pem.parse_x509().unwrap())
}

fn assert_serial(x509: &X509Certificate<'_>) {
    let serial = x509.raw_serial();
    assert_eq!(serial.len(), 16);
    assert!((0x40..0x80).contains(&serial[0]), "positive and of full length: {serial:x?}");
}

#[test]
fn root_is_a_ca_and_nothing_else() {
    let fixture = Fixture::new();
    let ca = fixture.open();
    root(&ca, |x509| {
        let basic = x509.basic_constraints().unwrap().unwrap();
        assert!(basic.critical && basic.value.ca);
        assert_eq!(basic.value.path_len_constraint, Some(0));
        let usage = x509.key_usage().unwrap().unwrap();
        assert!(usage.critical);
        // RFC 5280 §4.2.1.3: keyCertSign is bit 5, cRLSign bit 6.
        assert_eq!(usage.value.flags, 1 << 5 | 1 << 6);
        assert!(x509.name_constraints().unwrap().is_none());
        assert!(x509.iter_extensions().any(|it| it.oid.to_id_string() == "2.5.29.14"));
        assert_serial(x509);
        let span = x509.validity();
        assert_eq!(span.not_after.timestamp() - span.not_before.timestamp(), 3650 * 86_400);
        assert_eq!(span.not_before.timestamp(), unix_secs(fixture.clock.now()) - 86_400);
        assert!(x509.subject().to_string().starts_with("CN=entrepot CA proxy1 20"));
    });
}

#[test]
fn what_the_authority_says_is_what_openssl_says() {
    let fixture = Fixture::new();
    let ca = fixture.open();
    let said = fixture.openssl("x509 -in ca.crt -noout -fingerprint -sha256 -subject");
    assert!(said.contains(&ca.fingerprint().to_string()), "{said}");
    assert!(said.replace(" = ", "=").contains(ca.subject()), "{said}");
    assert_eq!(ca.certificate_pem(), std::fs::read_to_string(fixture.path("ca.crt")).unwrap());
    assert_eq!(ca.origin(), Origin::Created);
    let again = fixture.open();
    assert_eq!(again.origin(), Origin::Loaded);
    assert_eq!(again.fingerprint(), ca.fingerprint());
    assert_eq!((again.not_before(), again.not_after()), (ca.not_before(), ca.not_after()));
}

#[test]
fn leaf_is_for_one_server_and_a_week() {
    let fixture = Fixture::new();
    let ca = fixture.open();
    let root_key_id = root(&ca, |x509| key_ids(x509).0);
    parsed(&leaf(&ca, "registry-1.docker.io"), |x509| {
        let names = x509.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names, [GeneralName::DNSName("registry-1.docker.io")]);
        let usage = x509.key_usage().unwrap().unwrap();
        assert!(usage.critical);
        assert_eq!(usage.value.flags, 1, "digitalSignature alone");
        let extended = x509.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && !extended.client_auth && !extended.any);
        assert!(!x509.is_ca());
        assert_eq!(key_ids(x509).1, root_key_id);
        assert_serial(x509);
        let span = x509.validity();
        assert_eq!(span.not_before.timestamp(), unix_secs(fixture.clock.now()) - 3600);
        assert_eq!(span.not_after.timestamp() - span.not_before.timestamp(), 7 * 86_400);
    });
}

/// The subject's and the issuer's key identifiers.
fn key_ids(x509: &X509Certificate<'_>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    use x509_parser::extensions::ParsedExtension;
    let mut ids = (None, None);
    for extension in x509.iter_extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => ids.0 = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                ids.1 = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            _ => {}
        }
    }
    ids
}

#[test]
fn ip_authority_gets_an_ip_san() {
    let ca = Fixture::new().open();
    for (name, octets) in
        [("192.0.2.7", vec![192, 0, 2, 7]), ("::1", [vec![0; 15], vec![1]].concat())]
    {
        parsed(&leaf(&ca, name), |x509| {
            let names = x509.subject_alternative_name().unwrap().unwrap();
            assert_eq!(names.value.general_names, [GeneralName::IPAddress(&octets)]);
        });
    }
}

#[test]
fn openssl_accepts_each_kind_of_name_strictly() {
    let fixture = Fixture::new();
    let ca = fixture.open();
    let long = format!("{}.{}.example", "a".repeat(63), "b".repeat(63));
    let seventy = format!("{}.registry.example", "c".repeat(53));
    assert_eq!(seventy.len(), 70);
    for (name, flag) in [
        ("ghcr.io", "-verify_hostname ghcr.io".to_owned()),
        ("192.0.2.7", "-verify_ip 192.0.2.7".to_owned()),
        ("2001:db8::1", "-verify_ip 2001:db8::1".to_owned()),
        (&long, format!("-verify_hostname {long}")),
        (&seventy, format!("-verify_hostname {seventy}")),
    ] {
        let verified = fixture.openssl_verify(&ca, &leaf(&ca, name), &flag);
        assert!(verified.is_ok(), "{name}: {verified:?}");
    }
    let other = fixture.openssl_verify(&ca, &leaf(&ca, "ghcr.io"), "-verify_hostname quay.io");
    assert!(other.unwrap_err().contains("ostname mismatch"));
}
