//! Manifests, from the store or into it.
//!
//! - `by_tag`: what a tag means now, and its manifest
//! - `by_digest`: what a digest names never goes stale: once it is here, only the right to it is a
//!   question
//! - `uses`: how often tags are pulled
//! - `tags`: what tags stand for, as their registries said last

mod by_digest;
mod by_tag;
pub(super) mod tags;
pub(super) mod uses;

use std::sync::Arc;

use entrepot_oci::Reference;

use super::answer::served::Served;
use super::exchange::Exchange;
use crate::memory::Shares;
use crate::upstream::UpstreamError;
use by_digest::{Bringing, Fetches, ManifestRequest};
use by_tag::Heads;
use tags::Tags;
use uses::TagUses;

/// What requests for manifests share.
pub(super) struct Manifests {
    pub(super) tags: Arc<Tags>,
    pub(super) uses: TagUses,
    heads: Heads,
    fetches: Fetches,
    bringing: Bringing,
}

impl Manifests {
    /// Nothing is known yet.
    pub(super) fn new(shares: Shares) -> Self {
        let (uses, heads, fetches, bringing) = Default::default();
        Self { tags: Arc::new(Tags::new(shares)), uses, heads, fetches, bringing }
    }

    /// Answers a GET or HEAD of a manifest.
    pub(super) async fn serve(
        &self,
        exchange: Arc<Exchange>,
        reference: &Reference,
    ) -> Result<Served, UpstreamError> {
        let Self { tags, uses, heads, fetches, bringing } = self;
        let (tags, fetches, bringing) = (tags.clone(), fetches.clone(), bringing.clone());
        let request = ManifestRequest { tags, fetches, bringing, exchange };
        match reference {
            Reference::Digest(digest) => request.by_digest(digest).await,
            Reference::Tag(tag) => {
                let place = request.exchange.rights.place().clone();
                let served = by_tag::serve(request, heads, tag).await?;
                if served.response.status().is_success() {
                    uses.note(&place, tag, served.outcome().is_from_store());
                }
                Ok(served)
            }
        }
    }
}
