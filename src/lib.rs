//! entrepot: a caching HTTPS forward proxy for container-registry traffic.
//!
//! A container engine is pointed at it with `HTTPS_PROXY`; image names stay as they are. For the
//! registries it knows it ends TLS with a certificate of its own CA, serves blobs and manifests
//! from a content-addressed store, and fetches what it does not have.
//!
//! Imports point one way, down this list; nothing imports upward (`docs/architecture.md`):
//!
//! - `cli`: one file a subcommand
//! - `app`: a proxy that is put together from its settings
//! - `config`: layers of sources to valid settings
//! - `admin`: the proxy's own pages, the admin listener
//! - `images`: what is kept, as images
//! - `listener`: accepting, sniffing, CONNECT, interception, tunnels, drain
//! - `gateway`: deciding on a registry request
//! - `bucket`: the fleet's bucket
//! - `registry`: asking a registry
//! - `upstream`: everything that leaves
//! - `metrics`: what is counted
//! - `log`: what a person watches
//! - `collapse`: what several ask at one moment is asked once
//! - `words`: what breaks, in a person's words
//! - the crates `entrepot-cache`, `entrepot-oci` (the protocol's vocabulary) and `entrepot-ca`

mod admin;
mod app;
mod bucket;
mod cli;
mod collapse;
mod config;
mod gateway;
mod images;
mod listener;
mod log;
mod memory;
mod metrics;
mod peers;
mod pulls;
mod records;
mod registry;
mod savings;
mod secret;
mod trickle;
mod upstream;
mod words;

/// What the fuzz targets (`fuzz/`) feed, by module; there is none of it in any other build.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::config::fuzzing as config;
    pub use crate::gateway::fuzzing as gateway;
    pub use crate::images::fuzzing as images;
    pub use crate::listener::fuzzing as listener;
    pub use crate::log::fuzzing as log;
    pub use crate::registry::fuzzing as registry;
    pub use crate::upstream::fuzzing as upstream;
}

// The binary.
pub use cli::run;
// What benchmarks, fuzz targets and black-box tests hold to account.
pub use admin::setup;
pub use gateway::ByteRanges;
pub use listener::framing::Framing;
pub use log::{Outcome, RequestLine, Subject};
pub use metrics::{Answering, Metrics};
