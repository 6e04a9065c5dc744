//! What is kept, and what becomes of a record that is none.

use super::*;
use crate::log::ContentKind;

const HUB: &str = "docker.io";

async fn store(dir: &std::path::Path) -> Store {
    Store::open(entrepot_cache::Options::new(dir)).await.unwrap()
}

fn price() -> Price {
    Price { per_gb: Some(0.045), currency: "USD".to_owned() }
}

async fn open(dir: &std::path::Path) -> (Savings, Metrics) {
    let metrics = Metrics::new([HUB.to_owned()].into_iter());
    (Savings::open(store(dir).await, metrics.clone(), price()).await, metrics)
}

fn fetch(metrics: &Metrics, bytes: u64) {
    let client = Some([10, 0, 0, 7].into());
    metrics.asking(HUB, client, Some(ContentKind::Blob)).received(bytes);
}

async fn close(savings: Savings) {
    let store = savings.parts.store.clone();
    drop(savings);
    store.close().await;
}

#[tokio::test]
async fn what_was_counted_is_counted_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (savings, metrics) = open(dir.path()).await;
    fetch(&metrics, 1000);
    savings.finish().await;
    let first = savings.report();
    close(savings).await;
    let (savings, metrics) = open(dir.path()).await;
    fetch(&metrics, 500);
    let report = savings.report();
    assert_eq!(report.since, first.since);
    assert_eq!(report.total.fetched_bytes, 1500);
    assert_eq!(report.total.saved_bytes(), -1500);
    let fetched = |rows: &[(String, Sums)]| -> Vec<_> {
        rows.iter().map(|(name, sums)| (name.clone(), sums.fetched_bytes)).collect()
    };
    assert_eq!(fetched(&report.registries), [(HUB.to_owned(), 1500)]);
    assert_eq!(fetched(&report.months), [(month(UnixSeconds::now()), 1500)]);
    let networks: Vec<_> =
        report.networks.iter().map(|(name, sums)| (name.to_string(), sums.fetched_bytes)).collect();
    assert_eq!(networks, [("10.0.0.0/24".to_owned(), 1500)]);
}

#[tokio::test]
async fn a_record_of_another_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let newer = serde_json::json!({ "version": 2, "whatever": true });
    let kept = store(dir.path()).await;
    kept.keep_savings(&newer).await.unwrap();
    kept.close().await;
    let (savings, metrics) = open(dir.path()).await;
    fetch(&metrics, 1000);
    savings.finish().await;
    assert_eq!(savings.report().total.fetched_bytes, 1000, "it counts all the same");
    close(savings).await;
    let kept = store(dir.path()).await;
    assert_eq!(kept.savings().await.unwrap(), SavingsRecord::Intact(newer));
}

#[tokio::test]
async fn a_damaged_record_begins_anew() {
    for damage in ["", "no record\n", "0123456789abcdef {\"version\":1}\n"] {
        let dir = tempfile::tempdir().unwrap();
        store(dir.path()).await.close().await;
        std::fs::write(dir.path().join("savings"), damage).unwrap();
        let (savings, metrics) = open(dir.path()).await;
        assert_eq!(savings.report().total, Sums::default());
        fetch(&metrics, 1000);
        savings.finish().await;
        close(savings).await;
        let (savings, _) = open(dir.path()).await;
        assert_eq!(savings.report().total.fetched_bytes, 1000, "{damage}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_written_within_seconds_and_then_once_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let (savings, metrics) = open(dir.path()).await;
    let shutdown = CancellationToken::new();
    let keeping =
        tokio_util::task::TaskTracker::new().spawn(savings.clone().keep(shutdown.clone()));
    let written = async || match savings.parts.store.savings().await.unwrap() {
        SavingsRecord::Intact(value) => value["total"]["fetched_bytes"].as_u64(),
        _ => None,
    };
    tokio::time::sleep(LOOK * 2).await;
    assert_eq!(written().await, None, "nothing has changed");
    fetch(&metrics, 1);
    tokio::time::sleep(LOOK * 2).await;
    assert_eq!(written().await, Some(1));
    fetch(&metrics, 1);
    tokio::time::sleep(LOOK * 2).await;
    assert_eq!(written().await, Some(1));
    tokio::time::sleep(PAUSE).await;
    assert_eq!(written().await, Some(2));
    shutdown.cancel();
    keeping.await.unwrap();
}

#[test]
fn a_year_and_a_month_are_kept() {
    let (total, months, registries, in_months) = Default::default();
    let mut book = Book { since: UnixSeconds(0), total, months, registries, in_months };
    for number in 1..=20 {
        let live = Sums { served_bytes: number, ..Sums::default() };
        book.count(&format!("{:04}-{:02}", 2025 + number / 12, number % 12 + 1), live);
    }
    assert_eq!(book.months.len(), MOST_MONTHS);
    assert!(book.months.values().all(|sums| sums.served_bytes == 1));
    assert_eq!(month(UnixSeconds(1_795_866_000)), "2026-11");
    assert_eq!(month(UnixSeconds(0)), "1970-01");
}

#[test]
fn registries_beyond_the_bound_are_one_row() {
    let of = |served_bytes| Sums { served_bytes, ..Sums::default() };
    let before = BTreeMap::from([("old.example".to_owned(), of(5))]);
    let live = (1..=2 * MOST_REGISTRIES as u64).map(|n| (format!("r{n}.example"), of(n)));
    let rows = merged(&before, live.chain([("none".to_owned(), of(0))]).collect());
    assert_eq!(rows.len(), MOST_REGISTRIES + 1);
    assert_eq!(rows.last().map(|(name, _)| name.as_str()), Some(OTHER));
    let all: u64 = rows.iter().map(|(_, sums)| sums.served_bytes).sum();
    assert_eq!(all, 5 + (1..=2 * MOST_REGISTRIES as u64).sum::<u64>());
}

#[test]
fn what_is_saved_has_its_price() {
    let sums =
        Sums { served_bytes: 3_000_000_000, fetched_bytes: 1_000_000_000, ..Sums::default() };
    assert_eq!(price().of(&sums), Some(0.09));
    assert_eq!(Price { per_gb: None, ..price() }.of(&sums), None);
    let ahead = Sums { fetched_bytes: 1_000_000_000, ..Sums::default() };
    assert_eq!(price().of(&ahead), Some(-0.05), "fetched and not served yet");
}
