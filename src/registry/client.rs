//! One who asks a registry, and the answer after tokens and redirects.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use entrepot_oci::{Authority, Registry, RepositoryName, Route};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use tokio::time::Instant;

use super::answer::{is_refusal, trouble, trouble_of};
use super::challenge::{Authentication, Challenges, error_told, scope_asked_for};
use super::credentials::Credentials;
use super::fields::{for_ourselves, forwarded, without_session};
use super::identity::{Identifier, Identity};
use super::options::Options;
use super::own_tokens::{OwnTokens, TokenRequest, no_credentials};
use super::pressure::{Held, Pressure, Sign, Topic};
use super::quota::{self, Quota, Quotas};
use super::refusals::{Refusals, RefusedQuestion};
use super::states::{RegistryState, State, States};
use super::token_server::Realm;
use crate::collapse::{Collapse, Turn};
use crate::log::ContentKind;
use crate::memory::{Account, Shares};
use crate::metrics::{Behalf, HeldBack};
use crate::records::Archive;
use crate::upstream::body::{IdleBody, RequestBody};
use crate::upstream::client::{Followed, MAX_REGISTRIES, Sending};
use crate::upstream::redirect::RedirectError;
use crate::upstream::{Errand, Scheme, Target, Upstream, UpstreamError, via};

/// How a registry says that a token is good, but not for this (RFC 6750 §3.1).
const LACKING: &str = "insufficient_scope";
/// The longest `Accept` that an engine may send: containerd's has some 400 bytes.
const LONGEST_PLAIN: usize = 4096;
/// How often registries that are away are looked after.
const PROBE: Duration = Duration::from_secs(5);
/// How long a ping waits for another's answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Registries, as this proxy asks them; cheap to clone.
#[derive(Clone)]
pub(crate) struct Registries {
    inner: Arc<Inner>,
}

struct Inner {
    upstream: Upstream,
    /// What registries have said of themselves is on record there.
    archive: Archive,
    in_force: ArcSwap<InForce>,
    shares: Shares,
    challenges: Challenges,
    pressure: Pressure,
    quotas: Quotas,
    identifier: Identifier,
    pings: Collapse<Registry, ()>,
    states: Arc<States>,
}

/// What the operator wants now, and the tokens that were got under it: a request that began under
/// other credentials leaves none here.
struct InForce {
    options: Options,
    tokens: OwnTokens,
    refusals: Refusals,
}

impl InForce {
    fn new(options: Options, shares: Shares, states: &Arc<States>) -> Arc<Self> {
        let (tokens, refusals) = (OwnTokens::new(shares, states.clone()), Refusals::new(shares));
        Arc::new(Self { options, tokens, refusals })
    }
}

