//! The other replicas: which there are, which of them fetches an object for all, and asking it.
//!
//! A peer is the forward proxy on the way to the registry, chosen by the digest. It is asked by its
//! ordinary listener, for what any client may ask, and decides by its whole access rule; what is
//! fetched through it is fetched once for all. There is no other word between replicas: who is
//! there is found out by asking, who owns what is a hash, and where the two are wrong for a moment
//! an object is fetched once more.
//!
//! Knows nothing of what is asked for: what may be had from a peer, and what its answers mean, is
//! the gateway's business.
//!
//! - `members`: who is there
//! - `owner`: who of them fetches what
//! - `health`: whether a replica answers, and which it is
//! - `client`: asking one

mod client;
mod health;
mod members;
mod owner;

use std::sync::Arc;
use std::time::Duration;

use entrepot_oci::{Authority, Digest};
use http::HeaderName;
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

pub(crate) use client::{Peer, PeerError};
pub(crate) use members::{Standing, Told};
/// Which replica this is.
pub(crate) use via::own_id;

use crate::metrics::Metrics;
use crate::upstream::proxy::Credential;
use crate::upstream::reach::OwnListeners;
use crate::upstream::trust::{Trust, TrustError};
use crate::upstream::{Timeouts, via};
use members::Members;

/// Says which replica has answered a question after its health.
pub(crate) const ID: HeaderName = HeaderName::from_static("entrepot-id");
/// Says that a request comes from a replica, and goes to none any more.
pub(crate) const HOP: HeaderName = HeaderName::from_static("entrepot-hop");

/// How long a step to a replica's connection may take: it is near, and the registry is there for
/// whoever waits.
const CONNECT: Duration = Duration::from_secs(3);

/// `[peers]`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// `names`.
    pub names: Vec<Authority>,
    /// `username` and what is in `password-file`.
    pub credential: Option<Credential>,
}

/// A user of the other replicas' `access.htpasswd`.
#[derive(Debug, Clone)]
pub(crate) struct Username(String);

impl Username {
    /// One of this name, if it can be one: "a user-id containing a colon character is invalid"
    /// (RFC 7617 §2).
    #[must_use]
    pub(crate) fn new(name: &str) -> Option<Self> {
        let is_one = !name.is_empty() && !name.contains(|c: char| c == ':' || c.is_control());
        is_one.then(|| Self(name.to_owned()))
    }

    /// With this password.
    #[must_use]
    pub(crate) fn with(&self, password: &str) -> Option<Credential> {
        Credential::basic(&self.0, password)
    }
}

/// The replicas beside this one, if any are configured; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Peers(Option<Arc<Members>>);

impl Peers {
    /// Replicas that are found by `options`, and have the key of `authority`.
    pub(crate) fn new(
        options: &Options,
        authority: CertificateDer<'static>,
        own: OwnListeners,
        timeouts: Timeouts,
        metrics: Metrics,
    ) -> Result<Self, TrustError> {
        if options.names.is_empty() {
            return Ok(Self::default());
        }
        let timeouts = Timeouts { connect: timeouts.connect.min(CONNECT), ..timeouts };
        let trust = Trust::only(authority)?;
        let ways = client::Ways { trust, credential: options.credential.clone(), timeouts };
        let members = Members::new(own_id(), options.names.clone(), own, ways, metrics);
        Ok(Self(Some(Arc::new(members))))
    }

    /// Finds out who is there, until the shutdown.
    pub(crate) async fn keep(self, shutdown: CancellationToken) {
        let Some(members) = &self.0 else { return };
        shutdown.run_until_cancelled(members.keep()).await;
    }

    /// Whether there are to be any.
    pub(crate) fn are_configured(&self) -> bool {
        self.0.is_some()
    }

    /// The replica that fetches an object for all, where it is another.
    pub(crate) fn owner(&self, digest: &Digest) -> Option<Peer> {
        self.0.as_ref()?.owner(digest)
    }

    /// Whom this replica knows, for people; `None` where it is to know nobody.
    #[must_use]
    pub(crate) fn told(&self) -> Option<Vec<Told>> {
        self.0.as_ref().map(|members| members.told())
    }
}
