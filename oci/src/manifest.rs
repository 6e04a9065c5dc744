//! Manifests and indexes, and the descriptors by which they mention what belongs to them (OCI image
//! specification, "Image Manifest", "Image Index", "Content Descriptors"; Docker's documents have
//! the same fields).

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Error as _, SeqAccess, Visitor};
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
    /// Its size in bytes; 0 where the document does not say.
    #[serde(default)]
    pub size: u64,
    /// What it runs on, in an index; not written.
    #[serde(default, skip_serializing)]
    pub platform: Option<Platform>,
    /// Where else the content is: such a layer need not be the registry's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// What else is said of it, as its name in a layout.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What the media types of layers say that are not to be distributed (image specification,
/// "Non-Distributable Layers"; Docker's are called foreign).
const FOREIGN: [&str; 2] = ["nondistributable", "foreign"];

impl Descriptor {
    /// Whether its content is to be had elsewhere, so that an image is whole without it: a
    /// registry need not have it, and tools leave it out. Where it is kept it belongs to the image
    /// all the same.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        !self.urls.is_empty() || FOREIGN.iter().any(|word| self.media_type.contains(word))
    }
}

fn digest_from_text<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

fn digest_to_text<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(digest)
}

/// A manifest or an index, as far as it says what belongs to an image. The lists that it does not
/// have are `None`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// What it calls itself.
    pub media_type: Option<String>,
    /// Of an index: the manifests.
    pub manifests: Option<Vec<Descriptor>>,
    /// Of a manifest: the configuration.
    pub config: Option<Descriptor>,
    /// Of a manifest: the layers.
    pub layers: Option<Vec<Descriptor>>,
    /// Of an artifact's manifest, which has no layers.
    blobs: Option<Vec<Descriptor>>,
    /// Of a manifest of Docker's schema 1, which engines pull no more: the layers.
    pub(super) fs_layers: Option<Vec<FsLayer>>,
}

/// A layer in schema 1.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FsLayer {
    #[serde(deserialize_with = "digest_from_text")]
    blob_sum: Digest,
}

impl Document {
    /// The document that these bytes are, if they are one; one that names thousands of objects is
    /// none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let parsed: Self = serde_json::from_slice(bytes).ok()?;
        (parsed.digests().count() <= MOST).then_some(parsed)
    }

    /// The manifests that an index lists.
    #[must_use]
    pub fn manifests(&self) -> &[Descriptor] {
        self.manifests.as_deref().unwrap_or_default()
    }

    /// The layers of a manifest.
    #[must_use]
    pub fn layers(&self) -> &[Descriptor] {
        self.layers.as_deref().unwrap_or_default()
    }

    /// The layers that it can do without.
    pub fn foreign_layers(&self) -> impl Iterator<Item = Digest> {
        let needed: HashSet<_> = self
            .descriptors()
            .filter(|one| !one.is_foreign())
            .chain(&self.config)
            .map(|one| one.digest)
            .collect();
        let foreign = self.layers().iter().filter(|layer| layer.is_foreign());
        foreign.map(|layer| layer.digest).filter(move |digest| !needed.contains(digest))
    }

    /// Everything that it describes.
    pub fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        let blobs = self.blobs.iter().flatten();
        self.manifests().iter().chain(&self.config).chain(self.layers()).chain(blobs)
    }

    /// Everything that it names.
    fn digests(&self) -> impl Iterator<Item = Digest> {
        let layers = self.fs_layers.iter().flatten().map(|layer| layer.blob_sum);
        self.descriptors().map(|one| one.digest).chain(layers)
    }
}

/// The objects that a manifest or index needs; none where `bytes` are neither.
///
/// A manifest's word says what belongs together, never who may have it.
#[must_use]
pub fn references(bytes: &[u8]) -> Vec<Digest> {
    let Ok(named) = serde_json::from_slice::<NamedObjects>(bytes) else { return Vec::new() };
    let NamedObjects { manifests, config, layers, blobs, fs_layers } = named;
    let config = config.map(|one| one.digest);
    let named = manifests.0.into_iter().chain(config).chain(layers.0).chain(blobs.0);
    let named: Vec<_> = named.chain(fs_layers.0).collect();
    if named.len() > MOST { Vec::new() } else { named }
}

/// The names in a document, and nothing of what else it says: documents come from strangers, and
/// all of one takes many times its size in memory.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamedObjects {
    #[serde(default)]
    manifests: Names<Named>,
    config: Option<Named>,
    #[serde(default)]
    layers: Names<Named>,
    #[serde(default)]
    blobs: Names<Named>,
    #[serde(default)]
    fs_layers: Names<FsLayer>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(deserialize_with = "digest_from_text")]
    digest: Digest,
}

