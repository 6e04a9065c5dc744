//! Name constraints: the names that a CA may sign for, whoever holds its key (RFC 5280 §4.2.1.10).

use std::fmt;
use std::net::IpAddr;

use rcgen::{GeneralSubtree, NameConstraints};
use rustls_pki_types::DnsName;
use x509_parser::extensions::{self, GeneralName};

use crate::error::OutsideConstraints;
use crate::host::Host;
use crate::ip_block::IpBlock;

/// The DNS suffixes and IP addresses that a CA is limited to. Other forms of name (mail, directory)
/// are not kept: leaves don't have them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Constraints {
    permitted: Subtrees,
    excluded: Subtrees,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Subtrees {
    dns: Vec<String>,
    ip: Vec<IpBlock>,
}

/// A list of names from which no constraints can be made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConstraintsError {
    /// Without a suffix every DNS name would be permitted (RFC 5280 §4.2.1.10), the contrary of
    /// what was asked.
    #[error("name constraints need at least one DNS suffix")]
    NoSuffix,
    /// Not a DNS name.
    #[error("{0:?} is not a DNS name, so not a suffix of one")]
    Suffix(String),
}

impl Constraints {
    /// Constraints for a root that is to be made: `suffixes` such as `docker.io` permit the name
    /// itself and everything below it; of the IP addresses, only `addresses` are permitted, none if
    /// that is empty.
    pub fn new<'a>(
        suffixes: impl IntoIterator<Item = &'a str>,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Self, ConstraintsError> {
        let dns = suffixes.into_iter().map(suffix).collect::<Result<Vec<_>, _>>()?;
        if dns.is_empty() {
            return Err(ConstraintsError::NoSuffix);
        }
        let ip = addresses.into_iter().map(IpBlock::from).collect::<Vec<_>>();
        let excluded = if ip.is_empty() { IpBlock::EVERYTHING.to_vec() } else { Vec::new() };
        Ok(Self {
            permitted: Subtrees { dns: sorted(dns), ip: sorted(ip) },
            excluded: Subtrees { dns: Vec::new(), ip: excluded },
        })
    }

    /// What a certificate's extension says.
    pub(crate) fn from_extension(extension: &extensions::NameConstraints<'_>) -> Self {
        Self {
            permitted: Subtrees::from_extension(extension.permitted_subtrees.as_deref()),
            excluded: Subtrees::from_extension(extension.excluded_subtrees.as_deref()),
        }
    }

    /// The extension for a certificate to be made.
    pub(crate) fn to_extension(&self) -> NameConstraints {
        NameConstraints {
            permitted_subtrees: self.permitted.to_extension(),
            excluded_subtrees: self.excluded.to_extension(),
        }
    }

    /// Whether a client that follows the RFC would accept `host` under these constraints.
    pub(crate) fn check(&self, host: &Host) -> Result<(), OutsideConstraints> {
        let permitted = match host {
            Host::Dns(name) => {
                allows(&self.permitted.dns, &self.excluded.dns, |suffix| covers(suffix, name))
            }
            Host::Ip(address) => {
                allows(&self.permitted.ip, &self.excluded.ip, |block| block.contains(*address))
            }
        };
        if permitted {
            return Ok(());
        }
        Err(OutsideConstraints { host: host.to_string(), constraints: self.to_string() })
    }
}

impl Subtrees {
    fn from_extension(subtrees: Option<&[extensions::GeneralSubtree<'_>]>) -> Self {
        let mut kept = Self::default();
        for subtree in subtrees.unwrap_or_default() {
            match &subtree.base {
                GeneralName::DNSName(name) => kept.dns.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(octets) => kept.ip.extend(IpBlock::from_octets(octets)),
                _ => {}
            }
        }
        kept
    }

    fn to_extension(&self) -> Vec<GeneralSubtree> {
        let dns = self.dns.iter().map(|suffix| GeneralSubtree::DnsName(suffix.clone()));
        let ip = self.ip.iter().map(|block| GeneralSubtree::IpAddress(block.to_subnet()));
        dns.chain(ip).collect()
    }

    fn is_empty(&self) -> bool {
        self.dns.is_empty() && self.ip.is_empty()
    }
}

/// "Restrictions apply only when the specified name form is present. If no name of the type is in
/// the certificate, the certificate is acceptable. […] Any name matching a restriction in the
/// excludedSubtrees field is invalid regardless of information appearing in the permittedSubtrees."
/// (RFC 5280 §4.2.1.10)
fn allows<T>(permitted: &[T], excluded: &[T], matches: impl Fn(&T) -> bool) -> bool {
    let inside = permitted.is_empty() || permitted.iter().any(&matches);
    inside && !excluded.iter().any(&matches)
}

/// "Any DNS name that can be constructed by simply adding zero or more labels to the left-hand side
/// of the name satisfies the name constraint." (RFC 5280 §4.2.1.10) With a dot in front, which the
/// RFC does not have and CAs in the field do, only names below it.
fn covers(suffix: &str, name: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|labels| {
        let whole_labels = labels.is_empty() || labels.ends_with('.');
        whole_labels || suffix.is_empty() || suffix.starts_with('.')
    })
}

