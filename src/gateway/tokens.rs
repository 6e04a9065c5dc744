//! The token endpoint: `https://<registry>/entrepot/token`, where clients are sent by our
//! challenges.
//!
//! A client without credentials gets a token of our own, without any contact upstream. One with
//! credentials gets what the registry's own token server says.

use bytes::Bytes;
use entrepot_oci::{ErrorCode, ErrorDocument};
use http::{Method, Response, StatusCode, header};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::form_urlencoded::parse;

use super::answer::body::ResponseBody;
use super::answer::errors::denied;
use super::answer::passed::passed_on;
use super::answer::provenance::{Forward, Provenance, Reason};
use super::answer::served::Served;
use super::exchange::{Asked, Common};
use crate::registry::fields::forwarded;
use crate::registry::identity::{has_own_token, own_token};
use crate::registry::token_server::Realm;
use crate::registry::{Authentication, Client};
use crate::upstream::body::{IdleBody, RequestBody};
use crate::upstream::client::Sending;
use crate::upstream::{Errand, UpstreamError};

/// Where clients get their tokens, on the registry's own host.
pub(super) const TOKEN_PATH: &str = "/entrepot/token";
/// How long a client uses a token of ours before it asks for the next, in seconds.
const LIFETIME_SECS: u32 = 300;
/// The longest form that is taken of a client: it has a password or a token in it, and scopes.
const LONGEST_FORM: usize = 64 * 1024;

/// Answers a request to the token endpoint.
pub(super) async fn serve(
    common: &Common,
    asked: Asked,
    body: RequestBody,
) -> Result<Served, UpstreamError> {
    let has_credentials =
        asked.headers.contains_key(header::AUTHORIZATION) && !has_own_token(&asked.headers);
    match asked.method {
        Method::GET if !has_credentials => Ok(own(Provenance::Kept(None))),
        Method::GET | Method::POST => relayed(common, asked, body).await,
        _ => Ok(not_allowed()),
    }
}

/// The registry's own token server is asked; where it can't be, a client that only wants to pull
/// gets what everybody has, and its public pulls go on. A login gets the failure: none succeeds
/// unseen.
async fn relayed(
    common: &Common,
    asked: Asked,
    body: RequestBody,
) -> Result<Served, UpstreamError> {
    let form = match body.whole(LONGEST_FORM).await {
        Ok(form) if asked.method == Method::POST => form,
        Ok(_) => Bytes::new(),
        Err(reason) => return Ok(bad_form(&reason)),
    };
    let registries = &common.registries;
    let client = asked.client(registries);
    let is_for_pulls = is_for_pulls(asked.query().unwrap_or_default(), &form);
    let realm = match realm(&client, &asked).await {
        Ok(Some(realm)) => realm,
        Ok(None) => return Ok(own(Provenance::Kept(None))),
        // What can't be told by the registry itself is told with the manifest, whose words are
        // printed.
        Err(error) if is_for_pulls && !error.is_refused_here() => {
            return Ok(own(Provenance::Stale(Reason::TokenServer(error.to_string()))));
        }
        Err(error) => return Err(error),
    };
    let mut answer = ask(common, &asked, &realm, &form).await;
    if is_failure(&answer)
        && let Some(moved) = client.doubted_realm(&asked.target(), &realm).await
    {
        answer = ask(common, &asked, &moved, &form).await;
    }
    let reason = match &answer {
        Err(error) if error.is_refused_here() => return answer.map(pass),
        Err(error) => error.to_string(),
        Ok(response) if response.status().is_server_error() => {
            format!("the token server answered {}", response.status())
        }
        Ok(_) => return answer.map(pass),
    };
    if is_for_pulls {
        return Ok(own(Provenance::Stale(Reason::TokenServer(reason))));
    }
    answer.map(pass)
}

fn pass(response: Response<IdleBody>) -> Served {
    passed_on(response, Forward::Bypass)
}

async fn ask(
    common: &Common,
    asked: &Asked,
    realm: &Realm,
    form: &Bytes,
) -> Result<Response<IdleBody>, UpstreamError> {
    let target = realm.with_query(asked.query().unwrap_or_default());
    let body = match asked.method {
        Method::POST => RequestBody::Whole(Some(form.clone())),
        _ => RequestBody::Empty,
    };
    let upstream = common.registries.upstream();
    let behalf = upstream.behalf_of(&target);
    // A certificate of the operator's is not for what a client wants of a token server.
    let errand = Errand::Other;
    let sending = Sending { behalf: &behalf, errand, own: asked.own.as_ref() };
    upstream.send(sending, asked.method.clone(), &target, forwarded(&asked.headers), body).await
}

