//! What the cache was worth, kept over restarts: by month, by registry, by network of clients.
//!
//! Requests count in [`Metrics`] alone. Here is added what was counted before the start, and now
//! and then all of it is written down beside the store's index, where that has changed: within
//! seconds after a quiet minute, else once a minute, and when the proxy ends. Whatever is wrong
//! with the record, or with its disk, costs a line in the log and never a request.
//!
//! - `record`: what is written down

mod record;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use entrepot_cache::{SavingsRecord, Store};
use entrepot_oci::UnixSeconds;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, Network, Sums};
use record::{Record, Unread};

/// How often it is looked whether something has changed.
const LOOK: Duration = Duration::from_secs(5);
/// How long after a record was written the next is.
const PAUSE: Duration = Duration::from_mins(1);
/// How long the disk is waited for when the proxy begins and ends.
const PATIENCE: Duration = Duration::from_secs(5);
/// Months that are kept: a year, and the one under way.
const MOST_MONTHS: usize = 13;
/// Registries that are kept, as many as are told apart.
const MOST_REGISTRIES: usize = 100;
/// What the others are called.
const OTHER: &str = "other";
/// What is about no registry.
const NONE: &str = "none";
/// Bytes that a price is for.
const GIGABYTE: f64 = 1e9;

/// What bytes cost that come from registries: `[savings]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Price {
    /// `cost-per-gb`: of 10⁹ bytes.
    pub per_gb: Option<f64>,
    /// `currency`.
    pub currency: String,
}

impl Price {
    /// What this was worth; less than nothing where more was fetched than served.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "money is told to the cent")]
    pub(crate) fn of(&self, sums: &Sums) -> Option<f64> {
        let money = self.per_gb? * sums.saved_bytes() as f64 / GIGABYTE;
        Some((money * 100.0).round() / 100.0)
    }
}

/// All that is counted; cheap to clone.
#[derive(Clone)]
pub(crate) struct Savings {
    parts: Arc<Parts>,
}

struct Parts {
    store: Store,
    metrics: Metrics,
    price: ArcSwap<Price>,
    book: Mutex<Book>,
    /// Whether the record is ours to replace.
    is_kept: bool,
}

/// What was counted before the start, and what of the rest is in a month already.
struct Book {
    since: UnixSeconds,
    total: Sums,
    months: BTreeMap<String, Sums>,
    registries: BTreeMap<String, Sums>,
    /// Of what was counted since the start.
    in_months: Sums,
}

/// What there is to tell.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// Since when it is counted.
    pub since: UnixSeconds,
    /// What bytes cost.
    pub price: Arc<Price>,
    /// All of it.
    pub total: Sums,
    /// Of the month under way.
    pub this_month: Sums,
    /// By month (`2026-11`, UTC), newest first.
    pub months: Vec<(String, Sums)>,
    /// By registry, what was served most first.
    pub registries: Vec<(String, Sums)>,
    /// By network, what was served most first.
    pub networks: Vec<(Network, Sums)>,
}

impl Savings {
    /// Goes on from what was written down last.
    pub(crate) async fn open(store: Store, metrics: Metrics, price: Price) -> Self {
        let read = tokio::time::timeout(PATIENCE, store.savings()).await;
        let (record, is_kept) = match read {
            Ok(Ok(SavingsRecord::Intact(value))) => match Record::read(value) {
                Ok(record) => (Some(record), true),
                Err(Unread::Damaged) => (damaged(), true),
                Err(Unread::Version(version)) => {
                    tracing::warn!(
                        version,
                        "the record of what was saved is of another version: it is left as it is, \
                         and what is saved now is counted until the next start alone"
                    );
                    (None, false)
                }
            },
            Ok(Ok(SavingsRecord::Absent)) => (None, true),
            Ok(Ok(_)) => (damaged(), true),
            Ok(Err(error)) => (unreadable(&error.to_string()), false),
            Err(_) => (unreadable("the disk does not answer"), false),
        };
        let record = record.unwrap_or_default();
        metrics.go_on_from(record.networks().into_iter());
        let book = Book {
            since: record.since,
            total: record.total,
            months: record.months,
            registries: record.registries,
            in_months: Sums::default(),
        };
        let price = ArcSwap::from_pointee(price);
        let parts = Parts { store, metrics, price, book: Mutex::new(book), is_kept };
        Self { parts: Arc::new(parts) }
    }

    /// Bytes cost this from now on, and did before.
    pub(crate) fn reprice(&self, price: Price) {
        self.parts.price.store(Arc::new(price));
    }

