//! Hosts and authorities, as CONNECT, `Host` and `ns` have them: read as they are written, one
//! spelling each, and fit for a URL, a path and a certificate.

#![no_main]

use std::net::IpAddr;

use entrepot::fuzzing::gateway::own_url;
use entrepot::fuzzing::upstream::connected_to;
use entrepot_oci::host::HTTPS_PORT;
use entrepot_oci::{Authority, Host, Registry};
use libfuzzer_sys::fuzz_target;
use url::Url;

fuzz_target!(|text: &str| {
    if let Ok(host) = text.parse::<Host>() {
        assert_eq!(host.to_string().parse::<Host>().as_ref(), Ok(&host));
        match &host {
            Host::Name(name) => {
                assert_eq!(&**name, text.to_ascii_lowercase());
                assert!(
                    name.len() <= 253 && !name.ends_with('.') && name.parse::<IpAddr>().is_err()
                );
                // Whoever takes names for addresses finds none.
                if let Ok(url) = Url::parse(&format!("http://{name}/")) {
                    assert!(matches!(url.host(), Some(url::Host::Domain(_))), "{url}");
                }
            }
            Host::Ip(ip) => assert_eq!(text.trim_matches(['[', ']']).parse(), Ok(*ip)),
        }
    }
    let Ok(authority) = Authority::parse(text, HTTPS_PORT) else {
        return assert!(text.parse::<Authority>().is_err());
    };
    assert!(authority.port() != 0);
    assert_eq!(authority.to_string().parse::<Authority>().as_ref(), Ok(&authority));
    let short = authority.to_host_field(HTTPS_PORT);
    assert_eq!(Authority::parse(&short, HTTPS_PORT).as_ref(), Ok(&authority));
    if let Ok(strict) = text.parse::<Authority>() {
        assert_eq!(strict, authority);
    }
    assert!(short.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b)), "{short}");
    let registry = Registry::at(&authority);
    assert_eq!(registry.as_str().parse::<Registry>().as_ref(), Ok(&registry));
    assert!(!registry.as_str().contains('/') && !registry.as_str().starts_with('.'));
    let url = Url::parse(&own_url(&authority, "/v2/"));
    if let Ok(url) = url {
        assert_eq!((url.path(), url.port_or_known_default()), ("/v2/", Some(authority.port())));
    }
    assert_eq!(connected_to("::elsewhere.example:1", &authority).unwrap().port(), 1);
});
