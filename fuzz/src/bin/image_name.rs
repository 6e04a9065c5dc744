//! Image names as people type them: the full name means the same, and a request for it is a pull.
//! Patterns of them: what fits lies where it may lie.

#![no_main]

use entrepot_oci::{ImageName, ImagePattern, Registry, Route};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(pattern) = text.parse::<ImagePattern>() {
        for repository in ["docker.io/library/alpine", "ghcr.io/org/app", "registry:443/a"] {
            let fits = pattern.matches(repository, &format!("{repository}:3.20"));
            assert!(!fits || pattern.may_be_in(repository), "{text}");
        }
    }
    let name = match text.parse::<ImageName>() {
        Ok(name) => name,
        // It is shown to whoever typed it, on a line.
        Err(error) => return assert!(!error.to_string().contains(['\n', '\r', '\u{1b}'])),
    };
    assert_eq!(name.to_string().parse::<ImageName>().as_ref(), Ok(&name));
    assert_eq!(Registry::at(&name.authority), name.registry);
    // Its pulls can't be told from an upload's session.
    if format!("/{}/", name.repository).contains("/blobs/uploads/") {
        return;
    }
    let path = format!("/v2/{}/manifests/{}", name.repository, name.reference);
    let route = Route::Manifest { repository: name.repository, reference: name.reference };
    assert_eq!(Route::parse(&path, None), route);
});
