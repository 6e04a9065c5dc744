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
//! - `registry`: asking a registry
//! - `upstream`: everything that leaves
//! - `metrics`: what is counted
//! - `log`: what a person watches
//! - `collapse`: what several ask at one moment is asked once
//! - the crates `entrepot-cache`, `entrepot-oci` (the protocol's vocabulary) and `entrepot-ca`

pub mod admin;
pub mod app;
pub mod cli;
mod collapse;
pub mod config;
pub mod gateway;
pub mod images;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod registry;
pub mod upstream;
