//! Deciding on a request: what may be served from here, and what the registry is asked.
//!
//! The rule that everything here serves: *cached bytes reach only those whom the registry would
//! serve*. A request is parsed once; what is about a repository's content becomes an `Exchange`,
//! which knows who asks and what they may have.
//!
//! - `explain`: what a pull would meet now
//! - `vouching`: images that operators bring
//! - `pruning`: forgetting the records of what has long been gone
//! - `blobs`: blobs, from the store or into it
//! - `manifests`: manifests, by digest and by tag
//! - `listings`: tags and referrers
//! - `ping`, `tokens`: `/v2/` and the token endpoint
//! - `writes`: pushes and deletes, and what is forgotten after them
//! - `relay`: everything that is only passed on
//! - `limited`: what is told where a registry has had enough of this proxy
//! - `hops`: what comes from another replica, and that no replica waits for it
//! - `download`: a download on its way into the store, and who fetches what for whom
//! - `supplies`: where an object is to be had, asked in turn
//! - `answer`: from what is kept to HTTP
//! - `exchange`: one request, with who asks and what they may
//! - `arrivals`: what comes in now, for people who watch
//! - `way`: by which door a client came
//! - `access`: who may have what
//! - `accept`: what clients take
//! - `generations`: which knowledge is from before the last write
//! - `question`: what is not waited for for ever
//! - `store_health`: a store that can't take downloads for now
//! - `options`: how requests are decided, as the operator wants it
//! - `fuzzing`: what fuzz targets feed of it

mod accept;
mod access;
mod answer;
mod arrivals;
mod blobs;
mod download;
mod exchange;
mod explain;
#[cfg(fuzzing)]
pub mod fuzzing;
mod generations;
mod hops;
mod limited;
mod listings;
mod manifests;
mod options;
mod ping;
mod pruning;
mod question;
mod relay;
mod shares;
mod store_health;
mod supplies;
mod tokens;
pub(crate) mod vouching;
mod way;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use entrepot_cache::{Presence, RecordError};
use entrepot_oci::host::HTTPS_PORT;
use entrepot_oci::{
    Authority, Digest, ErrorCode, ErrorDocument, ImageName, Registry, RepositoryName, Route,
};
use http::{Method, Request, StatusCode, header, request};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use access::{Access, Place};
use answer::addresses;
pub(crate) use answer::body::ResponseBody;
pub(crate) use answer::broken::ResponseError;
use answer::errors::{denied, no_room, stranger_failed, upstream_failed};
pub(crate) use answer::errors::{error_response, introduce};
pub(crate) use answer::provenance::{Provenance, Reason};
pub use answer::ranges::ByteRanges;
pub(crate) use answer::served::Served;
use arrivals::Arrivals;
pub(crate) use arrivals::{Asker, Coming};
use blobs::Blobs;
use exchange::{Asked, Common, Exchange};
pub(crate) use explain::{Expected, Explanation, ObjectState, TagState};
use generations::Generations;
use hops::Hops;
use limited::Refused;
use listings::Listings;
use manifests::Manifests;
pub(crate) use manifests::tags::{Standing, standings};
pub(crate) use manifests::uses::uses;
pub(crate) use options::{Options, Push, TagTtl};
use question::Lateness;
pub(crate) use shares::Requester;
pub(crate) use store_health::StoreHealth;
use store_health::Trouble;
use tokens::TOKEN_PATH;
use vouching::Vouched;
pub(crate) use way::Way;
use writes::Knowledge;

use crate::log::{Outcome, Subject};
use crate::memory::{Account, Memory, NoRoom, Room};
use crate::peers::{Peers, Told};
use crate::records::Archive;
use crate::registry::fields::append;
use crate::registry::identity::Identity;
use crate::registry::{Client, Quota, Registries, RegistryState};
use crate::upstream::body::RequestBody;
use crate::upstream::client::AnsweredAt;
use crate::upstream::connections::may_log_a_connection_in;
use crate::upstream::{Outage, Scheme, Target, Upstream, UpstreamError, via};

