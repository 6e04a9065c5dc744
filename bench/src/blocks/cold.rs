//! Blobs that nobody has, from a registry that sends so many bytes a second: how long clients that
//! come together wait, and how often the registry is asked.

use super::{Bench, Measure, Places};
use crate::image::Object;
use crate::load::{Connections, Job, Limit, Pattern, Request};
use crate::peers::Peer;
use crate::size::float;

impl Bench {
    /// Measures the block.
    pub(super) fn cold(&mut self) -> anyhow::Result<()> {
        self.registry.limit(self.options.cold_rate.0)?;
        for rep in 1..=self.options.reps {
            for clients in self.options.cold.clone() {
                let layer = self.image.unknown_layer(self.options.cold_size.0)?;
                self.cold_layer(&layer, clients, rep)?;
                self.image.forget(&layer)?;
            }
        }
        self.registry.limit(0)
    }

    fn cold_layer(&mut self, layer: &Object, clients: usize, rep: u32) -> anyhow::Result<()> {
        let variant = format!("N={clients}");
        for at in 0..self.peers.len() {
            let Some(peer) = self.peers.get(at).filter(|peer| peer.kind.caches()) else { continue };
            let kind = peer.kind;
            let outcome = self.cold_run(peer, layer, clients);
            self.note(("cold", &variant), kind, rep, outcome)?;
        }
        Ok(())
    }

    fn cold_run(
        &self,
        peer: &Peer,
        layer: &Object,
        clients: usize,
    ) -> anyhow::Result<(Vec<(&'static str, f64)>, bool)> {
        let before = self.registry.gets(&layer.digest)?;
        let job = Job {
            pattern: Pattern::Cycle(vec![Request::blob(layer)]),
            limit: Limit::Count(clients as u64),
            connections: Connections::Held(clients),
        };
        let run = self.measure(peer, job, Places::Anywhere)?;
        let gets = self.registry.gets(&layer.digest)? - before;
        let (more, disturbed) = run.figures(&[Measure::FirstByte, Measure::Peak]);
        let mut figures = vec![
            ("seconds", run.tally.elapsed.as_secs_f64()),
            ("registry GETs", float(gets)),
            ("server CPU s", run.cost.cpu_secs),
        ];
        figures.extend(more);
        Ok((figures, disturbed))
    }
}
