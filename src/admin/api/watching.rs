//! What a person who watches wants to see: requests, errors, registries, how it went.

use std::time::SystemTime;

use entrepot_oci::{Registry, UnixSeconds};
use serde_json::{Map, Value, json};

use super::super::AdminServices;
use super::super::history::{Point, STEP};
use crate::metrics::{Answered, Demand, MOST_REQUESTS, RegistrySummary};
use crate::registry::Quota;
use crate::upstream::Outage;

/// Repositories that are told of.
const MOST_REPOSITORIES: usize = 20;

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
    json!({ "errors": errors.iter().rev().map(request).collect::<Vec<_>>() })
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
fn millis(at: SystemTime) -> u64 {
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
        "cacheable_requests": point.cacheable,
        "hits": point.hits,
        "sent_bytes": point.sent_bytes,
        "saved_bytes": point.saved_bytes,
        "received_bytes": point.received_bytes,
    })
}

/// Every registry that is configured or was asked for, and every host that can't be reached.
pub(in super::super) fn registries(services: &AdminServices) -> Value {
    let (gateway, now) = (&services.gateway, SystemTime::now());
    let (outages, limits, quotas) = (gateway.outages(), gateway.limits(), gateway.quotas());
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
            let health = match (outage, &limit, counted.last_success) {
                (Some(_), ..) => "unreachable",
                (None, Some(_), _) => "limited",
                (None, None, Some(_)) => "well",
                (None, None, None) => "unknown",
            };
            let outage = outage.map(|outage| unreachable(outage, now));
            registry(&counted, health, outage.as_ref(), limit.as_ref(), quota)
        })
        .collect();
    let outages: Vec<_> = outages.iter().map(|outage| unreachable(outage, now)).collect();
    json!({ "registries": registries, "unreachable_hosts": outages })
}

fn registry(
    counted: &RegistrySummary,
    health: &str,
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
    json!({
        "registry": counted.registry,
        "health": health,
        "outage": outage,
        "limit": limit,
        "quota": told.map(quota),
        "requests": requests,
        "sent_bytes": counted.sent_bytes,
        "received_bytes": counted.received_bytes,
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
