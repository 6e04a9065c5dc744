//! The images that the engines pull, made here as OCI image layouts.
//!
//! Their bytes are noise from a fixed seed, so that digests are the same in every run. Layers are
//! plain tar archives: a layer's digest is its diff ID.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aws_lc_rs::digest::{Context as Hash, SHA256};
use serde_json::{Value, json};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The tag of nearly all.
const TAG: &str = "1.0";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image, in a layout of its own.
pub(crate) struct Image {
    /// Its repository on Docker Hub.
    pub(crate) repository: &'static str,
    pub(crate) tag: &'static str,
    /// The directory of its layout.
    pub(crate) layout: PathBuf,
    /// The digest that the tag leads to.
    pub(crate) digest: String,
    pub(crate) variants: Vec<Variant>,
}

/// What an image is on one platform.
pub(crate) struct Variant {
    pub(crate) architecture: &'static str,
    pub(crate) manifest: String,
    pub(crate) config: String,
    pub(crate) layers: Vec<String>,
    manifest_bytes: u64,
}

impl Image {
    /// Its name as a person writes it.
    pub(crate) fn name(&self) -> String {
        format!("docker.io/{}:{}", self.repository, self.tag)
    }

    /// The variant that an engine on this machine chooses.
    pub(crate) fn native(&self) -> Result<&Variant> {
        let architecture = native_architecture();
        self.variants
            .iter()
            .find(|variant| variant.architecture == architecture)
            .with_context(|| format!("{} has no variant for {architecture}", self.name()))
    }
}

