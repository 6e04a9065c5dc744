//! Which addresses may be dialled.
//!
//! A proxy that dials whatever a client or a redirect names is a door into the network it stands
//! in: cloud metadata, admin pages on loopback, neighbours. The rule is decided on the resolved
//! address that is then dialled, so that neither a spelling nor a second DNS answer gets past it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};

use entrepot_oci::host::HTTPS_PORT;
use entrepot_oci::{Authority, Host, HostPattern};
use ipnet::IpNet;

/// What may be dialled for one authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressRule {
    /// Addresses of the public internet alone.
    Public,
    /// The same, for a name that somebody else than the operator has chosen: a client, a redirect,
    /// a challenge. Whether it is unknown here or leads to a private address is the network's own
    /// affair, and is told to the log alone.
    Stranger,
    /// Any address: the operator has named this destination.
    Any,
    /// The same, but for those of a cloud's metadata: what is named is something else.
    AnyService,
}

/// Where clouds tell a machine, a task or a pod who it is, and give it credentials.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];
/// The same by name.
const METADATA_NAME: &str = "metadata.google.internal";

/// Whether credentials are to be had at this address for who asks from this machine.
#[must_use]
pub(crate) fn is_metadata(address: IpAddr) -> bool {
    let canonical = address.to_canonical();
    METADATA.contains(&canonical)
        || translated(canonical).is_some_and(|inner| METADATA.contains(&inner.into()))
}

/// Whether a destination is such an address, or its name.
#[must_use]
pub(super) fn is_metadata_host(host: &Host) -> bool {
    match host {
        Host::Ip(ip) => is_metadata(*ip),
        Host::Name(name) => &**name == METADATA_NAME,
    }
}

/// `private-networks`: what counts as private beside what does everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PrivateNetworks(pub(crate) Vec<IpNet>);

impl PrivateNetworks {
    /// Whether `address` may be dialled under `rule`.
    #[must_use]
    pub(super) fn allow(&self, rule: AddressRule, address: IpAddr) -> bool {
        let contains = |ip: IpAddr| self.0.iter().any(|network| network.contains(&ip));
        let is_named = match rule {
            AddressRule::Any => true,
            AddressRule::AnyService => !is_metadata(address),
            AddressRule::Public | AddressRule::Stranger => false,
        };
        is_named
            || (is_public(address)
                && !contains(address)
                && !translated(address).is_some_and(|inner| contains(inner.into())))
    }
}

/// Whether every machine has this name for itself: `localhost` is loopback wherever it is looked up
/// (RFC 6761 §6.3).
#[must_use]
pub(super) fn is_loopback_name(host: &Host) -> bool {
    let Host::Name(name) = host else { return false };
    &**name == "localhost" || name.ends_with(".localhost")
}

/// The destinations that an operator has named, and which may therefore be private.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exemptions {
    /// Registries named one by one, or by a pattern in a `[[registry]]` entry.
    pub registries: Vec<HostPattern>,
    /// Registries of plain HTTP that are named without a port, on the port that they have then.
    pub plain: Vec<HostPattern>,
    /// Registries that this program names: there is nothing secret about where they are.
    pub built_in: Vec<HostPattern>,
    /// `tunnel = "any"`.
    pub everything: bool,
}

impl Exemptions {
    /// The name by which the operator knows a registry of plain HTTP, where it has no port.
    #[must_use]
    pub(crate) fn known_as(&self, authority: &Authority) -> Option<Authority> {
        let is_plain = self.plain.iter().any(|pattern| pattern.matches(authority));
        is_plain.then(|| Authority::new(authority.host().clone(), HTTPS_PORT))
    }

    /// The rule for a connection to `authority`.
    #[must_use]
    pub(crate) fn rule_for(&self, authority: &Authority) -> AddressRule {
        let mut named = self.registries.iter().chain(&self.plain);
        if self.everything || named.any(|pattern| pattern.matches(authority)) {
            AddressRule::Any
        } else if self.built_in.iter().any(|pattern| pattern.matches(authority)) {
            AddressRule::Public
        } else {
            AddressRule::Stranger
        }
    }
}

