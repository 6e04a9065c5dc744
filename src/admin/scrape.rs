//! `/metrics`: what was counted, and what the others know when they are asked.
//!
//! A part that gets something to tell (a registry's quota, its circuit breaker) gets a function
//! here, and what it needs to ask a field in `Services`.

use std::fmt;
use std::sync::Arc;

use entrepot_cache::IndexState;
use http::{HeaderValue, Response, StatusCode, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::AdminServices;
use super::pages::refused;
use super::verdict;
use crate::gateway::ResponseBody;
use crate::metrics::{Families, Flavour, exposed};
use crate::registry::State;

/// The page, in the format that `accept` asks for.
pub(super) fn page(services: &Arc<AdminServices>, accept: Option<&str>) -> Response<ResponseBody> {
    let flavour = Flavour::accepted_by(accept);
    let asked = LookedUp(services.clone());
    match exposed(vec![Box::new(services.metrics.clone()), Box::new(asked)], flavour) {
        Ok(page) => {
            let mut response = Response::new(ResponseBody::full(page));
            let media_type = HeaderValue::from_static(flavour.media_type());
            response.headers_mut().insert(header::CONTENT_TYPE, media_type);
            response
        }
        // Writing to memory does not fail.
        Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written"),
    }
}

/// What is looked up rather than counted.
struct LookedUp(Arc<AdminServices>);

impl fmt::Debug for LookedUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LookedUp")
    }
}

impl Collector for LookedUp {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families::new(&mut encoder);
        kept(&self.0, &mut families)?;
        health(&self.0, &mut families)?;
        upstreams(&self.0, &mut families)?;
        saved(&self.0, &mut families)?;
        let downloads = self.0.store.downloads().len() as u64;
        let help = "Downloads into the store that are under way.";
        families.gauge("entrepot_downloads_in_flight", help, downloads)?;
        let help = "When the CA ends, and with it every certificate that clients are shown.";
        families.moment("entrepot_ca_expiry_timestamp_seconds", help, self.0.facts.ca_expiry)
    }
}

fn kept(services: &AdminServices, families: &mut Families<'_, '_>) -> fmt::Result {
    let totals = services.store.totals();
    families.gauge("entrepot_store_objects", "Objects kept.", totals.objects)?;
    families.gauge("entrepot_store_bytes", "Bytes kept.", totals.bytes)?;
    let most = services.facts.max_size.unwrap_or_default();
    families.gauge("entrepot_store_max_bytes", "How many bytes may be kept; 0: any.", most)?;
    if let Some(free) = services.free_space.bytes() {
        families.gauge("entrepot_store_free_bytes", "Bytes that the disk has left.", free)?;
    }
    let least = services.facts.min_free.unwrap_or_default();
    let help = "How many bytes of the disk stay free.";
    families.gauge("entrepot_store_min_free_bytes", help, least)?;
    let (objects, bytes) = (totals.evicted_objects, totals.evicted_bytes);
    families.counter("entrepot_store_evicted_objects", "Objects evicted.", objects)?;
    families.counter("entrepot_store_evicted_bytes", "Bytes evicted.", bytes)?;
    let help = "Kept objects that turned out to be damaged and were set aside.";
    families.counter("entrepot_store_quarantined_objects", help, totals.quarantined_objects)
}

fn health(services: &AdminServices, families: &mut Families<'_, '_>) -> fmt::Result {
    let health = services.gateway.store_health();
    let help = "1 while downloads go past the store because its disk has failed one.";
    families.gauge("entrepot_store_troubled", help, health.is_troubled.into())?;
    let help = "Downloads that the store's disk has failed.";
    families.counter("entrepot_store_failures", help, health.failures)?;
    let now = index_state(services.store.index_state());
    let states = ["loading", "ready", "in_memory"];
    let states = states.map(|state| ([("state", state)], u64::from(state == now)));
    let help = "How the store's index is: 1 for what applies.";
    families.gauges("entrepot_index_state", help, states.into_iter())
}

/// Most registries that are told of one by one.
const MOST_REGISTRIES: usize = 100;

/// What is known of the registries: their quotas, and which can't be reached.
fn upstreams(services: &AdminServices, families: &mut Families<'_, '_>) -> fmt::Result {
    let mut quotas = services.gateway.quotas();
    quotas.sort_by(|a, b| a.0.cmp(&b.0));
    quotas.truncate(MOST_REGISTRIES);
    let left =
        quotas.iter().map(|(registry, quota)| ([("registry", registry.as_str())], quota.remaining));
    let help = "Pulls that are left of the proxy's own quota, as the registry told last.";
    families.gauges("entrepot_quota_remaining", help, left)?;
    let limits = quotas
        .iter()
        .filter_map(|(registry, quota)| Some(([("registry", registry.as_str())], quota.limit?)));
    let help = "Pulls of the proxy's own quota in a window.";
    families.gauges("entrepot_quota_limit", help, limits)?;
    states(services, families)?;
    let outages = services.gateway.outages();
    let help = "Hosts that could not be reached and are left alone for now.";
    families.gauge("entrepot_unreachable_hosts", help, outages.len() as u64)
}

/// How each registry is, for those that were asked and those that something is wrong with.
fn states(services: &AdminServices, families: &mut Families<'_, '_>) -> fmt::Result {
    let troubles = verdict::states(services);
    let asked = services.metrics.by_registry();
    let registries = asked.iter().filter(|one| one.last_success.is_some()).map(|one| {
        let trouble = troubles.iter().find(|trouble| trouble.registry.as_str() == one.registry);
        (one.registry.as_str(), trouble.map_or(State::Well, |trouble| trouble.state))
    });
    let unasked = troubles.iter().filter(|trouble| {
        let name = trouble.registry.as_str();
        !asked.iter().any(|one| one.registry == name && one.last_success.is_some())
    });
    let all = registries.chain(unasked.map(|one| (one.registry.as_str(), one.state)));
    let told = all.take(MOST_REGISTRIES).flat_map(|(registry, now)| {
        State::ALL.map(|state| {
            ([("registry", registry), ("state", state.as_str())], u64::from(state == now))
        })
    });
    let help = "The state of each registry that was asked: 1 for what applies.";
    families.gauges("entrepot_registry_state", help, told)?;
    let good = services.gateway.credentials();
    let told = good
        .iter()
        .map(|(registry, is_good)| ([("registry", registry.as_str())], u64::from(*is_good)));
    let help =
        "0 while a registry does not take the proxy's own credentials, or they can't be had.";
    families.gauges("entrepot_registry_credentials_ok", help, told)
}

/// What was saved since it is counted, over restarts.
fn saved(services: &AdminServices, families: &mut Families<'_, '_>) -> fmt::Result {
    let report = services.savings.report();
    let rows = report.registries.iter();
    let saved = rows.map(|(name, sums)| ([("registry", name.as_str())], sums.saved_bytes()));
    let help = "Bytes served less bytes fetched, since that is counted, over restarts.";
    families.gauges("entrepot_saved_bytes", help, saved)
}

/// The index's state as a word.
pub(super) fn index_state(state: IndexState) -> &'static str {
    match state {
        IndexState::Loading => "loading",
        IndexState::Ready => "ready",
        // What is added some day is not what the others are.
        _ => "in_memory",
    }
}
