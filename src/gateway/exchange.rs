//! One request: parsed once, with who asks and what they may.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use entrepot_cache::Store;
use entrepot_oci::{Authority, Digest, Reference, Registry, RepositoryName, Route};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Response, header, request};
use tokio_util::task::TaskTracker;

use super::accept;
use super::access::{Access, Place, Rights};
use super::arrivals::{Arrivals, Asker, Follower};
use super::generations::{Generation, Generations};
use super::hops::Hops;
use super::options::Options;
use super::question::{Lateness, Question};
use super::shares::Requester;
use super::store_health::Trouble;
use super::way::Way;
use crate::memory::{Account, Memory};
use crate::metrics::Metrics;
use crate::peers::{HOP, Peer, PeerError, Peers};
use crate::records::Archive;
use crate::registry::answer::is_refusal;
use crate::registry::fields::{append, for_content, for_ourselves, for_whole_content};
use crate::registry::identity::{Identity, is_peculiar};
use crate::registry::{Client, Registries};
use crate::upstream::body::IdleBody;
use crate::upstream::client::Followed;
use crate::upstream::{OwnConnections, Target, UpstreamError, via};

/// Any manifest, in the order in which engines ask.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*";
/// The least that can be asked for of a blob.
const FIRST_BYTE: &str = "bytes=0-0";

/// What all requests share.
pub(super) struct Common {
    pub(super) store: Store,
    /// What is on record.
    pub(super) archive: Archive,
    pub(super) registries: Registries,
    pub(super) options: ArcSwap<Options>,
    pub(super) access: Arc<Access>,
    pub(super) trouble: Trouble,
    pub(super) arrivals: Arrivals,
    pub(super) generations: Generations,
    pub(super) peers: Peers,
    pub(super) hops: Hops,
    pub(super) lateness: Lateness,
    pub(super) memory: Memory,
    /// Where tasks run that outlive their request, so that a shutdown can wait for them.
    pub(super) tasks: TaskTracker,
}

impl Common {
    pub(super) fn metrics(&self) -> &Metrics {
        self.registries.upstream().metrics()
    }

    /// Puts a question to the registry that is asked, which goes on when nobody waits for it any
    /// more: its answer is remembered, and its failure too.
    pub(super) fn ask<V: Send + 'static>(
        &self,
        asked: &Asked,
        asking: impl Future<Output = Result<V, UpstreamError>> + Send + 'static,
    ) -> Question<V> {
        let stale_after = self.options.load().stale_after;
        let about = (asked.authority.clone(), asked.route.repository().cloned());
        self.lateness.ask(about, stale_after, &self.tasks, asking)
    }
}

/// A request to a registry, but for its body.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) route: Route,
    pub(super) registry: Registry,
    /// Whom to ask.
    pub(super) authority: Authority,
    /// Where, and how.
    root: Target,
    pub(super) way: Way,
    as_it_came: PathAndQuery,
    /// The connections that its client has for itself, if it has any.
    pub(super) own: Option<OwnConnections>,
    pub(super) headers: HeaderMap,
    /// Who takes the memory that the request needs.
    pub(super) account: Account,
    /// Which client asks; the operator where it is none.
    pub(super) requester: Option<Requester>,
    /// Its address; none is the operator's.
    pub(super) asker: Option<Asker>,
}

impl Asked {
    /// A request that is sent to where `root` is.
    pub(super) fn new(
        root: Target,
        registry: Registry,
        route: Route,
        head: request::Parts,
        way: Way,
        account: Account,
    ) -> Self {
        let none = || PathAndQuery::from_static("/");
        Self {
            registry,
            as_it_came: head.uri.path_and_query().cloned().unwrap_or_else(none),
            method: head.method,
            requester: head.extensions.get::<Requester>().copied(),
            asker: head.extensions.get::<Asker>().copied(),
            headers: head.headers,
            route,
            authority: root.authority.clone(),
            root,
            way,
            own: head.extensions.get().cloned(),
            account,
        }
    }

    /// Who asks the registry.
    pub(super) fn client(&self, registries: &Registries) -> Client {
        Client::new(registries, &self.registry, &self.route, &self.headers, &self.account)
    }

    /// What the registry is asked for: content by its route, all else as it came. (All that stands
    /// behind a content's path is `ns`, and this is the registry that it names.)
    pub(super) fn target(&self) -> Target {
        self.at(self.route.content_path().unwrap_or_else(|| self.as_it_came.to_string()))
    }

