//! Whether all is well, and what is not: one answer for the status page, `status`, readiness and
//! the API.

use std::time::{Duration, SystemTime};

use entrepot_oci::{Registry, UnixSeconds};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::AdminServices;
use super::scrape::index_state;
use crate::registry::{Quota, RegistryState, State};
use crate::words::utc;

/// Troubles that the sentence tells one by one.
const MOST_TOLD: usize = 3;
/// A CA that ends within this time has to be renewed: every client must be told.
const CA_ENDS_SOON: Duration = Duration::from_hours(24 * 14);

/// What is wrong.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    /// With which registry; none if it is with the proxy itself.
    pub(super) registry: Option<String>,
    /// The state that it is in.
    pub(super) state: &'static str,
    /// Since when, if that is known.
    pub(super) since: Option<SystemTime>,
    /// Until when, if that is told.
    pub(super) until: Option<SystemTime>,
    /// The cause.
    pub(super) why: String,
    /// All of it, as a clause.
    pub(super) words: String,
}

/// Everything that is wrong now, what matters most first.
pub(super) fn troubles(services: &AdminServices) -> Vec<Trouble> {
    let now = SystemTime::now();
    let mut troubles = own(services, now);
    troubles.extend(states(services).iter().map(|state| of_registry(state, now)));
    troubles
}

/// The registries that something is wrong with; of two, the worse first.
pub(super) fn states(services: &AdminServices) -> Vec<RegistryState> {
    let mut states = services.gateway.troubles();
    for (registry, quota) in services.gateway.quotas() {
        if quota.remaining == 0 && states.iter().all(|state| state.registry != registry) {
            states.push(used_up(registry, &quota));
        }
    }
    states.sort_by(|a, b| (a.state, &a.registry).cmp(&(b.state, &b.registry)));
    states
}

/// Nobody has been refused yet, and the next who pulls will be.
fn used_up(registry: Registry, quota: &Quota) -> RegistryState {
    let of = quota.limit.map(|limit| format!(" of {limit} pulls")).unwrap_or_default();
    RegistryState {
        since: Some(quota.told),
        until: quota.whole_again(),
        why: format!("this proxy's quota{of} is used up"),
        ..RegistryState::of(registry, State::Limited)
    }
}

fn own(services: &AdminServices, now: SystemTime) -> Vec<Trouble> {
    let trouble = |why: &str| Trouble {
        registry: None,
        state: "store",
        since: None,
        until: None,
        why: why.to_owned(),
        words: why.to_owned(),
    };
    let mut own = Vec::new();
    if services.gateway.store_health().is_troubled {
        own.push(trouble("the store's disk fails: downloads are passed on unkept"));
    }
    if index_state(services.store.index_state()) == "in_memory" {
        own.push(trouble("the store's index is given up until the next start"));
    }
    if let Some(shared) = &services.shared
        && let Some((why, since)) = shared.trouble()
    {
        let words = format!("the bucket is of no use since {} ({why})", moment(since, now));
        let since = Some(since);
        own.push(Trouble { state: "bucket", since, words, ..trouble(&why) });
    }
    let ends = services.facts.ca_expiry;
    if ends < now + CA_ENDS_SOON {
        let words = format!(
            "the CA ends {}: `entrepot ca renew` makes another, which every client must trust",
            moment(ends, now)
        );
        own.push(Trouble { state: "ca", until: Some(ends), ..trouble(&words) });
    }
    own
}

fn of_registry(state: &RegistryState, now: SystemTime) -> Trouble {
    let RegistryState { registry, state, since, until, why } = state;
    let what = match state {
        State::Away => "can't be reached",
        State::CredentialsRefused => "does not let this proxy in",
        State::Limited => "lets this proxy wait",
        State::Unwell => "is unwell",
        State::Slow => "is slow",
        State::Well | State::Unknown => "is well",
    };
    let since_then = since.map(|since| format!(" since {}", moment(since, now)));
    let until_then = until.filter(|until| *until > now);
    let until_then = until_then.map(|until| format!(" until {}", moment(until, now)));
    let (since_then, until_then) = (since_then.unwrap_or_default(), until_then.unwrap_or_default());
    Trouble {
        registry: Some(registry.to_string()),
        state: state.as_str(),
        since: *since,
        until: *until,
        why: why.clone(),
        words: format!("{registry} {what}{since_then}{until_then} ({why})"),
    }
}