impl Variant {
    /// The digests of its blobs: configuration and layers.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

pub(crate) fn native_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// One of every shape that matters: small, of two platforms, of many layers, of one large layer.
pub(crate) fn create_all(directory: &Path) -> Result<Vec<Image>> {
    let native = native_architecture();
    let many: Vec<u64> = (0..60).map(|n| 20 * KIB + (n * 37 % 60) * 3 * KIB).collect();
    Ok(vec![
        create(directory, "library/small", &[(native, &[3 * KIB])])?,
        create(
            directory,
            "library/several-platforms",
            &[("amd64", &[40 * KIB, 5 * KIB]), ("arm64", &[50 * KIB, 6 * KIB])],
        )?,
        create(directory, "example/sixty-layers", &[(native, &many)])?,
        create(directory, "example/large", &[(native, &[256 * MIB, KIB])])?,
    ])
}

/// Small ones: where the way is of interest, and not what goes along it. The set-up scripts ask a
/// mirror for the last.
pub(crate) fn create_some(directory: &Path) -> Result<Vec<Image>> {
    let platforms: [(_, &[u64]); 2] =
        [("amd64", &[40 * KIB, 5 * KIB]), ("arm64", &[50 * KIB, 6 * KIB])];
    let hello: [(_, &[u64]); 2] = [("amd64", &[KIB]), ("arm64", &[KIB])];
    Ok(vec![
        create(directory, "library/small", &[(native_architecture(), &[3 * KIB])])?,
        create(directory, "library/several-platforms", &platforms)?,
        create_as(directory, "library/hello-world", "latest", &hello)?,
    ])
}

/// An image of the given platforms, each with layers that hold one file of the given size.
pub(crate) fn create(
    directory: &Path,
    repository: &'static str,
    platforms: &[(&'static str, &[u64])],
) -> Result<Image> {
    create_as(directory, repository, TAG, platforms)
}

fn create_as(
    directory: &Path,
    repository: &'static str,
    tag: &'static str,
    platforms: &[(&'static str, &[u64])],
) -> Result<Image> {
    let layout = Layout::create(directory.join(repository))?;
    let mut variants = Vec::new();
    for (architecture, sizes) in platforms {
        variants.push(layout.variant(repository, architecture, sizes)?);
    }
    let root = match variants.as_slice() {
        [only] => only.descriptor(),
        several => layout.index(several)?,
    };
    let digest = text(&root, "digest")?;
    layout.finish(root, tag)?;
    Ok(Image { repository, tag, layout: layout.root, digest, variants })
}

impl Variant {
    fn descriptor(&self) -> Value {
        descriptor(MANIFEST, &self.manifest, self.manifest_bytes)
    }
}

/// An OCI image layout that is being written.
struct Layout {
    root: PathBuf,
}

impl Layout {
    fn create(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(root.join("blobs/sha256"))?;
        fs::write(root.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
        Ok(Self { root })
    }

    fn variant(
        &self,
        repository: &str,
        architecture: &'static str,
        sizes: &[u64],
    ) -> Result<Variant> {
        let mut layers = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            let seed = format!("{repository} {architecture} {number}");
            layers.push(self.layer(&format!("file-{number}"), &seed, *size)?);
        }
        let diff_ids: Vec<String> =
            layers.iter().map(|layer| text(layer, "digest")).collect::<Result<_>>()?;
        let config = self.json(
            CONFIG,
            &json!({
                "architecture": architecture,
                "os": "linux",
                "config": {"Cmd": ["/none"]},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
                "history": vec![json!({"created_by": "a test"}); layers.len()],
            }),
        )?;
        let manifest = self.json(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config,
                "layers": layers,
            }),
        )?;
        Ok(Variant {
            architecture,
            manifest: text(&manifest, "digest")?,
            config: text(&config, "digest")?,
            layers: diff_ids,
            manifest_bytes: manifest.get("size").and_then(Value::as_u64).context("no size")?,
        })
    }

    fn index(&self, variants: &[Variant]) -> Result<Value> {
        let manifests: Vec<Value> = variants
            .iter()
            .map(|variant| {
                let platform = json!({"architecture": variant.architecture, "os": "linux"});
                with(variant.descriptor(), "platform", platform)
            })
            .collect();
        self.json(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}))
    }

    fn finish(&self, root: Value, tag: &str) -> Result<()> {
        let root = with(root, "annotations", json!({"org.opencontainers.image.ref.name": tag}));
        fs::write(
            self.root.join("index.json"),
            json!({"schemaVersion": 2, "manifests": [root]}).to_string(),
        )?;
        Ok(())
    }

    fn json(&self, media_type: &str, value: &Value) -> Result<Value> {
        self.blob(media_type, |blob| Ok(serde_json::to_writer(blob, value)?))
    }

    fn layer(&self, file: &str, seed: &str, size: u64) -> Result<Value> {
        self.blob(LAYER, |blob| {
            let mut archive = tar::Builder::new(blob);
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            header.set_mode(0o644);
            archive.append_data(&mut header, file, Noise::new(seed).take(size))?;
            archive.finish()?;
            Ok(())
        })
    }

    /// Writes a blob under its digest and describes it.
    fn blob(
        &self,
        media_type: &str,
        write: impl FnOnce(&mut Hashed<BufWriter<File>>) -> Result<()>,
    ) -> Result<Value> {
        let unnamed = self.root.join("unnamed");
        let mut blob =
            Hashed::new(BufWriter::with_capacity(usize::try_from(MIB)?, File::create(&unnamed)?));
        write(&mut blob)?;
        blob.inner.flush()?;
        let size = blob.written;
        let hex = blob.hex();
        fs::rename(unnamed, self.root.join("blobs/sha256").join(&hex))?;
        Ok(descriptor(media_type, &format!("sha256:{hex}"), size))
    }
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.insert(key.to_owned(), value);
    }
    object
}

fn text(object: &Value, key: &str) -> Result<String> {
    let text = object.get(key).and_then(Value::as_str);
    Ok(text.with_context(|| format!("no {key}"))?.to_owned())
}

/// A writer that knows the digest of what went through it.
struct Hashed<W> {
    inner: W,
    hash: Hash,
    written: u64,
}

impl<W: Write> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Hash::new(&SHA256), written: 0 }
    }

    fn hex(self) -> String {
        let mut hex = String::new();
        for byte in self.hash.finish().as_ref() {
            // Writing to a string does not fail.
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write_all(bytes)?;
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Bytes without end, the same for the same seed: a block of noise (xorshift64), over and over.
struct Noise {
    block: Vec<u8>,
    at: usize,
}

impl Noise {
    fn new(seed: &str) -> Self {
        // FNV-1a; never zero, which xorshift would not leave.
        let mut state = 1 | seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut block = Vec::new();
        for _ in 0..8 * KIB {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend(state.to_le_bytes());
        }
        Self { block, at: 0 }
    }
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = self.block.get(self.at..).unwrap_or_default();
        let read = rest.read(buffer)?;
        self.at = (self.at + read) % self.block.len();
        Ok(read)
    }
}
