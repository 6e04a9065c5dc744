//! What the tests share: an authority in a temporary directory with a clock to move, and the
//! openssl command.
#![expect(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use entrepot_ca::{
    Authority, AuthorityError, Clock, Constraints, ManualClock, Options, Passphrase,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

/// A directory for a CA, and how to open it.
pub(crate) struct Fixture {
    tmp: TempDir,
    pub(crate) clock: ManualClock,
    pub(crate) options: Options,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::new(SystemTime::now());
        let options = Options {
            host_name: "proxy1".to_owned(),
            clock: Clock::Manual(clock.clone()),
            ..Options::default()
        };
        Self { tmp: tempfile::tempdir().unwrap(), clock, options }
    }

    pub(crate) fn constrained(suffixes: &[&str], addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|address| address.parse().unwrap());
        let constraints = Constraints::new(suffixes.iter().copied(), addresses).unwrap();
        let mut fixture = Self::new();
        fixture.options.constraints = Some(constraints);
        fixture
    }

    pub(crate) fn passphrase(mut self, passphrase: &str) -> Self {
        self.options.passphrase = Some(Passphrase::new(passphrase.to_owned()));
        self
    }

    /// The CA's directory; it exists.
    pub(crate) fn dir(&self) -> &Path {
        self.tmp.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub(crate) fn open(&self) -> Authority {
        self.try_open().unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    pub(crate) fn try_open(&self) -> Result<Authority, AuthorityError> {
        Authority::open(self.dir(), &self.options)
    }

    /// Runs openssl in the CA's directory and sets the clock to now; `ca.key` is then the owner's
    /// only, as openssl leaves it to the umask.
    pub(crate) fn openssl(&self, arguments: &str) -> String {
        let output = openssl(self.dir(), arguments);
        if self.path("ca.key").exists() {
            fs::set_permissions(self.path("ca.key"), fs::Permissions::from_mode(0o600)).unwrap();
        }
        // What openssl made begins now, maybe after the clock was made.
        self.clock.set(SystemTime::now());
        output.unwrap_or_else(|error| panic!("openssl {arguments}: {error}"))
    }

    /// Writes the leaf and `ca.crt` where `openssl verify` finds them, and asks it, strictly.
    pub(crate) fn openssl_verify(
        &self,
        ca: &Authority,
        leaf: &CertifiedKey,
        flag: &str,
    ) -> Result<String, String> {
        let pem = |der: &[u8]| {
            let base64 = pem::encode(&pem::Pem::new("CERTIFICATE", der));
            base64.replace("\r\n", "\n")
        };
        let (end, sent) = leaf.cert.split_first().unwrap();
        fs::write(self.path("leaf.pem"), pem(end)).unwrap();
        fs::write(self.path("sent.pem"), sent.iter().map(|der| pem(der)).collect::<String>())
            .unwrap();
        fs::write(self.path("anchor.pem"), ca.certificate_pem()).unwrap();
        let sent = if sent.is_empty() { "" } else { "-untrusted sent.pem" };
        let arguments = format!(
            "verify -x509_strict -purpose sslserver -CAfile anchor.pem {sent} {flag} leaf.pem"
        );
        openssl(self.dir(), &arguments)
    }
}

/// Runs openssl with arguments that are split at spaces (a space inside one is written `~`).
pub(crate) fn openssl(dir: &Path, arguments: &str) -> Result<String, String> {
    let arguments = arguments.split_whitespace().map(|argument| argument.replace('~', " "));
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("this test needs the openssl command: apt-get install openssl");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let both = text(&output.stdout) + &text(&output.stderr);
    if output.status.success() { Ok(both) } else { Err(both) }
}

pub(crate) fn server_name(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).unwrap()
}

pub(crate) fn leaf(ca: &Authority, name: &str) -> Arc<CertifiedKey> {
    ca.leaf(&server_name(name)).unwrap_or_else(|error| panic!("{name}: {}", chain(&error)))
}

/// Looks at a leaf's certificate.
pub(crate) fn parsed<T>(leaf: &CertifiedKey, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    let (rest, x509) = X509Certificate::from_der(&leaf.cert[0]).unwrap();
    assert!(rest.is_empty());
    look(&x509)
}

pub(crate) fn unix_secs(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap()
}

/// An error with its causes, as the binary prints it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