    /// What there is to tell now.
    #[must_use]
    pub(crate) fn report(&self) -> Report {
        let Parts { metrics, price, book, .. } = &*self.parts;
        let mut networks = metrics.network_sums();
        networks.retain(|(network, sums)| *network != Network::Other || *sums != Sums::default());
        networks.sort_by(|(a, x), (b, y)| y.served_bytes.cmp(&x.served_bytes).then(a.cmp(b)));
        let mut book = book.lock();
        // Read with the lock held: what is counted must not seem to become less.
        let (month, live) = (month(UnixSeconds::now()), metrics.registry_sums());
        book.count(&month, live.iter().map(|(_, sums)| *sums).sum());
        let months = book.months.iter().rev().map(|(month, sums)| (month.clone(), *sums));
        Report {
            since: book.since,
            price: price.load_full(),
            total: book.total + book.in_months,
            this_month: book.months.get(&month).copied().unwrap_or_default(),
            months: months.collect(),
            registries: merged(&book.registries, live),
            networks,
        }
    }

    /// Writes it down now and then, until the shutdown.
    pub(crate) async fn keep(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        let mut written = (self.report().total, None::<Instant>);
        let mut is_failing = false;
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let report = self.report();
            let is_due = written.1.is_none_or(|at| at.elapsed() >= PAUSE);
            if report.total == written.0 || !is_due {
                continue;
            }
            let total = report.total;
            let writing = shutdown.run_until_cancelled(self.write(&report)).await;
            match writing {
                Some(Ok(())) => is_failing = false,
                Some(Err(error)) if !is_failing => {
                    is_failing = true;
                    tracing::warn!(error, "what was saved could not be written down");
                }
                Some(Err(_)) => {}
                None => return,
            }
            written = (total, Some(Instant::now()));
        }
    }

    /// Writes it down, as the proxy ends.
    pub(crate) async fn finish(&self) {
        let report = self.report();
        let error = match tokio::time::timeout(PATIENCE, self.write(&report)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => "the disk does not answer".to_owned(),
        };
        tracing::warn!(error, "what was saved could not be written down");
    }

    async fn write(&self, report: &Report) -> Result<(), String> {
        if !self.parts.is_kept {
            return Ok(());
        }
        let record = Record::of(report);
        self.parts.store.keep_savings(&record).await.map_err(|error| crate::words::chain(&error))
    }
}

fn damaged() -> Option<Record> {
    tracing::warn!("the record of what was saved is damaged: counting begins anew");
    None
}

fn unreadable(error: &str) -> Option<Record> {
    tracing::warn!(
        error,
        "the record of what was saved can't be read: it is left as it is, and what is saved now is \
         counted until the next start alone"
    );
    None
}

impl Book {
    /// What has come since this was last called has come in this month.
    fn count(&mut self, month: &str, live: Sums) {
        let new = live.since(&self.in_months);
        *self.months.entry(month.to_owned()).or_default() += new;
        self.in_months = live;
        while self.months.len() > MOST_MONTHS {
            self.months.pop_first();
        }
    }
}

/// What was counted before the start, and since: by registry, with the rest in one row.
fn merged(before: &BTreeMap<String, Sums>, live: Vec<(String, Sums)>) -> Vec<(String, Sums)> {
    let mut all = before.clone();
    for (name, sums) in live {
        // Nothing is asked of no registry that would count.
        let name = if name == NONE { OTHER.to_owned() } else { name };
        *all.entry(name).or_default() += sums;
    }
    let mut rest = all.remove(OTHER).unwrap_or_default();
    let mut rows: Vec<_> = all.into_iter().filter(|(_, sums)| *sums != Sums::default()).collect();
    rows.sort_by(|(a, x), (b, y)| y.served_bytes.cmp(&x.served_bytes).then(a.cmp(b)));
    for (_, sums) in rows.drain(rows.len().min(MOST_REGISTRIES)..) {
        rest += sums;
    }
    if rest != Sums::default() {
        rows.push((OTHER.to_owned(), rest));
    }
    rows
}

/// A month as it is called, in UTC.
fn month(at: UnixSeconds) -> String {
    let seconds = i64::try_from(at.0).unwrap_or_default();
    let date = time::OffsetDateTime::from_unix_timestamp(seconds);
    let date = date.unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    format!("{:04}-{:02}", date.year(), u8::from(date.month()))
}

#[cfg(test)]
mod tests;
