//! Accepting clients: limits, first-byte sniffing, CONNECT, TLS interception, tunnels, drain.
//!
//! Knows connections and who may go where, not what a registry request means: an intercepted
//! request goes to the gateway with the authority it is for, and comes back as a response.
//!
//! - `accept`: listening sockets and the accept loop
//! - `stream`: a client's byte stream, plain or TLS, with what was read ahead
//! - `patience`: how long a client is waited for
//! - `idle`: tunnels that are not held open for ever
//! - `access`: who may use the proxy
//! - `places`: how many connections there may be, and who gives way
//! - `proxy_protocol`: a load balancer's word on whose connection it is
//! - `seldom`: lines of the log that strangers could write by the thousand
//! - `policy`: intercept, tunnel or refuse
//! - `tls`: server settings per intercepted host
//! - `http`: one HTTP/1.1 connection, with its limits and its drain
//! - `framing`, `watched`: where requests begin and end, read strictly beside hyper
//! - `request`: what makes a request unfit to be served, whoever it is for
//! - `proxy`: requests to the proxy itself: CONNECT, absolute-form, origin-form
//! - `mirror`: registries in origin form, for clients that prefer a mirror
//! - `names`: what this proxy is called, and what of the Web is led here
//! - `intercept`: the inside of an intercepted tunnel
//! - `tunnel`: bytes passed through unread
//! - `answer`: answers, with the line that each leaves in the log
//! - `speaker`: who speaks in an error of the proxy's own
//! - `fuzzing`: what fuzz targets feed of it

mod accept;
pub(crate) mod access;
pub(crate) mod answer;
pub(crate) mod framing;
#[cfg(fuzzing)]
pub mod fuzzing;
pub(crate) mod http;
mod idle;
mod intercept;
mod mirror;
mod names;
mod patience;
pub(crate) mod places;
pub(crate) mod policy;
mod proxy;
mod proxy_protocol;
mod request;
pub(crate) mod seldom;
pub(crate) mod speaker;
mod stream;
mod tls;
mod tunnel;
mod watched;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, Request, Response, header};
use arc_swap::ArcSwap;
use entrepot_ca::Authority as CertificateAuthority;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use accept::{AccessRules, BindError, Listener};
pub(crate) use names::ProxyNames;
pub(crate) use policy::Policy;

use entrepot_oci::host::HTTPS_PORT;
use entrepot_oci::{Authority, Host, Registry, Route};

use crate::gateway::{Gateway, ResponseBody};
use crate::log::{Outcome, RequestLine, Subject};
use crate::memory::{Account, Memory};
use crate::metrics::{Metrics, Open, Tally};
use crate::peers::HOP;
use crate::pulls::{Asker, Asking, Pulls};
use crate::upstream::Dialer;

/// Where the proxy listens, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct ListenerOptions {
    /// `listen`.
    pub addresses: Vec<SocketAddr>,
    /// Which hosts are intercepted, tunnelled, refused.
    pub policy: Policy,
    /// The names under which clients reach this proxy.
    pub names: ProxyNames,
    /// Who may use the proxy.
    pub access: access::AccessOptions,
    /// How long nothing may go through a tunnel, either way.
    pub tunnel_silence: Duration,
}

/// How many files this process may have open; `None`: any number.
#[must_use]
pub(crate) fn files_at_most() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// A request for one of the proxy's own pages.
#[derive(Debug)]
pub(crate) struct PageRequest<'a> {
    /// GET, HEAD or anything else.
    pub method: &'a Method,
    /// The path.
    pub path: &'a str,
    /// The query without its `?`.
    pub query: Option<&'a str>,
    /// The `Host` field as it came.
    pub host: Option<&'a str>,
    /// The `Accept` field as it came.
    pub accept: Option<&'a str>,
    /// Who asks.
    pub client: IpAddr,
}

