//! What a manifest refers to.

use serde::Deserialize;

use super::Digest;

/// The parts of an image manifest or index that name other objects (OCI image specification,
/// "Image Manifest" and "Image Index"; Docker's schema 2 has the same names).
#[derive(Deserialize)]
struct References {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    blobs: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    /// Schema 1.
    #[serde(default, rename = "fsLayers")]
    fs_layers: Vec<FsLayer>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FsLayer {
    blob_sum: String,
}

/// The objects that a manifest or index needs; none where `bytes` are neither.
///
/// A manifest's word says what belongs together, never who may have it.
#[must_use]
pub fn references(bytes: &[u8]) -> Vec<Digest> {
    let Ok(found) = serde_json::from_slice::<References>(bytes) else { return Vec::new() };
    let descriptors = [found.layers, found.blobs, found.manifests].into_iter().flatten();
    let described = found.config.into_iter().chain(descriptors).map(|one| one.digest);
    let layers = found.fs_layers.into_iter().map(|layer| layer.blob_sum);
    described.chain(layers).filter_map(|digest| digest.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn manifests_and_indexes_name_what_they_need() {
        let digest = |n: char| format!("sha256:{}", n.to_string().repeat(64));
        let (a, b, c) = (digest('a'), digest('b'), digest('c'));
        let image = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{a}","size":1}},
            "layers":[{{"digest":"{b}"}},{{"digest":"{c}"}}],"subject":{{"digest":"{a}"}}}}"#
        );
        let index = format!(r#"{{"manifests":[{{"digest":"{a}","platform":{{}}}}]}}"#);
        let old = format!(r#"{{"schemaVersion":1,"fsLayers":[{{"blobSum":"{b}"}}]}}"#);
        let cases = [
            (image, vec![&a, &b, &c]),
            (index, vec![&a]),
            (old, vec![&b]),
            (r#"{"architecture":"amd64","rootfs":{}}"#.to_owned(), vec![]),
            (r#"{"layers":[{"digest":"sha256:zz"}]}"#.to_owned(), vec![]),
            (r#"{"layers":"x"}"#.to_owned(), vec![]),
            ("<html>".to_owned(), vec![]),
        ];
        for (text, expected) in cases {
            let found = references(text.as_bytes());
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = references(&bytes);
        }
    }
}
