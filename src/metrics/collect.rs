//! The counters as families with names and words.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{Families, KINDS, Metrics, MetricsInner, Sums, process};
use crate::log::Outcome;

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (parts, mut families) = (&*self.parts, Families::new(&mut encoder));
        requests(parts, &mut families)?;
        savings(parts, &mut families)?;
        upstreams(parts, &mut families)?;
        transfers(parts, &mut families)?;
        parts.peers.write(&mut families)?;
        parts.bucket.write(&mut families)?;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let build = "Which version this is.";
        families.gauges("entrepot_build_info", build, std::iter::once((version, 1)))?;
        process::write(&mut families, parts.started)
    }
}

fn requests(parts: &MetricsInner, families: &mut Families<'_, '_>) -> fmt::Result {
    let registries = || parts.registries.all();
    let by_registry = registries().flat_map(|(registry, counters)| {
        let counts = counters.by_outcome();
        counts.map(move |(outcome, count)| {
            ([("outcome", outcome.label()), ("registry", registry)], count)
        })
    });
    let help = "Requests answered, by how and for which registry.";
    families.counters("entrepot_requests", help, by_registry)?;
    let content = registries().flat_map(|(registry, counters)| {
        let counts = counters.by_content().filter(|(_, outcome, count)| {
            *count > 0 || matches!(outcome, Outcome::Hit | Outcome::Miss)
        });
        counts.map(move |(kind, outcome, count)| {
            let outcome = ("outcome", outcome.label());
            ([("kind", kind.label()), outcome, ("registry", registry)], count)
        })
    });
    let help = "GETs that were answered with a manifest or a blob, by how and for which registry.";
    families.counters("entrepot_content_requests", help, content)?;
    let bytes = registries().flat_map(|(registry, counters)| {
        let counts = counters.sent_by_outcome();
        counts.map(move |(outcome, bytes)| {
            ([("outcome", outcome.label()), ("registry", registry)], bytes)
        })
    });
    let help = "Bytes of bodies that went to clients, by how they were answered.";
    families.counters("entrepot_response_bytes", help, bytes)?;
    let durations = KINDS.into_iter().zip(&parts.durations).flat_map(|(kind, outcomes)| {
        Outcome::ALL
            .into_iter()
            .zip(outcomes)
            .map(move |(outcome, times)| ([("kind", kind), ("outcome", outcome.label())], times))
    });
    let help = "From a request's head to the end of its answer.";
    families.histograms("entrepot_request_duration_seconds", help, durations)?;
    let help = "Connections of clients that are open.";
    families.gauge("entrepot_connections_open", help, now(&parts.connections))?;
    let help = "Tunnels that are open.";
    families.gauge("entrepot_tunnels_open", help, now(&parts.tunnels))
}

fn savings(parts: &MetricsInner, families: &mut Families<'_, '_>) -> fmt::Result {
    let registries = || parts.registries.all();
    let sums = |of: fn(&Sums) -> u64| {
        registries().map(move |(registry, counters)| {
            ([("registry", registry)], of(&counters.tally().sums()))
        })
    };
    let help = "Bytes of manifests and blobs that went to clients.";
    families.counters("entrepot_served_bytes", help, sums(|sums| sums.served_bytes))?;
    let help = "Bytes that came when a registry was asked for manifests and blobs.";
    families.counters("entrepot_fetched_bytes", help, sums(|sums| sums.fetched_bytes))?;
    let help = "Pulls of images by clients.";
    families.counters("entrepot_pulls", help, sums(|sums| sums.pulls))?;
    let help = "GETs of manifests that a registry would have counted, and was not asked.";
    families.counters("entrepot_quota_pulls_saved", help, sums(|sums| sums.quota_pulls_saved))?;
    let spent = registries()
        .map(|(registry, counters)| ([("registry", registry)], counters.quota_pulls_spent()));
    let help = "GETs of manifests that a registry has counted.";
    families.counters("entrepot_quota_pulls_spent", help, spent)
}

fn now(count: &AtomicI64) -> u64 {
    u64::try_from(count.load(Ordering::Relaxed)).unwrap_or_default()
}

fn upstreams(parts: &MetricsInner, families: &mut Families<'_, '_>) -> fmt::Result {
    let registries = || parts.registries.all();
    let asked = registries().flat_map(|(registry, counters)| {
        let counts = counters.by_question().filter(|(method, class, count)| {
            *count > 0 || (matches!(*method, "GET" | "HEAD") && *class != "1xx")
        });
        counts.map(move |(method, class, count)| {
            ([("registry", registry), ("method", method), ("status", class)], count)
        })
    });
    let help = "Requests to upstreams on a registry's behalf, by method and class of status.";
    families.counters("entrepot_upstream_requests", help, asked)?;
    let held_back = registries().flat_map(|(registry, counters)| {
        let counts = counters.by_hindrance();
        counts.map(move |(why, count)| ([("registry", registry), ("reason", why.label())], count))
    });
    let help = "Requests to upstreams that were not sent because of how the last ones ended.";
    families.counters("entrepot_upstream_held_back", help, held_back)?;
    let received = registries().map(|(registry, c)| ([("registry", registry)], c.received_bytes()));
    let help = "Bytes of bodies that came from upstreams.";
    families.counters("entrepot_upstream_received_bytes", help, received)?;
    let began = registries().flat_map(|(registry, counters)| {
        let seen = counters.first_bytes().filter(|(_, latency)| !latency.all().is_empty());
        seen.map(move |(kind, latency)| {
            ([("kind", kind.label()), ("registry", registry)], latency.all())
        })
    });
    let help = "From asking a registry for content to the first byte of its answer.";
    families.histograms("entrepot_upstream_first_byte_seconds", help, began)?;
    let last = registries().filter_map(|(registry, counters)| {
        Some(([("registry", registry)], counters.last_success()?.0))
    });
    let help = "When a registry last gave an answer that was no error of its own.";
    families.gauges("entrepot_registry_last_success_timestamp_seconds", help, last)
}

fn transfers(parts: &MetricsInner, families: &mut Families<'_, '_>) -> fmt::Result {
    let help = "Broken downloads that were taken up again.";
    families.counter("entrepot_downloads_resumed", help, parts.resumed.value())?;
    let help = "Transfers whose bytes were not those of their digest.";
    families.counter("entrepot_digest_mismatches", help, parts.mismatches.value())?;
    let help = "Answers that went on from the registry because the store failed.";
    families.counter("entrepot_rescued_responses", help, parts.rescued.value())
}
