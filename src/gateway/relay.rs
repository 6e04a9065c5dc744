//! Everything that is only passed on: pings, tokens, listings, pushes, whatever is no content.

use entrepot_oci::Digest;
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body::Body as _;

use super::body::{ResponseBody, VerifiedBody};
use super::headers::{cache_status, forwarded, returned};
use super::identity::Identity;
use super::{Asked, Gateway, Served};
use crate::log::Outcome;
use crate::upstream::UpstreamError;
use crate::upstream::body::IdleBody;

/// Sends the request to the registry and its answer to the client. Redirects are the client's.
///
/// A listing is asked for under the shared identity where the client has none of its own;
/// everything else goes with the client's own credential or without any.
pub(super) async fn serve(gateway: &Gateway, asked: Box<Asked>) -> Result<Served, UpstreamError> {
    let is_reading = matches!(asked.method, Method::GET | Method::HEAD);
    let is_api = asked.target.path().starts_with("/v2/");
    let caller = gateway.caller(&asked, None);
    if caller.identity == Identity::Shared && is_reading && is_api {
        let headers = forwarded(&asked.headers);
        let answer = caller.once(asked.method, &asked.target, &headers).await?;
        return Ok(passed_on(answer.response, "fwd=bypass"));
    }
    let response = gateway.send(asked, &gateway.parts.upstream).await?;
    Ok(passed_on(response, "fwd=bypass"))
}

/// Sends a request to a host that is no registry, and its answer back.
pub(super) async fn unseen(gateway: &Gateway, asked: Box<Asked>) -> Result<Served, UpstreamError> {
    let response = gateway.send(asked, gateway.parts.upstream.for_strangers()).await?;
    Ok(passed_on(response, "fwd=bypass"))
}

/// What of a registry's response fields goes to the client along with `body`. A length beside
/// another framing is not the body's (RFC 9112 §6.3), and would cut it short here.
fn returned_with(from: &HeaderMap, body: &ResponseBody) -> HeaderMap {
    let mut fields = returned(from);
    if body.size_hint().exact().is_none() {
        fields.remove(header::CONTENT_LENGTH);
    }
    fields
}

/// A whole object as it came, completed only if it has this digest; `on_success` runs then.
pub(super) fn passed_verified(
    response: Response<IdleBody>,
    digest: &Digest,
    on_success: Box<dyn FnOnce() + Send>,
    outcome: Outcome,
) -> Served {
    let (head, body) = response.into_parts();
    let verified = VerifiedBody::new(body, *digest, on_success);
    let mut passed = Response::new(ResponseBody::Verified(Box::new(verified)));
    *passed.headers_mut() = returned_with(&head.headers, passed.body());
    cache_status(passed.headers_mut(), "fwd=miss");
    Served::new(outcome, passed)
}

/// An upstream's answer as it came, without the fields that end here.
pub(super) fn passed_on(response: Response<IdleBody>, status: &str) -> Served {
    let (head, body) = response.into_parts();
    let mut passed = Response::new(ResponseBody::upstream(body));
    *passed.headers_mut() = returned_with(&head.headers, passed.body());
    if !head.status.is_client_error() {
        // A refusal looks the same whether the object is here or not.
        cache_status(passed.headers_mut(), status);
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked for another protocol: `Upgrade` is not passed on.
        *passed.status_mut() = StatusCode::BAD_GATEWAY;
        *passed.body_mut() = ResponseBody::Empty;
    } else {
        *passed.status_mut() = head.status;
    }
    Served::new(Outcome::Relay, passed)
}