impl Registries {
    /// Registries that are asked by `upstream`, as `options` say.
    ///
    /// What is remembered of them takes these shares of the memory.
    pub(crate) fn new(
        archive: Archive,
        upstream: Upstream,
        options: Options,
        shares: Shares,
    ) -> Self {
        let states = Arc::new(States::new(shares));
        let inner = Inner {
            upstream,
            archive,
            in_force: ArcSwap::new(InForce::new(options, shares, &states)),
            shares,
            challenges: Challenges::new(shares),
            pressure: Pressure::new(shares),
            quotas: Quotas::new(shares),
            identifier: Identifier::new(),
            pings: Collapse::default(),
            states,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Asks by these options from now on. Tokens that the credentials of before have bought are not
    /// used any more.
    pub(crate) fn reconfigure(&self, options: Options) {
        let Inner { in_force, shares, states, .. } = &*self.inner;
        in_force.store(InForce::new(options, *shares, states));
        states.forget_credentials();
    }

    pub(crate) fn upstream(&self) -> &Upstream {
        &self.inner.upstream
    }

    /// The identity of a request with these fields.
    pub(crate) fn identify(&self, fields: &HeaderMap) -> Identity {
        self.inner.identifier.identify(fields)
    }

    /// How the registry at `authority` is spoken to.
    pub(crate) fn scheme_for(&self, authority: &Authority) -> Scheme {
        self.inner.in_force.load().options.scheme_for(authority)
    }

    /// What tells the proxy itself at the registry at `authority` from others: whose credentials it
    /// has there, never a secret; `None` where it is anonymous.
    pub(crate) fn own_label(&self, authority: &Authority) -> Option<String> {
        let in_force = self.inner.in_force.load();
        let credentials = in_force.options.credentials_for(authority).map(Credentials::label);
        let certificate = self.inner.upstream.certificate_label(authority).map(str::to_owned);
        match (credentials, certificate) {
            (Some(credentials), Some(certificate)) => Some(format!("{credentials}, {certificate}")),
            (one, other) => one.or(other),
        }
    }

    /// Whether the proxy is somebody at the registry at `authority`.
    pub(crate) fn has_credentials(&self, authority: &Authority) -> bool {
        let in_force = self.inner.in_force.load();
        let credentials = in_force.options.credentials_for(authority);
        credentials.is_some_and(|credentials| credentials.may_go_to(authority.host()))
    }

    /// How the registry has said within the last hour that it wants to be authenticated to.
    pub(crate) fn fresh_challenge(&self, registry: &Registry) -> Option<Authentication> {
        self.inner.challenges.fresh(registry)
    }

    /// What the registry has said of that last, be it before the proxy's last start.
    pub(crate) async fn last_challenge(&self, registry: &Registry) -> Option<Authentication> {
        self.inner.challenges.last(&self.inner.archive, registry).await
    }

    /// The registries that have asked the proxy itself to wait, or answer with errors: for how long
    /// they are left alone yet, and the status that said so.
    pub(crate) fn limits(&self) -> Vec<(Authority, Duration, StatusCode)> {
        self.inner.pressure.on_us()
    }

    /// The registries that something is wrong with.
    pub(crate) fn troubles(&self) -> Vec<RegistryState> {
        self.inner.states.troubles()
    }

    /// The registries that the proxy has credentials for, as far as they are named, and whether
    /// these are taken, as far as is known.
    pub(crate) fn credentials(&self) -> Vec<(Registry, bool)> {
        let all = self.inner.states.all().into_iter();
        let refused = all.filter(|one| one.state == State::CredentialsRefused);
        let mut credentials: BTreeMap<_, _> = refused.map(|one| (one.registry, false)).collect();
        let in_force = self.inner.in_force.load();
        let rules = in_force.options.rules.iter().filter(|rule| rule.credentials.is_some());
        for authority in rules.filter_map(|rule| rule.host.exact()) {
            credentials.entry(Registry::at(&authority)).or_insert(true);
        }
        credentials.into_iter().collect()
    }

    /// Asks the registries that are away whether they are back, now and then. Never ends.
    pub(crate) async fn keep_probing(&self) {
        let mut ticks = tokio::time::interval(PROBE);
        loop {
            ticks.tick().await;
            for (registry, authority) in self.inner.states.take_due() {
                let target = Target::of_registry(self.scheme_for(&authority), authority, "/v2/");
                let (headers, body) = (for_ourselves(&HeaderMap::new()), RequestBody::Empty);
                let behalf = self.upstream().behalf_of(&target);
                let sending = Sending::shared(&behalf, Errand::Pull);
                let asking = self.upstream().send(sending, Method::GET, &target, headers, body);
                if asking.await.is_ok() {
                    self.inner.states.note_back(&registry, &target.authority);
                }
            }
        }
    }

    /// Somebody's quota at a registry, where that counts pulls.
    pub(crate) fn quota(&self, registry: &Registry, whose: &Identity) -> Option<Quota> {
        self.inner.quotas.of(registry, whose)
    }

    /// Whose credentials the proxy has at the registry at `authority`, for people who use it.
    pub(crate) fn account(&self, authority: &Authority) -> Option<String> {
        let in_force = self.inner.in_force.load();
        in_force.options.credentials_for(authority).map(Credentials::whose)
    }

    /// The proxy's own quota at each registry that counts pulls.
    pub(crate) fn quotas(&self) -> Vec<(Registry, Quota)> {
        self.inner.quotas.shared()
    }

    /// Why the proxy itself would not ask the registry at `authority` now what `route` means.
    pub(crate) fn trouble(&self, authority: &Authority, route: &Route) -> Option<UpstreamError> {
        let topic = Topic::new(authority, &Method::HEAD, route);
        let held = self.inner.pressure.held(&topic, &Identity::Shared);
        let held = held.map(|held| limited(authority, held));
        self.inner.upstream.would_refuse(authority).or(held)
    }
}

/// One who asks a registry; cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    registries: Registries,
    /// Which one.
    pub(crate) registry: Registry,
    /// As whom.
    pub(crate) identity: Identity,
    /// What is asked for.
    route: Route,
    /// What the request has been through on whose behalf this is.
    via: HeaderMap,
    /// Whether the registry is asked whatever other repositories have met.
    is_pressing: bool,
    /// Who takes the memory that answers need.
    account: Account,
}

/// An answer, and whether it was known without asking.
struct Told {
    answer: Followed,
    is_known: bool,
}

/// What is done about redirects.
#[derive(Clone, Copy)]
enum Redirects<'a> {
    /// Followed, up to storage that names this object where only a yes or no is wanted.
    Followed(Option<&'a str>),
    /// The client's to follow.
    Returned,
}

// Each question is a future of its own on the heap: it is large, and a connection that answers
// from the store should not carry its size.
impl Client {
    /// The client of a request with these `fields` for `route` at `registry`, on this account.
    pub(crate) fn new(
        registries: &Registries,
        registry: &Registry,
        route: &Route,
        fields: &HeaderMap,
        account: &Account,
    ) -> Self {
        Self {
            account: account.clone(),
            registries: registries.clone(),
            registry: registry.clone(),
            identity: registries.identify(fields),
            route: route.clone(),
            via: via::of(fields),
            is_pressing: false,
        }
    }

