//! Host patterns against a host: the answer is that of a slow reading, and soon there.

#![no_main]

use entrepot_fuzz::parts;
use entrepot_oci::host::{HTTPS_PORT, is_hub_name};
use entrepot_oci::{Authority, Host, HostPattern};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some([pattern, authority]) = parts(text) else { return };
    let Ok(parsed) = pattern.parse::<HostPattern>() else { return };
    assert_eq!(parsed.to_string().parse::<HostPattern>().as_ref(), Ok(&parsed));
    assert_eq!(parsed.exact().is_some(), parsed.is_exact());
    if let Some(exact) = parsed.exact() {
        assert!(parsed.matches(&exact));
    }
    let Ok(authority) = Authority::parse(authority, HTTPS_PORT) else { return };
    let written = parsed.to_string();
    let (hosts, port) = match written.rsplit_once(':') {
        Some((hosts, port)) if !port.contains(']') => (hosts, port.parse().unwrap()),
        _ => (written.as_str(), HTTPS_PORT),
    };
    let fits = match authority.host() {
        _ if hosts == "*" => true,
        Host::Ip(ip) => hosts.parse::<Host>() == Ok(Host::Ip(*ip)),
        Host::Name(name) => {
            (is_hub_name(hosts) && is_hub_name(name)) || fits(hosts.as_bytes(), name.as_bytes())
        }
    };
    assert_eq!(parsed.matches(&authority), fits && port == authority.port(), "{text}");
    if let (true, Some(constraint)) = (fits, parsed.constraint()) {
        let (host, constraint) = (authority.host().to_string(), constraint.to_string());
        let is_below = host.ends_with(&format!(".{constraint}"));
        assert!(host == constraint || is_below || is_hub_name(&host), "{host} {constraint}");
    }
});

/// A `*` stands for one or more bytes that are no dots: by all ways at once.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    // Whether the pattern so far fits the name up to each of its bytes.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for part in pattern {
        let mut next = vec![false; name.len() + 1];
        for at in 0..name.len() {
            let takes = if *part == b'*' { name[at] != b'.' } else { name[at] == *part };
            next[at + 1] = takes && (reached[at] || (*part == b'*' && next[at]));
        }
        reached = next;
    }
    reached[name.len()]
}