/// How long an object that has come may take to be written to its end.
const SETTLED: Duration = Duration::from_mins(1);

/// The gateway; cheap to clone.
#[derive(Clone)]
pub(crate) struct Gateway {
    inner: Arc<GatewayInner>,
}

struct GatewayInner {
    common: Arc<Common>,
    blobs: Arc<Blobs>,
    manifests: Manifests,
    listings: Listings,
}

impl Gateway {
    /// A gateway within `memory` that keeps what `upstream` delivers in the store of the `archive`;
    /// downloads run on `tasks`, so that they outlive their first client and a shutdown can wait
    /// for them.
    #[must_use]
    pub(crate) fn new(
        archive: Archive,
        upstream: Upstream,
        options: Options,
        memory: Memory,
        peers: Peers,
        tasks: TaskTracker,
    ) -> Self {
        let shares = memory.shares;
        let known = options.registry.clone();
        let registries = Registries::new(archive.clone(), upstream, known, shares);
        let common = Common {
            store: archive.store().clone(),
            archive,
            registries,
            options: ArcSwap::from_pointee(options),
            access: Arc::new(Access::new(shares)),
            trouble: Trouble::default(),
            arrivals: Arrivals::new(shares),
            generations: Generations::new(shares),
            peers,
            hops: Hops::default(),
            lateness: Lateness::new(shares),
            memory,
            tasks,
        };
        let (blobs, manifests) = (Blobs::default().into(), Manifests::new(shares));
        let listings = Listings::new(shares);
        let inner = GatewayInner { common: Arc::new(common), blobs, manifests, listings };
        Self { inner: Arc::new(inner) }
    }

    /// Decides by these options from now on. Tokens that the credentials of before have bought are
    /// not used any more.
    pub(crate) fn reconfigure(&self, options: Options) {
        let Common { registries, options: in_force, .. } = &*self.inner.common;
        registries.reconfigure(options.registry.clone());
        in_force.store(Arc::new(options));
    }

    /// Answers a request for `route` that a client addressed to the registry at `authority`.
    pub(crate) async fn respond(
        &self,
        authority: &Authority,
        route: Route,
        way: Way,
        request: Request<impl Into<RequestBody>>,
    ) -> (Served, Subject) {
        let registries = &self.inner.common.registries;
        let (head, body) = request.map(Into::into).into_parts();
        let account = self.account(&head);
        let scheme = registries.scheme_for(authority);
        let registry = Registry::at(authority);
        // Only the API is another host's: what else is at that name is its own.
        let is_api = route != Route::Other || head.uri.path() == TOKEN_PATH;
        let upstream = if is_api { registry.authority(authority) } else { authority.clone() };
        let root = Target::of_registry(scheme, upstream, "/v2/");
        let asked = Asked::new(
            root.clone(),
            registry.clone(),
            route.clone(),
            head,
            way.clone(),
            account.clone(),
        );
        let subject = Subject::of(registry.clone(), route.clone(), asked.path());
        if has_dot_segment(asked.path()) {
            return (odd_path(&registry), subject);
        }
        let through = via::of(&asked.headers);
        let who = Refused::of(registries, &asked.headers);
        // What comes is passed on as it comes, through buffers on both sides.
        let Ok(_passed) = room_to_pass(&account, body.most().unwrap_or(u64::MAX)).await else {
            return (no_room(&registry), subject);
        };
        let answer = self.dispatch(asked, body).await;
        let mut served = answer.unwrap_or_else(|error| upstream_failed(&registry, &error));
        limited::explain(registries, &root.authority, &who, &mut served);
        hold_room(&account, &registry, &mut served).await;
        let base = served.response.extensions_mut().remove::<AnsweredAt>();
        if addresses::are_in(served.response.headers()) {
            let base = base.map_or_else(|| root.clone(), |AnsweredAt(base)| base);
            let status = served.response.status();
            addresses::lead_back(&way, &root, &base, status, served.response.headers_mut());
        }
        // Some tell how to authenticate with another status.
        let is_challenge = served.response.headers().contains_key(header::WWW_AUTHENTICATE);
        let own_realm = way.url(TOKEN_PATH);
        if (is_challenge || served.response.status() == StatusCode::UNAUTHORIZED)
            && !ping::leads_to(&own_realm, served.response.headers())
        {
            // A client that is sent to the registry's own realm goes around us, for want of its
            // challenge; where that is not to be had it follows what it was told.
            let client = Client::new(registries, &registry, &Route::Ping, &through, &account);
            let known = client.authentication(&root).await.ok().flatten();
            let is_ours = served.outcome() == Outcome::Error;
            let headers = served.response.headers_mut();
            if let Some(known) = &known {
                known.lead_to(&root, &own_realm, headers);
            }
            // An answer of our own has none yet: a 401 must have one (RFC 9110 §11.6.1).
            if is_ours
                && !headers.contains_key(header::WWW_AUTHENTICATE)
                && let Some(challenge) = known.and_then(|known| ping::challenge(&known, &own_realm))
            {
                append(headers, header::WWW_AUTHENTICATE, &challenge);
            }
        }
        (served, subject)
    }

