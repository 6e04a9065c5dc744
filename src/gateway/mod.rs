//! The decisions on a registry request: what is served from the store, what is fetched and kept,
//! what is only passed on.
//!
//! The rule that everything here serves: *cached bytes reach only those whom the registry would
//! serve*. A request is parsed into `Asked`, acts under an identity, and asks registries through
//! a `caller::Caller`; `access` says what that identity may have from the store.
//!
//! - `identity`: who asks
//! - `access`: who may have what
//! - `caller`: requests to a registry under somebody's rights
//! - `challenges`: how registries want to be authenticated to
//! - `shared`: what the proxy itself shows to them
//! - `ping`, `tokens`: `/v2/` and the token endpoint
//! - `blobs`: blobs, from the store or into it
//! - `manifests`, `tagged`: manifests by digest, and by tag
//! - `tags`: what tags stand for, as their registries said last
//! - `listings`: tags and referrers
//! - `pressure`, `quota`: registries that have had enough, and what they say of that
//! - `explain`: what a pull would meet now
//! - `turns`: one fetch for all who want the same
//! - `reason`: why an answer is what it is
//! - `records`: what operators read and change of the records
//! - `pruning`: forgetting those of what has long been gone
//! - `fill`, `fetching`: a download on its way into the store, and who fetches what for whom
//! - `object`, `multipart`: an object of the store as a response, in one part or several
//! - `rescue`: bodies that go on from the registry when the disk fails
//! - `relay`: everything that is only passed on
//! - `trouble`: a store that can't take downloads for now
//! - `ranges`: which part of an object is asked for
//! - `headers`: which fields cross the proxy, and which are ours
//! - `body`: the bodies that clients receive
//! - `errors`: failures, in the words that engines print

mod access;
mod blobs;
pub mod body;
mod caller;
mod challenges;
mod errors;
mod explain;
mod fetching;
mod fill;
mod headers;
mod identity;
mod listings;
mod manifests;
mod multipart;
mod object;
mod ping;
mod pressure;
mod pruning;
mod quota;
pub mod ranges;
pub mod reason;
pub mod records;
mod relay;
mod rescue;
mod shared;
mod tagged;
mod tags;
mod tokens;
mod trouble;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use entrepot_oci::{
    Authority, Digest, ErrorCode, ErrorDocument, HostPattern, Registry, RepositoryName, Route, Tag,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use access::{Access, Place, Question, Rights};
pub use body::ResponseBody;
use caller::Caller;
use challenges::{Challenges, TOKEN_PATH};
use entrepot_cache::Presence;
pub use errors::error_response;
pub use explain::{Expected, Explanation, ObjectState, TagState};
use fetching::Fetching;
pub use headers::{PRODUCT, is_own_via};
use identity::{Identifier, has_own_token};
use listings::Listings;
use manifests::Errand;
use pressure::Pressure;
pub use quota::Quota;
use quota::Quotas;
use reason::Reason;
use shared::SharedTokens;
use tagged::{HeadAnswer, HeadQuestion};
pub use tags::TagTtl;
use tags::Tags;
pub use trouble::StoreHealth;
use turns::Turns;

use crate::log::{Outcome, Subject};
use crate::upstream::body::{IdleBody, RequestBody};
use crate::upstream::credentials::Credentials;
use crate::upstream::{Outage, Scheme, Target, Upstream, UpstreamError};

/// Downloads into the store at a time; what is beyond them is passed on. A client that asks for
/// everything and hangs up must not have the whole line.
const MOST_DOWNLOADS: usize = 256;
/// Questions whose answers are kept at a time.
const MOST_ANSWERS: u64 = 10_000;
/// How long a registry's yes or no is an answer to those who ask the same at that moment.
const ANSWER_LIFE: Duration = Duration::from_secs(1);

/// How long an object that has come may take to be written to its end.
const SETTLED: Duration = Duration::from_mins(1);

/// Whether pushes go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Push {
    /// Relayed, under the client's own credential.
    #[default]
    Client,
    /// Refused with 405.
    Deny,
}

/// What an operator says of one registry, or of a family of them.
#[derive(Debug, Clone)]
pub struct RegistryRule {
    /// Which registries.
    pub host: HostPattern,
    /// How they are spoken to.
    pub scheme: Scheme,
    /// What the proxy itself is there, for clients that bring no credential.
    pub credentials: Option<Credentials>,
    /// `tag-ttl` there.
    pub tag_ttl: TagTtl,
}

