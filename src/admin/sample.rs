//! The image with which clients try the proxy: one that is kept, so that it is there without the
//! registry, too.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use entrepot_oci::ImageName;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::images::Images;

/// Where nothing is kept that would do.
const USUAL: &str = "docker.io/library/hello-world:latest";
/// How often one is looked for while nobody asks.
const EVERY: Duration = Duration::from_mins(10);
/// And how often at most while somebody does: it costs a walk through some directories.
const AT_MOST: Duration = Duration::from_secs(5);

/// The name of such an image; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    found: ArcSwapOption<ImageName>,
    asked: Notify,
}

impl Sample {
    /// Looks for one again and again, until the shutdown.
    pub(crate) async fn keep(self, images: Images, shutdown: CancellationToken) {
        loop {
            let found = shutdown.run_until_cancelled(images.sample()).await;
            let Some(found) = found else { return };
            self.0.found.store(found.map(Arc::new));
            let resting = async {
                tokio::time::sleep(AT_MOST).await;
                let _ = tokio::time::timeout(EVERY, self.0.asked.notified()).await;
            };
            if shutdown.run_until_cancelled(resting).await.is_none() {
                return;
            }
        }
    }

    /// Has it looked for again, for who asks next.
    pub(super) fn refresh(&self) {
        self.0.asked.notify_one();
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0.found.load() {
            Some(found) => found.fmt(f),
            None => f.write_str(USUAL),
        }
    }
}
