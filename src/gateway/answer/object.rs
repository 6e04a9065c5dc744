//! An object of the store as a response: its header fields, the part that is asked for.

use std::time::SystemTime;

use bytes::Bytes;
use entrepot_cache::Reader;
use entrepot_oci::Digest;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::body::ResponseBody;
use super::errors::say_api_version;
use super::multipart::Multipart;
use super::provenance::Provenance;
use super::ranges::{ByteRanges, Selected};
use super::served::Served;
use super::stored::StoredBody;
use super::verified::VerifiedBody;
use crate::gateway::exchange::{Asked, Source};
use crate::registry::fields::{append, text};
use crate::upstream::body::IdleBody;

/// About as many fields as an answer has; a map that grows is built anew each time.
const FIELDS: usize = 12;

/// How an object is presented.
pub(in crate::gateway) struct Presentation {
    /// `Content-Type`.
    pub(in crate::gateway) media_type: &'static str,
    /// Where it came from.
    pub(in crate::gateway) provenance: Provenance,
    /// When the registry delivered it, for `Age`.
    pub(in crate::gateway) since: Option<SystemTime>,
    /// Where the bytes are to be had if the store fails.
    pub(in crate::gateway) source: Source,
}

/// The answer to a GET or HEAD for `reader`'s object, whole or in part.
pub(in crate::gateway) fn respond(reader: Reader, shown: Presentation) -> Served {
    let Presentation { media_type, provenance, since, source } = shown;
    let Asked { method, headers: request, .. } = &source.exchange.asked;
    let tag = Bytes::from(format!("\"{}\"", reader.digest()));
    let mut response = Response::new(ResponseBody::Empty);
    describe(response.headers_mut(), media_type, since, tag.clone());
    let tag = std::str::from_utf8(&tag).unwrap_or_default();
    if matches_any(text(request, header::IF_NONE_MATCH), tag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Served::new(provenance, response);
    }
    if let Some(length) = reader.size() {
        let part = part(method, request, tag, length);
        fill(&mut response, part, reader, length, media_type, &source);
    } else {
        // Its length is not known yet: any range is ignored, as RFC 9110 §14.2 allows.
        *response.body_mut() = ResponseBody::stored(StoredBody::whole(reader, source.clone()));
    }
    if method != Method::GET {
        // "HEAD … the server MUST NOT send content in the response" (RFC 9110 §9.3.2).
        *response.body_mut() = ResponseBody::Empty;
    }
    Served::new(provenance, response)
}

/// The answer to a HEAD for an object that is not here, and of which so much is known.
pub(in crate::gateway) fn respond_unseen(
    digest: &Digest,
    length: u64,
    media_type: &'static str,
    since: Option<SystemTime>,
    provenance: Provenance,
) -> Served {
    let mut response = Response::new(ResponseBody::Empty);
    let fields = response.headers_mut();
    describe(fields, media_type, since, Bytes::from(format!("\"{digest}\"")));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Served::new(provenance, response)
}

/// The status, the fields and the body that a part calls for.
fn fill(
    response: &mut Response<ResponseBody>,
    part: Selected,
    reader: Reader,
    length: u64,
    media_type: &str,
    source: &Source,
) {
    let (status, count, body) = match part {
        Selected::Whole => {
            let body = StoredBody::whole(reader, source.clone());
            (StatusCode::OK, length, ResponseBody::stored(body))
        }
        Selected::One(one) => {
            append(response.headers_mut(), header::CONTENT_RANGE, &one.content_range(length));
            let body = StoredBody::part(reader, one.first, one.count(), source.clone());
            (StatusCode::PARTIAL_CONTENT, one.count(), ResponseBody::stored(body))
        }
        Selected::Several(spans) => {
            let multipart = Multipart::new(&reader, &spans, length, media_type, source);
            let content_type = format!("multipart/byteranges; boundary={}", multipart.boundary());
            response.headers_mut().remove(header::CONTENT_TYPE);
            append(response.headers_mut(), header::CONTENT_TYPE, &content_type);
            (StatusCode::PARTIAL_CONTENT, multipart.length(), ResponseBody::multipart(multipart))
        }
        Selected::Unsatisfiable => {
            append(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{length}"));
            (StatusCode::RANGE_NOT_SATISFIABLE, 0, ResponseBody::Empty)
        }
    };
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(count));
    *response.body_mut() = body;
}

/// A whole object that comes from its registry, past the store.
pub(in crate::gateway) struct PassedObject {
    /// What it must be.
    pub(in crate::gateway) digest: Digest,
    /// How long the registry says it is.
    pub(in crate::gateway) length: Option<u64>,
    /// `Content-Type`.
    pub(in crate::gateway) media_type: &'static str,
    /// Where it came from.
    pub(in crate::gateway) provenance: Provenance,
}

/// The answer to a GET by what the registry has answered to one of the whole, in the form of
/// [`respond`]; completed only if the whole has its digest, and `on_success` runs then.
pub(in crate::gateway) fn passed_object(
    from: Response<IdleBody>,
    asked: &Asked,
    object: PassedObject,
    on_success: Box<dyn FnOnce() + Send>,
) -> Served {
    let PassedObject { digest, length, media_type, provenance } = object;
    let tag = format!("\"{digest}\"");
    let mut response = Response::new(ResponseBody::Empty);
    describe(response.headers_mut(), media_type, None, Bytes::from(tag.clone()));
    if matches_any(text(&asked.headers, header::IF_NONE_MATCH), &tag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Served::new(provenance, response);
    }
    let part = length.map(|length| (part(&asked.method, &asked.headers, &tag, length), length));
    let verified = match part {
        Some((Selected::One(span), length)) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let fields = response.headers_mut();
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from(span.count()));
            append(fields, header::CONTENT_RANGE, &span.content_range(length));
            VerifiedBody::part(from.into_body(), digest, span.first, span.count(), on_success)
        }
        Some((Selected::Unsatisfiable, length)) => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
            append(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{length}"));
            return Served::new(provenance, response);
        }
        // Several parts would have to wait for each other: the whole is an answer to that too.
        Some((Selected::Whole | Selected::Several(_), _)) | None => {
            if let Some(length) = length {
                response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            VerifiedBody::new(from.into_body(), digest, on_success)
        }
    };
    *response.body_mut() = ResponseBody::Verified(Box::new(verified));
    Served::new(provenance, response)
}

fn describe(
    fields: &mut HeaderMap,
    media_type: &'static str,
    since: Option<SystemTime>,
    tag: Bytes,
) {
    fields.reserve(FIELDS);
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    // The entity tag without its quotes is the digest.
    let digest = tag.slice(1..tag.len().saturating_sub(1).max(1));
    let named = [(header::ETAG, tag), (HeaderName::from_static("docker-content-digest"), digest)];
    for (name, value) in named {
        if let Ok(value) = HeaderValue::from_maybe_shared(value) {
            fields.insert(name, value);
        }
    }
    say_api_version(fields);
    fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(age) = since.and_then(|since| since.elapsed().ok()) {
        fields.insert(header::AGE, HeaderValue::from(age.as_secs()));
    }
}

/// The part that a request means. "A server MUST ignore a Range header field received with a
/// request method that is unrecognized or for which range handling is not defined. For this
/// specification, GET is the only method" (RFC 9110 §14.2).
fn part(method: &Method, request: &HeaderMap, tag: &str, length: u64) -> Selected {
    let current = text(request, header::IF_RANGE).is_none_or(|condition| condition == tag);
    match text(request, header::RANGE).and_then(ByteRanges::parse) {
        Some(ranges) if method == Method::GET && current => ranges.of(length),
        _ => Selected::Whole,
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
