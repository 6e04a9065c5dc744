//! What a large store costs: how long it takes to start with it, how much memory, and whether hits
//! become dearer. The store is planted as docs/disk-format.md says.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{Bench, Measure, Places};
use crate::image::{Object, digest_of, manifest};
use crate::load::{Connections, Job, Limit, Pattern};
use crate::peers::{Instance, Kind, Peer, admin_page};
use crate::procs::Tree;
use crate::size::float;

/// Layers of a planted image.
const LAYERS: usize = 9;
/// How long a store may take to complete its index.
const COMPLETE: Duration = Duration::from_mins(15);
/// Between two looks at that.
const BETWEEN: Duration = Duration::from_millis(10);
/// For how long it must do nothing to count as quiet, and what is nothing.
const QUIET: Duration = Duration::from_millis(500);
const NOTHING_SECS: f64 = 0.015;

impl Bench {
    /// Measures the block.
    pub(super) fn objects(&mut self) -> anyhow::Result<()> {
        if !self.options.targets.contains(&Kind::Entrepot) {
            return Ok(());
        }
        for count in self.options.objects.clone() {
            eprintln!("planting {count} objects");
            let instance = Instance::new(&self.around, &format!("objects-{count}"))?;
            // It makes its own directory; what is planted there is found at the next start.
            drop(instance.start(&self.around)?);
            plant(&instance.store(), count)?;
            for rep in 1..=self.options.reps {
                let outcome = self.store_run(&instance, count);
                self.note(("objects", &format!("n={count}")), Kind::Entrepot, rep, outcome)?;
            }
            fs::remove_dir_all(instance.store())?;
        }
        Ok(())
    }

    fn store_run(
        &self,
        instance: &Instance,
        count: u64,
    ) -> anyhow::Result<(Vec<(&'static str, f64)>, bool)> {
        fs::remove_dir_all(instance.store().join("index"))?;
        let (first, peer) = self.started(instance, count)?;
        let tree = peer.tree().context("it does not run")?;
        let (quiet, used) = settled(tree, first.begun)?;
        self.warm(&peer)?;
        settled(tree, first.begun)?;
        let resident = tree.resident_kb();
        let manifests = self.store_hits(&peer, self.manifest(), 16)?;
        let blobs = self.store_hits(&peer, self.small_blobs(), 8)?;
        drop(peer);
        let (again, peer) = self.started(instance, count)?;
        drop(peer);
        let mut figures = vec![
            ("ready without an index, ms", first.ready),
            ("index rebuilt, s", first.complete),
            ("quiet after that, s", quiet),
            ("server CPU s until then", used),
            ("ready with an index, ms", again.ready),
            ("index read, s", again.complete),
            ("manifest, server CPU µs", manifests.0),
            ("small blob, server CPU µs", blobs.0),
        ];
        figures.extend(resident.map(|kb| ("resident MB", float(kb) / 1e3)));
        Ok((figures, manifests.1 || blobs.1))
    }

    /// Microseconds of the server's CPU for a hit, and whether the run was disturbed.
    fn store_hits(
        &self,
        peer: &Peer,
        pattern: Pattern,
        clients: usize,
    ) -> anyhow::Result<(f64, bool)> {
        let limit = Limit::For(self.options.seconds);
        let job = Job { pattern, limit, connections: Connections::Held(clients) };
        let run = self.measure(peer, job, Places::Apart)?;
        let micros = Measure::CpuPerRequest.of(&run).context("no figure")?;
        Ok((micros, run.cost.is_disturbed(run.tally.elapsed)))
    }

    fn started(&self, instance: &Instance, count: u64) -> anyhow::Result<(Start, Peer)> {
        let begun = Instant::now();
        let peer = instance.start(&self.around)?;
        let ready = begun.elapsed().as_secs_f64() * 1e3;
        loop {
            let metrics = admin_page(instance.admin, "/metrics")?;
            if metrics.contains("entrepot_index_state{state=\"ready\"} 1") {
                let kept = objects(&metrics).context("entrepot_store_objects is missing")?;
                ensure!(kept >= float(count), "{kept} objects of {count} were found");
                let complete = begun.elapsed().as_secs_f64();
                return Ok((Start { begun, ready, complete }, peer));
            }
            ensure!(begun.elapsed() < COMPLETE, "the index is not complete");
            std::thread::sleep(BETWEEN);
        }
    }
}

/// How long a start took: milliseconds until it took connections, seconds until all was known.
struct Start {
    begun: Instant,
    ready: f64,
    complete: f64,
}

/// Waits until it does nothing of its own accord, as it does when it reads what its objects need:
/// seconds since `begun`, and of CPU that it has used. Hits are cheap beside that.
fn settled(tree: Tree, begun: Instant) -> anyhow::Result<(f64, f64)> {
    loop {
        let (since, used) = (begun.elapsed(), tree.cpu_secs());
        std::thread::sleep(QUIET);
        if tree.cpu_secs() - used < NOTHING_SECS {
            return Ok((since.as_secs_f64(), used));
        }
        ensure!(since < COMPLETE, "it is never quiet");
    }
}

fn objects(metrics: &str) -> Option<f64> {
    let value = metrics.lines().find_map(|line| line.strip_prefix("entrepot_store_objects "))?;
    value.parse().ok()
}

/// Writes images of small layers under their final names, `count` objects in all.
fn plant(store: &Path, count: u64) -> anyhow::Result<()> {
    let mut layers = Vec::new();
    for number in 0..count {
        let content = if layers.len() > LAYERS {
            let config = layers.remove(0);
            let text = manifest(&config, layers.iter());
            layers.clear();
            text
        } else {
            format!("object {number} of many")
        };
        let object = write(store, content.as_bytes())?;
        if !content.starts_with('{') {
            layers.push(object);
        }
    }
    Ok(())
}

fn write(store: &Path, content: &[u8]) -> anyhow::Result<Object> {
    let digest = digest_of(content);
    let hex = digest.trim_start_matches("sha256:");
    let shard = store.join("blobs/sha256").join(hex.get(..2).unwrap_or_default());
    let file = shard.join(hex);
    if fs::write(&file, content).is_err() {
        fs::create_dir_all(&shard)?;
        fs::write(&file, content)?;
    }
    Ok(Object { size: content.len() as u64, digest })
}

#[cfg(test)]
mod tests {
    use super::plant;

    #[test]
    fn planted_objects_have_the_names_of_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        plant(dir.path(), 25).unwrap();
        let mut seen = (0, 0);
        for shard in std::fs::read_dir(dir.path().join("blobs/sha256")).unwrap() {
            for file in std::fs::read_dir(shard.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                let bytes = std::fs::read(&path).unwrap();
                let name = format!("sha256:{}", path.file_name().unwrap().to_str().unwrap());
                assert_eq!(crate::image::digest_of(&bytes), name);
                seen = (seen.0 + 1, seen.1 + usize::from(bytes.starts_with(b"{")));
            }
        }
        assert_eq!(seen, (25, 2));
    }
}
