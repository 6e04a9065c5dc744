//! Registries that have had enough: after a 429, or several errors of their own in a row, they are
//! asked once a second, or when they said.
//!
//! A quota is somebody's: who was refused is held back, not the others. Where two were, and the
//! registry does not say whose quota it is, it is the address that has had too much (the Hub calls
//! that its abuse limit), and everybody is held back.

use std::time::Duration;

use entrepot_oci::Authority;
use http::{HeaderMap, StatusCode, header};
use moka::sync::Cache;
use tokio::time::Instant;

use super::fields::text;
use super::identity::Identity;

/// Between two requests to a registry that has had enough.
const PACE: Duration = Duration::from_secs(1);
/// The longest `Retry-After` that is kept to: quotas of hours are asked about now and then.
const LONGEST: Duration = Duration::from_mins(5);
/// Pairs kept at a time.
const MOST: u64 = 10_000;
/// Errors of its own in a row after which a registry is unwell: one may be a single request's.
const UNWELL: u32 = 3;
/// A registry that was not asked for so long is asked as any other.
const FORGOTTEN: Duration = Duration::from_mins(10);

/// At which registry a refusal holds, and for which identity; `None` is all of them.
type PressureKey = (Authority, Option<Identity>);

/// A refusal: when to ask again, and with what the registry has refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    next: Instant,
    pub(crate) status: StatusCode,
}

/// Who has been refused where.
pub(crate) struct Pressure {
    refused: Cache<PressureKey, Refusal>,
    /// The last to be refused, at each registry, without a word on whose quota it was.
    last: Cache<Authority, Identity>,
    /// Errors in a row.
    errors: Cache<Authority, u32>,
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            refused: Cache::builder().max_capacity(MOST).time_to_idle(FORGOTTEN).build(),
            last: Cache::builder().max_capacity(MOST).time_to_live(FORGOTTEN).build(),
            errors: Cache::builder().max_capacity(MOST).time_to_live(FORGOTTEN).build(),
        }
    }
}

impl Pressure {
    /// A place in the queue, or how long until the next and why.
    pub(crate) fn admit(
        &self,
        authority: &Authority,
        identity: &Identity,
    ) -> Result<(), (Duration, StatusCode)> {
        if let Some(refusal) = self.refusal(authority, identity) {
            return Err(refusal);
        }
        for key in keys(authority, identity) {
            if let Some(refusal) = self.refused.get(&key) {
                self.refused.insert(key, Refusal { next: Instant::now() + PACE, ..refusal });
            }
        }
        Ok(())
    }

    /// The registries that hold the shared identity back now: for how long yet, and with what they
    /// refused it.
    pub(crate) fn on_us(&self) -> Vec<(Authority, Duration, StatusCode)> {
        let is_ours = |key: &PressureKey| key.1.as_ref().is_none_or(|who| *who == Identity::Shared);
        let now = Instant::now();
        let refused = self.refused.iter().filter(|(key, _)| is_ours(key));
        refused
            .map(|(key, refusal)| {
                let wait = refusal.next.saturating_duration_since(now);
                (key.0.clone(), wait, refusal.status)
            })
            .collect()
    }

    /// How long until the next place, and why, if there is none now; takes none.
    pub(crate) fn refusal(
        &self,
        authority: &Authority,
        identity: &Identity,
    ) -> Option<(Duration, StatusCode)> {
        let refusals = keys(authority, identity).into_iter();
        refusals.filter_map(|key| self.refused.get(&key)).find_map(|refusal| {
            let wait = refusal.next.checked_duration_since(Instant::now())?;
            (!wait.is_zero()).then_some((wait, refusal.status))
        })
    }

    /// Notes an answer.
    pub(crate) fn note(
        &self,
        authority: &Authority,
        identity: &Identity,
        status: StatusCode,
        headers: &HeaderMap,
    ) {
        if status.is_server_error() {
            self.note_error(authority, status);
            return;
        }
        if status != StatusCode::TOO_MANY_REQUESTS {
            self.relax(authority, identity);
            return;
        }
        let told = text(headers, header::RETRY_AFTER).and_then(|told| told.parse().ok());
        let wait = told.map_or(PACE, Duration::from_secs).clamp(PACE, LONGEST);
        let refusal = Refusal { next: Instant::now() + wait, status };
        self.refused.insert((authority.clone(), Some(identity.clone())), refusal);
        if headers.contains_key("ratelimit-remaining") {
            return;
        }
        if self.last.get(authority).is_some_and(|last| last != *identity) {
            self.refused.insert((authority.clone(), None), refusal);
        }
        self.last.insert(authority.clone(), identity.clone());
    }

