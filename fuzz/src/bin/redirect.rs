//! Where redirects lead: never from TLS to none, never with somebody's name in the URL, and the
//! credentials stay with the host that they are for.

#![no_main]

use entrepot::fuzzing::upstream::{Led, redirect};
use entrepot_fuzz::{fields, parts};
use entrepot_oci::Route;
use http::{StatusCode, Uri};
use libfuzzer_sys::fuzz_target;
use url::Url;

fuzz_target!(|text: &str| {
    // Plain HTTP on TLS's port is how a registry is called that is named without a port.
    if text.contains(":443") {
        return;
    }
    let Some([from, status, rest]) = parts(text) else { return };
    let status = status.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.unwrap_or(StatusCode::FOUND);
    let Some(led) = redirect(from, status, &fields(rest)) else { return };
    let (to, is_same) = match &led {
        Led::Nowhere => return assert!(!matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)),
        Led::Refused => return,
        Led::SameHost(to) => (to, true),
        Led::Storage(to) | Led::OtherRegistry(to, _) => (to, false),
    };
    let (from, url) = (Url::parse(from).unwrap(), Url::parse(to).unwrap());
    assert!(url.scheme() == "https" || (url.scheme() == "http" && from.scheme() == "http"));
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
    assert!(url.port() != Some(0));
    // It is written as it was meant, and can be asked for.
    assert!(to.ends_with(&url[url::Position::BeforePath..]), "{to} {url}");
    let uri: Uri = to.parse().expect("a target is a URI");
    assert_eq!(uri.path(), url.path());
    assert_eq!(uri.query(), url.query());
    if is_same {
        assert_eq!(
            (from.host_str(), from.port_or_known_default()),
            (url.host_str(), url.port_or_known_default())
        );
    }
    if let Led::OtherRegistry(_, route) = led {
        assert!(url.path().starts_with("/v2/"));
        assert_eq!(route, Route::parse(url.path(), url.query()));
    }
});
