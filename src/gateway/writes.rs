//! Pushes and deletes: relayed, and what was known of what they change is forgotten.
//!
//! Who writes through the proxy reads his own writes. An object itself may stay: others may need
//! it, and without its belonging here the registry is asked about it.

use std::sync::Arc;

use entrepot_oci::{Reference, Route};
use http::Method;

use super::access::Place;
use super::answer::served::Served;
use super::exchange::{Asked, Common};
use super::listings::Listings;
use super::manifests::Manifests;
use super::relay;
use crate::registry::identity::Identity;
use crate::upstream::UpstreamError;
use crate::upstream::body::RequestBody;

/// What is known of repositories.
pub(super) struct Knowledge<'a> {
    pub(super) common: &'a Arc<Common>,
    pub(super) manifests: &'a Manifests,
    pub(super) listings: &'a Listings,
}

impl Knowledge<'_> {
    /// Relays what changes something at the registry.
    pub(super) async fn write(
        &self,
        asked: Asked,
        body: RequestBody,
    ) -> Result<Served, UpstreamError> {
        let (route, method, registry) =
            (asked.route.clone(), asked.method.clone(), asked.registry.clone());
        let is_clients = self.common.registries.identify(&asked.headers) != Identity::Shared;
        let answer = relay::serve(self.common, asked, body).await;
        // What it has come to is not known where the registry fails: it may be done.
        let status = answer.as_ref().ok().map(|served| served.response.status());
        if status.is_some_and(|status| status.is_client_error() || status.is_redirection()) {
            return answer;
        }
        match route.repository() {
            Some(repository) => {
                let place = Place::new(&registry, repository);
                self.common.generations.written(&place);
                if status.is_some_and(|status| status.is_success()) {
                    self.forget(&place, &method, &route).await;
                }
            }
            // In a form of its own, or by the registry's own API. Strangers write nothing.
            None if is_clients => self.common.generations.written_somewhere(&registry),
            None => {}
        }
        answer
    }

    async fn forget(&self, place: &Place, method: &Method, route: &Route) {
        let records = self.common.archive.repository(&place.registry, &place.repository);
        let is_delete = *method == Method::DELETE;
        match route {
            Route::Manifest { reference: Reference::Tag(tag), .. } => {
                let meant = self.manifests.tags.forget_tag(&records, place, tag).await;
                if is_delete {
                    // Some registries take what a tag stands for away with it.
                    for digest in &meant {
                        self.common.access.disown(&records, place, digest).await;
                    }
                }
                self.listings.forget(&records, place).await;
            }
            Route::Manifest { reference: Reference::Digest(digest), .. } => {
                if is_delete {
                    self.manifests.tags.forget_digest(&records, place, digest).await;
                    self.common.access.disown(&records, place, digest).await;
                }
                self.listings.forget(&records, place).await;
            }
            Route::Blob { digest, .. } if is_delete => {
                self.common.access.disown(&records, place, digest).await;
            }
            _ => {}
        }
    }
}
