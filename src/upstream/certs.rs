//! Certificates that an operator gives for upstreams: `ca-files`, and `certs-dir` as engines read
//! their `/etc/docker/certs.d`.
//!
//! ```text
//! <certs-dir>/<host[:port]>/*.crt        roots for that host, beside the others
//! <certs-dir>/<host[:port]>/NAME.cert    a client certificate with its chain,
//! <certs-dir>/<host[:port]>/NAME.key     and its key
//! ```
//!
//! Everything is read once, at the start, and whatever is wrong is said then.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use entrepot_oci::host::{HTTPS_PORT, is_hub_name};
use entrepot_oci::{Authority, Host};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::trust::provider;

/// A file or directory of certificates is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub(crate) struct CertificateError {
    /// Which file or directory.
    pub path: PathBuf,
    /// What is wrong with it, and the cure.
    pub reason: String,
}

impl CertificateError {
    fn new(path: &Path, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), reason: reason.into() }
    }
}

/// A client certificate with its key.
#[derive(Clone)]
pub(super) struct ClientCertificate {
    pub(super) key: Arc<CertifiedKey>,
    /// Who issued the certificate and each of its chain: DER-encoded names.
    pub(super) issuers: Vec<Vec<u8>>,
}

/// What is there for one host.
#[derive(Clone, Default)]
pub(super) struct HostCertificates {
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// In the order of their names.
    pub(super) identities: Vec<ClientCertificate>,
}

impl HostCertificates {
    /// What tells these client certificates from others: a hash of them, if there are any.
    pub(super) fn label(&self) -> Option<String> {
        const SHOWN: usize = 16;
        let mut context = digest::Context::new(&digest::SHA256);
        for certificate in self.identities.iter().flat_map(|identity| &identity.key.cert) {
            context.update(&(certificate.len() as u64).to_be_bytes());
            context.update(certificate);
        }
        let hash = context.finish();
        let shown = hash.as_ref().iter().take(SHOWN).map(|byte| format!("{byte:02x}"));
        (!self.identities.is_empty()).then(|| format!("certificate {}", shown.collect::<String>()))
    }
}

/// Everything that was read.
#[derive(Clone, Default)]
pub(crate) struct Certificates {
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// By the name of their directory.
    pub(super) hosts: BTreeMap<String, HostCertificates>,
    warnings: Vec<String>,
}

/// How many there are; a key has no textual form.
impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificates({} roots, {} hosts)", self.roots.len(), self.hosts.len())
    }
}

impl Certificates {
    /// Adds the roots of one of `ca-files`. Reads a file: blocking.
    pub(crate) fn add_ca_file(&mut self, path: &Path) -> Result<(), CertificateError> {
        self.roots.extend(roots_in(path)?);
        Ok(())
    }

    /// Adds what lies in `certs-dir`; returns everything that is wrong with it. Reads files:
    /// blocking.
    pub(crate) fn add_directory(&mut self, directory: &Path) -> Vec<CertificateError> {
        let names = match names_in(directory) {
            Ok(names) => names,
            Err(error) => return vec![error],
        };
        let mut errors = Vec::new();
        for name in names {
            let path = directory.join(&name);
            if !path.is_dir() {
                continue;
            }
            if Authority::parse(&name, HTTPS_PORT).is_err() {
                let what = "not a host or host:port, so that nothing in it is used";
                self.warnings.push(format!("{}: {what}", path.display()));
                continue;
            }
            let host = self.read_host(&path, &mut errors);
            self.hosts.insert(name.to_ascii_lowercase(), host);
        }
        errors
    }

    /// The hosts for which there are client certificates, by the names of their directories.
    pub(crate) fn identified(&self) -> impl Iterator<Item = &str> {
        let has_one = |(_, host): &(&String, &HostCertificates)| !host.identities.is_empty();
        self.hosts.iter().filter(has_one).map(|(name, _)| name.as_str())
    }

