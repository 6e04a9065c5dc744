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

/// An answer that says nothing but that the registry is unwell, as an error.
pub(crate) fn refuse_trouble(
    authority: &Authority,
    answer: &Followed,
) -> Result<(), UpstreamError> {
    let status = answer.response.status();
    if is_trouble(status) {
        return Err(UpstreamError::Unwell { authority: authority.clone(), status });
    }
    Ok(())
}

/// Whether the registry itself refuses the identity that asked.
pub(crate) fn is_refusal(answer: &Followed) -> bool {
    let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
    answer.is_from_registry() && refused.contains(&answer.response.status())
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
    response.status() == StatusCode::OK
        && (named == Some(&digest.to_string())
            || (named.is_none() && size.is_some() && content_length(response) == size))
}

/// The digest under which a registry serves what was asked for; a page of something else has none.
pub(crate) fn named_digest(status: StatusCode, headers: &HeaderMap) -> Option<Digest> {
    if status == StatusCode::OK { digest_of(headers) } else { None }
}

/// `Docker-Content-Digest`.
pub(crate) fn digest_of(headers: &HeaderMap) -> Option<Digest> {
    text(headers, "docker-content-digest")?.parse().ok()
}

/// A 200 whose bytes are the object's own: an encoded body hashes to something else.
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

/// Whether an answer is the part from `offset` on, as it is stored (RFC 9110 §14.4).
pub(crate) fn starts_at(response: &Response<IdleBody>, offset: u64) -> bool {
    response.status() == StatusCode::PARTIAL_CONTENT
        && is_unencoded(response.headers())
        && first_byte(response.headers()) == Some(offset)
}

/// The offset in `Content-Range: bytes 5-9/10`.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
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
