//! CAs that others made: each form of key, chains, and what is refused.
#![cfg(test)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use common::{Fixture, chain, leaf};
use entrepot_ca::{Authority, AuthorityError, KeyError};

const SELF_SIGN: &str = "req -x509 -new -key ca.key -passin pass:foobar -out ca.crt -days 30 \
    -subj /CN=Old~CA -addext basicConstraints=critical,CA:TRUE \
    -addext keyUsage=critical,keyCertSign";

/// Makes `ca.key` by the given openssl commands, and a certificate for it.
fn made_by(commands: &[&str]) -> Fixture {
    let fixture = Fixture::new();
    for command in commands {
        fixture.openssl(command);
    }
    fixture.openssl(SELF_SIGN);
    fixture
}

fn first_line(fixture: &Fixture) -> String {
    let text = fs::read_to_string(fixture.path("ca.key")).unwrap();
    text.lines().next().unwrap().to_owned()
}

fn assert_signs(fixture: &Fixture) {
    let ca = fixture.open();
    let verified = fixture.openssl_verify(&ca, &leaf(&ca, "ghcr.io"), "-verify_hostname ghcr.io");
    assert!(verified.is_ok(), "{verified:?}");
}

#[test]
fn every_plain_form_of_key_signs() {
    let table: [(&str, &[&str]); 7] = [
        ("PRIVATE KEY", &["genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ca.key"]),
        ("PRIVATE KEY", &["genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out ca.key"]),
        ("PRIVATE KEY", &["genpkey -algorithm ED25519 -out ca.key"]),
        ("PRIVATE KEY", &["genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out ca.key"]),
        ("RSA PRIVATE KEY", &["genrsa -traditional -out ca.key 2048"]),
        ("EC PARAMETERS", &["ecparam -name prime256v1 -genkey -out ca.key"]),
        ("EC PRIVATE KEY", &["ecparam -name secp384r1 -genkey -noout -out ca.key"]),
    ];
    for (label, commands) in table {
        let fixture = made_by(commands);
        assert_eq!(first_line(&fixture), format!("-----BEGIN {label}-----"), "{commands:?}");
        assert_signs(&fixture);
    }
}

#[test]
fn every_encrypted_form_opens_with_the_well_known_passphrase() {
    let table: [(&str, &[&str]); 7] = [
        ("ENCRYPTED PRIVATE KEY", &["genrsa -des3 -passout pass:foobar -out ca.key 2048"]),
        ("RSA PRIVATE KEY", &["genrsa -traditional -des3 -passout pass:foobar -out ca.key 2048"]),
        ("RSA PRIVATE KEY", &["genrsa -traditional -aes128 -passout pass:foobar -out ca.key 2048"]),
        ("RSA PRIVATE KEY", &["genrsa -traditional -aes192 -passout pass:foobar -out ca.key 2048"]),
        ("RSA PRIVATE KEY", &["genrsa -traditional -aes256 -passout pass:foobar -out ca.key 2048"]),
        (
            "EC PRIVATE KEY",
            &[
                "ecparam -name prime256v1 -genkey -noout -out plain.key",
                "ec -in plain.key -des3 -passout pass:foobar -out ca.key",
            ],
        ),
        (
            "ENCRYPTED PRIVATE KEY",
            &["genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 \
                 -pass pass:foobar -out ca.key"],
        ),
    ];
    for (label, commands) in table {
        let fixture = made_by(commands);
        assert_eq!(first_line(&fixture), format!("-----BEGIN {label}-----"), "{commands:?}");
        assert_signs(&fixture);
    }
}

/// The root of docker-registry-proxy: RSA, `genrsa -des3`, a long subject, these extensions in this
/// order.
#[test]
fn a_docker_registry_proxy_ca_is_taken_over() {
    for form in ["", "-traditional"] {
        let fixture = Fixture::new();
        fixture.openssl(&format!("genrsa {form} -des3 -passout pass:foobar -out ca.key 4096"));
        fixture.openssl(
            "req -new -x509 -days 1300 -sha256 -key ca.key -passin pass:foobar -out ca.crt \
             -subj /C=NL/ST=Noord~Holland/L=Amsterdam/O=ME/OU=IT/\
             CN=DockerMirrorBox~CA~Root~proxy~2024.01.01~10:00 \
             -addext basicConstraints=critical,CA:TRUE \
             -addext keyUsage=critical,digitalSignature,cRLSign,keyCertSign",
        );
        assert_signs(&fixture);
        assert!(fixture.open().subject().contains("DockerMirrorBox CA Root"));
    }
}

