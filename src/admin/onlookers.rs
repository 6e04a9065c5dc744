//! Who may look at the admin listener from elsewhere than this machine, without a token.
//!
//! A container has a loopback of its own: who opens its published port on the machine that it runs
//! on comes from the gateway of the container's network. So that gateway can be named without
//! knowing its address, which differs from network to network; the other containers there come from
//! addresses of their own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// The word for it.
const GATEWAY: &str = "gateway";
/// A route that leads to another machine (`RTF_GATEWAY`, linux/route.h).
const LEADS_AWAY: u32 = 2;

/// One entry of `admin-look-from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Onlooker {
    /// Whoever has an address of this network.
    Network(IpNet),
    /// Whatever machine leads out of this network.
    Gateway,
}

impl FromStr for Onlooker {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == GATEWAY {
            return Ok(Self::Gateway);
        }
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self::Network).map_err(|_| ())
    }
}

/// Those who may look.
#[derive(Debug, Default)]
pub(crate) struct Onlookers(Vec<IpNet>);

impl Onlookers {
    /// Those whom these entries name now. Reads the routes of this network, if they are asked for.
    #[must_use]
    pub(crate) fn of(entries: &[Onlooker]) -> Self {
        let networks = entries.iter().flat_map(|entry| match entry {
            Onlooker::Network(network) => vec![*network],
            Onlooker::Gateway => gateways().into_iter().map(IpNet::from).collect(),
        });
        Self(networks.collect())
    }

    /// Whether who comes from this address may look.
    pub(super) fn include(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.0.iter().any(|network| network.contains(&client))
    }
}

/// Where this machine, or the container that the process is in, sends what goes elsewhere. None
/// where the system does not say.
fn gateways() -> Vec<IpAddr> {
    let routes = |path| fs::read_to_string(path).unwrap_or_default();
    let (four, six) = (routes("/proc/net/route"), routes("/proc/net/ipv6_route"));
    let four = four.lines().filter_map(gateway_of).map(IpAddr::from);
    four.chain(six.lines().filter_map(gateway_of_6).map(IpAddr::from)).collect()
}

/// The gateway of a default route in `/proc/net/route`: "Iface Destination Gateway Flags …", of
/// which the addresses are written as numbers of this machine.
fn gateway_of(route: &str) -> Option<Ipv4Addr> {
    let mut fields = route.split_ascii_whitespace().skip(1);
    let (destination, gateway, flags) = (fields.next()?, fields.next()?, fields.next()?);
    let is_default = destination == "00000000";
    let leads_away = u32::from_str_radix(flags, 16).ok()? & LEADS_AWAY != 0;
    let gateway = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
    Some(gateway).filter(|_| is_default && leads_away)
}

/// The gateway of a default route in `/proc/net/ipv6_route`: "destination length source length
/// next-hop …", in hexadecimal and in the order of the network.
fn gateway_of_6(route: &str) -> Option<Ipv6Addr> {
    let mut fields = route.split_ascii_whitespace();
    let (destination, length) = (fields.next()?, fields.next()?);
    let gateway = fields.nth(2)?;
    let gateway = Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?);
    let is_default = length == "00" && destination.bytes().all(|digit| digit == b'0');
    Some(gateway).filter(|gateway| is_default && !gateway.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses_are_meant_as_they_are_written() {
        let entries = ["172.16.0.0/12", "10.0.0.7", "fd00::/8"].map(|one| one.parse().unwrap());
        let onlookers = Onlookers::of(&entries);
        for (client, expected) in [
            ("172.17.0.1", true),
            ("::ffff:172.31.255.255", true),
            ("172.32.0.1", false),
            ("10.0.0.7", true),
            ("10.0.0.8", false),
            ("fd00::1", true),
            ("127.0.0.1", false),
        ] {
            assert_eq!(onlookers.include(client.parse().unwrap()), expected, "{client}");
        }
        for wrong in ["", "Gateway", "172.16.0.0/33", "localhost", "10.0.0"] {
            assert_eq!(wrong.parse::<Onlooker>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn the_gateway_is_that_of_the_default_route() {
        let native = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
        let (gateway, zero) = (native([172, 17, 0, 1]), native([0; 4]));
        let route = format!("eth0\t{zero}\t{gateway}\t0003\t0\t0\t0\t{zero}\t0\t0\t0");
        assert_eq!(gateway_of(&route), Some([172, 17, 0, 1].into()));
        let own = native([172, 17, 0, 0]);
        for other in [
            "Iface\tDestination\tGateway \tFlags\tRefCnt".to_owned(),
            format!("eth0\t{own}\t{zero}\t0001\t0\t0\t0\tFFFF\t0"),
            format!("wg0\t{zero}\t{zero}\t0001\t0\t0\t0\t{zero}\t0"),
            String::new(),
        ] {
            assert_eq!(gateway_of(&other), None, "{other}");
        }
        let (all, none) = ("0".repeat(32), "0".repeat(32));
        let hop = format!("fd{}1", "0".repeat(29));
        let route = format!("{all} 00 {none} 00 {hop} 00000400 00000001 00000000 00000003 eth0");
        assert_eq!(gateway_of_6(&route), "fd00::1".parse().ok());
        let lost = format!("{all} 00 {none} 00 {none} ffffffff 00000001 00000000 00200200 lo");
        assert_eq!(gateway_of_6(&lost), None);
    }
}
