//! What people and their tools ask of the proxy itself: its pages, the set-up scripts, health.
//!
//! - `pages`: origin-form requests on the proxy's listener; nothing there changes anything
//! - `front`: the first of them, for people
//! - `server`: the admin listener
//! - `guard`: who may use its API
//! - `api`: the API
//! - `verification`: hashing everything that is kept
//! - `scrape`: `/metrics`
//! - `body`: what the admin listener sends
//! - `setup`: scripts that set clients up

mod api;
pub mod body;
mod front;
pub mod guard;
pub mod pages;
mod scrape;
pub mod server;
pub mod setup;
pub mod verification;

use std::time::SystemTime;

use entrepot_cache::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateway::Gateway;
use crate::images::Images;
use crate::metrics::Metrics;

/// What the admin listener tells of.
pub struct Services {
    /// What is kept.
    pub store: Store,
    /// The same, as images.
    pub images: Images,
    /// `max-size`.
    pub max_size: Option<u64>,
    /// What serves clients.
    pub gateway: Gateway,
    /// What is counted.
    pub metrics: Metrics,
    /// When the CA ends.
    pub ca_expiry: SystemTime,
    /// What was configured, without secrets.
    pub config: serde_json::Value,
    /// Every connection, for the drain.
    pub tasks: TaskTracker,
    /// Cancelled when the drain begins.
    pub shutdown: CancellationToken,
    /// Who verifies.
    pub turn: Turn,
    /// Who imports.
    pub imports: Turn,
}

pub use api::Turn;
