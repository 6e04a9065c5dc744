//! What an answer says: consents, is the plain content, begins at an offset, means trouble.

use entrepot_oci::{Authority, Digest};
use http::{HeaderMap, Response, StatusCode, header};

use super::fields::text;
use crate::upstream::UpstreamError;
use crate::upstream::body::IdleBody;
use crate::upstream::client::Followed;

/// Whether a status tells of the registry's own state, and nothing of what was asked for.
pub(crate) fn is_trouble(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// The status of an answer that tells of the registry's own state, and nothing of what was asked
/// for: an error of its own, or the page of what stands before it.
pub(crate) fn trouble(status: StatusCode, headers: &HeaderMap) -> Option<StatusCode> {
    (is_trouble(status) || is_barrier(status, headers)).then_some(status)
}

/// Whether a 401 or 403 is not the registry's: bot protection and captive portals answer with a
/// page of theirs, while a registry's refusal has a challenge or an error document.
fn is_barrier(status: StatusCode, headers: &HeaderMap) -> bool {
    let is_registrys = headers.contains_key("docker-distribution-api-version")
        || (status == StatusCode::UNAUTHORIZED && headers.contains_key(header::WWW_AUTHENTICATE));
    let is_document = |kind: &str| kind.to_ascii_lowercase().contains("json");
    let is_page = text(headers, header::CONTENT_TYPE).is_some_and(|kind| !is_document(kind));
    is_refused(status) && !is_registrys && is_page
}

fn is_refused(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// An answer that says nothing but that the registry is unwell, as an error.
pub(crate) fn refuse_trouble(
    authority: &Authority,
    answer: &Followed,
) -> Result<(), UpstreamError> {
    match trouble_of(answer) {
        Some(status) => Err(UpstreamError::Unwell { authority: authority.clone(), status }),
        None => Ok(()),
    }
}

/// As [`trouble`]. What storage refuses is about the object.
pub(crate) fn trouble_of(answer: &Followed) -> Option<StatusCode> {
    let (status, headers) = (answer.response.status(), answer.response.headers());
    if answer.is_from_registry() {
        trouble(status, headers)
    } else {
        is_trouble(status).then_some(status)
    }
}

/// Whether the registry itself refuses the identity that asked.
pub(crate) fn is_refusal(answer: &Followed) -> bool {
    let (status, headers) = (answer.response.status(), answer.response.headers());
    answer.is_from_registry() && is_refused(status) && !is_barrier(status, headers)
}

/// Whether an answer is about this very object: storage that has it in its path, or a registry that
/// says so.
pub(crate) fn names(answer: &Followed, digest: &Digest) -> bool {
    let named = text(answer.response.headers(), "docker-content-digest");
    answer.names(&digest.hex()) || named == Some(&digest.to_string())
}

/// Whether a registry's answer to a HEAD is its yes to this very object: a login page is a 200
/// too, and a redirect to one is a redirect.
pub(crate) fn consents(answer: &Followed, digest: &Digest, size: Option<u64>) -> bool {
    let response = &answer.response;
    if answer.names(&digest.hex()) {
        return true;
    }
    let named = text(response.headers(), "docker-content-digest");
    let is_of_size = size.is_some() && content_length(response) == size;
    response.status() == StatusCode::OK
        && match named {
            Some(named) => *named == digest.to_string(),
            None => is_of_size && !is_page(response.headers()),
        }
}

/// Whether the registry itself says that it has something no more, or must not serve it.
pub(crate) fn is_gone(answer: &Followed) -> bool {
    const GONE: [StatusCode; 4] = [
        StatusCode::NOT_FOUND,
        StatusCode::GONE,
        StatusCode::PRECONDITION_FAILED,
        StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS,
    ];
    answer.is_from_registry() && GONE.contains(&answer.response.status())
}

/// Whether an answer is a page for people, whatever its size.
fn is_page(headers: &HeaderMap) -> bool {
    text(headers, header::CONTENT_TYPE)
        .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/"))
}

/// Whether an answer to a GET of the first byte is the registry's yes to this very object.
pub(crate) fn begins(answer: &Followed, digest: &Digest, size: Option<u64>) -> bool {
    let headers = answer.response.headers();
    let named = text(headers, "docker-content-digest");
    let is_same_size = size.is_some() && total(headers) == size;
    starts_at(&answer.response, 0)
        && named.map_or(is_same_size, |named| *named == digest.to_string())
}

/// The digest under which a registry serves what was asked for; a page of something else has none.
pub(crate) fn named_digest(status: StatusCode, headers: &HeaderMap) -> Option<Digest> {
    if status == StatusCode::OK { digest_of(headers) } else { None }
}

/// `Docker-Content-Digest`.
pub(crate) fn digest_of(headers: &HeaderMap) -> Option<Digest> {
    text(headers, "docker-content-digest")?.parse().ok()
}

/// A 200, whose bytes are checked against a digest: that alone tells whether they are the object's
/// own, as they come. (Some storage calls the layers that it keeps `gzip` or `x-gzip`.)
pub(crate) fn is_whole(response: &Response<IdleBody>) -> bool {
    response.status() == StatusCode::OK
}

/// A 200 whose bytes are what was asked for: an encoded body is something else.
pub(crate) fn is_plain_content(response: &Response<IdleBody>) -> bool {
    response.status() == StatusCode::OK && is_unencoded(response.headers())
}

fn is_unencoded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// `Content-Length`.
pub(crate) fn content_length(response: &Response<IdleBody>) -> Option<u64> {
    text(response.headers(), header::CONTENT_LENGTH)?.parse().ok()
}

/// Whether an answer is the part from `offset` on (RFC 9110 §14.4).
pub(crate) fn starts_at(response: &Response<IdleBody>, offset: u64) -> bool {
    response.status() == StatusCode::PARTIAL_CONTENT
        && first_byte(response.headers()) == Some(offset)
}

/// The offset in `Content-Range: bytes 5-9/10`.
pub(super) fn first_byte(headers: &HeaderMap) -> Option<u64> {
    text(headers, header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// The object's length in `Content-Range: bytes 5-9/10`.
pub(crate) fn total(headers: &HeaderMap) -> Option<u64> {
    text(headers, header::CONTENT_RANGE)?.rsplit_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_content_range_is_read() {
        let mut headers = HeaderMap::new();
        assert_eq!((first_byte(&headers), total(&headers)), (None, None));
        headers.insert(header::CONTENT_RANGE, HeaderValue::from_static("bytes 5-9/10"));
        assert_eq!((first_byte(&headers), total(&headers)), (Some(5), Some(10)));
    }
}
