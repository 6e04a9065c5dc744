//! Host names and authorities, parsed strictly, and the patterns that an operator names hosts by.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// The longest name that DNS can carry, in its textual form without the final dot (RFC 1035
/// §2.3.4).
const MAX_NAME: usize = 253;
/// The longest label of a name (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;
/// The port of `https` (RFC 9110 §4.2.2), left out where an authority is printed as a registry.
pub const HTTPS_PORT: u16 = 443;
/// The port of plain HTTP.
pub const HTTP_PORT: u16 = 80;

/// Why a host or authority was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Neither a DNS name nor an IP address.
    #[error("not a host name or IP address")]
    Host,
    /// A name that resolvers take for an IPv4 address although it is not in dotted-decimal form.
    #[error("an IPv4 address must be written as four decimal numbers")]
    AmbiguousIpv4,
    /// No `:port` where one is required.
    #[error("the port is missing")]
    PortMissing,
    /// A port that is not a number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
}

/// A host: a DNS name in lower case without a final dot, or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A DNS name.
    Name(Arc<str>),
    /// An IP address; printed in brackets when it is of version 6.
    Ip(IpAddr),
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(HostError::Host)?;
            let ip = inner.parse::<Ipv6Addr>().map_err(|_| HostError::Host)?;
            return Ok(Self::Ip(IpAddr::V6(ip)));
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(IpAddr::V4(ip)));
        }
        check_name(text)?;
        let mut name: Arc<str> = text.into();
        if let Some(name) = Arc::get_mut(&mut name) {
            name.make_ascii_lowercase();
        }
        Ok(Self::Name(name))
    }
}

fn check_name(text: &str) -> Result<(), HostError> {
    if text.is_empty() || text.len() > MAX_NAME {
        return Err(HostError::Host);
    }
    if !text.split('.').all(is_label) {
        return Err(HostError::Host);
    }
    // `127.1`, `2130706433` and `0x7f.1` are addresses to inet_aton(3), which resolvers use.
    let last = text.rsplit('.').next().unwrap_or(text);
    if last.starts_with(|c: char| c.is_ascii_digit()) && is_number(last) {
        return Err(HostError::AmbiguousIpv4);
    }
    Ok(())
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    hexadecimal.map_or_else(
        || label.bytes().all(|b| b.is_ascii_digit()),
        |digits| digits.bytes().all(|b| b.is_ascii_hexdigit()),
    )
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// Where a request goes: a host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Authority {
    host: Host,
    port: u16,
}

impl Authority {
    /// An authority of these parts.
    #[must_use]
    pub fn new(host: Host, port: u16) -> Self {
        Self { host, port }
    }

    /// Parses the authority-form of CONNECT: exactly `host:port` (RFC 9110 §9.3.6: "there is no
    /// default port; a client MUST send the port number").
    pub fn parse_with_port(text: &str) -> Result<Self, HostError> {
        match split_port(text)? {
            (host, Some(port)) => Ok(Self::new(host.parse()?, port)),
            (_, None) => Err(HostError::PortMissing),
        }
    }

    /// Parses `host[:port]`, as in a `Host` field or an `http` URI.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, HostError> {
        let (host, port) = split_port(text)?;
        Ok(Self::new(host.parse()?, port.unwrap_or(default_port)))
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As a `Host` field carries it: without the port where that is the scheme's own.
    #[must_use]
    pub fn to_host_field(&self, default_port: u16) -> String {
        if self.port == default_port { self.host.to_string() } else { self.to_string() }
    }
}

/// Splits off `:port`; a port is digits alone, since `u16::from_str` would accept a sign.
fn split_port(text: &str) -> Result<(&str, Option<u16>), HostError> {
    let after_host = text.rfind(']').map_or(0, |bracket| bracket + 1);
    let Some(colon) = text.get(after_host..).and_then(|rest| rest.find(':')) else {
        return Ok((text, None));
    };
    let (host, port) = text.split_at(after_host + colon);
    let digits = port.get(1..).unwrap_or_default();
    if digits.is_empty() || digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostError::Port);
    }
    match digits.parse::<u16>() {
        Ok(port) if port > 0 => Ok((host, Some(port))),
        _ => Err(HostError::Port),
    }
}

impl FromStr for Authority {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        Self::parse_with_port(text)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Which hosts an operator means: `host`, `host:port`, `*.example.com`, `*-docker.pkg.dev` or `*`.
///
/// A `*` stands for one or more characters within one label; alone it stands for every host.
/// Without a port the pattern means 443. `docker.io` means every name of the Hub's registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    text: String,
    labels: Labels,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Labels {
    Any,
    Exact(Host),
    Globs(Vec<String>),
}

impl HostPattern {
    /// The same hosts at another port.
    #[must_use]
    pub fn at_port(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }

