//! Registries that have had enough: after a 429, or several errors of their own in a row, they are
//! asked once a second, or when they said.
//!
//! A quota is somebody's: who was refused is held back, not the others. Where two were, it is the
//! address that has had too much, and everybody is held back.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use moka::sync::Cache;
use tokio::time::Instant;

use super::headers::text;
use super::identity::Identity;
use crate::oci::Authority;

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

/// Who has been refused where.
pub(super) struct Pressure {
    refused: Cache<(Authority, Option<Identity>), Instant>,
    /// The last to be refused at each.
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
    /// A place in the queue, or how long until the next.
    pub(super) fn admit(&self, authority: &Authority, identity: &Identity) -> Result<(), Duration> {
        if self.last.get(authority).is_none() {
            return Ok(());
        }
        let now = Instant::now();
        let keys = [Some(identity.clone()), None].map(|identity| (authority.clone(), identity));
        let waits = keys.iter().filter_map(|key| self.refused.get(key));
        match waits.filter_map(|next| next.checked_duration_since(now)).max() {
            Some(wait) if !wait.is_zero() => return Err(wait),
            _ => {}
        }
        for key in keys {
            if self.refused.contains_key(&key) {
                self.refused.insert(key, now + PACE);
            }
        }
        Ok(())
    }

    /// Notes an answer.
    pub(super) fn note(
        &self,
        authority: &Authority,
        identity: &Identity,
        status: StatusCode,
        headers: &HeaderMap,
    ) {
        if status.is_server_error() {
            self.note_error(authority, identity);
            return;
        }
        if status != StatusCode::TOO_MANY_REQUESTS {
            self.relax(authority, identity);
            return;
        }
        let told = text(headers, header::RETRY_AFTER).and_then(|told| told.parse().ok());
        let wait = told.map_or(PACE, Duration::from_secs).clamp(PACE, LONGEST);
        let next = Instant::now() + wait;
        let is_everybodys = self.last.get(authority).is_some_and(|last| last != *identity);
        self.last.insert(authority.clone(), identity.clone());
        self.refused.insert((authority.clone(), Some(identity.clone())), next);
        if is_everybodys {
            self.refused.insert((authority.clone(), None), next);
        }
    }

    fn note_error(&self, authority: &Authority, identity: &Identity) {
        let errors = self.errors.get(authority).unwrap_or(0).saturating_add(1);
        self.errors.insert(authority.clone(), errors);
        if errors >= UNWELL {
            self.last.insert(authority.clone(), identity.clone());
            self.refused.insert((authority.clone(), None), Instant::now() + PACE);
        }
    }

    fn relax(&self, authority: &Authority, identity: &Identity) {
        if self.errors.contains_key(authority) {
            self.errors.invalidate(authority);
        }
        if self.last.get(authority).is_some() {
            self.refused.invalidate(&(authority.clone(), Some(identity.clone())));
            self.refused.invalidate(&(authority.clone(), None));
            self.last.invalidate(authority);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::identity::Identifier;
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
    async fn retry_after_is_kept_to() {
        let pressure = Pressure::default();
        let hub: Authority = "registry-1.docker.io:443".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
        pressure.note(&hub, &Identity::Shared, StatusCode::TOO_MANY_REQUESTS, &headers);
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(pressure.admit(&hub, &Identity::Shared), Err(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pressure.admit(&hub, &Identity::Shared).is_ok());
    }
}
