//! `WWW-Authenticate`: what is read is written and read again as the same; nobody is led away from
//! TLS; the operator's credentials go to the registry's own domain; clients go by our own endpoint.

#![no_main]

use entrepot::fuzzing::registry::challenged;
use entrepot_fuzz::{fields, parts};
use entrepot_oci::challenge::Challenge;
use http::header;
use libfuzzer_sys::fuzz_target;
use url::Url;

const OWN: &str = "https://registry.example/entrepot/token";

fuzz_target!(|text: &str| {
    let Some([registry, rest]) = parts(text) else { return };
    let fields = fields(rest);
    for value in fields.get_all(header::WWW_AUTHENTICATE) {
        let Ok(value) = value.to_str() else { continue };
        for challenge in Challenge::parse_all(value) {
            let written = challenge.with_realm(OWN);
            let again = Challenge::parse_all(&written);
            assert_eq!(again.len(), 1, "{written}");
            assert_eq!(again[0].scheme, challenge.scheme);
            assert_eq!(again[0].parameter("realm"), Some(OWN));
            for name in ["service", "scope", "error"] {
                assert_eq!(again[0].parameter(name), challenge.parameter(name), "{written}");
            }
            assert_eq!(again[0].with_realm(OWN), written);
        }
    }
    let Some(led) = challenged(registry, &fields, OWN) else { return };
    let (own, led_to) = (Url::parse(registry).unwrap(), Url::parse(&led.url).unwrap());
    assert!(led_to.scheme() == "https" || own.scheme() == "http");
    assert!(led_to.username().is_empty() && led_to.password().is_none());
    assert!(led_to.query().is_some_and(|query| query.ends_with("scope=x")));
    if led.is_trusted && led_to.host_str() != own.host_str() {
        assert_eq!(led_to.scheme(), "https");
        // One domain under a public suffix, of two labels at least.
        let tail = |url: &Url| {
            let host = url.host_str().unwrap().to_owned();
            host.rsplitn(3, '.').take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(tail(&own), tail(&led_to), "{led:?}");
    }
    // Whoever reads the challenges as we do comes to us, as far as they lead where we have been.
    assert!(
        led.rewritten.iter().any(|value| value.to_str().is_ok_and(|value| value.contains(OWN)))
    );
});
