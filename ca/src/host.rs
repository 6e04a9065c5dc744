//! A host as a leaf names it: a DNS name in lower case without the final dot, or an IP address.

use std::fmt;
use std::net::IpAddr;

use rcgen::SanType;
use rustls_pki_types::ServerName;

use crate::error::LeafError;

/// The subject of a leaf, in the one spelling that is the key of the cache.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Host {
    Dns(String),
    Ip(IpAddr),
}

impl Host {
    /// The subject alternative name of the host (RFC 5280 §4.2.1.6).
    pub(crate) fn subject_alt_name(&self) -> Result<SanType, LeafError> {
        Ok(match self {
            Self::Dns(name) => SanType::DnsName(name.as_str().try_into().map_err(LeafError::Sign)?),
            Self::Ip(address) => SanType::IpAddress(*address),
        })
    }
}

impl TryFrom<&ServerName<'_>> for Host {
    type Error = LeafError;

    fn try_from(name: &ServerName<'_>) -> Result<Self, Self::Error> {
        match name {
            ServerName::DnsName(name) => Ok(Self::Dns(canonical(name.as_ref()))),
            ServerName::IpAddress(address) => Ok(Self::Ip((*address).into())),
            _ => Err(LeafError::NameForm),
        }
    }
}

/// Lower case, and without the dot of the absolute form: clients match against the name without it
/// (RFC 6066 §3).
fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_host_are_equal() {
        let table = [
            ("Registry-1.Docker.IO", "registry-1.docker.io"),
            ("ghcr.io.", "ghcr.io"),
            ("192.0.2.7", "192.0.2.7"),
            ("2001:DB8:0::1", "2001:db8::1"),
        ];
        for (spelt, canonical) in table {
            let name = ServerName::try_from(spelt).unwrap();
            assert_eq!(Host::try_from(&name).unwrap().to_string(), canonical);
        }
    }
}
