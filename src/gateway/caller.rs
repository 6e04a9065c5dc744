//! Requests to a registry under somebody's rights.

use std::sync::Arc;

use entrepot_oci::{Registry, Route};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::challenges::{Authentication, error_told, scope_asked_for};
use super::headers::{for_ourselves, without_session};
use super::identity::Identity;
use super::shared::{Errand, SharedTokens};
use super::{Gateway, InForce, Parts, access::Rights};
use crate::metrics::HeldBack;
use crate::upstream::body::RequestBody;
use crate::upstream::client::{Followed, MAX_REGISTRIES};
use crate::upstream::redirect::RedirectError;
use crate::upstream::{Target, UpstreamError};

/// Somebody who asks a registry; cheap to clone.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) parts: Arc<Parts>,
    pub(super) registry: Registry,
    pub(super) identity: Identity,
    /// In the repository that is asked about, if any is.
    pub(super) rights: Option<Arc<Rights>>,
}

/// How a registry says that a token is good, but not for this (RFC 6750 §3.1).
const LACKING: &str = "insufficient_scope";

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
impl Caller {
    /// Sends a GET or HEAD and follows its redirects.
    pub(super) async fn follow(
        &self,
        method: Method,
        target: &Target,
        headers: &HeaderMap,
    ) -> Result<Followed, UpstreamError> {
        Box::pin(self.ask(method, target, headers, Redirects::Followed(None))).await
    }

    /// Sends a HEAD to learn whether the registry would serve this, as far as storage that names
    /// `object`.
    pub(super) async fn inquire(
        &self,
        target: &Target,
        headers: &HeaderMap,
        object: Option<&str>,
    ) -> Result<Followed, UpstreamError> {
        Box::pin(self.ask(Method::HEAD, target, headers, Redirects::Followed(object))).await
    }

    /// Sends a GET or HEAD; redirects are the client's.
    pub(super) async fn once(
        &self,
        method: Method,
        target: &Target,
        headers: &HeaderMap,
    ) -> Result<Followed, UpstreamError> {
        Box::pin(self.ask(method, target, headers, Redirects::Returned)).await
    }

    async fn ask(
        &self,
        method: Method,
        target: &Target,
        headers: &HeaderMap,
        redirects: Redirects<'_>,
    ) -> Result<Followed, UpstreamError> {
        let answer = match self.identity {
            Identity::Client(_) => self.send(method, target, headers.clone(), redirects).await?,
            Identity::Shared => {
                let asked = self.ask_as_ourselves(method, target, headers, redirects).await;
                let mut answer = asked?;
                without_session(answer.response.headers_mut());
                answer
            }
        };
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        if let Some(rights) = &self.rights
            && answer.is_from_registry()
            && refused.contains(&answer.response.status())
        {
            rights.revoke(&self.parts.access).await;
        }
        Ok(answer)
    }

    /// From registry to registry, at each under what we are there.
    async fn ask_as_ourselves(
        &self,
        method: Method,
        target: &Target,
        headers: &HeaderMap,
        redirects: Redirects<'_>,
    ) -> Result<Followed, UpstreamError> {
        let (mut registry, mut target) = (self.registry.clone(), target.clone());
        for _ in 0..MAX_REGISTRIES {
            let answer = self.authorized(&registry, &method, &target, headers, redirects).await?;
            let Some(next) = &answer.elsewhere else { return Ok(answer) };
            registry = Registry::at(&next.authority);
            let scheme = self.parts.in_force.load().options.scheme_for(&next.authority);
            target = Target { scheme, ..next.clone() };
        }
        Err(UpstreamError::Redirect { authority: target.authority, source: RedirectError::TooMany })
    }

    /// Asks one registry with what the shared identity has there; once more where that is not
    /// taken any more, or where it wants something else for this repository.
    async fn authorized(
        &self,
        registry: &Registry,
        method: &Method,
        target: &Target,
        headers: &HeaderMap,
        redirects: Redirects<'_>,
    ) -> Result<Followed, UpstreamError> {
        let parts = &*self.parts;
        let Some(scope) = pull_scope(target) else {
            // What is no pull is asked for as nobody.
            let fields = with_authorization(headers, None);
            return self.send(method.clone(), target, fields, redirects).await;
        };
        let InForce { options, tokens } = &*parts.in_force.load_full();
        let mut errand = Errand {
            registry,
            target,
            authentication: self.authentication(registry, target).await?,
            scope,
            rule: options.rule_for(&target.authority),
        };
        let shown = tokens.authorization(&parts.upstream, &errand).await?;
        let fields = with_authorization(headers, shown.as_ref());
        let answer = self.send(method.clone(), target, fields, redirects).await?;
        if answer.response.status() != StatusCode::UNAUTHORIZED || !answer.is_from_registry() {
            return Ok(answer);
        }
        if !is_worth_another_try(tokens, &mut errand, shown.as_ref(), &answer).await {
            return Ok(answer);
        }
        // A realm that this answer alone names, and that can't be asked, leaves the answer as it is.
        let again = tokens.authorization(&parts.upstream, &errand).await;
        let Ok(Some(again)) = again else { return Ok(answer) };
        let fields = with_authorization(headers, Some(&again));
        self.send(method.clone(), target, fields, redirects).await
    }

