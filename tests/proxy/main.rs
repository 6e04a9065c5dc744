//! entrepot as its users meet it: the real binary between a client that checks every byte and a
//! registry that does as it is told, good or bad. One module a behaviour.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the steps of a test are no product code: one that can't go on has failed"
)]

mod abandoned;
mod addresses;
mod admin_api;
mod archives;
mod authorisation_matrix;
mod authorities;
mod bad_disk;
mod client_certificates;
mod command_line;
mod configuration;
mod connections;
mod costs;
mod credentials;
mod described;
mod drop_in;
mod explain;
mod forms;
mod framing;
mod helpers;
mod images;
mod integrity;
mod interception;
mod listings;
mod logging;
mod memory;
mod methods;
mod metrics;
mod mirror;
mod monitoring;
mod old_knowledge;
mod other_registries;
mod own_writes;
mod pages;
mod peers;
mod places;
mod private_repositories;
mod proxy_protocol;
mod pruning;
mod pull_ahead;
mod pulled;
mod pulls;
mod pushes;
mod ranges;
mod reach;
mod redirects;
mod refusals;
mod reload;
mod resume;
mod savings;
mod secrets;
mod shutdown;
mod speaking;
mod stale;
mod states;
mod strangers;
mod tags;
mod terminal;
mod tokens;
mod tunnels;
mod upstream_framing;
mod upstream_proxy;
mod upstream_trouble;
mod upstream_trust;
mod users;
mod watching;
mod ways_back;

use entrepot_testkit::{Blob, Fault, Gate, Image, On, Proxy, Registry};

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_entrepot");
/// A repository that everybody may pull from.
const ALPINE: &str = "library/alpine";
/// A repository that few may pull from.
const PRIVATE: &str = "team/private";

/// A proxy with nothing configured but the way to `registry`.
#[track_caller]
fn in_front_of(registry: &Registry) -> Proxy {
    Proxy::builder(BINARY).in_front_of(registry).start()
}

/// A registry with an image of one layer of so many bytes, a proxy in front of it, and the layer.
fn one_layer(size: usize) -> (Registry, Proxy, Blob) {
    let registry = Registry::open();
    let image = Image::random(1, size);
    registry.push(ALPINE, "1", &image);
    let proxy = in_front_of(&registry);
    (registry, proxy, image.layers[0].clone())
}

/// Who is asked in the authorisation matrix: a proxy that keeps things itself.
struct Stand {
    registry: Registry,
    proxy: Proxy,
}

impl Stand {
    /// Whether what is in flight has to be kept somewhere before.
    const FLIES_FROM_KEPT: bool = false;

    fn new(registry: Registry) -> Self {
        let proxy = in_front_of(&registry);
        Self { registry, proxy }
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Who is asked.
    fn asked(&self) -> &Proxy {
        &self.proxy
    }

    /// By whose pulls things are kept.
    fn keeping(&self) -> &Proxy {
        &self.proxy
    }

    /// Waits until what was pulled is kept where the one who is asked finds it.
    fn wait_until_kept(&self, _repository: &str, _tag: &str, image: &Image) {
        self.proxy.wait_until_kept(&image.manifest.digest);
    }

    /// Stalls the next download of a layer after so many bytes.
    fn stall(&self, digest: &str, after: usize, gate: &Gate) {
        self.registry.fault(On::get(digest), Fault::Stall(after, gate.clone()));
    }
}
