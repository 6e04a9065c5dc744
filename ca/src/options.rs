//! How an authority is opened, and what a new one is like.

use crate::clock::Clock;
use crate::constraints::Constraints;
use crate::key::Passphrase;

/// How to open an authority. The default has no host name, no constraints, no passphrase and the
/// system's clock.
#[derive(Clone, Default)]
pub struct Options {
    /// The name of this machine, for the name of a new root.
    pub host_name: String,
    /// What a new root is limited to. An existing CA keeps its own constraints, whatever stands
    /// here.
    pub constraints: Option<Constraints>,
    /// The passphrase of an encrypted `ca.key`. That of docker-registry-proxy's is tried without
    /// being given.
    pub passphrase: Option<Passphrase>,
    /// Where the time comes from.
    pub clock: Clock,
}
