//! Everything that is only passed on: pings, tokens, listings, pushes, whatever is no content.

use http::{HeaderMap, Response, StatusCode, header};
use http_body::Body as _;

use super::body::ResponseBody;
use super::headers::{cache_status, returned};
use super::{Asked, Gateway, Served};
use crate::log::Outcome;
use crate::upstream::UpstreamError;
use crate::upstream::body::IdleBody;

/// Sends the request to the registry and its answer to the client. Redirects are the client's.
pub(super) async fn serve(gateway: &Gateway, asked: Asked) -> Result<Served, UpstreamError> {
    let response = gateway.send(asked).await?;
    Ok(passed_on(response, "fwd=bypass"))
}

/// What of a registry's response fields goes to the client along with `body`. A length beside
/// another framing is not the body's (RFC 9112 §6.3), and would cut it short here.
pub(super) fn returned_with(from: &HeaderMap, body: &ResponseBody) -> HeaderMap {
    let mut fields = returned(from);
    if body.size_hint().exact().is_none() {
        fields.remove(header::CONTENT_LENGTH);
    }
    fields
}

/// An upstream's answer as it came, without the fields that end here.
pub(super) fn passed_on(response: Response<IdleBody>, status: &str) -> Served {
    let (head, body) = response.into_parts();
    let mut passed = Response::new(ResponseBody::upstream(body));
    *passed.headers_mut() = returned_with(&head.headers, passed.body());
    cache_status(passed.headers_mut(), status);
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked for another protocol: `Upgrade` is not passed on.
        *passed.status_mut() = StatusCode::BAD_GATEWAY;
        *passed.body_mut() = ResponseBody::Empty;
    } else {
        *passed.status_mut() = head.status;
    }
    Served::new(Outcome::Relay, passed)
}