/// How requests are decided.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `push`.
    pub push: Push,
    /// `[[registry]]`, the first that fits wins.
    pub registries: Vec<RegistryRule>,
    /// `tag-ttl`.
    pub tag_ttl: TagTtl,
    /// `keep-deleted`.
    pub keep_deleted: bool,
    /// `quota-floor`.
    pub quota_floor: u64,
}

impl Options {
    fn rule_for(&self, authority: &Authority) -> Option<&RegistryRule> {
        self.registries.iter().find(|rule| rule.host.matches(authority))
    }

    /// How long a tag of the registry at `authority` is served without asking.
    fn tag_ttl(&self, authority: &Authority, tag: &Tag) -> Duration {
        let there = self.rule_for(authority).and_then(|rule| rule.tag_ttl.of(tag));
        there.or_else(|| self.tag_ttl.of(tag)).unwrap_or_default()
    }

    /// What tells the shared identity at the registry at `authority` from others: whose credentials
    /// it has there, never a secret.
    fn shared_label(&self, authority: &Authority) -> String {
        let credentials = self.rule_for(authority).and_then(|rule| rule.credentials.as_ref());
        credentials.map(Credentials::label).unwrap_or_default()
    }

    /// How the registry at `authority` is spoken to: by TLS unless the operator says otherwise,
    /// whatever the client used.
    fn scheme_for(&self, authority: &Authority) -> Scheme {
        self.rule_for(authority).map_or(Scheme::Https, |rule| rule.scheme)
    }
}

/// An answer with what the log says of it.
pub struct Served {
    /// The answer.
    pub response: Response<ResponseBody>,
    /// How it came about.
    pub outcome: Outcome,
    /// Why it is what it is, where that is not obvious.
    pub reason: Option<String>,
}

impl Served {
    fn new(outcome: Outcome, response: Response<ResponseBody>) -> Self {
        Self { response, outcome, reason: None }
    }

    /// With the reason, for the log; at its level `debug` the client is told as well.
    fn why(mut self, reason: &Reason) -> Self {
        let reason = reason.to_string();
        if tracing::enabled!(tracing::Level::DEBUG) {
            headers::explain(self.response.headers_mut(), &reason);
        }
        Self { reason: Some(reason), ..self }
    }
}

/// The gateway; cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    parts: Arc<Parts>,
}

struct Parts {
    store: entrepot_cache::Store,
    upstream: Upstream,
    in_force: ArcSwap<InForce>,
    fetching: Fetching,
    trouble: trouble::Trouble,
    identifier: Identifier,
    access: Access,
    challenges: Challenges,
    tags: Tags,
    listings: Listings,
    quotas: Quotas,
    pressure: Pressure,
    /// Answers that several wait for.
    answers: moka::future::Cache<Question, bool>,
    heads: moka::future::Cache<HeadQuestion, Arc<HeadAnswer>>,
    errands: Turns<Errand>,
    pings: Turns<Registry>,
    /// Room for downloads that outlive their clients.
    downloads: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// What the operator wants now, and the tokens that were got under it: a request that began under
/// other credentials leaves none here.
struct InForce {
    options: Options,
    tokens: SharedTokens,
}

impl InForce {
    fn new(options: Options) -> Self {
        Self { options, tokens: SharedTokens::default() }
    }
}

/// A registry request, parsed; on the heap, since it is handed from future to future.
struct Asked {
    method: Method,
    target: Target,
    registry: Registry,
    way: Way,
    headers: HeaderMap,
    body: RequestBody,
}

impl Asked {
    fn new(
        scheme: Scheme,
        authority: Authority,
        registry: Registry,
        route: &Route,
        request: Request<RequestBody>,
        way: Way,
    ) -> Box<Self> {
        let (head, body) = request.into_parts();
        let mut path_and_query =
            head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        if matches!(route, Route::Blob { .. } | Route::Manifest { .. }) {
            // All that stands there is `ns`, and this is the registry that it names.
            path_and_query.truncate(head.uri.path().len());
        }
        let target = Target { scheme, authority, path_and_query };
        let (method, headers) = (head.method, head.headers);
        Box::new(Self { method, target, registry, way, headers, body })
    }
}

impl Gateway {
    /// A gateway that keeps in `store` what `upstream` delivers; downloads run on `tasks`, so that
    /// they outlive their first client and a shutdown can wait for them.
    #[must_use]
    pub fn new(
        store: entrepot_cache::Store,
        upstream: Upstream,
        options: Options,
        tasks: TaskTracker,
    ) -> Self {
        let identifier = Identifier::new();
        let (fetching, trouble, access, challenges) = Default::default();
        let (tags, listings, quotas, pressure, errands, pings) = Default::default();
        let parts = Parts {
            store,
            upstream,
            in_force: ArcSwap::from_pointee(InForce::new(options)),
            fetching,
            trouble,
            identifier,
            access,
            challenges,
            tags,
            listings,
            quotas,
            pressure,
            errands,
            pings,
            downloads: Arc::new(Semaphore::new(MOST_DOWNLOADS)),
            answers: shared_answers(),
            heads: shared_answers(),
            tasks,
        };
        Self { parts: Arc::new(parts) }
    }

