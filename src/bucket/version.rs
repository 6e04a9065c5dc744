//! `VERSION`: what kind of bucket this is, and whose.
//!
//! ```text
//! entrepot bucket 1
//! key 0123456789abcdef0123456789abcdef
//! ca 01:23:…
//! ```
//!
//! The first replica leaves it there, and each looks at it before anything else, and now and then.
//! A newer kind of bucket, or another key, is nothing that this replica could read or should write
//! to. Another CA is the engines' trouble, and is said. Whoever deletes the file says that it is to
//! be written anew: after a change of key or CA, on all replicas.

use std::time::Duration;

use futures_util::StreamExt as _;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, PutOptions};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::BucketError;
use super::layout::{Root, VERSION};
use super::{Bucket, Deadline, Way};
use crate::metrics::BucketOperation;

/// The kind of bucket that this program reads and writes.
const KIND: &str = "entrepot bucket 1";
/// More than the file has.
const MOST: usize = 4096;
/// How often it is looked at.
const EVERY: Duration = Duration::from_mins(1);
/// And not before this, whoever else tries the bucket now.
const SOONEST: Duration = Duration::from_millis(500);

/// What stands in the file, as far as it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    kind: String,
    key: Option<String>,
    ca: Option<String>,
}

impl Version {
    /// What this replica would leave there.
    pub(super) fn of(key: &str, ca: &str) -> Self {
        Self { kind: KIND.to_owned(), key: Some(key.to_owned()), ca: Some(ca.to_owned()) }
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let kind = lines.next().unwrap_or_default().trim().to_owned();
        let mut version = Self { kind, key: None, ca: None };
        for line in lines {
            match line.split_once(' ') {
                Some(("key", key)) => version.key = Some(key.trim().to_owned()),
                Some(("ca", ca)) => version.ca = Some(ca.trim().to_owned()),
                // A later replica may say more, to those who know it.
                _ => {}
            }
        }
        version
    }

    fn to_text(&self) -> String {
        let line = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("{name} {value}\n")).unwrap_or_default()
        };
        format!("{}\n{}{}", self.kind, line("key", &self.key), line("ca", &self.ca))
    }

    /// Why a replica that would write `own` can't use such a bucket.
    pub(super) fn hindrance(&self, own: &Self) -> Option<String> {
        if self.kind != own.kind {
            let kind = super::error::shortened(&self.kind);
            return Some(format!(
                "its VERSION says {kind:?}, and this version of entrepot knows {KIND:?} alone: it \
                 is another program's, or a newer entrepot's"
            ));
        }
        let differs = self.key.is_some() && self.key != own.key;
        differs.then(|| {
            "it was written under another key than the one in bucket.key-file: all replicas need \
             the same file (or, where the key was changed on all of them, delete VERSION in the \
             bucket)"
                .to_owned()
        })
    }

    /// What is said of another CA.
    pub(super) fn other_ca(&self, own: &Self) -> Option<String> {
        let (theirs, ours) = (self.ca.as_ref()?, own.ca.as_ref()?);
        (theirs != ours).then(|| {
            format!(
                "the replicas have different CAs: the bucket names {theirs}, and this one has \
                 {ours}; engines will refuse one of them (where the CA was replaced on all \
                 replicas, delete VERSION in the bucket)"
            )
        })
    }
}

impl Version {
    /// What stands in a bucket that may not be this fleet's.
    pub(super) async fn read(
        store: &dyn ObjectStore,
        root: &Root,
    ) -> Result<Option<Self>, BucketError> {
        match read_at(store, &root.path(VERSION)).await {
            Ok(version) => Ok(Some(version)),
            Err(error) => BucketError::of(&error).map_or(Ok(None), Err),
        }
    }
}

async fn read_at(store: &dyn ObjectStore, path: &Path) -> object_store::Result<Version> {
    let mut found = store.get_opts(path, GetOptions::default()).await?.into_stream();
    let mut text = Vec::new();
    while let Some(piece) = found.next().await {
        text.extend_from_slice(&piece?);
        if text.len() > MOST {
            break;
        }
    }
    Ok(Version::parse(&String::from_utf8_lossy(&text)))
}