fn is_failure(answer: &Result<Response<IdleBody>, UpstreamError>) -> bool {
    match answer {
        Ok(response) => response.status().is_server_error() || response.status() == 404,
        Err(error) => !error.is_refused_here(),
    }
}

/// Whether a token is wanted for pulls alone (distribution's token specification): every scope is
/// one, there is at least one, and no token is asked for that outlives this one.
fn is_for_pulls(query: &str, form: &[u8]) -> bool {
    let parameters = || parse(query.as_bytes()).chain(parse(form));
    let is_pull = |scope: &str| {
        let mut parts = scope.rsplitn(2, ':');
        let actions = parts.next().unwrap_or_default();
        let is_repository = parts.next().is_some_and(|rest| rest.starts_with("repository:"));
        is_repository && actions == "pull"
    };
    let scopes: Vec<_> = parameters()
        .filter(|(name, _)| name == "scope")
        .flat_map(|(_, value)| value.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .filter(|scope| !scope.is_empty())
        .collect();
    let is_lasting = parameters().any(|(name, value)| {
        (name == "offline_token" && value != "false")
            || (name == "access_type" && value == "offline")
    });
    !is_lasting && !scopes.is_empty() && scopes.iter().all(|scope| is_pull(scope))
}

fn bad_form(reason: &str) -> Served {
    let message = format!("the form of a token request could not be read: {reason}");
    let document = ErrorDocument::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message);
    denied(&document)
}

/// The registry's token server, asked for if it is not known; none where the registry wants nobody
/// to authenticate. One of which that is not known has said no yes to anybody's login.
async fn realm(client: &Client, asked: &Asked) -> Result<Option<Realm>, UpstreamError> {
    let target = asked.target();
    let unusable = |reason: &str| UpstreamError::Token {
        authority: asked.authority.clone(),
        reason: reason.to_owned(),
    };
    match client.authentication(&target).await? {
        Some(Authentication::None) => Ok(None),
        Some(Authentication::Basic { .. }) => {
            Err(unusable("it wants a name and a password in every request, as it now says itself"))
        }
        Some(known) => Ok(known.realm(&target)),
        None => Err(unusable("it can't say for now where its token server is")),
    }
}

/// A token of our own.
fn own(provenance: Provenance) -> Served {
    let token = own_token();
    let issued_at = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    let document = json!({
        "token": token,
        "access_token": token,
        "expires_in": LIFETIME_SECS,
        "issued_at": issued_at,
    });
    let mut response = Response::new(ResponseBody::full(document.to_string()));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    fields.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    Served::unsigned(provenance, response)
}

fn not_allowed() -> Served {
    let (status, code) = (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported);
    let reason = "the token endpoint takes GET and POST";
    let mut served = denied(&ErrorDocument::new(status, code, reason));
    let fields = served.response.headers_mut();
    fields.insert(header::ALLOW, http::HeaderValue::from_static("GET, POST"));
    served
}

#[cfg(test)]
mod tests {
    use super::is_for_pulls;

    #[test]
    fn a_login_is_no_pull() {
        let pulls = [
            ("service=s&scope=repository:a/b:pull", ""),
            ("scope=repository%3Aa%3Apull&scope=repository:b:pull&offline_token=false", ""),
            ("", "grant_type=password&scope=repository%3Aa%3Apull+repository%3Ab%3Apull"),
            ("scope=repository:host:5000/a:pull", ""),
        ];
        for (query, form) in pulls {
            assert!(is_for_pulls(query, form.as_bytes()), "{query} {form}");
        }
        let logins = [
            ("service=s&account=u", ""),
            ("", ""),
            ("scope=", ""),
            ("scope=repository:a:pull,push", ""),
            ("scope=repository:a:push", ""),
            ("scope=repository:a:*", ""),
            ("scope=registry:catalog:*", ""),
            ("scope=registry:catalog:pull", ""),
            ("scope=repository:a:pull&scope=repository:b:pull,push", ""),
            ("scope=repository:a:pull&offline_token=true", ""),
            ("scope=repository:a:pull&offline_token", ""),
            ("", "scope=repository:a:pull&access_type=offline"),
            ("scope=repository:a:pull", "scope=repository:b:push"),
        ];
        for (query, form) in logins {
            assert!(!is_for_pulls(query, form.as_bytes()), "{query} {form}");
        }
    }
}
