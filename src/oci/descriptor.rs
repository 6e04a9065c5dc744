//! Descriptors: how manifests, indexes and layouts mention what belongs to them (OCI image
//! specification, "Content Descriptors"; Docker's documents have the same fields).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Digest, Platform};

/// The most objects that a document names: images have a few hundred layers at most, and indexes
/// fewer platforms.
const MOST: usize = 4096;

/// What a document says of another object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Which it is.
    #[serde(deserialize_with = "digest_from_text", serialize_with = "digest_to_text")]
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it runs on, in an index; not written.
    #[serde(default, skip_serializing)]
    pub platform: Option<Platform>,
    /// What else is said of it, as its name in a layout.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

pub(super) fn digest_from_text<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

fn digest_to_text<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(digest)
}

/// A manifest or an index, as far as it says what belongs to an image.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// What it calls itself.
    #[serde(default)]
    pub media_type: Option<String>,
    /// Of an index: the manifests.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// Of a manifest: the configuration.
    #[serde(default)]
    pub config: Option<Descriptor>,
    /// Of a manifest: the layers.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
}

impl Document {
    /// The document that these bytes are, if they are one; one that names thousands of objects is
    /// none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let parsed: Self = serde_json::from_slice(bytes).ok()?;
        (parsed.descriptors().count() <= MOST).then_some(parsed)
    }

    /// Everything that it names.
    pub fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().chain(&self.config).chain(&self.layers)
    }
}

/// What an image runs on, by its configuration.
#[must_use]
pub fn platform_of_config(bytes: &[u8]) -> Option<Platform> {
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_say_what_belongs_to_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let index = format!(
            r#"{{"manifests":[{{"digest":"{digest}","size":5,"mediaType":"m",
            "platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}}]}}"#
        );
        let index = Document::parse(index.as_bytes()).unwrap();
        let listed = index.descriptors().next().unwrap();
        assert_eq!(listed.platform.as_ref().unwrap().to_string(), "linux/arm/v7");
        let again = serde_json::to_string(listed).unwrap();
        let again: Descriptor = serde_json::from_str(&again).unwrap();
        assert_eq!(again, Descriptor { platform: None, ..listed.clone() });
        for wrong in ["x", r#"{"layers":[{"digest":"sha256:aa","size":1}]}"#] {
            assert!(Document::parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
        let config = br#"{"os":"linux","architecture":"amd64","rootfs":{}}"#;
        assert_eq!(platform_of_config(config).unwrap().to_string(), "linux/amd64");
        let odd = br#"{"os":"linux","architecture":"\u001b[31mred"}"#;
        assert!(!platform_of_config(odd).unwrap().is_known());
        let layer = format!(r#"{{"digest":"{digest}","size":1}}"#);
        for (count, is_one) in [(MOST, true), (MOST + 1, false)] {
            let manifest = format!(r#"{{"layers":[{}]}}"#, vec![layer.as_str(); count].join(","));
            assert_eq!(Document::parse(manifest.as_bytes()).is_some(), is_one);
        }
    }
}
