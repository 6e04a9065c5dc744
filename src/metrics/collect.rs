//! The counters as families with names and words.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{Families, Metrics, MetricsInner, process};
use crate::log::Outcome;

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (parts, mut families) = (&*self.parts, Families::new(&mut encoder));
        requests(parts, &mut families)?;
        upstreams(parts, &mut families)?;
        transfers(parts, &mut families)?;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let build = "Which version this is.";
        families.gauges("entrepot_build_info", build, std::iter::once((version, 1)))?;
        process::write(&mut families, parts.started)
    }
}

fn requests(parts: &MetricsInner, families: &mut Families<'_, '_>) -> fmt::Result {
    let by_registry = parts.registries.all().flat_map(|(registry, counters)| {
        let seen = counters.by_outcome().filter(|(_, count)| *count > 0);
        seen.map(move |(outcome, count)| {
            ([("outcome", outcome.label()), ("registry", registry)], count)
        })
    });
    let help = "Requests answered, by how and for which registry.";
    families.counters("entrepot_requests", help, by_registry)?;
    let bytes = Outcome::ALL.into_iter().zip(&parts.sent_bytes);
    let bytes = bytes.map(|(outcome, count)| ([("outcome", outcome.label())], count.value()));
    let help = "Bytes of bodies that went to clients, by how they were answered.";
    families.counters("entrepot_response_bytes", help, bytes)?;
    let durations = Outcome::ALL.into_iter().zip(&parts.durations);
    let durations = durations.map(|(outcome, times)| (("outcome", outcome.label()), times));
    let help = "From a request's head to the end of its answer.";
    families.histograms("entrepot_request_duration_seconds", help, durations)?;
    let help = "Connections of clients that are open.";
    families.gauge("entrepot_connections_open", help, now(&parts.connections))?;
    let help = "Tunnels that are open.";
    families.gauge("entrepot_tunnels_open", help, now(&parts.tunnels))
}

fn now(count: &AtomicI64) -> u64 {
    u64::try_from(count.load(Ordering::Relaxed)).unwrap_or_default()
}

fn upstreams(parts: &MetricsInner, families: &mut Families<'_, '_>) -> fmt::Result {
    let asked = parts.registries.all().flat_map(|(registry, counters)| {
        let seen = counters.by_question().filter(|(.., count)| *count > 0);
        seen.map(move |(method, class, count)| {
            ([("registry", registry), ("method", method), ("status", class)], count)
        })
    });
    let help = "Requests to upstreams on a registry's behalf, by method and class of status.";
    families.counters("entrepot_upstream_requests", help, asked)?;
    let held_back = parts.registries.all().flat_map(|(registry, counters)| {
        let seen = counters.by_hindrance().filter(|(_, count)| *count > 0);
        seen.map(move |(why, count)| ([("registry", registry), ("reason", why.label())], count))
    });
    let help = "Requests to upstreams that were not sent because of how the last ones ended.";
    families.counters("entrepot_upstream_held_back", help, held_back)?;
    let received = parts.registries.all();
    let received = received.map(|(registry, c)| ([("registry", registry)], c.received_bytes()));
    let received = received.filter(|(_, bytes)| *bytes > 0);
    let help = "Bytes of bodies that came from upstreams.";
    families.counters("entrepot_upstream_received_bytes", help, received)
}

fn transfers(parts: &MetricsInner, families: &mut Families<'_, '_>) -> fmt::Result {
    let help = "Broken downloads that were taken up again.";
    families.counter("entrepot_downloads_resumed", help, parts.resumed.value())?;
    let help = "Transfers whose bytes were not those of their digest.";
    families.counter("entrepot_digest_mismatches", help, parts.mismatches.value())?;
    let help = "Answers that went on from the registry because the store failed.";
    families.counter("entrepot_rescued_responses", help, parts.rescued.value())
}