    /// The same, who asks although the registry has refused questions about other repositories.
    pub(crate) fn pressing(&self) -> Self {
        Self { is_pressing: true, ..self.clone() }
    }

    /// Pulls that are left to this client, where the registry counts them.
    pub(crate) fn pulls_left(&self) -> Option<u64> {
        self.registries.inner.quotas.remaining(&self.registry, &self.identity)
    }

    /// Sends a GET or HEAD and follows its redirects.
    pub(crate) async fn follow(
        &self,
        method: Method,
        target: &Target,
        headers: &HeaderMap,
    ) -> Result<Followed, UpstreamError> {
        Box::pin(self.ask(method, target, headers, Redirects::Followed(None))).await
    }

    /// Sends a HEAD, or a GET of little, to learn whether the registry would serve this, as far as
    /// storage that names `object`.
    pub(crate) async fn inquire(
        &self,
        method: Method,
        target: &Target,
        headers: &HeaderMap,
        object: Option<&str>,
    ) -> Result<Followed, UpstreamError> {
        Box::pin(self.ask(method, target, headers, Redirects::Followed(object))).await
    }

    /// Sends a GET or HEAD; redirects are the client's.
    pub(crate) async fn once(
        &self,
        method: Method,
        target: &Target,
        headers: &HeaderMap,
    ) -> Result<Followed, UpstreamError> {
        Box::pin(self.ask(method, target, headers, Redirects::Returned)).await
    }

    /// Asks the registry at `target` (`/v2/`), anonymously, how it wants to be authenticated to:
    /// some hide that from whom they know. What it says is remembered.
    pub(crate) async fn ping(
        &self,
        target: &Target,
    ) -> Result<(Option<Authentication>, Response<IdleBody>), UpstreamError> {
        Box::pin(self.ping_of(&self.registry, target)).await
    }

    /// Where the token server is now, where that is somewhere else than `known`; asked once in a
    /// while.
    pub(crate) async fn doubted_realm(&self, target: &Target, known: &Realm) -> Option<Realm> {
        let told = Box::pin(self.doubted(&self.registry, target)).await?;
        told.realm(target).filter(|told| told != known)
    }

    /// A turn at a ping, which one makes for all who wait.
    pub(crate) async fn turn_to_ping(&self) -> Turn<Registry, ()> {
        let patience = via::patience(&self.via, PATIENCE);
        self.registries.inner.pings.turn(self.registry.clone(), patience).await
    }