/// A time of day; with the date where that is another day.
fn moment(at: SystemTime, now: SystemTime) -> String {
    let (at, now) = (OffsetDateTime::from(at), OffsetDateTime::from(now));
    utc(at, at.date() != now.date())
}

/// One sentence on everything.
pub(super) fn sentence(troubles: &[Trouble]) -> String {
    if troubles.is_empty() {
        return "All well.".to_owned();
    }
    let told: Vec<_> = troubles.iter().take(MOST_TOLD).map(|one| one.words.as_str()).collect();
    let count = troubles.len();
    let count = if count > 1 { format!("{count} things are wrong: ") } else { String::new() };
    let rest = troubles.len().saturating_sub(MOST_TOLD);
    let rest = if rest > 0 { format!("; and {rest} more") } else { String::new() };
    let is_of_registry = troubles.iter().any(|one| one.registry.is_some());
    let comfort = if is_of_registry { "; what is kept is served" } else { "" };
    format!("{count}{}{rest}{comfort}.", told.join("; "))
}

/// The whole answer, as a document.
pub(super) fn document(services: &AdminServices) -> Value {
    let troubles = troubles(services);
    let verdict = match (services.shutdown.is_cancelled(), troubles.is_empty()) {
        (true, _) => "draining",
        (false, true) => "well",
        (false, false) => "troubled",
    };
    json!({
        "name": services.facts.name,
        "version": env!("CARGO_PKG_VERSION"),
        "contact": services.speaker.contact(),
        "proxy_url": services.facts.proxy_url,
        "started": UnixSeconds::from(services.metrics.started()),
        "verdict": verdict,
        "sentence": sentence(&troubles),
        "troubles": troubles.iter().map(shown).collect::<Vec<_>>(),
    })
}

fn shown(trouble: &Trouble) -> Value {
    json!({
        "registry": trouble.registry,
        "state": trouble.state,
        "since": trouble.since.map(UnixSeconds::from),
        "until": trouble.until.map(UnixSeconds::from),
        "why": trouble.why,
        "words": trouble.words,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UnixSeconds(seconds).time().unwrap()
    }

    fn trouble(name: &str, state: State, since: u64, until: Option<u64>) -> Trouble {
        let registry = Registry::at(&format!("{name}:443").parse().unwrap());
        let state = RegistryState {
            since: Some(at(since)),
            until: until.map(at),
            why: "because".to_owned(),
            ..RegistryState::of(registry, state)
        };
        of_registry(&state, at(1_790_000_000))
    }

    #[test]
    fn one_sentence_says_what_is_wrong_and_since_when() {
        assert_eq!(sentence(&[]), "All well.");
        let away = trouble("ghcr.io", State::Away, 1_789_999_000, None);
        assert_eq!(
            sentence(std::slice::from_ref(&away)),
            "ghcr.io can't be reached since 13:56 UTC (because); what is kept is served."
        );
        let limited = trouble("quay.io", State::Limited, 1_789_900_000, Some(1_790_000_600));
        assert_eq!(
            limited.words,
            "quay.io lets this proxy wait since 2026-09-20 10:26 UTC until 14:23 UTC (because)"
        );
        let over = trouble("quay.io", State::Limited, 1_790_000_000, Some(1_789_000_600));
        assert_eq!(over.words, "quay.io lets this proxy wait since 14:13 UTC (because)");
        let all = vec![away; 5];
        let told = sentence(&all);
        assert!(told.starts_with("5 things are wrong: ghcr.io can't be reached"), "{told}");
        assert!(told.ends_with("; and 2 more; what is kept is served."), "{told}");
    }
}
