//! What a person who watches wants to see: requests, errors, registries, how it went.

use std::time::{Duration, SystemTime};

use entrepot_oci::{HostPattern, Registry, UnixSeconds};
use serde_json::{Map, Value, json};

use super::super::AdminServices;
use super::super::history::{Point, STEP};
use super::super::verdict;
use crate::metrics::{Answered, Demand, FailureGroup, MOST_REQUESTS, RegistrySummary, Side};
use crate::registry::{Quota, RegistryState, State};
use crate::upstream::Outage;

/// Repositories that are told of.
const MOST_REPOSITORIES: usize = 20;

/// What is said of a name that is nobody's.
const UNRESOLVED: &str = " does not resolve ";

/// The last requests, newest first: as many as are asked for.
pub(in super::super) fn requests(
    services: &AdminServices,
    query: &str,
) -> Result<Value, &'static str> {
    let limit = limit(query)?;
    let mut requests = services.metrics.requests_since(0);
    requests.reverse();
    requests.truncate(limit);
    Ok(json!({ "requests": requests.iter().map(request).collect::<Vec<_>>() }))
}

/// The last refusals and failures, newest first.
pub(in super::super) fn errors(services: &AdminServices) -> Value {
    let errors = services.metrics.last_errors();
    let errors: Vec<_> = errors.iter().rev().map(request).collect();
    json!({ "errors": errors, "groups": groups(services) })
}

/// What has gone wrong of late, each kind of it once.
pub(in super::super) fn failures(services: &AdminServices) -> Value {
    json!({ "groups": groups(services) })
}

fn groups(services: &AdminServices) -> Vec<Value> {
    let summaries = services.metrics.by_registry();
    let named = &services.facts.policy.intercept;
    // A name that fits a pattern and is nobody's has been mistyped by whoever asks for it.
    let is_nobodys = |group: &FailureGroup| {
        let is_it = |name: &str| group.registry.as_deref() == Some(name);
        let has_answered =
            |one: &RegistrySummary| is_it(&one.registry) && one.last_success.is_some();
        let is_named = |host: &HostPattern| {
            host.exact().is_some_and(|authority| is_it(Registry::at(&authority).as_str()))
        };
        group.reason.contains(UNRESOLVED)
            && !summaries.iter().any(has_answered)
            && !named.iter().any(is_named)
    };
    let mut groups = services.metrics.failures();
    for group in &mut groups {
        if is_nobodys(group) {
            group.side = Side::Client;
        }
    }
    groups.sort_by_key(|group| (group.side == Side::Client, std::cmp::Reverse(group.last)));
    groups.iter().map(failure).collect()
}

fn failure(group: &FailureGroup) -> Value {
    json!({
        "registry": group.registry,
        "reason": group.reason,
        "side": group.side.label(),
        "count": group.count,
        "first_ms": millis(group.first),
        "last_ms": millis(group.last),
    })
}

fn limit(query: &str) -> Result<usize, &'static str> {
    if query.is_empty() {
        return Ok(MOST_REQUESTS);
    }
    let limit = query.strip_prefix("limit=").ok_or("the query may hold limit=NUMBER alone")?;
    let limit = limit.parse().ok().filter(|limit| (1..=MOST_REQUESTS).contains(limit));
    limit.ok_or("limit: expected a number from 1 to 256")
}

/// One request, as the log tells of it.
pub(in super::super) fn request(answered: &Answered) -> Value {
    let line = &answered.line;
    json!({
        "number": answered.number,
        "at_ms": millis(answered.at),
        "id": line.id.to_string(),
        "client": line.client.to_string(),
        "user": line.user.as_deref(),
        "user_agent": line.user_agent.as_deref(),
        "outcome": line.outcome.label(),
        "method": line.method.as_str(),
        "registry": line.subject.registry(),
        "repository": line.subject.repository(),
        "object": line.subject.object(),
        "status": line.status.map(|status| status.as_u16()),
        "body_bytes": line.body_bytes,
        "elapsed_ms": u64::try_from(line.elapsed.as_millis()).unwrap_or(u64::MAX),
        "reason": line.reason,
    })
}

/// For browsers, which can tell a time of day from it.
pub(super) fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The repositories for which most bytes went out.
pub(in super::super) fn repositories(services: &AdminServices) -> Value {
    let demand = services.metrics.most_wanted(MOST_REPOSITORIES);
    json!({ "repositories": demand.iter().map(repository).collect::<Vec<_>>() })
}

fn repository(demand: &Demand) -> Value {
    json!({
        "registry": demand.registry,
        "repository": demand.repository,
        "requests": demand.requests,
        "hits": demand.hits,
        "sent_bytes": demand.sent_bytes,
        "last_use": UnixSeconds::from(demand.last),
    })
}

/// Every minute of the last day, as far as the process has seen it.
pub(in super::super) fn history(services: &AdminServices) -> Value {
    let points: Vec<_> = services.history.points().iter().map(point).collect();
    json!({ "step_secs": STEP.as_secs(), "points": points })
}

