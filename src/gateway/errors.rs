//! Failures, in the words that engines print.

use entrepot_oci::{ErrorCode, ErrorDocument, Registry};
use http::{HeaderValue, Response, StatusCode, header};
use hyper::ext::ReasonPhrase;
use serde_json::json;

use super::Served;
use super::body::ResponseBody;
use super::headers::cache_status;
use super::reason::whole_seconds;
use crate::log::Outcome;
use crate::upstream::UpstreamError;

/// An error document as a response. Its message also stands in the status line, since that is what
/// engines print of a failed CONNECT and of a 5xx.
#[must_use]
pub fn error_response(document: &ErrorDocument) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(document.to_json()));
    *response.status_mut() = document.status;
    if let Ok(phrase) = ReasonPhrase::try_from(phrase(&document.message)) {
        response.extensions_mut().insert(phrase);
    }
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    response
}

/// What a status line can carry of a message: printable ASCII, and no more than fits a log.
fn phrase(message: &str) -> String {
    const LONGEST: usize = 500;
    message.chars().filter(|c| (' '..='~').contains(c)).take(LONGEST).collect()
}

/// Whether a status tells of the registry's own state, and nothing of what was asked for.
pub(super) fn is_trouble(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// The one place where an upstream's failure becomes a status, a code and a message.
pub(super) fn upstream_failed(registry: &Registry, error: &UpstreamError) -> Served {
    let (status, code, outcome) = if error.is_refused_here() {
        (StatusCode::FORBIDDEN, ErrorCode::Denied, Outcome::Denied)
    } else if error.limited_by() == Some(StatusCode::TOO_MANY_REQUESTS) {
        (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, Outcome::Error)
    } else if error.is_timeout() {
        (StatusCode::GATEWAY_TIMEOUT, ErrorCode::Upstream, Outcome::Error)
    } else if error.is_known() || error.retry_after().is_some() {
        (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Upstream, Outcome::Error)
    } else {
        (StatusCode::BAD_GATEWAY, ErrorCode::Upstream, Outcome::Error)
    };
    let message = format!("{registry}: {error}");
    let mut document = ErrorDocument::new(status, code, message);
    document.detail = Some(json!({ "registry": registry.as_str(), "proxy": super::PRODUCT }));
    let mut response = error_response(&document);
    cache_status(response.headers_mut(), "fwd=miss");
    if let Some(wait) = error.retry_after() {
        let seconds = HeaderValue::from(whole_seconds(wait));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    Served { response, outcome, reason: Some(error.to_string()) }
}

/// An upstream answered, but with something that can't be what was asked for.
pub(super) fn unusable(registry: &Registry, reason: &str) -> Served {
    let message = format!("{registry}: an unusable answer: {reason}");
    let document = ErrorDocument::new(StatusCode::BAD_GATEWAY, ErrorCode::Upstream, message);
    let response = error_response(&document);
    Served { response, outcome: Outcome::Error, reason: Some(reason.to_owned()) }
}
