//! Buckets in memory.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio_util::task::TaskTracker;

use super::layout::Root;
use super::options::{Place, S3, S3Credentials};
use super::{Bucket, Options, Parts, Private, SharedKey};
use crate::metrics::Metrics;

impl Bucket {
    /// One that is empty.
    pub(crate) fn in_memory() -> Self {
        Self::over(Arc::new(InMemory::new()), Metrics::default())
    }

    /// The bucket in `store`, as a replica has it: another over the same one is another replica's.
    pub(crate) fn over(store: Arc<dyn ObjectStore>, metrics: Metrics) -> Self {
        Self::with(store, metrics, &[7; 32], &options())
    }

    /// The same, under a key of one's own and these options.
    pub(crate) fn with(
        store: Arc<dyn ObjectStore>,
        metrics: Metrics,
        key: &[u8],
        options: &Options,
    ) -> Self {
        let key = SharedKey::for_tests(key);
        let (front, behind) = (store.clone(), store);
        let (ca, tasks) = ("01:02".to_owned(), TaskTracker::new());
        Self::of(options, Parts { front, behind, key, ca, metrics, tasks })
    }
}

/// Options of such a bucket.
pub(crate) fn options() -> Options {
    let s3 = S3 {
        bucket: "tests".to_owned(),
        endpoint: None,
        region: "here".to_owned(),
        path_style: true,
        credentials: Ok(S3Credentials::None),
        encryption: None,
    };
    Options {
        url: "s3://tests/eu".to_owned(),
        place: Place::S3(s3),
        root: Root::new("eu"),
        max_idle: Some(Duration::from_hours(90 * 24)),
        max_size: None,
        timeout: Duration::from_secs(3),
        idle_timeout: Duration::from_mins(1),
        key_file: "bucket.key".into(),
        private: Private::Share,
    }
}
