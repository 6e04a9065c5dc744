//! The authority: opened from a directory, asked for leaves.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::certificate::Chain;
use crate::clock::Clock;
use crate::constraints::Constraints;
use crate::directory::{CaDirectory, Contents};
use crate::error::{AuthorityError, LeafError};
use crate::fingerprint::Fingerprint;
use crate::host::Host;
use crate::key;
use crate::leaf::Leaves;
use crate::mint::{self, Minter};
use crate::options::Options;
use crate::pair::{self, Outcome};
use crate::root;

/// Whether this call made the CA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// It was made now: no client trusts it yet.
    Created,
    /// It was there.
    Loaded,
}

/// A CA that signs leaves. Cheap to clone; clones share the leaves.
#[derive(Clone)]
pub struct Authority {
    inner: Arc<Inner>,
}

struct Inner {
    chain: Chain,
    certificate_pem: String,
    fingerprint: Fingerprint,
    origin: Origin,
    leaves: Leaves,
    clock: Clock,
}

impl Authority {
    /// Loads the CA in `dir`, or makes one if the directory is absent or holds neither `ca.crt` nor
    /// `ca.key`. Of several processes that do so at once, one makes it and all load it. Blocks on
    /// the disk, and while another process is making the CA.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, AuthorityError> {
        let directory = CaDirectory::prepare(dir)?;
        let origin = match pair::ensure(&directory, || root::generate(options))? {
            Outcome::Made => Origin::Created,
            Outcome::Found => Origin::Loaded,
        };
        Self::read(&directory, options, origin)
    }

    /// Loads the CA in `dir`, and never writes there. Blocks on the disk.
    pub fn load(dir: &Path, options: &Options) -> Result<Self, AuthorityError> {
        let directory = CaDirectory::existing(dir)?;
        match directory.contents()? {
            Contents::Pair => Self::read(&directory, options, Origin::Loaded),
            Contents::Nothing => Err(AuthorityError::Missing { path: dir.to_owned() }),
            Contents::Half { present, missing } => {
                Err(AuthorityError::Unpaired { present, missing })
            }
        }
    }

    fn read(
        directory: &CaDirectory,
        options: &Options,
        origin: Origin,
    ) -> Result<Self, AuthorityError> {
        let (certificate, now) = (directory.certificate(), options.clock.now());
        let chain = Chain::parse(&certificate, &directory.read_certificate()?)?;
        let key = key::parse(&directory.read_key()?, options.passphrase.as_ref())
            .map_err(|source| AuthorityError::Key { path: directory.key(), source })?;
        if !mint::belongs(&key, chain.issuer().public_key()) {
            return Err(AuthorityError::KeyMismatch { key: directory.key(), certificate });
        }
        chain.check_validity(&certificate, now)?;
        let leaves = Leaves::new(Minter::new(&certificate, &chain, key, now)?);
        let (certificate_pem, fingerprint) = (chain.anchor().pem(), chain.anchor().fingerprint());
        let clock = options.clock.clone();
        let inner = Inner { chain, certificate_pem, fingerprint, origin, leaves, clock };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The certificate that clients must trust, in PEM: the root, or the last of `ca.crt` if that
    /// holds no root.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.inner.certificate_pem
    }

    /// The certificate whose key signs leaves: what it has signed itself comes from whoever has
    /// that key, and from nobody else.
    #[must_use]
    pub fn issuer(&self) -> &CertificateDer<'static> {
        self.inner.chain.issuer().der()
    }

    /// The fingerprint of the certificate that clients must trust.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.inner.fingerprint
    }

    /// The subject of the certificate that clients must trust, as text.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.inner.chain.anchor().subject()
    }

    /// From when on all of `ca.crt` is valid.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.inner.chain.validity().not_before.into()
    }

    /// Until when all of `ca.crt` is valid; after it, no leaf is signed.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.inner.chain.validity().not_after.into()
    }

    /// Whether the CA was made by the call that opened it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.inner.origin
    }

    /// The name constraints of the certificates in `ca.crt`; all of them apply.
    pub fn constraints(&self) -> impl Iterator<Item = &Constraints> {
        self.inner.chain.constraints()
    }

    /// What clients refuse that check certificates strictly (Python since 3.13, `openssl verify
    /// -x509_strict`), each in a sentence; others take all of it.
    pub fn deficiencies(&self) -> impl Iterator<Item = String> {
        self.inner.chain.deficiencies()
    }

    /// An error that says why, if clients would refuse a leaf for `name` from this CA.
    pub fn check_name(&self, name: &ServerName<'_>) -> Result<(), LeafError> {
        Ok(self.inner.chain.check_name(&Host::try_from(name)?)?)
    }

    /// The leaf for `name`, with its chain and key: the one of last time until half its life, then
    /// a new one. Doesn't wait for I/O, so it may be called from async code; whether `name`
    /// deserves a leaf is the caller's to know.
    pub fn leaf(&self, name: &ServerName<'_>) -> Result<Arc<CertifiedKey>, LeafError> {
        let host = Host::try_from(name)?;
        self.inner.chain.check_name(&host)?;
        self.inner.leaves.get(&host, self.inner.clock.now())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("subject", &self.subject())
            .field("fingerprint", &self.inner.fingerprint)
            .finish_non_exhaustive()
    }
}
