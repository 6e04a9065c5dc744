//! Tokens of the proxy itself: what the shared identity shows to a registry, by the operator's
//! credentials or anonymously.
//!
//! Tokens are got once for all who wait and kept until shortly before they expire.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use entrepot_oci::{Authority, Host, Registry};
use http::{HeaderMap, HeaderValue};
use moka::Expiry;
use moka::sync::Cache;
use tokio::time::Instant;

use super::challenge::Authentication;
use super::credentials::{Credentials, Failure, Login};
use super::options::RegistryRule;
use super::states::States;
use super::token_server::{Realm, Token, TokenError};
use crate::collapse::Collapse;
use crate::memory::{Account, NAME, Shares, table};
use crate::upstream::{Errand, Scheme, Target, Upstream, UpstreamError, via};

/// What a login of the operator's takes, about.
const CREDENTIALS: usize = 1024;
/// How long credentials that were refused are not shown again.
const TRIED: Duration = Duration::from_mins(1);
/// A token in place of one for refused credentials is kept so long.
const SUBSTITUTE: Duration = Duration::from_secs(5);
/// A token is renewed this long before it expires, or when a tenth of its life is left: a request
/// takes its time, too.
const MARGIN: Duration = Duration::from_secs(30);
/// How long a request waits for another's token.
const PATIENCE: Duration = Duration::from_secs(30);

/// The operator's credentials that a registry does not take any more, or that can't be had.
#[derive(Clone)]
pub(crate) struct RefusedCredentials {
    /// Whose.
    pub(crate) label: String,
    /// Since when.
    pub(crate) since: Instant,
    tried: Instant,
    /// What was refused; none if there was nothing to show.
    login: Option<Login>,
}

/// The tokens of the shared identity.
pub(crate) struct OwnTokens {
    tokens: Cache<TokenKey, Arc<Token>>,
    /// Whose credentials are not taken, until they are.
    refused: Cache<Registry, RefusedCredentials>,
    /// What the token server is being asked for.
    asked: Collapse<TokenKey, Result<Arc<Token>, Arc<TokenError>>>,
    states: Arc<States>,
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
    /// When it began.
    pub(crate) began: Instant,
    /// What the operator has configured for the registry.
    pub(crate) rule: Option<&'a RegistryRule>,
    /// What the client's request has been through.
    pub(crate) via: &'a HeaderMap,
    /// Who takes the memory that it needs.
    pub(crate) account: &'a Account,
}

impl OwnTokens {
    /// None was got yet. What becomes of the operator's credentials is a matter of `states`.
    pub(crate) fn new(shares: Shares, states: Arc<States>) -> Self {
        let weight = |key: &TokenKey, token: &Arc<Token>| {
            let realm = NAME + key.realm.path_and_query.len();
            let key = key.registry.as_str().len() + realm + key.scope.len();
            key + token.authorization.len() + size_of::<Token>()
        };
        let tokens = table(shares.large_table(), weight).expire_after(BeforeTheEnd).build();
        let weight = |registry: &Registry, refused: &RefusedCredentials| {
            // What the operator has configured, or a helper of theirs has told.
            registry.as_str().len() + refused.label.len() + CREDENTIALS
        };
        let refused = table(shares.small_table(), weight).build();
        Self { tokens, refused, asked: Collapse::default(), states }
    }

    /// The `Authorization` of a request; none where the registry wants none, or where none is to
    /// be had: the registry then says so itself.
    ///
    /// Credentials that are not taken are read anew; where nothing else comes of that, public
    /// things are asked for anonymously.
    pub(crate) async fn authorization(
        &self,
        upstream: &Upstream,
        request: &TokenRequest<'_>,
    ) -> Result<Option<HeaderValue>, UpstreamError> {
        match &request.authentication {
            None | Some(Authentication::None) => Ok(None),
            Some(Authentication::Basic { .. }) => {
                let login = self.login(request, request.target).await;
                let login = self.untried(request, login).await;
                Ok(login.as_ref().and_then(Login::basic))
            }
            Some(bearer @ Authentication::Bearer { .. }) => {
                let Some(realm) = bearer.realm(request.target) else { return Ok(None) };
                let Some(key) = request.key() else { return Ok(None) };
                let authority = &request.target.authority;
                let login = if realm.is_trusted_by(authority) {
                    self.login(request, &realm.target).await
                } else {
                    None
                };
                let login = self.untried(request, login).await;
                let token = |login| self.token(upstream, request, &realm, key.clone(), login);
                let mut got = token(login.as_ref()).await;
                if let (Err(error), Some(login)) = (&got, &login)
                    && error.is_of_login()
                {
                    no_credentials(request.registry, error);
                    self.note_refused(request, login);
                    got = match request.renewed(login).await {
                        Some(renewed) => {
                            self.token(upstream, request, &realm, key.clone(), Some(&renewed)).await
                        }
                        None => token(None).await,
                    };
                }
                match got {
                    Ok(token) => Ok(Some(token.authorization.clone())),
                    Err(error) => refused(request, &error).map(|()| None),
                }
            }
        }
    }

