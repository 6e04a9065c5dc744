//! Images that cross an air gap: out of one entrepot, as an archive, into another that has no
//! registry, from where an engine pulls them by tag.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::dockerd::Dockerd;
use crate::engine::Engine;
use crate::images;
use crate::podman::Podman;
use crate::process::{command, run};
use crate::site::{Proxy, Site};
use crate::way::Way;

#[test]
fn an_archive_is_read_by_others_and_pulled_from_without_a_registry() -> Result<()> {
    let (site, images) = Site::start(|directory| {
        let several: [(&'static str, &[u64]); 2] =
            [("amd64", &[40_000, 5_000]), ("arm64", &[50_000, 6_000])];
        Ok(vec![
            images::create(directory, "library/several-platforms", &several)?,
            images::create(
                directory,
                "example/plain",
                &[(images::native_architecture(), &[3_000])],
            )?,
        ])
    })?;
    let outside = Dockerd::start(site.directory("outside")?, Some(&site.access()))?;
    for image in &images {
        outside.pull(image)?;
    }
    let home = site.directory("archives")?;
    let archive = |name: &str| home.join(name).display().to_string();
    let (both, one) = (archive("both.tar"), archive("one.tar"));
    let [several, plain] =
        [0, 1].map(|at| images.get(at).map(images::Image::name).unwrap_or_default());
    site.proxy.run(&["export", "-o", &both, &several, &plain])?;
    site.proxy.run(&["export", "-o", &one, &several])?;
    drop(outside);

    skopeo_reads(&home, &one, &both, images.first().context("an image")?)?;
    podman_loads(&home, &one, images.first().context("an image")?)?;

    let inside = Proxy::offline(&home.join("inside"))?;
    // What others write is taken in as well: skopeo's has a name only for whoever gives it one.
    let named = inside.run(&["import", &archive("skopeo.tar"), "--name", "example/skopeo:1"])?;
    ensure!(named.contains("imported docker.io/example/skopeo:1"), "{named}");
    let named = inside.run(&["import", &archive("podman.tar")])?;
    ensure!(named.contains(&format!("imported {several}")), "{named}");
    inside.run(&["import", &both])?;
    let engine = Dockerd::start(site.directory("inside")?, Some(&inside.access()))?;
    for image in &images {
        let known = engine.pull(image)?;
        ensure!(
            known.contains(&image.digest),
            "{} should have {}: {known:?}",
            image.name(),
            image.digest
        );
        let config = &image.native()?.config;
        ensure!(known.contains(config), "{} should have {config}: {known:?}", image.name());
    }
    Ok(())
}

fn skopeo_reads(home: &Path, one: &str, both: &str, image: &images::Image) -> Result<()> {
    let skopeo = |arguments: &[&str]| run(command("skopeo", home)?.args(arguments));
    let inspected: Value =
        serde_json::from_str(&skopeo(&["inspect", &format!("oci-archive:{one}")])?)?;
    let architecture = inspected.get("Architecture").and_then(Value::as_str);
    ensure!(architecture == Some(images::native_architecture()), "{inspected}");
    let named = format!("oci-archive:{both}:{}", image.name());
    let raw = skopeo(&["inspect", "--raw", &named])?;
    let index: Value = serde_json::from_str(&raw)?;
    let listed = index.get("manifests").and_then(Value::as_array).map(Vec::len);
    ensure!(listed == Some(2), "the index is as it was: {index}");
    let copy = format!("oci-archive:{}:1", home.join("skopeo.tar").display());
    skopeo(&["copy", "--quiet", &named, &copy]).map(drop)
}

fn podman_loads(home: &Path, archive: &str, image: &images::Image) -> Result<()> {
    let podman = Podman { home: home.join("podman"), way: Way::Told };
    std::fs::create_dir(&podman.home)?;
    let podman = |arguments: &[&str]| -> Result<String> {
        let mut podman: Command = podman.podman()?;
        run(podman.args(arguments))
    };
    podman(&["pull", "--quiet", &format!("oci-archive:{archive}")])?;
    let known = podman(&["image", "inspect", "--format", "sha256:{{.Id}}", &image.name()])?;
    ensure!(known.trim() == image.native()?.config, "{known}");
    podman(&["image", "rm", "--all", "--force"])?;
    podman(&["load", "--quiet", "--input", archive])?;
    let copy = home.join("podman.tar").display().to_string();
    let save = ["save", "--quiet", "--format", "oci-archive", "--output", &copy, &image.name()];
    podman(&save).map(drop)
}
