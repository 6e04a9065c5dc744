//! What is counted of the fleet's bucket.
//!
//! It is shown where there is a bucket; without one a page has nothing of it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::histogram::{FIRST_BYTE, Histogram};
use super::{Count, Families};

/// What a request to the bucket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BucketOperation {
    /// To read an object or a record.
    Get,
    /// To ask whether one is there.
    Head,
    /// To write, or a part of that.
    Put,
    /// To remove.
    Delete,
    /// To see what there is.
    List,
    /// For the right to do all that.
    Credentials,
}

impl BucketOperation {
    /// Every operation there is.
    pub(crate) const ALL: [Self; 6] =
        [Self::Get, Self::Head, Self::Put, Self::Delete, Self::List, Self::Credentials];

    /// The label.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Credentials => "credentials",
        }
    }
}

/// How a request to the bucket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BucketAnswer {
    /// As wanted.
    Ok,
    /// There is nothing of that name.
    Absent,
    /// It may not be done (401, 403), or nothing of the kind is there to do it with.
    Refused,
    /// There are too many requests (429, 503).
    Busy,
    /// The bucket's own error, or one that it finds in the request.
    Error,
    /// No answer in time.
    Silent,
    /// No connection.
    Unreachable,
    /// The connection broke.
    Broken,
}

impl BucketAnswer {
    const ALL: [Self; 8] = [
        Self::Ok,
        Self::Absent,
        Self::Refused,
        Self::Busy,
        Self::Error,
        Self::Silent,
        Self::Unreachable,
        Self::Broken,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Absent => "absent",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::Error => "error",
            Self::Silent => "silent",
            Self::Unreachable => "unreachable",
            Self::Broken => "broken",
        }
    }
}

/// A number that is as it is now.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    /// It is this now.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// What it is.
    #[must_use]
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of the bucket.
#[derive(Debug)]
pub(crate) struct BucketMetrics {
    is_there: AtomicBool,
    is_up: AtomicBool,
    is_usable: AtomicBool,
    requests: [[Count; BucketAnswer::ALL.len()]; BucketOperation::ALL.len()],
    durations: [Histogram; BucketOperation::ALL.len()],
    /// Bytes of bodies that came from it.
    pub(crate) received: Count,
    /// Bytes of bodies that went there.
    pub(crate) sent: Count,
    /// Objects that it had.
    pub(crate) hits: Count,
    /// Objects, and records of objects, that it had not.
    pub(crate) misses: Count,
    /// Transfers from it that broke and were taken up again.
    pub(crate) resumed: Count,
    /// Questions for records that were not asked, since too many were under way.
    pub(crate) unasked: Count,
    /// Objects whose bytes are not those of their digest.
    pub(crate) damaged: Count,
    /// Records that nobody with the key has written.
    pub(crate) forged: Count,
    /// Uploads that wait or are under way.
    pub(crate) pending_objects: Gauge,
    /// Their bytes.
    pub(crate) pending_bytes: Gauge,
    /// Since when the oldest of them waits, in seconds since 1970; 0: none does.
    pub(crate) oldest_pending_since: Gauge,
    /// Uploads that found no place in the queue.
    pub(crate) dropped: Count,
    /// Uploads that failed, and are tried again.
    pub(crate) failed_uploads: Count,
    /// Objects that were put there.
    pub(crate) uploaded: Count,
    /// Objects there, as of the last round.
    pub(crate) objects: Gauge,
    /// Their bytes.
    pub(crate) bytes: Gauge,
    /// Objects that rounds have removed.
    pub(crate) removed: Count,
    /// When the last round ended, in seconds since 1970; 0: none has.
    pub(crate) round_ended: Gauge,
}

impl Default for BucketMetrics {
    fn default() -> Self {
        Self {
            is_there: AtomicBool::new(false),
            is_up: AtomicBool::new(false),
            is_usable: AtomicBool::new(false),
            requests: std::array::from_fn(|_| std::array::from_fn(|_| Count::default())),
            durations: std::array::from_fn(|_| Histogram::new(FIRST_BYTE)),
            received: Count::default(),
            sent: Count::default(),
            hits: Count::default(),
            misses: Count::default(),
            resumed: Count::default(),
            unasked: Count::default(),
            damaged: Count::default(),
            forged: Count::default(),
            pending_objects: Gauge::default(),
            pending_bytes: Gauge::default(),
            oldest_pending_since: Gauge::default(),
            dropped: Count::default(),
            failed_uploads: Count::default(),
            uploaded: Count::default(),
            objects: Gauge::default(),
            bytes: Gauge::default(),
            removed: Count::default(),
            round_ended: Gauge::default(),
        }
    }
}

