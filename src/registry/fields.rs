//! Which header fields go to a registry, and which come back.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::upstream::fields::{CONDITIONS, for_strangers};
use crate::upstream::via;

/// How the proxy calls itself where it does not speak for a client.
const USER_AGENT: &str = concat!("entrepot/", env!("CARGO_PKG_VERSION"));

/// RFC 9110 §7.6.1: fields that are for the next hop alone, beside those that `Connection` names.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What of a client's request fields goes to the registry.
///
/// `Host` and `Content-Length` are made anew from what is really sent; `Expect` was answered here.
pub(crate) fn forwarded(from: &HeaderMap) -> HeaderMap {
    let mut fields = end_to_end(from);
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        fields.remove(name);
    }
    via::sign(&mut fields);
    fields
}

/// What of a client's fields goes along with what the proxy itself is at a registry: nothing that a
/// registry could take for a credential, or that would make it do something else.
pub(crate) fn for_ourselves(from: &HeaderMap) -> HeaderMap {
    let mut fields = for_strangers(from);
    fields.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    fields
}

/// As [`forwarded`], for content that is hashed: the bytes must come as they are stored.
pub(crate) fn for_content(from: &HeaderMap) -> HeaderMap {
    let mut fields = forwarded(from);
    fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    fields
}

/// As [`for_content`], for the whole object whatever part the client wants.
pub(crate) fn for_whole_content(from: &HeaderMap) -> HeaderMap {
    let mut fields = for_content(from);
    for name in CONDITIONS.into_iter().chain([header::RANGE]) {
        fields.remove(name);
    }
    fields
}

/// What of a registry's response fields goes to the client. `Alt-Svc` would lead it around us.
pub(crate) fn returned(from: &HeaderMap) -> HeaderMap {
    let mut fields = end_to_end(from);
    fields.remove(header::ALT_SVC);
    via::sign(&mut fields);
    fields
}

/// Takes away what a registry gives to whom it has let in, to be known by: it is the proxy's own,
/// and opens more than pulls.
pub(crate) fn without_session(fields: &mut HeaderMap) {
    for name in ["set-cookie", "set-cookie2", "authentication-info"] {
        fields.remove(name);
    }
}

fn end_to_end(from: &HeaderMap) -> HeaderMap {
    let nominated = nominated(from);
    from.iter()
        .filter(|(name, _)| {
            !HOP_BY_HOP.contains(&name.as_str()) && !nominated.iter().any(|n| n == *name)
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The fields that `Connection` names, but for those whose loss would change what is asked.
fn nominated(from: &HeaderMap) -> Vec<HeaderName> {
    let kept = [header::HOST, header::AUTHORIZATION, header::CONTENT_LENGTH, header::VIA];
    from.get_all(header::CONNECTION)
        .iter()
        // By bytes: what is no name, in whatever characters, takes nothing from the names beside it.
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !kept.contains(name))
        .collect()
}

/// Appends a field; the values here are our own words, which always make a field value.
pub(crate) fn append(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.append(name, value);
    }
}

/// A text field's value, if it has exactly one and it is text.
pub(crate) fn text(fields: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    fields.get(name).and_then(|value| value.to_str().ok())
}

/// A test's header fields.
#[cfg(test)]
pub(crate) fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
        map.append(*name, HeaderValue::from_static(value));
        map
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_fields_end_here() {
        let request = map(&[
            ("host", "ghcr.io"),
            ("connection", "close, X-Secret, Authorization"),
            ("x-secret", "1"),
            ("authorization", "Bearer x"),
            ("proxy-authorization", "Basic x"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("accept", "a"),
            ("accept", "b"),
        ]);
        let sent = forwarded(&request);
        let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "authorization", "via"]);
        assert_eq!(sent.get_all("accept").iter().count(), 2);
    }

    #[test]
    fn what_connection_names_ends_here_whatever_else_it_holds() {
        let mut request = map(&[("x-secret", "1"), ("x-other", "2")]);
        let value = HeaderValue::from_bytes(b"X-Secret, \xff, x-other").unwrap();
        request.insert(header::CONNECTION, value);
        for sent in [forwarded(&request), returned(&request)] {
            assert!(!sent.contains_key("x-secret") && !sent.contains_key("x-other"), "{sent:?}");
        }
    }

    #[test]
    fn content_is_asked_for_unencoded_and_whole() {
        let request = map(&[
            ("accept-encoding", "zstd, gzip"),
            ("range", "bytes=0-1"),
            ("if-none-match", "x"),
        ]);
        let part = for_content(&request);
        assert_eq!(part["accept-encoding"], "identity");
        assert_eq!(part["range"], "bytes=0-1");
        let whole = for_whole_content(&request);
        assert!(!whole.contains_key("range") && !whole.contains_key("if-none-match"));
    }

    #[test]
    fn an_alternative_service_is_not_passed_on() {
        let response = returned(&map(&[("alt-svc", "h3=\":443\""), ("warning", "299 - \"x\"")]));
        assert!(!response.contains_key("alt-svc"));
        assert!(response.contains_key("warning"));
    }
}
