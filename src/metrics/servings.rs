//! What each client was served lately, for the client itself: whether it pulls through here, and
//! whether what it pulled came from the store.
//!
//! One short lock an object. So many clients are known and so many images of each, and no more: a
//! new one takes the place of the one that was not served for the longest.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use entrepot_oci::Route;
use parking_lot::Mutex;

use crate::log::{Outcome, RequestLine, Subject};

/// Clients that are known.
const MOST_CLIENTS: usize = 512;
/// Repositories that are known of each.
const MOST_REPOSITORIES: usize = 4;

/// What a client was served of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Serving {
    /// Its registry.
    pub registry: String,
    /// Its name there.
    pub repository: String,
    /// Manifests, and questions about them.
    pub manifests: u64,
    /// Blobs, and parts of them.
    pub blobs: u64,
    /// How many of both came from the store.
    pub hits: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    /// When the last one ended.
    pub last: SystemTime,
}

#[derive(Debug, Default)]
pub(super) struct Servings(Mutex<HashMap<IpAddr, Vec<Serving>>>);

impl Servings {
    pub(super) fn note(&self, line: &Arc<RequestLine>) {
        let Subject::Registry { registry, route, .. } = &line.subject else { return };
        let is_blob = match route {
            Route::Blob { .. } => true,
            Route::Manifest { .. } => false,
            _ => return,
        };
        let Some(repository) = route.repository() else { return };
        if !line.status.is_some_and(|status| status.is_success()) {
            return;
        }
        let is_hit = matches!(line.outcome, Outcome::Hit | Outcome::Revalidated | Outcome::Stale);
        let at = SystemTime::now();
        let mut clients = self.0.lock();
        if clients.len() >= MOST_CLIENTS && !clients.contains_key(&line.client) {
            forget_oldest(&mut clients);
        }
        let known = clients.entry(line.client).or_default();
        let place = place_of(known, registry.as_str(), repository.as_str(), at);
        if let Some(serving) = known.get_mut(place) {
            serving.manifests += u64::from(!is_blob);
            serving.blobs += u64::from(is_blob);
            serving.hits += u64::from(is_hit);
            serving.bytes += line.body_bytes;
            serving.last = at;
        }
    }

    /// What is known of one client, the latest first.
    pub(super) fn of(&self, client: IpAddr) -> Vec<Serving> {
        let mut known = self.0.lock().get(&client).cloned().unwrap_or_default();
        known.sort_by_key(|serving| std::cmp::Reverse(serving.last));
        known
    }
}

/// The place of a repository among those of a client.
fn place_of(known: &mut Vec<Serving>, registry: &str, repository: &str, at: SystemTime) -> usize {
    let is_it = |one: &Serving| one.repository == repository && one.registry == registry;
    if let Some(place) = known.iter().position(is_it) {
        return place;
    }
    if known.len() >= MOST_REPOSITORIES {
        let oldest = known.iter().enumerate().min_by_key(|(_, one)| one.last);
        if let Some((place, _)) = oldest {
            known.swap_remove(place);
        }
    }
    known.push(Serving {
        registry: registry.to_owned(),
        repository: repository.to_owned(),
        manifests: 0,
        blobs: 0,
        hits: 0,
        bytes: 0,
        last: at,
    });
    known.len().saturating_sub(1)
}

fn forget_oldest(clients: &mut HashMap<IpAddr, Vec<Serving>>) {
    let last = |known: &Vec<Serving>| known.iter().map(|one| one.last).max();
    let oldest = clients.iter().min_by_key(|(_, known)| last(known)).map(|(client, _)| *client);
    if let Some(client) = oldest {
        clients.remove(&client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_oci::Registry;
    use http::{Method, StatusCode};

    fn line(client: u32, path: &str, outcome: Outcome) -> Arc<RequestLine> {
        let ghcr = Registry::at(&"ghcr.io:443".parse().unwrap());
        let subject = Subject::of(ghcr, Route::parse(path, None), path);
        let client = IpAddr::V4(client.into());
        let line = RequestLine::new(outcome, Method::GET, subject, client);
        Arc::new(RequestLine { status: Some(StatusCode::OK), body_bytes: 5, ..line })
    }

    #[test]
    fn a_client_is_told_of_its_own_pulls() {
        let servings = Servings::default();
        let blob = format!("/v2/a/b/blobs/sha256:{}", "ab".repeat(32));
        servings.note(&line(1, "/v2/a/b/manifests/1", Outcome::Miss));
        servings.note(&line(1, &blob, Outcome::Hit));
        servings.note(&line(1, "/v2/a/b/manifests/1", Outcome::Revalidated));
        servings.note(&line(1, "/v2/", Outcome::Hit));
        let known = servings.of(IpAddr::V4(1.into()));
        assert_eq!(known.len(), 1);
        let Serving { manifests, blobs, hits, bytes, .. } = known[0];
        assert_eq!((manifests, blobs, hits, bytes), (2, 1, 2, 15));
        assert!(servings.of(IpAddr::V4(2.into())).is_empty());
    }

    #[test]
    fn there_is_an_end_to_what_is_known() {
        let servings = Servings::default();
        for client in 0..1000 {
            for repository in 0..10 {
                let path = format!("/v2/r{repository}/manifests/1");
                servings.note(&line(client, &path, Outcome::Hit));
            }
        }
        assert_eq!(servings.0.lock().len(), MOST_CLIENTS);
        let last = servings.of(IpAddr::V4(999.into()));
        assert_eq!(last.len(), MOST_REPOSITORIES);
        assert_eq!(last[0].repository, "r9");
    }
}
