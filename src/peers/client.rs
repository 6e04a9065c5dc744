//! Asking a replica for what a registry has.
//!
//! CONNECT to its ordinary listener, and TLS inside that only who has the key of our own CA can
//! end, so that a client's credential goes to a replica or nowhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use entrepot_oci::{Authority, Host};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::HOP;
use crate::metrics::{Metrics, PeerOutcome};
use crate::upstream::body::{IdleBody, RequestBody};
use crate::upstream::client::Sending;
use crate::upstream::error::ProxyFailure;
use crate::upstream::proxy::{Credential, ForwardProxy};
use crate::upstream::trust::Trust;
use crate::upstream::{DialError, Errand, Scheme, Target, Timeouts, Upstream, UpstreamError};

/// How long a replica is left alone that could not be reached: by then it has been asked after its
/// health.
const AWAY: Duration = Duration::from_secs(2);
/// How long one that lets nobody through, or has another CA: somebody has to act.
const UNFIT: Duration = Duration::from_secs(30);

/// How replicas are reached.
pub(super) struct Ways {
    pub(super) trust: Trust,
    pub(super) credential: Option<Credential>,
    pub(super) timeouts: Timeouts,
}

/// A replica that is there, and the connections to it.
pub(super) struct Member {
    pub(super) id: String,
    pub(super) address: SocketAddr,
    upstream: Upstream,
    metrics: Metrics,
    /// Until when it is left alone, and why.
    shunned: Mutex<Option<(Instant, String)>>,
    /// It has been silent for so long that nothing more is expected of it.
    pub(super) gone: CancellationToken,
}

impl Member {
    pub(super) fn new(id: String, address: SocketAddr, ways: &Ways, metrics: Metrics) -> Self {
        let place = Authority::new(Host::Ip(address.ip()), address.port());
        let proxy = ForwardProxy::plain(place, ways.credential.clone()).named_by("peers.names");
        let upstream = Upstream::through(proxy, ways.trust.clone(), ways.timeouts, metrics.clone());
        let (shunned, gone) = Default::default();
        Self { id, address, upstream, metrics, shunned, gone }
    }

    /// Why it is left alone now, if it is.
    pub(super) fn shunned(&self) -> Option<String> {
        let shunned = self.shunned.lock();
        shunned.as_ref().filter(|(until, _)| Instant::now() < *until).map(|(_, why)| why.clone())
    }

    fn shun(&self, failure: &Absence, error: &UpstreamError) {
        let (until, reason) = (Instant::now() + failure.pause(), error.to_string());
        let before = self.shunned.lock().replace((until, reason.clone()));
        let is_news = before.is_none_or(|(_, before)| before != reason);
        let Self { id, address, .. } = self;
        match failure {
            Absence::Unfit if is_news => {
                tracing::warn!(%address, id, reason, "a replica is of no use to this one");
            }
            Absence::Unfit | Absence::Away => {
                tracing::debug!(%address, id, reason, "a replica could not be asked");
            }
        }
    }
}

/// The replica that fetches an object for all; cheap to clone.
#[derive(Clone)]
pub(crate) struct Peer(pub(super) Arc<Member>);

/// A replica has not delivered what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// It is not there, as it turns out.
    #[error("it is not there: {0}")]
    Absent(UpstreamError),
    /// It went away while it was waited for.
    #[error("it is not there any more")]
    Gone,
    /// It gets the object from a replica itself, and can't be waited for.
    #[error("it gets that from another replica")]
    Busy,
    /// It answers something else.
    #[error("it answered {0}")]
    Refused(StatusCode),
    /// It could not be understood, or took too long.
    #[error(transparent)]
    Failed(UpstreamError),
}

impl PeerError {
    /// Whether the replica is not there, so that another owns what it owned.
    #[must_use]
    pub(crate) fn is_absence(&self) -> bool {
        match self {
            Self::Absent(_) | Self::Gone => true,
            Self::Busy | Self::Refused(_) | Self::Failed(_) => false,
        }
    }

    fn outcome(&self) -> PeerOutcome {
        match self {
            Self::Absent(_) | Self::Gone => PeerOutcome::Absent,
            Self::Busy => PeerOutcome::Busy,
            Self::Refused(_) => PeerOutcome::Refused,
            Self::Failed(_) => PeerOutcome::Failed,
        }
    }
}

impl Peer {
    /// Asks for what the registry has at `target`, all of it or the part that `headers` want. An
    /// `Authorization` among them goes along: whoever reads it has the key of our CA.
    ///
    /// Cancel safe.
    pub(crate) async fn get(
        &self,
        target: &Target,
        mut headers: HeaderMap,
    ) -> Result<Response<IdleBody>, PeerError> {
        headers.insert(HOP, HeaderValue::from_static("1"));
        let member = &*self.0;
        let asked = tokio::select! {
            answer = member.asked(target, headers) => answer,
            () = member.gone.cancelled() => Err(PeerError::Gone),
        };
        let outcome = asked.as_ref().map_or_else(PeerError::outcome, |_| PeerOutcome::Served);
        member.metrics.peer_asked(outcome);
        if let Err(error) = &asked {
            tracing::debug!(address = %member.address, %error, "a replica was asked in vain");
        }
        Ok(asked?.map(|body| body.until(member.gone.clone())))
    }
}

impl Member {
    async fn asked(
        &self,
        target: &Target,
        headers: HeaderMap,
    ) -> Result<Response<IdleBody>, PeerError> {
        let behalf = self.metrics.asking_peers();
        let sending = Sending::shared(&behalf, Errand::Other);
        let (authority, path) = (target.authority.clone(), target.path_and_query.clone());
        let target = Target::as_named(Scheme::Https, authority, path);
        let body = RequestBody::Empty;
        let asking = self.upstream.send(sending, Method::GET, &target, headers, body);
        let answer = asking.await.map_err(|error| match Absence::of(&error) {
            Some(absence) => {
                self.shun(&absence, &error);
                PeerError::Absent(error)
            }
            None => PeerError::Failed(error),
        })?;
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(answer),
            StatusCode::MISDIRECTED_REQUEST => Err(PeerError::Busy),
            other => Err(PeerError::Refused(other)),
        }
    }
}

/// How a replica turns out not to be there.
enum Absence {
    /// It has ended, or is about to.
    Away,
    /// It is there, and will not do: it lets this one not through, or has another CA.
    Unfit,
}

impl Absence {
    fn of(error: &UpstreamError) -> Option<Self> {
        match error {
            UpstreamError::Shared(shared) => Self::of(shared),
            UpstreamError::Dial(DialError::Proxy(error)) => Some(match error.failure {
                ProxyFailure::Refused { status, .. } if status.is_client_error() => Self::Unfit,
                _ => Self::Away,
            }),
            UpstreamError::Tls(_) if !error.is_timeout() => Some(Self::Unfit),
            // Or a connection that has ended before it answered.
            UpstreamError::Dial(_) | UpstreamError::Tls(_) | UpstreamError::Exchange { .. } => {
                Some(Self::Away)
            }
            _ => None,
        }
    }

    fn pause(&self) -> Duration {
        match self {
            Self::Away => AWAY,
            Self::Unfit => UNFIT,
        }
    }
}
