//! Several sites: a parent, which has the way to the registry, and edges that go through it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::containerd::Containerd;
use crate::dockerd::Dockerd;
use crate::engine::Engine;
use crate::images::{self, Variant};
use crate::site::{Proxy, Site};
use crate::way::Way;

/// At once on both edges, and with the parent gone once more.
#[test]
fn the_engines_of_two_edges_cost_the_registry_one_pull() -> Result<()> {
    let (site, images) = Site::start(|directory| {
        let several: [(&'static str, &[u64]); 2] =
            [("amd64", &[4_000_000, 5_000]), ("arm64", &[5_000_000, 6_000])];
        Ok(vec![images::create(directory, "library/several-platforms", &several)?])
    })?;
    let image = images.first().context("an image")?;
    let edge = |name| Proxy::through(&site.directory_of(name), &site.access());
    let (first, second) = (edge("first-edge")?, edge("second-edge")?);
    let docker = Dockerd::start(site.directory("dockerd")?, Some(&first.access()))?;
    let other = Dockerd::start(site.directory("other-dockerd")?, Some(&second.access()))?;
    let pulls = std::thread::scope(|scope| {
        let pulls = [docker, other].map(|engine| scope.spawn(move || engine.pull(image)));
        pulls.map(|pull| pull.join().ok().context("a pull that ends").flatten())
    });
    for known in pulls {
        ensure!(known?.contains(&image.native()?.config));
    }

    let mut fetched = BTreeMap::new();
    let Site { proxy, registry, .. } = site;
    proxy.stop()?;
    for digest in registry.stop()? {
        *fetched.entry(digest).or_insert(0) += 1;
    }
    let once: BTreeMap<_, _> =
        Variant::blobs(image.native()?).cloned().map(|digest| (digest, 1)).collect();
    ensure!(fetched == once, "the registry was asked for {fetched:#?}, and not once: {once:#?}");

    // Neither parent nor registry.
    let home = tempfile::tempdir()?;
    let containerd = Containerd::start(home.path().to_owned(), Way::Proxy(second.access()))?;
    ensure!(containerd.pull(image)?.contains(&image.native()?.config));
    Ok(())
}
