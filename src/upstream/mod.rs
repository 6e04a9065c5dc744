//! Everything that leaves the proxy: dialling, trust, connections, redirects, timeouts.
//!
//! Knows how to reach a host and what may be reached, not what a request means: who may have an
//! answer and whether it is kept is the gateway's business.
//!
//! - `reach`: which addresses may be dialled
//! - `connect_to`: the operator's replacement of one destination by another
//! - `resolve`: names to addresses
//! - `setbacks`: addresses that have failed lately
//! - `dial`: addresses to a TCP connection, and to what is made of it
//! - `proxy`: forward proxies on the way out, and which destinations are meant for them
//! - `link`: connections to destinations, directly or through such a proxy
//! - `certs`: certificates that an operator gives for upstreams
//! - `trust`: whose certificates are believed, and what is said of those that are not
//! - `pinned`: certificates that are their own root
//! - `tls`: a handshake, and why it failed
//! - `stream`: such a connection, whose answer is read even where writing fails
//! - `connector`: TCP or TLS towards one authority, for the pooled client
//! - `connections`: which requests share a connection
//! - `client`: requests, redirects, timeouts
//! - `via`: how a proxy that meets itself knows it
//! - `fields`: which header fields are known to open nothing
//! - `breaker`: hosts that could not be reached, and are left alone for a while
//! - `body`: bodies that do not wait for ever
//! - `error`: what can go wrong, and whose fault it is
//! - `fuzzing`: what fuzz targets feed of it

pub(crate) mod body;
mod breaker;
pub(crate) mod certs;
pub(crate) mod client;
pub(crate) mod connect_to;
pub(crate) mod connections;
pub(crate) mod connector;
pub(crate) mod dial;
pub(crate) mod error;
pub(crate) mod fields;
#[cfg(fuzzing)]
pub mod fuzzing;
pub(crate) mod link;
mod pinned;
pub(crate) mod proxy;
pub(crate) mod reach;
pub(crate) mod redirect;
pub(crate) mod resolve;
mod setbacks;
mod stream;
mod tls;
pub(crate) mod trust;
pub(crate) mod via;

pub(crate) use breaker::Outage;
pub(crate) use client::{Errand, Options, Scheme, Target, Timeouts, Upstream};
pub(crate) use connect_to::ConnectTo;
pub(crate) use connections::OwnConnections;
pub(crate) use connector::Connector;
pub(crate) use error::{DialError, UpstreamError, in_words, is_passing};
pub(crate) use link::{Dialer, Link, far_address};
pub(crate) use reach::is_metadata;
