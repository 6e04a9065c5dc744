//! What people and their tools ask of the proxy itself: its pages, the set-up scripts, health.
//!
//! - `pages`: origin-form requests on the proxy's listener; nothing there changes anything
//! - `front`: the first of them, for people
//! - `server`: the admin listener, and who comes to the socket
//! - `socket`: the admin socket, where the kernel says who is there
//! - `page`: the status page there
//! - `guard`: who may use its API
//! - `onlookers`: who may look at it from elsewhere
//! - `api`: the API
//! - `events`: what changes, as it changes
//! - `history`: how it went, minute by minute
//! - `free_space`: what is left of the store's disk
//! - `pull`: bringing an image in ahead of time
//! - `reload`: the way to who reads the configuration again
//! - `verification`: hashing everything that is kept
//! - `shared`: the bucket that replicas have in common
//! - `scrape`: `/metrics`
//! - `runbook`: `/runbook`
//! - `verdict`: whether all is well, and what is not
//! - `body`: what the admin listener sends
//! - `sample`: the image with which clients try the proxy
//! - `setup`: scripts that set clients up

mod api;
pub(crate) mod body;
mod events;
mod free_space;
mod front;
pub(crate) mod guard;
mod history;
pub(crate) mod onlookers;
mod page;
pub(crate) mod pages;
pub(crate) mod pull;
pub(crate) mod reload;
mod runbook;
pub(crate) mod sample;
mod scrape;
pub(crate) mod server;
pub mod setup;
pub(crate) mod shared;
pub(crate) mod socket;
mod verdict;
pub(crate) mod verification;

use std::time::SystemTime;

use arc_swap::ArcSwap;
use entrepot_cache::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateway::Gateway;
use crate::images::Images;
use crate::listener::policy::Policy;
use crate::listener::speaker::Speaker;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::pulls::Pulls;
use crate::savings::Savings;
use guard::Guard;

/// What the admin listener tells of.
pub(crate) struct AdminServices {
    /// What is kept.
    pub store: Store,
    /// What is kept, as images.
    pub images: Images,
    /// What is left of the store's disk.
    pub free_space: FreeSpace,
    /// How it went, minute by minute.
    pub history: History,
    /// What serves clients.
    pub gateway: Gateway,
    /// What the requests of operators take.
    pub memory: Memory,
    /// What is counted.
    pub metrics: Metrics,
    /// What clients pull.
    pub pulls: Pulls,
    /// What was saved.
    pub savings: Savings,
    /// What replicas have in common, if they have a bucket.
    pub shared: Option<Shared>,
    /// What was configured and is in force, without secrets.
    pub config: ArcSwap<serde_json::Value>,
    /// Who may use the API.
    pub guard: Guard,
    /// What the proxy is called, and whom to ask.
    pub speaker: Speaker,
    /// Every connection, for the drain.
    pub tasks: TaskTracker,
    /// Cancelled when the drain begins.
    pub shutdown: CancellationToken,
    /// Places for what is bounded.
    pub queues: Queues,
    /// The way to who reads the configuration again.
    pub reloads: Reloads,
    /// What does not change while the proxy runs.
    pub facts: Facts,
}

/// Places for what several operators may want at a time.
#[derive(Default)]
pub(crate) struct Queues {
    /// Verifying.
    pub verification: OneAtATime,
    /// Importing.
    pub imports: OneAtATime,
    /// Pulling.
    pub pulls: Room,
    /// Watching.
    pub audience: Audience,
}

/// What is known from the start on and stays so.
pub(crate) struct Facts {
    /// `max-size`.
    pub max_size: Option<u64>,
    /// `min-free`.
    pub min_free: Option<u64>,
    /// Which hosts are registries.
    pub policy: Policy,
    /// When the CA ends.
    pub ca_expiry: SystemTime,
    /// SHA-256 of the CA's certificate.
    pub ca_fingerprint: String,
    /// What the proxy is called: what `external-url` has, or this machine's name.
    pub name: String,
    /// The proxy's URL, as clients reach it.
    pub proxy_url: String,
    /// The line to run on a client.
    pub set_up: String,
}

pub(crate) use api::{OneAtATime, Room};
pub(crate) use events::Audience;
pub(crate) use free_space::FreeSpace;
pub(crate) use history::History;
pub(crate) use reload::Reloads;
pub(crate) use shared::Shared;
