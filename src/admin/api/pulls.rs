//! Who pulls what.

use entrepot_oci::UnixSeconds;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::super::AdminServices;
use super::watching::millis;
use crate::pulls::{ClientSums, MOST_PULLS, PullEvent, Puller};

/// Pulls that are told of, unless another number is asked for.
const USUAL: usize = 100;

/// The last pulls, newest first: as many as are asked for, of those that the filter fits.
pub(in super::super) fn pulls(services: &AdminServices, query: &str) -> Result<Value, String> {
    let query = PullQuery::parse(query)?;
    let pulls = services.pulls.since(0);
    let fitting = pulls.iter().rev().filter(|event| query.fits(event)).take(query.limit);
    Ok(json!({ "pulls": fitting.map(|event| pull(event)).collect::<Vec<_>>() }))
}

/// One of them.
pub(in super::super) fn pull(event: &PullEvent) -> Value {
    json!({
        "number": event.number,
        "at_ms": millis(event.at),
        "client": event.puller.name(),
        "user": event.user.as_deref(),
        "user_agent": event.user_agent.as_deref(),
        "ahead": event.puller == Puller::Operator,
        "registry": event.registry.as_str(),
        "repository": event.repository.as_str(),
        "reference": event.reference(),
        "tag": event.tag.as_ref().map(ToString::to_string),
        "digest": event.digest.map(|digest| digest.to_string()),
        "platform": event.platform,
        "bytes": event.bytes,
        "bytes_from_cache": event.bytes_from_cache,
        "share_from_cache": event.share_from_cache(),
        "duration_ms": event.duration_ms(),
        "outcome": event.outcome.label(),
        "quota_pulls": event.quota_pulls,
        "reason": event.reason,
    })
}

/// What each client has pulled since the start, most bytes first.
pub(in super::super) fn clients(services: &AdminServices) -> Value {
    let clients = services.pulls.clients();
    json!({ "clients": clients.iter().map(client).collect::<Vec<_>>() })
}

fn client(sums: &ClientSums) -> Value {
    json!({
        "client": sums.client,
        "user": sums.user.as_deref(),
        "pulls": sums.pulls,
        "bytes": sums.bytes,
        "bytes_from_cache": sums.bytes_from_cache,
        "quota_pulls": sums.quota_pulls,
        "last": UnixSeconds::from(sums.last),
    })
}

/// Which pulls are asked for.
#[derive(Debug, PartialEq, Eq)]
struct PullQuery {
    limit: usize,
    /// In lower case; empty: all.
    filter: String,
}

impl PullQuery {
    fn parse(query: &str) -> Result<Self, String> {
        let (mut limit, mut filter) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "limit" if limit.is_none() => {
                    let number = value.parse().ok().filter(|one| (1..=MOST_PULLS).contains(one));
                    let expected = || format!("limit: expected a number from 1 to {MOST_PULLS}");
                    limit = Some(number.ok_or_else(expected)?);
                }
                "filter" if filter.is_none() => filter = Some(value.to_lowercase()),
                _ => return Err("the query may hold limit=NUMBER and filter=TEXT once".to_owned()),
            }
        }
        Ok(Self { limit: limit.unwrap_or(USUAL), filter: filter.unwrap_or_default() })
    }

    fn fits(&self, event: &PullEvent) -> bool {
        let has = |text: &str| text.to_lowercase().contains(&self.filter);
        self.filter.is_empty()
            || has(&event.puller.name())
            || event.user.as_deref().is_some_and(has)
            || has(&event.image())
            || event.digest.is_some_and(|digest| has(&digest.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_are_asked_for_in_one_way() {
        let all = PullQuery { limit: USUAL, filter: String::new() };
        assert_eq!(PullQuery::parse(""), Ok(all));
        let some = PullQuery { limit: 5, filter: "library/alpine".to_owned() };
        assert_eq!(PullQuery::parse("filter=Library%2FAlpine&limit=5"), Ok(some));
        for wrong in
            ["limit=0", "limit=513", "limit=x", "limit=1&limit=2", "after=1", "filter=a&filter=b"]
        {
            assert!(PullQuery::parse(wrong).is_err(), "{wrong}");
        }
    }
}
