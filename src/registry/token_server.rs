//! Token servers: where a registry's Bearer challenge leads, and what they give.
//!
//! Distribution's token specification ("Token Authentication Specification", "`OAuth2` Token
//! Authentication"): a `GET` of the realm with `service` and `scope`, or a `POST` of a form.

use std::sync::Arc;
use std::time::Duration;

use entrepot_oci::{Authority, Host};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::Serializer;

use super::credentials::Login;
use crate::memory::Account;
use crate::upstream::body::RequestBody;
use crate::upstream::client::Sending;
use crate::upstream::{Errand, Scheme, Target, Upstream, UpstreamError, redirect};

/// The largest answer of a token server that is read.
const LONGEST_ANSWER: usize = 64 * 1024;
/// No server takes a longer header field, and thousands of tokens are kept.
const LONGEST_TOKEN: usize = 16 * 1024;
/// A token without `expires_in`, or with less: "should be at least 60 seconds" by the
/// specification, for clients that know of no expiry.
const SHORTEST_LIFE: Duration = Duration::from_mins(1);
/// No token is believed to live longer.
const LONGEST_LIFE: Duration = Duration::from_hours(12);
/// How we call ourselves to token servers.
const CLIENT_ID: &str = "entrepot";

/// A registry's token server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Realm {
    /// Where it is; its path may have a query of its own.
    pub target: Target,
    /// `service`.
    pub service: Option<String>,
}

/// A realm that no credential is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RealmError {
    /// Not a URL that a client could use.
    #[error("the registry's realm is no usable URL")]
    Url,
    /// Plain HTTP, from a registry that is spoken to by TLS.
    #[error("the registry's realm leads away from https")]
    Scheme,
}

impl Realm {
    /// The realm that the registry at `registry` names.
    pub(crate) fn parse(
        registry: &Target,
        realm: &str,
        service: Option<&str>,
    ) -> Result<Self, RealmError> {
        let url = if realm.starts_with('/') {
            // Some name it by its path alone.
            let base = Url::parse(&registry.ping().to_string());
            base.and_then(|base| base.join(realm))
        } else {
            Url::parse(realm)
        };
        let url = url.map_err(|_| RealmError::Url)?;
        let target = redirect::target(registry, &url).map_err(|error| match error {
            redirect::RedirectError::Scheme => RealmError::Scheme,
            _ => RealmError::Url,
        })?;
        Ok(Self { target, service: service.map(str::to_owned) })
    }

    /// The realm with these query parameters added.
    #[must_use]
    pub(crate) fn with_query(&self, query: &str) -> Target {
        let mut target = self.target.clone();
        if !query.is_empty() {
            let separator = if target.path_and_query.contains('?') { '&' } else { '?' };
            target.path_and_query = format!("{}{separator}{query}", target.path_and_query);
        }
        target
    }

    /// Whether the operator's credentials for `registry` may go there: the same host, or one under
    /// the same registrable domain (public suffix list), by TLS. Anywhere else a registry could
    /// have them sent to whom it likes.
    #[must_use]
    pub(crate) fn is_trusted_by(&self, registry: &Authority) -> bool {
        let (own, asked) = (registry.host(), self.target.authority.host());
        own == asked || (is_same_site(own, asked) && self.target.scheme == Scheme::Https)
    }
}

/// Whether two hosts are under the same registrable domain (public suffix list).
#[must_use]
pub(crate) fn is_same_site(one: &Host, other: &Host) -> bool {
    match (one, other) {
        (Host::Name(one), Host::Name(other)) => {
            let domain = psl::domain_str(one);
            domain.is_some() && domain == psl::domain_str(other)
        }
        _ => false,
    }
}

/// A token for some scope.
#[derive(Clone)]
pub(crate) struct Token {
    /// The `Authorization` field that has it; marked as sensitive.
    pub authorization: HeaderValue,
    /// How long it is good for, from then.
    pub lifetime: Duration,
    /// When it was got.
    pub got: Instant,
}

/// No token was to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The token server could not be asked.
    #[error(transparent)]
    Upstream(Arc<UpstreamError>),
    /// It refused.
    #[error("the token server {0} answered {1}")]
    Refused(Authority, StatusCode),
    /// Its answer could not be read.
    #[error("the token server {0} answered with something that is no token")]
    Answer(Authority),
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl TokenError {
    /// Whether the token server has said no to who asked, rather than failed.
    #[must_use]
    pub(crate) fn is_of_login(&self) -> bool {
        let Self::Refused(_, status) = self else { return false };
        status.is_client_error() && *status != StatusCode::TOO_MANY_REQUESTS
    }
}

impl From<UpstreamError> for TokenError {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(Arc::new(error))
    }
}

