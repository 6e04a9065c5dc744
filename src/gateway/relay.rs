//! Everything that is only passed on: what a client with a credential asks of the API itself,
//! pushes, whatever is no content.

use entrepot_oci::{ErrorCode, ErrorDocument, Route};
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::answer::body::ResponseBody;
use super::answer::errors::denied;
use super::answer::passed::passed_on;
use super::answer::provenance::{Forward, Provenance};
use super::answer::served::Served;
use super::exchange::{Asked, Common};
use crate::log::ContentKind;
use crate::metrics::Behalf;
use crate::registry::fields::forwarded;
use crate::registry::identity::{Identity, has_own_token};
use crate::upstream::body::{IdleBody, RequestBody};
use crate::upstream::client::Sending;
use crate::upstream::{Errand, Upstream, UpstreamError};

/// Sends the request to the registry and its answer to the client. Redirects are the client's.
///
/// What the API is only asked is asked under the shared identity where the client has none of its
/// own; everything else goes with the client's own credential or without any.
pub(super) async fn serve(
    common: &Common,
    mut asked: Asked,
    body: RequestBody,
) -> Result<Served, UpstreamError> {
    if let Some(answer) = last_stop(&mut asked) {
        return Ok(answer);
    }
    let is_reading = matches!(asked.method, Method::GET | Method::HEAD);
    let is_api = !matches!(asked.route, Route::Other);
    let client = asked.client(&common.registries);
    if client.identity == Identity::Shared && is_reading && is_api {
        let (target, headers) = (asked.target(), forwarded(&asked.headers));
        let answer = client.once(asked.method, &target, &headers).await?;
        return Ok(passed_on(answer.response, Forward::Bypass));
    }
    let content = ContentKind::of(&asked.route);
    let client = asked.account.client();
    let behalf = common.metrics().asking(asked.registry.as_str(), client, content);
    let response = send(common.registries.upstream(), &behalf, asked, body).await?;
    Ok(passed_on(response, Forward::Bypass))
}

/// Sends a request to a host that is no registry, and its answer back.
pub(super) async fn unseen(
    common: &Common,
    mut asked: Asked,
    body: RequestBody,
) -> Result<Served, UpstreamError> {
    if let Some(answer) = last_stop(&mut asked) {
        return Ok(answer);
    }
    let upstream = common.registries.upstream().for_strangers();
    let behalf = upstream.behalf_of(&asked.target());
    let response = send(upstream, &behalf, asked, body).await?;
    Ok(passed_on(response, Forward::Bypass))
}

/// The answer to a request that is to go no further; else it has one more hop behind it.
///
/// "Each intermediary that receives a TRACE or OPTIONS request containing a Max-Forwards header
/// field MUST check and update its value prior to forwarding the request. If the received value is
/// zero (0), the intermediary MUST NOT forward the request; instead, the intermediary MUST respond
/// as the final recipient" (RFC 9110 §7.6.2).
fn last_stop(asked: &mut Asked) -> Option<Served> {
    if asked.method != Method::OPTIONS {
        return None;
    }
    let mut values = asked.headers.get_all(header::MAX_FORWARDS).iter();
    let hops = match (values.next(), values.next()) {
        (None, _) => return None,
        (Some(value), None) => hops(value),
        (Some(_), Some(_)) => None,
    };
    match hops {
        Some(0) => Some(options()),
        Some(hops) => {
            asked.headers.insert(header::MAX_FORWARDS, HeaderValue::from(hops - 1));
            None
        }
        None => {
            let reason = "Max-Forwards is no number of hops";
            let (status, code) = (StatusCode::BAD_REQUEST, ErrorCode::Unsupported);
            Some(denied(&ErrorDocument::new(status, code, reason)))
        }
    }
}

/// How many hops are left; no way has more than fit the number.
fn hops(value: &HeaderValue) -> Option<u64> {
    let digits = value.to_str().ok()?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// What may be asked through here.
fn options() -> Served {
    const ALLOWED: HeaderValue =
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    let mut response = Response::new(ResponseBody::Empty);
    response.headers_mut().insert(header::ALLOW, ALLOWED);
    Served::unsigned(Provenance::Kept(None), response)
}

/// Sends a request on as it came, but for the fields that end here; a token of our own means
/// nothing to anybody else.
async fn send(
    upstream: &Upstream,
    behalf: &Behalf,
    asked: Asked,
    body: RequestBody,
) -> Result<Response<IdleBody>, UpstreamError> {
    let mut headers = forwarded(&asked.headers);
    if has_own_token(&asked.headers) {
        headers.remove(header::AUTHORIZATION);
    }
    let has_content = matches!(asked.method, Method::POST | Method::PUT | Method::PATCH);
    if has_content && body.is_end_stream() {
        // Some registries answer 411 to an upload's empty requests without it.
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    }
    let (target, errand) = (asked.target(), Errand::of(&asked.method, &asked.route));
    let sending = Sending { behalf, errand, own: asked.own.as_ref() };
    upstream.send(sending, asked.method, &target, headers, body).await
}
