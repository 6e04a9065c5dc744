//! What can go wrong with an authority and with a leaf. The authority's errors are the operator's
//! to cure.

use std::io;
use std::path::PathBuf;

use crate::key::KeyError;

/// Why an authority could not be created or loaded. Every message names the file and, where there
/// is one, the cure. Nothing was overwritten, whatever the error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A file or the directory can't be read.
    #[error("reading {}", path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file or the directory can't be written.
    #[error("writing {}", path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file is longer than any certificate or key is.
    #[error("{} is longer than {limit} bytes, so not what it should be", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        limit: u64,
    },
    /// Another process has held the directory's lock too long.
    #[error("{} has been locked by another process for {waited_secs} s", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long we waited, in seconds.
        waited_secs: u64,
    },
    /// Others than the owner can write in the directory, and so exchange the CA.
    #[error(
        "others than its owner can write in the CA's directory {dir} (mode {mode:04o}); \
         run: chmod go-w {dir}",
        dir = path.display()
    )]
    LooseDirectory {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Others than the owner, or than this process's own group, can read the key, or write it.
    #[error(
        "others than its owner can read or write the CA's key {key} (mode {mode:04o}); \
         run: chmod 600 {key}",
        key = path.display()
    )]
    LooseKey {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is no CA, and none was to be made.
    #[error("there is no CA in {}: neither ca.crt nor ca.key", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// One of the two files is there without the other.
    #[error(
        "{} is there but {} is missing; restore it, or move the first away to have a new CA made \
         (nothing was overwritten)",
        present.display(),
        missing.display()
    )]
    Unpaired {
        /// The file that exists.
        present: PathBuf,
        /// The file that does not.
        missing: PathBuf,
    },
    /// `ca.crt` is not a PEM file of X.509 certificates.
    #[error("{} holds no readable PEM certificate", path.display())]
    Certificate {
        /// The certificate's file.
        path: PathBuf,
    },
    /// `ca.key` can't be used.
    #[error("the CA's key {} can't be used", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The key belongs to another certificate.
    #[error(
        "the key {} does not belong to the first certificate in {}",
        key.display(),
        certificate.display()
    )]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The certificate is not that of a CA for servers.
    #[error("the certificate {subject} in {} can't sign for servers: {defect}", path.display())]
    NotAnAuthority {
        /// The certificate's file.
        path: PathBuf,
        /// The certificate's subject.
        subject: String,
        /// Which extension says so.
        defect: &'static str,
    },
    /// A certificate in `ca.crt` is no longer valid.
    #[error(
        "the CA certificate {subject} in {} has expired: it was valid {validity}; to renew, move \
         ca.crt and ca.key away, start again, and install the new ca.crt on the clients",
        path.display()
    )]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// The certificate's subject.
        subject: String,
        /// The two dates.
        validity: String,
    },
    /// A certificate in `ca.crt` is not yet valid: more likely than not, this machine's clock is
    /// wrong.
    #[error(
        "the CA certificate {subject} in {} is not valid yet: it is valid {validity}, and this \
         machine's clock shows {now}",
        path.display()
    )]
    NotYetValid {
        /// The certificate's file.
        path: PathBuf,
        /// The certificate's subject.
        subject: String,
        /// The two dates.
        validity: String,
        /// The time by our clock.
        now: String,
    },
    /// Leaves would not repeat the CA's name byte for byte, as RFC 5280 §4.1.2.4 asks, so no client
    /// could chain them.
    #[error(
        "the CA certificate {subject} in {} has a name that can't be repeated in leaves (an \
         attribute occurs twice, or is no text)",
        path.display()
    )]
    UnusableSubject {
        /// The certificate's file.
        path: PathBuf,
        /// The certificate's subject.
        subject: String,
    },
    /// Making keys or certificates failed.
    #[error("making the CA's certificate or a leaf's key")]
    Generate(#[source] rcgen::Error),
    /// A first leaf, signed to try the CA, failed.
    #[error("the CA can't sign")]
    Trial(#[source] LeafError),
}

/// The CA must not sign for the name; a client would refuse the leaf.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the CA can't sign for {host}: it is constrained to {constraints}")]
pub struct OutsideConstraints {
    pub(crate) host: String,
    pub(crate) constraints: String,
}

impl OutsideConstraints {
    /// The name that was asked for, in lower case.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// Why there is no leaf for a name.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeafError {
    /// The CA's name constraints forbid it; the request should be refused, or the CA replaced.
    #[error(transparent)]
    OutsideConstraints(#[from] OutsideConstraints),
    /// The CA is outside its own validity by now.
    #[error("the CA can't sign now: it is valid {validity}")]
    OutsideValidity {
        /// The two dates.
        validity: String,
    },
    /// The name is neither a DNS name nor an IP address.
    #[error("a leaf is for a DNS name or an IP address")]
    NameForm,
    /// Encoding or signing failed.
    #[error("signing a leaf")]
    Sign(#[source] rcgen::Error),
    /// The system gave no random numbers.
    #[error("no random numbers for a serial")]
    Random,
}
