//! Descriptors: how manifests, indexes and layouts mention what belongs to them (OCI image
//! specification, "Content Descriptors"; Docker's documents have the same fields).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Digest;

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
    /// What it runs on, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What else is said of it, as its name in a layout.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

fn digest_from_text<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

fn digest_to_text<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(digest)
}

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Whether it is one at all: what accompanies images in an index (`unknown/unknown`) is not.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.os != "unknown" && !self.architecture.is_empty()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
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
    /// The document that these bytes are, if they are one.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
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
        assert_eq!(serde_json::from_str::<Descriptor>(&again).unwrap(), *listed);
        for wrong in ["x", r#"{"layers":[{"digest":"sha256:aa","size":1}]}"#] {
            assert!(Document::parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
        let config = br#"{"os":"linux","architecture":"amd64","rootfs":{}}"#;
        assert_eq!(platform_of_config(config).unwrap().to_string(), "linux/amd64");
        let unknown = Platform {
            os: "unknown".to_owned(),
            architecture: "unknown".to_owned(),
            variant: None,
        };
        assert!(!unknown.is_known());
    }
}
