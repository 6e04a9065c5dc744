//! The token endpoint: `https://<registry>/entrepot/token`, where clients are sent by our
//! challenges.
//!
//! A client without credentials gets a token of our own, without any contact upstream. One with
//! credentials gets what the registry's own token server says.

use http::{Method, Response, StatusCode, header};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answer::body::ResponseBody;
use super::answer::passed::passed_on;
use super::answer::provenance::{Forward, Provenance, Reason};
use super::answer::served::Served;
use super::exchange::{Asked, Common};
use crate::registry::Client;
use crate::registry::fields::forwarded;
use crate::registry::identity::{has_own_token, own_token};
use crate::registry::token_server::Realm;
use crate::upstream::UpstreamError;
use crate::upstream::body::RequestBody;

/// Where clients get their tokens, on the registry's own host.
pub(super) const TOKEN_PATH: &str = "/entrepot/token";
/// How long a client uses a token of ours before it asks for the next, in seconds.
const LIFETIME_SECS: u32 = 300;

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

/// The registry's own token server is asked; where it can't be, the client gets what everybody
/// has, and its public pulls go on.
async fn relayed(
    common: &Common,
    asked: Asked,
    body: RequestBody,
) -> Result<Served, UpstreamError> {
    let Some(realm) = realm(common, &asked).await? else { return Ok(own(Provenance::Kept(None))) };
    let target = realm.with_query(asked.query().unwrap_or_default());
    let headers = forwarded(&asked.headers);
    let body = if asked.method == Method::GET { RequestBody::Empty } else { body };
    let upstream = common.registries.upstream();
    let stale = |reason| Ok(own(Provenance::Stale(Reason::TokenServer(reason))));
    match upstream.send(asked.method, &target, headers, body).await {
        Ok(response) if !response.status().is_server_error() => {
            Ok(passed_on(response, Forward::Bypass))
        }
        Ok(response) => stale(format!("the token server answered {}", response.status())),
        Err(error) if error.is_refused_here() => Err(error),
        Err(error) => stale(error.to_string()),
    }
}

/// The registry's token server, asked for if it is not known.
async fn realm(common: &Common, asked: &Asked) -> Result<Option<Realm>, UpstreamError> {
    let registries = &common.registries;
    let target = asked.target();
    let mut known = registries.last_challenge(&asked.registry).await;
    if known.is_none() {
        let client = Client::new(registries, &asked.registry, &asked.route, &asked.headers);
        known = client.ping(&target.ping()).await?.0;
    }
    Ok(known.and_then(|known| known.realm(&target)))
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
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    let fields = response.headers_mut();
    fields.insert(header::ALLOW, http::HeaderValue::from_static("GET, POST"));
    let reason = "the token endpoint takes GET and POST".to_owned();
    Served::new(Provenance::Denied(Reason::Because(reason)), response)
}