    /// Another content `route` of this registry.
    pub(super) fn target_of(&self, route: &Route) -> Target {
        self.at(route.content_path().unwrap_or_default())
    }

    fn at(&self, path_and_query: String) -> Target {
        self.root.at(path_and_query)
    }

    /// The path as it came.
    pub(super) fn path(&self) -> &str {
        self.as_it_came.path()
    }

    /// The query as it came.
    pub(super) fn query(&self) -> Option<&str> {
        self.as_it_came.query()
    }

    /// Whether it comes from a replica, or says so.
    pub(super) fn is_hop(&self) -> bool {
        self.headers.contains_key(HOP)
    }

    /// How long it waits for what is asked on behalf of another, which usually may take `usual`.
    /// What comes from a replica never waits for a replica.
    pub(super) fn patience(&self, usual: Duration) -> Duration {
        if self.is_hop() { usual } else { via::patience(&self.headers, usual) }
    }

    /// Whether a part is asked for rather than the whole.
    pub(super) fn wants_part(&self) -> bool {
        self.headers.contains_key(header::RANGE)
    }
}

/// A request about a repository's content, and whose it is. It is shared with what goes on behind
/// its answer: a body that has to be completed, a download.
pub(super) struct Exchange {
    pub(super) common: Arc<Common>,
    pub(super) asked: Asked,
    pub(super) client: Client,
    pub(super) rights: Rights,
    /// Whether the client says more than others do, so that what it is told is for it alone.
    pub(super) is_peculiar: bool,
}

impl Exchange {
    /// The exchange about `repository` that `asked` begins.
    pub(super) fn new(
        common: &Arc<Common>,
        mut asked: Asked,
        repository: &RepositoryName,
    ) -> Arc<Self> {
        accept::normalise(&mut asked.headers);
        let client = asked.client(&common.registries);
        let place = Place::new(&asked.registry, repository);
        let who = common.registries.own_label(&asked.authority).unwrap_or_default();
        let identity = client.identity.clone();
        let rights = Rights::new(&common.archive, common.access.clone(), place, identity, who);
        // What the shared identity asks has nothing in it of a client's.
        let is_peculiar = client.identity != Identity::Shared && is_peculiar(&asked.headers);
        Arc::new(Self { common: common.clone(), asked, client, rights, is_peculiar })
    }

    /// The generation of what is learnt of the repository now.
    pub(super) fn generation(&self) -> Generation {
        self.common.generations.now(self.rights.place())
    }

    /// Sends a GET or HEAD and follows its redirects. The refusal of a pull ends the right to pull.
    pub(super) async fn follow(
        &self,
        method: Method,
        target: &Target,
        headers: &HeaderMap,
    ) -> Result<Followed, UpstreamError> {
        let answer = match self.client.follow(method.clone(), target, headers).await {
            Err(error) if error.is_of_others() && self.rights.is_to_be_asked().await => {
                self.client.pressing().follow(method.clone(), target, headers).await?
            }
            answer => answer?,
        };
        self.note(&method, &answer).await;
        Ok(answer)
    }

    /// Whether this replica may be told that the object comes from another one: what it is about to
    /// be told is no news for it. Anybody may say that it is a replica.
    pub(super) async fn may_know_of_hop(&self, digest: &Digest) -> bool {
        let is_here = self.common.hops.bring_for(digest, self.rights.place());
        is_here && self.rights.may_pull().await
    }

    /// The replica that fetches `digest` for all, where it is another that can be asked on behalf
    /// of this client. What comes from a replica goes to none; and nobody is asked what only this
    /// client would be told.
    pub(super) fn owner(&self, digest: &Digest) -> Option<Peer> {
        if self.asked.is_hop() || self.is_peculiar {
            return None;
        }
        self.common.peers.owner(digest)
    }

    /// Sends a HEAD to learn whether the registry would serve what is asked for, as far as storage
    /// that names `object`. The refusal of a pull ends the right to pull.
    pub(super) async fn inquire(
        &self,
        headers: &HeaderMap,
        object: Option<&str>,
    ) -> Result<Followed, UpstreamError> {
        self.inquire_at(&self.asked.target(), headers, object).await
    }

    /// As [`inquire`](Self::inquire), about another content of the repository.
    pub(super) async fn inquire_at(
        &self,
        target: &Target,
        headers: &HeaderMap,
        object: Option<&str>,
    ) -> Result<Followed, UpstreamError> {
        let answer = match self.client.inquire(Method::HEAD, target, headers, object).await {
            Err(error) if error.is_of_others() && self.rights.is_to_be_asked().await => {
                self.client.pressing().inquire(Method::HEAD, target, headers, object).await?
            }
            answer => answer?,
        };
        self.note(&Method::HEAD, &answer).await;
        Ok(answer)
    }