    /// The operator's credentials, if they may be shown at `place`; that they can't be had is
    /// noted.
    async fn login(&self, request: &TokenRequest<'_>, place: &Target) -> Option<Login> {
        match request.login(place).await {
            Ok(login) => login,
            Err(failure) => {
                if failure.is_news {
                    no_credentials(request.registry, &failure);
                }
                self.note_dead(request, None, &failure.to_string());
                None
            }
        }
    }

    /// Notes that the registry, or its token server, does not take the operator's credentials.
    pub(crate) fn note_refused(&self, request: &TokenRequest<'_>, login: &Login) {
        self.note_dead(request, Some(login), "they are not taken");
    }

    fn note_dead(&self, request: &TokenRequest<'_>, login: Option<&Login>, why: &str) {
        let label = request.rule.and_then(|rule| rule.credentials.as_ref()).map(Credentials::whose);
        let Some(label) = label else { return };
        let now = Instant::now();
        let since = self.refused_at(request.registry).map_or(now, |refused| refused.since);
        let told = format!("this proxy's own credentials ({label}): {why}");
        self.states.note_credentials(request.registry, told);
        let refused = RefusedCredentials { label, since, tried: now, login: login.cloned() };
        self.refused.insert(request.registry.clone(), refused);
    }

    /// The operator's credentials, unless they were refused lately and are still the same: showing
    /// them again and again gets an account locked.
    async fn untried(&self, request: &TokenRequest<'_>, login: Option<Login>) -> Option<Login> {
        let login = login?;
        let Some(refused) = self.refused_at(request.registry) else { return Some(login) };
        let Some(shown) = refused.login else { return Some(login) };
        let now = request.renewed(&shown).await.unwrap_or(login);
        (now != shown || refused.tried.elapsed() >= TRIED).then_some(now)
    }

    /// The operator's credentials that the registry does not take, if that is so now.
    pub(crate) fn refused_at(&self, registry: &Registry) -> Option<RefusedCredentials> {
        self.refused.get(registry)
    }

    /// The registry has taken the operator's credentials.
    pub(crate) fn note_taken(&self, registry: &Registry) {
        if self.refused.contains_key(registry) {
            self.refused.invalidate(registry);
            self.states.note_taken(registry);
        }
    }

