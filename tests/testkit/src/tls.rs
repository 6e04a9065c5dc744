//! Both ends of a TLS handshake, each on a blocking stream.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientCertVerifierBuilder, WebPkiClientVerifier};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ProtocolVersion, RootCertStore,
    ServerConfig, ServerConnection, SignatureScheme, StreamOwned, SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::ca::{Leaf, TestCa};

/// A connection, whatever it is made of.
pub trait Stream: Read + Write + Send {
    /// Says that nothing more will be sent, where there is a way to say so.
    fn close_notify(&mut self) {}

    /// Whether the other side has shown a certificate, as clients may.
    fn is_certified(&self) -> bool {
        false
    }
}

impl Stream for TcpStream {}

impl Stream for UnixStream {}

impl Stream for Box<dyn Stream> {
    fn close_notify(&mut self) {
        self.as_mut().close_notify();
    }

    fn is_certified(&self) -> bool {
        self.as_ref().is_certified()
    }
}

impl<S: Stream> Stream for StreamOwned<ServerConnection, S> {
    fn close_notify(&mut self) {
        self.conn.send_close_notify();
        // The other side may be gone already, which is as good.
        drop(self.flush());
    }

    fn is_certified(&self) -> bool {
        self.conn.peer_certificates().is_some_and(|shown| !shown.is_empty())
    }
}

impl<S: Stream> Stream for StreamOwned<ClientConnection, S> {
    fn close_notify(&mut self) {
        self.conn.send_close_notify();
        drop(self.flush());
    }
}

/// A server's side that shows `leaf` and offers HTTP/1.1.
#[must_use]
pub fn server_config(leaf: Leaf) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(leaf.chain, leaf.key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// As [`server_config`], for clients alone that show a certificate of `clients`.
#[must_use]
pub fn demanding_config(leaf: Leaf, clients: &TestCa, versions: Versions) -> Arc<ServerConfig> {
    config_with(leaf, verifier(clients), versions)
}

/// As [`server_config`], for clients that may show a certificate of `clients`.
#[must_use]
pub fn asking_config(leaf: Leaf, clients: &TestCa) -> Arc<ServerConfig> {
    config_with(leaf, verifier(clients).allow_unauthenticated(), Versions::Both)
}

fn verifier(clients: &TestCa) -> ClientCertVerifierBuilder {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(clients.pem().as_bytes()).unwrap()).unwrap();
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
}

fn config_with(
    leaf: Leaf,
    verifier: ClientCertVerifierBuilder,
    versions: Versions,
) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions.offered())
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(leaf.chain, leaf.key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// The server's side of a connection; the handshake happens with the first read.
pub(crate) fn accept(config: &Arc<ServerConfig>, stream: TcpStream) -> Box<dyn Stream> {
    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
    Box::new(StreamOwned::new(connection, stream))
}

/// Which versions a client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versions {
    /// TLS 1.2 and 1.3.
    #[default]
    Both,
    /// TLS 1.2 alone.
    Tls12,
    /// TLS 1.3 alone.
    Tls13,
}

static TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
static TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

impl Versions {
    fn offered(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Both => rustls::ALL_VERSIONS,
            Self::Tls12 => TLS12,
            Self::Tls13 => TLS13,
        }
    }
}

/// What a client does in its handshakes.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsOptions {
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) sni: Sni,
    pub(crate) alpn: Vec<Vec<u8>>,
    pub(crate) versions: Versions,
}

/// Which server name a client sends.
#[derive(Debug, Clone, Default)]
pub(crate) enum Sni {
    /// The host it wants.
    #[default]
    Host,
    /// None.
    Absent,
    /// Another one.
    Other(String),
}

/// What came of a handshake.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// The version agreed on.
    pub version: ProtocolVersion,
    /// The application protocol agreed on, if any.
    pub alpn: Option<Vec<u8>>,
    /// What the server showed, the leaf first.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl TlsOptions {
    pub(crate) fn trust(&mut self, pem: &str) {
        let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
        self.roots.extend(certificates.map(|certificate| certificate.expect("a PEM certificate")));
    }

    /// The client's side of a connection to `host`, after a whole handshake.
    pub(crate) fn connect(
        &self,
        host: &str,
        mut stream: Box<dyn Stream>,
    ) -> io::Result<(Box<dyn Stream>, Handshake)> {
        let sent = match &self.sni {
            Sni::Other(name) => name,
            Sni::Host | Sni::Absent => host,
        };
        let config = Arc::new(self.config(&[host, sent]));
        let mut connection =
            ClientConnection::new(config, server_name(sent)).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        let handshake = Handshake {
            version: connection.protocol_version().unwrap(),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            certificates: connection.peer_certificates().unwrap_or_default().to_vec(),
        };
        Ok((Box::new(StreamOwned::new(connection, stream)), handshake))
    }

    fn config(&self, names: &[&str]) -> ClientConfig {
        let verifier = AnyNameVerifier {
            chain: WebPkiServerVerifier::builder_with_provider(Arc::new(self.store()), provider())
                .build()
                .unwrap(),
            names: names.iter().map(|name| server_name(name)).collect(),
        };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(self.versions.offered())
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.enable_sni = !matches!(self.sni, Sni::Absent);
        config.alpn_protocols.clone_from(&self.alpn);
        config
    }

    fn store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            store.add(root.clone()).unwrap();
        }
        store
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn server_name(host: &str) -> ServerName<'static> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(bare.to_owned()).expect("a host name or an address")
}

/// The usual check, but against any of `names`: the name that a client sends and the one that it
/// wants may differ here, and which of them a server then certifies is the server's choice.
#[derive(Debug)]
struct AnyNameVerifier {
    chain: Arc<WebPkiServerVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ServerCertVerifier for AnyNameVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut answers = self
            .names
            .iter()
            .map(|name| self.chain.verify_server_cert(leaf, intermediates, name, ocsp, now));
        let first = answers.next().expect("at least one name");
        answers.fold(first, Result::or)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