fn suffix(text: &str) -> Result<String, ConstraintsError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    match DnsName::try_from(name) {
        Ok(name) => Ok(name.as_ref().to_ascii_lowercase()),
        Err(_) => Err(ConstraintsError::Suffix(text.to_owned())),
    }
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort_unstable();
    items.dedup();
    items
}

/// `docker.io, 192.0.2.7; not 0.0.0.0/0, ::/0`.
impl fmt::Display for Constraints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.permitted.is_empty(), self.excluded.is_empty()) {
            (true, true) => f.write_str("nothing"),
            (false, true) => self.permitted.fmt(f),
            (true, false) => write!(f, "anything but {}", self.excluded),
            (false, false) => write!(f, "{}; not {}", self.permitted, self.excluded),
        }
    }
}

impl fmt::Display for Subtrees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = self.ip.iter().map(ToString::to_string);
        let names: Vec<_> = self.dns.iter().cloned().chain(ip).collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::ServerName;

    use super::*;

    fn host(name: &str) -> Host {
        Host::try_from(&ServerName::try_from(name).unwrap()).unwrap()
    }

    fn permits(constraints: &Constraints, name: &str) -> bool {
        constraints.check(&host(name)).is_ok()
    }

    #[test]
    fn a_suffix_permits_itself_and_what_is_below() {
        let constraints = Constraints::new(["Docker.io", "ghcr.io."], []).unwrap();
        for name in ["docker.io", "registry-1.DOCKER.io", "a.b.ghcr.io"] {
            assert!(permits(&constraints, name), "{name}");
        }
        for name in ["evildocker.io", "docker.io.evil.example", "io", "192.0.2.7", "::1"] {
            assert!(!permits(&constraints, name), "{name}");
        }
    }

    #[test]
    fn only_listed_addresses_are_permitted() {
        let constraints = Constraints::new(["docker.io"], ["192.0.2.7".parse().unwrap()]).unwrap();
        assert!(permits(&constraints, "192.0.2.7"));
        assert!(!permits(&constraints, "192.0.2.8"));
        assert!(!permits(&constraints, "2001:db8::1"));
    }

    #[test]
    fn a_read_exclusion_wins_and_a_leading_dot_means_below() {
        let dns = |names: &[&str]| Subtrees {
            dns: names.iter().map(ToString::to_string).collect(),
            ip: Vec::new(),
        };
        let constraints =
            Constraints { permitted: dns(&[".corp.example"]), excluded: dns(&["x.corp.example"]) };
        assert!(permits(&constraints, "hub.corp.example"));
        assert!(!permits(&constraints, "corp.example"));
        assert!(!permits(&constraints, "a.x.corp.example"));
        assert!(permits(&constraints, "192.0.2.7"), "no restriction of that form");
        let nothing_by_name = Constraints { permitted: dns(&[]), excluded: dns(&[""]) };
        assert!(!permits(&nothing_by_name, "docker.io"));
    }

    #[test]
    fn the_refusal_names_host_and_limits() {
        let constraints = Constraints::new(["ghcr.io", "docker.io", "ghcr.io"], []).unwrap();
        let refusal = constraints.check(&host("quay.io")).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "the CA can't sign for quay.io: it is constrained to \
             docker.io, ghcr.io; not 0.0.0.0/0, ::/0"
        );
    }

    #[test]
    fn what_is_no_suffix_is_refused() {
        assert_eq!(Constraints::new([], []), Err(ConstraintsError::NoSuffix));
        for text in ["", "*.docker.io", ".docker.io", "a b", "192.0.2.7/24"] {
            let error = Constraints::new([text], []).unwrap_err();
            assert_eq!(error, ConstraintsError::Suffix(text.into()));
        }
    }
}