    /// What counts what is asked: the registry that the client asked, wherever that leads.
    fn behalf(&self) -> Behalf {
        let metrics = self.registries.upstream().metrics();
        let content = ContentKind::of(&self.route);
        metrics.asking(self.registry.as_str(), self.account.client(), content)
    }

    async fn ask(
        &self,
        method: Method,
        target: &Target,
        headers: &HeaderMap,
        redirects: Redirects<'_>,
    ) -> Result<Followed, UpstreamError> {
        let topic = Topic::new(&target.authority, &method, &self.route);
        // What a client says of its own may bring about what others would not meet.
        let is_ours = self.identity == Identity::Shared && is_plainly_said(headers);
        let asking = Box::pin(self.ask_at_all(method, target, headers, redirects));
        self.watched(&self.registry, (&topic, is_ours), asking).await
    }

    /// Notes how long the registry takes for an answer, token and all, and when it has none.
    async fn watched<V>(
        &self,
        registry: &Registry,
        (topic, is_ours): (&Topic, bool),
        mut asking: Pin<Box<impl Future<Output = Result<V, UpstreamError>>>>,
    ) -> Result<V, UpstreamError> {
        let states = &self.registries.inner.states;
        let patience = self.registries.inner.in_force.load().options.slow_after;
        let answer = if let Ok(answer) = tokio::time::timeout(patience, &mut asking).await {
            if answer.is_ok() {
                states.note_quick(registry, topic);
            }
            answer
        } else {
            if is_ours {
                states.note_slow(registry, topic, patience);
            }
            asking.await
        };
        if let Err(error) = &answer
            && (is_ours || error.is_away())
        {
            self.note_failure(registry, topic, error).await;
        }
        answer
    }

    /// Notes that a registry which is one could not be asked. What only a client has named is none
    /// before it has answered.
    async fn note_failure(&self, registry: &Registry, topic: &Topic, error: &UpstreamError) {
        let Inner { upstream, states, .. } = &*self.registries.inner;
        if !error.tells_of_state() {
            return;
        }
        let is_known = upstream.metrics().is_told_apart(registry.as_str())
            || self.registries.last_challenge(registry).await.is_some();
        if !is_known {
            return;
        }
        upstream.metrics().tell_apart(registry.as_str());
        let own = topic.authority();
        let why = error.cause();
        if upstream.outages().iter().any(|outage| outage.authority == *own) {
            states.note_away(registry, own, why);
        } else if error.is_away() && !error.is_silence() {
            states.note_part_away(registry, topic, why);
        } else if !error.is_away() {
            states.note_broken(registry, topic, why);
        }
    }

    async fn ask_at_all(
        &self,
        method: Method,
        target: &Target,
        headers: &HeaderMap,
        redirects: Redirects<'_>,
    ) -> Result<Followed, UpstreamError> {
        let (behalf, began) = (self.behalf(), Instant::now());
        let answer = self.ask_on(&behalf, method, target, headers, redirects).await;
        if answer.as_ref().map_or_else(UpstreamError::is_silence, |told| !told.is_known) {
            behalf.began(began.elapsed());
        }
        answer.map(|told| told.answer)
    }

    async fn ask_on(
        &self,
        behalf: &Behalf,
        method: Method,
        target: &Target,
        headers: &HeaderMap,
        redirects: Redirects<'_>,
    ) -> Result<Told, UpstreamError> {
        match self.identity {
            Identity::Client(_) => {
                let registry = &self.registry;
                let asking = Asking { behalf, registry, target, route: &self.route };
                let answer = self.send(&asking, method, headers.clone(), redirects).await?;
                Ok(Told { answer, is_known: false })
            }
            Identity::Shared => {
                let in_force = self.registries.inner.in_force.load_full();
                let is_manifest = matches!(self.route, Route::Manifest { .. });
                let question = is_manifest.then(|| RefusedQuestion::new(&method, target, headers));
                if let Some(question) = &question
                    && let Some(refused) = in_force.refusals.get(question)
                {
                    return Ok(Told { answer: refused, is_known: true });
                }
                let asked = self.ask_as_ourselves(behalf, method, target, headers, redirects).await;
                let mut answer = asked?;
                without_session(answer.response.headers_mut());
                if let Some(question) = question
                    && is_refusal(&answer)
                {
                    answer = in_force.refusals.remember(question, answer, &self.account).await;
                }
                Ok(Told { answer, is_known: false })
            }
        }
    }

