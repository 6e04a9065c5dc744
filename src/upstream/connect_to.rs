//! `connect-to`: the operator's replacement of one destination by another, as in curl.

use std::str::FromStr;

use entrepot_oci::{Authority, Host};

/// Not of the form `HOST1:PORT1:HOST2:PORT2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected HOST1:PORT1:HOST2:PORT2, as for curl's --connect-to")]
pub(crate) struct ConnectToError;

/// For a request to `HOST1:PORT1`, connect to `HOST2:PORT2` instead.
///
/// An empty first part stands for any, an empty second one for "unchanged". TLS still checks the
/// name that was asked for. The replacement is the operator's word, so it may be a private address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectTo {
    from_host: Option<Host>,
    from_port: Option<u16>,
    to_host: Option<Host>,
    to_port: Option<u16>,
}

impl ConnectTo {
    /// The one destination that this entry is about, if it names one.
    #[must_use]
    pub(crate) fn asked(&self) -> Option<Authority> {
        Some(Authority::new(self.from_host.clone()?, self.from_port?))
    }

    /// Where a connection for `authority` goes, if this entry is about it.
    #[must_use]
    pub(crate) fn apply(&self, authority: &Authority) -> Option<Authority> {
        let host_fits = self.from_host.as_ref().is_none_or(|host| host == authority.host());
        let port_fits = self.from_port.is_none_or(|port| port == authority.port());
        (host_fits && port_fits).then(|| {
            let host = self.to_host.as_ref().unwrap_or(authority.host()).clone();
            Authority::new(host, self.to_port.unwrap_or(authority.port()))
        })
    }
}

impl FromStr for ConnectTo {
    type Err = ConnectToError;

    fn from_str(text: &str) -> Result<Self, ConnectToError> {
        let (from_host, rest) = take_host(text)?;
        let (from_port, rest) = rest.split_once(':').ok_or(ConnectToError)?;
        let (to_host, to_port) = take_host(rest)?;
        Ok(Self { from_host, from_port: port(from_port)?, to_host, to_port: port(to_port)? })
    }
}

/// A host (in brackets where it has colons) and what follows its colon.
fn take_host(text: &str) -> Result<(Option<Host>, &str), ConnectToError> {
    let end = text.find(']').map_or(0, |bracket| bracket + 1);
    let end = if text.starts_with('[') { end } else { 0 };
    let colon = text.get(end..).and_then(|rest| rest.find(':')).ok_or(ConnectToError)? + end;
    let (host, rest) = text.split_at(colon);
    let host = if host.is_empty() { None } else { Some(host.parse().map_err(|_| ConnectToError)?) };
    Ok((host, rest.get(1..).unwrap_or_default()))
}

fn port(text: &str) -> Result<Option<u16>, ConnectToError> {
    match text {
        "" => Ok(None),
        digits => match digits.parse() {
            Ok(port) if port > 0 => Ok(Some(port)),
            _ => Err(ConnectToError),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(entry: &str, authority: &str) -> Option<String> {
        let entry: ConnectTo = entry.parse().unwrap();
        entry.apply(&authority.parse().unwrap()).map(|to| to.to_string())
    }

    #[test]
    fn entries_read_like_curls() {
        let entry = "registry-1.docker.io:443:127.0.0.1:5443";
        assert_eq!(applied(entry, "registry-1.docker.io:443").unwrap(), "127.0.0.1:5443");
        assert_eq!(applied(entry, "registry-1.docker.io:444"), None);
        assert_eq!(applied(entry, "ghcr.io:443"), None);
        assert_eq!(applied("::[::1]:", "ghcr.io:443").unwrap(), "[::1]:443");
        assert_eq!(applied("ghcr.io::mirror.corp:8443", "ghcr.io:1").unwrap(), "mirror.corp:8443");
        assert_eq!(applied(":443::8443", "ghcr.io:443").unwrap(), "ghcr.io:8443");
        assert_eq!(applied("[::1]:1:[::2]:2", "[::1]:1").unwrap(), "[::2]:2");
        for bad in ["", "a", "a:1", "a:1:b", "a:0:b:1", "a:x:b:1", "a b:1:c:1", "a:1:b:2:3"] {
            assert!(bad.parse::<ConnectTo>().is_err(), "{bad:?}");
        }
    }
}
