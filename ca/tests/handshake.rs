//! A real TLS client against a leaf, in memory.
#![cfg(test)]

mod common;

use std::sync::Arc;

use common::{Fixture, leaf, server_name};
use entrepot_ca::Authority;
use rustls::crypto::aws_lc_rs;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error, RootCertStore, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn client(
    ca: &Authority,
    name: &str,
    version: &'static SupportedProtocolVersion,
) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).unwrap();
    roots.add(root).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    ClientConnection::new(Arc::new(config), server_name(name)).unwrap()
}

fn server(leaf: Arc<CertifiedKey>) -> ServerConnection {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Always(leaf)));
    ServerConnection::new(Arc::new(config)).unwrap()
}

/// Carries bytes to and fro until the client is satisfied or refuses.
fn handshake(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), Error> {
    while client.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

#[test]
fn the_right_name_is_accepted_and_another_refused() {
    let ca = Fixture::new().open();
    for version in VERSIONS {
        for name in ["ghcr.io", "192.0.2.7", "2001:db8::1"] {
            let mut server = server(leaf(&ca, name));
            handshake(&mut client(&ca, name, version), &mut server).unwrap();
        }
        for (asked, given) in [("quay.io", "ghcr.io"), ("192.0.2.8", "192.0.2.7")] {
            let mut server = server(leaf(&ca, given));
            let error = handshake(&mut client(&ca, asked, version), &mut server).unwrap_err();
            let expected = CertificateError::NotValidForNameContext {
                expected: server_name(asked),
                presented: vec![],
            };
            let Error::InvalidCertificate(error) = error else { panic!("{error}") };
            assert_eq!(
                std::mem::discriminant(&error),
                std::mem::discriminant(&expected),
                "{error}"
            );
        }
    }
}

#[test]
fn a_constrained_authority_is_accepted_for_its_names() {
    let ca = Fixture::constrained(&["docker.io"], &["192.0.2.7"]).open();
    for name in ["registry-1.docker.io", "192.0.2.7"] {
        let mut server = server(leaf(&ca, name));
        handshake(&mut client(&ca, name, &rustls::version::TLS13), &mut server).unwrap();
    }
}

#[test]
fn another_authority_with_the_same_name_is_not_trusted() {
    let (ca, other) = (Fixture::new().open(), Fixture::new().open());
    assert_eq!(ca.subject(), other.subject());
    let mut server = server(leaf(&other, "ghcr.io"));
    let refused = handshake(&mut client(&ca, "ghcr.io", &rustls::version::TLS13), &mut server);
    assert!(matches!(refused, Err(Error::InvalidCertificate(_))), "{refused:?}");
}
