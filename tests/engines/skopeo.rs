//! Skopeo, which copies images of all platforms, and pushes too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::engine::{Engine, Login, second_pulls_come_from_the_cache};
use crate::images::{self, Image, Variant};
use crate::process::{run, run_for_all_output};
use crate::site::Site;
use crate::way::Way;

#[test]
fn skopeo_copies_all_platforms_again_from_the_cache() -> Result<()> {
    second_pulls_come_from_the_cache(Skopeo::start)
}

#[test]
fn what_skopeo_pushes_through_the_proxy_can_be_pulled_through_it() -> Result<()> {
    let (site, _) = Site::start(|layouts| Ok(fs::create_dir(layouts).map(|()| Vec::new())?))?;
    let skopeo = Skopeo::start(&site)?;
    let image = images::create(
        &site.directory("pushed")?,
        "example/pushed",
        &[("amd64", &[9_000, 90_000]), ("arm64", &[8_000])],
    )?;
    skopeo.copy(&in_layout(&image.layout, &image), &on_hub(&image))?;
    let pulled = skopeo.pull(&image)?;
    ensure!(pulled.contains(&image.digest), "{pulled:?}");
    Ok(())
}

/// The images that it copied lie in an OCI layout each.
pub(crate) struct Skopeo {
    home: PathBuf,
    way: Way,
}

impl Skopeo {
    pub(crate) fn start(site: &Site) -> Result<Self> {
        Self::with(site.directory("skopeo")?, Way::Proxy(site.access()))
    }

    pub(crate) fn with(home: PathBuf, way: Way) -> Result<Self> {
        fs::create_dir(home.join("layouts"))?;
        Ok(Self { home, way })
    }

    fn skopeo(&self) -> Result<Command> {
        self.way.command("skopeo", &self.home)
    }

    /// Puts an image where `name` says.
    pub(crate) fn push(&self, image: &Image, name: &str) -> Result<()> {
        self.copy(&in_layout(&image.layout, image), &format!("docker://{name}"))
    }

    /// Gets an image from where `name` says: its digest there.
    pub(crate) fn digest(&self, name: &str) -> Result<String> {
        let mut skopeo = self.skopeo()?;
        let raw = skopeo.args(["inspect", "--format", "{{.Digest}}"]);
        Ok(run(raw.arg(format!("docker://{name}")))?.trim().to_owned())
    }

    /// Pulls an image, so that it is kept, and forgets it.
    pub(crate) fn copy_away(&self, image: &Image) -> Result<()> {
        self.pull(image)?;
        self.forget_everything()
    }

    /// Logs in at a registry.
    pub(crate) fn log_in(&self, registry: &str, login: &Login) -> Result<String> {
        let mut skopeo = self.skopeo()?;
        skopeo.arg("login").args(["--username", &login.name, "--password", &login.password]);
        run_for_all_output(skopeo.arg("--authfile").arg(self.home.join("auth.json")).arg(registry))
    }

    fn copy(&self, source: &str, target: &str) -> Result<()> {
        run(self.skopeo()?.args([
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
            source,
            target,
        ]))?;
        Ok(())
    }
}

impl Skopeo {
    /// Puts an image on the Hub, under somebody's name.
    pub(crate) fn push_as(&self, image: &Image, login: &Login) -> Result<()> {
        let mut skopeo = self.skopeo()?;
        skopeo.args(["copy", "--quiet", "--preserve-digests", "--dest-creds", &login.pair()]);
        run(skopeo.args([in_layout(&image.layout, image), on_hub(image)])).map(drop)
    }
}

fn in_layout(layout: &Path, image: &Image) -> String {
    format!("oci:{}:{}", layout.display(), image.tag)
}

fn on_hub(image: &Image) -> String {
    format!("docker://{}", image.name())
}

impl Engine for Skopeo {
    fn pull(&self, image: &Image) -> Result<Vec<String>> {
        let layout = self.home.join("layouts").join(image.repository);
        fs::create_dir_all(&layout)?;
        self.copy(&on_hub(image), &in_layout(&layout, image))?;
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
        let root = index.pointer("/manifests/0/digest").and_then(Value::as_str);
        let mut known = vec![root.context("no digest")?.to_owned()];
        for entry in fs::read_dir(layout.join("blobs/sha256"))? {
            known.push(format!("sha256:{}", entry?.file_name().to_string_lossy()));
        }
        for blob in image.variants.iter().flat_map(Variant::blobs) {
            ensure!(known.contains(blob), "{} lacks {blob}", image.name());
        }
        Ok(known)
    }

    fn pull_as(&self, name: &str, login: Option<&Login>) -> Result<()> {
        let mut skopeo = self.skopeo()?;
        skopeo.args(["copy", "--quiet"]);
        if let Some(login) = login {
            skopeo.args(["--src-creds", &login.pair()]);
        }
        let layout = format!("oci:{}:1", self.home.join("layouts").display());
        run(skopeo.arg(format!("docker://{name}")).arg(layout)).map(drop)
    }

    fn forget_everything(&self) -> Result<()> {
        let layouts = self.home.join("layouts");
        fs::remove_dir_all(&layouts)?;
        fs::create_dir(&layouts)?;
        Ok(())
    }

    fn variants<'i>(&self, image: &'i Image) -> Result<Vec<&'i Variant>> {
        Ok(image.variants.iter().collect())
    }
}