    /// Everything but content is a future of its own on the heap: a connection that is answered
    /// from the store should not carry its size.
    async fn dispatch(&self, asked: Asked, body: RequestBody) -> Result<Served, UpstreamError> {
        let GatewayInner { common, blobs, manifests, listings } = &*self.inner;
        // What a server makes of such a request may be another's by the next: nothing is learnt of
        // it.
        let is_relayed = asked.path() != TOKEN_PATH && !is_write(&asked);
        if is_relayed && may_log_a_connection_in(&asked.headers) {
            return Box::pin(relay::serve(common, asked, body)).await;
        }
        let is_nobody = || common.registries.identify(&asked.headers) == Identity::Shared;
        match (asked.route.clone(), &asked.method) {
            (Route::Ping, &Method::GET | &Method::HEAD) if is_nobody() => {
                Box::pin(ping::serve(common, &asked)).await
            }
            (Route::Other, _) if asked.path() == TOKEN_PATH => {
                Box::pin(tokens::serve(common, asked, body)).await
            }
            (Route::Blob { repository, digest }, &Method::GET | &Method::HEAD) => {
                blobs.serve(Exchange::new(common, asked, &repository), &digest).await
            }
            (Route::Manifest { repository, reference }, &Method::GET | &Method::HEAD) => {
                let exchange = Exchange::new(common, asked, &repository);
                let (place, whose) = (exchange.rights.place(), exchange.asked.asker);
                common.arrivals.named(place, whose, &reference);
                manifests.serve(exchange, &reference).await
            }
            (Route::Tags { repository } | Route::Referrers { repository, .. }, &Method::GET) => {
                Box::pin(listings.serve(Exchange::new(common, asked, &repository))).await
            }
            _ if is_write(&asked) && common.options.load().push == Push::Deny => {
                Ok(push_denied(&asked.registry))
            }
            _ if is_write(&asked) => {
                let knowledge = Knowledge { common, manifests, listings };
                Box::pin(knowledge.write(asked, body)).await
            }
            _ => Box::pin(relay::serve(common, asked, body)).await,
        }
    }

