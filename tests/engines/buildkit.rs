//! `BuildKit`, as dockerd has it built in: it resolves and fetches what a build begins with itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::dockerd::Dockerd;
use crate::engine::Pulls;
use crate::images::{self, Image, Variant};
use crate::process::run;
use crate::site::Site;

/// Docker's newer command line has it in a plugin that need not be installed; Debian's has it
/// itself.
const DOCKER: &str = "/usr/bin/docker";

#[test]
fn a_build_begins_from_the_cache() -> Result<()> {
    let (site, images) = Site::start(images::create_all)?;
    let dockerd = Dockerd::start(site.directory("dockerd")?, Some(&site.access()))?;
    let sources = site.directory("sources")?;
    build_all(&dockerd, &sources, &images).context("the first time")?;
    dockerd.run(["builder", "prune", "--all", "--force"])?;
    let second = site.proxy.mark();
    build_all(&dockerd, &sources, &images).context("the second time")?;
    let mut blobs = BTreeSet::new();
    for image in &images {
        blobs.extend(image.native()?.blobs().cloned());
    }
    drop(dockerd);
    Pulls::new(blobs, second).check(site)
}

fn build_all(dockerd: &Dockerd, sources: &Path, images: &[Image]) -> Result<()> {
    for image in images {
        let name = image.name();
        fs::write(sources.join("Dockerfile"), format!("FROM {name}\nCOPY Dockerfile /added\n"))?;
        let mut docker = dockerd.docker_at(DOCKER)?;
        docker.env("DOCKER_BUILDKIT", "1").args(["build", "--quiet", "--network=none", "--pull"]);
        let built = run(docker.arg(sources))?;
        let layers = dockerd.run([
            "image",
            "inspect",
            "--format",
            "{{len .RootFS.Layers}}",
            built.trim(),
        ])?;
        let native: &Variant = image.native()?;
        let expected = native.layers.len() + 1;
        ensure!(layers.trim() == expected.to_string(), "{name}: {layers}, and not {expected}");
        dockerd.run(["image", "rm", "--force", built.trim()])?;
    }
    Ok(())
}
