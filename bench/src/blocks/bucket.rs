//! Replicas behind a bucket: what the bucket costs a hit, what it gives to a replica that has
//! nothing, what a dead one costs, and what many clients of many replicas cost the registry.
//!
//! The bucket is Ceph's radosgw with an OSD in memory, on this machine: it shares the CPUs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use entrepot_testkit::bucket::what_is_missing;
use entrepot_testkit::{Bucket, Forwarder, On, Trouble};
use tokio::task::JoinSet;

use super::{Bench, Measure, Places};
use crate::image::{Object, REPOSITORY};
use crate::load::{self, Connections, Job, Limit, Pattern, Request, Tally};
use crate::meter::Meter;
use crate::peers::{Instance, Kind, Peer, admin_page};
use crate::size::float;

/// What an answer of the bucket may take to begin: `bucket.timeout`.
const TIMEOUT: &str = "3s";
/// Layers that go up at a time.
const LAYERS: u64 = 4;
/// Requests while the bucket is silent.
const MISSES: usize = 8;
/// Between two looks at a metric.
const BETWEEN: Duration = Duration::from_millis(50);
/// How long uploads may take.
const UPLOADS: Duration = Duration::from_mins(5);

type Figures = (Vec<(&'static str, f64)>, bool);

/// Whether a replica has the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    Nothing,
    Bucket,
}

impl Behind {
    const BOTH: [Self; 2] = [Self::Nothing, Self::Bucket];

    fn words(self) -> &'static str {
        match self {
            Self::Nothing => "without",
            Self::Bucket => "with",
        }
    }
}

impl Bench {
    /// Measures the block.
    pub(super) fn bucket(&mut self) -> anyhow::Result<()> {
        if !self.options.targets.contains(&Kind::Entrepot) {
            return Ok(());
        }
        if let Some(hint) = what_is_missing() {
            eprintln!("bucket: {hint}");
            self.absent.push(format!("the block bucket is left out: {hint}"));
            return Ok(());
        }
        eprintln!("starting the bucket");
        let bucket = Bucket::new();
        for rep in 1..=self.options.reps {
            for behind in Behind::BOTH {
                let outcome = self.kept(&bucket, behind, rep);
                self.note_of(&format!("hit from disk, {} it", behind.words()), rep, outcome)?;
            }
            let outcome = self.hits_of_the_bucket(&bucket, rep);
            self.note_of("from it, c=1", rep, outcome)?;
            let outcome = self.silent(&bucket, rep);
            self.note_of("silent", rep, outcome)?;
            for behind in Behind::BOTH {
                let outcome = self.cold_layers(&bucket, behind, rep);
                self.note_of(&format!("cold c={LAYERS}, {} it", behind.words()), rep, outcome)?;
            }
            self.registry.limit(self.options.cold_rate.0)?;
            for is_killed in [false, true] {
                let outcome = self.crowd(is_killed, rep);
                let (replicas, clients) = (self.options.replicas, self.options.crowd);
                let more = if is_killed { ", one killed" } else { "" };
                self.note_of(&format!("crowd {replicas}x{clients}{more}"), rep, outcome)?;
            }
            self.registry.limit(0)?;
            bucket.empty();
        }
        Ok(())
    }

    fn note_of(
        &mut self,
        variant: &str,
        rep: u32,
        outcome: anyhow::Result<Figures>,
    ) -> anyhow::Result<()> {
        self.note(("bucket", variant), Kind::Entrepot, rep, outcome)
    }

    fn replica(&self, name: &str, bucket: &Bucket, behind: Behind) -> anyhow::Result<Instance> {
        let instance = Instance::replica(&self.around, &format!("bucket-{name}"))?;
        Ok(match behind {
            Behind::Nothing => instance,
            Behind::Bucket => instance.with(&self.settings(bucket)),
        })
    }

    fn settings(&self, bucket: &Bucket) -> String {
        let settings = bucket.settings(&self.around.dir.join("secret-of-the-bucket"));
        format!("{settings}timeout = {TIMEOUT:?}\n")
    }

    /// Hits from disk: the bucket should not be noticed.
    fn kept(&self, bucket: &Bucket, behind: Behind, rep: u32) -> anyhow::Result<Figures> {
        let name = format!("kept-{}-{rep}", behind.words());
        let instance = self.replica(&name, bucket, behind)?;
        let peer = instance.start(&self.around)?;
        self.warm(&peer)?;
        if behind == Behind::Bucket {
            uploaded(&instance)?;
        }
        let asked = asked(&instance)?;
        let pattern = Pattern::Cycle(self.image.large.iter().map(Request::blob).collect());
        let limit = Limit::For(self.options.seconds);
        let job = Job { pattern, limit, connections: Connections::Held(4) };
        let run = self.measure(&peer, job, Places::Apart)?;
        let measures =
            [Measure::Gigabytes, Measure::CpuPerGigabyte, Measure::FirstByte, Measure::Gets];
        let (mut figures, disturbed) = run.figures(&measures);
        figures.push(("bucket requests", self::asked(&instance)? - asked));
        Ok((figures, disturbed))
    }