    /// Sends a plain-HTTP request to a host that is no registry, and its answer back, unread.
    pub(crate) async fn forward(&self, authority: Authority, request: Request<Incoming>) -> Served {
        let (head, body) = request.into_parts();
        let way = Way::new(&authority, Scheme::Http);
        let registry = Registry::at(&authority);
        let root = Target::as_named(Scheme::Http, authority, "/");
        let (account, body) = (self.account(&head), RequestBody::from(body));
        let asked = Asked::new(root, registry.clone(), Route::Other, head, way, account.clone());
        let Ok(_passed) = room_to_pass(&account, body.most().unwrap_or(u64::MAX)).await else {
            return no_room(&registry);
        };
        let answer = relay::unseen(&self.inner.common, asked, body).await;
        let mut served = answer.unwrap_or_else(|error| stranger_failed(&registry, &error));
        hold_room(&account, &registry, &mut served).await;
        served
    }

    /// Who takes the memory that a request needs.
    fn account(&self, head: &request::Parts) -> Account {
        let clients = head.extensions.get::<Account>();
        clients.cloned().unwrap_or_else(|| self.inner.common.memory.budget.account(None))
    }

    /// Whether the store has an object that a client has just read to its end: the last byte comes
    /// a moment before the object has its name.
    pub(crate) async fn has_settled(&self, digest: &Digest) -> bool {
        let store = &self.inner.common.store;
        // A disk that hangs is not waited for.
        let _ = tokio::time::timeout(SETTLED, store.free(digest)).await;
        store.contains(digest) != Presence::Absent
    }

    /// Whether the store takes downloads.
    #[must_use]
    pub(crate) fn store_health(&self) -> StoreHealth {
        self.inner.common.trouble.health()
    }

    /// Whether requests may come from replicas.
    #[must_use]
    pub(crate) fn has_replicas(&self) -> bool {
        self.inner.common.peers.are_configured()
    }

    /// Which replicas are known; `None` where there are to be none.
    #[must_use]
    pub(crate) fn replicas(&self) -> Option<Vec<Told>> {
        self.inner.common.peers.told()
    }

    /// What can't be reached now.
    #[must_use]
    pub(crate) fn outages(&self) -> Vec<Outage> {
        self.inner.common.registries.upstream().outages()
    }

    /// The registries that have asked the proxy itself to wait, or answer with errors: for how long
    /// they are left alone yet, and the status that said so.
    #[must_use]
    pub(crate) fn limits(&self) -> Vec<(Authority, Duration, StatusCode)> {
        self.inner.common.registries.limits()
    }

    /// The registries that something is wrong with.
    #[must_use]
    pub(crate) fn troubles(&self) -> Vec<RegistryState> {
        self.inner.common.registries.troubles()
    }

    /// The registries that the proxy has credentials for, and whether these are taken, as far as is
    /// known.
    #[must_use]
    pub(crate) fn credentials(&self) -> Vec<(Registry, bool)> {
        self.inner.common.registries.credentials()
    }

    /// Puts on record how often tags were used: for who is about to look, and before the end.
    pub(crate) async fn write_uses(&self) {
        let GatewayInner { common, manifests, .. } = &*self.inner;
        manifests.uses.write(&common.store).await;
    }

    /// What is known of an object that the store is getting from this registry.
    #[must_use]
    pub(crate) fn incoming(&self, digest: &Digest, registry: &str) -> Option<Coming> {
        self.inner.common.arrivals.told(digest, registry)
    }

    /// The proxy's own quota at each registry that counts pulls.
    #[must_use]
    pub(crate) fn quotas(&self) -> Vec<(Registry, Quota)> {
        self.inner.common.registries.quotas()
    }

    /// What tells the proxy itself at the registry of this name from others, never a secret; `None`
    /// where it is anonymous.
    #[must_use]
    pub(crate) fn identity_at(&self, registry: &str) -> Option<String> {
        let authority = Authority::parse(registry, HTTPS_PORT).ok()?;
        // Of the Hub's hosts it is another that is asked.
        let asked = Registry::at(&authority).authority(&authority);
        self.inner.common.registries.own_label(&asked)
    }

    /// How many pulls of a registry's quota are left alone.
    #[must_use]
    pub(crate) fn quota_floor(&self) -> u64 {
        self.inner.common.options.load().quota_floor
    }

