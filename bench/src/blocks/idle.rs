//! Connections on which nothing happens: what each costs, and whether they are still there.

use anyhow::{Context as _, ensure};

use super::{Bench, Places};
use crate::image::Object;
use crate::load::{self, Connection, Connections, Job, Limit, Pattern, Request, Tally};
use crate::peers::Peer;
use crate::size::float;

/// Requests before the first look at its memory: a program that has done nothing yet is no measure.
const BEFORE: u64 = 200;

impl Bench {
    /// Measures the block.
    pub(super) fn idle(&mut self) -> anyhow::Result<()> {
        for rep in 1..=self.options.reps {
            for count in self.options.idle.clone() {
                for at in 0..self.peers.len() {
                    let Some(peer) = self.peers.get_mut(at) else { continue };
                    let kind = peer.kind;
                    let restarted = peer.restart();
                    let Some(peer) = self.peers.get(at) else { continue };
                    let outcome = restarted.and_then(|()| self.idle_run(peer, count));
                    self.note(("idle", &format!("n={count}")), kind, rep, outcome)?;
                }
            }
        }
        // They were started anew, and may have to read again what they keep.
        self.warm_all();
        Ok(())
    }

    fn idle_run(
        &self,
        peer: &Peer,
        count: usize,
    ) -> anyhow::Result<(Vec<(&'static str, f64)>, bool)> {
        let job = Job {
            pattern: Pattern::Cycle(vec![manifest(&self.image.manifest)]),
            limit: Limit::Count(BEFORE),
            connections: Connections::Held(1),
        };
        self.measure(peer, job, Places::Anywhere)?;
        let tree = peer.tree().context("it does not run")?;
        let before = tree.resident_kb();
        let held = load::on_cpu(None, async {
            let mut held = self.hold(peer, count).await?;
            let resident = tree.resident_kb();
            // Each must take another request.
            for connection in &mut held {
                connection.ask(&manifest(&self.image.manifest), |_| ()).await.context("dropped")?;
            }
            Ok(resident)
        })?;
        let each = held.zip(before).map(|(held, before)| {
            ("kB a connection", (float(held) - float(before)) / float(count as u64))
        });
        Ok((each.into_iter().collect(), false))
    }

    /// Opens connections and uses each once.
    async fn hold(&self, peer: &Peer, count: usize) -> anyhow::Result<Vec<Connection>> {
        let mut tally = Tally::default();
        let opened = load::open(&peer.target, count, &mut tally).await;
        if let Some(error) = tally.errors.first() {
            anyhow::bail!("{} of {count} opened: {error}", opened.len());
        }
        let mut held: Vec<_> = opened.into_iter().flatten().collect();
        ensure!(held.len() == count, "{} of {count} opened", held.len());
        for connection in &mut held {
            let answer = connection.ask(&manifest(&self.image.manifest), |_| ()).await?;
            ensure!(!answer.closes, "the server keeps no connections");
        }
        Ok(held)
    }
}

fn manifest(object: &Object) -> Request {
    Request::whole(object.manifest(), object)
}
