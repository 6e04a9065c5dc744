//! A block of IP addresses, as name constraints have it: an address and a mask (RFC 5280
//! §4.2.1.10).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rcgen::CidrSubnet;

/// Addresses of one family that agree with `address` where `mask` has ones. The other family is
/// never in the block.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum IpBlock {
    V4 { address: u32, mask: u32 },
    V6 { address: u128, mask: u128 },
}

impl IpBlock {
    /// Every address there is, of both families.
    pub(crate) const EVERYTHING: [Self; 2] =
        [Self::V4 { address: 0, mask: 0 }, Self::V6 { address: 0, mask: 0 }];

    /// "For IPv4 addresses, the iPAddress field of `GeneralName` MUST contain eight (8) octets,
    /// encoded in the style of RFC 4632 (CIDR) to represent an address range \[RFC4632\]. For IPv6
    /// addresses, the iPAddress field MUST contain 32 octets similarly encoded." (RFC 5280
    /// §4.2.1.10)
    pub(crate) fn from_octets(octets: &[u8]) -> Option<Self> {
        let (address, mask) = octets.split_at_checked(octets.len() / 2)?;
        match octets.len() {
            8 => Some(Self::V4 {
                address: u32::from_be_bytes(address.try_into().ok()?),
                mask: u32::from_be_bytes(mask.try_into().ok()?),
            }),
            32 => Some(Self::V6 {
                address: u128::from_be_bytes(address.try_into().ok()?),
                mask: u128::from_be_bytes(mask.try_into().ok()?),
            }),
            _ => None,
        }
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (*self, address) {
            (Self::V4 { address, mask }, IpAddr::V4(other)) => {
                (address ^ other.to_bits()) & mask == 0
            }
            (Self::V6 { address, mask }, IpAddr::V6(other)) => {
                (address ^ other.to_bits()) & mask == 0
            }
            (Self::V4 { .. }, IpAddr::V6(_)) | (Self::V6 { .. }, IpAddr::V4(_)) => false,
        }
    }

    pub(crate) fn to_subnet(self) -> CidrSubnet {
        match self {
            Self::V4 { address, mask } => CidrSubnet::V4(address.to_be_bytes(), mask.to_be_bytes()),
            Self::V6 { address, mask } => CidrSubnet::V6(address.to_be_bytes(), mask.to_be_bytes()),
        }
    }
}

/// The block that is one address.
impl From<IpAddr> for IpBlock {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4 { address: address.to_bits(), mask: u32::MAX },
            IpAddr::V6(address) => Self::V6 { address: address.to_bits(), mask: u128::MAX },
        }
    }
}

/// One address plainly, more in CIDR notation.
impl fmt::Display for IpBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V4 { address, mask: u32::MAX } => Ipv4Addr::from_bits(address).fmt(f),
            Self::V6 { address, mask: u128::MAX } => Ipv6Addr::from_bits(address).fmt(f),
            Self::V4 { address, mask } => {
                write!(f, "{}/{}", Ipv4Addr::from_bits(address), mask.leading_ones())
            }
            Self::V6 { address, mask } => {
                write!(f, "{}/{}", Ipv6Addr::from_bits(address), mask.leading_ones())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_contains_its_own_family_only() {
        let block = IpBlock::from_octets(&[192, 0, 2, 0, 255, 255, 255, 0]).unwrap();
        assert_eq!(block.to_string(), "192.0.2.0/24");
        assert!(block.contains("192.0.2.200".parse().unwrap()));
        assert!(!block.contains("192.0.3.1".parse().unwrap()));
        assert!(!block.contains("::ffff:192.0.2.1".parse().unwrap()));
        let [v4, v6] = IpBlock::EVERYTHING;
        assert_eq!((v4.to_string(), v6.to_string()), ("0.0.0.0/0".into(), "::/0".into()));
        assert!(v6.contains("::1".parse().unwrap()) && !v6.contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn an_address_is_a_block_of_one() {
        let block = IpBlock::from("2001:db8::1".parse::<IpAddr>().unwrap());
        assert_eq!(block.to_string(), "2001:db8::1");
        assert!(!block.contains("2001:db8::2".parse().unwrap()));
    }

    #[test]
    fn other_lengths_are_no_block() {
        for length in [0, 4, 7, 9, 16, 33] {
            assert_eq!(IpBlock::from_octets(&vec![0; length]), None, "{length}");
        }
    }
}
