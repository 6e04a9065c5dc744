//! The token endpoint: `https://<registry>/entrepot/token`, where clients are sent by our challenges.
//!
//! A client without credentials gets a token of our own, without any contact upstream. One with
//! credentials gets what the registry's own token server says.

use http::{Method, Response, StatusCode, header};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::body::ResponseBody;
use super::challenges::Authentication;
use super::headers::forwarded;
use super::identity::{has_own_token, own_token};
use super::reason::Reason;
use super::relay::passed_on;
use super::{Asked, Gateway, Served};
use crate::log::Outcome;
use crate::upstream::body::RequestBody;
use crate::upstream::realm::Realm;
use crate::upstream::{Target, UpstreamError};

/// How long a client uses a token of ours before it asks for the next, in seconds.
const LIFETIME_SECS: u32 = 300;

/// Answers a request to the token endpoint.
pub(super) async fn serve(gateway: &Gateway, asked: Box<Asked>) -> Result<Served, UpstreamError> {
    let has_credentials =
        asked.headers.contains_key(header::AUTHORIZATION) && !has_own_token(&asked.headers);
    match asked.method {
        Method::GET if !has_credentials => Ok(own(Outcome::Hit)),
        Method::GET | Method::POST => relayed(gateway, asked).await,
        _ => Ok(not_allowed()),
    }
}

/// The registry's own token server is asked; where it can't be, the client gets what everybody
/// has, and its public pulls go on.
async fn relayed(gateway: &Gateway, asked: Box<Asked>) -> Result<Served, UpstreamError> {
    let Some(realm) = realm(gateway, &asked).await? else { return Ok(own(Outcome::Hit)) };
    let query = asked.target.path_and_query.split_once('?').map_or("", |(_, query)| query);
    let target = realm.with_query(query);
    let headers = forwarded(&asked.headers);
    let body = match asked.method {
        Method::GET => RequestBody::Empty,
        _ => asked.body,
    };
    match gateway.parts.upstream.send(asked.method, &target, headers, body).await {
        Ok(response) if !response.status().is_server_error() => {
            Ok(passed_on(response, "fwd=bypass"))
        }
        Ok(response) => {
            let reason = format!("the token server answered {}", response.status());
            Ok(own(Outcome::Stale).why(&Reason::TokenServer(reason)))
        }
        Err(error) if error.is_refused_here() => Err(error),
        Err(error) => Ok(own(Outcome::Stale).why(&Reason::TokenServer(error.to_string()))),
    }
}

/// The registry's token server, asked for if it is not known.
async fn realm(gateway: &Gateway, asked: &Asked) -> Result<Option<Realm>, UpstreamError> {
    let path_and_query = "/v2/".to_owned();
    let registry = Target { path_and_query, ..asked.target.clone() };
    let known = gateway.parts.challenges.last(&gateway.parts.store, &asked.registry).await;
    let known = match known {
        Some(known) => Some(known),
        None => super::ping::ask(gateway, &asked.registry, &registry).await?.0,
    };
    Ok(known.as_ref().and_then(|known| Authentication::realm(known, &registry)))
}

/// A token of our own.
fn own(outcome: Outcome) -> Served {
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
    Served::new(outcome, response)
}

fn not_allowed() -> Served {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    let fields = response.headers_mut();
    fields.insert(header::ALLOW, http::HeaderValue::from_static("GET, POST"));
    Served::new(Outcome::Denied, response)
}