    /// Notes what an answer says of the right to pull. Only the refusal of a pull says anything:
    /// many registries refuse listings to everybody, and some HEADs of blobs.
    async fn note(&self, method: &Method, answer: &Followed) {
        let is_pull = match self.asked.route {
            Route::Manifest { .. } => true,
            Route::Blob { .. } => method == Method::GET,
            _ => false,
        };
        if !is_pull || !is_refusal(answer) {
            return;
        }
        // A client's fields may have brought it about, and it would end everybody's right.
        let is_everybodys = self.client.identity == Identity::Shared;
        if is_everybodys && self.rights.has_any().await && !self.is_refused_plainly().await {
            return;
        }
        self.rights.revoke().await;
    }

    /// Whether the registry refuses the same without any field of the client's.
    async fn is_refused_plainly(&self) -> bool {
        let is_blob = matches!(self.asked.route, Route::Blob { .. });
        let mut headers = HeaderMap::new();
        let (method, name, value) = if is_blob {
            (Method::GET, header::RANGE, FIRST_BYTE)
        } else {
            (Method::HEAD, header::ACCEPT, MANIFESTS)
        };
        append(&mut headers, name, value);
        let headers = for_content(&headers);
        let answer = self.client.follow(method, &self.asked.target(), &headers).await;
        answer.is_ok_and(|answer| is_refusal(&answer))
    }

    /// Asks by a GET of the first byte whether the registry would serve this, as far as storage
    /// that names `object`: some refuse every HEAD of a blob.
    pub(super) async fn probe(&self, object: &str) -> Result<Followed, UpstreamError> {
        let mut headers = for_whole_content(&self.asked.headers);
        append(&mut headers, header::RANGE, FIRST_BYTE);
        self.client.inquire(Method::GET, &self.asked.target(), &headers, Some(object)).await
    }
}

/// Where an object is to be had, to ask again when its transfer breaks or the store fails.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) exchange: Arc<Exchange>,
    route: Route,
    /// Counts whoever reads it among those who wait for it, as long as they do.
    _follower: Option<Arc<Follower>>,
}

impl Source {
    /// Where the blob is to be had that is asked for.
    pub(super) fn of_blob(exchange: &Arc<Exchange>) -> Self {
        Self { exchange: exchange.clone(), route: exchange.asked.route.clone(), _follower: None }
    }

    /// Where the manifest `digest` of the repository is to be had that is asked about.
    pub(super) fn of_manifest(exchange: &Arc<Exchange>, digest: &Digest) -> Self {
        let repository = exchange.rights.place().repository.clone();
        let route = Route::Manifest { repository, reference: Reference::Digest(*digest) };
        Self { exchange: exchange.clone(), route, _follower: None }
    }

    /// The same, for somebody who reads it while it comes.
    pub(super) fn followed_by(self, follower: Option<Follower>) -> Self {
        Self { _follower: follower.map(Arc::new), ..self }
    }

    /// Asks a replica for the same.
    pub(super) async fn ask_peer(
        &self,
        peer: &Peer,
        range: Option<&str>,
    ) -> Result<Response<IdleBody>, PeerError> {
        let Exchange { asked, client, .. } = &*self.exchange;
        let mut headers = for_whole_content(&asked.headers);
        if client.identity == Identity::Shared {
            // It acts under what it is itself, as this one would.
            headers = for_ourselves(&headers);
        }
        if let Some(range) = range {
            append(&mut headers, header::RANGE, range);
        }
        peer.get(&asked.target_of(&self.route), headers).await
    }

    /// Asks for all of it, or for a `range` as it stands in the field. Through the registry again
    /// each time: signed URLs expire.
    pub(super) async fn ask(&self, range: Option<&str>) -> Result<Followed, UpstreamError> {
        let Exchange { asked, client, .. } = &*self.exchange;
        let (target, mut headers) =
            (asked.target_of(&self.route), for_whole_content(&asked.headers));
        let Some(range) = range else {
            return self.exchange.follow(Method::GET, &target, &headers).await;
        };
        append(&mut headers, header::RANGE, range);
        // The part is our wish: its refusal says nothing of the client's rights.
        client.follow(Method::GET, &target, &headers).await
    }
}