impl Realm {
    /// Gets a token for `scope` on this `errand`, as `login` or anonymously, on behalf of a request
    /// that has been [`through`](crate::upstream::via) these proxies and takes memory of `account`.
    pub(crate) async fn token(
        &self,
        upstream: &Upstream,
        errand: Errand,
        scope: Option<&str>,
        login: Option<&Login>,
        through: &HeaderMap,
        account: &Account,
    ) -> Result<Token, TokenError> {
        let parameters = || {
            let service = self.service.as_deref().map(|service| ("service", service));
            service.into_iter().chain(scope.map(|scope| ("scope", scope)))
        };
        let mut headers = through.clone();
        let behalf = upstream.behalf_of(&self.target);
        let sending = Sending::shared(&behalf, errand);
        let response = if let Some(Login::Refresh(secret)) = login {
            let fields = [
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT_ID),
                ("refresh_token", secret.expose()),
            ];
            let form = Serializer::new(String::new())
                .extend_pairs(fields.into_iter().chain(parameters()))
                .finish();
            let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, form_type);
            let body = RequestBody::Whole(Some(form.into()));
            upstream.send(sending, Method::POST, &self.target, headers, body).await?
        } else {
            let query = Serializer::new(String::new()).extend_pairs(parameters()).finish();
            if let Some(basic) = login.and_then(Login::basic) {
                headers.insert(header::AUTHORIZATION, basic);
            }
            let (target, body) = (self.with_query(&query), RequestBody::Empty);
            upstream.send(sending, Method::GET, &target, headers, body).await?
        };
        let server = || self.target.authority.clone();
        if response.status() != StatusCode::OK {
            return Err(TokenError::Refused(server(), response.status()));
        }
        let bytes = response.into_body().whole(LONGEST_ANSWER, account).await;
        bytes.ok().and_then(|bytes| parse(&bytes)).ok_or_else(|| TokenError::Answer(server()))
    }
}

/// The token in an answer, if it is one.
pub(super) fn parse(bytes: &[u8]) -> Option<Token> {
    let answer: TokenAnswer = serde_json::from_slice(bytes).ok()?;
    // An empty one does not count: some servers fill in only one of the two.
    let is_usable = |token: &String| (1..=LONGEST_TOKEN).contains(&token.len());
    let mut tokens = [answer.token, answer.access_token].into_iter().flatten();
    let token = tokens.find(is_usable)?;
    let mut authorization = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    authorization.set_sensitive(true);
    let told = Duration::from_secs(answer.expires_in.unwrap_or_default());
    let lifetime = told.clamp(SHORTEST_LIFE, LONGEST_LIFE);
    Some(Token { authorization, lifetime, got: Instant::now() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(authority: &str) -> Target {
        let authority = authority.parse().unwrap();
        Target::of_registry(Scheme::Https, authority, "/v2/")
    }

    #[test]
    fn a_query_is_added_to_the_realms_own() {
        let realm = |text| Realm::parse(&at("quay.io:443"), text, None).unwrap();
        let plain = realm("https://quay.io/v2/auth").with_query("scope=a%20b");
        assert_eq!(plain.to_string(), "https://quay.io/v2/auth?scope=a%20b");
        let with = realm("https://quay.io/auth?x=1");
        assert_eq!(with.with_query("scope=a").path_and_query, "/auth?x=1&scope=a");
        assert_eq!(with.with_query("").path_and_query, "/auth?x=1");
    }

    #[test]
    fn a_realm_is_a_url_that_may_hold_a_secret() {
        let parse = |text| Realm::parse(&at("ghcr.io:443"), text, None).err();
        assert_eq!(parse("https://ghcr.io/token"), None);
        assert_eq!(parse("http://ghcr.io/token"), Some(RealmError::Scheme));
        let by_path = Realm::parse(&at("ghcr.io:443"), "/zot/token?x=y", None).unwrap();
        assert_eq!(by_path.target.to_string(), "https://ghcr.io/zot/token?x=y");
        for bad in ["ghcr.io", "", "https://u:p@ghcr.io/", "https://x:0/", "ftp//x"] {
            assert!(parse(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn credentials_go_to_the_registrys_own_domain_alone() {
        let trusted = |registry: &str, realm: &str| {
            let registry = at(registry);
            Realm::parse(&registry, realm, None).unwrap().is_trusted_by(&registry.authority)
        };
        let cases = [
            ("registry-1.docker.io:443", "https://auth.docker.io/token", true),
            ("registry.gitlab.com:443", "https://gitlab.com/jwt/auth", true),
            ("registry.corp.example:5000", "https://registry.corp.example:5001/auth", true),
            ("10.0.0.7:5000", "https://10.0.0.7:5001/auth", true),
            ("10.0.0.7:5000", "https://10.0.0.8:5001/auth", false),
            ("registry-1.docker.io:443", "https://auth.docker.io.evil.example/token", false),
            ("registry-1.docker.io:443", "https://evil.io/token", false),
            // Two customers of one suffix are strangers.
            ("a.github.io:443", "https://b.github.io/token", false),
            ("registry.co.uk:443", "https://other.co.uk/token", false),
        ];
        for (registry, realm, expected) in cases {
            assert_eq!(trusted(registry, realm), expected, "{registry} {realm}");
        }
    }

    #[test]
    fn token_answers_are_read() {
        let life = |text: &str| parse(text.as_bytes()).map(|token| token.lifetime.as_secs());
        assert_eq!(life(r#"{"token":"a","expires_in":300}"#), Some(300));
        assert_eq!(life(r#"{"access_token":"a"}"#), Some(60));
        assert_eq!(life(r#"{"token":"a","expires_in":1}"#), Some(60));
        assert_eq!(life(r#"{"token":"a","expires_in":99999999}"#), Some(43200));
        for bad in ["", "{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#, "[]", "<html>"] {
            assert_eq!(life(bad), None, "{bad}");
        }
    }
}
