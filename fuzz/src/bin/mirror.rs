//! A target at the mirror: it comes to a registry that the policy names, to a pull, and back to the
//! same by its own door.

#![no_main]

use entrepot::fuzzing::listener::mirrored;
use entrepot_oci::Route;
use http::Uri;
use libfuzzer_sys::fuzz_target;

const REGISTRIES: [&str; 4] = ["docker.io", "ghcr.io", "registry.corp:5000", "*.example"];

fuzz_target!(|target: &str| {
    if !target.starts_with('/') {
        return;
    }
    let Ok(uri) = target.parse::<Uri>() else { return };
    let Some(asked) = mirrored(&REGISTRIES, &uri) else { return };
    let authority = asked.authority.to_string();
    let is_named = ["registry-1.docker.io:443", "docker.io:443", "index.docker.io:443"]
        .into_iter()
        .chain(["ghcr.io:443", "registry.corp:5000"])
        .any(|name| name == authority);
    assert!(is_named || authority.ends_with(".example:443"), "{authority}");
    let (path, query) =
        asked.target.split_once('?').map_or((asked.target.as_str(), None), |(p, q)| (p, Some(q)));
    assert_eq!(Route::parse(path, query), asked.route);
    assert!(asked.route.repository().is_some());
    assert!(!matches!(asked.route, Route::Upload { .. }));
    assert!(asked.target.starts_with("/v2/") && asked.target.parse::<Uri>().is_ok());
    assert!(query.is_none_or(|query| query.split('&').all(|part| !part.starts_with("ns="))));
    let back = mirrored(&REGISTRIES, &asked.back.parse().unwrap()).expect("the way back is a way");
    assert_eq!(
        (&back.authority, &back.route, &back.target),
        (&asked.authority, &asked.route, &asked.target)
    );
});
