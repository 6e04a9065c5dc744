//! Manifests, from the store or into it.
//!
//! - `by_tag`: what a tag means now, and its manifest
//! - `by_digest`: what a digest names never goes stale: once it is here, only the right to it is a
//!   question
//! - `tags`: what tags stand for, as their registries said last

mod by_digest;
mod by_tag;
pub(super) mod tags;

use std::sync::Arc;

use entrepot_oci::{Digest, Reference};

use super::answer::served::Served;
use super::exchange::Exchange;
use crate::collapse::Collapse;
use crate::upstream::UpstreamError;
use by_digest::{Fetch, ManifestRequest};
use by_tag::{HeadAnswer, HeadQuestion};
use tags::Tags;

/// What requests for manifests share.
#[derive(Default)]
pub(super) struct Manifests {
    pub(super) tags: Tags,
    heads: Collapse<HeadQuestion, Result<Arc<HeadAnswer>, Arc<UpstreamError>>>,
    fetches: Collapse<Fetch, Result<Digest, Arc<UpstreamError>>>,
}

impl Manifests {
    /// Answers a GET or HEAD of a manifest.
    pub(super) async fn serve(
        &self,
        exchange: Arc<Exchange>,
        reference: &Reference,
    ) -> Result<Served, UpstreamError> {
        let request = ManifestRequest { manifests: self, exchange };
        match reference {
            Reference::Digest(digest) => request.by_digest(digest).await,
            Reference::Tag(tag) => by_tag::serve(request, tag).await,
        }
    }
}
