//! What the shared identity shows to a registry: the operator's credentials, or an anonymous token.
//!
//! Tokens are got once for all who wait and kept until shortly before they expire.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use entrepot_oci::{Authority, Host, Registry};
use http::{HeaderValue, StatusCode};
use moka::Expiry;
use moka::future::Cache;

use super::RegistryRule;
use super::challenges::Authentication;
use crate::upstream::credentials::Login;
use crate::upstream::realm::{Token, TokenError};
use crate::upstream::{Target, Upstream, UpstreamError};

/// Tokens kept at a time: one a repository.
const MOST: u64 = 10_000;
/// A token is renewed this long before it expires, or when a tenth of its life is left: a request
/// takes its time, too.
const MARGIN: Duration = Duration::from_secs(30);

/// The tokens of the shared identity.
pub(super) struct SharedTokens {
    tokens: Cache<Key, Arc<Token>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    registry: Registry,
    realm: Target,
    scope: String,
}

struct BeforeTheEnd;

impl Expiry<Key, Arc<Token>> for BeforeTheEnd {
    fn expire_after_create(
        &self,
        _: &Key,
        token: &Arc<Token>,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(token.lifetime.saturating_sub(MARGIN.min(token.lifetime / 10)))
    }
}

impl Default for SharedTokens {
    fn default() -> Self {
        let tokens = Cache::builder().max_capacity(MOST).expire_after(BeforeTheEnd).build();
        Self { tokens }
    }
}

/// A request of the shared identity, on its way to a registry.
pub(super) struct Errand<'a> {
    /// Whose.
    pub(super) registry: &'a Registry,
    /// What is asked.
    pub(super) target: &'a Target,
    /// What the registry wants, as far as is known.
    pub(super) authentication: Option<Authentication>,
    /// What the request is for.
    pub(super) scope: String,
    /// What the operator has configured for the registry.
    pub(super) rule: Option<&'a RegistryRule>,
}

impl SharedTokens {
    /// The `Authorization` of an errand; none where the registry wants none, or where none is to
    /// be had: the registry then says so itself.
    pub(super) async fn authorization(
        &self,
        upstream: &Upstream,
        errand: &Errand<'_>,
    ) -> Result<Option<HeaderValue>, UpstreamError> {
        match &errand.authentication {
            None | Some(Authentication::None) => Ok(None),
            Some(Authentication::Basic { .. }) => {
                let registry = errand.target.authority.host();
                Ok(errand.login(registry).await.as_ref().and_then(Login::basic))
            }
            Some(bearer @ Authentication::Bearer { .. }) => {
                let Some(realm) = bearer.realm(errand.target) else { return Ok(None) };
                let authority = &errand.target.authority;
                let login = if realm.is_trusted_by(authority) {
                    errand.login(realm.host()).await
                } else {
                    None
                };
                let Some(key) = errand.key() else { return Ok(None) };
                let scope = errand.scope.clone();
                let getting = async {
                    upstream.token(&realm, Some(&scope), login.as_ref()).await.map(Arc::new)
                };
                match self.tokens.try_get_with(key, getting).await {
                    Ok(token) => Ok(Some(token.authorization.clone())),
                    Err(error) => refused(errand, login.is_some(), &error).map(|()| None),
                }
            }
        }
    }

    /// The registry does not take `authorization` any more.
    pub(super) async fn forget(&self, errand: &Errand<'_>, authorization: &HeaderValue) {
        if let Some(credentials) = errand.rule.and_then(|rule| rule.credentials.as_ref()) {
            credentials.forget();
        }
        let Some(key) = errand.key() else { return };
        let is_same = |token: &Arc<Token>| token.authorization == *authorization;
        // Somebody else may have got a new one meanwhile.
        if self.tokens.get(&key).await.as_ref().is_some_and(is_same) {
            self.tokens.invalidate(&key).await;
        }
    }
}

impl Errand<'_> {
    fn key(&self) -> Option<Key> {
        let realm = self.authentication.as_ref()?.realm(self.target)?.target;
        Some(Key { registry: self.registry.clone(), realm, scope: self.scope.clone() })
    }

    /// The operator's credentials, if they may be shown to `host`.
    async fn login(&self, host: &Host) -> Option<Login> {
        let credentials = self.rule?.credentials.as_ref()?;
        if !credentials.may_go_to(host) {
            return None;
        }
        let login = credentials.login(&helper_name(self.registry, &self.target.authority)).await;
        login.inspect_err(|error| no_credentials(self.registry, error)).ok()
    }
}

/// Under which name credential helpers know a registry; the Hub's is a URL of old.
fn helper_name(registry: &Registry, authority: &Authority) -> String {
    if registry.is_hub() {
        "https://index.docker.io/v1/".to_owned()
    } else {
        authority.to_host_field(443)
    }
}

/// A token server that says no leaves the request without a token; one that can't be asked is a
/// failure.
fn refused(
    errand: &Errand<'_>,
    is_configured: bool,
    error: &TokenError,
) -> Result<(), UpstreamError> {
    let authority = errand.target.authority.clone();
    match error {
        TokenError::Refused(_, status)
            if status.is_client_error() && *status != StatusCode::TOO_MANY_REQUESTS =>
        {
            if is_configured {
                no_credentials(errand.registry, error);
            }
            Ok(())
        }
        TokenError::Upstream(error) => Err(error.clone().into()),
        TokenError::Refused(..) | TokenError::Answer(_) => {
            Err(UpstreamError::Token { authority, reason: error.to_string() })
        }
    }
}

fn no_credentials(registry: &Registry, error: &dyn Display) {
    tracing::warn!(%registry, %error, "the configured credentials can't be used");
}
