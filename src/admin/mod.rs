//! What people and their tools ask of the proxy itself: its pages, the set-up scripts, health.
//!
//! - `pages`: origin-form requests on the proxy's listener; nothing there changes anything
//! - `server`: the admin listener
//! - `scrape`: `/metrics`
//! - `setup`: scripts that set clients up

pub mod pages;
mod scrape;
pub mod server;
pub mod setup;

use std::time::SystemTime;

use entrepot_cache::Store;

use crate::gateway::Gateway;
use crate::metrics::Metrics;

/// What the admin listener tells of.
pub struct Services {
    /// What is kept.
    pub store: Store,
    /// `max-size`.
    pub max_size: Option<u64>,
    /// What serves clients.
    pub gateway: Gateway,
    /// What is counted.
    pub metrics: Metrics,
    /// When the CA ends.
    pub ca_expiry: SystemTime,
}