    /// How the registry wants to be authenticated to; it is asked where that is not known.
    async fn authentication(
        &self,
        registry: &Registry,
        target: &Target,
    ) -> Result<Option<Authentication>, UpstreamError> {
        let Parts { challenges, store, .. } = &*self.parts;
        if let Some(known) = challenges.last(store, registry).await {
            return Ok(Some(known));
        }
        let ping = Target { path_and_query: "/v2/".to_owned(), ..target.clone() };
        let gateway = Gateway { parts: self.parts.clone() };
        Ok(super::ping::ask(&gateway, registry, &ping).await?.0)
    }

    async fn send(
        &self,
        method: Method,
        target: &Target,
        headers: HeaderMap,
        redirects: Redirects<'_>,
    ) -> Result<Followed, UpstreamError> {
        let Parts { upstream, pressure, quotas, .. } = &*self.parts;
        let authority = &target.authority;
        let admitted = pressure.admit(authority, &self.identity);
        admitted.map_err(|(retry_after, status)| {
            let registry = Registry::at(authority);
            upstream.metrics().held_back(registry.as_str(), HeldBack::Limited);
            UpstreamError::Limited { authority: authority.clone(), status, retry_after }
        })?;
        let answer = match redirects {
            Redirects::Followed(object) => {
                upstream.walk(method, target.clone(), headers, object).await?
            }
            Redirects::Returned => {
                let sent = upstream.send(method, target, headers, RequestBody::Empty);
                sent.await.map(Followed::at_once)?
            }
        };
        if answer.is_from_registry() {
            let (status, fields) = (answer.response.status(), answer.response.headers());
            pressure.note(authority, &self.identity, status, fields);
            quotas.note(&Registry::at(authority), &self.identity, fields);
        }
        Ok(answer)
    }
}

/// Whether a refused errand may fare better: with the realm and scope that this answer names,
/// or with a new token in place of one that is not taken any more.
async fn is_worth_another_try(
    tokens: &SharedTokens,
    errand: &mut Errand<'_>,
    shown: Option<&HeaderValue>,
    answer: &Followed,
) -> bool {
    let fields = answer.response.headers();
    let asked_for = scope_asked_for(fields).filter(|scope| !is_for_writing(scope));
    let told = Authentication::bearer_of(errand.target, fields);
    let is_other_realm = told.is_some() && told != errand.authentication;
    let is_other_scope = asked_for.as_ref().is_some_and(|scope| *scope != errand.scope);
    let is_lacking = error_told(fields).as_deref() == Some(LACKING);
    if let Some(shown) = shown
        && !is_lacking
    {
        tokens.forget(errand, shown).await;
    }
    errand.authentication = told.or_else(|| errand.authentication.take());
    errand.scope = asked_for.unwrap_or_else(|| errand.scope.clone());
    is_other_realm || is_other_scope || (shown.is_some() && !is_lacking)
}

/// What a request for a repository's content needs (distribution's token scopes).
fn pull_scope(target: &Target) -> Option<String> {
    let query = target.path_and_query.split_once('?').map(|(_, query)| query);
    match Route::parse(target.path(), query) {
        Route::Blob { repository, .. }
        | Route::Manifest { repository, .. }
        | Route::Tags { repository }
        | Route::Referrers { repository, .. } => Some(format!("repository:{repository}:pull")),
        Route::Ping | Route::Upload { .. } | Route::Other => None,
    }
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
    use crate::upstream::Scheme;

    #[test]
    fn the_scope_of_a_pull_is_that_of_its_repository() {
        let scope = |path: &str| {
            let authority = "ghcr.io:443".parse().unwrap();
            let path_and_query = path.to_owned();
            pull_scope(&Target { scheme: Scheme::Https, authority, path_and_query })
        };
        assert_eq!(scope("/v2/a/b/manifests/1").as_deref(), Some("repository:a/b:pull"));
        assert_eq!(scope("/v2/a/b/tags/list?n=1").as_deref(), Some("repository:a/b:pull"));
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