    /// Decides by these options from now on. Tokens that the credentials of before have bought are
    /// not used any more.
    pub fn reconfigure(&self, options: Options) {
        self.parts.in_force.store(Arc::new(InForce::new(options)));
    }

    /// Whether the store takes downloads.
    #[must_use]
    pub fn store_health(&self) -> StoreHealth {
        self.parts.trouble.health()
    }

    /// Answers a request that a client addressed to the registry at `authority`.
    pub async fn respond(
        &self,
        authority: &Authority,
        request: Request<impl Into<RequestBody>>,
    ) -> (Served, Subject) {
        let request = request.map(Into::into);
        let uri = request.uri();
        let route = Route::parse(uri.path(), uri.query());
        let registry = Registry::at(authority);
        let subject = Subject::of(registry.clone(), route.clone(), uri.path());
        let upstream = registry.authority(authority);
        let scheme = self.parts.in_force.load().options.scheme_for(authority);
        let way = Way::of(authority, uri);
        let asked = Asked::new(scheme, upstream, registry.clone(), &route, request, way.clone());
        if has_dot_segment(asked.target.path()) {
            return (odd_path(&registry), subject);
        }
        let (authority, scheme) = (asked.target.authority.clone(), asked.target.scheme);
        let mut served = self.dispatch(&route, asked).await;
        if served.response.status() == StatusCode::UNAUTHORIZED {
            Box::pin(self.know_challenge(&registry, scheme, authority)).await;
            let headers = served.response.headers_mut();
            self.parts.challenges.rewrite(&registry, &way.own_realm(), headers);
        }
        (served, subject)
    }

    /// Whether the store has an object that a client has just read to its end: the last byte comes a
    /// moment before the object has its name.
    pub async fn has_settled(&self, digest: &Digest) -> bool {
        // A disk that hangs is not waited for.
        let _ = tokio::time::timeout(SETTLED, self.parts.store.free(digest)).await;
        self.parts.store.contains(digest) != Presence::Absent
    }

    /// What can't be reached now.
    #[must_use]
    pub fn outages(&self) -> Vec<Outage> {
        self.parts.upstream.outages()
    }

    /// The registries that have asked the proxy itself to wait, or answer with errors: for how long
    /// they are left alone yet, and the status that said so.
    #[must_use]
    pub fn limits(&self) -> Vec<(Authority, Duration, StatusCode)> {
        self.parts.pressure.on_us()
    }

    /// The proxy's own quota at each registry that counts pulls.
    #[must_use]
    pub fn quotas(&self) -> Vec<(Registry, Quota)> {
        self.parts.quotas.shared()
    }

    /// Sends a plain-HTTP request to a host that is no registry, and its answer back, unread.
    pub async fn forward(&self, authority: Authority, request: Request<Incoming>) -> Served {
        let registry = Registry::at(&authority);
        let way = Way { authority: authority.clone(), scheme: Scheme::Http };
        let request = request.map(Into::into);
        let asked = Asked::new(Scheme::Http, authority, registry, &Route::Other, request, way);
        let name = asked.registry.clone();
        relay::unseen(self, asked)
            .await
            .unwrap_or_else(|error| errors::upstream_failed(&name, &error))
    }

    /// Whoever asks, about `repository` if about any.
    fn caller(&self, asked: &Asked, repository: Option<&RepositoryName>) -> Caller {
        let identity = self.parts.identifier.identify(&asked.headers);
        let registry = asked.registry.clone();
        let rights = repository.map(|repository| {
            let place = Place { registry: registry.clone(), repository: repository.clone() };
            let in_force = self.parts.in_force.load();
            let who = in_force.options.shared_label(&asked.target.authority);
            Arc::new(Rights::new(&self.parts.store, place, identity.clone(), who))
        });
        Caller { parts: self.parts.clone(), registry, identity, rights }
    }

