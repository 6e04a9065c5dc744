//! Names of objects: digests, tags, repositories, media types. Each is read as it is written, and
//! fits into a path.

#![no_main]

use entrepot_oci::{Algorithm, Digest, MediaType, Reference, RepositoryName, Tag};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        let again = Digest::from_bytes(digest.algorithm(), digest.as_bytes());
        assert_eq!(again, Some(digest));
        assert_eq!(Digest::from_hex(digest.algorithm(), &digest.hex()), Ok(digest));
        assert_eq!(digest.hex().len(), digest.algorithm().hex_len());
        assert!(digest.hex().bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
        assert!(
            text.len() <= 128 && !text.starts_with(['.', '-']) && !text.contains(['/', '\\', ':'])
        );
    }
    match text.parse::<Reference>() {
        Ok(Reference::Digest(digest)) => assert_eq!(digest.to_string(), text),
        Ok(Reference::Tag(tag)) => assert_eq!(tag.as_str(), text),
        Err(_) => assert!(text.parse::<Digest>().is_err() && text.parse::<Tag>().is_err()),
    }
    if let Ok(name) = text.parse::<RepositoryName>() {
        assert_eq!(name.as_str(), text);
        assert!(text.len() <= 255 && !text.contains(".."));
        assert!(text.split('/').all(|part| !part.is_empty() && !part.starts_with(['.', '_', '-'])));
    }
    if let Some(kind) = MediaType::of_manifest(text) {
        assert!(text.contains(kind.as_str()));
        assert_eq!(MediaType::of_manifest(kind.as_str()), Some(kind));
    }
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, text.as_bytes());
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }
});
