//! The record of what the store's user has counted.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use serde_json::json;

use super::{new_dir, open};
use crate::disk::{Disk, Fault, FaultPlan};
use crate::{Options, SavingsRecord, Store};

#[tokio::test]
async fn what_was_counted_is_there_after_a_restart() {
    let dir = new_dir();
    let store = open(&dir).await;
    assert_eq!(store.savings().await.unwrap(), SavingsRecord::Absent);
    // Larger than any other record.
    let counted = json!({ "version": 1, "names": vec!["x".repeat(100); 2000] });
    store.keep_savings(&counted).await.unwrap();
    let mode = std::fs::metadata(dir.path().join("savings")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    store.close().await;
    let store = open(&dir).await;
    assert_eq!(store.savings().await.unwrap(), SavingsRecord::Intact(counted));
    let too_much = json!(vec!["x".repeat(1000); 2000]);
    store.keep_savings(&too_much).await.unwrap_err();
    std::fs::write(dir.path().join("savings"), "damaged").unwrap();
    assert_eq!(store.savings().await.unwrap(), SavingsRecord::Damaged);
}

#[tokio::test]
async fn whatever_call_fails_the_record_is_the_old_one_or_the_new() {
    let (old, new) = (json!({ "sum": 1 }), json!({ "sum": 2 }));
    for number in 1.. {
        let dir = new_dir();
        let store = open(&dir).await;
        store.keep_savings(&old).await.unwrap();
        store.close().await;
        let plan = Arc::new(FaultPlan::at(number, Fault::Errno(5)));
        let disk = Disk::with_faults(Arc::clone(&plan));
        let opened = Store::open(Options::new(dir.path()).with_disk(disk)).await;
        let mut is_written = false;
        if let Ok(store) = opened {
            is_written = store.keep_savings(&new).await.is_ok();
            store.close().await;
        }
        let store = open(&dir).await;
        let SavingsRecord::Intact(found) = store.savings().await.unwrap() else {
            panic!("call {number}: it is lost");
        };
        assert!(found == new || (found == old && !is_written), "call {number}: {found}");
        if plan.fired() == 0 {
            assert!(is_written && number > 5, "the scenario makes more calls than {number}");
            return;
        }
    }
}
