//! An object of the store as a response: its header fields, the part that is asked for.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use entrepot_cache::Reader;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::body::{ResponseBody, StoredBody};
use super::fill::Source;
use super::headers::{append, cache_status, text};
use super::multipart::Multipart;
use super::ranges::{ByteRanges, Part};

/// About as many fields as an answer has; a map that grows is built anew each time.
const FIELDS: usize = 12;

/// How an object is presented.
pub(super) struct Presentation {
    /// `Content-Type`.
    pub(super) media_type: &'static str,
    /// What `Cache-Status` says after our name.
    pub(super) status: &'static str,
    /// When the registry delivered it, for `Age`.
    pub(super) since: Option<SystemTime>,
    /// Where the bytes are to be had if the store fails.
    pub(super) rescue: Option<Arc<Source>>,
}

/// The answer to a GET or HEAD for `reader`'s object, whole or in part.
pub(super) fn respond(
    method: &Method,
    request: &HeaderMap,
    reader: Reader,
    shown: &Presentation,
) -> Response<ResponseBody> {
    let tag = Bytes::from(format!("\"{}\"", reader.digest()));
    let mut response = Response::new(ResponseBody::Empty);
    describe(response.headers_mut(), shown, tag.clone());
    let tag = std::str::from_utf8(&tag).unwrap_or_default();
    if matches_any(text(request, header::IF_NONE_MATCH), tag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    let Some(length) = reader.size() else {
        // Nobody knows yet where it ends: any range is ignored, as RFC 9110 §14.2 allows.
        let body = StoredBody::whole(reader, shown.rescue.clone());
        *response.body_mut() = ResponseBody::stored(body);
        return emptied_for(method, response);
    };
    let part = part(method, request, tag, length);
    fill(&mut response, part, reader, length, shown);
    emptied_for(method, response)
}

/// The status, the fields and the body that a part calls for.
fn fill(
    response: &mut Response<ResponseBody>,
    part: Part,
    reader: Reader,
    length: u64,
    shown: &Presentation,
) {
    let (status, count, body) = match part {
        Part::Whole => {
            let body = StoredBody::whole(reader, shown.rescue.clone());
            (StatusCode::OK, length, ResponseBody::stored(body))
        }
        Part::One(one) => {
            append(response.headers_mut(), header::CONTENT_RANGE, &one.content_range(length));
            let rescue = shown.rescue.clone();
            let body = StoredBody::part(reader, one.first, one.count(), rescue);
            (StatusCode::PARTIAL_CONTENT, one.count(), ResponseBody::stored(body))
        }
        Part::Several(spans) => {
            let rescue = shown.rescue.as_ref();
            let multipart = Multipart::new(&reader, &spans, length, shown.media_type, rescue);
            let content_type = format!("multipart/byteranges; boundary={}", multipart.boundary());
            response.headers_mut().remove(header::CONTENT_TYPE);
            append(response.headers_mut(), header::CONTENT_TYPE, &content_type);
            (StatusCode::PARTIAL_CONTENT, multipart.length(), ResponseBody::multipart(multipart))
        }
        Part::Unsatisfiable => {
            append(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{length}"));
            (StatusCode::RANGE_NOT_SATISFIABLE, 0, ResponseBody::Empty)
        }
    };
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(count));
    *response.body_mut() = body;
}

/// HEAD has the fields of GET and no body.
fn emptied_for(method: &Method, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    if method != Method::GET {
        *response.body_mut() = ResponseBody::Empty;
    }
    response
}

fn describe(fields: &mut HeaderMap, shown: &Presentation, tag: Bytes) {
    fields.reserve(FIELDS);
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(shown.media_type));
    // The same bytes twice: without its quotes the tag is the digest.
    let digest = tag.slice(1..tag.len().saturating_sub(1).max(1));
    let named = [(header::ETAG, tag), (HeaderName::from_static("docker-content-digest"), digest)];
    for (name, value) in named {
        if let Ok(value) = HeaderValue::from_maybe_shared(value) {
            fields.insert(name, value);
        }
    }
    fields.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    cache_status(fields, shown.status);
    if let Some(age) = shown.since.and_then(|since| since.elapsed().ok()) {
        fields.insert(header::AGE, HeaderValue::from(age.as_secs()));
    }
}

/// The part that a request means. "A server MUST ignore a Range header field received with a
/// request method that is unrecognized or for which range handling is not defined. For this
/// specification, GET is the only method" (RFC 9110 §14.2).
fn part(method: &Method, request: &HeaderMap, tag: &str, length: u64) -> Part {
    let current = text(request, header::IF_RANGE).is_none_or(|condition| condition == tag);
    match text(request, header::RANGE).and_then(ByteRanges::parse) {
        Some(ranges) if method == Method::GET && current => ranges.of(length),
        _ => Part::Whole,
    }
}

/// `If-None-Match` by weak comparison (RFC 9110 §13.1.2).
fn matches_any(condition: Option<&str>, tag: &str) -> bool {
    condition.is_some_and(|list| {
        list.split(',')
            .map(str::trim)
            .any(|item| item == "*" || item.trim_start_matches("W/") == tag)
    })
}
