//! Who the registry and the peers are, and whom the load generator trusts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What the registry is called; the name is nobody's, so it can't be reached by mistake.
pub(crate) const HOST: &str = "registry.bench.test";

/// Files that every server here reads.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The authority that clients trust.
    pub(crate) ca: PathBuf,
    /// The certificate of [`HOST`] and of 127.0.0.1.
    pub(crate) certificate: PathBuf,
    /// Its key (P-256).
    pub(crate) key: PathBuf,
}

impl Identity {
    /// The files as they are called in `dir`.
    pub(crate) fn in_dir(dir: &Path) -> Self {
        let file = |name| dir.join(name);
        Self { ca: file("ca.pem"), certificate: file("server.pem"), key: file("server.key") }
    }

    /// Makes an authority and a certificate in `dir`.
    pub(crate) fn generate(dir: &Path) -> anyhow::Result<Self> {
        let files = Self::in_dir(dir);
        let issuer = authority("entrepot-bench", KeyPair::generate()?)?;
        let mut params = CertificateParams::new([HOST.to_owned(), "127.0.0.1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, HOST);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        fs::write(&files.ca, issuer.pem())?;
        fs::write(&files.certificate, certificate.pem())?;
        fs::write(&files.key, key.serialize_pem())?;
        Ok(files)
    }

    /// How a server with this identity speaks TLS.
    pub(crate) fn server(&self) -> anyhow::Result<ServerConfig> {
        let chain = CertificateDer::pem_file_iter(&self.certificate)?.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&self.key)?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(config)
    }
}

/// Makes an authority for squid, which wants an RSA key: its certificate and its key, as PEM.
pub(crate) fn bumping_authority() -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    let pem = key.serialize_pem();
    Ok((authority("squid's authority", key)?.pem(), pem))
}

fn authority(name: &str, key: KeyPair) -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(CertifiedIssuer::self_signed(params, key)?)
}

/// A client that speaks TLS 1.3, prefers what engines prefer, resumes nothing, and trusts the
/// authority in this file alone.
pub(crate) fn client(ca: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?).with_context(|| format!("{} is no root", ca.display()))?;
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// AES-128-GCM and X25519 before all others: what Go's clients ask for, and the same for every
/// server.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider.kx_groups.sort_by_key(|group| group.name() != rustls::NamedGroup::X25519);
    Arc::new(provider)
}
