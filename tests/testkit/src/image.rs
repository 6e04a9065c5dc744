//! Images, made of random bytes: the proxy never looks into a layer.

use std::fmt::Write as _;

use aws_lc_rs::{digest, rand};
use bytes::Bytes;
use serde_json::{Value, json};

/// The media type of an image's manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index, which lists the manifests of several platforms.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const FOREIGN_LAYER: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The `sha256:…` of these bytes.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Bytes that exist nowhere else.
#[must_use]
pub fn random_bytes(size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    rand::fill(&mut bytes).unwrap();
    bytes.into()
}

/// An object of a registry: bytes that are known by their digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// `sha256:…`.
    pub digest: String,
    /// What the bytes are.
    pub media_type: String,
    /// The bytes.
    pub bytes: Bytes,
}

impl Blob {
    /// An object of these bytes.
    #[must_use]
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: digest_of(&bytes), media_type: media_type.to_owned(), bytes }
    }

    /// A layer of random bytes.
    #[must_use]
    pub fn random(size: usize) -> Self {
        Self::new(LAYER, random_bytes(size))
    }

    /// As a manifest mentions it.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len() })
    }
}

/// An image for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest.
    pub manifest: Blob,
    /// The configuration.
    pub config: Blob,
    /// The layers, lowest first.
    pub layers: Vec<Blob>,
}

impl Image {
    /// An image for linux/amd64 of so many layers of so many bytes each.
    #[must_use]
    pub fn random(layers: usize, layer_size: usize) -> Self {
        Self::for_platform("amd64", layers, layer_size)
    }

    /// The same for linux and another architecture.
    #[must_use]
    pub fn for_platform(architecture: &str, layers: usize, layer_size: usize) -> Self {
        Self::of_layers(architecture, (0..layers).map(|_| Blob::random(layer_size)).collect())
    }

    /// An image of these layers.
    #[must_use]
    pub fn of_layers(architecture: &str, layers: Vec<Blob>) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = Blob::new(CONFIG, config.to_string());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        Self { manifest: Blob::new(MANIFEST, manifest.to_string()), config, layers }
    }

    /// The same with one layer more, which its manifest says to get from `url`. It is no registry's
    /// unless it is put there.
    #[must_use]
    pub fn with_foreign_layer(mut self, layer: &Blob, url: &str) -> Self {
        let mut manifest: Value = serde_json::from_slice(&self.manifest.bytes).unwrap();
        let mut descriptor = layer.descriptor();
        descriptor["mediaType"] = json!(FOREIGN_LAYER);
        descriptor["urls"] = json!([url]);
        manifest["layers"].as_array_mut().unwrap().insert(0, descriptor);
        self.manifest = Blob::new(MANIFEST, manifest.to_string());
        self
    }

    /// Everything a client fetches as a blob: the configuration and the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// Something that refers to this image, as a signature does.
    #[must_use]
    pub fn referrer(&self, artifact_type: &str) -> Blob {
        let empty = Blob::new("application/vnd.oci.empty.v1+json", "{}");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type,
            "config": empty.descriptor(),
            "layers": [],
            "subject": self.manifest.descriptor(),
        });
        Blob::new(MANIFEST, manifest.to_string())
    }
}

/// An image for several architectures.
#[derive(Debug, Clone)]
pub struct Index {
    /// The index itself.
    pub manifest: Blob,
    /// The images it lists.
    pub images: Vec<Image>,
}

impl Index {
    /// An index of random images, one an architecture.
    #[must_use]
    pub fn random(architectures: &[&str], layers: usize, layer_size: usize) -> Self {
        let images: Vec<_> = architectures
            .iter()
            .map(|architecture| Image::for_platform(architecture, layers, layer_size))
            .collect();
        let manifests: Vec<_> = architectures
            .iter()
            .zip(&images)
            .map(|(architecture, image)| {
                let mut descriptor = image.manifest.descriptor();
                descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
                descriptor
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        Self { manifest: Blob::new(INDEX, index.to_string()), images }
    }
}