    /// From registry to registry, at each under what we are there.
    async fn ask_as_ourselves(
        &self,
        behalf: &Behalf,
        method: Method,
        target: &Target,
        headers: &HeaderMap,
        redirects: Redirects<'_>,
    ) -> Result<Followed, UpstreamError> {
        let (mut registry, mut target) = (self.registry.clone(), target.clone());
        let mut route = self.route.clone();
        for _ in 0..MAX_REGISTRIES {
            let asking = Asking { behalf, registry: &registry, target: &target, route: &route };
            let answer = self.authorized(&asking, &method, headers, redirects).await?;
            let Some((next, its_route)) = &answer.elsewhere else { return Ok(answer) };
            registry = Registry::at(&next.authority);
            route = its_route.clone();
            let scheme = self.registries.scheme_for(&next.authority);
            let (authority, path) = (next.authority.clone(), next.path_and_query.clone());
            target = Target::of_registry(scheme, authority, path);
        }
        Err(UpstreamError::Redirect { authority: target.authority, source: RedirectError::TooMany })
    }

    /// Asks one registry with what the shared identity has there; once more where that is not
    /// taken any more, or where it wants something else for this repository.
    async fn authorized(
        &self,
        asking: &Asking<'_>,
        method: &Method,
        headers: &HeaderMap,
        redirects: Redirects<'_>,
    ) -> Result<Followed, UpstreamError> {
        let Asking { registry, target, route, .. } = *asking;
        let Some(scope) = pulled(route).map(pull_scope) else {
            // What is no pull is asked for anonymously.
            let fields = with_authorization(headers, None);
            return self.send(asking, method.clone(), fields, redirects).await;
        };
        let InForce { options, tokens, .. } = &*self.registries.inner.in_force.load_full();
        let mut request = TokenRequest {
            account: &self.account,
            registry,
            target,
            authentication: self.authentication_of(registry, target).await?,
            scope,
            began: Instant::now(),
            rule: options.rule_for(&target.authority),
            via: &self.via,
        };
        let upstream = self.registries.upstream();
        let mut shown = tokens.authorization(upstream, &request).await;
        let wants_one = !matches!(request.authentication, None | Some(Authentication::None));
        // The token server may have moved, or be wanted no more.
        if wants_one && !matches!(shown, Ok(Some(_))) && self.has_changed(&mut request).await {
            shown = tokens.authorization(upstream, &request).await;
        }
        let shown = shown?;
        let fields = with_authorization(headers, shown.as_ref());
        let answer = self.send(asking, method.clone(), fields, redirects).await?;
        let status = answer.response.status();
        let is_basic = matches!(request.authentication, Some(Authentication::Basic { .. }));
        if is_basic && shown.is_some() && status.is_success() {
            tokens.note_taken(registry);
        }
        let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if !is_refused || !answer.is_from_registry() {
            return Ok(answer);
        }
        let again = if let Some(shown) = shown.as_ref().filter(|_| is_basic) {
            self.instead_of(shown, status, tokens, &request).await
        } else if status == StatusCode::UNAUTHORIZED
            && self.may_fare_better(tokens, &mut request, shown.as_ref(), &answer).await
        {
            // A realm that can't be asked leaves the answer as it is.
            tokens.authorization(upstream, &request).await.ok().flatten().map(Some)
        } else {
            None
        };
        let answer = match again {
            Some(again) => {
                let fields = with_authorization(headers, again.as_ref());
                self.send(asking, method.clone(), fields, redirects).await?
            }
            None => answer,
        };
        if is_refusal(&answer)
            && let Some(refused) = tokens.refused_at(registry)
        {
            let authority = target.authority.clone();
            return Err(UpstreamError::Credentials {
                authority,
                label: refused.label,
                since: refused.since.elapsed(),
            });
        }
        Ok(answer)
    }

