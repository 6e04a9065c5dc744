//! What the cache was worth.

use serde_json::{Map, Value, json};

use super::super::AdminServices;
use crate::metrics::Sums;
use crate::savings::Price;

/// Since when it is counted, and what it has come to: this month, by month, by registry, by network
/// of clients.
pub(in super::super) fn savings(services: &AdminServices) -> Value {
    let report = services.savings.report();
    let price = &*report.price;
    let row = |name: &str, called: String, sums: &Sums| {
        let mut row = Map::from_iter([(name.to_owned(), Value::from(called))]);
        if let Value::Object(sums) = told(sums, price) {
            row.extend(sums);
        }
        Value::Object(row)
    };
    let months = report.months.iter().map(|(month, sums)| row("month", month.clone(), sums));
    let registries =
        report.registries.iter().map(|(name, sums)| row("registry", name.clone(), sums));
    let networks =
        report.networks.iter().map(|(name, sums)| row("network", name.to_string(), sums));
    json!({
        "since": report.since,
        "currency": price.currency,
        "cost_per_gb": price.per_gb,
        "this_month": told(&report.this_month, price),
        "total": told(&report.total, price),
        "months": months.collect::<Vec<_>>(),
        "registries": registries.collect::<Vec<_>>(),
        "networks": networks.collect::<Vec<_>>(),
    })
}

fn told(sums: &Sums, price: &Price) -> Value {
    json!({
        "served_bytes": sums.served_bytes,
        "fetched_bytes": sums.fetched_bytes,
        "saved_bytes": sums.saved_bytes(),
        "pulls": sums.pulls,
        "quota_pulls_saved": sums.quota_pulls_saved,
        "money": price.of(sums),
        "manifests": sums.manifests,
        "blobs": sums.blobs,
    })
}