    fn has_credentials(&self, authority: &Authority) -> bool {
        let in_force = self.parts.in_force.load();
        let rule = in_force.options.rule_for(authority);
        let credentials = rule.and_then(|rule| rule.credentials.as_ref());
        credentials.is_some_and(|credentials| credentials.may_go_to(authority.host()))
    }

    /// A client that is sent to the registry's own realm goes around us, for want of its challenge.
    async fn know_challenge(&self, registry: &Registry, scheme: Scheme, authority: Authority) {
        let Parts { challenges, store, .. } = &*self.parts;
        if challenges.last(store, registry).await.is_none() {
            let path_and_query = "/v2/".to_owned();
            let target = Target { scheme, authority, path_and_query };
            // Without it the client follows the challenge as it is.
            let _ = ping::ask(self, registry, &target).await;
        }
    }

    /// Everything but content is a future of its own on the heap: a connection that is answered from
    /// the store should not carry its size.
    async fn dispatch(&self, route: &Route, asked: Box<Asked>) -> Served {
        let registry = asked.registry.clone();
        let answer = match (route, &asked.method) {
            (Route::Ping, &Method::GET | &Method::HEAD) => Box::pin(ping::serve(self, asked)).await,
            (Route::Other, _) if asked.target.path() == TOKEN_PATH => {
                Box::pin(tokens::serve(self, asked)).await
            }
            (Route::Blob { repository, digest }, &Method::GET | &Method::HEAD) => {
                blobs::serve(self, asked, repository, digest).await
            }
            (Route::Manifest { repository, reference }, &Method::GET | &Method::HEAD) => {
                manifests::serve(self, asked, repository, reference).await
            }
            (Route::Tags { repository } | Route::Referrers { repository, .. }, &Method::GET) => {
                Box::pin(listings::serve(self, asked, route, repository)).await
            }
            _ if self.parts.in_force.load().options.push == Push::Deny && is_write(&asked) => {
                return push_denied(&registry);
            }
            _ => Box::pin(relay::serve(self, asked)).await,
        };
        answer.unwrap_or_else(|error| errors::upstream_failed(&registry, &error))
    }

    /// Sends a request on as it came, but for the fields that end here; a token of our own means
    /// nothing to anybody else.
    async fn send(
        &self,
        asked: Box<Asked>,
        upstream: &Upstream,
    ) -> Result<Response<IdleBody>, UpstreamError> {
        let mut headers = headers::forwarded(&asked.headers);
        if has_own_token(&asked.headers) {
            headers.remove(header::AUTHORIZATION);
        }
        let has_content = matches!(asked.method, Method::POST | Method::PUT | Method::PATCH);
        if has_content && asked.body.is_end_stream() {
            // Some registries answer 411 to an upload's empty requests without it.
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        }
        upstream.send(asked.method, &asked.target, headers, asked.body).await
    }
}

fn shared_answers<K, V>() -> moka::future::Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    moka::future::Cache::builder().max_capacity(MOST_ANSWERS).time_to_live(ANSWER_LIFE).build()
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
    let document = ErrorDocument::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message);
    Served::new(Outcome::Denied, error_response(&document))
}

/// Which way a client came.
#[derive(Clone)]
struct Way {
    /// The host that it asked, which need not be the one that is asked for it.
    authority: Authority,
    scheme: Scheme,
}

impl Way {
    fn of(authority: &Authority, uri: &http::Uri) -> Self {
        let scheme = match uri.scheme() {
            Some(scheme) if *scheme == http::uri::Scheme::HTTP => Scheme::Http,
            _ => Scheme::Https,
        };
        Self { authority: authority.clone(), scheme }
    }

    /// The token endpoint as the client reaches it.
    fn own_realm(&self) -> String {
        let host = self.authority.to_host_field(self.scheme.default_port());
        format!("{}://{host}{TOKEN_PATH}", self.scheme.as_str())
    }
}

/// Whether a request changes something at a registry; pulls use POST with token servers.
fn is_write(asked: &Asked) -> bool {
    match asked.method {
        Method::PUT | Method::PATCH | Method::DELETE => true,
        Method::POST => asked.target.path().starts_with("/v2"),
        _ => false,
    }
}

fn push_denied(registry: &Registry) -> Served {
    let message =
        format!("{registry}: this proxy does not pass pushes on (push = \"deny\" is configured)");
    let document =
        ErrorDocument::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, message);
    Served::new(Outcome::Denied, error_response(&document))
}
