//! The bucket that replicas have in common, and this one's part in it.

use std::time::SystemTime;

use entrepot_oci::UnixSeconds;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bucket::round::{Round, RoundReport};
use crate::bucket::uploads::{Pending, Uploads};
use crate::bucket::{Bounds, Bucket, Health};
use crate::images::FleetImages;
use crate::log::bytes;
use crate::words::grouped;

/// The bucket, and what is done with it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shared {
    /// The bucket.
    pub bucket: Bucket,
    /// What goes there.
    pub uploads: Uploads,
    /// What looks after it.
    pub round: Round,
    /// The images of all replicas.
    pub fleet: FleetImages,
}

/// How the bucket is, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BucketTold {
    /// Its URL.
    pub url: String,
    /// With which credential it is asked; never a secret.
    pub credentials: String,
    /// Whether it can be reached, and lets itself be read.
    pub reachable: bool,
    /// Whether it is of this version, and under this replica's key.
    pub usable: bool,
    /// Since when that is so.
    pub since: UnixSeconds,
    /// What is wrong, if anything is.
    pub why: Option<String>,
    /// Objects there, as of the last round of this replica; none: there has been none.
    pub objects: Option<u64>,
    /// Their sizes' sum.
    pub bytes: Option<u64>,
    /// When what was used least lately was used, as far as the bucket knows.
    pub oldest_use: Option<UnixSeconds>,
    /// What nobody has used for so long goes.
    pub max_idle_secs: Option<u64>,
    /// So many bytes at most.
    pub max_bytes: Option<u64>,
    /// What waits to be uploaded from here.
    pub pending: PendingTold,
    /// What looks after it.
    pub round: RoundTold,
    /// All of it in one line.
    pub words: String,
}

/// What waits to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingTold {
    /// Objects and records.
    pub objects: u64,
    /// Bytes of the objects.
    pub bytes: u64,
    /// For how long the oldest has waited; none: nothing does.
    pub oldest_secs: Option<u64>,
    /// What there was no place for since the start: the round finds it.
    pub dropped: u64,
}

/// The rounds of this replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoundTold {
    /// Whether there is one now.
    pub under_way: bool,
    /// What the last one has come to.
    pub last: Option<RoundReport>,
}

impl Shared {
    /// How the bucket is now.
    #[must_use]
    pub(crate) fn told(&self) -> BucketTold {
        let round = RoundTold { under_way: self.round.is_under_way(), last: self.round.last() };
        told(self.bucket.health(), self.bucket.bounds(), self.uploads.pending(), round)
    }

    /// The same, as a document.
    #[must_use]
    pub(crate) fn document(&self) -> Value {
        json!(self.told())
    }

    /// Why the bucket is of no use now, if that is so, and since when.
    #[must_use]
    pub(crate) fn trouble(&self) -> Option<(String, SystemTime)> {
        let Health { is_up, is_usable, since, why, .. } = self.bucket.health();
        // Where nobody has asked yet there is nothing to be told.
        let why = why?;
        (!is_up || !is_usable).then_some((why, since))
    }
}

fn told(health: Health, bounds: Bounds, pending: Pending, round: RoundTold) -> BucketTold {
    let last = round.last.as_ref();
    let mut told = BucketTold {
        url: health.place,
        credentials: health.credentials,
        reachable: health.is_up,
        usable: health.is_usable,
        since: health.since.into(),
        why: health.why,
        objects: last.map(|last| last.objects),
        bytes: last.map(|last| last.bytes),
        oldest_use: last.and_then(|last| last.oldest_use),
        max_idle_secs: bounds.max_idle.map(|idle| idle.as_secs()),
        max_bytes: bounds.max_size,
        pending: PendingTold {
            objects: pending.objects,
            bytes: pending.bytes,
            oldest_secs: pending.oldest.map(|oldest| oldest.as_secs()),
            dropped: pending.dropped,
        },
        round,
        words: String::new(),
    };
    told.words = words(&told);
    told
}

/// In one line: `41,203 objects, 1.3 TB, 0 pending, reachable`.
fn words(told: &BucketTold) -> String {
    let stock = match (told.objects, told.bytes) {
        (Some(objects), Some(sum)) => format!("{} objects, {}", grouped(objects), bytes(sum)),
        _ => "not looked at yet".to_owned(),
    };
    let state = match (told.reachable, told.usable, &told.why) {
        (_, false, Some(why)) => format!("not used: {why}"),
        (true, _, None) => "reachable".to_owned(),
        (true, _, Some(why)) => format!("reachable, but {why}"),
        (false, _, Some(why)) => format!("not reachable: {why}"),
        (false, _, None) => "not asked yet".to_owned(),
    };
    format!("{stock}, {} pending, {state}", grouped(told.pending.objects))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(is_up: bool, is_usable: bool, why: Option<&str>) -> Health {
        Health {
            is_up,
            is_usable,
            since: SystemTime::UNIX_EPOCH,
            why: why.map(str::to_owned),
            credentials: "none".to_owned(),
            place: "s3://x".to_owned(),
        }
    }

    fn line(health: Health, last: Option<RoundReport>) -> String {
        let bounds = Bounds { max_idle: None, max_size: None };
        let pending = Pending { objects: 1_200, ..Pending::default() };
        told(health, bounds, pending, RoundTold { under_way: false, last }).words
    }

    #[test]
    fn one_line_says_how_the_bucket_is() {
        let report =
            RoundReport { objects: 41_203, bytes: 1_300_000_000_000, ..RoundReport::default() };
        assert_eq!(
            line(health(true, true, None), Some(report.clone())),
            "41,203 objects, 1.3 TB, 1,200 pending, reachable"
        );
        assert_eq!(
            line(health(false, true, Some("no route")), None),
            "not looked at yet, 1,200 pending, not reachable: no route"
        );
        assert!(line(health(false, true, None), None).ends_with("not asked yet"));
        assert!(line(health(true, true, Some("403 to put")), None).contains("but 403 to put"));
        assert!(line(health(true, false, Some("a newer one")), None).contains("not used: a newer"));
    }
}
