//! One request: parsed once, with who asks and what they may.

use std::sync::Arc;

use arc_swap::ArcSwap;
use entrepot_cache::Store;
use entrepot_oci::{Authority, Digest, Reference, Registry, RepositoryName, Route};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, header, request};
use tokio_util::task::TaskTracker;

use super::access::{Access, Place, Rights};
use super::options::Options;
use super::store_health::Trouble;
use crate::metrics::Metrics;
use crate::registry::answer::is_refusal;
use crate::registry::fields::{append, for_whole_content};
use crate::registry::{Client, Registries};
use crate::upstream::client::Followed;
use crate::upstream::{Scheme, Target, UpstreamError};

/// What all requests share.
pub(super) struct Common {
    pub(super) store: Store,
    pub(super) registries: Registries,
    pub(super) options: ArcSwap<Options>,
    pub(super) access: Arc<Access>,
    pub(super) trouble: Trouble,
    /// Where tasks run that outlive their request, so that a shutdown can wait for them.
    pub(super) tasks: TaskTracker,
}

impl Common {
    pub(super) fn metrics(&self) -> &Metrics {
        self.registries.upstream().metrics()
    }
}

/// Which way a client came.
#[derive(Clone)]
pub(super) struct Way {
    /// The host that it asked, which need not be the one that is asked for it.
    authority: Authority,
    scheme: Scheme,
}

impl Way {
    pub(super) fn new(authority: &Authority, scheme: Scheme) -> Self {
        Self { authority: authority.clone(), scheme }
    }

    /// The way of a request with this target to `authority`.
    pub(super) fn of(authority: &Authority, uri: &http::Uri) -> Self {
        let is_plain = uri.scheme() == Some(&http::uri::Scheme::HTTP);
        Self::new(authority, if is_plain { Scheme::Http } else { Scheme::Https })
    }

    /// The URL of a path of our own as the client reaches it.
    pub(super) fn url(&self, path: &str) -> String {
        let host = self.authority.to_host_field(self.scheme.default_port());
        format!("{}://{host}{path}", self.scheme.as_str())
    }
}

/// A request to a registry, but for its body.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) route: Route,
    pub(super) registry: Registry,
    /// How the registry is spoken to.
    scheme: Scheme,
    /// Whom to ask.
    pub(super) authority: Authority,
    pub(super) way: Way,
    as_it_came: PathAndQuery,
    pub(super) headers: HeaderMap,
}

impl Asked {
    /// A request that is sent to the registry at `authority`.
    pub(super) fn new(
        scheme: Scheme,
        authority: Authority,
        route: Route,
        head: request::Parts,
        way: Way,
    ) -> Self {
        let root = || PathAndQuery::from_static("/");
        Self {
            registry: Registry::at(&authority),
            as_it_came: head.uri.path_and_query().cloned().unwrap_or_else(root),
            method: head.method,
            headers: head.headers,
            route,
            scheme,
            authority,
            way,
        }
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
        Target { scheme: self.scheme, authority: self.authority.clone(), path_and_query }
    }

    /// The path as it came.
    pub(super) fn path(&self) -> &str {
        self.as_it_came.path()
    }

    /// The query as it came.
    pub(super) fn query(&self) -> Option<&str> {
        self.as_it_came.query()
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
}

impl Exchange {
    /// The exchange about `repository` that `asked` begins.
    pub(super) fn new(
        common: &Arc<Common>,
        asked: Asked,
        repository: &RepositoryName,
    ) -> Arc<Self> {
        let client = Client::new(&common.registries, &asked.registry, &asked.route, &asked.headers);
        let place = Place::new(&asked.registry, repository);
        let who = common.registries.own_label(&asked.authority).unwrap_or_default();
        let identity = client.identity.clone();
        let rights = Rights::new(&common.store, common.access.clone(), place, identity, who);
        Arc::new(Self { common: common.clone(), asked, client, rights })
    }

    /// Sends a GET or HEAD and follows its redirects. The registry's refusal ends the right to
    /// pull.
    pub(super) async fn follow(
        &self,
        method: Method,
        target: &Target,
        headers: &HeaderMap,
    ) -> Result<Followed, UpstreamError> {
        let answer = self.client.follow(method, target, headers).await?;
        self.note(&answer).await;
        Ok(answer)
    }

    /// Sends a HEAD to learn whether the registry would serve this, as far as storage that names
    /// `object`. The registry's refusal ends the right to pull.
    pub(super) async fn inquire(
        &self,
        headers: &HeaderMap,
        object: Option<&str>,
    ) -> Result<Followed, UpstreamError> {
        let answer = self.client.inquire(&self.asked.target(), headers, object).await?;
        self.note(&answer).await;
        Ok(answer)
    }

    async fn note(&self, answer: &Followed) {
        if is_refusal(answer) {
            self.rights.revoke().await;
        }
    }
}

/// Where an object is to be had, to ask again when its transfer breaks or the store fails.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) exchange: Arc<Exchange>,
    route: Route,
}

impl Source {
    /// Where the blob is to be had that is asked for.
    pub(super) fn of_blob(exchange: &Arc<Exchange>) -> Self {
        Self { exchange: exchange.clone(), route: exchange.asked.route.clone() }
    }

    /// Where the manifest `digest` of the repository is to be had that is asked about.
    pub(super) fn of_manifest(exchange: &Arc<Exchange>, digest: &Digest) -> Self {
        let repository = exchange.rights.place().repository.clone();
        let route = Route::Manifest { repository, reference: Reference::Digest(*digest) };
        Self { exchange: exchange.clone(), route }
    }

    /// Asks for all of it, or for a `range` as it stands in the field. Through the registry again
    /// each time: signed URLs expire.
    pub(super) async fn ask(&self, range: Option<&str>) -> Result<Followed, UpstreamError> {
        let asked = &self.exchange.asked;
        let mut headers = for_whole_content(&asked.headers);
        if let Some(range) = range {
            append(&mut headers, header::RANGE, range);
        }
        self.exchange.follow(Method::GET, &asked.target_of(&self.route), &headers).await
    }
}
