//! `/v2/`: whether the API is spoken here, and how to authenticate.

use entrepot_oci::{ErrorCode, ErrorDocument, Registry};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::body::ResponseBody;
use super::challenges::Authentication;
use super::errors::{error_response, is_trouble};
use super::headers::{append, for_ourselves, forwarded};
use super::identity::{Identity, has_own_token};
use super::relay::passed_on;
use super::{Asked, Gateway, Served};
use crate::log::Outcome;
use crate::upstream::client::Followed;
use crate::upstream::{Target, UpstreamError};

/// Answers a ping: that of a client with a credential is the registry's to answer, any other is
/// answered from what the registry said last.
pub(super) async fn serve(gateway: &Gateway, asked: Box<Asked>) -> Result<Served, UpstreamError> {
    let parts = &gateway.parts;
    if matches!(parts.identifier.identify(&asked.headers), Identity::Client(_)) {
        return super::relay::serve(gateway, asked).await;
    }
    // Asked once for all who wait.
    let turn = match parts.challenges.fresh(&asked.registry) {
        None => Some(parts.pings.wait(asked.registry.clone()).await),
        Some(_) => None,
    };
    if let Some(known) = parts.challenges.fresh(&asked.registry) {
        return Ok(answer(gateway, &asked, &known, Outcome::Hit));
    }
    let asking = ask(gateway, &asked.registry, &asked.target).await;
    drop(turn);
    let failed = match asking {
        Ok((Some(known), _)) => return Ok(answer(gateway, &asked, &known, Outcome::Relay)),
        Ok((None, response)) if !is_trouble(response.status()) => {
            return Ok(passed_on(response, "fwd=bypass"));
        }
        Ok((None, response)) => Ok(response),
        Err(error) => Err(error),
    };
    match parts.challenges.last(&parts.store, &asked.registry).await {
        Some(known) => Ok(answer(gateway, &asked, &known, Outcome::Stale)),
        None => failed.map(|response| passed_on(response, "fwd=bypass")),
    }
}

/// Asks the registry, as nobody, how it wants to be authenticated to: some hide that from whom
/// they know.
pub(super) async fn ask(
    gateway: &Gateway,
    registry: &Registry,
    target: &Target,
) -> Result<(Option<Authentication>, Response<crate::upstream::body::IdleBody>), UpstreamError> {
    let headers = for_ourselves(&forwarded(&HeaderMap::new()));
    let parts = &gateway.parts;
    let (method, body) = (http::Method::GET, crate::upstream::body::RequestBody::Empty);
    let response = parts.upstream.send(method, target, headers, body).await?;
    let answer = Followed::at_once(response);
    let known = match answer.response.status() {
        StatusCode::OK if is_registry(answer.response.headers()) => {
            let open = Authentication::None;
            parts.challenges.remember(&parts.store, registry, open.clone()).await;
            Some(open)
        }
        StatusCode::UNAUTHORIZED => {
            let fields = answer.response.headers();
            parts.challenges.learn(&parts.store, registry, target, fields).await;
            parts.challenges.fresh(registry)
        }
        _ => None,
    };
    Ok((known, answer.response))
}

/// Whether a 200 is that of a registry, and not that of a web site with something at every path.
fn is_registry(headers: &HeaderMap) -> bool {
    let is_page = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|content_type| content_type.as_bytes().starts_with(b"text/html"));
    headers.contains_key("docker-distribution-api-version") || !is_page
}

fn answer(gateway: &Gateway, asked: &Asked, known: &Authentication, outcome: Outcome) -> Served {
    let response = match known {
        Authentication::None => welcome(),
        // The proxy adds what it was given.
        Authentication::Basic { .. } if gateway.has_credentials(&asked.target.authority) => {
            welcome()
        }
        Authentication::Basic { challenge } => challenged(challenge),
        Authentication::Bearer { .. } if has_own_token(&asked.headers) => welcome(),
        Authentication::Bearer { service, .. } => {
            let service = service.as_ref().map(|service| format!(",service=\"{service}\""));
            let realm = asked.way.own_realm();
            challenged(&format!("Bearer realm=\"{realm}\"{}", service.unwrap_or_default()))
        }
    };
    Served::new(outcome, response)
}

fn welcome() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full("{}"));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    response
}

fn challenged(challenge: &str) -> Response<ResponseBody> {
    let message = "authentication required";
    let code = ErrorCode::Unauthorized;
    let document = ErrorDocument::new(StatusCode::UNAUTHORIZED, code, message);
    let mut response = error_response(&document);
    append(response.headers_mut(), header::WWW_AUTHENTICATE, challenge);
    response
}
