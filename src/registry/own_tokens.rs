//! Tokens of the proxy itself: what the shared identity shows to a registry, by the operator's
//! credentials or anonymously.
//!
//! Tokens are got once for all who wait and kept until shortly before they expire.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use entrepot_oci::{Authority, Host, Registry};
use http::{HeaderMap, HeaderValue, StatusCode};
use moka::Expiry;
use moka::sync::Cache;

use super::challenge::Authentication;
use super::credentials::Login;
use super::options::RegistryRule;
use super::token_server::{Realm, Token, TokenError};
use crate::collapse::Collapse;
use crate::upstream::{Target, Upstream, UpstreamError};

/// Tokens kept at a time: one a repository.
const MOST: u64 = 10_000;
/// A token is renewed this long before it expires, or when a tenth of its life is left: a request
/// takes its time, too.
const MARGIN: Duration = Duration::from_secs(30);
/// How long a request waits for another's token.
const PATIENCE: Duration = Duration::from_secs(30);

/// The tokens of the shared identity.
pub(crate) struct OwnTokens {
    tokens: Cache<TokenKey, Arc<Token>>,
    /// What the token server is being asked for.
    asked: Collapse<TokenKey, Result<Arc<Token>, Arc<TokenError>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    registry: Registry,
    realm: Target,
    scope: String,
}

struct BeforeTheEnd;

impl Expiry<TokenKey, Arc<Token>> for BeforeTheEnd {
    fn expire_after_create(
        &self,
        _: &TokenKey,
        token: &Arc<Token>,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(token.lifetime.saturating_sub(MARGIN.min(token.lifetime / 10)))
    }
}

impl Default for OwnTokens {
    fn default() -> Self {
        let tokens = Cache::builder().max_capacity(MOST).expire_after(BeforeTheEnd).build();
        Self { tokens, asked: Collapse::default() }
    }
}

/// What the shared identity needs a token for: a request on its way to a registry.
pub(crate) struct TokenRequest<'a> {
    /// Whose.
    pub(crate) registry: &'a Registry,
    /// What is asked.
    pub(crate) target: &'a Target,
    /// What the registry wants, as far as is known.
    pub(crate) authentication: Option<Authentication>,
    /// What the request is for.
    pub(crate) scope: String,
    /// What the operator has configured for the registry.
    pub(crate) rule: Option<&'a RegistryRule>,
    /// What the client's request has been through.
    pub(crate) via: &'a HeaderMap,
}

impl OwnTokens {
    /// The `Authorization` of a request; none where the registry wants none, or where none is to
    /// be had: the registry then says so itself.
    pub(crate) async fn authorization(
        &self,
        upstream: &Upstream,
        request: &TokenRequest<'_>,
    ) -> Result<Option<HeaderValue>, UpstreamError> {
        match &request.authentication {
            None | Some(Authentication::None) => Ok(None),
            Some(Authentication::Basic { .. }) => {
                let registry = request.target.authority.host();
                Ok(request.login(registry).await.as_ref().and_then(Login::basic))
            }
            Some(bearer @ Authentication::Bearer { .. }) => {
                let Some(realm) = bearer.realm(request.target) else { return Ok(None) };
                let authority = &request.target.authority;
                let login = if realm.is_trusted_by(authority) {
                    request.login(realm.host()).await
                } else {
                    None
                };
                let Some(key) = request.key() else { return Ok(None) };
                match self.token(upstream, request, &realm, key, login.as_ref()).await {
                    Ok(token) => Ok(Some(token.authorization.clone())),
                    Err(error) => refused(request, login.is_some(), &error).map(|()| None),
                }
            }
        }
    }

    async fn token(
        &self,
        upstream: &Upstream,
        request: &TokenRequest<'_>,
        realm: &Realm,
        key: TokenKey,
        login: Option<&Login>,
    ) -> Result<Arc<Token>, Arc<TokenError>> {
        if let Some(token) = self.tokens.get(&key) {
            return Ok(token);
        }
        let getting = async {
            // One may have come since it was looked for.
            if let Some(token) = self.tokens.get(&key) {
                return Ok(token);
            }
            let got = realm.token(upstream, Some(&request.scope), login, request.via).await;
            let token = got.map(Arc::new).map_err(Arc::new)?;
            self.tokens.insert(key.clone(), token.clone());
            Ok(token)
        };
        self.asked.once(key.clone(), PATIENCE, getting).await
    }

    /// The registry does not take `authorization` any more.
    pub(crate) fn forget(&self, request: &TokenRequest<'_>, authorization: &HeaderValue) {
        if let Some(credentials) = request.rule.and_then(|rule| rule.credentials.as_ref()) {
            credentials.forget();
        }
        let Some(key) = request.key() else { return };
        let is_same = |token: &Arc<Token>| token.authorization == *authorization;
        // Somebody else may have got a new one meanwhile.
        if self.tokens.get(&key).as_ref().is_some_and(is_same) {
            self.tokens.invalidate(&key);
        }
    }
}

impl TokenRequest<'_> {
    fn key(&self) -> Option<TokenKey> {
        let realm = self.authentication.as_ref()?.realm(self.target)?.target;
        Some(TokenKey { registry: self.registry.clone(), realm, scope: self.scope.clone() })
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
    request: &TokenRequest<'_>,
    is_configured: bool,
    error: &TokenError,
) -> Result<(), UpstreamError> {
    let authority = request.target.authority.clone();
    match error {
        TokenError::Refused(_, status)
            if status.is_client_error() && *status != StatusCode::TOO_MANY_REQUESTS =>
        {
            if is_configured {
                no_credentials(request.registry, error);
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
