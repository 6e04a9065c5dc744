//! Name constraints: written critical, enforced by OpenSSL, and known to the authority before it
//! signs.
#![cfg(test)]

mod common;

use common::{Fixture, chain, leaf, server_name};
use entrepot_ca::{Authority, Constraints, LeafError};

#[test]
fn an_unlisted_name_is_refused_with_the_limits() {
    let ca = Fixture::constrained(&["docker.io", "amazonaws.com"], &[]).open();
    leaf(&ca, "registry-1.docker.io");
    for name in ["ghcr.io", "192.0.2.7"] {
        let error = ca.leaf(&server_name(name)).unwrap_err();
        assert!(matches!(error, LeafError::OutsideConstraints(_)));
        let said = ca.check_name(&server_name(name)).unwrap_err().to_string();
        assert_eq!(said, error.to_string());
        let expected =
            format!("the CA can't sign for {name}: it is constrained to amazonaws.com, docker.io;");
        assert!(said.starts_with(&expected), "{said}");
    }
}

#[test]
fn constraints_read_back_are_those_written() {
    for addresses in [&[][..], &["192.0.2.7", "2001:db8::1"]] {
        let fixture = Fixture::constrained(&["docker.io", "ghcr.io"], addresses);
        let ca = fixture.open();
        let read: Vec<_> = ca.constraints().collect();
        assert_eq!(read, [fixture.options.constraints.as_ref().unwrap()]);
        let text = fixture.openssl("x509 -in ca.crt -noout -text");
        assert!(text.contains("X509v3 Name Constraints: critical"), "{text}");
    }
    assert_eq!(Fixture::new().open().constraints().count(), 0);
}

/// The same key under a certificate without constraints signs what the constrained one must not: so
/// a leaf for a forbidden name exists, and clients are seen to refuse it.
#[test]
fn openssl_refuses_a_leaf_outside_the_constraints() {
    let constrained = Fixture::constrained(&["docker.io"], &["192.0.2.7"]);
    let ca = constrained.open();
    let thief = unconstrained_twin(&constrained);
    let stolen = thief.open();
    let verify = |name: &str| constrained.openssl_verify(&ca, &leaf(&stolen, name), "");
    for name in ["docker.io", "registry-1.docker.io", "192.0.2.7"] {
        assert!(verify(name).is_ok(), "{name}: {:?}", verify(name));
    }
    for name in ["ghcr.io", "notdocker.io", "192.0.2.8", "2001:db8::1"] {
        let refusal = verify(name).unwrap_err();
        assert!(refusal.contains("permitted subtree violation"), "{name}: {refusal}");
    }
}

#[test]
fn openssl_refuses_every_address_when_none_is_listed() {
    let constrained = Fixture::constrained(&["docker.io"], &[]);
    let ca = constrained.open();
    let stolen = unconstrained_twin(&constrained).open();
    for name in ["192.0.2.8", "2001:db8::1"] {
        let refusal = constrained.openssl_verify(&ca, &leaf(&stolen, name), "").unwrap_err();
        assert!(refusal.contains("excluded subtree violation"), "{name}: {refusal}");
    }
}

/// A CA with the name and key of the other, and no constraints.
fn unconstrained_twin(constrained: &Fixture) -> Fixture {
    let ca = Authority::load(constrained.dir(), &constrained.options).unwrap();
    let name = ca.subject().trim_start_matches("CN=").replace(' ', "~");
    let twin = Fixture::new();
    std::fs::copy(constrained.path("ca.key"), twin.path("ca.key")).unwrap();
    let key_id = constrained.openssl("x509 -in ca.crt -noout -ext subjectKeyIdentifier");
    let key_id = key_id.lines().last().unwrap().trim();
    // The name as UTF8String and the key identifier of the original: leaves name both.
    twin.openssl(&format!(
        "req -x509 -new -key ca.key -out ca.crt -days 30 -utf8 -nameopt utf8 -subj /CN={name} \
         -addext basicConstraints=critical,CA:TRUE -addext subjectKeyIdentifier={key_id}"
    ));
    twin
}

#[test]
fn constraints_of_an_existing_ca_are_obeyed() {
    let fixture = Fixture::new();
    fixture.openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
         -keyout ca.key -out ca.crt -days 30 -subj /CN=Corp \
         -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
         -addext nameConstraints=critical,permitted;DNS:corp.example,\
         permitted;IP:192.0.2.0/255.255.255.0,excluded;DNS:secret.corp.example",
    );
    let ca = fixture.open();
    for name in ["hub.corp.example", "192.0.2.200"] {
        let verified = fixture.openssl_verify(&ca, &leaf(&ca, name), "");
        assert!(verified.is_ok(), "{name}: {verified:?}");
    }
    for name in ["ghcr.io", "a.secret.corp.example", "198.51.100.1", "::1"] {
        let error = ca.leaf(&server_name(name)).unwrap_err();
        assert!(
            chain(&error).contains("corp.example, 192.0.2.0/24; not secret.corp.example"),
            "{error}"
        );
    }
}

#[test]
fn options_do_not_constrain_what_is_there() {
    let mut fixture = Fixture::new();
    fixture.open();
    fixture.options.constraints = Some(Constraints::new(["docker.io"], []).unwrap());
    leaf(&fixture.open(), "ghcr.io");
}