    /// What to show to a registry that wants credentials themselves and has refused `shown`:
    /// others, if the file or the helper has them now, else nothing (public things are open
    /// without).
    async fn instead_of(
        &self,
        shown: &HeaderValue,
        status: StatusCode,
        tokens: &OwnTokens,
        request: &TokenRequest<'_>,
    ) -> Option<Option<HeaderValue>> {
        if let Some(renewed) = request.renewed_basic(shown).await {
            return Some(Some(renewed));
        }
        // A 403 may be about this repository alone.
        if status == StatusCode::FORBIDDEN && !self.refuses_all(shown, request).await {
            return None;
        }
        if let Some(login) = request.shown_login().await {
            no_credentials(request.registry, &format_args!("the registry answered {status}"));
            tokens.note_refused(request, &login);
        }
        Some(None)
    }

    /// Whether a registry refuses these credentials for whatever it is asked; found out once in a
    /// while.
    async fn refuses_all(&self, shown: &HeaderValue, request: &TokenRequest<'_>) -> bool {
        if !self.registries.inner.challenges.may_doubt(request.registry) {
            return false;
        }
        let fields = with_authorization(&forwarded(&self.via), Some(shown));
        let (target, body) = (request.target.ping(), RequestBody::Empty);
        let (upstream, behalf) = (self.registries.upstream(), self.behalf().without_content());
        let sending = Sending::shared(&behalf, Errand::Pull);
        let asking = upstream.send(sending, Method::GET, &target, fields, body);
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        asking.await.is_ok_and(|answer| refused.contains(&answer.status()))
    }

    /// Asks the registry at `target` anew how it wants to be authenticated to, since what is known
    /// leads nowhere; once in a while.
    async fn doubted(&self, registry: &Registry, target: &Target) -> Option<Authentication> {
        if !self.registries.inner.challenges.may_doubt(registry) {
            return None;
        }
        self.ping_of(registry, &target.ping()).await.ok()?.0
    }

    /// Takes what the registry says when it is asked anew into `request`, if that is something
    /// else.
    async fn has_changed(&self, request: &mut TokenRequest<'_>) -> bool {
        let told = self.doubted(request.registry, request.target).await;
        let is_news = told.is_some() && told != request.authentication;
        if is_news {
            request.authentication = told;
        }
        is_news
    }

    /// Whether a request that was refused with this 401 may fare better, and with what in it.
    async fn may_fare_better(
        &self,
        tokens: &OwnTokens,
        request: &mut TokenRequest<'_>,
        shown: Option<&HeaderValue>,
        answer: &Followed,
    ) -> bool {
        let told = Authentication::of_challenge(request.target, answer.response.headers());
        let is_contradicted = told.is_some() && told != request.authentication;
        (is_contradicted && self.has_changed(request).await)
            || is_worth_another_try(tokens, request, shown, answer)
    }

    /// How the registry at `target` wants to be authenticated to; it is asked where that is not
    /// known.
    pub(crate) async fn authentication(
        &self,
        target: &Target,
    ) -> Result<Option<Authentication>, UpstreamError> {
        Box::pin(self.authentication_of(&self.registry, target)).await
    }

    async fn authentication_of(
        &self,
        registry: &Registry,
        target: &Target,
    ) -> Result<Option<Authentication>, UpstreamError> {
        if let Some(known) = self.registries.last_challenge(registry).await {
            return Ok(Some(known));
        }
        if let Some(silence) = self.registries.inner.challenges.silence(registry) {
            return Err(silence);
        }
        Ok(self.ping_of(registry, &target.ping()).await?.0)
    }