#[test]
fn a_configured_passphrase_is_tried_first_and_a_wrong_one_is_named() {
    let command = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes128 \
         -pass pass:hunter2 -out ca.key";
    let fixture = Fixture::new().passphrase("hunter2");
    fixture.openssl(command);
    fixture.openssl(&SELF_SIGN.replace("foobar", "hunter2"));
    assert_signs(&fixture);
    for fixture in [Fixture::new(), Fixture::new().passphrase("wrong")] {
        fixture.openssl(command);
        fixture.openssl(&SELF_SIGN.replace("foobar", "hunter2"));
        let error = fixture.try_open().unwrap_err();
        assert!(
            matches!(&error, AuthorityError::Key { source: KeyError::Passphrase, .. }),
            "{}",
            chain(&error)
        );
        assert!(!chain(&error).contains("hunter2") && !chain(&error).contains("wrong"));
    }
}

/// By chance one wrong passphrase in 256 leaves right padding; what it opens is still no key.
#[test]
fn wrong_passphrases_never_open_a_traditional_key() {
    let fixture = Fixture::new();
    fixture.openssl("genrsa -traditional -des3 -passout pass:hunter2 -out ca.key 2048");
    fixture.openssl(&SELF_SIGN.replace("foobar", "hunter2"));
    for index in 0..600 {
        let mut options = fixture.options.clone();
        options.passphrase = Some(entrepot_ca::Passphrase::new(format!("guess {index}")));
        let error = Authority::load(fixture.dir(), &options).unwrap_err();
        assert!(matches!(error, AuthorityError::Key { source: KeyError::Passphrase, .. }));
    }
}

#[test]
fn keys_that_are_not_read_are_refused_with_a_cure() {
    let plain = Fixture::new();
    let rsa = "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out plain.key";
    plain.openssl(rsa);
    let table = [
        (vec!["genrsa -out ca.key 1024"], "it is not an EC (P-256, P-384), RSA"),
        (vec!["ecparam -name secp256k1 -genkey -noout -out ca.key"], "it is not an EC"),
        (
            vec![
                rsa,
                "rsa -in plain.key -traditional -camellia128 -passout pass:foobar -out ca.key",
            ],
            "its encryption (CAMELLIA-128-CBC,",
        ),
    ];
    for (commands, expected) in table {
        let error = made_by(&commands).try_open().unwrap_err();
        assert!(chain(&error).contains(expected), "{}", chain(&error));
    }
    let fixture = made_by(&["genrsa -out ca.key 2048"]);
    fs::write(fixture.path("ca.key"), "no key at all").unwrap();
    assert!(chain(&fixture.try_open().unwrap_err()).contains("there is no PEM private key"));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let fixture = made_by(&["genrsa -out ca.key 2048"]);
    fixture.openssl("genrsa -out ca.key 2048");
    let error = fixture.try_open().unwrap_err();
    assert!(matches!(error, AuthorityError::KeyMismatch { .. }), "{error}");
}

