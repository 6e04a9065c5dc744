//! What is kept: blobs, manifests, parts, new connections.

use anyhow::{Context as _, ensure};
use aws_lc_rs::digest::{Context, SHA256};

use super::{Bench, Measure, Places};
use crate::arguments::Block;
use crate::image::{by_tag, name};
use crate::load::{self, Connection, Connections, Job, Limit, Pattern, Request};
use crate::peers::{Kind, Peer};

/// How often everything is asked for until nothing of it costs the registry a GET.
const PASSES: usize = 6;
/// Ranges that are asked for.
const PARTS: [(&str, u64); 2] = [("1 MiB", 1 << 20), ("64 KiB", 64 << 10)];

/// One line of a block.
struct Case {
    variant: String,
    pattern: Pattern,
    connections: Connections,
    measures: &'static [Measure],
}

const BULK: &[Measure] = {
    use Measure::{CpuPerGigabyte, FirstByte, Gets, Gigabytes, Peak};
    &[Gigabytes, CpuPerGigabyte, FirstByte, Peak, Gets]
};
const BLOBS: &[Measure] = {
    use Measure::{CpuPerGigabyte, Gets, Median, Requests, Slow};
    &[Requests, CpuPerGigabyte, Median, Slow, Gets]
};
const SMALL: &[Measure] = {
    use Measure::{CpuPerRequest, Gets, Median, Requests, Slow};
    &[Requests, CpuPerRequest, Median, Slow, Gets]
};

impl Bench {
    /// Has every peer keep the whole image, if it can keep anything.
    pub(super) fn warm_all(&self) {
        for peer in &self.peers {
            eprintln!("warming {}", peer.kind.name());
            if let Err(error) = self.warm(peer) {
                // What follows fails as well, and is told with the figures.
                eprintln!("{} is not warm: {error:#}", peer.kind.name());
            }
        }
    }

    /// Asks for everything, and verifies it, until the registry hears no more of it.
    pub(super) fn warm(&self, peer: &Peer) -> anyhow::Result<()> {
        for _ in 0..PASSES {
            let before = self.registry.gets("")?;
            load::on_cpu(None, self.read_all(peer))?;
            if self.registry.gets("")? == before {
                return Ok(());
            }
        }
        ensure!(!peer.kind.caches(), "the registry is still asked for what should be kept");
        Ok(())
    }

    async fn read_all(&self, peer: &Peer) -> anyhow::Result<()> {
        for (request, digest) in self.everything() {
            let mut connection = Connection::open(&peer.target).await?;
            let mut hash = Context::new(&SHA256);
            connection
                .ask(&request, |piece| hash.update(piece))
                .await
                .with_context(|| request.path.clone())?;
            ensure!(name(hash.finish().as_ref()) == digest, "wrong bytes: {}", request.path);
        }
        Ok(())
    }

    /// The requests for all of the image, with what the answers are.
    fn everything(&self) -> Vec<(Request, &str)> {
        let image = &self.image;
        let blobs = image.large.iter().chain(&image.small);
        let blobs = blobs.map(|blob| (Request::blob(blob), &*blob.digest));
        let manifest = &image.manifest;
        let by_digest = (Request::whole(manifest.manifest(), manifest), &*manifest.digest);
        let tag = (Request::whole(by_tag(), manifest), &*manifest.digest);
        blobs.chain([by_digest, tag]).collect()
    }

    /// Measures one of the blocks of what is kept.
    pub(super) fn warm_block(&mut self, block: Block) -> anyhow::Result<()> {
        let (name, cases) = self.cases(block);
        for rep in 1..=self.options.reps {
            for case in &cases {
                for at in 0..self.peers.len() {
                    let Some(peer) = self.peers.get(at) else { continue };
                    let kind = peer.kind;
                    if kind_lacks(kind, &case.pattern) {
                        continue;
                    }
                    let run = self.measure(peer, self.job(case), Places::Apart);
                    let outcome = run.map(|run| run.figures(case.measures));
                    self.note((name, &case.variant), kind, rep, outcome)?;
                }
            }
        }
        Ok(())
    }

    fn job(&self, case: &Case) -> Job {
        let limit = Limit::For(self.options.seconds);
        Job { pattern: case.pattern.clone(), limit, connections: case.connections }
    }

    fn cases(&self, block: Block) -> (&'static str, Vec<Case>) {
        match block {
            Block::Hit => ("hit", self.hits()),
            Block::Small => ("small", self.small()),
            Block::Manifest => ("manifest", self.manifests()),
            Block::Handshake => ("handshake", self.handshakes()),
            Block::Range => ("range", self.ranges()),
            Block::Connections => ("connections", self.many()),
            Block::Cold | Block::Idle | Block::Objects | Block::Bucket => ("", Vec::new()),
        }
    }

    fn hits(&self) -> Vec<Case> {
        let blobs: Vec<_> = self.image.large.iter().map(Request::blob).collect();
        let case = |clients| Case {
            variant: format!("c={clients}"),
            pattern: Pattern::Cycle(blobs.clone()),
            connections: Connections::Held(clients),
            measures: BULK,
        };
        [1, 4, 16].map(case).into()
    }

    pub(super) fn small_blobs(&self) -> Pattern {
        Pattern::Cycle(self.image.small.iter().map(Request::blob).collect())
    }

    fn small(&self) -> Vec<Case> {
        vec![Case {
            variant: "c=8".to_owned(),
            pattern: self.small_blobs(),
            connections: Connections::Held(8),
            measures: BLOBS,
        }]
    }

    pub(super) fn manifest(&self) -> Pattern {
        let manifest = &self.image.manifest;
        Pattern::Cycle(vec![Request::whole(manifest.manifest(), manifest)])
    }

    fn manifests(&self) -> Vec<Case> {
        let tag = Pattern::Cycle(vec![Request::whole(by_tag(), &self.image.manifest)]);
        let case = |(what, pattern)| Case {
            variant: format!("by {what}, c=16"),
            pattern,
            connections: Connections::Held(16),
            measures: SMALL,
        };
        [("digest", self.manifest()), ("tag", tag)].map(case).into()
    }

    fn handshakes(&self) -> Vec<Case> {
        vec![Case {
            variant: "c=16".to_owned(),
            pattern: self.manifest(),
            connections: Connections::Fresh(16),
            measures: SMALL,
        }]
    }

    fn ranges(&self) -> Vec<Case> {
        let Some(object) = self.image.large.first() else { return Vec::new() };
        let case = |(what, bytes)| Case {
            variant: format!("{what}, c=8"),
            pattern: Pattern::Parts { object: object.clone(), bytes },
            connections: Connections::Held(8),
            measures: SMALL,
        };
        PARTS.map(case).into()
    }

    fn many(&self) -> Vec<Case> {
        let case = |clients: &usize| Case {
            variant: format!("n={clients}"),
            pattern: self.manifest(),
            connections: Connections::Held(*clients),
            measures: SMALL,
        };
        self.options.connections.iter().map(case).collect()
    }
}

fn kind_lacks(kind: Kind, pattern: &Pattern) -> bool {
    matches!(pattern, Pattern::Parts { .. }) && !kind.serves_ranges()
}
