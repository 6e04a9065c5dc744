//! Replicas behind one bucket: what an engine has pulled through one of them, engines pull through
//! the others when the registry is gone.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use entrepot_testkit::Bucket;

use crate::containerd::Containerd;
use crate::dockerd::Dockerd;
use crate::engine::Engine;
use crate::images;
use crate::site::{Proxy, Registry, connect_to};
use crate::way::Way;

/// What the replicas of a fleet have in common.
fn replica(home: &Path, name: &str, registry: &Registry, bucket: &Bucket) -> Result<Proxy> {
    let settings = format!(
        "ca-dir = \"{}\"\n[upstream]\nconnect-to = [\"{}\"]\nca-files = [\"{}\"]\n{}",
        home.join("ca").display(),
        connect_to(registry),
        registry.authority.display(),
        bucket.settings(&home.join("secret"))
    );
    Proxy::configured(&home.join(name), &settings)
}

#[test]
fn engines_pull_from_every_replica_what_one_has_pulled_when_the_registry_is_gone() -> Result<()> {
    let bucket = Bucket::new();
    let home = tempfile::tempdir()?;
    let directory = |name: &str| -> Result<_> {
        let path = home.path().join(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    };
    let registry = Registry::start(home.path().join("registry"))?;
    let several: [(&'static str, &[u64]); 2] =
        [("amd64", &[20_000_000, 40_000]), ("arm64", &[50_000, 6_000])];
    let image =
        images::create(&home.path().join("layouts"), "library/several-platforms", &several)?;
    registry.store(&image)?;
    let start = |name| replica(home.path(), name, &registry, &bucket);
    let (first, second, third) = (start("first")?, start("second")?, start("third")?);

    let pulling = Dockerd::start(directory("dockerd")?, Some(&first.access()))?;
    pulling.pull(&image)?;
    drop(pulling);
    let native = image.native()?;
    for digest in native.blobs().chain([&native.manifest, &image.digest]) {
        bucket.wait_until_shared(image.repository, digest);
    }
    bucket.wait_for_record(&format!("/{}/_tags/{}", image.repository, image.tag));
    bucket.wait_for_record("/_challenge");
    bucket.wait_for_record(&format!("/{}/_access", image.repository));
    registry.stop()?;
    first.stop()?;

    let config = &native.config;
    let docker = Dockerd::start(directory("dockerd-of-the-second")?, Some(&second.access()))?;
    let known = docker.pull(&image).context("dockerd")?;
    ensure!(known.contains(config), "{known:?}");
    let way = Way::Proxy(third.access());
    let containerd = Containerd::start(directory("containerd-of-the-third")?, way)?;
    let known = containerd.pull(&image).context("containerd")?;
    ensure!(known.contains(config), "{known:?}");
    let log = second.stop()?;
    ensure!(log.iter().any(|line| line.contains("BUCKET")), "{}", log.join("\n"));
    Ok(())
}
