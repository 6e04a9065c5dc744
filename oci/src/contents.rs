//! What a manifest holds, for those who pull what it names.

use super::manifest::{Descriptor, Document};
use super::{Digest, Platform};

/// Not a manifest that names an image's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentsError {
    /// No JSON, or not of the form.
    #[error("it is no image manifest or index")]
    Form,
    /// `fsLayers`, which engines take no more.
    #[error("it is a manifest of the old schema 1, which engines pull no more")]
    Schema1,
}

/// A manifest or an index (OCI image specification; Docker's schema 2 has the same names).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// Manifests, each for a platform.
    Index(Vec<Listed>),
    /// One image: its configuration and its layers.
    Image(Vec<ImageBlob>),
}

/// A manifest in an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub digest: Digest,
    /// What it is for; an index need not say.
    pub platform: Option<Platform>,
}

/// A blob of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageBlob {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes, as the manifest has it.
    pub size: u64,
    /// Whether it is the configuration, rather than a layer.
    pub is_config: bool,
}

impl Contents {
    /// Reads a manifest. Layers that lie elsewhere are left out: no registry need have them.
    pub fn parse(bytes: &[u8]) -> Result<Self, ContentsError> {
        let document = Document::parse(bytes).ok_or(ContentsError::Form)?;
        match document {
            Document { manifests: Some(manifests), .. } => {
                Ok(Self::Index(manifests.into_iter().map(listed).collect()))
            }
            Document { layers: Some(layers), config, .. } => {
                let config = config.iter().map(|one| part(one, true));
                let layers = layers.iter().filter(|one| !one.is_foreign());
                Ok(Self::Image(config.chain(layers.map(|one| part(one, false))).collect()))
            }
            Document { fs_layers: Some(_), .. } => Err(ContentsError::Schema1),
            _ => Err(ContentsError::Form),
        }
    }
}

fn listed(Descriptor { digest, platform, .. }: Descriptor) -> Listed {
    Listed { digest, platform }
}

fn part(descriptor: &Descriptor, is_config: bool) -> ImageBlob {
    ImageBlob { digest: descriptor.digest, size: descriptor.size, is_config }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(n: char) -> String {
        format!("sha256:{}", n.to_string().repeat(64))
    }

    #[test]
    fn an_index_lists_platforms() {
        let (a, b) = (named('a'), named('b'));
        let text = format!(
            r#"{{"manifests":[{{"digest":"{a}","size":5,"platform":{{"os":"linux","architecture":"arm","variant":"v6"}}}},
            {{"digest":"{b}","size":5}}]}}"#
        );
        let Ok(Contents::Index(listed)) = Contents::parse(text.as_bytes()) else {
            panic!("{text}")
        };
        assert_eq!(listed[0].platform, Some("linux/arm/v6".parse().unwrap()));
        assert_eq!((listed[1].digest.to_string(), &listed[1].platform), (b, &None));
    }

    #[test]
    fn an_image_is_its_configuration_and_the_layers_that_are_there() {
        let (a, b, c) = (named('a'), named('b'), named('c'));
        let text = format!(
            r#"{{"config":{{"digest":"{a}","size":1}},"layers":[{{"digest":"{b}","size":7}},
            {{"digest":"{c}","size":9,"urls":["https://elsewhere.example/layer"]}}]}}"#
        );
        let Ok(Contents::Image(parts)) = Contents::parse(text.as_bytes()) else { panic!("{text}") };
        let parts: Vec<_> =
            parts.iter().map(|one| (one.digest.to_string(), one.size, one.is_config)).collect();
        assert_eq!(parts, [(a, 1, true), (b, 7, false)]);
    }

    #[test]
    fn a_platform_that_is_no_word_is_unknown() {
        let text = format!(
            r#"{{"manifests":[{{"digest":"{}","size":5,
            "platform":{{"os":"linux","architecture":"\u001b[31mred\n"}}}}]}}"#,
            named('a')
        );
        let Ok(Contents::Index(listed)) = Contents::parse(text.as_bytes()) else {
            panic!("{text}")
        };
        assert_eq!(
            listed[0].platform.as_ref().map(ToString::to_string).unwrap(),
            "unknown/unknown"
        );
    }

    #[test]
    fn what_is_no_image_is_said_to_be_none() {
        let of = |text: &str| Contents::parse(text.as_bytes()).unwrap_err();
        for other in ["", "[]", "<html>", "{}", r#"{"layers":[{"digest":"sha256:x"}]}"#] {
            assert_eq!(of(other), ContentsError::Form, "{other}");
        }
        assert_eq!(of(r#"{"schemaVersion":1,"fsLayers":[]}"#), ContentsError::Schema1);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Contents::parse(&bytes);
        }
    }
}
