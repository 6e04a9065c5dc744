//! Manifests and indexes: how much they may name, and that whatever reads them names the same.

#![no_main]

use std::collections::HashSet;

use entrepot_oci::Contents;
use entrepot_oci::manifest::{
    Descriptor, Document, platform_of_config, references, signed_payload,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let named = references(bytes);
    assert!(named.len() <= 4096);
    let all: HashSet<_> = named.iter().copied().collect();
    match Contents::parse(bytes) {
        Ok(Contents::Index(listed)) => {
            assert!(listed.iter().all(|one| all.contains(&one.digest)));
        }
        Ok(Contents::Image(parts)) => {
            assert!(parts.iter().all(|one| all.contains(&one.digest)));
            assert!(parts.iter().filter(|one| one.is_config).count() <= 1);
        }
        Err(_) => {}
    }
    if let Some(document) = Document::parse(bytes) {
        let foreign: Vec<_> = document.foreign_layers().collect();
        assert!(foreign.iter().all(|one| all.contains(one)));
        let described: HashSet<_> = document.descriptors().map(|one| one.digest).collect();
        assert!(described.is_subset(&all));
        let needed =
            document.config.iter().chain(document.layers().iter().filter(|l| !l.is_foreign()));
        assert!(needed.map(|one| one.digest).all(|one| !foreign.contains(&one)));
        for descriptor in document.descriptors() {
            let written = serde_json::to_vec(descriptor).unwrap();
            let again: Descriptor = serde_json::from_slice(&written).unwrap();
            assert_eq!(again, Descriptor { platform: None, ..descriptor.clone() });
        }
    }
    if let Some(payload) = signed_payload(bytes) {
        // A beginning of the document, and a tail that it holds itself in base64.
        assert!(payload.len() <= 2 * bytes.len());
        assert!(
            payload.iter().zip(bytes).take_while(|(a, b)| a == b).count() > 0
                || payload.len() < bytes.len()
        );
    }
    if let Some(platform) = platform_of_config(bytes) {
        let text = platform.to_string();
        assert_eq!(text.parse().as_ref(), Ok(&platform), "{text}");
        assert!(text.len() <= 100 && text.bytes().all(|b| b.is_ascii_graphic()));
    }
});