    /// Whether a token was got for this very request: another would be no better.
    pub(crate) fn is_new(&self, request: &TokenRequest<'_>, shown: &HeaderValue) -> bool {
        let token = request.key().and_then(|key| self.tokens.get(&key));
        token.is_some_and(|token| token.authorization == *shown && token.got >= request.began)
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
            // The registry's own token server may want to know us by the registry's certificate.
            let is_its_own = realm.target.is_beside(request.target);
            let errand = if is_its_own { Errand::Pull } else { Errand::Other };
            let scope = Some(request.scope.as_str());
            let got =
                realm.token(upstream, errand, scope, login, request.via, request.account).await;
            let mut token = got.map_err(Arc::new)?;
            if login.is_some() {
                self.note_taken(request.registry);
            } else if self.refused.contains_key(request.registry) {
                token.lifetime = token.lifetime.min(SUBSTITUTE);
            }
            let token = Arc::new(token);
            self.tokens.insert(key.clone(), token.clone());
            Ok(token)
        };
        self.asked.once(key.clone(), via::patience(request.via, PATIENCE), getting).await
    }

    /// The registry does not take `authorization` any more.
    pub(crate) fn forget(&self, request: &TokenRequest<'_>, authorization: &HeaderValue) {
        if let Some(credentials) = request.rule.and_then(|rule| rule.credentials.as_ref()) {
            credentials.forget(&helper_name(request.registry, &request.target.authority));
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

    /// The operator's credentials, if they may be shown at `place`: the registry, or a token server
    /// that it [may name](Realm::is_trusted_by).
    async fn login(&self, place: &Target) -> Result<Option<Login>, Failure> {
        let credentials = self.rule.and_then(|rule| Some((rule, rule.credentials.as_ref()?)));
        let Some((rule, credentials)) = credentials else { return Ok(None) };
        if !may_be_shown(rule, credentials, self.target.authority.host(), place) {
            return Ok(None);
        }
        credentials.login(&helper_name(self.registry, &self.target.authority)).await.map(Some)
    }

    /// The operator's credentials, as they are shown to the registry itself.
    pub(crate) async fn shown_login(&self) -> Option<Login> {
        self.login(self.target).await.ok().flatten()
    }

    /// The operator's credentials, read anew after `refused` was not taken; `None` where they are
    /// still the same.
    async fn renewed(&self, refused: &Login) -> Option<Login> {
        let credentials = self.rule?.credentials.as_ref()?;
        let server = helper_name(self.registry, &self.target.authority);
        credentials.renewed(&server, refused).await
    }

    /// `Authorization` with the operator's credentials, read anew after `refused` was not taken by
    /// a registry that wants them itself; `None` where they are still the same.
    pub(crate) async fn renewed_basic(&self, refused: &HeaderValue) -> Option<HeaderValue> {
        let login = self.shown_login().await?;
        if login.basic().as_ref() != Some(refused) {
            return login.basic();
        }
        self.renewed(&login).await?.basic()
    }
}

/// Whether what the operator has configured by `rule` for the registry at `host` may be shown at
/// `place`: by TLS, or where the operator has said that this registry is spoken to without.
///
/// What a helper says of one of the many hosts of a pattern is that host's alone.
pub(super) fn may_be_shown(
    rule: &RegistryRule,
    credentials: &Credentials,
    host: &Host,
    place: &Target,
) -> bool {
    let is_its_own = place.authority.host() == host;
    let is_wanted_in_clear = rule.scheme == Scheme::Http && is_its_own;
    credentials.may_go_to(place.authority.host())
        && (place.scheme == Scheme::Https || is_wanted_in_clear)
        && (is_its_own || rule.host.is_exact() || !credentials.are_by_server())
}

/// Under which name credential helpers know a registry; the Hub's is a URL of old.
pub(super) fn helper_name(registry: &Registry, authority: &Authority) -> String {
    if registry.is_hub() {
        "https://index.docker.io/v1/".to_owned()
    } else {
        authority.to_host_field(443)
    }
}

/// A token server that says no leaves the request without a token; one that can't be asked is a
/// failure.
fn refused(request: &TokenRequest<'_>, error: &TokenError) -> Result<(), UpstreamError> {
    let authority = request.target.authority.clone();
    match error {
        error if error.is_of_login() => Ok(()),
        TokenError::Upstream(error) => Err(error.clone().into()),
        TokenError::Refused(..) | TokenError::Answer(_) => {
            Err(UpstreamError::Token { authority, reason: error.to_string() })
        }
    }
}

pub(crate) fn no_credentials(registry: &Registry, error: &dyn Display) {
    tracing::warn!(%registry, %error, "the configured credentials can't be used");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::credentials::CredentialSource;
    use crate::secret::Secret;

    fn place(url: &str) -> Target {
        let (scheme, rest) = match url.strip_prefix("http://") {
            Some(rest) => (Scheme::Http, rest),
            None => (Scheme::Https, url.trim_start_matches("https://")),
        };
        let authority = Authority::parse(rest, scheme.default_port()).unwrap();
        Target::as_named(scheme, authority, "/")
    }

    #[test]
    fn credentials_are_shown_in_clear_where_that_is_wanted_alone() {
        let password =
            CredentialSource::Password { username: "me".to_owned(), password: Secret::new("x") };
        let helper = CredentialSource::Helper("x".to_owned());
        let shown = |source: &CredentialSource, host: &str, scheme, url: &str| {
            let host: entrepot_oci::HostPattern = host.parse().unwrap();
            let credentials = Credentials::new(source.clone());
            let rule = RegistryRule { host, scheme, credentials: None };
            may_be_shown(&rule, &credentials, &"r.corp".parse().unwrap(), &place(url))
        };
        let (http, https) = (Scheme::Http, Scheme::Https);
        for (host, scheme, url, by_password, by_helper) in [
            ("r.corp", https, "https://r.corp", true, true),
            ("r.corp", https, "https://auth.corp", true, true),
            ("r.corp", https, "http://r.corp", false, false),
            ("r.corp", https, "http://auth.corp", false, false),
            ("r.corp", http, "http://r.corp", true, true),
            ("r.corp", http, "http://r.corp:5001", true, true),
            ("r.corp", http, "http://auth.corp", false, false),
            ("r.corp", http, "https://auth.corp", true, true),
            ("*.corp", https, "https://r.corp", true, true),
            ("*.corp", https, "https://auth.corp", true, false),
            ("*.corp", http, "http://auth.corp", false, false),
        ] {
            assert_eq!(shown(&password, host, scheme, url), by_password, "{host} {url}");
            assert_eq!(shown(&helper, host, scheme, url), by_helper, "{host} {url}");
        }
    }
}