impl BucketMetrics {
    /// From now on there is a bucket to be counted.
    pub(crate) fn begin(&self) {
        self.is_there.store(true, Ordering::Relaxed);
    }

    /// Whether the bucket can be reached and used now.
    pub(crate) fn set_up(&self, is_up: bool) {
        self.is_up.store(is_up, Ordering::Relaxed);
    }

    /// Whether what lies in the bucket is of this version, and under this replica's key.
    pub(crate) fn set_usable(&self, is_usable: bool) {
        self.is_usable.store(is_usable, Ordering::Relaxed);
    }

    /// A request has been answered like this, after so long.
    pub(crate) fn asked(
        &self,
        operation: BucketOperation,
        answer: BucketAnswer,
        duration: Duration,
    ) {
        let counts = self.requests.get(operation as usize);
        if let Some(count) = counts.and_then(|counts| counts.get(answer as usize)) {
            count.add_one();
        }
        if let Some(histogram) = self.durations.get(operation as usize) {
            histogram.observe(duration);
        }
    }

    pub(super) fn write(&self, families: &mut Families<'_, '_>) -> fmt::Result {
        if !self.is_there.load(Ordering::Relaxed) {
            return Ok(());
        }
        let is = |flag: &AtomicBool| u64::from(flag.load(Ordering::Relaxed));
        let help = "Whether the fleet's bucket can be reached and used.";
        families.gauge("entrepot_bucket_up", help, is(&self.is_up))?;
        let help = "Whether the bucket is of this version's kind and under this replica's key.";
        families.gauge("entrepot_bucket_usable", help, is(&self.is_usable))?;
        self.write_requests(families)?;
        for (name, help, count) in [
            ("received_bytes", "Bytes of bodies that came from the bucket.", &self.received),
            ("sent_bytes", "Bytes of bodies that went to the bucket.", &self.sent),
            ("hits", "Objects that came from the bucket.", &self.hits),
            ("misses", "Objects that the bucket was asked for and had not.", &self.misses),
            ("resumed", "Transfers from the bucket that broke and were resumed.", &self.resumed),
            (
                "unasked",
                "Questions for records that were not asked: too many were under way.",
                &self.unasked,
            ),
            (
                "damaged",
                "Objects of the bucket whose bytes were not those of their digest.",
                &self.damaged,
            ),
            ("forged", "Records that nobody with the bucket's key has written.", &self.forged),
            ("uploads", "Objects that were put into the bucket.", &self.uploaded),
            ("upload_failures", "Tries to upload that failed.", &self.failed_uploads),
            ("dropped_uploads", "Uploads that found no place in the queue.", &self.dropped),
            ("removed_objects", "Objects that rounds have removed.", &self.removed),
        ] {
            families.counter(&format!("entrepot_bucket_{name}"), help, count.value())?;
        }
        self.write_stock(families)
    }

    fn write_requests(&self, families: &mut Families<'_, '_>) -> fmt::Result {
        let operations = || BucketOperation::ALL.into_iter();
        let asked = operations().zip(&self.requests).flat_map(|(operation, counts)| {
            let counts = BucketAnswer::ALL.into_iter().zip(counts);
            let seen = counts
                .filter(|(answer, count)| count.value() > 0 || matches!(answer, BucketAnswer::Ok));
            seen.map(move |(answer, count)| {
                let labels = [("operation", operation.label()), ("outcome", answer.label())];
                (labels, count.value())
            })
        });
        let help = "Requests to the bucket, by what they were for and how they ended.";
        families.counters("entrepot_bucket_requests", help, asked)?;
        let durations = operations()
            .zip(&self.durations)
            .filter(|(_, times)| !times.is_empty())
            .map(|(operation, times)| ([("operation", operation.label())], times));
        let help = "From asking the bucket to the beginning of its answer.";
        families.histograms("entrepot_bucket_request_duration_seconds", help, durations)
    }

    fn write_stock(&self, families: &mut Families<'_, '_>) -> fmt::Result {
        let since = self.oldest_pending_since.value();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let oldest = if since == 0 { 0 } else { now.saturating_sub(since) };
        for (name, help, value) in [
            (
                "pending_objects",
                "Uploads that wait or are under way.",
                self.pending_objects.value(),
            ),
            ("pending_bytes", "Bytes of those.", self.pending_bytes.value()),
            ("oldest_pending_seconds", "For how long the oldest of those has waited.", oldest),
            ("objects", "Objects in the bucket, as of the last round.", self.objects.value()),
            ("bytes", "Bytes of those.", self.bytes.value()),
            (
                "round_timestamp_seconds",
                "When the last round through the bucket ended; 0: none has.",
                self.round_ended.value(),
            ),
        ] {
            families.gauge(&format!("entrepot_bucket_{name}"), help, value)?;
        }
        Ok(())
    }
}