/// One minute.
pub(in super::super) fn point(point: &Point) -> Value {
    json!({
        "at": UnixSeconds::from(point.at),
        "requests": point.requests,
        "cacheable_requests": point.sums.requests(),
        "hits": point.sums.hits(),
        "sent_bytes": point.sent_bytes,
        "served_bytes": point.sums.served_bytes,
        "fetched_bytes": point.sums.fetched_bytes,
        "saved_bytes": point.sums.saved_bytes(),
        "received_bytes": point.received_bytes,
    })
}

/// Every registry that is configured or was asked for, and every host that can't be reached.
pub(in super::super) fn registries(services: &AdminServices) -> Value {
    let (gateway, now) = (&services.gateway, SystemTime::now());
    let (outages, limits, quotas) = (gateway.outages(), gateway.limits(), gateway.quotas());
    let states = verdict::states(services);
    let registries: Vec<_> = services
        .metrics
        .by_registry()
        .into_iter()
        .map(|counted| {
            let is_it = |name: &Registry| name.as_str() == counted.registry;
            let outage = outages.iter().find(|outage| is_it(&Registry::at(&outage.authority)));
            let limit = limits.iter().find(|(authority, ..)| is_it(&Registry::at(authority)));
            let limit = limit.map(|(_, wait, status)| {
                json!({ "status": status.as_u16(), "next_try": UnixSeconds::from(now + *wait) })
            });
            let quota = quotas.iter().find(|(name, _)| is_it(name)).map(|(_, quota)| quota);
            let state = states.iter().find(|state| is_it(&state.registry));
            let outage = outage.map(|outage| unreachable(outage, now));
            let told = registry(&counted, state, outage.as_ref(), limit.as_ref(), quota);
            with_identity(told, gateway.identity_at(&counted.registry).as_deref())
        })
        .collect();
    let outages: Vec<_> = outages.iter().map(|outage| unreachable(outage, now)).collect();
    json!({ "registries": registries, "unreachable_hosts": outages })
}

/// As whom the proxy is there, a certificate included; never a secret.
fn with_identity(mut registry: Value, identity: Option<&str>) -> Value {
    if let Some(fields) = registry.as_object_mut() {
        fields.insert("identity".to_owned(), json!(identity));
    }
    registry
}

fn registry(
    counted: &RegistrySummary,
    state: Option<&RegistryState>,
    outage: Option<&Value>,
    limit: Option<&Value>,
    told: Option<&Quota>,
) -> Value {
    let requests: Map<_, _> = counted
        .requests
        .iter()
        .map(|(outcome, count)| (outcome.label().to_owned(), Value::from(*count)))
        .collect();
    let last_error = counted.last_error.as_ref();
    // The word of before there were states, for who reads that.
    let health = match (outage, limit, counted.last_success) {
        (Some(_), ..) => "unreachable",
        (None, Some(_), _) => "limited",
        (None, None, Some(_)) => "well",
        (None, None, None) => "unknown",
    };
    let unhindered = counted.last_success.map_or(State::Unknown, |_| State::Well);
    json!({
        "registry": counted.registry,
        "health": health,
        "state": state.map_or(unhindered, |state| state.state).as_str(),
        "since": state.and_then(|state| state.since).map(UnixSeconds::from),
        "until": state.and_then(|state| state.until).map(UnixSeconds::from),
        "why": state.map(|state| &state.why),
        "outage": outage,
        "limit": limit,
        "quota": told.map(quota),
        "requests": requests,
        "sent_bytes": counted.sent_bytes,
        "received_bytes": counted.received_bytes,
        "saved_bytes": counted.sums.saved_bytes(),
        "quota_pulls_saved": counted.sums.quota_pulls_saved,
        "first_byte_ms": counted.first_byte.map(|(half, most)| {
            let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            json!({ "p50": millis(half), "p95": millis(most) })
        }),
        "last_success": counted.last_success,
        "last_error": last_error.map(|error| {
            json!({ "at": UnixSeconds::from(error.at), "reason": error.reason })
        }),
    })
}

fn unreachable(outage: &Outage, now: SystemTime) -> Value {
    let since = now.checked_sub(outage.lasting).unwrap_or(SystemTime::UNIX_EPOCH);
    json!({
        "host": outage.authority.to_string(),
        "since": UnixSeconds::from(since),
        "next_try": UnixSeconds::from(now + outage.next_try),
        "reason": outage.reason,
    })
}

fn quota(quota: &Quota) -> Value {
    json!({
        "remaining": quota.remaining,
        "limit": quota.limit,
        "window_secs": quota.window_secs,
        "source": quota.source,
        "told": UnixSeconds::from(quota.told),
        "whole_again": quota.whole_again().map(UnixSeconds::from),
    })
}

/// Who this proxy is, and how a client is set up.
pub(super) fn about(services: &AdminServices) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started": UnixSeconds::from(services.metrics.started()),
        "proxy_url": services.facts.proxy_url,
        "ca_sha256": services.facts.ca_fingerprint,
        "ca_expires": UnixSeconds::from(services.facts.ca_expiry),
        "set_up": services.facts.set_up,
        "quota_floor": services.gateway.quota_floor(),
        "has_token": services.guard.has_token(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_requests_is_asked_for_in_one_way() {
        assert_eq!(limit(""), Ok(MOST_REQUESTS));
        assert_eq!(limit("limit=1"), Ok(1));
        for wrong in ["limit=0", "limit=257", "limit=x", "limit", "after=1", "limit=1&limit=2"] {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
    }
}
