//! Which hosts are intercepted, tunnelled, refused.

use std::fmt;

use entrepot_oci::host::{HTTP_PORT, HTTPS_PORT};
use entrepot_oci::{Authority, HostPattern};

use crate::upstream::reach::AddressRule;

/// Hosts that are no registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tunnels {
    /// Public addresses on the scheme's own port.
    #[default]
    Public,
    /// Any address, any port.
    Any,
    /// None.
    None,
}

/// What is done with a request for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A registry: TLS ends here.
    Intercept,
    /// Passed through, if its address is allowed.
    Tunnel(AddressRule),
    /// Refused.
    Deny(TunnelRefusal),
}

/// Why a host is refused without trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TunnelRefusal {
    /// `tunnel = "none"`.
    NoTunnels,
    /// A port that no web server uses.
    Port(u16),
}

impl fmt::Display for TunnelRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTunnels => f.write_str(
                "not a registry that this proxy knows (tunnel = \"none\"): add it to intercept-also",
            ),
            Self::Port(port) => write!(
                f,
                "port {port} of a host that is no known registry: add host:port to intercept-also"
            ),
        }
    }
}

/// The rules for hosts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    /// `intercept` and `intercept-also`.
    pub intercept: Vec<HostPattern>,
    /// Those that are spoken to by plain HTTP.
    pub plain: Vec<HostPattern>,
    /// `tunnel`.
    pub tunnels: Tunnels,
}

impl Policy {
    /// Whether `authority` is a registry.
    #[must_use]
    pub(crate) fn intercepts(&self, authority: &Authority) -> bool {
        self.intercept.iter().any(|pattern| pattern.matches(authority))
    }

    /// The name by which a registry is known that is asked by plain HTTP, on that's own port: one
    /// that is spoken to so is configured without a port.
    #[must_use]
    pub(crate) fn canonical(&self, authority: Authority) -> Authority {
        let known = Authority::new(authority.host().clone(), HTTPS_PORT);
        let is_plain = || self.plain.iter().any(|pattern| pattern.matches(&known));
        if authority.port() == HTTP_PORT && !self.intercepts(&authority) && is_plain() {
            return known;
        }
        authority
    }

    /// Whether `authority` is a registry that was named one by one.
    #[must_use]
    pub(crate) fn names(&self, authority: &Authority) -> bool {
        self.intercept.iter().any(|pattern| pattern.is_exact() && pattern.matches(authority))
    }

    /// The verdict on `authority`, where clients of no registry would use `usual_port`.
    #[must_use]
    pub(crate) fn verdict(&self, authority: &Authority, usual_port: u16) -> Verdict {
        if self.intercepts(authority) {
            return Verdict::Intercept;
        }
        match self.tunnels {
            Tunnels::Any => Verdict::Tunnel(AddressRule::Any),
            Tunnels::None => Verdict::Deny(TunnelRefusal::NoTunnels),
            Tunnels::Public if authority.port() == usual_port => {
                Verdict::Tunnel(AddressRule::Stranger)
            }
            Tunnels::Public => Verdict::Deny(TunnelRefusal::Port(authority.port())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_follow_the_configuration() {
        let mut policy =
            Policy { intercept: vec!["docker.io".parse().unwrap()], ..Policy::default() };
        policy.tunnels = Tunnels::Public;
        let verdict = |policy: &Policy, text: &str| {
            policy.verdict(&Authority::parse_with_port(text).unwrap(), 443)
        };
        assert_eq!(verdict(&policy, "registry-1.docker.io:443"), Verdict::Intercept);
        let public = Verdict::Tunnel(AddressRule::Stranger);
        assert_eq!(verdict(&policy, "auth.docker.io:443"), public);
        assert_eq!(verdict(&policy, "mail.example:25"), Verdict::Deny(TunnelRefusal::Port(25)));
        policy.tunnels = Tunnels::None;
        assert_eq!(verdict(&policy, "auth.docker.io:443"), Verdict::Deny(TunnelRefusal::NoTunnels));
        assert_eq!(verdict(&policy, "registry-1.docker.io:443"), Verdict::Intercept);
        policy.tunnels = Tunnels::Any;
        assert_eq!(verdict(&policy, "mail.example:25"), Verdict::Tunnel(AddressRule::Any));
    }
}