    async fn ping_of(
        &self,
        registry: &Registry,
        target: &Target,
    ) -> Result<(Option<Authentication>, Response<IdleBody>), UpstreamError> {
        let Inner { upstream, pressure, challenges, archive, states, .. } = &*self.registries.inner;
        let topic = Topic::new(&target.authority, &Method::GET, &Route::Ping);
        let behalf = self.behalf().without_content();
        held_back(&behalf, &target.authority, pressure.admit(&topic, &Identity::Shared))?;
        let headers = for_ourselves(&forwarded(&self.via));
        let (sending, body) = (Sending::shared(&behalf, Errand::Pull), RequestBody::Empty);
        let asking = Box::pin(upstream.send(sending, Method::GET, target, headers, body));
        let answer = self.watched(registry, (&topic, true), asking).await;
        let response = answer.map_err(|error| challenges.note_failure(registry, error))?;
        let status = response.status();
        let trouble = trouble(status, response.headers());
        let headers = response.headers();
        let sign = Sign { status, trouble, is_plain: true, headers };
        pressure.note(&topic, &Identity::Shared, sign);
        states.note_answer(registry, &topic, true, sign);
        let known = match status {
            StatusCode::OK if is_registry(response.headers()) => {
                challenges.remember(archive, registry, Authentication::None).await;
                Some(Authentication::None)
            }
            StatusCode::UNAUTHORIZED => {
                challenges.learn(archive, registry, target, response.headers()).await;
                challenges.fresh(registry)
            }
            _ => None,
        };
        Ok((known, response))
    }

    /// Notes whether a registry that serves a manifest counts pulls. One that says nothing of a
    /// quota to somebody with a login may not count theirs (the Hub, of those who pay).
    fn note_counting(&self, behalf: &Behalf, target: &Target, route: &Route, answer: &Followed) {
        let is_manifest = matches!(route, Route::Manifest { .. });
        if !is_manifest || !answer.response.status().is_success() {
            return;
        }
        let tells = quota::tells(answer.response.headers());
        let has_login =
            self.identity == Identity::Shared && self.registries.has_credentials(&target.authority);
        if tells || has_login {
            behalf.told_of_quota(tells);
        }
    }

