//! Where a client finds the proxy, as a script may be given it.
//!
//! The grammar is narrower than a URL's on purpose: the script runs as root on other machines, and
//! a `Host` header is whatever somebody cares to send.

use std::fmt;

use entrepot_oci::{Authority, Host};

use super::SetupError;

/// A proxy's scheme, host and port. Displayed as `http://host:port`, in which every byte is a
/// lower-case letter, a digit or one of `-._:/[]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyAddress {
    scheme: &'static str,
    authority: Authority,
}

impl ProxyAddress {
    /// Reads a `Host` header: `host[:port]`. Plain HTTP is assumed, which the listener always
    /// speaks, and so port 80 when none is given.
    pub fn from_host_header(value: &str) -> Result<Self, SetupError> {
        let authority = Authority::parse(value, 80).map_err(|_| SetupError::Host)?;
        Ok(Self { scheme: "http", authority })
    }

    /// Reads what the configuration calls the proxy's external URL: `http://host[:port]` or
    /// `https://host[:port]`, with a `/` behind it or without.
    pub fn from_url(value: &str) -> Result<Self, SetupError> {
        let (scheme, rest) = value.split_once("://").ok_or(SetupError::Url)?;
        let (scheme, port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => ("http", 80),
            "https" => ("https", 443),
            _ => return Err(SetupError::Url),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let authority = Authority::parse(authority, port).map_err(|_| SetupError::Url)?;
        Ok(Self { scheme, authority })
    }

    /// Whether the proxy is spoken to by TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.scheme == "https"
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        self.authority.host()
    }

    /// The host and the port.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_in_one_way() {
        let addresses = [
            ("proxy", "http://proxy:80"),
            ("Proxy.Corp.Example:3128", "http://proxy.corp.example:3128"),
            ("3com.example:65535", "http://3com.example:65535"),
            ("10.0.0.7:3128", "http://10.0.0.7:3128"),
            ("[2001:DB8::0:1]", "http://[2001:db8::1]:80"),
        ];
        for (value, expected) in addresses {
            let address = ProxyAddress::from_host_header(value).unwrap();
            assert_eq!(address.to_string(), expected, "{value:?}");
        }
        let urls = [
            ("http://proxy.corp:3128", "http://proxy.corp:3128"),
            ("HTTPS://proxy.corp", "https://proxy.corp:443"),
            ("https://[fd00::1]:8443/", "https://[fd00::1]:8443"),
        ];
        for (value, expected) in urls {
            assert_eq!(ProxyAddress::from_url(value).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn other_urls_are_refused() {
        for url in
            ["", "proxy:3128", "ftp://proxy", "http://", "http://a/b", "http://u@a", "http://a b"]
        {
            assert_eq!(ProxyAddress::from_url(url), Err(SetupError::Url), "{url:?}");
        }
    }
}