    /// A layer that another replica has fetched, and the same without anything between.
    fn hits_of_the_bucket(&self, bucket: &Bucket, rep: u32) -> anyhow::Result<Figures> {
        let layer = self.image.unknown_layer(self.options.cold_size.0)?;
        let first = self.replica(&format!("first-{rep}"), bucket, Behind::Bucket)?;
        let filling = first.start(&self.around)?;
        self.measure(&filling, once(&layer), Places::Anywhere)?;
        uploaded(&first)?;
        bucket.wait_until_shared(REPOSITORY, &layer.digest);
        // It has answered before: its connections to the bucket are open.
        let second = self.replica(&format!("second-{rep}"), bucket, Behind::Bucket)?;
        let asking = second.start(&self.around)?;
        let run = self.measure(&asking, once(&layer), Places::Anywhere)?;
        let (bare_first, bare) = bucket.timed(&Bucket::blob(&layer.digest));
        let (mut figures, disturbed) = run.figures(&[Measure::Gigabytes, Measure::FirstByte]);
        let share = bare.as_secs_f64() / run.tally.elapsed.as_secs_f64() * 100.0;
        figures.extend([
            ("registry GETs", float(run.gets)),
            ("bare GET, GB/s", float(layer.size) / 1e9 / bare.as_secs_f64()),
            ("bare GET, first byte ms", bare_first.as_secs_f64() * 1e3),
            ("of a bare GET, %", share),
        ]);
        self.image.forget(&layer)?;
        Ok((figures, disturbed))
    }

    /// Misses while the bucket takes connections and says nothing.
    fn silent(&self, bucket: &Bucket, rep: u32) -> anyhow::Result<Figures> {
        let forwarder = Forwarder::to(bucket.server());
        let by_way = |settings: String| {
            let server = format!("http://{}", bucket.server());
            settings.replace(&server, &format!("http://{}", forwarder.address()))
        };
        let instance = Instance::replica(&self.around, &format!("bucket-silent-{rep}"))?
            .with(&by_way(self.settings(bucket)));
        let peer = instance.start(&self.around)?;
        wait(UPLOADS, || Ok(metric(&instance, "entrepot_bucket_up", "")? >= 1.0))?;
        forwarder.always(On::path("/"), Trouble::Silence);
        let small = self.image.small.iter().cycle().take(MISSES);
        let pattern = Pattern::Cycle(small.map(Request::blob).collect());
        let limit = Limit::Count(MISSES as u64);
        let job = Job { pattern, limit, connections: Connections::Held(1) };
        let run = self.measure(&peer, job, Places::Anywhere)?;
        let slowest = run.tally.latencies.per_mille(1000).context("no answer")?;
        let (mut figures, disturbed) = run.figures(&[Measure::Median]);
        figures.insert(0, ("slowest ms", slowest));
        Ok((figures, disturbed))
    }

    /// Layers that nobody has, at full speed: what uploading behind the answers costs.
    fn cold_layers(&self, bucket: &Bucket, behind: Behind, rep: u32) -> anyhow::Result<Figures> {
        let layers: Vec<_> = (0..LAYERS)
            .map(|_| self.image.unknown_layer(self.options.cold_size.0))
            .collect::<Result<_, _>>()?;
        let instance = self.replica(&format!("cold-{}-{rep}", behind.words()), bucket, behind)?;
        let peer = instance.start(&self.around)?;
        let meter = Meter::start(peer.tree().context("it does not run")?);
        let began = Instant::now();
        let job = Job {
            pattern: Pattern::Cycle(layers.iter().map(Request::blob).collect()),
            limit: Limit::Count(LAYERS),
            connections: Connections::Held(layers.len()),
        };
        let run = self.measure(&peer, job, Places::Anywhere)?;
        if behind == Behind::Bucket {
            for layer in &layers {
                bucket.wait_until_shared(REPOSITORY, &layer.digest);
            }
            uploaded(&instance)?;
        }
        let (cost, elapsed) = (meter.finish(), began.elapsed());
        let gigabytes = float(run.tally.bytes) / 1e9;
        let (mut figures, _) = run.figures(&[Measure::Gigabytes, Measure::FirstByte]);
        figures.push(("server CPU s/GB, uploads too", cost.cpu_secs / gigabytes));
        if behind == Behind::Bucket {
            figures.push(("all in the bucket, MB/s", gigabytes * 1e3 / elapsed.as_secs_f64()));
        }
        figures.extend(cost.peak_kb.map(|kb| ("peak RSS MB", float(kb) / 1e3)));
        for layer in &layers {
            self.image.forget(layer)?;
        }
        Ok((figures, cost.is_disturbed(elapsed)))
    }

