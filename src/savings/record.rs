//! What is written down.

use std::collections::BTreeMap;

use entrepot_oci::UnixSeconds;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{MOST_MONTHS, MOST_REGISTRIES, Report};
use crate::metrics::{Network, Sums};

/// The form of the record that is written here, and read.
const VERSION: u64 = 1;

/// All that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u64,
    pub(super) since: UnixSeconds,
    pub(super) total: Sums,
    /// By month.
    pub(super) months: BTreeMap<String, Sums>,
    /// By name.
    pub(super) registries: BTreeMap<String, Sums>,
    /// By what they are called.
    networks: BTreeMap<String, Sums>,
}

/// Why a record says nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is none.
    Damaged,
    /// It is of another version.
    Version(u64),
}

impl Default for Record {
    /// Nothing, from now on.
    fn default() -> Self {
        let (total, months, registries, networks) = Default::default();
        Self { version: VERSION, since: UnixSeconds::now(), total, months, registries, networks }
    }
}

impl Record {
    pub(super) fn of(report: &Report) -> Self {
        let networks = report.networks.iter();
        Self {
            version: VERSION,
            since: report.since,
            total: report.total,
            months: report.months.iter().cloned().collect(),
            registries: report.registries.iter().cloned().collect(),
            networks: networks.map(|(network, sums)| (network.to_string(), *sums)).collect(),
        }
    }

    pub(super) fn read(value: Value) -> Result<Self, Unread> {
        match value.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => return Err(Unread::Version(other)),
            None => return Err(Unread::Damaged),
        }
        let mut record: Self = serde_json::from_value(value).map_err(|_| Unread::Damaged)?;
        while record.months.len() > MOST_MONTHS {
            record.months.pop_first();
        }
        while record.registries.len() > MOST_REGISTRIES + 1 {
            record.registries.pop_last();
        }
        Ok(record)
    }

    /// What is kept of networks, what was served most first.
    pub(super) fn networks(&self) -> Vec<(Network, Sums)> {
        let known = self.networks.iter();
        let known = known.filter_map(|(name, sums)| Some((name.parse().ok()?, *sums)));
        let mut known: Vec<(Network, Sums)> = known.collect();
        known.sort_by_key(|(_, sums)| std::cmp::Reverse(sums.served_bytes));
        known
    }
}