    /// Whether this pattern means `authority`.
    #[must_use]
    pub fn matches(&self, authority: &Authority) -> bool {
        self.port == authority.port && self.matches_host(&authority.host)
    }

    fn matches_host(&self, host: &Host) -> bool {
        match (&self.labels, host) {
            (Labels::Any, _) => true,
            (Labels::Exact(Host::Name(mine)), Host::Name(name)) => {
                mine == name || (is_hub_name(mine) && is_hub_name(name))
            }
            (Labels::Exact(mine), host) => mine == host,
            (Labels::Globs(_), Host::Ip(_)) => false,
            (Labels::Globs(globs), Host::Name(name)) => {
                globs.len() == name.split('.').count()
                    && globs
                        .iter()
                        .zip(name.split('.'))
                        .all(|(glob, label)| glob_matches(glob, label))
            }
        }
    }

    /// Whether the operator named this one host, rather than a family of hosts.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        matches!(self.labels, Labels::Exact(_))
    }

    /// That one host, with its port.
    #[must_use]
    pub fn exact(&self) -> Option<Authority> {
        match &self.labels {
            Labels::Exact(host) => Some(Authority::new(host.clone(), self.port)),
            Labels::Any | Labels::Globs(_) => None,
        }
    }

    /// The longest DNS suffix free of wildcards (for a certificate's name constraints), or the
    /// host itself; nothing for `*`.
    #[must_use]
    pub fn constraint(&self) -> Option<Host> {
        match &self.labels {
            Labels::Any => None,
            Labels::Exact(host) => Some(host.clone()),
            Labels::Globs(globs) => {
                let fixed = globs.iter().rev().take_while(|glob| !glob.contains('*')).count();
                let start = globs.len() - fixed;
                let suffix = globs.get(start..)?.join(".");
                (!suffix.is_empty()).then_some(Host::Name(suffix.into()))
            }
        }
    }
}

/// Every name under which Docker's engines and tools reach the Hub's registry.
#[must_use]
pub fn is_hub_name(name: &str) -> bool {
    matches!(name, "docker.io" | "registry-1.docker.io" | "index.docker.io")
}