    /// What a pull of `image` would meet now. Asks no registry, and changes nothing.
    pub(crate) async fn explain(&self, image: &ImageName) -> Explanation {
        explain::explain(&self.inner.common, &self.inner.manifests.tags, image).await
    }

    /// [Vouches](vouching::vouch) for an image while clients are served: what was known of the
    /// repository before counts no more.
    pub(crate) async fn vouch(&self, image: &Vouched<'_>) -> Result<(), RecordError> {
        let common = &self.inner.common;
        vouching::vouch(&common.archive, image).await?;
        let (registry, repository) = (&image.name.registry, &image.name.repository);
        common.access.pardon(&Place::new(registry, repository));
        self.forget_records(registry, repository);
        Ok(())
    }

    /// The records of a repository have been changed from outside: they are read anew.
    pub(crate) fn forget_records(&self, registry: &Registry, repository: &RepositoryName) {
        let place = Place::new(registry, repository);
        self.inner.common.access.forget(&place);
        self.inner.manifests.tags.forget(&place);
    }

    /// Does what has to be done now and then, until the shutdown: forgets what is on record of
    /// objects that have been gone for long, puts on record how often tags were used, asks
    /// registries that are away whether they are back.
    pub(crate) async fn keep_house(self, shutdown: CancellationToken) {
        let GatewayInner { common, manifests, .. } = &*self.inner;
        let keeping = async {
            tokio::join!(
                pruning::keep_pruning(&common.store),
                manifests.uses.keep_writing(&common.store),
                common.registries.keep_probing(),
            );
        };
        shutdown.run_until_cancelled(keeping).await;
    }
}

/// What a body takes that is passed on as it comes, beside what sockets hold: a buffer of the one
/// connection, a piece on its way, a buffer of the other.
const PASSING: u64 = 128 * 1024;
/// One that is no longer than this is no more than a connection costs anyway.
const SHORT: u64 = 16 * 1024;

/// Room for a body of at most so many bytes that is passed on.
async fn room_to_pass(account: &Account, most: u64) -> Result<Option<Room>, NoRoom> {
    if most <= SHORT {
        return Ok(None);
    }
    let bytes = usize::try_from(most.min(PASSING)).unwrap_or_default();
    account.take(bytes).await.map(Some)
}

/// An answer that is passed on as it comes takes room, or there is none and it is not.
async fn hold_room(account: &Account, registry: &Registry, served: &mut Served) {
    let Some(length) = served.response.body().passed_on() else { return };
    match room_to_pass(account, length).await {
        Ok(Some(room)) => served.response.body_mut().hold(room),
        Ok(None) => {}
        Err(NoRoom) => *served = no_room(registry),
    }
}

/// Whether a path has a segment that leads elsewhere, as it is or escaped: servers differ on what
/// becomes of it, and ours has said which repository it is about.
fn has_dot_segment(path: &str) -> bool {
    let leads_elsewhere =
        |path: &str| path.split(['/', '\\']).any(|segment| segment == "." || segment == "..");
    if !path.contains('%') {
        return leads_elsewhere(path);
    }
    leads_elsewhere(&path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/"))
}

fn odd_path(registry: &Registry) -> Served {
    let message = format!("{registry}: a path with '.' or '..' in it is not passed on");
    denied(&ErrorDocument::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message))
}

/// Whether a request changes something at a registry; pulls use POST with token servers.
fn is_write(asked: &Asked) -> bool {
    match asked.method {
        Method::PUT | Method::PATCH | Method::DELETE => true,
        Method::POST => asked.route != Route::Other,
        _ => false,
    }
}

fn push_denied(registry: &Registry) -> Served {
    let message =
        format!("{registry}: this proxy does not pass pushes on (push = \"deny\" is configured)");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    denied(&ErrorDocument::new(status, ErrorCode::Unsupported, message))
}