    /// Many clients of many replicas that know each other, and a layer that none of them has.
    fn crowd(&self, is_killed: bool, rep: u32) -> anyhow::Result<Figures> {
        let name = if is_killed { "killed" } else { "crowd" };
        let instances: Vec<_> = (0..self.options.replicas)
            .map(|at| Instance::replica(&self.around, &format!("bucket-{name}-{rep}-{at}")))
            .collect::<anyhow::Result<_>>()?;
        let names: Vec<_> = instances.iter().map(|one| one.listen.to_string()).collect();
        let peers_table = format!("[peers]\nnames = {names:?}\n");
        let instances: Vec<_> = instances.into_iter().map(|one| one.with(&peers_table)).collect();
        let peers: Vec<Peer> =
            instances.iter().map(|one| one.start(&self.around)).collect::<Result<_, _>>()?;
        for instance in &instances {
            known(instance, instances.len())?;
        }
        let layer = self.image.unknown_layer(self.options.cold_size.0)?;
        let before = self.registry.gets(&layer.digest)?;
        let half = float(layer.size) / float(self.options.cold_rate.0) / 2.0;
        let (done, victim) = std::thread::scope(|scope| {
            let killing = is_killed.then(|| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_secs_f64(half));
                    let owner = owner(&instances)?;
                    peers.get(owner).context("an owner")?.kill()?;
                    anyhow::Ok(owner)
                })
            });
            let done = self.all_at_once(&peers, &layer);
            (done, killing.map(std::thread::ScopedJoinHandle::join))
        });
        let victim = match victim {
            Some(Ok(owner)) => Some(owner?),
            Some(Err(_)) => anyhow::bail!("the killer has panicked"),
            None => None,
        };
        let gets = self.registry.gets(&layer.digest)? - before;
        self.image.forget(&layer)?;
        crowd_figures(&done?, victim, gets)
    }

    fn all_at_once(&self, peers: &[Peer], layer: &Object) -> anyhow::Result<Vec<(usize, Tally)>> {
        let clients = usize::try_from(self.options.crowd)?;
        let targets: Vec<_> = peers.iter().map(|peer| peer.target.clone()).collect();
        load::on_cpu(None, async {
            let mut jobs = JoinSet::new();
            for (at, target) in targets.into_iter().enumerate() {
                let job = Job {
                    pattern: Pattern::Cycle(vec![Request::blob(layer)]),
                    limit: Limit::Count(clients as u64),
                    connections: Connections::Held(clients),
                };
                jobs.spawn(async move { (at, load::run(&target, job, || ()).await) });
            }
            Ok(jobs.join_all().await)
        })
    }
}

fn once(object: &Object) -> Job {
    let pattern = Pattern::Cycle(vec![Request::blob(object)]);
    Job { pattern, limit: Limit::Count(1), connections: Connections::Held(1) }
}

/// What came of a crowd. The clients of a replica that was killed break off; nobody else's may.
fn crowd_figures(
    done: &[(usize, Tally)],
    victim: Option<usize>,
    gets: u64,
) -> anyhow::Result<Figures> {
    let others = || done.iter().filter(|(at, _)| Some(*at) != victim).map(|(_, tally)| tally);
    if let Some(error) = others().flat_map(|tally| &tally.errors).next() {
        anyhow::bail!("{error}");
    }
    let elapsed = others().map(|tally| tally.elapsed).max().context("nobody has asked")?;
    let mut first: Vec<_> = others().filter_map(|tally| tally.first_bytes.per_mille(500)).collect();
    first.sort_by(f64::total_cmp);
    let slowest = first.last().copied().context("no first byte")?;
    Ok((
        vec![
            ("seconds", elapsed.as_secs_f64()),
            ("registry GETs", float(gets)),
            ("first byte p50 of the slowest replica, ms", slowest),
        ],
        false,
    ))
}

/// A metric, summed over its labels.
fn metric(instance: &Instance, name: &str, label: &str) -> anyhow::Result<f64> {
    let metrics = admin_page(instance.admin, "/metrics")?;
    let lines = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
    });
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

fn asked(instance: &Instance) -> anyhow::Result<f64> {
    metric(instance, "entrepot_bucket_requests_total", "")
}

/// Waits until nothing is left to upload.
fn uploaded(instance: &Instance) -> anyhow::Result<()> {
    wait(UPLOADS, || Ok(metric(instance, "entrepot_bucket_pending_objects", "")? < 1.0))
}

/// Waits until a replica knows so many, itself among them.
fn known(instance: &Instance, count: usize) -> anyhow::Result<()> {
    wait(UPLOADS, || Ok(metric(instance, "entrepot_peers", "")? >= float(count as u64)))
}

fn wait(most: Duration, mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !done()? {
        ensure!(began.elapsed() < most, "it takes longer than {most:?}");
        std::thread::sleep(BETWEEN);
    }
    Ok(())
}

/// Who fetches for the others: whoever sends them most.
fn owner(instances: &[Instance]) -> anyhow::Result<usize> {
    let sent = |one| metric(one, "entrepot_peer_bytes_total", "direction=\"sent\"");
    let sent: Vec<f64> = instances.iter().map(sent).collect::<anyhow::Result<_>>()?;
    let most = sent.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1));
    most.map(|(at, _)| at).context("there are no replicas")
}