impl From<Named> for Digest {
    fn from(named: Named) -> Self {
        named.digest
    }
}

impl From<FsLayer> for Digest {
    fn from(layer: FsLayer) -> Self {
        layer.blob_sum
    }
}

/// The digests in a list of `T`; a list of too many fails.
struct Names<T>(Vec<Digest>, PhantomData<T>);

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self(Vec::new(), PhantomData)
    }
}

impl<'de, T: Deserialize<'de> + Into<Digest>> Deserialize<'de> for Names<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_option(Self::default())
    }
}

impl<'de, T: Deserialize<'de> + Into<Digest>> Visitor<'de> for Names<T> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MOST} descriptors")
    }

    fn visit_none<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Self, A::Error> {
        while let Some(one) = list.next_element::<T>()? {
            if self.0.len() == MOST {
                return Err(A::Error::invalid_length(MOST + 1, &self));
            }
            self.0.push(one.into());
        }
        Ok(self)
    }
}

/// What an image runs on, by its configuration.
#[must_use]
pub fn platform_of_config(bytes: &[u8]) -> Option<Platform> {
    serde_json::from_slice(bytes).ok()
}

/// What the registry's digest of a signed manifest of schema 1 is of: the document without its
/// signatures ("Image Manifest Version 2, Schema 1": `formatLength` and `formatTail` in the
/// protected header of a JSON Web Signature). `None` where it is not signed.
#[must_use]
pub fn signed_payload(bytes: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Signed {
        signatures: Vec<Signature>,
    }
    #[derive(Deserialize)]
    struct Signature {
        protected: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Protected {
        format_length: usize,
        format_tail: String,
    }
    let signed: Signed = serde_json::from_slice(bytes).ok()?;
    let protected = &signed.signatures.first()?.protected;
    let protected = URL_SAFE_NO_PAD.decode(protected.trim_end_matches('=')).ok()?;
    let protected: Protected = serde_json::from_slice(&protected).ok()?;
    let tail = URL_SAFE_NO_PAD.decode(protected.format_tail.trim_end_matches('=')).ok()?;
    let mut payload = bytes.get(..protected.format_length)?.to_vec();
    payload.extend_from_slice(&tail);
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    #[test]
    fn a_layer_that_lies_elsewhere_is_foreign_unless_it_is_needed_too() {
        let digest = |n: char| format!("sha256:{}", n.to_string().repeat(64));
        let layer = |n, rest: &str| format!(r#"{{"digest":"{}"{rest}}}"#, digest(n));
        let urls = r#","urls":["https://elsewhere.example/a"]"#;
        let oci = r#","mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip""#;
        let docker = r#","mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip""#;
        let usual = r#","mediaType":"application/vnd.oci.image.layer.v1.tar+gzip""#;
        let layers = [
            layer('a', urls),
            layer('b', oci),
            layer('c', docker),
            layer('d', usual),
            layer('e', urls),
            layer('e', usual),
            layer('f', urls),
        ];
        let text = format!(r#"{{"config":{},"layers":[{}]}}"#, layer('f', urls), layers.join(","));
        let document = Document::parse(text.as_bytes()).unwrap();
        let found: Vec<_> = document.foreign_layers().map(|one| one.to_string()).collect();
        assert_eq!(found, [digest('a'), digest('b'), digest('c')]);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = references(&bytes);
        }
    }

    #[test]
    fn a_signed_manifest_has_its_payloads_digest() {
        let payload = "{\n   \"schemaVersion\": 1,\n   \"name\": \"a\"\n}";
        let length = payload.rfind("\n}").unwrap();
        let tail = URL_SAFE_NO_PAD.encode("\n}");
        let protected = format!(r#"{{"formatLength":{length},"formatTail":"{tail}"}}"#);
        let protected = URL_SAFE_NO_PAD.encode(protected);
        let signed = format!(
            "{},\n   \"signatures\": [{{\"protected\": \"{protected}\"}}]\n}}",
            &payload[..length]
        );
        assert_eq!(signed_payload(signed.as_bytes()).as_deref(), Some(payload.as_bytes()));
        for unsigned in ["{}", "", r#"{"signatures":[]}"#, r#"{"signatures":[{"protected":"!"}]}"#]
        {
            assert_eq!(signed_payload(unsigned.as_bytes()), None, "{unsigned}");
        }
        let far = URL_SAFE_NO_PAD.encode(r#"{"formatLength":99999,"formatTail":""}"#);
        let far = format!(r#"{{"signatures":[{{"protected":"{far}"}}]}}"#);
        assert_eq!(signed_payload(far.as_bytes()), None);
    }
}
