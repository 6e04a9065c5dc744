//! As much of a proxy as a client's set-up sees: `/ca.crt`, a registry behind CONNECT, a mirror.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// The first byte of a TLS record that holds a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

static NEXT_CA: AtomicUsize = AtomicUsize::new(0);

/// What the registry behind the proxy is like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Registry {
    /// Answers `/v2/` with this status, under a certificate of the proxy's CA.
    Answers(u16),
    /// Shows a certificate that nobody trusts.
    Untrusted,
}

/// A running proxy; its threads end with the test process.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) scheme: &'static str,
    pub(crate) port: u16,
    pub(crate) ca_pem: String,
    pub(crate) fingerprint: String,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) fn start(registry: Registry) -> Self {
        Self::start_serving(registry, str::to_owned)
    }

    /// With an answer to `/ca.crt` that is made from the real one.
    pub(crate) fn start_serving(registry: Registry, ca_crt: impl Fn(&str) -> String) -> Self {
        let ca = certificate_authority();
        let other = certificate_authority();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let inner = match registry {
            Registry::Answers(_) => &ca,
            Registry::Untrusted => &other,
        };
        let server = Arc::new(Server {
            ca_crt: ca_crt(&ca.pem()),
            outer_tls: leaf(&ca, "127.0.0.1"),
            registry_tls: leaf(inner, "registry-1.docker.io"),
            registry,
        });
        let counter = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                let server = Arc::clone(&server);
                thread::spawn(move || server.accept(stream));
            }
        });
        let fingerprint = sha256_hex(ca.der());
        Self { scheme: "http", port, ca_pem: ca.pem(), fingerprint, connections }
    }

    pub(crate) fn over_tls(mut self) -> Self {
        self.scheme = "https";
        self
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// `text` without what differs from run to run.
    pub(crate) fn mask(&self, text: &str) -> String {
        text.replace(&format!("127.0.0.1:{}", self.port), "proxy:3128")
            .replace(&self.fingerprint, "FINGERPRINT")
    }
}

struct Server {
    ca_crt: String,
    outer_tls: Arc<ServerConfig>,
    registry_tls: Arc<ServerConfig>,
    registry: Registry,
}

impl Server {
    fn accept(&self, stream: TcpStream) {
        let mut first = [0];
        if stream.peek(&mut first).is_ok_and(|length| length == 1) {
            match first[0] {
                TLS_HANDSHAKE => self.serve(tls(&self.outer_tls, stream)),
                _ => self.serve(stream),
            }
        }
    }

    fn serve(&self, mut stream: impl Read + Write) {
        let request = read_head(&mut stream);
        if request.starts_with("CONNECT registry-1.docker.io:443 ") {
            if stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").is_ok() {
                self.serve_registry(tls(&self.registry_tls, stream));
            }
        } else if request.starts_with("GET /ca.crt ") {
            answer(&mut stream, 200, &self.ca_crt);
        } else if request.starts_with("GET /check/image ") {
            answer(&mut stream, 200, "docker.io/library/alpine:3.20\n");
        } else if request.starts_with("HEAD /v2/docker.io/library/alpine/manifests/3.20 ") {
            let status = if matches!(self.registry, Registry::Answers(401)) { 200 } else { 502 };
            answer(&mut stream, status, "");
        } else {
            answer(&mut stream, 404, "");
        }
    }

    fn serve_registry(&self, mut stream: impl Read + Write) {
        let request = read_head(&mut stream);
        let status = match self.registry {
            Registry::Answers(status) if request.contains(" /v2/ HTTP/") => status,
            _ => 404,
        };
        let body = if status >= 500 { "upstream\r\nis \u{1b}[1maway" } else { "" };
        answer(&mut stream, status, body);
    }
}

fn tls<S: Read + Write>(config: &Arc<ServerConfig>, stream: S) -> StreamOwned<ServerConnection, S> {
    StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), stream)
}

fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A client that hangs up first is not this server's concern.
fn answer(stream: &mut impl Write, status: u16, body: &str) {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nConnection: close\r\n\
         WWW-Authenticate: Bearer realm=\"https://auth.docker.io/token\"\r\n\r\n"
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body.as_bytes());
    let _ = stream.flush();
}

pub(crate) fn certificate_authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Two CAs of one name would share their hash link in the trust store.
    let name = format!("test CA {}", NEXT_CA.fetch_add(1, Ordering::SeqCst));
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(issuer: &CertifiedIssuer<'static, KeyPair>, name: &str) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

fn sha256_hex(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}
