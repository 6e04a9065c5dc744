//! The image that is measured with: layers of random bytes and a manifest, as files named by their
//! digests.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::rand;
use serde_json::json;

use crate::size::length;

/// What the repository is called everywhere.
pub(crate) const REPOSITORY: &str = "bench/image";
/// The one tag.
pub(crate) const TAG: &str = "latest";
/// How much is made at a time.
const PIECE: usize = 1 << 20;

/// An object that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    /// `sha256:` and the digits.
    pub(crate) digest: String,
    /// Its bytes.
    pub(crate) size: u64,
}

impl Object {
    /// Where a registry has it as a blob.
    pub(crate) fn blob(&self) -> String {
        format!("/v2/{REPOSITORY}/blobs/{}", self.digest)
    }

    /// Where a registry has it as a manifest.
    pub(crate) fn manifest(&self) -> String {
        format!("/v2/{REPOSITORY}/manifests/{}", self.digest)
    }
}

/// Where a registry has the manifest by its tag.
pub(crate) fn by_tag() -> String {
    format!("/v2/{REPOSITORY}/manifests/{TAG}")
}

/// How many layers an image has, and how large they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) large: u64,
    pub(crate) large_bytes: u64,
    pub(crate) small: u64,
    pub(crate) small_bytes: u64,
}

/// A generated image in a directory.
#[derive(Debug)]
pub(crate) struct Image {
    dir: PathBuf,
    pub(crate) large: Vec<Object>,
    pub(crate) small: Vec<Object>,
    pub(crate) manifest: Object,
}

impl Image {
    /// Writes an image of this shape into `dir`.
    pub(crate) fn generate(dir: &Path, shape: Shape) -> io::Result<Self> {
        fs::create_dir_all(blobs(dir))?;
        let large = write_layers(dir, shape.large, shape.large_bytes)?;
        let small = write_layers(dir, shape.small, shape.small_bytes)?;
        let config = write(dir, b"{}")?;
        let manifest = write(dir, manifest(&config, large.iter().chain(&small)).as_bytes())?;
        fs::write(dir.join(TAG), &manifest.digest)?;
        Ok(Self { dir: dir.to_owned(), large, small, manifest })
    }

    /// Adds a layer that no cache can have; it is in no manifest.
    pub(crate) fn unknown_layer(&self, size: u64) -> io::Result<Object> {
        write_random(&self.dir, size)
    }

    /// Takes the layer away again.
    pub(crate) fn forget(&self, object: &Object) -> io::Result<()> {
        fs::remove_file(file_of(&self.dir, &object.digest))
    }
}

/// The file of the object that is asked for by `reference`, a digest or the tag; `None` for
/// anything else, so that a path can't lead elsewhere.
pub(crate) fn find(dir: &Path, reference: &str) -> Option<PathBuf> {
    if reference == TAG {
        let digest = fs::read_to_string(dir.join(TAG)).ok()?;
        return Some(file_of(dir, &digest));
    }
    let hex = reference.strip_prefix("sha256:")?;
    let right = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    right.then(|| file_of(dir, reference))
}

fn blobs(dir: &Path) -> PathBuf {
    dir.join("blobs/sha256")
}

fn file_of(dir: &Path, digest: &str) -> PathBuf {
    blobs(dir).join(digest.trim_start_matches("sha256:"))
}

/// An OCI manifest of these layers.
pub(crate) fn manifest<'o>(config: &Object, layers: impl Iterator<Item = &'o Object>) -> String {
    let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
    let describe = |kind: &str, object: &Object| json!({ "mediaType": kind, "digest": object.digest, "size": object.size });
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": describe("application/vnd.oci.image.config.v1+json", config),
        "layers": layers.map(|object| describe(layer, object)).collect::<Vec<_>>(),
    })
    .to_string()
}

/// The manifest's media type.
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn write_layers(dir: &Path, count: u64, size: u64) -> io::Result<Vec<Object>> {
    (0..count).map(|_| write_random(dir, size)).collect()
}

/// Writes a file of random bytes under its final name.
fn write_random(dir: &Path, size: u64) -> io::Result<Object> {
    let draft = dir.join("draft");
    let mut file = File::create(&draft)?;
    let mut context = Context::new(&SHA256);
    let mut piece = vec![0; PIECE];
    let mut left = length(size);
    while left > 0 {
        let part = piece.get_mut(..left.min(PIECE)).unwrap_or_default();
        rand::fill(part).map_err(|_| io::Error::other("no random bytes"))?;
        context.update(part);
        file.write_all(part)?;
        left -= part.len();
    }
    let digest = name(context.finish().as_ref());
    fs::rename(draft, file_of(dir, &digest))?;
    Ok(Object { digest, size })
}

fn write(dir: &Path, content: &[u8]) -> io::Result<Object> {
    let digest = digest_of(content);
    fs::write(file_of(dir, &digest), content)?;
    Ok(Object { digest, size: content.len() as u64 })
}

/// The digest of some bytes.
pub(crate) fn digest_of(content: &[u8]) -> String {
    name(aws_lc_rs::digest::digest(&SHA256, content).as_ref())
}

/// A hash as a digest.
pub(crate) fn name(hash: &[u8]) -> String {
    hash.iter().fold(String::from("sha256:"), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::{Image, Shape, digest_of, file_of, find};

    #[test]
    fn objects_are_what_their_names_say_and_nothing_else_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape { large: 1, large_bytes: 3 << 20, small: 2, small_bytes: 1000 };
        let image = Image::generate(dir.path(), shape).unwrap();
        assert_eq!((image.large.len(), image.small.len()), (1, 2));
        for object in image.large.iter().chain(&image.small).chain([&image.manifest]) {
            let bytes = std::fs::read(file_of(dir.path(), &object.digest)).unwrap();
            assert_eq!(
                (digest_of(&bytes), bytes.len() as u64),
                (object.digest.clone(), object.size)
            );
            assert_eq!(find(dir.path(), &object.digest), Some(file_of(dir.path(), &object.digest)));
        }
        assert_eq!(find(dir.path(), "latest"), Some(file_of(dir.path(), &image.manifest.digest)));
        for wrong in ["sha256:..", "../latest", "sha256:", "draft"] {
            assert_eq!(find(dir.path(), wrong), None, "{wrong}");
        }
    }
}
