//! Forgetting what registries have shown of what has long been gone.

use std::time::Duration;

use entrepot_cache::{Lifetimes, Store};

use super::manifests::tags;

/// How long the records of a repository lead to nothing before they go: what comes back within a
/// week is believed without asking. The rest of a repository goes when it opens nothing any more,
/// though its registry be away.
const LIFETIMES: Lifetimes =
    Lifetimes { of_gone: Duration::from_hours(7 * 24), of_rest: Duration::from_hours(30 * 24) };
/// How often that is looked for.
const ROUND: Duration = Duration::from_hours(24);
/// How long the store may take to know what it keeps; without that every record costs a look.
const KNOWN: Duration = Duration::from_hours(1);

/// Forgets, now and once a day, what is on record of objects that have been gone for long. Never
/// ends.
pub(super) async fn keep_pruning(store: &Store) {
    loop {
        store.is_known_within(KNOWN).await;
        prune(store).await;
        tokio::time::sleep(ROUND).await;
    }
}

/// Prunes one directory after the other, each behind all other work of the disk.
async fn prune(store: &Store) {
    let all = match store.all_records().await {
        Ok(all) => all,
        Err(error) => {
            tracing::warn!(%error, cause = %error.io(), "records not pruned");
            return;
        }
    };
    let mut pruned: u64 = 0;
    for records in all {
        match records.prune(LIFETIMES, tags::digests_of).await {
            Ok(count) => pruned = pruned.saturating_add(count),
            Err(error) => {
                tracing::warn!(%error, cause = %error.io(), "records not pruned");
            }
        }
    }
    if pruned > 0 {
        tracing::info!(records = pruned, "records of what has long been gone are forgotten");
    }
}
