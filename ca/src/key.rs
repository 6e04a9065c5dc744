//! `ca.key` in every form that is met: PKCS#8, PKCS#1, SEC1, plain or under a passphrase.

use pem::Pem;
use pkcs8::EncryptedPrivateKeyInfoRef;
use rcgen::KeyPair;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

use crate::legacy::{self, LegacyError};

/// The fixed passphrase under which docker-registry-proxy keeps its CA key: public, so no secret,
/// and tried always so that its CA can be taken over as it is.
const WELL_KNOWN_PASSPHRASE: &str = "foobar";

/// The passphrase of an encrypted `ca.key`. Can't be printed.
#[derive(Clone)]
pub struct Passphrase(String);

impl Passphrase {
    /// Wraps the passphrase as it is: a newline at the end would be part of it.
    #[must_use]
    pub fn new(passphrase: String) -> Self {
        Self(passphrase)
    }
}

/// What is wrong with `ca.key`.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not PEM, or PEM without a private key.
    #[error("there is no PEM private key in it")]
    NoKey,
    /// Not a kind of key that we sign with, or not what its label says.
    #[error("it is not an EC (P-256, P-384), RSA (2048 to 8192 bits) or Ed25519 private key")]
    Unsupported,
    /// Encrypted in a way that we don't read.
    #[error(
        "its encryption ({0}) is not supported; decrypt it with: \
         openssl pkey -in ca.key -out new.key"
    )]
    Encryption(String),
    /// No passphrase that we have opens it.
    #[error("it is encrypted, and the passphrase is not the right one")]
    Passphrase,
}

/// The first private key in PEM text; `EC PARAMETERS` and the like before it are skipped.
pub(crate) fn parse(text: &[u8], passphrase: Option<&Passphrase>) -> Result<KeyPair, KeyError> {
    let blocks = pem::parse_many(text).map_err(|_| KeyError::NoKey)?;
    let key = blocks.iter().find(|block| block.tag().ends_with("PRIVATE KEY"));
    let key = key.ok_or(KeyError::NoKey)?;
    if is_encrypted(key) {
        return decrypt(key, passphrase);
    }
    key_pair(key.tag(), key.contents())
}

fn is_encrypted(key: &Pem) -> bool {
    key.tag() == "ENCRYPTED PRIVATE KEY" || key.headers().get("DEK-Info").is_some()
}

/// Tries the configured passphrase, then the well-known one. A wrong passphrase sometimes
/// "decrypts" to garbage (the padding is right by chance once in 256 times), so only a key counts
/// as success.
fn decrypt(key: &Pem, passphrase: Option<&Passphrase>) -> Result<KeyPair, KeyError> {
    let configured = passphrase.map(|passphrase| passphrase.0.as_str());
    for passphrase in configured.into_iter().chain([WELL_KNOWN_PASSPHRASE]) {
        let opened = match key.headers().get("DEK-Info") {
            Some(dek_info) => open_traditional(key, dek_info, passphrase)?,
            None => open_pkcs8(key.contents(), passphrase)?,
        };
        if let Some(key) = opened {
            return Ok(key);
        }
    }
    Err(KeyError::Passphrase)
}

/// PKCS#8 with PBES2, as OpenSSL 3 writes it. `None` if the passphrase is wrong.
fn open_pkcs8(der: &[u8], passphrase: &str) -> Result<Option<KeyPair>, KeyError> {
    let unsupported = || KeyError::Encryption("PKCS#8 without PBES2".to_owned());
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|_| unsupported())?;
    match encrypted.decrypt(passphrase) {
        Ok(document) => Ok(key_pair("PRIVATE KEY", document.as_bytes()).ok()),
        Err(pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::DecryptFailed)) => Ok(None),
        Err(pkcs8::Error::EncryptedPrivateKey(error)) => {
            Err(KeyError::Encryption(error.to_string()))
        }
        Err(_) => Ok(None),
    }
}

/// `Proc-Type: 4,ENCRYPTED`, as OpenSSL 1 writes it. `None` if the passphrase is wrong.
fn open_traditional(
    key: &Pem,
    dek_info: &str,
    passphrase: &str,
) -> Result<Option<KeyPair>, KeyError> {
    match legacy::decrypt(dek_info, passphrase.as_bytes(), key.contents()) {
        Ok(der) => Ok(key_pair(key.tag(), &der).ok()),
        Err(LegacyError::Passphrase) => Ok(None),
        Err(LegacyError::Cipher) => Err(KeyError::Encryption(dek_info.to_owned())),
    }
}

fn key_pair(tag: &str, der: &[u8]) -> Result<KeyPair, KeyError> {
    let key = match tag {
        "PRIVATE KEY" => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)),
        _ => return Err(KeyError::Unsupported),
    };
    KeyPair::try_from(&key).map_err(|_| KeyError::Unsupported)
}