impl Bucket {
    /// That what lies in the bucket is of use, which is looked at once before anything else is
    /// asked. Cancel safe.
    pub(super) async fn is_usable(&self) -> Result<(), BucketError> {
        // Others wait for whoever looks, and of those a client may wait.
        let soon = || self.look_at_version(self.by(Way::Front));
        self.inner.is_known.get_or_try_init(soon).await?;
        self.inner.breaker.verdict()
    }

    /// Looks at `VERSION` now and then, and so at whether the bucket is there: what changes is
    /// known though nobody asks. Ends when the drain begins.
    pub(crate) async fn watch(self, shutdown: CancellationToken) {
        loop {
            match self.look_at_version(self.by(Way::Behind)).await {
                // Whoever has found it out before was as right.
                Ok(()) => drop(self.inner.is_known.set(())),
                Err(error) => tracing::debug!(%error, "the bucket's version was not read"),
            }
            let soon = self.inner.breaker.next_try();
            let next = soon.unwrap_or_else(|| Instant::now() + EVERY);
            tokio::select! {
                () = tokio::time::sleep_until(next.max(Instant::now() + SOONEST)) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// What stands there now.
    pub(super) async fn version(&self, by: Deadline) -> Result<Option<Version>, BucketError> {
        let path = self.inner.root.path(VERSION);
        let asking = self.ask_whatever_it_is(BucketOperation::Get, by, |store| async move {
            read_at(&*store, &path).await
        });
        asking.await
    }

    async fn look_at_version(&self, by: Deadline) -> Result<(), BucketError> {
        let own = &self.inner.version;
        let Some(found) = self.version(by).await? else {
            self.inner.breaker.judge(None);
            return self.leave_version(by).await;
        };
        self.inner.breaker.judge(found.hindrance(own).as_deref());
        if let Some(words) = found.other_ca(own)
            && !self.inner.is_told_of_ca.swap(true, std::sync::atomic::Ordering::Relaxed)
        {
            tracing::warn!("{words}");
        }
        Ok(())
    }

    async fn leave_version(&self, by: Deadline) -> Result<(), BucketError> {
        let (path, text) = (self.inner.root.path(VERSION), self.inner.version.to_text());
        let put = self.ask_whatever_it_is(BucketOperation::Put, by, |store| async move {
            store.put_opts(&path, text.into(), PutOptions::default()).await
        });
        match put.await {
            // What may only be read can be read.
            Ok(_) | Err(BucketError::Refused(_) | BucketError::LeftAlone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written_and_more_is_let_be() {
        let own = Version::of("abc", "01:02");
        assert_eq!(Version::parse(&own.to_text()), own);
        let more = Version::parse("entrepot bucket 1\nkey abc\nsalt x\nca 01:02\n\n");
        assert_eq!(more, own);
        assert_eq!(more.hindrance(&own), None);
        assert_eq!(more.other_ca(&own), None);
    }

    #[test]
    fn another_kind_another_key_and_another_ca_are_told_apart() {
        let own = Version::of("abc", "01:02");
        let says = |text: &str| {
            let version = Version::parse(text);
            (version.hindrance(&own).unwrap_or_default(), version.other_ca(&own))
        };
        let (hindrance, _) = says("entrepot bucket 2\nkey abc\n");
        assert!(hindrance.contains("\"entrepot bucket 2\""), "{hindrance}");
        assert!(!says("").0.is_empty());
        let (hindrance, _) = says("entrepot bucket 1\nkey abd\n");
        assert!(hindrance.contains("bucket.key-file"), "{hindrance}");
        let (hindrance, ca) = says("entrepot bucket 1\nkey abc\nca 03:04\n");
        assert!(hindrance.is_empty() && ca.unwrap().contains("03:04"));
        assert_eq!(says("entrepot bucket 1\n"), (String::new(), None));
    }
}
