//! A registry's answer as it came.

use entrepot_oci::{Digest, ErrorCode, ErrorDocument, Registry};
use http::{HeaderMap, Response, StatusCode, header};
use http_body::Body as _;

use super::body::ResponseBody;
use super::errors::{error_response, unusable};
use super::provenance::{Forward, Provenance};
use super::served::Served;
use super::verified::VerifiedBody;
use crate::registry::fields::returned;
use crate::upstream::body::IdleBody;
use crate::upstream::client::AnsweredAt;

/// An upstream's answer without the fields that end here.
pub(in crate::gateway) fn passed_on(response: Response<IdleBody>, why: Forward) -> Served {
    let (mut head, body) = response.into_parts();
    let mut passed = Response::new(ResponseBody::upstream(body));
    if let Some(answered) = head.extensions.remove::<AnsweredAt>() {
        passed.extensions_mut().insert(answered);
    }
    *passed.headers_mut() = returned_with(&head.headers, passed.body());
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // No request asks for another protocol: `Upgrade` is not passed on.
        let message = "the registry wants to speak another protocol, which nobody has asked for";
        let (status, code) = (StatusCode::BAD_GATEWAY, ErrorCode::Upstream);
        passed = error_response(&ErrorDocument::new(status, code, message));
    } else {
        *passed.status_mut() = head.status;
    }
    signed_unless_refusal(Provenance::Relayed(why), passed)
}

/// An answer to a request for what a digest names, or for all of a manifest, which is not that.
/// Only a plain 200 is checked, and so any other success that has content would pass unchecked:
/// `203`, or a `206` that nobody has asked for.
pub(in crate::gateway) fn not_content(registry: &Registry, response: Response<IdleBody>) -> Served {
    let status = response.status();
    if status.is_success() {
        return unusable(registry, &format!("{status} in place of a whole object"));
    }
    passed_on(response, Forward::Miss)
}

/// A registry's answer of which the body is not there any more, or was never.
pub(in crate::gateway) fn passed_head(status: StatusCode, fields: &HeaderMap) -> Served {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = status;
    *response.headers_mut() = returned(fields);
    // It may be the answer to another client's question.
    response.headers_mut().remove(header::SET_COOKIE);
    signed_unless_refusal(Provenance::Relayed(Forward::Request), response)
}

/// A refusal looks the same whether the object is here or not.
fn signed_unless_refusal(provenance: Provenance, response: Response<ResponseBody>) -> Served {
    if response.status().is_client_error() {
        Served::unsigned(provenance, response)
    } else {
        Served::new(provenance, response)
    }
}

/// A whole object, completed only if it has this digest; `on_success` runs then.
pub(in crate::gateway) fn passed_verified(
    response: Response<IdleBody>,
    digest: &Digest,
    on_success: Box<dyn FnOnce() + Send>,
    provenance: Provenance,
) -> Served {
    let (head, body) = response.into_parts();
    let verified = VerifiedBody::new(body, *digest, on_success);
    let mut passed = Response::new(ResponseBody::Verified(Box::new(verified)));
    *passed.headers_mut() = returned_with(&head.headers, passed.body());
    // What has the digest as it comes is the object itself, whatever its storage calls it.
    passed.headers_mut().remove(header::CONTENT_ENCODING);
    Served::new(provenance, passed)
}

/// Adds what a registry has said of the quota of who asked to an answer that is put together here:
/// monitors ask for nothing else. Only where it has said so about this very request.
pub(in crate::gateway) fn tell_quota(told: &HeaderMap, served: &mut Served) {
    let is_of_quota = |name: &str| {
        name == "docker-ratelimit-source"
            || name.starts_with("ratelimit")
            || name.starts_with("x-ratelimit")
    };
    for (name, value) in told.iter().filter(|(name, _)| is_of_quota(name.as_str())) {
        served.response.headers_mut().insert(name, value.clone());
    }
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