    /// Things that an operator should know, and that are no errors.
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn read_host(
        &mut self,
        directory: &Path,
        errors: &mut Vec<CertificateError>,
    ) -> HostCertificates {
        let mut host = HostCertificates::default();
        let names = match names_in(directory) {
            Ok(names) => names,
            Err(error) => {
                errors.push(error);
                return host;
            }
        };
        for name in &names {
            let path = directory.join(name);
            let read = match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => roots_in(&path).map(|roots| host.roots.extend(roots)),
                Some("cert") => self.identity(&path, &names).map(|id| host.identities.push(id)),
                Some("key") => certificate_is_there(&path, &names),
                _ => Ok(()),
            };
            errors.extend(read.err());
        }
        host
    }

    fn identity(
        &mut self,
        path: &Path,
        names: &BTreeSet<String>,
    ) -> Result<ClientCertificate, CertificateError> {
        let key_path = path.with_extension("key");
        if !is_among(&key_path, names) {
            let missing = shown(&key_path);
            let reason = format!(
                "a client certificate without its key {missing}; a CA certificate's name must end in .crt"
            );
            return Err(CertificateError::new(path, reason));
        }
        let chain = certificates_in(path)?;
        let issuers = chain.iter().filter_map(issuer).collect();
        let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|error| {
            CertificateError::new(&key_path, format!("not readable as a PEM private key: {error}"))
        })?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
            CertificateError::new(path, format!("of no use with {}: {error}", shown(&key_path)))
        })?;
        self.warn_of_open_key(&key_path);
        Ok(ClientCertificate { key: Arc::new(key), issuers })
    }

    fn warn_of_open_key(&mut self, path: &Path) {
        const READ_BY_OTHERS: u32 = 0o004;
        let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode());
        if mode.is_ok_and(|mode| mode & READ_BY_OTHERS != 0) {
            let cure = "everybody on this machine can read this key: chmod 600";
            self.warnings.push(format!("{}: {cure}", path.display()));
        }
    }

    /// The directory for an authority: that of `host:port`, else that of `host` if the port is 443,
    /// as in the name of an image without one. `docker.io` means every name of the Hub.
    pub(super) fn directory_for(&self, authority: &Authority) -> Option<&str> {
        let mut names = vec![authority.to_string()];
        if authority.port() == HTTPS_PORT {
            names.push(authority.host().to_string());
            if matches!(authority.host(), Host::Name(name) if is_hub_name(name)) {
                names.push("docker.io".to_owned());
            }
        }
        let known = names.iter().find_map(|name| self.hosts.get_key_value(name));
        known.map(|(name, _)| name.as_str())
    }
}

/// What is in a directory, in the order of the names; one that is not text is none of ours.
fn names_in(directory: &Path) -> Result<BTreeSet<String>, CertificateError> {
    let wrong =
        |error| CertificateError::new(directory, format!("not readable as a directory: {error}"));
    let entries = std::fs::read_dir(directory).map_err(wrong)?;
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
    names.filter_map(Result::transpose).collect::<std::io::Result<_>>().map_err(wrong)
}

fn shown(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_among(path: &Path, names: &BTreeSet<String>) -> bool {
    names.contains(&shown(path))
}

fn certificate_is_there(key: &Path, names: &BTreeSet<String>) -> Result<(), CertificateError> {
    let certificate = key.with_extension("cert");
    if is_among(&certificate, names) {
        return Ok(());
    }
    let reason = format!("a key without its client certificate {}", shown(&certificate));
    Err(CertificateError::new(key, reason))
}

fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| {
            CertificateError::new(path, format!("not readable as PEM certificates: {error}"))
        })?;
    if certificates.is_empty() {
        return Err(CertificateError::new(path, "holds no certificate in PEM form"));
    }
    Ok(certificates)
}

fn roots_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let certificates = certificates_in(path)?;
    for certificate in &certificates {
        RootCertStore::empty().add(certificate.clone()).map_err(|error| {
            CertificateError::new(path, format!("holds an unusable certificate: {error}"))
        })?;
    }
    Ok(certificates)
}

