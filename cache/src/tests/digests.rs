//! What is a digest and what is not.

use proptest::prelude::*;

use crate::{Algorithm, Digest, DigestError};

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn known_hashes() {
    assert_eq!(Digest::of(Algorithm::Sha256, b"").to_string(), EMPTY);
    let abc = Digest::of(Algorithm::Sha512, b"abc");
    assert!(abc.hex().starts_with("ddaf35a193617abacc417349ae204131"));
    assert_eq!(abc.hex().len(), Algorithm::Sha512.hex_len());
}

#[test]
fn only_strict_digests_are_parsed() {
    let hex = &EMPTY[7..];
    let refused = [
        ("", DigestError::NoAlgorithm),
        (hex, DigestError::NoAlgorithm),
        (":", DigestError::UnknownAlgorithm),
        (&format!(":{hex}"), DigestError::UnknownAlgorithm),
        (&format!("sha384:{hex}"), DigestError::UnknownAlgorithm),
        (&format!("md5:{hex}"), DigestError::UnknownAlgorithm),
        (&format!("SHA256:{hex}"), DigestError::UnknownAlgorithm),
        (&format!(" sha256:{hex}"), DigestError::UnknownAlgorithm),
        (&format!("sha256+b64:{hex}"), DigestError::UnknownAlgorithm),
        (&EMPTY.to_uppercase().replace("SHA", "sha"), DigestError::Digit),
        (&EMPTY.replace("e3b0", "E3b0"), DigestError::Digit),
        (&EMPTY.replace("e3b0", "g3b0"), DigestError::Digit),
        (&EMPTY.replace("e3b0", "../.")[..EMPTY.len()], DigestError::Digit),
        (&EMPTY.replace("e3b0", "%2e0"), DigestError::Digit),
        (&EMPTY.replace("e3b0", "\0\0\0\0"), DigestError::Digit),
        (&EMPTY.replace("e3b0", "éé"), DigestError::Digit),
        (&EMPTY[..70], length(Algorithm::Sha256, 63)),
        (&format!("{EMPTY}0"), length(Algorithm::Sha256, 65)),
        (&format!("{EMPTY} "), length(Algorithm::Sha256, 65)),
        (&format!("sha512:{hex}"), length(Algorithm::Sha512, 64)),
        ("sha256:", length(Algorithm::Sha256, 0)),
        ("sha256:../../../etc/passwd", length(Algorithm::Sha256, 19)),
        (&format!("sha256:{}", "0".repeat(10_000)), length(Algorithm::Sha256, 10_000)),
    ];
    for (text, error) in refused {
        assert_eq!(text.parse::<Digest>(), Err(error), "{text:?}");
    }
}

fn length(algorithm: Algorithm, found: usize) -> DigestError {
    DigestError::Length { algorithm, found }
}

proptest! {
    #[test]
    fn what_is_shown_is_parsed(content: Vec<u8>, long: bool) {
        let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let digest = Digest::of(algorithm, &content);
        prop_assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn what_is_parsed_is_shown(text in "(sha256|sha512|sha1)?:?[0-9a-fA-F./]{60,130}") {
        if let Ok(digest) = text.parse::<Digest>() {
            prop_assert_eq!(digest.to_string(), text);
        }
    }

    #[test]
    fn order_is_that_of_the_text(one: [u8; 4], other: [u8; 4]) {
        let (one, other) =
            (Digest::of(Algorithm::Sha256, &one), Digest::of(Algorithm::Sha256, &other));
        prop_assert_eq!(one.cmp(&other), one.to_string().cmp(&other.to_string()));
    }
}
