//! Which addresses may be dialled: an address that the network translates to another is judged as
//! that, and what Rust itself calls private never passes.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use entrepot::fuzzing::upstream::is_public;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bits: u128| {
    let v6 = Ipv6Addr::from_bits(bits);
    let v4 = Ipv4Addr::from_bits(bits as u32);
    if v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.is_broadcast()
        || v4.is_documentation()
        || v4.is_unspecified()
    {
        assert!(!is_public(IpAddr::V4(v4)), "{v4}");
    }
    if v6.is_loopback()
        || v6.is_unspecified()
        || v6.is_multicast()
        || v6.is_unique_local()
        || v6.is_unicast_link_local()
        || v6.to_ipv4_mapped().is_some()
    {
        assert!(!is_public(IpAddr::V6(v6)), "{v6}");
    }
    // RFC 6052's well-known prefix.
    let [a, b, c, d] = v4.octets().map(u16::from);
    let translated = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a << 8 | b, c << 8 | d);
    assert_eq!(is_public(IpAddr::V6(translated)), is_public(IpAddr::V4(v4)));
    // 6to4 (RFC 3056) has an address in its prefix: none of it is dialled.
    let six_to_four = Ipv6Addr::new(0x2002, a << 8 | b, c << 8 | d, 0, 0, 0, 0, 1);
    assert!(!is_public(IpAddr::V6(six_to_four)));
});