fn issuer(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.issuer().as_raw().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Pair {
        certificate: String,
        key: String,
    }

    fn pair() -> Pair {
        let made = rcgen::generate_simple_self_signed(["somebody".to_owned()]).unwrap();
        Pair { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        directory
    }

    #[test]
    fn a_directory_is_read_as_engines_read_it() {
        let Pair { certificate, key } = pair();
        let directory = written(&[
            ("registry.corp:5000/b.cert", &certificate),
            ("registry.corp:5000/b.key", &key),
            ("registry.corp:5000/a.cert", &certificate),
            ("registry.corp:5000/a.key", &key),
            ("registry.corp:5000/ca.crt", &certificate),
            ("registry.corp:5000/hosts.toml", "ignored"),
            ("ignored.crt", "not in a host's directory"),
            ("*.corp/x.crt", "not a host's"),
            ("Harbor.corp/ca.crt", &certificate),
            ("docker.io/ca.crt", &certificate),
        ]);
        let mut certificates = Certificates::default();
        assert_eq!(certificates.add_directory(directory.path()), []);
        let host = &certificates.hosts["registry.corp:5000"];
        assert_eq!((host.roots.len(), host.identities.len()), (1, 2));
        assert_eq!(certificates.warnings().len(), 1, "{:?}", certificates.warnings());
        let directory_for = |text: &str| certificates.directory_for(&text.parse().unwrap());
        assert_eq!(directory_for("registry.corp:5000"), Some("registry.corp:5000"));
        assert_eq!(directory_for("registry.corp:443"), None);
        assert_eq!(directory_for("harbor.corp:443"), Some("harbor.corp"));
        assert_eq!(directory_for("harbor.corp:8443"), None, "a port that was not named");
        assert_eq!(directory_for("registry-1.docker.io:443"), Some("docker.io"));
    }

    #[test]
    fn another_certificate_is_another_identity() {
        let label = |pairs: &[&Pair]| {
            let names = ["a.corp/1", "a.corp/2"]
                .map(|name| (format!("{name}.cert"), format!("{name}.key")));
            let files: Vec<_> = pairs
                .iter()
                .zip(&names)
                .flat_map(|(pair, (certificate, key))| {
                    [(certificate.as_str(), &*pair.certificate), (key.as_str(), &*pair.key)]
                })
                .chain([("a.corp/x.txt", "")])
                .collect();
            let directory = written(&files);
            let mut certificates = Certificates::default();
            assert_eq!(certificates.add_directory(directory.path()), []);
            let has_one = certificates.identified().count() == 1;
            let label = certificates.hosts["a.corp"].label();
            assert_eq!(label.is_some(), has_one);
            label
        };
        let (one, other) = (pair(), pair());
        assert_eq!(label(&[]), None);
        assert!(label(&[&one]).is_some());
        assert_eq!(label(&[&one]), label(&[&one]));
        assert_ne!(label(&[&one]), label(&[&other]));
        assert_ne!(label(&[&one]), label(&[&one, &other]));
    }

    #[test]
    fn the_directory_with_the_port_comes_first() {
        let Pair { certificate, .. } = pair();
        let directory =
            written(&[("a.corp/x.crt", &certificate), ("a.corp:443/x.crt", &certificate)]);
        let mut certificates = Certificates::default();
        assert_eq!(certificates.add_directory(directory.path()), []);
        let found = certificates.directory_for(&"a.corp:443".parse().unwrap());
        assert_eq!(found, Some("a.corp:443"));
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let (Pair { certificate, key }, other) = (pair(), pair());
        let directory = written(&[
            ("a.corp/ca.cert", &certificate),
            ("a.corp/lost.key", &key),
            ("b.corp/ca.crt", "not PEM"),
            ("b.corp/broken.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            ("c.corp/two.cert", &certificate),
            ("c.corp/two.key", &other.key),
            ("d.corp/bad.cert", &certificate),
            ("d.corp/bad.key", "not PEM"),
        ]);
        let mut certificates = Certificates::default();
        let errors = certificates.add_directory(directory.path());
        let told: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let place = directory.path().to_str().unwrap();
        insta::assert_snapshot!(told.join("\n").replace(place, "certs.d"));
        let missing = certificates.add_directory(&directory.path().join("none"));
        assert!(missing[0].to_string().contains("not readable as a directory"), "{missing:?}");
    }

    #[test]
    fn a_key_for_everybody_is_warned_of() {
        let Pair { certificate, key } = pair();
        let directory = written(&[("a.corp/c.cert", &certificate), ("a.corp/c.key", &key)]);
        let path = directory.path().join("a.corp/c.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let mut certificates = Certificates::default();
        assert_eq!(certificates.add_directory(directory.path()), []);
        assert!(certificates.warnings()[0].contains("c.key"), "{:?}", certificates.warnings());
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let directory = written(&[("empty.pem", "nothing\n")]);
        let mut certificates = Certificates::default();
        for name in ["empty.pem", "missing.pem"] {
            let error = certificates.add_ca_file(&directory.path().join(name)).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
