//! What there is to know, as documents.

use std::collections::BTreeSet;

use entrepot_cache::Download;
use entrepot_oci::{Digest, UnixSeconds};
use serde_json::{Value, json};

use super::super::scrape::index_state;
use super::super::{AdminServices, Shared};
use crate::gateway::Coming;
use crate::peers::{self, Standing, Told};

/// Objects on a page, unless another number is asked for.
const USUAL: usize = 100;
/// Objects on a page at most.
const MOST: usize = 1000;

/// Sums since the start, and what is kept now.
pub(in super::super) fn stats(services: &AdminServices) -> Value {
    let (summary, totals) = (services.metrics.summary(), services.store.totals());
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_secs": summary.uptime.as_secs(),
        "requests": summary.requests,
        "cacheable_requests": summary.sums.requests(),
        "hits": summary.sums.hits(),
        "hit_ratio": summary.hit_ratio(),
        "manifests": summary.sums.manifests,
        "blobs": summary.sums.blobs,
        "sent_bytes": summary.sent_bytes,
        "received_bytes": summary.received_bytes,
        "served_bytes": summary.sums.served_bytes,
        "fetched_bytes": summary.sums.fetched_bytes,
        "saved_bytes": summary.sums.saved_bytes(),
        "store": {
            "objects": totals.objects,
            "bytes": totals.bytes,
            "max_bytes": services.facts.max_size,
            "free_bytes": services.free_space.bytes(),
            "min_free_bytes": services.facts.min_free,
            "evicted_objects": totals.evicted_objects,
            "evicted_bytes": totals.evicted_bytes,
            "quarantined_objects": totals.quarantined_objects,
            "index": index_state(services.store.index_state()),
            "is_troubled": services.gateway.store_health().is_troubled,
        },
        "bucket": services.shared.as_ref().map(Shared::document),
    })
}

/// The downloads under way.
pub(in super::super) fn fetches(services: &AdminServices) -> Value {
    let told = |download: &Download| {
        let coming = services.gateway.incoming(&download.digest, &download.origin);
        fetch(download, coming.as_ref())
    };
    let fetches: Vec<_> = services.store.downloads().iter().map(told).collect();
    json!({ "fetches": fetches })
}

/// One of them, with what the gateway knows of it.
fn fetch(download: &Download, coming: Option<&Coming>) -> Value {
    let rate = coming.map_or(0, |coming| coming.bytes_per_sec);
    let left = download.total.map(|total| total.saturating_sub(download.available));
    json!({
        "digest": download.digest.to_string(),
        "registry": download.origin,
        "image": coming.map(|coming| &coming.image),
        "for": coming.map(|coming| &*coming.readers).unwrap_or_default(),
        "waiting": coming.map_or(0, |coming| coming.waiting),
        "bytes": download.available,
        "total_bytes": download.total,
        "bytes_per_sec": rate,
        "remaining_secs": left.filter(|_| rate > 0).map(|left| left.div_ceil(rate)),
    })
}

/// The replicas that are known, and whether they fetch for each other.
pub(in super::super) fn peers(services: &AdminServices) -> Value {
    let known = services.gateway.replicas();
    let is_configured = known.is_some();
    let known = known.unwrap_or_default();
    let present: BTreeSet<_> = known
        .iter()
        .filter(|one| matches!(one.standing, Standing::Present))
        .filter_map(|one| one.id.as_deref())
        .collect();
    // This one is there, whether its own address is among them or not.
    let present = if is_configured { present.len() + 1 } else { 0 };
    let members: Vec<_> = known.iter().map(member).collect();
    json!({
        "is_configured": is_configured,
        "own_id": peers::own_id(),
        "present": present,
        "members": members,
    })
}

/// One of them.
fn member(told: &Told) -> Value {
    let (state, why) = match &told.standing {
        Standing::Present => ("present", None),
        Standing::Own => ("own", None),
        Standing::Away(why) => ("away", Some(why)),
    };
    json!({ "address": told.address.to_string(), "id": told.id, "state": state, "why": why })
}

/// A page of what is kept.
pub(super) fn blobs(services: &AdminServices, query: &str) -> Result<Value, &'static str> {
    let page = PageQuery::parse(query)?;
    let mut kept = services.store.list(page.after.as_ref(), page.limit + 1);
    let has_more = kept.len() > page.limit;
    kept.truncate(page.limit);
    let next = kept.last().filter(|_| has_more).map(|last| last.digest.to_string());
    let blobs: Vec<_> = kept
        .iter()
        .map(|one| {
            json!({
                "digest": one.digest.to_string(),
                "bytes": one.size,
                "last_use": UnixSeconds::from(one.last_use),
                "hits": one.hits,
                "is_pinned": one.is_pinned,
            })
        })
        .collect();
    Ok(json!({ "blobs": blobs, "next": next }))
}

/// Which page is asked for.
#[derive(Debug, PartialEq, Eq)]
struct PageQuery {
    after: Option<Digest>,
    limit: usize,
}

impl PageQuery {
    fn parse(query: &str) -> Result<Self, &'static str> {
        let mut page = Self { after: None, limit: USUAL };
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("after", value)) => {
                    // A colon need not be escaped in a query, and some do all the same.
                    let digest = value.replace("%3A", ":").replace("%3a", ":").parse();
                    page.after = Some(digest.map_err(|_| "after: expected a digest")?);
                }
                Some(("limit", value)) => {
                    let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                    page.limit = limit.ok_or("limit: expected a number from 1 to 1000")?;
                }
                _ => return Err("the query may hold after=DIGEST and limit=NUMBER alone"),
            }
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_asked_for_in_one_way() {
        assert_eq!(PageQuery::parse(""), Ok(PageQuery { after: None, limit: USUAL }));
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for colon in [":", "%3A", "%3a"] {
            let page = PageQuery::parse(&format!("limit=5&after=sha256{colon}{hex}")).unwrap();
            assert_eq!(page.limit, 5);
            assert_eq!(page.after.unwrap().hex(), hex);
        }
        for wrong in ["limit=0", "limit=1001", "limit=x", "after=x", "page=2", "limit"] {
            assert!(PageQuery::parse(wrong).is_err(), "{wrong}");
        }
    }
}
