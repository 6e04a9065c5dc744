//! The world around entrepot in its black-box tests: a registry that can misbehave in every way
//! that the field has seen, clients that check every byte, and the proxy's binary between them.
//!
//! Everything blocks and runs on threads. The HTTP spoken here is written by hand on purpose: it
//! shares no parser with the proxy, so that the two can't agree on a mistake, and it can send what
//! a well-behaved library refuses to. Whatever waits has a bound, [`PATIENCE`]; nothing sleeps in
//! order to be in step with something else: tests wait for requests, log lines and [`Gate`]s.
//!
//! - `bucket`: a bucket that replicas share, on a real server, and the way there
//! - `fleet`: several replicas of the proxy
//! - `ca`, `tls`: certificates for upstreams, right and wrong, and both ends of a handshake
//! - `http`: messages and their framing
//! - `server`, `fault`: a server that misbehaves on demand
//! - `raw`: a server that speaks no HTTP
//! - `registry`, `requests`: an OCI registry with its token server and CDN, and what they saw
//! - `forward`: somebody else's forward proxy, on the way to the registries
//! - `image`: images to put there
//! - `client`, `pull`: a client of the proxy, and an engine's pull
//! - `proxy`: the binary under test
//! - `canary`: secrets that must not be found again
//! - `user`: other users of this machine

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test kit that can't go on fails its test"
)]

pub mod bucket;
pub mod ca;
pub mod canary;
pub mod client;
pub mod fault;
pub mod fleet;
pub mod forward;
pub mod http;
pub mod image;
pub mod proxy;
pub mod pull;
pub mod raw;
pub mod registry;
pub mod requests;
pub mod server;
pub mod tls;
pub mod user;

use std::time::Duration;

pub use bucket::Bucket;
pub use bucket::forwarder::{Forwarder, Trouble};
pub use ca::{Leaf, TestCa};
pub use client::Client;
pub use fault::{Fault, Gate, Hangup, On, Reply};
pub use fleet::Fleet;
pub use forward::ForwardProxy;
pub use http::{Headers, Request, Response};
pub use image::{Blob, Image, Index};
pub use proxy::Proxy;
pub use pull::Puller;
pub use registry::{Access, Redirects, Registry, User};
pub use requests::{Requests, Role};
pub use server::Server;
pub use user::as_user;

/// How long anything here waits for something that must happen: a test that is not done by then
/// has failed. Long, since a machine that runs many tests at a time is slow.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `done`, which is asked again and again; [`PATIENCE`] is counted in time, since how
/// often a fast machine asks says nothing.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An address of this machine that is not loopback's: by it this machine is like another.
///
/// # Panics
///
/// Where it has none: such a machine needs a network interface.
#[must_use]
pub fn own_address() -> std::net::IpAddr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let routed = socket.connect("203.0.113.1:9");
    assert!(routed.is_ok(), "no address but loopback's: give this machine a network interface");
    socket.local_addr().unwrap().ip()
}