    fn note_error(&self, authority: &Authority, status: StatusCode) {
        let errors = self.errors.get(authority).unwrap_or(0).saturating_add(1);
        self.errors.insert(authority.clone(), errors);
        if errors >= UNWELL {
            let refusal = Refusal { next: Instant::now() + PACE, status };
            self.refused.insert((authority.clone(), None), refusal);
        }
    }

    /// What was refused to others without a word on whose quota it was is over as well.
    fn relax(&self, authority: &Authority, identity: &Identity) {
        for key in keys(authority, identity) {
            if self.refused.contains_key(&key) {
                self.refused.invalidate(&key);
            }
        }
        if self.errors.contains_key(authority) {
            self.errors.invalidate(authority);
        }
        if self.last.contains_key(authority) {
            self.last.invalidate(authority);
        }
    }
}

/// What may hold somebody back: a refusal of his own, or of everybody.
fn keys(authority: &Authority, identity: &Identity) -> [PressureKey; 2] {
    [Some(identity.clone()), None].map(|identity| (authority.clone(), identity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::identity::Identifier;
    use http::HeaderValue;

    fn client(name: &'static str) -> Identity {
        thread_local!(static IDENTIFIER: Identifier = Identifier::new());
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static(name));
        IDENTIFIER.with(|identifier| identifier.identify(&headers))
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_client_is_held_back_and_the_others_are_not() {
        let pressure = Pressure::default();
        let hub: Authority = "registry-1.docker.io:443".parse().unwrap();
        let (shared, alice) = (Identity::Shared, client("alice"));
        let refuse = |who: &Identity| {
            pressure.note(&hub, who, StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new());
        };
        assert!(pressure.admit(&hub, &shared).is_ok());
        refuse(&shared);
        assert!(pressure.admit(&hub, &shared).is_err());
        assert!(pressure.admit(&hub, &alice).is_ok(), "she has a quota of her own");
        tokio::time::advance(PACE).await;
        assert!(pressure.admit(&hub, &shared).is_ok());
        assert!(pressure.admit(&hub, &shared).is_err(), "one a second");

        refuse(&alice);
        tokio::time::advance(PACE).await;
        assert!(pressure.admit(&hub, &client("bob")).is_ok());
        assert!(pressure.admit(&hub, &alice).is_err(), "now it is everybody's");
        pressure.note(&hub, &alice, StatusCode::OK, &HeaderMap::new());
        assert!(pressure.admit(&hub, &alice).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn errors_in_a_row_are_the_registrys_state() {
        let pressure = Pressure::default();
        let hub: Authority = "registry-1.docker.io:443".parse().unwrap();
        let note = |status| pressure.note(&hub, &Identity::Shared, status, &HeaderMap::new());
        for _ in 1..UNWELL {
            note(StatusCode::BAD_GATEWAY);
            assert!(pressure.admit(&hub, &Identity::Shared).is_ok());
        }
        note(StatusCode::BAD_GATEWAY);
        assert!(pressure.admit(&hub, &client("alice")).is_err());
        tokio::time::advance(PACE).await;
        assert!(pressure.admit(&hub, &client("alice")).is_ok());
        note(StatusCode::OK);
        assert!(pressure.admit(&hub, &client("alice")).is_ok());
        note(StatusCode::BAD_GATEWAY);
        assert!(pressure.admit(&hub, &client("alice")).is_ok(), "counted anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_quota_that_the_registry_tells_of_is_nobody_elses() {
        let pressure = Pressure::default();
        let hub: Authority = "registry-1.docker.io:443".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit-remaining", HeaderValue::from_static("0;w=21600"));
        for who in [Identity::Shared, client("alice")] {
            pressure.note(&hub, &who, StatusCode::TOO_MANY_REQUESTS, &headers);
            assert!(pressure.admit(&hub, &who).is_err());
        }
        assert!(pressure.admit(&hub, &client("bob")).is_ok());
        pressure.note(&hub, &client("bob"), StatusCode::OK, &HeaderMap::new());
        assert!(pressure.admit(&hub, &Identity::Shared).is_err(), "his luck is not theirs");
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_kept_to() {
        let pressure = Pressure::default();
        let hub: Authority = "registry-1.docker.io:443".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
        pressure.note(&hub, &Identity::Shared, StatusCode::TOO_MANY_REQUESTS, &headers);
        tokio::time::advance(Duration::from_secs(29)).await;
        let told = Err((Duration::from_secs(1), StatusCode::TOO_MANY_REQUESTS));
        assert_eq!(pressure.admit(&hub, &Identity::Shared), told);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pressure.admit(&hub, &Identity::Shared).is_ok());
    }
}