/// Whoever answers origin-form requests.
pub(crate) trait Pages: Send + Sync {
    /// The answer to a request for a page.
    fn page(&self, request: &PageRequest<'_>) -> Response<ResponseBody>;
}

/// What every connection needs; built once.
pub(crate) struct ListenerServices {
    /// Registry requests.
    pub gateway: Gateway,
    /// Tunnels.
    pub dialer: Dialer,
    /// The proxy's own pages.
    pub pages: Arc<dyn Pages>,
    /// Leaves for intercepted hosts.
    pub certificates: CertificateAuthority,
    /// Who speaks in errors.
    pub speaker: speaker::Speaker,
    /// What is counted.
    pub metrics: Metrics,
    /// What clients pull.
    pub pulls: Pulls,
    /// What clients take.
    pub memory: Memory,
    /// Every connection and download, for the drain.
    pub tasks: TaskTracker,
    /// Cancelled when the drain begins.
    pub shutdown: CancellationToken,
}

/// What the connections of one listener share.
struct Shared {
    services: ListenerServices,
    policy: Policy,
    access: ArcSwap<access::AccessCheck>,
    names: ArcSwap<ProxyNames>,
    tls: tls::TlsSettings,
    tunnel_silence: Duration,
    turned_away: seldom::Seldom,
    unannounced: seldom::Seldom,
}

/// One accepted connection.
#[derive(Clone)]
struct Peer {
    shared: Arc<Shared>,
    client: SocketAddr,
    /// Who takes the memory that its requests need.
    account: Account,
    /// As which user of the proxy, where it asks for users.
    user: Option<Arc<str>>,
    /// Where is counted what its network of clients is served.
    network: Arc<Tally>,
    /// A place among the connections; a tunnel keeps it as long as it lasts.
    place: Arc<places::Place>,
    _open: Arc<Open>,
}

impl Peer {
    /// A client that nobody knows by name yet.
    fn new(
        shared: Arc<Shared>,
        client: SocketAddr,
        account: Account,
        place: Arc<places::Place>,
        open: Arc<Open>,
    ) -> Self {
        let network = shared.services.metrics.network(client.ip());
        Self { shared, client, account, user: None, network, place, _open: open }
    }

    /// A line for a request of this client's.
    fn line(&self, outcome: Outcome, method: Method, subject: Subject) -> RequestLine {
        RequestLine::new(outcome, method, subject, self.client.ip()).by(self.user.clone())
    }

    /// Who makes a request.
    fn asker<B>(&self, request: &Request<B>) -> Asker {
        let user_agent = Asker::program(request.headers().get(header::USER_AGENT));
        let gateway = &self.shared.services.gateway;
        let is_replica = gateway.has_replicas() && request.headers().contains_key(HOP);
        Asker { client: self.client.ip(), user: self.user.clone(), user_agent, is_replica }
    }

    /// Who makes a request of the registry at `authority`, and the part of a pull that it is, if it
    /// is one.
    fn asks<B>(
        &self,
        authority: &Authority,
        route: &Route,
        request: &Request<B>,
    ) -> (Asker, Option<Asking>) {
        let asker = self.asker(request);
        let pulls = &self.shared.services.pulls;
        let asking = pulls.asks(&asker, Registry::at(authority), route, request);
        (asker, asking)
    }

    /// Where its answers are counted.
    fn count(&self) -> answer::Count<'_> {
        answer::Count { metrics: self.metrics(), network: Some(&self.network) }
    }

    fn metrics(&self) -> &Metrics {
        &self.shared.services.metrics
    }

    /// Counts and writes the line of a request whose answer had no body of ours.
    fn finish(&self, line: RequestLine) {
        let line = Arc::new(line);
        self.metrics().answered(&line);
        line.emit();
    }
}

/// Whether a request's authority is the one the connection is for. Inside TLS, 443 goes without
/// saying (RFC 9110 §4.2.2).
fn is_same(authority: &Authority, host_field: &str) -> bool {
    let is_as_usual = authority.port() == HTTPS_PORT
        && matches!(authority.host(), Host::Name(name) if **name == *host_field);
    is_as_usual || Authority::parse(host_field, HTTPS_PORT).is_ok_and(|asked| asked == *authority)
}