/// Whether `label` fits `glob`, in which each `*` stands for at least one character.
fn glob_matches(glob: &str, label: &str) -> bool {
    let Some((head, tail)) = glob.split_once('*') else {
        return glob == label;
    };
    let Some(mut rest) = label.strip_prefix(head) else {
        return false;
    };
    let (between, last) = tail.rsplit_once('*').map_or((None, tail), |(b, last)| (Some(b), last));
    // The first place that fits is as good as any: no way is tried twice.
    for piece in between.into_iter().flat_map(|between| between.split('*')) {
        match behind_one(rest).and_then(|rest| rest.split_once(piece)) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    behind_one(rest).is_some_and(|rest| rest.ends_with(last))
}

/// What is behind the one character that a `*` stands for at least.
fn behind_one(text: &str) -> Option<&str> {
    let mut characters = text.chars();
    characters.next().map(|_| characters.as_str())
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let (host, port) = split_port(text)?;
        let labels = if host == "*" {
            Labels::Any
        } else if host.contains('*') {
            // Each `*` becomes a letter for the check: what remains must be a proper name.
            check_name(&host.replace('*', "a"))?;
            Labels::Globs(host.to_ascii_lowercase().split('.').map(str::to_owned).collect())
        } else {
            Labels::Exact(host.parse()?)
        };
        let text = text.to_ascii_lowercase();
        Ok(Self { text, labels, port: port.unwrap_or(HTTPS_PORT) })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_authorities_are_strict() {
        let good = [
            ("registry-1.docker.io:443", "registry-1.docker.io:443"),
            ("REGISTRY.example.COM:5000", "registry.example.com:5000"),
            ("10.0.0.1:443", "10.0.0.1:443"),
            ("[::1]:443", "[::1]:443"),
            ("my_host:1", "my_host:1"),
            ("a:65535", "a:65535"),
        ];
        for (text, printed) in good {
            assert_eq!(Authority::parse_with_port(text).unwrap().to_string(), printed);
        }
        let bad = [
            "",
            ":443",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "host:1 ",
            "host: 1",
            "/foo",
            "/foo:443",
            "host:443/",
            "user@host:443",
            "http://host:443",
            "::1:443",
            "[::1]",
            "[::1:443",
            "[fe80::1%1]:443",
            "[::1]x:443",
            "host.:443",
            ".host:443",
            "a..b:443",
            "-a:443",
            "a-:443",
            "a b:443",
            "$(id):443",
            "h\u{f6}st:443",
            "host:443:443",
            "127.1:443",
            "2130706433:443",
            "0x7f.1:443",
            "0x7f000001:443",
            "127.0.0.0x1:443",
            "*:443",
            "a\n:443",
            "host:000443",
        ];
        for text in bad {
            assert!(Authority::parse_with_port(text).is_err(), "{text:?} must be refused");
        }
        assert!(Authority::parse_with_port(&format!("{}:443", "a".repeat(64))).is_err());
        assert!(Authority::parse_with_port(&format!("{}a:443", "a.".repeat(127))).is_err());
    }

    #[test]
    fn octal_looking_addresses_are_refused() {
        // std refuses leading zeros, and what is left is a numeric last label.
        assert!("0177.0.0.1".parse::<Host>().is_err());
    }

    #[test]
    fn host_fields_leave_out_the_default_port() {
        let authority = Authority::parse("Example.com", 443).unwrap();
        assert_eq!(authority.to_host_field(443), "example.com");
        assert_eq!(authority.to_host_field(80), "example.com:443");
    }

    #[test]
    fn many_stars_are_held_against_a_name_in_one_go() {
        // By trying every way it would take longer than anybody waits.
        let pattern = format!("{}b.example", "*a".repeat(30));
        let authority = format!("{}.example:443", "a".repeat(63));
        let parsed = pattern.parse::<HostPattern>().unwrap();
        assert!(!parsed.matches(&authority.parse().unwrap()));
        let fitting = "xa".repeat(30) + "b.example:443";
        assert!(parsed.matches(&fitting.parse().unwrap()));
    }

    #[test]
    fn patterns_match_within_labels() {
        let cases = [
            ("docker.io", "registry-1.docker.io:443", true),
            ("docker.io", "index.docker.io:443", true),
            ("registry-1.docker.io", "docker.io:443", true),
            ("docker.io", "auth.docker.io:443", false),
            ("docker.io", "registry-1.docker.io:5000", false),
            ("*.gcr.io", "eu.gcr.io:443", true),
            ("*.gcr.io", "gcr.io:443", false),
            ("*.gcr.io", "a.b.gcr.io:443", false),
            ("*-docker.pkg.dev", "us-west2-docker.pkg.dev:443", true),
            ("a*-docker.pkg.dev", "a-docker.pkg.dev:443", false),
            ("*-docker.pkg.dev", "evil.com:443", false),
            ("**.example", "a.example:443", false),
            ("**.example", "ab.example:443", true),
            ("a*b*.example", "abb.example:443", false),
            ("a*b*.example", "axbb.example:443", true),
            ("*a.example", "aa.example:443", true),
            ("*a.example", "a.example:443", false),
            ("*.dkr.ecr.*.amazonaws.com", "1234.dkr.ecr.us-east-1.amazonaws.com:443", true),
            ("*.dkr.ecr.*.amazonaws.com", "1234.dkr.ecr.amazonaws.com:443", false),
            ("registry.corp:5000", "registry.corp:5000", true),
            ("registry.corp:5000", "registry.corp:443", false),
            ("*", "anything.example:443", true),
            ("*", "anything.example:444", false),
            ("*:5000", "x:5000", true),
            ("*", "10.0.0.1:443", true),
        ];
        for (pattern, authority, expected) in cases {
            let parsed = pattern.parse::<HostPattern>().unwrap();
            let authority = Authority::parse_with_port(authority).unwrap();
            assert_eq!(parsed.matches(&authority), expected, "{pattern} against {authority}");
        }
        for bad in ["", "a b", "*..io", "http://ghcr.io", "ghcr.io/", "ghcr.io:x", "**.a b"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn constraints_are_the_fixed_suffix() {
        let suffix = |text: &str| {
            text.parse::<HostPattern>().unwrap().constraint().map(|host| host.to_string())
        };
        assert_eq!(suffix("ghcr.io").as_deref(), Some("ghcr.io"));
        assert_eq!(suffix("*.dkr.ecr.*.amazonaws.com").as_deref(), Some("amazonaws.com"));
        assert_eq!(suffix("*-docker.pkg.dev").as_deref(), Some("pkg.dev"));
        assert_eq!(suffix("*"), None);
    }
}