/// The sockets on which this process itself listens: no request is led to them, whatever the
/// operator has named. Cheap to clone; empty until they are bound.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnListeners {
    bound: Arc<OnceLock<Vec<SocketAddr>>>,
}

impl OwnListeners {
    /// Says which they are, once.
    pub(crate) fn set(&self, bound: Vec<SocketAddr>) {
        // A second time there would be nothing new: sockets are bound at the start alone.
        let _ = self.bound.set(bound);
    }

    /// Whether a connection to `address` would end at one of them. Asks the system whether an
    /// address is this machine's where one of them listens on all.
    #[must_use]
    pub(crate) fn contain(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let mut same_port =
            self.bound.get().into_iter().flatten().filter(|own| own.port() == address.port());
        same_port.any(|own| {
            // To connect to "any address" is to connect to this machine.
            own.ip() == ip || ip.is_unspecified() || (own.ip().is_unspecified() && is_local(ip))
        })
    }
}

/// Whether an address is one of this machine's: then, and only then, something can be bound to it.
fn is_local(ip: IpAddr) -> bool {
    match UdpSocket::bind((ip, 0)) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
    }
}

/// Whether an address is globally reachable unicast, by IANA's special-purpose registries.
#[must_use]
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

/// RFC 6890 and its successors: IANA's "IPv4 Special-Purpose Address Registry", and what a cloud
/// has inside each machine's own network.
fn is_public_v4(ip: Ipv4Addr) -> bool {
    let special = match ip.octets() {
        [0 | 10 | 127 | 224..=255, ..]
        // Metadata of AWS, Azure, Google, Oracle, OpenStack, Hetzner and others.
        | [169, 254, ..]
        | [192, 168, ..]
        // Oracle's older metadata service is at 192.0.0.192.
        | [192, 0, 0 | 2, _]
        // Anycast: AS112's name servers, relays of AMT and of 6to4.
        | [192, 31, 196, _]
        | [192, 52, 193, _]
        | [192, 88, 99, _]
        | [192, 175, 48, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        // Azure's WireServer: public by its number, and every machine's own.
        | [168, 63, 129, 16] => true,
        // Carriers' networks (RFC 6598), where Alibaba's metadata service is.
        [100, second, ..] => (64..=127).contains(&second),
        [172, second, ..] => (16..=31).contains(&second),
        _ => false,
    };
    !special
}

/// Global unicast (`2000::/3`) without the special parts of IANA's "IPv6 Special-Purpose Address
/// Registry"; an embedded IPv4 address that the network would translate to is judged as that
/// address. Clouds' metadata services are at unique local and link-local addresses.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    if let Some(inner) = translated(ip.into()) {
        return is_public_v4(inner);
    }
    match ip.segments() {
        // Teredo, benchmarking, ORCHID and the like; documentation; 6to4; AS112; documentation
        // again.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x2620, 0x4f, 0x8000, ..] => false,
        [0x3fff, second, ..] => second > 0x0fff,
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

/// What the network would translate an address to: RFC 6052's well-known prefix.
fn translated(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = address else { return None };
    let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = ip.segments() else { return None };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_not_public() {
        let special = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "169.254.170.2",
            "169.254.42.42",
            "168.63.129.16",
            "64:ff9b::a83f:8110",
            "100.100.100.200",
            "192.0.0.192",
            "192.31.196.1",
            "192.52.193.1",
            "192.175.48.1",
            "2620:4f:8000::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:42::42",
            "fd00:a9fe:a9fe::1",
            "fe80::a9fe:a9fe",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::7f00:1",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:0:4136:e378::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "5f00::1",
        ];
        for text in special {
            assert!(!is_public(text.parse().unwrap()), "{text} must not be public");
        }
    }

    #[test]
    fn ordinary_addresses_are_public() {
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "168.63.129.15",
            "168.63.129.17",
            "192.31.195.1",
            "192.175.49.1",
            "2620:4f:8001::1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "223.255.255.255",
            "2001:4860:4860::8888",
            "2600::1",
            "2a00:1450::1",
            "3ffe::1",
            "64:ff9b::808:808",
        ];
        for text in public {
            assert!(is_public(text.parse().unwrap()), "{text} must be public");
        }
    }

    #[test]
    fn own_listeners_are_known_by_every_address() {
        let contained = |bound: &str, address: &str| {
            let own = OwnListeners::default();
            own.set(vec![bound.parse().unwrap()]);
            own.contain(address.parse().unwrap())
        };
        for address in ["127.0.0.1:3128", "0.0.0.0:3128", "[::ffff:127.0.0.1]:3128", "[::]:3128"] {
            assert!(contained("127.0.0.1:3128", address), "{address}");
            assert!(contained("0.0.0.0:3128", address), "{address}");
        }
        assert!(contained("0.0.0.0:3128", "127.8.9.10:3128"));
        for address in ["127.0.0.1:3129", "127.0.0.2:3128", "8.8.8.8:3128"] {
            assert!(!contained("127.0.0.1:3128", address), "{address}");
        }
        assert!(!contained("0.0.0.0:3128", "8.8.8.8:3128"));
        assert!(!OwnListeners::default().contain("127.0.0.1:3128".parse().unwrap()));
    }

    #[test]
    fn only_named_destinations_may_be_private() {
        let exemptions = Exemptions {
            registries: vec!["registry.corp:5000".parse().unwrap()],
            ..Exemptions::default()
        };
        let exemptions =
            Exemptions { built_in: vec!["*.azurecr.io".parse().unwrap()], ..exemptions };
        let rule = |text| exemptions.rule_for(&Authority::parse_with_port(text).unwrap());
        assert_eq!(rule("registry.corp:5000"), AddressRule::Any);
        assert_eq!(rule("registry.corp:443"), AddressRule::Stranger);
        assert_eq!(rule("acme.azurecr.io:443"), AddressRule::Public);
        let usual = PrivateNetworks::default();
        let private = "10.0.0.1".parse().unwrap();
        assert!(!usual.allow(AddressRule::Public, private));
        assert!(!usual.allow(AddressRule::Stranger, private));
        assert!(usual.allow(AddressRule::Any, private));
    }

    #[test]
    fn a_service_that_is_named_is_not_the_clouds_metadata() {
        let usual = PrivateNetworks::default();
        let allows = |text: &str| usual.allow(AddressRule::AnyService, text.parse().unwrap());
        for address in ["10.0.0.1", "127.0.0.1", "169.254.1.1", "8.8.8.8", "fd00::1", "::1"] {
            assert!(allows(address), "{address}");
        }
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
        ] {
            assert!(!allows(address), "{address}");
            assert!(is_metadata_host(&Host::Ip(address.parse().unwrap())), "{address}");
        }
        assert!(is_metadata_host(&"metadata.google.internal".parse().unwrap()));
        assert!(!is_metadata_host(&"s3.amazonaws.com".parse().unwrap()));
    }

    #[test]
    fn an_operators_networks_are_private_too() {
        let own = PrivateNetworks(vec!["8.8.0.0/16".parse().unwrap()]);
        for address in ["8.8.8.8", "64:ff9b::808:808"] {
            let address = address.parse().unwrap();
            assert!(!own.allow(AddressRule::Public, address), "{address}");
            assert!(own.allow(AddressRule::Any, address), "{address}");
            assert!(PrivateNetworks::default().allow(AddressRule::Public, address), "{address}");
        }
        assert!(own.allow(AddressRule::Public, "8.9.0.1".parse().unwrap()));
    }
}
