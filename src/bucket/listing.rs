//! What there is in the bucket.

use std::time::SystemTime;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use object_store::{ObjectMeta, ObjectStore};

use super::Bucket;
use super::error::BucketError;
use super::health::Admission;
use super::layout::Prefix;
use crate::metrics::BucketOperation;

/// Something in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Its name below the prefix: [`Entry`](super::layout::Entry) reads it.
    pub name: String,
    /// Its length.
    pub size: u64,
    /// When it was last written, by the bucket's clock.
    pub modified: SystemTime,
}

struct Listing {
    bucket: Bucket,
    found: Option<BoxStream<'static, object_store::Result<ObjectMeta>>>,
    /// Until it is known whether the bucket answers.
    admission: Option<Admission>,
    prefix: String,
    after: Option<String>,
}

impl Bucket {
    /// What there is below `prefix`, in the order of names; from behind the name `after` on, if
    /// that is given. One page of a thousand is asked for at a time, when it is wanted. Ends at the
    /// first error.
    pub(crate) fn list(
        &self,
        prefix: &Prefix,
        after: Option<&str>,
    ) -> impl Stream<Item = Result<Item, BucketError>> + Send + 'static + use<> {
        let listing = Listing {
            bucket: self.clone(),
            found: None,
            admission: None,
            prefix: prefix.to_string(),
            after: after.map(str::to_owned),
        };
        stream::unfold(Some(listing), |listing| async move {
            let mut listing = listing?;
            match listing.next().await {
                Ok(None) => None,
                Ok(Some(item)) => Some((Ok(item), Some(listing))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

impl Listing {
    async fn next(&mut self) -> Result<Option<Item>, BucketError> {
        loop {
            let found = self.found().await?.next().await.transpose();
            let found = found.map_err(|error| {
                let absent = || BucketError::Failed("404 to a list".to_owned());
                BucketError::of(&error).unwrap_or_else(absent)
            });
            let found = match self.admission.take() {
                Some(admission) => admission.end(found)?,
                None => found?,
            };
            let Some(meta) = found else { return Ok(None) };
            if let Some(name) = self.bucket.inner.root.name(&meta.location) {
                let modified = meta.last_modified.into();
                return Ok(Some(Item { name, size: meta.size, modified }));
            }
        }
    }

    async fn found(
        &mut self,
    ) -> Result<&mut BoxStream<'static, object_store::Result<ObjectMeta>>, BucketError> {
        let found = if let Some(found) = self.found.take() {
            found
        } else {
            let inner = &self.bucket.inner;
            self.bucket.is_usable().await?;
            self.admission = Some(inner.breaker.admit(BucketOperation::List)?);
            let prefix = inner.root.path(&self.prefix);
            match &self.after {
                Some(after) => {
                    inner.behind.list_with_offset(Some(&prefix), &inner.root.path(after))
                }
                None => inner.behind.list(Some(&prefix)),
            }
        };
        Ok(self.found.insert(found))
    }
}
