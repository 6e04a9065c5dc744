//! Certificate authorities for upstreams, and leaves that are right, or wrong in one way.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

/// An authority that signs for upstreams, with its certificate in a file of its own.
#[derive(Debug)]
pub struct TestCa {
    name: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// A server's certificate and its key.
#[derive(Debug)]
pub struct Leaf {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    certificate_pem: String,
    key_pem: String,
}

impl Leaf {
    fn new(certificate: &Certificate, key: &KeyPair) -> Self {
        Self {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// One that nobody vouches for but itself, with whatever a test changes about it.
    #[must_use]
    pub fn self_signed(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = params(names);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Self::new(&params.self_signed(&key).unwrap(), &key)
    }

    /// The certificate as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The key as PEM.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }
}

impl TestCa {
    /// A new authority with this common name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { name: name.to_owned(), issuer, directory }
    }

    /// Its common name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The file that holds its certificate; goes away with the authority.
    #[must_use]
    pub fn pem_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The directory of that file, in which a test may put others.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A leaf for these host names or IP addresses, valid now.
    #[must_use]
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        self.sign(&params(names))
    }

    /// A leaf whose time was over in 2021.
    #[must_use]
    pub fn expired_leaf(&self, names: &[&str]) -> Leaf {
        let mut params = params(names);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(&params)
    }

    /// A leaf with whatever a test changes about its parameters.
    #[must_use]
    pub fn odd_leaf(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = params(names);
        change(&mut params);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        Leaf::new(&params.signed_by(&key, &self.issuer).unwrap(), &key)
    }

    /// Another authority, which this one vouches for, with whatever a test changes about it: its
    /// leaves show its certificate as well.
    #[must_use]
    pub fn chained_leaf(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let mut between = CertificateParams::new(Vec::new()).unwrap();
        between.distinguished_name.push(DnType::CommonName, "in between");
        between.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut between);
        let key = KeyPair::generate().unwrap();
        let between = CertifiedIssuer::signed_by(between, key, &self.issuer).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut leaf = Leaf::new(&params(names).signed_by(&key, &between).unwrap(), &key);
        leaf.chain.push(between.der().clone());
        leaf
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let subject = names.first().cloned().unwrap_or_default();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, subject);
    params
}
