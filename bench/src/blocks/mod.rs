//! What is measured. Targets take turns within each repetition, so that what else happens to the
//! machine happens to all of them.
//!
//! `warm` has the blocks of what is kept, `cold` that of what nobody has, `idle` that of
//! connections, `objects` that of the store's size, `bucket` that of replicas behind a bucket.

mod bucket;
mod cold;
mod idle;
mod objects;
mod warm;

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{bail, ensure};

use crate::arguments::{Block, Options};
use crate::image::Image;
use crate::load::{self, Job, Tally};
use crate::meter::{Cost, Meter};
use crate::peers::{Kind, Peer, Registry, Surroundings};
use crate::procs;
use crate::report::{Outcome, Run};
use crate::size::float;

/// Everything that a measurement needs.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) around: Surroundings,
    pub(crate) image: Image,
    pub(crate) registry: Registry,
    pub(crate) peers: Vec<Peer>,
    /// Set when somebody wants it to end.
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) json: Option<File>,
    /// What was to be measured and could not be started.
    pub(crate) absent: Vec<String>,
    /// What has been measured.
    pub(crate) runs: Vec<Run>,
}

/// Where server and client run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Places {
    /// On a CPU each, if there are two.
    Apart,
    /// Anywhere.
    Anywhere,
}

/// A run's raw figures.
#[derive(Debug)]
struct Measured {
    tally: Tally,
    cost: Cost,
    /// What the registry was asked for meanwhile.
    gets: u64,
}

impl Bench {
    /// Measures all that was asked for.
    pub(crate) fn run(&mut self) -> anyhow::Result<()> {
        let blocks = self.options.blocks.clone();
        if blocks.iter().any(|block| !matches!(block, Block::Bucket | Block::Cold | Block::Objects))
        {
            self.warm_all();
        }
        for block in blocks {
            match block {
                Block::Cold => self.cold()?,
                Block::Idle => self.idle()?,
                Block::Objects => self.objects()?,
                Block::Bucket => self.bucket()?,
                Block::Hit
                | Block::Small
                | Block::Manifest
                | Block::Handshake
                | Block::Range
                | Block::Connections => self.warm_block(block)?,
            }
        }
        Ok(())
    }

    /// Does a job on a peer and measures it.
    fn measure(&self, peer: &Peer, job: Job, places: Places) -> anyhow::Result<Measured> {
        let Some(tree) = peer.tree() else { bail!("it does not run") };
        let (server, client) = self.cpus(places);
        tree.pin(&server)?;
        let asked = self.registry.gets("")?;
        let mut meter = None;
        let begin = || meter = Some(Meter::start(tree));
        let work = async { Ok(load::run(&peer.target, job, begin).await) };
        let tally = load::on_cpu(client, work)?;
        let Some(meter) = meter else { bail!("the job was not begun") };
        let cost = meter.finish();
        let gets = self.registry.gets("")? - asked;
        let errors = tally.errors.len();
        if let Some(first) = tally.errors.first() {
            bail!("{errors} errors in {} requests: {first}", tally.requests + errors as u64);
        }
        ensure!(tally.requests > 0, "not one request");
        Ok(Measured { tally, cost, gets })
    }

    /// The server's CPUs and the client's.
    fn cpus(&self, places: Places) -> (Vec<usize>, Option<usize>) {
        let all = procs::cpus();
        match all.as_slice() {
            [first, second, ..] if places == Places::Apart && !self.options.unpinned => {
                (vec![*first], Some(*second))
            }
            _ => (all, None),
        }
    }

    /// Writes down what came of a run, and ends everything if that is wanted.
    fn note(
        &mut self,
        (block, variant): (&'static str, &str),
        kind: Kind,
        rep: u32,
        outcome: anyhow::Result<(Vec<(&'static str, f64)>, bool)>,
    ) -> anyhow::Result<()> {
        ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
        let (outcome, disturbed) = match outcome {
            Ok((figures, disturbed)) => (Outcome::Measured(figures), disturbed),
            Err(error) => (Outcome::Failed(format!("{error:#}")), false),
        };
        let variant = variant.to_owned();
        let run = Run { block, variant, target: kind.name(), rep, outcome, disturbed };
        let line = run.json();
        eprintln!("{line}");
        if let Some(file) = &mut self.json {
            writeln!(file, "{line}")?;
        }
        self.runs.push(run);
        Ok(())
    }
}

/// A figure of a run.
#[derive(Debug, Clone, Copy)]
enum Measure {
    Gigabytes,
    Requests,
    CpuPerGigabyte,
    CpuPerRequest,
    FirstByte,
    Median,
    Slow,
    Peak,
    /// Only where there were some: a hit that asks the registry is none.
    Gets,
}

impl Measure {
    fn name(self) -> &'static str {
        match self {
            Self::Gigabytes => "GB/s",
            Self::Requests => "requests/s",
            Self::CpuPerGigabyte => "server CPU s/GB",
            Self::CpuPerRequest => "server CPU µs/request",
            Self::FirstByte => "first byte p50 ms",
            Self::Median => "p50 ms",
            Self::Slow => "p99 ms",
            Self::Peak => "peak RSS MB",
            Self::Gets => "registry GETs",
        }
    }

    fn of(self, run: &Measured) -> Option<f64> {
        let Measured { tally, cost, gets } = run;
        let (seconds, gigabytes) = (tally.elapsed.as_secs_f64(), float(tally.bytes) / 1e9);
        match self {
            Self::Gigabytes => Some(gigabytes / seconds),
            Self::Requests => Some(float(tally.requests) / seconds),
            Self::CpuPerGigabyte => Some(cost.cpu_secs / gigabytes),
            Self::CpuPerRequest => Some(cost.cpu_secs * 1e6 / float(tally.requests)),
            Self::FirstByte => tally.first_bytes.per_mille(500),
            Self::Median => tally.latencies.per_mille(500),
            Self::Slow => tally.latencies.per_mille(990),
            Self::Peak => Some(float(cost.peak_kb?) / 1e3),
            Self::Gets => (*gets > 0).then_some(float(*gets)),
        }
    }
}

impl Measured {
    /// These figures of it, and whether the run was disturbed.
    fn figures(&self, measures: &[Measure]) -> (Vec<(&'static str, f64)>, bool) {
        let figure = |measure: &Measure| Some((measure.name(), measure.of(self)?));
        let figures = measures.iter().filter_map(figure).collect();
        (figures, self.cost.is_disturbed(self.tally.elapsed))
    }
}
