//! The fleet's bucket: what one replica has fetched, for all.
//!
//! Behind every replica's disk lies one bucket: objects by their digest, and signed records that
//! say who may have them. Nothing in it is locked, no write is conditional, and whatever fails is a
//! miss. Who may have what is the gateway's business, which asks here for records before it asks
//! for bytes; this room decides only whether a record is the fleet's.
//!
//! - `options`: where it is, and how it is spoken to
//! - `layout`: what lies where in it
//! - `key`: the fleet's own key, and what is signed with it
//! - `objects`, `sending`: bytes from it and to it
//! - `records`: what the fleet knows
//! - `absences`: what it has not, as far as it was asked a moment ago
//! - `listing`: what there is
//! - `version`: what kind of bucket it is, and whose
//! - `trial`: whether it can be used, for `entrepot check`
//! - `merge`: what two replicas know of one thing, made one
//! - `queue`, `uploads`: what goes up, and when
//! - `round`: what each replica looks at once a day
//! - `notes`: what an operator has done on one replica, for the others
//! - `health`: when it is asked, and when it is left alone
//! - `stores`: options to `object_store`'s own stores
//! - `transport`: requests over our own client
//! - `secret_file`: a secret in a file, which is read again
//! - `error`: why it was of no use
//! - `for_tests`, `fleet_for_tests`: buckets in memory, replicas over them

mod absences;
mod error;
#[cfg(test)]
pub(crate) mod fleet_for_tests;
#[cfg(test)]
pub(crate) mod for_tests;
mod health;
mod key;
pub(crate) mod layout;
mod listing;
pub(crate) mod merge;
pub(crate) mod notes;
mod objects;
pub(crate) mod options;
mod queue;
mod records;
pub(crate) mod round;
mod secret_file;
mod sending;
mod stores;
mod transport;
mod trial;
pub(crate) mod uploads;
mod version;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use entrepot_oci::Digest;
use moka::sync::Cache;
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use absences::Absences;
pub(crate) use error::BucketError;
use health::Breaker;
pub(crate) use health::Health;
pub(crate) use key::{KeyError, SharedKey};
pub(crate) use layout::RecordKey;
use layout::Root;
pub(crate) use objects::{BucketBody, BucketObject};
pub(crate) use options::{Options, Private};
use stores::Stores;
use transport::{Times, Transport};
pub(crate) use trial::{Trial, try_out};
use version::Version;

use crate::metrics::{BucketOperation, Metrics};
use crate::upstream::Dialer;

/// Questions for records at a time: a pull has a dozen, and strangers invent names without end.
const QUESTIONS: usize = 64;
/// How long an object is not asked for whose bytes were wrong.
const ROTTEN: Duration = Duration::from_mins(10);
/// Such objects known at a time.
const MOST_ROTTEN: u64 = 10_000;

/// The fleet's bucket; cheap to clone.
#[derive(Clone)]
pub(crate) struct Bucket {
    inner: Arc<Inner>,
}

struct Inner {
    /// For what a client waits for.
    front: Arc<dyn ObjectStore>,
    /// For what is done behind answers.
    behind: Arc<dyn ObjectStore>,
    root: Root,
    key: SharedKey,
    bounds: Bounds,
    private: Private,
    timeout: Duration,
    breaker: Breaker,
    /// Whether `VERSION` was looked at.
    is_known: OnceCell<()>,
    version: Version,
    is_told_of_ca: AtomicBool,
    absences: Absences,
    rotten: Cache<Digest, ()>,
    questions: Semaphore,
    metrics: Metrics,
    tasks: TaskTracker,
}

/// What the bucket is kept within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// What no replica has used for so long goes; `None`: the bucket's own rules decide.
    pub max_idle: Option<Duration>,
    /// Bytes of objects; `None`: no bound.
    pub max_size: Option<u64>,
}

/// Whether somebody waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A client does: so long and no longer.
    Front,
    /// Nobody does: as long as it goes on.
    Behind,
}

/// Until when an answer is waited for.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    way: Way,
    /// The moment, where a client waits.
    at: Option<Instant>,
}

impl Bucket {
    /// What it is kept within.
    #[must_use]
    pub(crate) fn bounds(&self) -> Bounds {
        self.inner.bounds
    }

    /// What becomes of bytes that were fetched under a client's own credential.
    #[must_use]
    pub(crate) fn private(&self) -> Private {
        self.inner.private
    }

    /// How it is now.
    #[must_use]
    pub(crate) fn health(&self) -> Health {
        self.inner.breaker.health()
    }

    /// Where is counted what it does.
    #[must_use]
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    fn by(&self, way: Way) -> Deadline {
        let at = (way == Way::Front).then(|| Instant::now() + self.inner.timeout);
        Deadline { way, at }
    }