#[test]
fn a_certificate_that_is_no_ca_is_refused() {
    let table = [
        ("-addext basicConstraints=critical,CA:FALSE", "basic constraints"),
        (
            "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,digitalSignature",
            "keyCertSign",
        ),
        (
            "-addext basicConstraints=critical,CA:TRUE -addext extendedKeyUsage=clientAuth",
            "serverAuth",
        ),
    ];
    for (extensions, expected) in table {
        let fixture = Fixture::new();
        fixture.openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 30 \
             -subj /CN=X {extensions}"
        ));
        let error = fixture.try_open().unwrap_err();
        assert!(matches!(error, AuthorityError::NotAnAuthority { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_ca_outside_its_validity_is_refused_with_the_dates() {
    let fixture = Fixture::new();
    let ca = fixture.open();
    fixture.clock.set(ca.not_after() + Duration::from_secs(1));
    let error = fixture.try_open().unwrap_err();
    assert!(matches!(error, AuthorityError::Expired { .. }));
    let text = error.to_string();
    assert!(text.contains("it was valid 20") && text.contains("to renew, move"), "{text}");
    fixture.clock.set(ca.not_before() - Duration::from_secs(1));
    let error = fixture.try_open().unwrap_err();
    assert!(matches!(error, AuthorityError::NotYetValid { .. }), "{error}");
}

/// A root, an intermediate below it with its key, both in `ca.crt`.
fn intermediate(subject: &str) -> Fixture {
    let fixture = Fixture::new();
    fixture.openssl(
        "req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.crt -days 60 \
         -subj /CN=Corp~Root -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign",
    );
    fixture.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ca.key");
    fixture.openssl(&format!("req -new -key ca.key -out ca.csr -subj {subject}"));
    let extensions = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign\n\
         subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
    fs::write(fixture.path("extensions"), extensions).unwrap();
    fixture.openssl(
        "x509 -req -in ca.csr -CA root.crt -CAkey root.key -set_serial 7 -days 30 \
         -extfile extensions -out ca.crt",
    );
    fixture
}

#[test]
fn an_intermediate_is_sent_and_its_root_is_what_clients_trust() {
    let fixture = intermediate("/O=Corp/CN=Registry~CA");
    let root = fs::read_to_string(fixture.path("root.crt")).unwrap();
    let own = fs::read_to_string(fixture.path("ca.crt")).unwrap();
    fs::write(fixture.path("ca.crt"), format!("the CA of our registry proxy\n{own}{root}"))
        .unwrap();
    let ca = fixture.open();
    assert_eq!(ca.certificate_pem(), root);
    assert_eq!(ca.subject(), "CN=Corp Root");
    let leaf = leaf(&ca, "ghcr.io");
    assert_eq!(leaf.cert.len(), 2, "leaf and intermediate, not the root");
    let days = ca.not_after().duration_since(fixture.clock.now()).unwrap().as_secs() / 86_400;
    assert!((29..=30).contains(&days), "the shorter validity of the two: {days}");
    let verified = fixture.openssl_verify(&ca, &leaf, "-verify_hostname ghcr.io");
    assert!(verified.is_ok(), "{verified:?}");
}

#[test]
fn an_intermediate_without_its_root_is_the_anchor_and_is_sent() {
    let fixture = intermediate("/CN=Registry~CA");
    let ca = fixture.open();
    assert_eq!(ca.subject(), "CN=Registry CA");
    let leaf = leaf(&ca, "ghcr.io");
    assert_eq!(leaf.cert.len(), 2);
    let verified = fixture.openssl_verify(&ca, &leaf, "-partial_chain -verify_hostname ghcr.io");
    assert!(verified.is_ok(), "{verified:?}");
}

#[test]
fn a_name_that_leaves_could_not_repeat_is_refused() {
    let fixture = intermediate("/DC=example/DC=corp/CN=Registry~CA");
    let error = fixture.try_open().unwrap_err();
    assert!(matches!(error, AuthorityError::UnusableSubject { .. }), "{error}");
}

#[test]
fn load_never_creates() {
    let fixture = Fixture::new();
    let error = Authority::load(fixture.dir(), &fixture.options).unwrap_err();
    assert!(matches!(error, AuthorityError::Missing { .. }), "{error}");
    let absent = fixture.path("absent");
    let error = Authority::load(&absent, &fixture.options).unwrap_err();
    assert!(matches!(error, AuthorityError::Read { .. }), "{error}");
    assert_eq!(fs::read_dir(fixture.dir()).unwrap().count(), 0);
}

#[test]
fn a_loose_key_is_refused_and_nothing_prints_it() {
    let fixture = Fixture::new();
    let ca = fixture.open();
    let key = fs::read_to_string(fixture.path("ca.key")).unwrap();
    let shown = format!("{ca:?} {ca:#?}");
    let material = key.lines().nth(1).unwrap();
    assert!(!shown.contains(material) && shown.contains("entrepot CA proxy1"));
    fs::set_permissions(fixture.path("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = fixture.try_open().unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

const P256: &str = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ca.key";
const USAGE: &str = "-addext keyUsage=critical,keyCertSign";
const BASIC: &str = "-addext basicConstraints=critical,CA:TRUE";

/// What is told of a CA is what a strict client refuses in it: no more, and no less.
#[test]
fn deficiencies_are_what_strict_clients_refuse() {
    let table: [(&[&str], &[&str]); 7] = [
        (&[BASIC, USAGE], &[]),
        (&[BASIC, USAGE, "-addext subjectKeyIdentifier=none"], &["subject key identifier"]),
        (&[BASIC], &["no key usage"]),
        (&["-addext basicConstraints=CA:TRUE", USAGE], &["basic constraints are not critical"]),
        (&["-addext basicConstraints=CA:TRUE"], &["no key usage", "basic constraints"]),
        (&[BASIC, USAGE, "-addext authorityKeyIdentifier=none"], &[]),
        (
            &[BASIC, USAGE, "-addext subjectKeyIdentifier=critical,hash"],
            &["subject key identifier is critical"],
        ),
    ];
    for (extensions, expected) in table {
        let fixture = Fixture::new();
        fixture.openssl(P256);
        // Without a configuration of its own openssl adds what is asked for alone.
        fs::write(fixture.path("empty.cnf"), "[req]\ndistinguished_name = dn\n[dn]\n").unwrap();
        let subject = "req -x509 -new -config empty.cnf -key ca.key -out ca.crt -days 30 \
            -subj /CN=Old~CA";
        fixture.openssl(&format!("{subject} {}", extensions.join(" ")));
        let ca = fixture.open();
        let told: Vec<_> = ca.deficiencies().collect();
        let verified = fixture.openssl_verify(&ca, &leaf(&ca, "ghcr.io"), "");
        assert_eq!(verified.is_ok(), expected.is_empty(), "{extensions:?}: {verified:?}");
        assert_eq!(told.len(), expected.len(), "{extensions:?}: {told:?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with("CN=Old CA: "), "{told}");
            assert!(told.contains(expected), "{told}");
        }
    }
}

/// A link of a chain must lead on to the next one.
#[test]
fn a_link_that_does_not_name_its_issuers_key_is_deficient() {
    for identifier in ["keyid", "none"] {
        let fixture = Fixture::new();
        fixture.openssl(&P256.replace("ca.key", "root.key"));
        fixture.openssl(&format!(
            "req -x509 -new -key root.key -out root.crt -days 30 -subj /CN=Root {USAGE}"
        ));
        fixture.openssl(P256);
        fixture.openssl("req -new -key ca.key -out ca.csr -subj /CN=Link");
        fs::write(
            fixture.path("link.cnf"),
            format!(
                "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n\
                 subjectKeyIdentifier=hash\nauthorityKeyIdentifier={identifier}\n"
            ),
        )
        .unwrap();
        fixture.openssl(
            "x509 -req -in ca.csr -CA root.crt -CAkey root.key -days 30 -out ca.crt \
             -extfile link.cnf",
        );
        let root = fs::read_to_string(fixture.path("root.crt")).unwrap();
        let link = fs::read_to_string(fixture.path("ca.crt")).unwrap();
        fs::write(fixture.path("ca.crt"), link + &root).unwrap();
        let ca = fixture.open();
        let verified = fixture.openssl_verify(&ca, &leaf(&ca, "ghcr.io"), "");
        let told: Vec<_> = ca.deficiencies().collect();
        assert_eq!(verified.is_ok(), told.is_empty(), "{told:?} {verified:?}");
        assert_eq!(told.is_empty(), identifier == "keyid", "{told:?}");
    }
}

#[test]
fn the_own_ca_has_no_deficiency() {
    let fixture = Fixture::new();
    assert_eq!(fixture.open().deficiencies().collect::<Vec<_>>(), Vec::<String>::new());
}
