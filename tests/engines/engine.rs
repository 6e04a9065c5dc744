//! What is asked of every engine: that it pulls through the proxy, and that what it pulls again
//! costs the registry nothing.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use crate::images::{self, Image, Variant};
use crate::site::{Site, is_hit};

/// An instance of a container engine, with storage of its own, that is a client of the proxy.
pub(crate) trait Engine {
    /// Pulls an image, and returns every digest under which the engine now knows it or a part of
    /// it: at least the one that its tag led to, and that of its configuration.
    fn pull(&self, image: &Image) -> Result<Vec<String>>;

    /// Pulls an image with a name and a password, or without.
    fn pull_as(&self, name: &str, login: Option<&Login>) -> Result<()>;

    /// Forgets all images, to the last byte.
    fn forget_everything(&self) -> Result<()>;

    /// The variants of an image that it pulls.
    fn variants<'i>(&self, image: &'i Image) -> Result<Vec<&'i Variant>> {
        Ok(vec![image.native()?])
    }
}

/// A name and a password for Docker Hub.
pub(crate) struct Login {
    pub(crate) name: String,
    pub(crate) password: String,
}

impl Login {
    /// As most engines take it on their command line.
    pub(crate) fn pair(&self) -> String {
        format!("{}:{}", self.name, self.password)
    }
}

/// Pulls every image twice, the second time into an engine that has forgotten the first. The second
/// time all blobs are hits, and over the whole time the registry was asked once for each.
pub(crate) fn second_pulls_come_from_the_cache<E: Engine>(
    start: impl FnOnce(&Site) -> Result<E>,
) -> Result<()> {
    let (site, images) = Site::start(images::create_all)?;
    let engine = start(&site)?;
    let pulls = pull_twice(&engine, &site, &images)?;
    drop(engine);
    pulls.check(site)
}

/// Two pulls of some images, whose costs are to be checked.
#[must_use]
pub(crate) struct Pulls {
    /// Each blob that was needed.
    blobs: BTreeSet<String>,
    /// Where the second pull begins in the proxy's log.
    second: usize,
}

/// Pulls every image twice, the second time into an engine that has forgotten the first.
pub(crate) fn pull_twice(engine: &impl Engine, site: &Site, images: &[Image]) -> Result<Pulls> {
    pull_all(engine, images).context("the first time")?;
    engine.forget_everything()?;
    let second = site.proxy.mark();
    pull_all(engine, images).context("the second time")?;
    let mut blobs = BTreeSet::new();
    for image in images {
        blobs.extend(engine.variants(image)?.into_iter().flat_map(Variant::blobs).cloned());
    }
    Ok(Pulls::new(blobs, second))
}

impl Pulls {
    /// Those that needed these blobs; the second one begins at this place of the proxy's log.
    pub(crate) fn new(blobs: BTreeSet<String>, second: usize) -> Self {
        Self { blobs, second }
    }

    /// The second time all blobs were hits, and over the whole time the registry was asked once for
    /// each.
    pub(crate) fn check(self, site: Site) -> Result<()> {
        // A program that has ended has a complete log.
        let log = site.proxy.stop()?;
        let second_time = log.get(self.second..).unwrap_or_default();
        for digest in &self.blobs {
            ensure!(
                second_time.iter().any(|line| is_hit(line, digest)),
                "blob {digest} was no hit the second time:\n{}",
                log.join("\n")
            );
        }
        let mut fetched = BTreeMap::new();
        for digest in site.registry.stop()? {
            *fetched.entry(digest).or_insert(0) += 1;
        }
        let once: BTreeMap<_, _> = self.blobs.into_iter().map(|digest| (digest, 1)).collect();
        ensure!(
            fetched == once,
            "the registry was asked for blobs that often: {fetched:#?}, and not once each: {once:#?}"
        );
        Ok(())
    }
}

fn pull_all(engine: &impl Engine, images: &[Image]) -> Result<()> {
    for image in images {
        let pulling = || format!("pulling {}", image.name());
        let known = engine.pull(image).with_context(pulling)?;
        let mut wanted = vec![&image.digest];
        for variant in engine.variants(image)? {
            wanted.push(&variant.config);
        }
        for digest in wanted {
            ensure!(
                known.contains(digest),
                "{} should have {digest}, it has {known:?}",
                image.name()
            );
        }
    }
    Ok(())
}
