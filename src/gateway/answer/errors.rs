//! Failures, in the words that engines print.

use std::time::Duration;

use entrepot_oci::{ErrorCode, ErrorDocument, Registry};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::ext::ReasonPhrase;
use serde_json::json;

use super::body::ResponseBody;
use super::provenance::{Provenance, Reason};
use super::served::Served;
use crate::memory::NoRoom;
use crate::registry::fields::PRODUCT;
use crate::upstream::UpstreamError;
use crate::upstream::body::BodyError;

/// An error of the proxy's own in an answer that has yet to say who speaks.
#[derive(Clone)]
struct OwnWords(ErrorDocument);

/// An error document as a response. Its message also stands in the status line, since that is what
/// engines print of a failed CONNECT, of a HEAD and of a 5xx.
#[must_use]
pub(crate) fn error_response(document: &ErrorDocument) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = document.status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    say_api_version(fields);
    write(&mut response, document);
    response.extensions_mut().insert(OwnWords(document.clone()));
    response
}

/// Whether an answer is an error of the proxy's own.
pub(in crate::gateway) fn is_own(response: &Response<ResponseBody>) -> bool {
    response.extensions().get::<OwnWords>().is_some()
}

/// Says who speaks in an error of the proxy's own, once; any other answer stays as it is.
///
/// Where clients are answered, and nowhere else: what the proxy asks itself is for its operator.
pub(crate) fn introduce(response: &mut Response<ResponseBody>, speaker: &str) {
    let Some(OwnWords(mut document)) = response.extensions_mut().remove() else { return };
    document.message = format!("{speaker}: {}", document.message);
    write(response, &document);
}

fn write(response: &mut Response<ResponseBody>, document: &ErrorDocument) {
    *response.body_mut() = ResponseBody::full(document.to_json());
    if let Ok(phrase) = ReasonPhrase::try_from(phrase(&document.message)) {
        response.extensions_mut().insert(phrase);
    }
}

/// What a status line can carry of a message: printable ASCII, and no more than fits a log.
fn phrase(message: &str) -> String {
    const LONGEST: usize = 500;
    message.chars().filter(|c| (' '..='~').contains(c)).take(LONGEST).collect()
}

/// The one place where an upstream's failure becomes a status, a code and a message.
pub(in crate::gateway) fn upstream_failed(registry: &Registry, error: &UpstreamError) -> Served {
    let (status, code) = if error.is_of_credentials() {
        (StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized)
    } else if error.is_refused_here() {
        (StatusCode::FORBIDDEN, ErrorCode::Denied)
    } else if error.limited_by() == Some(StatusCode::TOO_MANY_REQUESTS) {
        (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests)
    } else if error.is_timeout() {
        (StatusCode::GATEWAY_TIMEOUT, ErrorCode::Upstream)
    } else if error.is_known() || error.retry_after().is_some() {
        (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Upstream)
    } else {
        (StatusCode::BAD_GATEWAY, ErrorCode::Upstream)
    };
    let message = about(registry, &error.to_string());
    let mut document = ErrorDocument::new(status, code, message);
    document.detail = Some(json!({ "registry": registry.as_str(), "proxy": PRODUCT }));
    let mut response = error_response(&document);
    if let Some(wait) = error.retry_after() {
        let seconds = HeaderValue::from(whole_seconds(wait));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    let reason = Reason::Because(error.to_string());
    let is_ours = error.is_refused_here();
    let provenance = if is_ours { Provenance::Denied } else { Provenance::Failed }(reason);
    Served::new(provenance, response)
}

/// What is wrong with a registry, with its name in front unless the words begin with that.
fn about(registry: &Registry, words: &str) -> String {
    let rest = words.strip_prefix(registry.as_str());
    if rest.is_some_and(|rest| rest.starts_with([':', ' '])) {
        words.to_owned()
    } else {
        format!("{registry}: {words}")
    }
}

/// As [`upstream_failed`], for a host that is no registry: a name that leads nowhere is refused as
/// a tunnel to it would be.
pub(in crate::gateway) fn stranger_failed(host: &Registry, error: &UpstreamError) -> Served {
    if !error.is_not_found() {
        return upstream_failed(host, error);
    }
    let (status, code) = (StatusCode::FORBIDDEN, ErrorCode::Denied);
    denied(&ErrorDocument::new(status, code, about(host, &error.to_string())))
}

/// An upstream answered, but with something that can't be what was asked for.
pub(in crate::gateway) fn unusable(registry: &Registry, reason: &str) -> Served {
    let message = format!("{registry}: an unusable answer: {reason}");
    let document = ErrorDocument::new(StatusCode::BAD_GATEWAY, ErrorCode::Upstream, message);
    let failed = Provenance::Failed(Reason::Because(reason.to_owned()));
    Served::new(failed, error_response(&document))
}

/// An upstream's body did not come whole.
pub(in crate::gateway) fn broken(registry: &Registry, error: &BodyError) -> Served {
    match error {
        BodyError::NoRoom(NoRoom) => no_room(registry),
        error => unusable(registry, &error.to_string()),
    }
}

/// A replica wants what comes from a replica itself: it must not wait for that.
pub(in crate::gateway) fn elsewhere(registry: &Registry) -> Served {
    let message = format!(
        "{registry}: this replica gets that from another one itself: ask the registry, or whoever \
         has it"
    );
    let status = StatusCode::MISDIRECTED_REQUEST;
    denied(&ErrorDocument::new(status, ErrorCode::Unsupported, message))
}

/// The memory that a request needs is not to be had.
pub(in crate::gateway) fn no_room(registry: &Registry) -> Served {
    let message = format!("{registry}: {NoRoom}");
    let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::TooManyRequests);
    let mut response = error_response(&ErrorDocument::new(status, code, message));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    Served::new(Provenance::Failed(Reason::Because(NoRoom.to_string())), response)
}

/// The proxy itself refuses a request.
pub(in crate::gateway) fn denied(document: &ErrorDocument) -> Served {
    let reason = Reason::Because(document.message.clone());
    Served::new(Provenance::Denied(reason), error_response(document))
}

/// What every answer of the API says of itself.
pub(in crate::gateway) fn say_api_version(fields: &mut HeaderMap) {
    fields.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
}

/// A wait in words that fit `Retry-After`: whole seconds, at least one.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}
