//! The scripts that set a client up, as served at `/setup/<client>`.
//!
//! They run as root on other machines, so nothing of a request reaches them but what was parsed
//! into a type whose every spelling is harmless to a shell. What differs between two scripts is
//! three single-quoted assignments at the top; the rest is the same for everybody. Whether a
//! request is answered at all, and with which status, is the caller's business.
//!
//! - `address`: where the client finds the proxy
//! - `fingerprint`: which CA certificate the client is to trust
//! - `head.sh`: what the script says of itself
//! - `common.sh`: what every client needs (trust store, record for the undo, check)
//! - `systemd.sh`: an engine that systemd runs

mod address;
mod fingerprint;
#[cfg(test)]
mod tests;

pub use address::ProxyAddress;

use fingerprint::Fingerprint;

const HEAD: &str = include_str!("head.sh");
const COMMON: &str = include_str!("common.sh");
const SYSTEMD: &str = include_str!("systemd.sh");

/// What a set-up script is made from.
#[derive(Debug, Clone, Copy)]
pub struct Script<'a> {
    /// Where the client is to find the proxy.
    pub address: &'a ProxyAddress,
    /// SHA-256 of the CA certificate's DER form, as 64 hexadecimal digits, with colons or without.
    pub fingerprint: &'a str,
    /// Whether the script removes what it otherwise makes.
    pub undo: bool,
    /// The fingerprint that the request asks for (`?fp=`), when it does.
    pub expected_fingerprint: Option<&'a str>,
}

/// Why there is no script. Display never repeats the offending text: it may be hostile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// A `Host` header that names no address (the client's fault: 400).
    #[error("the Host header is not host[:port] with a DNS name, an IPv4 or an [IPv6] address")]
    Host,
    /// An address in the configuration that can't be given to clients (the operator's fault).
    #[error("the address is not http://host[:port] or https://host[:port]")]
    Url,
    /// `?fp=` that is no fingerprint (the client's fault: 400).
    #[error("the fingerprint asked for is not 64 hexadecimal digits, with or without colons")]
    ExpectedFingerprint,
    /// `?fp=` that is another certificate's (409).
    #[error(
        "this proxy's CA certificate has the SHA-256 fingerprint {actual}, not {expected}: \
         either the CA was renewed since, or this is not the proxy you meant"
    )]
    FingerprintMismatch {
        /// What the request asks for.
        expected: String,
        /// What the CA has.
        actual: String,
    },
    /// The CA's own fingerprint can't be read (our fault: 500).
    #[error("the CA's fingerprint is not 64 hexadecimal digits")]
    CaFingerprint,
}

/// The script for a container engine that systemd runs, whole, as POSIX shell.
pub fn systemd(script: &Script<'_>) -> Result<String, SetupError> {
    render(script, SYSTEMD)
}

fn render(script: &Script<'_>, client: &str) -> Result<String, SetupError> {
    let fingerprint = agreed_fingerprint(script)?;
    let address = script.address;
    let mode = if script.undo { "undo" } else { "setup" };
    Ok(format!(
        "{HEAD}proxy_url='{address}'\nca_fingerprint='{fingerprint}'\nmode='{mode}'\n{COMMON}{client}"
    ))
}

fn agreed_fingerprint(script: &Script<'_>) -> Result<Fingerprint, SetupError> {
    let actual = Fingerprint::parse(script.fingerprint).ok_or(SetupError::CaFingerprint)?;
    let Some(expected) = script.expected_fingerprint else {
        return Ok(actual);
    };
    let expected = Fingerprint::parse(expected).ok_or(SetupError::ExpectedFingerprint)?;
    if expected == actual {
        return Ok(actual);
    }
    Err(SetupError::FingerprintMismatch {
        expected: expected.to_string(),
        actual: actual.to_string(),
    })
}
