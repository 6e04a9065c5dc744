//! OCI image layouts (image specification, "Image Layout"): what is in one beside the blobs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use entrepot_oci::manifest::Descriptor;
use entrepot_oci::{Digest, ImageName, Reference};

/// The file that marks a layout.
pub(super) const MARK: &str = "oci-layout";
/// The file that names the images.
pub(super) const INDEX: &str = "index.json";
/// The directory of the objects.
pub(super) const BLOBS: &str = "blobs";
/// What stands in the first file.
pub(super) const MARK_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The media type of the second.
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// Under which name an image lies in a layout. Tools put a full name there, a tag, or something
/// else.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Under which full name: containerd, `BuildKit` and podman write and read it.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// `index.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    pub(super) manifests: Vec<Descriptor>,
}

/// `oci-layout`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    image_layout_version: String,
}

impl Index {
    pub(super) fn of(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: INDEX_TYPE.to_owned(), manifests }
    }
}

/// The annotations of an image that has this name.
pub(super) fn annotations(name: &ImageName) -> BTreeMap<String, String> {
    let name = name.to_string();
    [REF_NAME, IMAGE_NAME].map(|key| (key.to_owned(), name.clone())).into()
}

/// The full name of an image in a layout, if it has one.
///
/// A bare tag is none, and what names another digest than it lies under is nobody's.
pub(super) fn name(image: &Descriptor) -> Option<ImageName> {
    let told = |key| image.annotations.get(key);
    let full = told(IMAGE_NAME).or_else(|| {
        // `3.20` would be read as a repository.
        told(REF_NAME).filter(|name| name.contains(['/', ':', '@']))
    });
    let name: ImageName = full?.parse().ok()?;
    match name.reference {
        Reference::Digest(digest) if digest != image.digest => None,
        _ => Some(name),
    }
}

/// Whether the file that marks a layout is that of a version that is known here: any of the first,
/// as the specification has it. Else the version.
pub(super) fn check_version(mark: &[u8]) -> Result<(), String> {
    let mark: Mark = serde_json::from_slice(mark).unwrap_or_default();
    if mark.image_layout_version.starts_with("1.") {
        Ok(())
    } else {
        Err(mark.image_layout_version)
    }
}

/// Where an object lies in a layout.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("{BLOBS}/{}/{}", digest.algorithm(), digest.hex())
}

/// The object that lies there.
pub(super) fn blob_at(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix(BLOBS)?.strip_prefix('/')?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_the_name_that_its_tool_gave_it() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let other = format!("sha256:{}", "b".repeat(64));
        let alpine = "docker.io/library/alpine:3.20";
        let (full, by_digest) = (format!("ghcr.io/o/a@{digest}"), format!("ghcr.io/o/a@{other}"));
        for (containerd, reference, expected) in [
            (Some(alpine), Some("3.20"), Some(alpine)),
            (None, Some(alpine), Some(alpine)),
            (None, Some("alpine:3.20"), Some(alpine)),
            (None, Some("3.20"), None),
            (None, None, None),
            (Some("Not a name"), None, None),
            (Some(&full), None, Some(full.as_str())),
            (Some(&by_digest), None, None),
        ] {
            let told = [(IMAGE_NAME, containerd), (REF_NAME, reference)];
            let told = told
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
            let image = Descriptor {
                media_type: String::new(),
                digest: digest.parse().unwrap(),
                size: 1,
                platform: None,
                urls: Vec::new(),
                annotations: told.collect(),
            };
            let name = name(&image).map(|name| name.to_string());
            assert_eq!(name.as_deref(), expected, "{containerd:?} {reference:?}");
        }
    }

    #[test]
    fn objects_lie_under_their_digests() {
        let digest: Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        assert_eq!(blob_at(&blob_path(&digest)), Some(digest));
        for wrong in ["blobs/sha256/aa", "blobs/md5/aa", "blobs", "xblobs/sha256/x", "index.json"] {
            assert_eq!(blob_at(wrong), None);
        }
    }
}