    /// Asks something, if the bucket is of use and not left alone. `None`: there is nothing of that
    /// name.
    async fn ask<T, F>(
        &self,
        operation: BucketOperation,
        way: Way,
        question: impl FnOnce(Arc<dyn ObjectStore>) -> F,
    ) -> Result<Option<T>, BucketError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let by = self.by(way);
        self.is_usable().await?;
        self.ask_whatever_it_is(operation, by, question).await
    }

    /// The same, of use or not.
    async fn ask_whatever_it_is<T, F>(
        &self,
        operation: BucketOperation,
        by: Deadline,
        question: impl FnOnce(Arc<dyn ObjectStore>) -> F,
    ) -> Result<Option<T>, BucketError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let admission = self.inner.breaker.admit(operation)?;
        let store = match by.way {
            Way::Front => &self.inner.front,
            Way::Behind => &self.inner.behind,
        };
        // Boxed: what object_store makes of a question is large.
        let question = Box::pin(question(store.clone()));
        let answered = match by.at {
            Some(at) => tokio::time::timeout_at(at, question).await,
            None => Ok(question.await),
        };
        let answered = match answered {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(error)) => BucketError::of(&error).map_or(Ok(None), Err),
            Err(_) => Err(BucketError::Silent(self.inner.timeout)),
        };
        admission.end(answered)
    }

    /// Removes what lies at `path`, if something does.
    async fn delete(&self, path: Path) -> Result<(), BucketError> {
        use object_store::ObjectStoreExt as _;
        let asking = self.ask(BucketOperation::Delete, Way::Behind, |store| async move {
            store.delete(&path).await
        });
        asking.await.map(drop)
    }
}

/// What buckets are made of.
struct Parts {
    front: Arc<dyn ObjectStore>,
    behind: Arc<dyn ObjectStore>,
    key: SharedKey,
    ca: String,
    metrics: Metrics,
    tasks: TaskTracker,
}

/// There is no bucket of these options.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// No key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no credential to ask it with.
    #[error("the bucket {url} has no credential: {missing}")]
    Missing {
        /// Which.
        url: String,
        /// What is not there.
        missing: options::Missing,
    },
    /// The secret of its key is not to be had.
    #[error("bucket.secret-access-key-file {} can't be read: {source}", path.display())]
    Secret {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something that only `object_store` finds wrong.
    #[error("the bucket {url} can't be used: {reason}")]
    Options {
        /// Which.
        url: String,
        /// Why.
        reason: String,
    },
}

impl Options {
    /// With which credential the bucket is asked, for people; or why it can't be. Blocking.
    fn credentials(&self) -> Result<String, OpenError> {
        if let Some(path) = self.place.secret_file() {
            std::fs::read_to_string(path)
                .map_err(|source| OpenError::Secret { path: path.to_owned(), source })?;
        }
        let url = self.url.clone();
        self.place.credentials().map_err(|missing| OpenError::Missing { url, missing })
    }
}

impl Bucket {
    /// The bucket of these options, reached by `dialer`'s rules. `ca`: the fingerprint of the CA
    /// that all replicas have. Makes the fleet's key where there is none; blocking. Nothing is
    /// asked yet.
    pub(crate) fn new(
        options: &Options,
        dialer: &Dialer,
        ca: &str,
        metrics: Metrics,
        tasks: TaskTracker,
    ) -> Result<Self, OpenError> {
        let credentials = options.credentials()?;
        let key = SharedKey::read_or_make(&options.key_file)?;
        let times = Times { timeout: options.timeout, idle: options.idle_timeout };
        let (host, may_ask_metadata) = (options.place.host(), options.place.needs_metadata());
        let transport = Transport::new(dialer, &host, may_ask_metadata, times, metrics.clone());
        let stores = options.place.stores(&transport);
        let Stores { front, behind } = stores.map_err(|error| OpenError::Options {
            url: options.url.clone(),
            reason: crate::words::chain(&error),
        })?;
        tracing::info!(
            bucket = options.url,
            credentials,
            key = key.fingerprint(),
            "what this replica has is shared through a bucket"
        );
        let ca = ca.to_owned();
        Ok(Self::of(options, Parts { front, behind, key, ca, metrics, tasks }))
    }

    fn of(options: &Options, parts: Parts) -> Self {
        let Parts { front, behind, key, ca, metrics, tasks } = parts;
        let credentials = options.place.credentials().unwrap_or_default();
        let breaker = Breaker::new(&options.url, &credentials, metrics.clone());
        let version = Version::of(key.fingerprint(), &ca);
        let rotten = Cache::builder().max_capacity(MOST_ROTTEN).time_to_live(ROTTEN).build();
        let inner = Inner {
            front,
            behind,
            root: options.root.clone(),
            key,
            bounds: Bounds { max_idle: options.max_idle, max_size: options.max_size },
            private: options.private,
            timeout: options.timeout,
            breaker,
            is_known: OnceCell::new(),
            version,
            is_told_of_ca: AtomicBool::new(false),
            absences: Absences::default(),
            rotten,
            questions: Semaphore::new(QUESTIONS),
            metrics,
            tasks,
        };
        Self { inner: Arc::new(inner) }
    }
}

#[cfg(test)]
mod tests;