    async fn send(
        &self,
        Asking { registry, target, route, behalf }: &Asking<'_>,
        method: Method,
        headers: HeaderMap,
        redirects: Redirects<'_>,
    ) -> Result<Followed, UpstreamError> {
        let Inner { upstream, pressure, quotas, states, .. } = &*self.registries.inner;
        let authority = &target.authority;
        let topic = Topic::new(authority, &method, route);
        // A page of a listing is one of as many as there are numbers.
        let is_plainly_asked = is_plainly_said(&headers) && !target.path_and_query.contains('?');
        let is_plain = self.identity != Identity::Shared || is_plainly_asked;
        let admitted = if self.is_pressing {
            pressure.admit_here(&topic, &self.identity)
        } else {
            pressure.admit(&topic, &self.identity)
        };
        held_back(behalf, authority, admitted)?;
        let sending = Sending::shared(behalf, Errand::of(&method, route));
        let answer = match redirects {
            Redirects::Followed(object) => {
                upstream.walk(sending, method, (*target).clone(), headers, object).await?
            }
            Redirects::Returned => {
                let body = RequestBody::Empty;
                let sent = upstream.send(sending, method, target, headers, body);
                sent.await.map(Followed::at_once)?
            }
        };
        if answer.is_from_registry() {
            self.note_counting(behalf, target, route, &answer);
            let (status, headers) = (answer.response.status(), answer.response.headers());
            let sign = Sign { status, trouble: trouble_of(&answer), is_plain, headers };
            pressure.note(&topic, &self.identity, sign);
            states.note_answer(registry, &topic, self.identity == Identity::Shared, sign);
            quotas.note(&Registry::at(authority), &self.identity, headers);
        }
        Ok(answer)
    }
}

/// Whether a question may go out now: a registry that has asked for a pause is left alone.
fn held_back(
    behalf: &Behalf,
    authority: &Authority,
    admitted: Result<(), Held>,
) -> Result<(), UpstreamError> {
    admitted.map_err(|held| {
        behalf.held_back(HeldBack::Limited);
        limited(authority, held)
    })
}

fn limited(authority: &Authority, held: Held) -> UpstreamError {
    let Held { wait: retry_after, status, is_own } = held;
    UpstreamError::Limited { authority: authority.clone(), status, retry_after, is_own }
}

/// Whether what a client takes is said as engines say it: a firewall may answer other words with
/// errors, of which nothing follows for those who have not said them.
fn is_plainly_said(fields: &HeaderMap) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._/*;=,: \"".contains(byte);
    let accepted = fields.get_all(header::ACCEPT);
    let length: usize = accepted.iter().map(HeaderValue::len).sum();
    length <= LONGEST_PLAIN && accepted.iter().all(|value| value.as_bytes().iter().all(is_plain))
}

/// One registry, and what is asked of it.
struct Asking<'a> {
    /// What counts it: the registry that the client asked may have led here.
    behalf: &'a Behalf,
    registry: &'a Registry,
    target: &'a Target,
    route: &'a Route,
}

/// Whether a 200 is that of a registry, and not that of a web site with something at every path.
fn is_registry(headers: &HeaderMap) -> bool {
    let is_page = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|content_type| content_type.as_bytes().starts_with(b"text/html"));
    headers.contains_key("docker-distribution-api-version") || !is_page
}

/// Whether a refused request may fare better: with the realm and scope that this answer names,
/// or with a new token in place of one that is not taken any more.
fn is_worth_another_try(
    tokens: &OwnTokens,
    request: &mut TokenRequest<'_>,
    shown: Option<&HeaderValue>,
    answer: &Followed,
) -> bool {
    let fields = answer.response.headers();
    let is_new = shown.is_some_and(|shown| tokens.is_new(request, shown));
    let asked_for = scope_asked_for(fields).filter(|scope| !is_for_writing(scope));
    let told = Authentication::bearer_of(request.target, fields);
    let is_other_realm = told.is_some() && told != request.authentication;
    let is_other_scope = asked_for.as_ref().is_some_and(|scope| *scope != request.scope);
    let is_lacking = error_told(fields).as_deref() == Some(LACKING);
    if let Some(shown) = shown
        && !is_lacking
    {
        tokens.forget(request, shown);
    }
    request.authentication = told.or_else(|| request.authentication.take());
    request.scope = asked_for.unwrap_or_else(|| request.scope.clone());
    is_other_realm || is_other_scope || (shown.is_some() && !is_lacking && !is_new)
}

/// The repository whose content a request is for.
fn pulled(route: &Route) -> Option<&RepositoryName> {
    route.repository().filter(|_| !matches!(route, Route::Upload { .. }))
}

/// What a request for a repository's content needs (distribution's token scopes).
fn pull_scope(repository: &RepositoryName) -> String {
    format!("repository:{repository}:pull")
}

/// Whether a scope asks for more than to pull: the shared identity does not.
fn is_for_writing(scope: &str) -> bool {
    let actions = |scope: &str| scope.rsplit(':').next().unwrap_or_default().to_owned();
    scope.split(' ').any(|scope| actions(scope).split(',').any(|action| action != "pull"))
}

fn with_authorization(headers: &HeaderMap, authorization: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = for_ourselves(headers);
    if let Some(authorization) = authorization {
        headers.insert(header::AUTHORIZATION, authorization.clone());
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn the_scope_of_a_pull_is_that_of_its_repository() {
        let scope = |path: &str| pulled(&Route::parse(path, None)).map(pull_scope);
        assert_eq!(scope("/v2/a/b/manifests/1").as_deref(), Some("repository:a/b:pull"));
        assert_eq!(scope("/v2/a/b/tags/list").as_deref(), Some("repository:a/b:pull"));
        for none in ["/v2/_catalog", "/v2/a/blobs/uploads/x", "/v2/a/blobs/uploads/../../b", "/x"] {
            assert_eq!(scope(none), None, "{none}");
        }
    }

    #[test]
    fn a_scope_for_writing_is_not_asked_for() {
        for scope in ["repository:a:pull", "repository:a/b:pull repository:c:pull"] {
            assert!(!is_for_writing(scope), "{scope}");
        }
        for scope in ["repository:a:pull,push", "repository:a:*", "registry:catalog:*", "x"] {
            assert!(is_for_writing(scope), "{scope}");
        }
    }
}
